"""What Grafana would get for a board's panels: variables filled in, asked of a real Prometheus."""

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

HOUR: Final = 3600
_STEPS: Final[Mapping[str | None, int]] = {"1d": 24 * HOUR, "1h": HOUR, None: HOUR}


@dataclass(frozen=True)
class Span:
    """What a board looks at, in seconds (UTC), and how often Prometheus scrapes."""

    since: int
    until: int
    scrape: int

    def of(self, panel: Mapping[str, Any]) -> "Span":
        """The panel's own span, where it has one."""
        now = datetime.fromtimestamp(self.until, UTC)
        today = now.replace(hour=0, minute=0, second=0)
        starts = {"now/d": today, "now/M": today.replace(day=1)}
        own = panel.get("timeFrom")
        return Span(int(starts[own].timestamp()), self.until, self.scrape) if own else self


@dataclass(frozen=True)
class Series:
    """A row of an answer: its name in the legend, its labels, and its values by time."""

    name: str
    labels: Mapping[str, str]
    points: dict[int, float] = field(default_factory=dict)

    @property
    def last(self) -> float:
        """The last value that is one; not a number where none is."""
        return next((v for v in reversed(self.points.values()) if math.isfinite(v)), math.nan)


def step(panel: Mapping[str, Any]) -> int:
    """The seconds from one point of a curve to the next."""
    return _STEPS[panel.get("interval")]


def get(url: str, **parameters: str) -> Any:
    """The `data` of an answer of Prometheus' API."""
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(f"{url}?{query}", timeout=60) as answer:  # noqa: S310 - our own
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        error.add_note(f"{parameters}: {error.read().decode()}")
        raise


def chosen_by_default(prometheus: str, board: Mapping[str, Any], span: Span) -> dict[str, str]:
    """What the board's variables match before anybody chooses: all values, or else the first."""
    values = {}
    for variable in board["templating"]["list"]:
        value = variable.get("allValue") or variable["query"]
        if found := re.fullmatch(r"label_values\((.*), (\w+)\)", value):
            window = {"start": str(span.since), "end": str(span.until), "match[]": found[1]}
            value = min(get(f"{prometheus}/api/v1/label/{found[2]}/values", **window))
        values[variable["name"]] = value
    return values


def fill_in(expr: str, span: Span, chosen: Mapping[str, str]) -> str:
    """The expression as Grafana sends it: with its variables replaced."""
    values = {
        "__range_s": str(span.until - span.since),
        "__range": f"{span.until - span.since}s",
        "__rate_interval": f"{4 * span.scrape}s",
        **chosen,
    }
    return re.sub(r"\$\{(\w+)(?::raw)?\}|\$(\w+)", lambda name: values[name[1] or name[2]], expr)


def rows(
    prometheus: str,
    panel: Mapping[str, Any],
    target: Mapping[str, Any],
    span: Span,
    chosen: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The rows that Grafana would show: at the end of the span, or over it, at the panel's step."""
    span = span.of(panel)
    query = fill_in(target["expr"], span, chosen)
    if target["instant"]:
        answer = get(f"{prometheus}/api/v1/query", query=query, time=str(span.until))
        return list(answer["result"])
    every = step(panel)
    window = {
        "start": str(-(-span.since // every) * every),  # Grafana aligns a range to its step
        "end": str(span.until),
        "step": str(every),
    }
    answer = get(f"{prometheus}/api/v1/query_range", query=query, **window)
    return list(answer["result"])


def series(
    prometheus: str, panel: Mapping[str, Any], span: Span, chosen: Mapping[str, str]
) -> list[list[Series]]:
    """The answers to the panel's queries, one list for each query."""
    return [
        [
            Series(
                _legend(target.get("legendFormat", ""), row["metric"]),
                row["metric"],
                {int(at): float(v) for at, v in row.get("values") or [row["value"]]},
            )
            for row in rows(prometheus, panel, target, span, chosen)
        ]
        for target in panel.get("targets", ())
    ]


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    name = re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), pattern)
    return " ".join(name.split()) or "(no name)"
