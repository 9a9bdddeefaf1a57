"""A board as a page of HTML: its panels in Grafana's grid, each drawn as its kind asks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Final, TypeAlias

from pictures import charts
from pictures.answers import Series, Span
from pictures.units import COLOURS, PALETTE, shown, threshold_colour

WIDTH: Final = 1320
_CELL, _GAP, _PADDING, _TITLE = 30, 8, 10, 34  # pixels; the first two are Grafana's
_CALCULATED: Final = {"sum": "Total", "lastNotNull": "Last *"}

Panel: TypeAlias = Mapping[str, Any]
Found: TypeAlias = Sequence[Sequence[Series]]


class ByName(dict[str, str]):
    """A colour for each name, the same all over a board."""

    def __missing__(self, name: str) -> str:
        self[name] = PALETTE[len(self) % len(PALETTE)]
        return self[name]


@dataclass(frozen=True)
class View:
    """What all panels of a board have in common."""

    span: Span
    alerts: Sequence[int] = ()
    colours: ByName = field(default_factory=ByName)


def height(board: Panel) -> int:
    """The page's height in pixels."""
    lines: int = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    return lines * (_CELL + _GAP) + 76


def page(board: Panel, answers: Mapping[int, Found], view: View, chosen: Mapping[str, str]) -> str:
    """The board; `answers` by the panels' ids."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    panels = "".join(
        _framed(panel, answers.get(panel["id"], []), view, chosen) for panel in board["panels"]
    )
    since, until = (
        datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
        for at in (view.span.since, view.span.until)
    )
    return (
        f'<!doctype html><meta charset="utf-8"><style>{style}</style>'
        f"<header><h1>{escape(board['title'])}</h1>{_variables(board, chosen)}"
        f'<span class="time">{since} to {until}</span></header><main>{panels}</main>'
    )


def _variables(board: Panel, chosen: Mapping[str, str]) -> str:
    return "".join(
        f"<label>{escape(variable['label'])}<b>"
        f"{'All' if variable.get('allValue') else escape(chosen[variable['name']])}</b></label>"
        for variable in board["templating"]["list"]
        if variable["type"] != "datasource"
    )


def _framed(panel: Panel, found: Found, view: View, chosen: Mapping[str, str]) -> str:
    at = panel["gridPos"]
    place = f'style="grid-area:{at["y"] + 1}/{at["x"] + 1}/span {at["h"]}/span {at["w"]}"'
    title = escape(panel["title"].replace("$tenant", chosen.get("tenant", "")))
    if panel["type"] == "row":
        return f"<h2 {place}>{title}</h2>"
    drawn = _KINDS[panel["type"]](panel, found, view)
    return f'<section class="{panel["type"]}" {place}><h3>{title}</h3><div>{drawn}</div></section>'


def _size(panel: Panel) -> tuple[float, float]:
    """The pixels inside a panel, below its title."""
    at = panel["gridPos"]
    column = (WIDTH - 2 * 16 - 23 * _GAP) / 24
    width = at["w"] * column + (at["w"] - 1) * _GAP - 2 * _PADDING - 2
    return width, at["h"] * _CELL + (at["h"] - 1) * _GAP - _TITLE - _PADDING - 2


def _value(panel: Panel, value: float, **properties: Any) -> str:
    config = {**panel["fieldConfig"]["defaults"], **properties}
    for mapping in config.get("mappings", ()):
        if word := mapping["options"].get(f"{value:.0f}"):
            return escape(word["text"])
    return escape(shown(value, config["unit"], config.get("decimals")))


# -- kinds of panels -------------------------------------------------------------------------------


def _stat(panel: Panel, found: Found, _view: View) -> str:
    config = panel["fieldConfig"]["defaults"]
    rows = [row for answer in found for row in answer]
    if not rows:
        return f"<p><b>{escape(config['noValue'])}</b></p>"
    named = panel["options"]["textMode"] == "value_and_name"
    coloured = panel["options"]["colorMode"] == "value"
    return "".join(
        f"<p>{f'<span>{escape(row.name)}</span>' if named else ''}"
        f"<b{_coloured(row.last, config) if coloured else ''}>{_value(panel, row.last)}</b></p>"
        for row in rows
    )


def _coloured(value: float, config: Mapping[str, Any]) -> str:
    for mapping in config.get("mappings", ()):
        if word := mapping["options"].get(f"{value:.0f}"):
            return f' style="color:{COLOURS[word["color"]]}"'
    if not math.isfinite(value):
        return ""
    return f' style="color:{threshold_colour(value, config["thresholds"])}"'


def _timeseries(panel: Panel, found: Found, view: View) -> str:
    rows = [row for answer in found for row in answer]
    width, high = _size(panel)
    calculated = panel["options"]["legend"]["calcs"][0]
    values = {
        row.name: sum(v for v in row.points.values() if math.isfinite(v))
        if calculated == "sum"
        else row.last
        for row in rows
    }
    texts = {name: _value(panel, value) for name, value in values.items()}
    number = 16 + 7 * max(6, *map(len, texts.values()))
    legend = min(38 + 6.8 * max(len(name) for name in texts) + number, width * 0.54)
    drawn = charts.over_time(
        panel,
        rows,
        view.span,
        (width - legend - 12, high),
        colours=view.colours,
        alerts=view.alerts,
    )
    lines = "".join(
        f"<tr><td>{_dot(view.colours[name])}{escape(name)}<td>{text}"
        for name, text in texts.items()
    )
    head = f'<tr><th>Name<th style="width:{number}px">{_CALCULATED[calculated]}'
    return f'{drawn}<table class="legend" style="width:{legend:.0f}px">{head}{lines}</table>'


def _dot(colour: str) -> str:
    return f'<s style="background:{colour}"></s>'


def _bargauge(panel: Panel, found: Found, _view: View) -> str:
    config = panel["fieldConfig"]["defaults"]
    fixed = config.get("color", {}).get("fixedColor")
    highest = max(row.last for row in found[0]) or 1
    return "".join(
        f"<label>{escape(row.name)}</label><div><s style='width:{100 * row.last / highest:.1f}%;"
        f"background:{colour}'></s></div><b style='color:{colour}'>{_value(panel, row.last)}</b>"
        for row in found[0]
        for colour in [
            COLOURS[fixed] if fixed else threshold_colour(row.last, config["thresholds"])
        ]
    )


def _piechart(panel: Panel, found: Found, view: View) -> str:
    rows = sorted(found[0], key=lambda row: -row.last)
    total = sum(row.last for row in rows)
    ring, gone = "", 0.0
    for row in rows:
        part = 100 * row.last / total
        # A circle of circumference 100: a share is a dash of it.
        ring += (
            f'<circle r="15.915" cx="21" cy="21" stroke="{view.colours[row.name]}" '
            f'stroke-dasharray="{part:.2f} {100 - part:.2f}" stroke-dashoffset="{25 - gone:.2f}"/>'
        )
        gone += part
    lines = "".join(
        f"<tr><td>{_dot(view.colours[row.name])}{escape(row.name)}<td>{_value(panel, row.last)}"
        f"<td>{shown(row.last / total, 'percentunit', 0)}"
        for row in rows
    )
    head = "<tr><th>Name<th>Value<th>Percent"
    return f'<svg viewBox="0 0 42 42">{ring}</svg><table class="legend">{head}{lines}</table>'


def _statetimeline(panel: Panel, found: Found, view: View) -> str:
    return charts.states(panel, found[0], view.span, _size(panel))


def _table(panel: Panel, found: Found, _view: View) -> str:
    """The queries' rows, joined by their labels."""
    organised = panel["transformations"][1]["options"]
    columns = organised["renameByName"]
    keys = [name for name in organised["indexByName"] if name not in columns]
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for raw, answer in zip(columns, found, strict=True):
        for row in answer:
            key = tuple(row.labels.get(name, "") for name in keys)
            rows.setdefault(key, {})[columns[raw]] = row.last
    own = {
        override["matcher"]["options"]: {p["id"]: p["value"] for p in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    sort = panel["options"]["sortBy"][0]["displayName"]
    lines = sorted(rows.items(), key=lambda item: -item[1].get(sort, -math.inf))
    head = "".join(f"<th>{escape(name)}" for name in keys)
    head += "".join(f'<th class="number">{escape(name)}' for name in columns.values())
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=link' if own.get(name, {}).get('links') else ''}>"
            + escape(text or own.get(name, {}).get("noValue", ""))
            for name, text in zip(keys, key, strict=True)
        )
        + "".join(_cell(panel, values.get(name), own[name]) for name in columns.values())
        for key, values in lines
    )
    return f"<table><tr>{head}{body}</table>"


def _cell(panel: Panel, value: float | None, own: dict[str, Any]) -> str:
    if value is None:
        return "<td>"
    colour = _coloured(value, own) if own.get("custom.cellOptions") else ""
    return f'<td class="number"{colour}>{_value(panel, value, **own)}'


def _text(panel: Panel, _found: Found, _view: View) -> str:
    return f"<p>{escape(panel['options']['content'])}</p>"


_KINDS: Final = {
    "stat": _stat,
    "timeseries": _timeseries,
    "bargauge": _bargauge,
    "piechart": _piechart,
    "state-timeline": _statetimeline,
    "table": _table,
    "text": _text,
}
