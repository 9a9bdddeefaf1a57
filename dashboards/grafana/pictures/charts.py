"""Charts over time, as SVG: curves, stacked bars, and states."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from pictures.answers import Series, Span, step
from pictures.units import COLOURS, shown, ticks

DAY: Final = 86_400
_CHARACTER: Final = 6.6  # the width of one, about
_BELOW: Final = 22  # pixels for the days
_LABEL: Final = 46  # pixels that a day's label needs


@dataclass(frozen=True)
class Area:
    """Where a chart is drawn: its size, and how far from the left its curves begin."""

    span: Span
    width: float
    height: float
    left: float
    lowest: float = 0
    highest: float = 1

    def x(self, at: float) -> float:
        part = (at - self.span.since) / (self.span.until - self.span.since)
        return self.left + part * (self.width - self.left)

    def y(self, value: float) -> float:
        part = (value - self.lowest) / (self.highest - self.lowest)
        return 6 + (1 - part) * (self.height - _BELOW - 6)

    def days(self) -> Iterator[str]:
        """The days below, as many as there is room for, and a faint line for each."""
        span = self.span
        width_of_a_day = (self.width - self.left) * DAY / (span.until - span.since)
        every = DAY * math.ceil(_LABEL / width_of_a_day)
        for at in range(-(-span.since // DAY) * DAY, span.until, every):
            x = self.x(at)
            yield _line((x, 6), (x, self.height - _BELOW), "grid")
            # At the very edge half of a label would be cut off.
            if self.left + 12 <= x <= self.width - 18:
                name = datetime.fromtimestamp(at, UTC).strftime("%m/%d")
                yield _text(x, self.height - 5, name, "middle")

    def values(self, unit: str) -> Iterator[str]:
        """The values to the left, and a faint line for each."""
        for value in ticks(self.lowest, self.highest, unit):
            y = self.y(value)
            yield _line((self.left, y), (self.width, y), "grid")
            yield _text(self.left - 8, y + 4, _tick(value, unit), "end")


def over_time(
    panel: Mapping[str, Any],
    found: Sequence[Series],
    span: Span,
    size: tuple[float, float],
    *,
    colours: Mapping[str, str],
    alerts: Sequence[int],
) -> str:
    """Curves or bars, and where an alert began to fire."""
    config = panel["fieldConfig"]["defaults"]
    bars = config["custom"].get("drawStyle") == "bars"
    layers = _stacked(found) if bars else [dict(row.points) for row in found]
    values = [v for layer in layers for v in layer.values() if math.isfinite(v)]
    lowest, highest = min([0, *values]), max(values, default=1) * 1.06 or 1
    labels = [_tick(value, config["unit"]) for value in ticks(lowest, highest, config["unit"])]
    left = 14 + _CHARACTER * max(len(label) for label in labels)
    area = Area(span, *size, left, lowest, highest)
    parts = [*area.values(config["unit"]), *area.days()]
    if bars:
        below = [dict.fromkeys(layers[0], 0.0), *layers]
        for row, bottom, top in zip(found, below, layers, strict=False):
            parts += _bars(area, bottom, top, step(panel), colours[row.name])
    else:
        for row, layer in zip(found, layers, strict=True):
            parts += _curve(area, layer, step(panel), colours[row.name])
    if config["custom"].get("thresholdsStyle"):
        for limit in config["thresholds"]["steps"][1:]:
            if lowest < limit["value"] <= highest:
                y, colour = area.y(limit["value"]), COLOURS[limit["color"]]
                parts.append(_line((area.left, y), (area.width, y), "limit", colour))
    ground = area.height - _BELOW
    for at in alerts:
        x = area.x(at)
        parts.append(_line((x, 6), (x, ground), "limit", COLOURS["red"]))
        parts.append(f'<path d="M{x:.1f} {ground - 5}l4 7h-8z" fill="{COLOURS["red"]}"/>')
    return _svg(size, parts)


def states(
    panel: Mapping[str, Any], found: Sequence[Series], span: Span, size: tuple[float, float]
) -> str:
    """A line for each series, in the colours of its states."""
    options = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    left = 12 + _CHARACTER * max(len(row.name) for row in found)
    area = Area(span, *size, left)
    height = (area.height - _BELOW - 6) / len(found)
    parts = list(area.days())
    for place, row in enumerate(found):
        y = 6 + place * height
        parts.append(_text(area.left - 8, y + height / 2 + 4, row.name, "end"))
        for since, until, value in _runs(row.points, span.until):
            colour = COLOURS[options[f"{value:.0f}"]["color"]]
            x, width = area.x(since), area.x(until) - area.x(since)
            parts.append(_rectangle(x, y + height * 0.05, width, height * 0.9, colour))
    return _svg(size, parts)


def _stacked(found: Sequence[Series]) -> list[dict[int, float]]:
    """Each series' values on top of those before it."""
    times = sorted({at for row in found for at in row.points})
    sums = dict.fromkeys(times, 0.0)
    layers = []
    for row in found:
        sums = {at: sums[at] + row.points.get(at, 0) for at in times}
        layers.append(sums)
    return layers


