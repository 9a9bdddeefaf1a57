"""What a digest says: the sums, what they are compared with, budgets, and what is not known."""

import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.budget.config import Slot
from spanledger.budget.scopes import Scope
from spanledger.budget.shared import open_shared
from spanledger.cli.digest_figures import Spend, make_digest, weeks_before
from spanledger.cli.digest_text import change, period_text
from spanledger.cli.prometheus import Prometheus
from spanledger.cli.report_prometheus import Fleet
from spanledger.ledger.protocol import LimitedScope, open_ledger

FRIDAY = ("--since", "2026-08-28", "--until", "2026-08-28")
COST = "spanledger_cost_USD_total"


def digest(spanledger: Any, *arguments: str) -> dict[str, Any]:
    code, out, errors = spanledger("digest", "--format", "json", *arguments)
    assert (code, errors) == (0, "")
    return dict(json.loads(out))


def spends(said: dict[str, Any], dimension: str) -> list[tuple[Any, ...]]:
    return [tuple(spend.values()) for spend in said["by"][dimension]]


# -- from the journal ------------------------------------------------------------------------------


def test_a_day_beside_the_same_day_of_the_week_before(spanledger, week, tmp_path):
    said = digest(spanledger, *FRIDAY)
    assert (said["since"], said["until"]) == (
        "2026-08-28T00:00:00+00:00",
        "2026-08-29T00:00:00+00:00",
    )
    assert said["before"] == {
        "since": "2026-08-21T00:00:00+00:00",
        "until": "2026-08-22T00:00:00+00:00",
    }
    assert said["place"] == f"sqlite:///{tmp_path}/journal.db"
    assert (said["currency"], said["rounded"]) == ("USD", False)
    assert said["total"] == {
        "cost_usd": "9.75",
        "before_usd": "6.5",
        "calls": 12,
        "unpriced_calls": 2,
        "saved_usd": "0.4",
    }
    assert spends(said, "provider") == [
        ("openai", "6.75", "4.5", 10, 1),
        ("anthropic", "3", "2", 1, 0),
        ("scavio", None, "0", 1, 1),
    ]
    assert spends(said, "feature") == [
        ("search", "9", "6", 10, 2),
        ("summarise", "0.5", "0.5", 1, 0),
        (None, "0.25", "0", 1, 0),
    ]
    assert spends(said, "tenant") == [
        ("acme", "6", "4", 8, 1),
        ("newcomer", "3", "0", 1, 0),
        ("globex", "0.5", "0.5", 1, 0),
        (None, "0.25", "0", 1, 0),
        ("initech", None, "0", 1, 1),
        ("leaver", "0", "2", 0, 0),
    ]
    assert [(m["by"], m["name"], m["cost_usd"], m["before_usd"]) for m in said["changed_most"]] == [
        ("feature", "search", "9", "6"),
        ("tenant", "newcomer", "3", "0"),
        ("provider", "openai", "6.75", "4.5"),
    ]
    assert sorted(tuple(line.values()) for line in said["unpriced"]) == [
        ("openai", "gpt-99", "unknown_model", 1),
        ("scavio", None, "usd_per_credit", 1),
    ]


def test_yesterday_is_what_is_asked_for_by_default(spanledger, books, entry):
    today = datetime.now(UTC).date()
    for days, cost in ((0, 1), (1, 20), (2, 300), (8, 4_000)):
        books(entry((today - timedelta(days=days)).isoformat(), cost * 10**9))
    said = digest(spanledger)
    assert (said["total"]["cost_usd"], said["total"]["before_usd"]) == ("20", "4000")
    assert said["since"].startswith((today - timedelta(days=1)).isoformat())


def test_without_a_week_before_there_is_no_verdict(spanledger, books, entry):
    books(entry("2026-08-28", 5), entry("2026-08-20", 7))
    said = digest(spanledger, *FRIDAY)
    assert (
        said["before"]
        is said["total"]["before_usd"]
        is said["by"]["tenant"][0]["before_usd"]
        is None
    )
    assert said["changed_most"] == []
    code, out, _ = spanledger("digest", *FRIDAY)
    assert "none in the week before to compare with" in out
    assert "change" not in out
    assert "new" not in out


def test_what_had_no_price_is_compared_with_nothing(spanledger, books, entry):
    books(entry("2026-08-28", 5), entry("2026-08-21", None))
    assert spends(digest(spanledger, *FRIDAY), "tenant") == [("acme", "0.000000005", None, 1, 0)]


def test_a_longer_time_is_compared_with_weeks_that_do_not_overlap_it(spanledger, books, entry):
    books(entry("2026-08-31", 1), entry("2026-08-01", 2), entry("2026-07-31", 40), entry("2026-06-27", 500), entry("2026-07-28", 6_000))  # fmt: skip
    said = digest(spanledger, "--since", "2026-08", "--until", "2026-08")
    assert said["before"] == {
        "since": "2026-06-27T00:00:00+00:00",
        "until": "2026-07-28T00:00:00+00:00",
    }
    assert (said["total"]["cost_usd"], said["total"]["before_usd"]) == ("0.000000003", "0.0000005")
    _, out, _ = spanledger("digest", "--since", "2026-08", "--until", "2026-08")
    assert "In 5 weeks before, on 27 Jun 2026 to 27 Jul 2026" in out


