"""What the panels of the committed boards answer on a Prometheus with the synthetic days."""

import json
from typing import Any, Final

from pictures import answers
from pictures.answers import Span
from stack_programs import DASHBOARDS
from synthetic_days import END, STEP

LOADED: Final[dict[str, dict[str, Any]]] = {
    path.stem: json.loads(path.read_text())
    for path in sorted((DASHBOARDS / "grafana" / "json").glob("*.json"))
}
DAY: Final = 86_400
SINCE: Final = END - 3 * DAY
USERS: Final = 250
"""What is typed in for the number of active users."""


def fill_in(board: str, expr: str, since: int, **chosen: str) -> str:
    """The expression as Grafana sends it: with its variables replaced."""
    filled = answers.fill_in(expr, Span(since, END, STEP), standing_for(board, **chosen))
    assert "$" not in filled
    return filled


def standing_for(board: str, **chosen: str) -> dict[str, str]:
    """What the board's variables stand for."""
    return {
        **{v["name"]: v.get("allValue") or v["query"] for v in LOADED[board]["templating"]["list"]},
        "active_users": str(USERS),
        **({"tenant": "acme"} if board == "tenant" else {}),
        **chosen,
    }


def panel_of(board: str, title: str) -> dict[str, Any]:
    """The panel with data that has this title."""
    return next(
        panel
        for panel in LOADED[board]["panels"]
        if panel.get("title") == title and panel.get("targets")
    )


def rows(
    url: str,
    board: str,
    panel: dict[str, Any],
    target: dict[str, Any],
    since: int = SINCE,
    **chosen: str,
) -> list[dict[str, Any]]:
    """The rows that Grafana would show: at the end of the range, or over it, at the panel's step."""
    return answers.rows(url, panel, target, Span(since, END, STEP), standing_for(board, **chosen))


def labels_of(row: dict[str, Any]) -> str:
    """The values of its labels, by the order of their names; without what stands for an empty one."""
    return " ".join(v for k, v in sorted(row["metric"].items()) if not k.startswith("no_"))


def column(url: str, board: str, title: str, number: int = 0, **chosen: str) -> dict[str, float]:
    """The values of a panel's query, by its labels (by none: under "")."""
    panel = panel_of(board, title)
    found = rows(url, board, panel, panel["targets"][number], **chosen)
    return {labels_of(row): float(row["value"][1]) for row in found}