def _bars(
    area: Area,
    bottom: Mapping[int, float],
    top: Mapping[int, float],
    every: int,
    colour: str,
) -> Iterator[str]:
    for at, value in top.items():
        # A bar begins at its time; the last one may not be over yet.
        x = area.x(at + every * 0.07)
        width = min(area.x(at + every * 0.93), area.width) - x
        height = area.y(bottom[at]) - area.y(value)
        if width > 0 and height > 0:
            yield _rectangle(x, area.y(value), width, height, colour)


def _curve(area: Area, points: Mapping[int, float], every: int, colour: str) -> Iterator[str]:
    ground = area.y(0)
    for part in _unbroken(points, every):
        path = " ".join(f"{area.x(at):.1f},{area.y(value):.1f}" for at, value in part)
        first, last = area.x(part[0][0]), area.x(part[-1][0])
        corners = f"{first:.1f},{ground:.1f} {path} {last:.1f},{ground:.1f}"
        yield f'<polygon points="{corners}" fill="{colour}" fill-opacity=".08"/>'
        yield f'<polyline points="{path}" stroke="{colour}" class="curve"/>'


def _unbroken(points: Mapping[int, float], every: int) -> list[list[tuple[int, float]]]:
    """The stretches of a curve that have a value at each step."""
    parts: list[list[tuple[int, float]]] = []
    for at, value in points.items():
        if math.isfinite(value):
            if not parts or parts[-1][-1][0] != at - every:
                parts.append([])
            parts[-1].append((at, value))
    return parts


def _runs(points: Mapping[int, float], until: int) -> Iterator[tuple[int, int, float]]:
    """From when to when each state lasted."""
    changes = [
        (at, value)
        for (at, value), before in zip(points.items(), [None, *points.values()], strict=False)
        if value != before
    ]
    ends = [at for at, _ in changes[1:]]
    for (at, value), end in zip(changes, [*ends, until], strict=True):
        yield at, end, value


def _tick(value: float, unit: str) -> str:
    return re.sub(r"\.?0+(?=\D*$)", "", text) if "." in (text := shown(value, unit)) else text


# -- SVG -------------------------------------------------------------------------------------------


def _svg(size: tuple[float, float], parts: Sequence[str]) -> str:
    return f'<svg width="{size[0]:.0f}" height="{size[1]:.0f}">{"".join(parts)}</svg>'


def _line(start: tuple[float, float], end: tuple[float, float], kind: str, colour: str = "") -> str:
    stroke = f' stroke="{colour}"' if colour else ""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (start, end))
    return f'<path d="M{path}" class="{kind}"{stroke}/>'


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {at} fill="{colour}" fill-opacity=".8"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