def test_a_week_is_compared_with_the_week_before_it_also_where_clocks_change(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    monday = datetime(2026, 10, 26).astimezone()
    assert weeks_before(monday, 1) == datetime(2026, 10, 19).astimezone()
    assert monday - weeks_before(monday, 1) == timedelta(days=7, hours=1)


def test_nothing_at_all(spanledger, books):
    books()
    code, out, errors = spanledger("digest", *FRIDAY)
    assert (code, errors) == (0, "")
    assert out.splitlines()[:2] == [
        "Spend on Friday, 28 Aug 2026: 0 USD",
        "0 paid calls. There was none in the week before to compare with.",
    ]
    assert digest(spanledger, *FRIDAY)["total"]["cost_usd"] == "0"


def test_where_there_is_no_journal_it_says_so(spanledger):
    code, out, errors = spanledger("digest")
    assert (code, out) == (1, "")
    assert "nothing was recorded" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--webhook", "http://127.0.0.1:9/x"), "Say what the webhook takes"),
        (("--since", "all"), "no week before"),
        (("--since", "today"), "Give a later one"),
        (("--mail", "nobody"), "not a mail address"),
        (("--mail", "a@b\n.c"), "not a mail address"),
        (("--mail", "a@b.c", "--smtp", "host"), "not host:port"),
        (("--mail", "a@b.c", "--webhook", "http://x"), "not allowed with"),
        (("--webhook", "hooks.slack.com/x", "--format", "slack"), "--webhook: is not an address"),
        (("--journal", "sqlite:///x", "--prometheus", "http://x"), "not allowed with"),
    ],
)
def test_mistakes_are_said(spanledger, week, arguments, words):
    code, out, errors = spanledger("digest", *arguments)
    assert (code, out) == (2, "")
    assert words in errors


# -- budgets ---------------------------------------------------------------------------------------

BUDGETS = """
[[budgets]]
scope = "tenant:*"
monthly_usd = 10
[[budgets]]
scope = "global"
monthly_usd = 100
"""


def test_budgets_stand_in_it_the_worst_first(spanledger, books, entry, tmp_path, monkeypatch):
    (tmp_path / "spanledger.toml").write_text(BUDGETS)
    monkeypatch.setenv("SPANLEDGER_LEDGER", "memory://")  # so that they are those of the journal
    today = datetime.now(UTC).date().isoformat()
    books(entry(today, 9_500_000_000), entry(today, 100_000_000, tenant="globex"))
    budgets = digest(spanledger)["budgets"]
    assert [(b["scope"], b["limit"], b["spent"]) for b in budgets] == [
        ("tenant:acme", "10", "9.5"),
        ("global", "100", "9.6"),
        ("tenant:globex", "10", "0.1"),
    ]
    assert budgets[0]["tier"] == "critical"
    _, out, _ = spanledger("digest")
    line = next(line for line in out.splitlines() if line.startswith("tenant:acme"))
    assert line.split()[:4] == ["tenant:acme", "10.00/month", "9.50", "95%"]
    assert line.split()[-1] == "critical"


def test_budgets_are_the_shared_ledgers(spanledger, books, tmp_path, monkeypatch):
    (tmp_path / "spanledger.toml").write_text(BUDGETS)
    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setenv("SPANLEDGER_LEDGER", url)
    ledger = open_ledger(url)
    key = f"global|month|{datetime.now(UTC):%Y-%m}"
    ledger.add([LimitedScope(key, 110 * 10**9, 10**6)], 25 * 10**9)
    ledger.close()
    open_shared(url).set_limit(Slot(Scope.parse("global"), "month", "usd"), 50 * 10**9)
    books()
    (budget,) = digest(spanledger)["budgets"]
    assert (budget["scope"], budget["limit"], budget["spent"]) == ("global", "50", "25")


def test_a_ledger_that_cannot_be_read_does_not_keep_the_digest(spanledger, week, tmp_path):
    (tmp_path / "spanledger.toml").write_text(BUDGETS)
    (tmp_path / "ledger.db.budgets").write_bytes(b"no database at all" * 100)
    said = digest(spanledger, *FRIDAY)
    assert said["budgets"] == []
    assert said["budgets_error"]
    assert said["total"]["cost_usd"] == "9.75"
    code, out, _ = spanledger("digest", *FRIDAY)
    assert code == 0
    assert "The budgets could not be read" in out


