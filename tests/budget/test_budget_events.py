"""Events, status and readings: who is told what, when, and once."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from spanledger.api import guard
from spanledger.api.errors import BudgetExceeded, ConfigurationError
from spanledger.api.gate import OpenGate, install_gate
from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.budget import budget_status, plans, reset_budget, set_budget
from spanledger.budget.budgets import Budgets
from spanledger.budget.config import Slot
from spanledger.budget.evaluator import Evaluator
from spanledger.budget.events import (
    BudgetEvent,
    Spender,
    on_budget_event,
    remove_budget_callback,
)
from spanledger.budget.scopes import Scope
from spanledger.budget.shared import MemoryShared
from spanledger.budget.spenders import top_spenders
from spanledger.budget.status import BudgetStatus
from spanledger.budget.windows import Window
from spanledger.ledger import scope as client_scope
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal import open_journal
from spanledger.ledger.leases import LeasedLedger

from .conftest import START, USD, Clock, MakeBudgets, MakeCall, config_of

MONTH = '[[budgets]]\nscope = "tenant:*"\nmonthly_usd = 100\n'
LATE = "2026-11-29T00:00:00"
"""So late that no projection warns."""

Spend = Callable[..., None]


@pytest.fixture
def heard(clock: Clock) -> list[BudgetEvent]:
    clock.set(LATE)
    return []


# -- events ------------------------------------------------------------------------------------------------


def test_one_event_for_each_tier(make: MakeBudgets, spend: Spend, heard: list[BudgetEvent]) -> None:
    budgets = make(MONTH, on_event=heard.append)
    for _ in range(24):
        spend(budgets, 5)
        budgets.tick()
        budgets.tick()
    assert [event.tier for event in heard] == ["warning", "critical", "hard"]
    assert [event.spent for event in heard] == [70, 90, 110]
    first = heard[0]
    assert (first.scope, first.period, first.unit, first.limit) == (
        "tenant:acme",
        "month",
        "usd",
        100,
    )
    assert (first.cause, first.held, first.top) == ("spent", 0, {})
    assert first.starts_at == datetime(2026, 11, 1, tzinfo=UTC)
    assert first.resets_at == datetime(2026, 12, 1, tzinfo=UTC)


def test_calls_raise_events_too(
    make: MakeBudgets, call: MakeCall, heard: list[BudgetEvent]
) -> None:
    budgets = make(MONTH, on_event=heard.append)
    for _ in range(3):
        answer = budgets.admit(call(), USD)
        answer.hold.settle(40 * USD)  # type: ignore[union-attr]
    assert heard == []  # a call tells nobody itself
    assert budgets.woken.is_set()
    budgets.tick()
    assert [(event.tier, event.spent) for event in heard] == [("warning", 80), ("hard", 120)]
    assert not budgets.woken.is_set()


def test_a_refused_call_is_the_hard_tier(
    make: MakeBudgets, call: MakeCall, spend: Spend, heard: list[BudgetEvent]
) -> None:
    """Calls stop below the threshold, by what one costs: that is told, and seen in the status."""
    budgets = make(MONTH, on_event=heard.append)
    spend(budgets, 104)
    budgets.tick()
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            budgets.admit(call(), 7 * USD)
        budgets.tick()
        assert budgets.status(tenant="acme").tier == "hard"
    assert [(event.tier, event.spent) for event in heard] == [("critical", 104), ("hard", 104)]


def test_a_tier_entered_again_is_no_news(
    make: MakeBudgets, call: MakeCall, spend: Spend, heard: list[BudgetEvent]
) -> None:
    class Anybody(MemoryShared):
        def claim(self, name: str, expires_s: float) -> bool:
            return True

    budgets = make(MONTH, on_event=heard.append, shared=Anybody())
    spend(budgets, 60)
    tiers = []
    for _ in range(3):
        hold = budgets.admit(call(), 40 * USD).hold  # type: ignore[union-attr]
        for _ in range(2):
            status = budgets.status(tenant="acme")
        tiers.append(status.tier)
        hold.release()
        for _ in range(2):
            status = budgets.status(tenant="acme")
        tiers.append(status.tier)
        budgets.tick()
    assert tiers == ["critical", "ok"] * 3
    assert [(event.tier, event.cause, event.held) for event in heard] == [("critical", "held", 40)]


def test_a_jump_skips_what_is_passed(
    make: MakeBudgets, spend: Spend, heard: list[BudgetEvent]
) -> None:
    budgets = make(MONTH, on_event=heard.append)
    spend(budgets, 500)
    budgets.tick()
    assert [event.tier for event in heard] == ["hard"]


def test_each_tenant_and_each_period_has_its_own(
    make: MakeBudgets, spend: Spend, heard: list[BudgetEvent], clock: Clock
) -> None:
    budgets = make(MONTH, on_event=heard.append)
    for tenant in ("a", "b", "a"):
        spend(budgets, 75, tenant=tenant)
        budgets.tick()
    clock.set("2026-12-30T00:00:00")
    spend(budgets, 75, tenant="a")
    budgets.tick()
    assert [(event.scope, event.tier) for event in heard] == [
        ("tenant:a", "warning"),
        ("tenant:b", "warning"),
        ("tenant:a", "hard"),
        ("tenant:a", "warning"),
    ]


def test_processes_that_share_tell_once(
    call: MakeCall, ledger: LeasedLedger, clock: Clock, heard: list[BudgetEvent]
) -> None:
    shared = MemoryShared(lambda: clock() / 1e9)
    both = [
        Budgets(config_of(MONTH), ledger, clock=clock, on_event=heard.append, shared=shared)
        for _ in range(2)
    ]
    for budgets in both:
        budgets.record(call(), 40 * USD)
        budgets.tick()
    for budgets in both:
        budgets.record(call(), USD)
        budgets.tick()
    assert [event.tier for event in heard] == ["warning"]


def test_a_projection_warns(
    make: MakeBudgets, spend: Spend, clock: Clock, heard: list[BudgetEvent]
) -> None:
    clock.set("2026-11-11T00:00:00")  # a third of the month
    budgets = make(MONTH, on_event=heard.append)
    spend(budgets, 45)
    budgets.tick()
    assert heard == []
    spend(budgets, 0.01)
    budgets.tick()
    (event,) = heard
    assert (event.tier, event.cause) == ("warning", "projected")
    assert event.projected is not None
    assert 120 < event.projected < 145


def test_last_months_rate_damps_the_projection(
    make: MakeBudgets, spend: Spend, clock: Clock, heard: list[BudgetEvent]
) -> None:
    clock.set("2026-10-11T00:00:00")
    budgets = make(MONTH)
    spend(budgets, 10)
    clock.set("2026-11-11T00:00:00")
    spend(budgets, 45)
    budgets.tick()
    damped = budgets.status(tenant="acme").projected
    assert damped is not None
    assert damped < 120


def test_the_log_line(
    make: MakeBudgets, spend: Spend, heard: list[BudgetEvent], caplog: pytest.LogCaptureFixture
) -> None:
    def top(event: BudgetEvent) -> dict[str, list[Spender]]:
        return {
            "user": [Spender("u-1", Decimal(50)), Spender("u-2", Decimal("0.002"))],
            "model": [],
        }

    budgets = make(MONTH, on_event=heard.append, top_spenders=top)
    spend(budgets, 72.5)
    budgets.tick()
    (record,) = caplog.records
    assert record.getMessage() == (
        "budget tenant:acme (month) is at its tier warning: spent 72.50 of 100.00 USD, "
        "projected 77.82; it resets at 2026-12-01 00:00 UTC; top user: u-1 50.00, u-2 0.002"
    )
    assert record.levelno == logging.WARNING
    assert heard[0].top["user"][0] == Spender("u-1", Decimal(50))
    spend(budgets, 50)
    budgets.tick()
    assert caplog.records[1].levelno == logging.ERROR


def test_what_breaks_in_a_callback_breaks_nothing_else(
    make: MakeBudgets, spend: Spend, heard: list[BudgetEvent]
) -> None:
    guard.reraise_internal_errors(False)

    def broken(_: BudgetEvent) -> None:
        raise RuntimeError("in the application")

    def no_top(_: BudgetEvent) -> dict[str, list[Spender]]:
        raise RuntimeError("no journal")

    assert on_budget_event(broken) is broken
    on_budget_event(heard.append)
    try:
        budgets = make(MONTH, on_event=broken, top_spenders=no_top)
        spend(budgets, 75)
        budgets.tick()
        assert [event.tier for event in heard] == ["warning"]
        assert guard.internal_errors == {"budget event": 2, "top spenders": 1}
    finally:
        remove_budget_callback(broken)
        remove_budget_callback(heard.append)
    remove_budget_callback(broken)
    spend(budgets, 50)
    budgets.tick()
    assert len(heard) == 1


def test_threads_that_see_it_together_tell_once(
    make: MakeBudgets, call: MakeCall, heard: list[BudgetEvent]
) -> None:
    budgets = make(MONTH.replace("100", "1000"), on_event=heard.append)

    def work() -> None:
        for _ in range(100):
            budgets.admit(call(), USD).hold.settle(USD)  # type: ignore[union-attr]

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    budgets.tick()
    assert [event.tier for event in heard] == ["warning"]
    assert budgets.status(tenant="acme").spent == 800


def test_a_tenant_that_rests_before_anybody_looked_is_told_of(
    make: MakeBudgets,
    spend: Spend,
    ledger: LeasedLedger,
    heard: list[BudgetEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_scope, "IDLE_S", 0.0)
    monkeypatch.setattr(client_scope, "RENEW_S", 0.05)
    budgets = make(MONTH, on_event=heard.append)
    for tenant in ("a", "b"):
        spend(budgets, 95, tenant=tenant)
    keys = [key for key, _ in ledger.counters()]
    deadline = time.monotonic() + 5
    while ledger.known(keys):  # they rest
        assert time.monotonic() < deadline
        time.sleep(0.01)
    budgets.tick()
    assert [(event.scope, event.tier) for event in heard] == [
        ("tenant:a", "critical"),
        ("tenant:b", "critical"),
    ]
    assert [(r.spent, r.tier) for r in budgets.readings()] == [(95 * USD, "critical")] * 2


def test_more_events_than_anybody_expects(
    make: MakeBudgets, spend: Spend, heard: list[BudgetEvent]
) -> None:
    budgets = make(MONTH, on_event=heard.append)
    tenants = [f"t{number}" for number in range(1200)]
    for tenant in tenants:
        spend(budgets, 95, tenant=tenant)
    budgets.tick()
    assert [event.scope for event in heard] == [f"tenant:{tenant}" for tenant in tenants]


def test_what_moves_while_the_background_looks_is_seen_the_next_time(
    ledger: LeasedLedger, call: MakeCall
) -> None:
    both = MONTH + '[[budgets]]\nscope = "global"\nmonthly_usd = 100\n'
    (group,) = plans.Book(config_of(both), START).plan(call()).groups
    evaluator = Evaluator(ledger)
    ledger.add(group.full, 95 * USD)

    class Interrupted(tuple[Window, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Window]:
            yield group.windows[0]
            evaluator.catch_up(START)
            yield group.windows[1]

    evaluator.moved(group._replace(windows=Interrupted(group.windows)), 95 * USD)
    evaluator.catch_up(START)
    assert [entered.window for entered in evaluator.news] == list(group.windows)


# -- top spenders ------------------------------------------------------------------------------------------


def _entry(number: int, call: PaidCall, nano: int | None, credits: int | None = None) -> Entry:
    amount = None if credits is None else Decimal(credits)
    charge = Charge(f"c{number}", nano, amount, "exact")
    return Entry(call, Usage(credits=amount), Ending("ok", 0.1), charge)


def test_top_spenders_from_the_journal(
    make: MakeBudgets, call: MakeCall, heard: list[BudgetEvent], clock: Clock
) -> None:
    journal = open_journal("memory://", service="test")
    paid = [
        (call(user="u1", feature="search"), 40 * USD),
        (call(user="u2", feature="search", model="gpt-5-mini"), 30 * USD),
        (call(user="u3"), 2 * USD),
        (call(user="u4"), 1 * USD),
        (call(user="u5"), None),
        (call("other", user="u9"), 99 * USD),
        (call()._replace(started_ns=clock() - 40 * 86_400 * USD), 500 * USD),  # last period's
    ]
    journal.append([_entry(n, c, nano) for n, (c, nano) in enumerate(paid)])
    budgets = make(
        MONTH, on_event=heard.append, top_spenders=lambda event: top_spenders(journal, event)
    )
    for one, nano in paid[:4]:
        budgets.record(one, nano)
    budgets.tick()
    (event,) = heard
    assert event.top == {
        "user": [Spender("u1", Decimal(40)), Spender("u2", Decimal(30)), Spender("u3", Decimal(2))],
        "feature": [Spender("search", Decimal(70)), Spender("(none)", Decimal(3))],
        "model": [Spender("gpt-5", Decimal(43)), Spender("gpt-5-mini", Decimal(30))],
    }
    journal.close()


def test_top_spenders_in_credits_and_of_odd_names(
    make: MakeBudgets, call: MakeCall, heard: list[BudgetEvent]
) -> None:
    journal = open_journal("memory://", service="test")
    odd = "a+feature:x"
    paid = [(call(odd), 8), (call("a", feature="x"), 100)]
    journal.append([_entry(n, c, None, amount) for n, (c, amount) in enumerate(paid)])
    budgets = make(
        '[[budgets]]\nscope = "tenant:*"\nmonthly_credits = 10',
        on_event=heard.append,
        top_spenders=lambda event: top_spenders(journal, event),
    )
    budgets.record(call(odd), None, Decimal(8))
    budgets.tick()
    assert heard[0].scope == "tenant:a%2Bfeature:x"
    assert heard[0].top["feature"] == [Spender("(none)", Decimal(8))]
    journal.close()


# -- status and readings -----------------------------------------------------------------------------------

SEVERAL = (
    MONTH
    + '[[budgets]]\nscope = "tenant:*"\ndaily_usd = 20\n'
    + '[[budgets]]\nscope = "feature:search"\nweekly_usd = 50\n'
    + '[[budgets]]\nscope = "tenant:acme+feature:search"\ndaily_usd = 10\n'
    + '[[budgets]]\nscope = "global"\nmonthly_usd = 1000\n'
)


def test_status_is_that_of_the_worst_budget(
    make: MakeBudgets, spend: Spend, heard: list[BudgetEvent]
) -> None:
    budgets = make(SEVERAL)
    spend(budgets, 8, feature="search")
    assert budgets.status(tenant="acme")[:3] == ("tenant:acme", "ok", "day")
    assert budgets.status(tenant="acme", feature="search")[:3] == (
        "tenant:acme+feature:search",
        "warning",
        "day",
    )
    assert budgets.status(feature="search")[:3] == ("feature:search", "ok", "week")
    status = budgets.status()
    assert (status.scope, status.limit, status.spent, status.left) == ("global", 1000, 8, 992)
    spend(budgets, 71, tenant="acme")
    assert budgets.status(tenant="acme")[:3] == ("tenant:acme", "hard", "day")
    assert budgets.status(tenant="acme").left == 0


def test_status_without_a_budget(make: MakeBudgets) -> None:
    nothing = BudgetStatus("user:u")
    assert make(SEVERAL).status(user="u") == nothing
    assert (nothing.tier, nothing.limit, nothing.left) == ("ok", None, None)


def test_readings(make: MakeBudgets, spend: Spend, heard: list[BudgetEvent], clock: Clock) -> None:
    budgets = make(SEVERAL)

    def read() -> dict[tuple[str, str], tuple[int, int, str]]:
        return {(r.scope, r.period): (r.limit, r.spent, r.tier) for r in budgets.readings()}

    concrete = {
        ("global", "month"): (1000 * USD, 0, "ok"),
        ("feature:search", "week"): (50 * USD, 0, "ok"),
        ("tenant:acme+feature:search", "day"): (10 * USD, 0, "ok"),
    }
    assert read() == concrete
    spend(budgets, 19, tenant="b", feature="search")
    assert read() == {
        **concrete,
        ("global", "month"): (1000 * USD, 19 * USD, "ok"),
        ("feature:search", "week"): (50 * USD, 19 * USD, "ok"),
        ("tenant:b", "month"): (100 * USD, 19 * USD, "ok"),
        ("tenant:b", "day"): (20 * USD, 19 * USD, "critical"),
    }
    clock.set("2026-12-10T00:00:00")  # what has ended is no longer read
    assert read() == concrete


def test_readings_tell_what_is_held_and_projected(
    make: MakeBudgets, call: MakeCall, clock: Clock
) -> None:
    budgets = make(MONTH + '[[budgets]]\nscope = "global"\nmonthly_credits = 1\n')
    budgets.record(call(), 40 * USD)
    hold = budgets.admit(call(), 3 * USD).hold  # type: ignore[union-attr]
    by_unit = {reading.unit: reading for reading in budgets.readings()}
    assert by_unit["usd"].held == 3 * USD
    assert by_unit["usd"].projected is not None
    assert by_unit["credits"].projected is None
    assert not by_unit["usd"].unverified
    hold.release()


def test_which_budgets_are_exported(make: MakeBudgets, spend: Spend) -> None:
    """A user, and one of many tenants, only where the configuration spells them out."""
    scopes = ("global", "tenant:*", "user:*", "tenant:*+user:vip", "user:vip", "feature:a")
    budgets = make(
        "".join(f'[[budgets]]\nscope = "{scope}"\nmonthly_usd = 100\n' for scope in scopes)
    )
    for names in ({"tenant": "acme"}, {"tenant": "set"}):
        budgets.set_limit(Slot(Scope(**names), "month", "usd"), 50 * USD)
    budgets.set_limit(Slot(Scope(user="set"), "month", "usd"), 50 * USD)
    for user in ("vip", "other"):
        spend(budgets, 1, user=user, feature="b")
    assert {r.scope: r.series for r in budgets.readings()} == {
        "global": "always",
        "user:vip": "always",
        "feature:a": "always",
        "tenant:acme": "bounded",
        "tenant:set": "bounded",
        "tenant:acme+user:vip": "bounded",
        "user:set": "never",
        "user:other": "never",
    }


def test_ended_windows_are_let_go(make: MakeBudgets, spend: Spend, clock: Clock) -> None:
    budgets = make('[[budgets]]\nscope = "tenant:*"\ndaily_usd = 1\n')
    for _ in range(10):
        for tenant in "abc":
            spend(budgets, 0.1, tenant=tenant)
        budgets.tick()
        clock.forward(86_400)
    budgets.tick()
    assert len(budgets._book.windows) == 0
    assert len(budgets._book._plans) == 0


def test_what_is_remembered_is_bounded(
    make: MakeBudgets, call: MakeCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "MOST_PLANS", 30)
    monkeypatch.setattr(plans, "MOST_WINDOWS", 50)
    budgets = make(MONTH)
    for number in range(200):
        tenant = f"t{number}"
        budgets.admit(call(tenant), USD).hold.settle(USD)  # type: ignore[union-attr]
        assert budgets.status(tenant=tenant).spent == 1
        assert len(budgets._book.windows) <= 51
        assert len(budgets._book._plans) <= 30
    # What was forgotten here is still in the ledger.
    assert budgets.status(tenant="t0").spent == 1


# -- from an application's code ----------------------------------------------------------------------------


class _Gate(OpenGate):
    def __init__(self, budgets: Budgets) -> None:
        self.budgets = budgets


def test_code_asks_and_sets(make: MakeBudgets, spend: Spend, heard: list[BudgetEvent]) -> None:
    assert budget_status(tenant="acme") == BudgetStatus("tenant:acme")
    with pytest.raises(ConfigurationError, match="no budgets are running"):
        set_budget("tenant:acme", monthly_usd=1)
    budgets = make(MONTH, on_event=heard.append)
    install_gate(_Gate(budgets))
    spend(budgets, 75)
    assert budget_status(tenant="acme").tier == "warning"
    set_budget("tenant:acme", monthly_usd="150.50", daily_usd=90)
    by_period = {b.period: b.limit for b in budgets.config.budgets if b.scope.tenant == "acme"}
    assert by_period == {"month": 150_500_000_000, "day": 90 * USD}
    assert budget_status(tenant="acme")[:3] == ("tenant:acme", "ok", "month")
    spend(budgets, 70)  # what the new day's budget has counted so far
    assert budget_status(tenant="acme")[:3] == ("tenant:acme", "critical", "month")
    reset_budget("tenant:acme")
    assert budget_status(tenant="acme")[:5] == ("tenant:acme", "hard", "month", "usd", 100)


@pytest.mark.parametrize(
    ("scope", "amounts", "said"),
    [
        ("tenants:a", {"daily_usd": 1}, "code: tenants:a: 'tenants:a' is not global"),
        ("tenant:a", {}, "code: tenant:a: no amount is given. Give one of daily_usd"),
        (
            "tenant:a",
            {"yearly_usd": 1},
            "code: yearly_usd: is no amount of a budget. Use daily_usd",
        ),
        ("tenant:a", {"daily_usd": -1}, "code: daily_usd: is -1. Give a number"),
        ("tenant:a", {"daily_usd": "x"}, "code: daily_usd: is 'x'. Give a number"),
        ("tenant:a", {"daily_usd": "NaN"}, "code: daily_usd: is 'NaN'. Give a number"),
        ("tenant:a", {"daily_usd": 10**9}, "code: daily_usd: is 1000000000. Give a number"),
    ],
)
def test_code_is_told_its_mistakes(
    make: MakeBudgets, scope: str, amounts: dict[str, object], said: str
) -> None:
    budgets = make(MONTH)
    install_gate(_Gate(budgets))
    with pytest.raises(ConfigurationError) as caught:
        set_budget(scope, **amounts)  # type: ignore[arg-type]
    assert str(caught.value).startswith(said)
    assert len(budgets.config.budgets) == 1


def test_status_asks_for_the_attribution_it_is_given(make: MakeBudgets, clock: Clock) -> None:
    budgets = make('[[budgets]]\nscope = "provider:openai"\ndaily_usd = 10\n')
    install_gate(_Gate(budgets))
    other = PaidCall("anthropic", "chat", "m", Attribution("t"), clock())
    budgets.record(other, USD)
    budgets.record(other._replace(provider="openai"), 2 * USD)
    assert budget_status(provider="openai").spent == 2
