"""The values of every query of every board, on a real Prometheus, against what the synthetic days were made of."""

from typing import Any, Final

import pytest
from board_answers import DAY, LOADED, SINCE, column, labels_of, rows
from known_values import COST, KNOWN, Values
from pictures.answers import Span, step
from synthetic_days import END, STEP, Days

QUERIES: Final[dict[tuple[str, str], list[tuple[dict[str, Any], dict[str, Any]]]]] = {}
for name, board in LOADED.items():
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            QUERIES.setdefault((name, panel["title"]), []).append((panel, target))


def test_something_is_known_of_every_query() -> None:
    assert {key: len(queries) for key, queries in QUERIES.items()} == {
        (name, title): len(known)
        for name, titles in KNOWN.items()
        for title, known in titles.items()
    }


@pytest.mark.parametrize(
    ("board", "title", "number"),
    [
        pytest.param(*key, number, id=f"{key[0]}: {key[1]} {number}")
        for key, queries in QUERIES.items()
        for number in range(len(queries))
    ],
)
def test_a_query_says_what_is_known(
    days_url: str, days: Days, board: str, title: str, number: int
) -> None:
    panel, target = QUERIES[board, title][number]
    found: dict[int, Values] = {}
    for row in rows(days_url, board, panel, target):
        for at, value in row.get("values") or [row["value"]]:
            found.setdefault(int(at), {})[labels_of(row)] = float(value)
    # Of a bar that is not over yet, Prometheus reckons what is to come.
    is_bars = panel["fieldConfig"]["defaults"].get("custom", {}).get("drawStyle") == "bars"
    over = [at for at in found if at + (step(panel) if is_bars else 0) <= END]
    assert over
    for at in over:
        known = KNOWN[board][title][number](days, Span(SINCE, END, STEP).of(panel).since, at)
        assert without_zeros(found[at]) == pytest.approx(without_zeros(known), rel=1e-9), at


def without_zeros(values: Values) -> Values:
    """A label set that saw nothing within a window has a 0 or no value."""
    return {key: value for key, value in values.items() if abs(value) > 1e-9}


def test_a_price_may_come_from_the_application(days_url: str, days: Days) -> None:
    prices = 'label_replace(vector(50), "tenant", "acme", "", "")'
    found = column(days_url, "unit-economics", "Margin by tenant", 2, price=prices)
    cost = days.total(COST, SINCE, tenant="acme")[""]
    assert found == {"acme": pytest.approx(50 * 3 * DAY / 2_629_800 - cost)}


def test_users_cost_nothing_until_their_number_is_set(days_url: str) -> None:
    panel, target = QUERIES["unit-economics", "Cost of an active user a day"][0]
    variables = {v["name"]: v["query"] for v in LOADED["unit-economics"]["templating"]["list"]}
    assert (
        rows(days_url, "unit-economics", panel, target, active_users=variables["active_users"])
        == []
    )
    own = "sum(spanledger_budget_limit_USD)"  # as good as any number of the application's
    assert rows(days_url, "unit-economics", panel, target, active_users=own)


def test_a_use_costs_on_one_provider_what_was_spent_there(days_url: str, days: Days) -> None:
    cost = days.total(COST, SINCE, by="feature", provider="openai")
    uses = days.total("spanledger_feature_uses_total", SINCE, by="feature")
    found = column(days_url, "unit-economics", "Features", 0, provider="openai")
    assert found == pytest.approx({feature: cost[feature] / uses[feature] for feature in cost})
