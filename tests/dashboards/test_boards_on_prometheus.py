"""Every expression of every board, asked of a real Prometheus that holds nine synthetic days: rows, variables, bars."""

import math
import re
from typing import Any

import pytest
from board_answers import DAY, LOADED, column, fill_in, labels_of, panel_of, rows
from stack_programs import get
from synthetic_days import END, START, TODAY, Days

COST = "spanledger_cost_USD_total"


def close(amount: float) -> Any:
    return pytest.approx(amount, rel=1e-9, abs=1e-9)


EVERY_QUERY = [
    pytest.param(name, panel, target, id=f"{name}: {panel['title']} {target['refId']}")
    for name, board in LOADED.items()
    for panel in board["panels"]
    for target in panel.get("targets", ())
]


@pytest.mark.parametrize(("board", "panel", "target"), EVERY_QUERY)
def test_an_expression_returns_rows(
    days_url: str, board: str, panel: dict[str, Any], target: dict[str, Any]
) -> None:
    found = rows(days_url, board, panel, target)
    assert found
    for row in found:
        values = [float(value) for _, value in row.get("values") or [row["value"]]]
        assert any(math.isfinite(value) for value in values), row


@pytest.mark.parametrize("board", LOADED)
def test_a_variable_has_values(days_url: str, board: str) -> None:
    for variable in LOADED[board]["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            match = {"match[]": fill_in(board, series, START)}
            assert get(
                f"{days_url}/api/v1/label/{label}/values", start=str(START), end=str(END), **match
            )


@pytest.mark.parametrize("label", ["provider", "feature", "tenant", "model"])
def test_each_bar_is_its_own_days_spend(days_url: str, days: Days, label: str) -> None:
    """Nine of them; a counter restarts on the fifth, and a series begins on it."""
    panel = panel_of("spend", f"Daily spend by {label}")
    found = {
        labels_of(row): {int(at): float(value) for at, value in row["values"]}
        for row in rows(days_url, "spend", panel, panel["targets"][0], START)
    }
    assert len(next(iter(found.values()))) == 9
    assert set(found) == set(days.total(COST, START, by=label))
    for name, bars in found.items():
        for day, amount in bars.items():
            expected = days.total(COST, day, min(day + DAY, END), by=label)
            # Until the day is over, Prometheus reckons half a scrape interval ahead.
            slack = 0.004 if day + DAY > END else 1e-9
            assert amount == pytest.approx(expected.get(name, 0), rel=slack)


def test_nine_days_with_a_restart_and_a_newcomer_add_up(days_url: str, days: Days) -> None:
    """The whole of the data in one range: counters restart in it, and a series begins in it."""
    expr = fill_in("spend", panel_of("spend", "Today")["targets"][0]["expr"], START)
    found = get(f"{days_url}/api/v1/query", query=expr, time=str(END))["result"]
    assert float(found[0]["value"][1]) == close(days.total(COST, START)[""])


def test_a_choice_of_variables_filters(days_url: str, days: Days) -> None:
    chosen = {"provider": "openai", "tenant": "(acme|globex)"}
    spent = days.total(COST, TODAY, provider="openai", tenant=("acme", "globex"))
    assert column(days_url, "spend", "Today", **chosen) == close_all(spent)


def close_all(amounts: dict[str, float]) -> Any:
    return pytest.approx(amounts, rel=1e-9, abs=1e-9)