def test_a_wrong_budget_is_an_error(spanledger, week, tmp_path):
    (tmp_path / "spanledger.toml").write_text("[[budgets]]\nscope = 'tenant'\nmonthly_usd = 1\n")
    code, out, errors = spanledger("digest", *FRIDAY)
    assert (code, out) == (2, "")
    assert "budgets" in errors


# -- from Prometheus -------------------------------------------------------------------------------

SATURDAY = ("--since", "2025-11-01", "--until", "2025-11-01")
AT, BEFORE, DAY = 1_761_955_200, 1_761_350_400, 86_400


def test_a_fleets_day_beside_that_of_the_week_before(spanledger, prometheus, days):
    said = digest(spanledger, "--prometheus", prometheus, *SATURDAY)
    assert said["rounded"] is True
    assert prometheus in said["place"]

    def sums(since: int, by: str = "") -> dict[str, Any]:
        found = days.total(COST, since, since + DAY, by=by)
        return {name: pytest.approx(amount, rel=1e-9) for name, amount in found.items()}

    assert float(said["total"]["cost_usd"]) == sums(AT)[""]
    assert float(said["total"]["before_usd"]) == sums(BEFORE)[""]
    for dimension in ("provider", "feature", "tenant"):
        rows = said["by"][dimension]
        assert {row["name"] or "": float(row["cost_usd"]) for row in rows} == sums(AT, dimension)
        before = {r["name"] or "": float(r["before_usd"]) for r in rows if float(r["before_usd"])}
        assert before == sums(BEFORE, dimension)
    assert [r["before_usd"] for r in said["by"]["tenant"] if r["name"] == "newcomer"] == ["0"]
    unpriced = days.total("spanledger_unpriced_calls_total", AT, AT + DAY)[""]
    assert sum(line["calls"] for line in said["unpriced"]) == round(unpriced)
    assert {line["reason"] for line in said["unpriced"]} == {"unknown_model"}


def test_a_fleets_budgets_are_not_added_up_over_processes(prometheus, days):
    fleet = Fleet(Prometheus(prometheus))
    saturday = datetime.fromtimestamp(AT, UTC)
    now = datetime(2025, 11, 2, 23, tzinfo=UTC)
    said = make_digest(fleet, saturday, saturday + timedelta(days=1), now, fleet=True)
    spent = round(days.total(COST, AT)[""], 9)
    found = {(budget.scope, budget.period): budget for budget in said.budgets}
    in_credits = found.pop(("provider:scavio", "month"))
    assert (in_credits.unit, in_credits.limit, in_credits.held) == (
        "credits",
        1000 * 10**9,
        2 * 10**9,
    )
    used = days.total("spanledger_credits_total", AT)[""]
    assert in_credits.spent / 1e9 == pytest.approx(used)
    assert set(found) == {("global", "month"), ("tenant:acme", "month"), ("feature:search", "day")}
    assert {budget.unit for budget in found.values()} == {"usd"}
    budget = found["global", "month"]
    assert Decimal(budget.limit).scaleb(-9) == 60
    assert budget.spent / 1e9 == pytest.approx(spent)
    assert budget.held == 250_000_000
    assert budget.projected is not None
    assert budget.projected / 1e9 == pytest.approx(2 * spent)
    tiers = [budget.tier for budget in said.budgets]
    assert tiers == sorted(tiers, key=["hard", "critical", "warning", "ok"].index)
    assert not any(budget.unverified for budget in said.budgets)


def test_a_prometheus_without_a_week_before(spanledger, prometheus):
    said = digest(spanledger, "--prometheus", prometheus, "--since", "2025-10-25", "--until", "2025-10-25")  # fmt: skip
    assert said["before"] is None
    assert float(said["total"]["cost_usd"]) > 0


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        (110, 100, "+10%"),
        (90, 100, "-10%"),
        (1001, 1000, "0%"),
        (999, 1000, "0%"),
        (995, 100, "+895%"),
        (1000, 100, "x10"),
        (10**15, 10**9, "x1,000,000"),
        (5, 0, "new"),
        (0, 5, "gone"),
        (0, 0, ""),
        (None, 5, ""),
        (5, None, ""),
    ],
)
def test_a_change_in_words(now, before, text):
    assert change(Spend("a", now, before, 1, 0)) == text


@given(st.integers(0, 10**18), st.integers(0, 10**18))
def test_a_change_never_fails_and_is_short(now, before):
    assert len(change(Spend("a", now, before, 1, 0))) <= 26


@pytest.mark.parametrize(
    ("since", "until", "text"),
    [
        ("2026-08-28", "2026-08-29", "Friday, 28 Aug 2026"),
        ("2026-08-01", "2026-09-01", "1 Aug 2026 to 31 Aug 2026"),
        ("2026-08-28T09:30", "2026-08-29", "28 Aug 2026 09:30 to 29 Aug 2026 00:00"),
    ],
)
def test_a_period_in_words(since, until, text):
    assert period_text(datetime.fromisoformat(since), datetime.fromisoformat(until)) == text
