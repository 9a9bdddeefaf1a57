"""Every expression of every board, asked of a real Prometheus that holds nine synthetic days: rows, and their sums."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pictures import answers
from pictures.answers import Span
from stack_programs import DASHBOARDS, get, prometheus_with
from synthetic_days import END, MONTH, START, STEP, TODAY, Days

LOADED: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text())
    for path in sorted((DASHBOARDS / "grafana" / "json").glob("*.json"))
}
DAY = 86_400
SINCE = END - 3 * DAY
COST = "spanledger_cost_USD_total"


@pytest.fixture(scope="session")
def days() -> Days:
    return Days()


@pytest.fixture(scope="session")
def url(days: Days, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus_with(days.openmetrics(), tmp_path_factory.mktemp("prometheus")) as address:
        yield address


def fill_in(board: str, expr: str, since: int, **chosen: str) -> str:
    """The expression as Grafana sends it: with its variables replaced."""
    filled = answers.fill_in(expr, Span(since, END, STEP), standing_for(board, **chosen))
    assert "$" not in filled
    return filled


def standing_for(board: str, **chosen: str) -> dict[str, str]:
    """What the board's variables stand for."""
    return {
        **{v["name"]: v.get("allValue") or v["query"] for v in LOADED[board]["templating"]["list"]},
        **({"tenant": "acme"} if board == "tenant" else {}),
        **chosen,
    }


def panel_of(board: str, title: str) -> dict[str, Any]:
    return next(panel for panel in LOADED[board]["panels"] if panel.get("title") == title)


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


def column(url: str, board: str, title: str, number: int = 0, **chosen: str) -> dict[str, float]:
    """The values of a panel's query, by its label (by none: under "")."""
    panel = panel_of(board, title)
    found = rows(url, board, panel, panel["targets"][number], **chosen)
    return {" ".join(row["metric"].values()): float(row["value"][1]) for row in found}


def by_day(url: str, board: str, title: str) -> dict[str, dict[int, float]]:
    """The bars of a panel over all nine days, by label and the day that they stand on."""
    panel = panel_of(board, title)
    return {
        " ".join(row["metric"].values()): {int(at): float(value) for at, value in row["values"]}
        for row in rows(url, board, panel, panel["targets"][0], START)
    }


def close(amount: float) -> Any:
    return pytest.approx(amount, rel=1e-9, abs=1e-9)


def all_close(amounts: dict[str, float]) -> Any:
    return pytest.approx(amounts, rel=1e-9, abs=1e-9)


EVERY_QUERY = [
    pytest.param(name, panel, target, id=f"{name}: {panel['title']} {target['refId']}")
    for name, board in LOADED.items()
    for panel in board["panels"]
    for target in panel.get("targets", ())
]


@pytest.mark.parametrize(("board", "panel", "target"), EVERY_QUERY)
def test_an_expression_returns_rows(
    url: str, board: str, panel: dict[str, Any], target: dict[str, Any]
) -> None:
    found = rows(url, board, panel, target)
    assert found
    for row in found:
        values = [float(value) for _, value in row.get("values") or [row["value"]]]
        assert any(math.isfinite(value) for value in values), row


