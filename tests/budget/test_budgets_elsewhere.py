"""How budgets stand where this process does not spend: in metrics, from the shared ledger."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spanledger.budget.budgets import Budgets
from spanledger.budget.config import Slot
from spanledger.budget.events import BudgetEvent
from spanledger.budget.periods import period_at
from spanledger.budget.scopes import Scope
from spanledger.budget.shared import MemoryShared
from spanledger.budget.windows import Window
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.protocol import ScopeState, open_ledger

from .conftest import START, USD, Clock, MakeCall, config_of

BUDGETS = """
[[budgets]]
scope = "tenant:acme"
monthly_usd = 100
[[budgets]]
scope = "global"
monthly_usd = 1000
[[budgets]]
scope = "tenant:*"
monthly_usd = 100
"""
ACME = Slot(Scope(tenant="acme"), "month", "usd")

Process = Callable[..., Budgets]


@pytest.fixture
def process(tmp_path: Path, clock: Clock) -> Iterator[Process]:
    """Budgets as another process has them, over the same ledger."""
    ledgers: list[LeasedLedger] = []

    def process(**more: Any) -> Budgets:
        ledgers.append(open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
        return Budgets(config_of(BUDGETS), ledgers[-1], clock=clock, **more)

    yield process
    for ledger in ledgers:
        ledger.close()


def stands(budgets: Budgets) -> dict[str, tuple[int, str]]:
    return {r.scope: (r.spent // USD, r.tier) for r in budgets.readings() if r.known}


def spend(budgets: Budgets, call: MakeCall, usd: int, tenant: str = "acme") -> None:
    admission = budgets.admit(call(tenant), 0)  # so that the ledger knows at once
    admission.hold.settle(usd * USD)  # type: ignore[union-attr]
    budgets.status(tenant=tenant)


def test_a_process_that_starts_says_what_was_spent(
    process: Process, call: MakeCall, clock: Clock
) -> None:
    first = process()
    spend(first, call, 120)
    spend(first, call, 20, "other")
    first._ledger.close()
    heard: list[BudgetEvent] = []
    second = process(on_event=heard.append)
    assert stands(second) == {}  # and not 0
    second.tick()
    # Who used a budget for many scopes tells of it.
    assert stands(second) == {"tenant:acme": (120, "hard"), "global": (140, "ok")}
    # The event is for those who spent to tell: they know who it was. Where nobody did, others do.
    assert heard == []
    clock.forward(5)
    second.tick()
    assert [(event.scope, event.tier) for event in heard] == [("tenant:acme", "hard")]


def test_who_spent_tells(process: Process, call: MakeCall, clock: Clock) -> None:
    told: list[str] = []
    shared = MemoryShared(lambda: clock() / 1e9)
    one = process(shared=shared, on_event=lambda _: told.append("one"))
    other = process(shared=shared, on_event=lambda _: told.append("other"))
    one.tick()
    other.tick()
    spend(one, call, 120)
    one._ledger.close()
    deadline = time.monotonic() + 5
    while stands(other)["tenant:acme"] != (120, "hard"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        clock.forward(5)
        other.catch_up()
    assert not other.has_news
    one.tick()
    clock.forward(5)
    other.tick()
    assert told == ["one"]


def test_what_is_spent_elsewhere_is_seen(process: Process, call: MakeCall, clock: Clock) -> None:
    one, other = process(), process()
    other.tick()
    assert stands(other) == {"tenant:acme": (0, "ok"), "global": (0, "ok")}
    spend(one, call, 95)
    one._ledger.close()
    expected = {"tenant:acme": (95, "critical"), "global": (95, "ok")}
    deadline = time.monotonic() + 5
    while stands(other) != expected:  # what was read is good for a quarter of a second
        assert time.monotonic() < deadline
        time.sleep(0.05)
        clock.forward(5)
        other.tick()


def test_a_changed_limit_shows_with_what_was_spent(process: Process, call: MakeCall) -> None:
    one, other = process(), process()
    spend(one, call, 60)
    one._ledger.close()
    other.tick()
    other.set_limit(ACME, 50 * USD)
    assert stands(other) == {"global": (60, "ok")}
    other.tick()
    assert stands(other) == {"tenant:acme": (60, "hard"), "global": (60, "ok")}


def test_the_projection_of_who_does_not_spend_is_the_same(
    process: Process, call: MakeCall, clock: Clock
) -> None:
    one, other = process(), process()
    clock.set("2026-10-11T00:00:00")
    spend(one, call, 10)
    clock.set("2026-11-11T00:00:00")
    spend(one, call, 45)
    one.tick()
    one._ledger.close()
    other.tick()
    projected = [{r.scope: r.projected for r in budgets.readings()} for budgets in (one, other)]
    assert projected[0]["tenant:acme"] is not None
    assert projected[0] == projected[1]


def test_without_a_ledger_nobody_knows(clock: Clock) -> None:
    ledger = open_ledger("redis://127.0.0.1:1/0")
    budgets = Budgets(config_of(BUDGETS), ledger, clock=clock)
    budgets.tick()
    assert {(r.known, r.unverified) for r in budgets.readings()} == {(False, True)}
    ledger.close()


def test_spent_does_not_fall_where_nobody_knows() -> None:
    """As while a store that lost its memory is told again, or a process takes a scope up."""
    (budget, *_) = config_of(BUDGETS).budgets
    window = Window(budget, "tenant:acme", period_at("month", budget.options.zone, START))
    for state, spent in (
        (ScopeState(50 * USD, 0, unverified=False), 50),
        (ScopeState(0, 0, unverified=True), 50),
        (ScopeState(51 * USD, 0, unverified=True), 51),
        (ScopeState(49 * USD, 0, unverified=False), 49),  # a correction
    ):
        window.evaluate(state, START)
        assert window.spent == spent * USD