@pytest.mark.parametrize("board", LOADED)
def test_a_variable_has_values(url: str, board: str) -> None:
    for variable in LOADED[board]["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            match = {"match[]": fill_in(board, series, START)}
            assert get(
                f"{url}/api/v1/label/{label}/values", start=str(START), end=str(END), **match
            )


# -- spend -------------------------------------------------------------------------------------------------


def test_totals_are_those_of_the_data(url: str, days: Days) -> None:
    for title, since in (("Today", TODAY), ("This month", MONTH)):
        assert column(url, "spend", title) == all_close(days.total(COST, since))
    assert column(url, "spend", "Saved") == all_close(
        days.total("spanledger_saved_USD_total", SINCE)
    )


@pytest.mark.parametrize("label", ["provider", "feature", "tenant", "model"])
def test_each_bar_is_its_own_days_spend(url: str, days: Days, label: str) -> None:
    """Nine of them; a counter restarts on the fifth, and a series begins on it."""
    found = by_day(url, "spend", f"Daily spend by {label}")
    assert len(next(iter(found.values()))) == 9
    assert set(found) == set(days.total(COST, START, by=label))
    for name, bars in found.items():
        for day, amount in bars.items():
            expected = days.total(COST, day, min(day + DAY, END), by=label)
            # Until the day is over, Prometheus reckons half a scrape interval ahead.
            slack = 0.004 if day + DAY > END else 1e-9
            assert amount == pytest.approx(expected.get(name, 0), rel=slack)


def test_nine_days_with_a_restart_and_a_newcomer_add_up(url: str, days: Days) -> None:
    """The whole of the data in one range: counters restart in it, and a series begins in it."""
    expr = panel_of("spend", "Today")["targets"][0]["expr"]
    found = get(f"{url}/api/v1/query", query=fill_in("spend", expr, START), time=str(END))["result"]
    assert float(found[0]["value"][1]) == close(days.total(COST, START)[""])


def test_a_choice_of_variables_filters(url: str, days: Days) -> None:
    assert column(url, "spend", "Today", provider="openai", tenant="(acme|globex)") == all_close(
        {
            "": sum(
                days.total(COST, TODAY, provider="openai", tenant=tenant)[""]
                for tenant in ("acme", "globex")
            )
        }
    )


def test_tenants_and_shares(url: str, days: Days) -> None:
    spend = days.total(COST, SINCE, by="tenant")
    assert column(url, "spend", "Top tenants") == all_close(spend)
    assert column(url, "spend", "Tenants", 0) == all_close(spend)
    assert sum(column(url, "spend", "Tenants", 1).values()) == close(1)
    before = days.total(COST, SINCE - 3 * DAY, SINCE, by="tenant")
    change = {tenant: spend[tenant] / was - 1 for tenant, was in before.items()}
    assert column(url, "spend", "Tenants", 3) == all_close(change)


def test_the_month_end_is_projected_from_what_a_day_costs(url: str, days: Days) -> None:
    so_far = days.total(COST, MONTH)[""]
    a_day = days.total(COST, END - 7 * DAY)[""] / 7
    rest = (30 * DAY - (END - MONTH)) / DAY
    projected = column(url, "spend", "Projected month end")[""]
    assert projected == pytest.approx(so_far + rest * a_day, rel=0.02)


# -- unit economics ----------------------------------------------------------------------------------------


def test_a_use_costs_its_share(url: str, days: Days) -> None:
    cost = days.total(COST, SINCE, by="feature")
    uses = days.total("spanledger_feature_uses_total", SINCE, by="feature")
    assert column(url, "unit-economics", "Features", 0) == all_close(
        {f: cost[f] / uses[f] for f in uses}
    )


def test_the_margin_is_the_price_less_the_spend(url: str, days: Days) -> None:
    cost = days.total(COST, SINCE, by="tenant")
    revenue = 99 * 3 * DAY / 2_629_800
    expected = {tenant: revenue - spent for tenant, spent in cost.items()}
    assert column(url, "unit-economics", "Margin by tenant", 2) == all_close(expected)
    prices = (
        'label_replace(vector(50), "tenant", "acme", "", "")'  # from the application's own metrics
    )
    found = column(url, "unit-economics", "Margin by tenant", 2, price=prices)
    assert found == all_close({"acme": 50 * 3 * DAY / 2_629_800 - cost["acme"]})


def test_a_million_tokens_cost_what_they_did(url: str, days: Days) -> None:
    cost = days.total(COST, SINCE, by="model")
    tokens = days.total("spanledger_tokens_total", SINCE, by="model")
    found = column(url, "unit-economics", "Cost of a million tokens")
    assert found == all_close({model: 1e6 * cost[model] / tokens[model] for model in tokens})


# -- budgets -----------------------------------------------------------------------------------------------


def test_budgets_are_not_added_up_over_processes(url: str, days: Days) -> None:
    spent = days.total(COST, MONTH)[""]
    assert column(url, "budgets", "Budgets in USD", 1)["month global"] == close((spent + 0.25) / 60)
    assert column(url, "budgets", "Budgets in USD", 3)["month global"] == close(spent)
    elapsed = (1 + 23 / 24) / 30
    found = column(url, "budgets", "Budgets in USD", 2)["month global"]
    assert found == close((spent + 0.25) / 60 / elapsed)
    left = column(url, "budgets", "Budgets in USD", 7)
    assert left == all_close(
        {
            "day feature:search": 1 / 24,
            "month global": 28 + 1 / 24,
            "month tenant:acme": 28 + 1 / 24,
        }
    )


def test_budgets_in_credits_stand_beside_those_in_dollars(url: str, days: Days) -> None:
    spent = days.total("spanledger_credits_total", MONTH)[""]
    key = "month provider:scavio"
    assert column(url, "budgets", "Budgets in credits", 1) == all_close({key: (spent + 2) / 1000})
    assert column(url, "budgets", "Budgets in credits", 3) == all_close({key: spent})
    in_usd = column(url, "budgets", "Budgets in USD", 1)
    assert "month provider:scavio" not in in_usd
    assert column(url, "budgets", "Used of the limit") == all_close(
        {**in_usd, "month provider:scavio , credits": (spent + 2) / 1000}
    )


def test_held_back_calls_are_counted(url: str, days: Days) -> None:
    for outcome in ("throttled", "degraded", "blocked"):
        counted = days.total("spanledger_calls_total", SINCE, outcome=outcome)
        assert column(url, "budgets", f"{outcome.capitalize()} calls") == all_close(counted)


# -- data layer --------------------------------------------------------------------------------------------


def test_hits_and_savings(url: str, days: Days) -> None:
    calls = days.total("spanledger_calls_total", SINCE, by="outcome")
    served = sum(calls[o] for o in ("ok", "cached", "deduplicated", "degraded"))
    assert column(url, "data-layer", "Answered by the cache") == all_close(
        {"": calls["cached"] / served}
    )
    saved = days.total("spanledger_saved_USD_total", SINCE, by="reason")
    assert column(url, "data-layer", "Saved by the cache") == all_close({"": saved["cache"]})
    cost = days.total(COST, SINCE)[""]
    share = sum(saved.values()) / (sum(saved.values()) + cost)
    assert column(url, "data-layer", "Saved of all") == all_close({"": share})


def test_credits_last_as_long_as_their_pace_says(url: str, days: Days) -> None:
    a_day = days.total("spanledger_credits_total", END - 7 * DAY)[""] / 7
    left = 100_000 - (END - START) / 60
    assert column(url, "data-layer", "Credits last") == all_close({"": left / a_day})


# -- books -------------------------------------------------------------------------------------------------


def test_ledger_and_prometheus_agree_on_the_month(url: str, days: Days) -> None:
    title = "Ledger against Prometheus, this month"
    spent = days.total(COST, MONTH)[""]
    assert [column(url, "books", title, number)[""] for number in range(3)] == [
        close(spent),
        close(spent),
        pytest.approx(0, abs=1e-6),
    ]


def test_what_is_missing_is_shown(url: str, days: Days) -> None:
    unpriced = days.total("spanledger_unpriced_calls_total", SINCE)
    assert column(url, "books", "Unpriced calls") == all_close(unpriced)
    cost = days.total(COST, SINCE)[""]
    estimated = days.total("spanledger_estimated_cost_USD_total", SINCE)[""]
    assert column(url, "books", "Estimated") == all_close({"": estimated / cost})
    nobody = days.total(COST, SINCE, tenant="")[""]
    assert column(url, "books", "Without a tenant") == all_close({"": nobody / cost})


# -- tenant ------------------------------------------------------------------------------------------------


def test_the_customer_sees_their_own(url: str, days: Days) -> None:
    assert column(url, "tenant", "This month") == all_close(days.total(COST, MONTH, tenant="acme"))
    uses = days.total("spanledger_feature_uses_total", MONTH, tenant="acme")
    assert column(url, "tenant", "Uses this month") == all_close(uses)
    by_feature = days.total(COST, SINCE, by="feature", tenant="acme")
    assert column(url, "tenant", "Share by feature") == all_close(by_feature)
    spent = days.total(COST, MONTH, tenant="acme")[""]
    used = column(url, "tenant", "Used of the month's budget")
    assert list(used.values()) == [close((spent + 0.25) / 20)]
