"""Admission: tiers, throttle, degradation and refusal, over a real ledger."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanledger.api.errors import BudgetExceeded, BudgetThrottled
from spanledger.api.values import ModelSwap, PaidCall
from spanledger.budget.budgets import Budgets
from spanledger.budget.events import BudgetEvent
from spanledger.budget.holds import UNLIMITED, Admission, Pause
from spanledger.ledger.journal_producers import Spent
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.memory import MemoryStore
from spanledger.ledger.protocol import Denied, LimitedScope

from .conftest import USD, Clock, MakeBudgets, MakeCall, config_of

MONTH = '[[budgets]]\nscope = "tenant:*"\nmonthly_usd = 100\n'
STRICT = MONTH + "tiers = {critical = 1.0, hard = 1.0, ceiling = 1.0}\n"
"""Nothing is throttled: hard begins with critical."""
CHEAPER = '[models.cheaper]\n"openai/gpt-5" = {model = "gpt-5-mini", unset = ["temperature"]}\n'
MINI = ModelSwap("gpt-5-mini", {}, ("temperature",))


def admitted(answer: Admission | Pause | None) -> Admission:
    assert isinstance(answer, Admission)
    return answer


def pay(budgets: Budgets, call: PaidCall, usd: float) -> Admission:
    """Admit a call that costs what was estimated."""
    admission = admitted(budgets.admit(call, round(usd * USD)))
    admission.hold.settle(round(usd * USD))
    return admission


# -- the plain way -----------------------------------------------------------------------------------------


def test_without_budgets_all_is_admitted(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make("")
    answer = budgets.admit(call(), 10**18)
    assert answer is UNLIMITED
    assert (UNLIMITED.tier, UNLIMITED.decision) == (None, "proceed")
    UNLIMITED.hold.settle(5)
    UNLIMITED.hold.release()


def test_a_call_without_a_matching_budget(make: MakeBudgets, call: MakeCall) -> None:
    assert make(MONTH).admit(call(tenant=None), USD) is UNLIMITED


def test_spending_moves_the_status(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(MONTH)
    first = admitted(budgets.admit(call(), 10 * USD))
    second = admitted(budgets.admit(call(), 5 * USD))
    assert first.tier == "ok"
    status = budgets.status(tenant="acme")
    assert (status.spent, status.held, status.left) == (0, 15, 85)
    first.hold.settle(8 * USD)
    first.hold.settle(8 * USD)  # a second ending does nothing
    second.hold.release()
    second.hold.settle(5 * USD)
    status = budgets.status(tenant="acme")
    assert (status.spent, status.held, status.left, status.limit) == (8, 0, 92, 100)
    assert budgets.status(tenant="other").spent == 0


def test_every_scope_must_agree(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(
        STRICT + '[[budgets]]\nscope = "global"\ndaily_usd = 5\ntiers = {critical=1.0, hard=1.0}\n'
    )
    pay(budgets, call("a"), 3)
    with pytest.raises(BudgetExceeded) as caught:
        budgets.admit(call("b"), 3 * USD)
    assert caught.value.scope == "global"
    # What the tenant's budget held for it is given back.
    assert budgets.status(tenant="b").held == 0
    pay(budgets, call("b"), 2)


def test_each_user_has_a_budget(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(STRICT.replace("tenant:*", "user:*"))
    pay(budgets, call(user="u1"), 100)
    pay(budgets, call(user="u2"), 1)
    with pytest.raises(BudgetExceeded) as caught:
        budgets.admit(call(user="u1"), USD)
    assert caught.value.scope == "user:u1"
    assert budgets.admit(call(user=None), USD) is UNLIMITED


def test_a_ledger_keeps_counters_until_the_next_period_is_over(
    make: MakeBudgets, call: MakeCall
) -> None:
    """That one is projected from this one."""
    (group,) = make(MONTH)._book.plan(call()).groups
    kept_until = datetime.fromtimestamp(group.full[0].expires_s, UTC)
    assert datetime(2026, 12, 31, tzinfo=UTC) <= kept_until < datetime(2027, 1, 31, tzinfo=UTC)


def test_the_error_says_it_all(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(STRICT + 'timezone = "Europe/Berlin"')
    pay(budgets, call(), 99.5)
    with pytest.raises(BudgetExceeded) as caught:
        budgets.admit(call(), USD)
    error = caught.value
    assert (error.scope, error.tier, error.limit, error.spent) == (
        "tenant:acme",
        "hard",
        Decimal(100),
        Decimal("99.5"),
    )
    assert error.resets_at is not None
    assert error.resets_at.isoformat() == "2026-11-30T23:00:00+00:00"
    assert not error.retryable
    assert (error.unit, error.reason, error.unverified) == ("usd", "used_up", False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 40 * USD), st.floats(0, 1), st.booleans(), st.booleans()),
        max_size=60,
    )
)
def test_nothing_passes_the_limit(
    call: MakeCall, calls: list[tuple[int, float, bool, bool]]
) -> None:
    """With hard = ceiling = 1.0 and estimates as upper bounds: whatever calls do, in whatever order they end."""
    ledger = LeasedLedger(MemoryStore())
    budgets = Budgets(config_of(STRICT + CHEAPER), ledger, clock=Clock())
    open_holds: list[tuple[Admission, int, float]] = []
    spent = 0
    for estimate, part, ends, kept in calls:
        try:
            answer = budgets.admit(call(), estimate, cheaper_estimate=lambda _, e=estimate: e // 3)
        except BudgetExceeded:
            continue
        admission = admitted(answer)
        cost = estimate if admission.decision == "proceed" else estimate // 3
        open_holds.append((admission, cost, part))
        if ends:
            ended, cost, actual_part = open_holds.pop(0)
            if kept:
                ended.hold.settle(round(cost * actual_part))
                spent += round(cost * actual_part)
            else:
                ended.hold.release()
        status = budgets.status(tenant="acme")
        assert status.spent is not None
        assert status.held is not None
        assert status.spent + status.held <= 100
        assert status.spent == Decimal(spent).scaleb(-9)
        assert status.held >= 0
    ledger.close()


# -- warning and critical ----------------------------------------------------------------------------------


def test_tiers_on_the_way(make: MakeBudgets, call: MakeCall, clock: Clock) -> None:
    clock.set("2026-11-29T00:00:00")  # late enough, so that no projection warns
    budgets = make(MONTH + "max_wait = 0\n")
    tiers = [pay(budgets, call(), 10).tier for _ in range(10)]
    assert tiers == ["ok"] * 7 + ["warning"] * 2 + ["critical"]


def test_critical_paces_and_then_throttles(
    make: MakeBudgets, call: MakeCall, clock: Clock, spend: Callable[..., None]
) -> None:
    clock.set("2026-11-21T00:00:00")  # ten days are left
    budgets = make(MONTH + 'max_wait = "60s"\n')
    spend(budgets, 90)
    # 20 USD for ten days: 2 a day. Calls may run 1 % of the period ahead: 0.6 USD.
    paid = 0.0
    with pytest.raises(BudgetThrottled) as caught:
        for _ in range(100):
            assert pay(budgets, call(), 0.1).tier == "critical"
            paid += 0.1
    assert paid == pytest.approx(0.7, abs=0.11)
    error = caught.value
    assert (error.scope, error.tier) == ("tenant:acme", "critical")
    assert 60 < error.retry_after < 2 * 0.1 / 2 * 86_400
    clock.forward(error.retry_after - 30)
    answer = budgets.admit(call(), USD // 10)
    assert isinstance(answer, Pause)
    assert answer.seconds == pytest.approx(30, abs=0.1)
    # Who waited so far and shall wait on is throttled once it is more than max_wait in all.
    with pytest.raises(BudgetThrottled):
        budgets.admit(call(), USD // 10, waited_s=31)
    clock.forward(answer.seconds)
    admitted(budgets.admit(call(), USD // 10, waited_s=answer.seconds))


def test_processes_share_the_pace(
    call: MakeCall, clock: Clock, ledger: LeasedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.set("2026-11-21T00:00:00")
    ledgers = [ledger, *(LeasedLedger(ledger._store) for _ in range(3))]
    processes = [
        Budgets(config_of(MONTH + "max_wait = 0\n"), each, clock=clock) for each in ledgers
    ]
    for process in processes:
        process.record(call(), round(22.5 * USD))
    key = processes[0]._book.plan(call()).windows[0].key
    until = time.monotonic() + 10
    while [each.producers(key) for each in ledgers] != [4] * 4:
        assert time.monotonic() < until
        time.sleep(0.01)
    calls = 0
    for process in processes:
        clock.forward(0.1)
        with suppress(BudgetThrottled):
            while calls < 100:
                pay(process, call(), 0.02)
                calls += 1
    for each in ledgers[1:]:
        each.close()
    assert calls * 0.02 == pytest.approx(0.6, abs=0.15)  # as one process alone may run ahead


def test_never_wait(
    make: MakeBudgets, call: MakeCall, clock: Clock, spend: Callable[..., None]
) -> None:
    budgets = make(MONTH + "max_wait = 0\n")
    spend(budgets, 95)
    pay(budgets, call(), 5)
    with pytest.raises(BudgetThrottled):
        budgets.admit(call(), USD)


def test_what_costs_nothing_is_not_paced(
    make: MakeBudgets, call: MakeCall, spend: Callable[..., None]
) -> None:
    budgets = make(MONTH + "max_wait = 0\n")
    spend(budgets, 95)
    pay(budgets, call(), 5)
    assert pay(budgets, call(), 0).tier == "critical"


def test_a_pace_by_fake_clock_lasts_to_the_end(
    make: MakeBudgets, call: MakeCall, clock: Clock, spend: Callable[..., None]
) -> None:
    """A caller that asks whenever it is told to is let spend until the end, never past hard."""
    clock.set("2026-11-30T00:00:00")
    budgets = make(MONTH + "max_wait = 0\n")
    spend(budgets, 90)
    at_noon = None
    end = clock.ns + 86_400 * USD
    while clock.ns < end:
        try:
            pay(budgets, call(), 0.25)
        except BudgetThrottled as error:
            clock.forward(error.retry_after + 0.001)
        if at_noon is None and clock.ns >= end - 43_200 * USD:
            at_noon = budgets.status(tenant="acme").spent
    assert at_noon is not None
    # The burst of 7.2 hours comes first, then the pace.
    assert 98 < at_noon < 108
    clock.set("2026-11-30T23:59:00")
    spent = budgets.status(tenant="acme").spent
    assert spent is not None
    assert 105 < spent <= 110


def test_where_hard_begins_with_critical_nothing_is_throttled(
    make: MakeBudgets, call: MakeCall
) -> None:
    budgets = make(STRICT + "max_wait = 0\n")
    for _ in range(40):
        pay(budgets, call(), 2.5)
    with pytest.raises(BudgetExceeded):
        budgets.admit(call(), 1)
    assert budgets.status(tenant="acme").spent == 100


def test_it_does_not_pace_after_a_moment_at_the_limit_either(
    make: MakeBudgets, call: MakeCall, spend: Callable[..., None]
) -> None:
    budgets = make(STRICT + "max_wait = 0\n")
    spend(budgets, 96)
    hold = admitted(budgets.admit(call(), 4 * USD)).hold
    for _ in range(2):
        status = budgets.status(tenant="acme")
    assert status.tier == "hard"
    hold.release()
    for _ in range(40):
        assert pay(budgets, call(), 0.1).tier == "hard"


def test_what_no_longer_fits_is_not_told_to_come_back(
    make: MakeBudgets, call: MakeCall, spend: Callable[..., None]
) -> None:
    """A call larger than what is left is degraded, however late the pace is."""
    budgets = make(MONTH + "max_wait = 0\n" + CHEAPER)
    spend(budgets, 95)
    pay(budgets, call(), 5)
    with pytest.raises(BudgetThrottled):
        budgets.admit(call(), USD)
    answer = admitted(budgets.admit(call(), 11 * USD, cheaper_estimate=lambda _: USD))
    assert answer.decision == "cheaper_model"


# -- hard --------------------------------------------------------------------------------------------------


@pytest.fixture
def full(make: MakeBudgets, spend: Callable[..., None]) -> Budgets:
    """A budget at 110 of 100 USD."""
    budgets = make(MONTH + CHEAPER)
    spend(budgets, 110)
    return budgets


def test_stale_comes_first(full: Budgets, call: MakeCall) -> None:
    answer = admitted(
        full.admit(call(stale_available=True), USD, cheaper_estimate=lambda _: USD // 10)
    )
    assert (answer.decision, answer.swap, answer.tier) == ("stale", None, "hard")
    answer.hold.settle(0)
    assert full.status(tenant="acme").held == 0


def test_then_the_cheaper_model_up_to_the_ceiling(full: Budgets, call: MakeCall) -> None:
    asked: list[ModelSwap] = []

    def cheaper(swap: ModelSwap) -> int:
        asked.append(swap)
        return 3 * USD

    spent = 110
    for _ in range(3):
        answer = admitted(full.admit(call(), 5 * USD, cheaper_estimate=cheaper))
        assert (answer.decision, answer.swap, answer.tier) == ("cheaper_model", MINI, "hard")
        answer.hold.settle(3 * USD)
        spent += 3
        assert full.status(tenant="acme").spent == spent
    assert asked == [MINI] * 3
    with pytest.raises(BudgetExceeded):
        full.admit(call(), 5 * USD, cheaper_estimate=cheaper)
    # At the ceiling a stale result is still something.
    stale = full.admit(call(stale_available=True), 5 * USD, cheaper_estimate=cheaper)
    assert admitted(stale).decision == "stale"


def test_no_cheaper_model(full: Budgets, call: MakeCall) -> None:
    with pytest.raises(BudgetExceeded):
        full.admit(call(model="gpt-4"), USD, cheaper_estimate=lambda _: 1)
    with pytest.raises(BudgetExceeded):
        full.admit(call(model=None), USD, cheaper_estimate=lambda _: 1)
    with pytest.raises(BudgetExceeded):
        full.admit(call(), USD)


@pytest.mark.parametrize(
    ("degrade", "decision"),
    [('["stale_cache"]', "stale"), ('["cheaper_model"]', "cheaper_model"), ("[]", None)],
)
def test_only_what_the_budget_allows(
    make: MakeBudgets,
    call: MakeCall,
    spend: Callable[..., None],
    degrade: str,
    decision: str | None,
) -> None:
    budgets = make(MONTH + f"degrade = {degrade}\n" + CHEAPER)
    spend(budgets, 110)
    ask = call(stale_available=True)
    if decision is None:
        with pytest.raises(BudgetExceeded):
            budgets.admit(ask, USD, cheaper_estimate=lambda _: 1)
    else:
        answer = admitted(budgets.admit(ask, USD, cheaper_estimate=lambda _: 1))
        assert answer.decision == decision


def test_a_budget_without_cheaper_models_keeps_its_hard_limit(
    make: MakeBudgets, call: MakeCall, spend: Callable[..., None]
) -> None:
    """A call degraded for one budget's sake does not get more of another that knows no cheaper model."""
    toml = MONTH + '[[budgets]]\nscope = "global"\nmonthly_usd = 100\ndegrade = ["stale_cache"]\n'
    budgets = make(toml + CHEAPER)
    spend(budgets, 109.5)
    spend(budgets, 0.5, tenant="other")
    assert budgets.status().spent == 110
    with pytest.raises(BudgetExceeded) as caught:
        budgets.admit(call(), USD, cheaper_estimate=lambda _: USD // 2)
    assert caught.value.scope == "global"
    stale = budgets.admit(call(stale_available=True), USD, cheaper_estimate=lambda _: USD // 2)
    assert admitted(stale).decision == "stale"


def test_each_refusing_budget_has_its_own_way(
    make: MakeBudgets, call: MakeCall, spend: Callable[..., None]
) -> None:
    """The tenant's allows only the cheaper model, the global one only stale results."""
    toml = MONTH + 'degrade = ["cheaper_model"]\n'
    toml += '[[budgets]]\nscope = "global"\nmonthly_usd = 100\ndegrade = ["stale_cache"]\n'
    budgets = make(toml + CHEAPER)
    spend(budgets, 109.5)
    spend(budgets, 0.4, tenant="other")
    ask = call(stale_available=True)
    # 0.55 fits into the tenant's budget no more, 0.2 into the global one neither.
    stale = budgets.admit(ask, USD * 55 // 100, cheaper_estimate=lambda _: USD // 5)
    assert admitted(stale).decision == "stale"
    cheaper = budgets.admit(ask, USD * 55 // 100, cheaper_estimate=lambda _: USD // 20)
    assert admitted(cheaper).decision == "cheaper_model"


def test_a_cheap_enough_call_is_no_full_price_call_refused(
    make: MakeBudgets, call: MakeCall
) -> None:
    """What still fits is let through, whatever was refused before."""
    budgets = make(STRICT)
    pay(budgets, call(), 99)
    with pytest.raises(BudgetExceeded):
        budgets.admit(call(), 2 * USD)
    assert pay(budgets, call(), 1).decision == "proceed"


# -- observe only ------------------------------------------------------------------------------------------

ALLOW = MONTH + 'exhausted = "allow"\n'


def test_allow_refuses_and_throttles_nothing(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(ALLOW)
    tiers = [pay(budgets, call(), 30).tier for _ in range(6)]
    assert tiers == ["ok", "ok", "ok", "critical", "hard", "hard"]
    status = budgets.status(tenant="acme")
    assert (status.spent, status.left, status.tier) == (180, 0, "hard")


def test_allow_may_degrade(make: MakeBudgets, call: MakeCall, clock: Clock) -> None:
    budgets = make(ALLOW + 'degrade = ["cheaper_model"]\n' + CHEAPER)
    pay(budgets, call(), 109)
    early = admitted(budgets.admit(call(), USD, cheaper_estimate=lambda _: 1))
    assert (early.decision, early.tier) == ("proceed", "critical")
    early.hold.settle(USD)
    clock.forward(0.06)  # an evaluation is good for 50 ms, or 1 % of the budget
    answer = admitted(budgets.admit(call(), 50 * USD, cheaper_estimate=lambda _: USD))
    assert (answer.decision, answer.tier) == ("cheaper_model", "hard")
    answer.hold.release()
    # Nothing to degrade to: it goes on as asked.
    assert admitted(budgets.admit(call(model="other"), 50 * USD)).decision == "proceed"


def test_allow_does_not_lift_other_budgets(
    make: MakeBudgets, call: MakeCall, spend: Callable[..., None]
) -> None:
    budgets = make(ALLOW + '[[budgets]]\nscope = "global"\ndaily_usd = 150\n')
    spend(budgets, 165)
    with pytest.raises(BudgetExceeded) as caught:
        budgets.admit(call(), USD)
    assert caught.value.scope == "global"


# -- unknown prices ----------------------------------------------------------------------------------------


def test_unknown_counts_by_a_ceiling(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(STRICT + "unknown_usd = 30\n")
    for spent in (30, 60, 90):
        hold = admitted(budgets.admit(call(), None)).hold
        assert budgets.status(tenant="acme").held == 30
        hold.settle(None)
        assert budgets.status(tenant="acme").spent == spent
    with pytest.raises(BudgetExceeded):
        budgets.admit(call(), None)
    budgets.record(call(), None)
    assert budgets.status(tenant="acme").spent == 120


def test_a_price_that_turns_out_counts_itself(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(STRICT + "unknown_usd = 30\n")
    admitted(budgets.admit(call(), None)).hold.settle(7 * USD)
    admitted(budgets.admit(call(), 7 * USD)).hold.settle(None)
    assert budgets.status(tenant="acme").spent == 37


def test_unknown_blocked(
    make: MakeBudgets, call: MakeCall, caplog: pytest.LogCaptureFixture
) -> None:
    budgets = make(STRICT + 'unknown = "block"\n' + CHEAPER)
    for _ in range(2):
        with pytest.raises(BudgetExceeded) as caught:
            budgets.admit(call(model="new"), None)
    error = caught.value
    assert (error.tier, error.reason, error.unverified) == ("ok", "unknown_price", False)
    assert str(error) == "budget tenant:acme refuses calls of unknown price"
    assert [r.getMessage() for r in caplog.records] == [
        'budget tenant:acme refuses calls of unknown price (unknown = "block"): openai new has none'
    ]
    assert pay(budgets, call(), 1).decision == "proceed"
    # Degraded to a model with a price, it may go.
    answer = admitted(budgets.admit(call(), None, cheaper_estimate=lambda _: USD))
    assert answer.decision == "cheaper_model"
    with pytest.raises(BudgetExceeded):
        budgets.admit(call(), None, cheaper_estimate=lambda _: None)
    assert budgets.status(tenant="acme").held == 1


def test_what_blocks_gives_back_what_others_held(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(STRICT + '[[budgets]]\nscope = "global"\nmonthly_usd = 9\nunknown = "block"\n')
    with pytest.raises(BudgetExceeded) as caught:
        budgets.admit(call(), None)
    assert caught.value.scope == "global"
    assert budgets.status(tenant="acme").held == 0


def test_unknown_ignored(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(STRICT + 'unknown = "ignore"\n')
    admitted(budgets.admit(call(), None)).hold.settle(None)
    budgets.record(call(), None)
    assert budgets.status(tenant="acme").spent == 0


def test_each_budget_has_its_own_view_of_unknown(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(
        STRICT
        + 'unknown = "ignore"\n[[budgets]]\nscope = "global"\nmonthly_usd = 9\nunknown_usd = 2\n'
    )
    admitted(budgets.admit(call(), USD)).hold.settle(None)
    admitted(budgets.admit(call(), None)).hold.settle(None)
    assert (budgets.status(tenant="acme").spent, budgets.status().spent) == (0, 4)


# -- credits -----------------------------------------------------------------------------------------------

CREDITS = """
[[budgets]]
scope = "tenant:*"
monthly_credits = 10
tiers = {critical = 1.0, hard = 1.0, ceiling = 1.0}
"""


def test_credits(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(MONTH.replace("tenant:*", "global") + CREDITS)
    search = call(provider="scavio", model=None, credits="2.5")
    hold = admitted(budgets.admit(search, USD)).hold
    assert budgets.status(tenant="acme").held == Decimal("2.5")
    hold.settle(USD, Decimal("3.25"))
    assert budgets.status(tenant="acme").spent == Decimal("3.25")
    assert budgets.status().spent == 1
    # Credits that nobody reported count as estimated.
    admitted(budgets.admit(search, USD)).hold.settle(None, None)
    status = budgets.status(tenant="acme")
    assert (status.spent, status.unit) == (Decimal("5.75"), "credits")
    budgets.record(search, None, Decimal(3))
    with pytest.raises(BudgetExceeded) as caught:
        budgets.admit(search, USD)
    error = caught.value
    assert (error.limit, error.spent, error.unit) == (10, Decimal("8.75"), "credits")
    assert str(error).startswith(
        "budget tenant:acme is used up: 8.75 of 10 credits; it resets at 2026-12-01"
    )
    # Refused for its credits, it holds no money.
    assert budgets.status().held == 0
    # A call that is not paid in credits is none of this budget's business, until it turns out to be.
    budgets.record(search, None, Decimal(50))
    hold = admitted(budgets.admit(call(), USD)).hold
    hold.settle(USD, Decimal(1))
    hold.settle(USD, Decimal(1))
    admitted(budgets.admit(call(), USD)).hold.release()
    assert (budgets.status(tenant="acme").spent, budgets.status().spent) == (
        Decimal("59.75"),
        Decimal("2.3"),
    )


# -- an outage ---------------------------------------------------------------------------------------------


class Closed:
    """A ledger whose store is down, and which denies therefore."""

    def __init__(self, ledger: LeasedLedger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)

    def reserve(self, scopes: list[LimitedScope], estimate: int, **_: object) -> Denied:
        return Denied(scopes[0].key, 95 * USD, 0, unverified=True)


def test_a_refusal_for_want_of_a_ledger(
    call: MakeCall, clock: Clock, ledger: LeasedLedger, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[BudgetEvent] = []
    budgets = Budgets(
        config_of(MONTH + 'on_outage = "closed"\n'),
        Closed(ledger),  # type: ignore[arg-type]
        clock=clock,
        on_event=events.append,
    )
    for _ in range(2):
        with pytest.raises(BudgetExceeded) as caught:
            budgets.admit(call(), USD)
    error = caught.value
    assert (error.tier, error.reason, error.unverified) == ("ok", "unverified", True)
    assert str(error) == (
        "budget tenant:acme refuses calls until the ledger can say what was spent "
        "(95 of 100 USD are known of)"
    )
    stale = admitted(budgets.admit(call(stale_available=True), USD))
    assert (stale.decision, stale.tier) == ("stale", "ok")
    budgets.tick()
    assert events == []  # the budget is not used up, as far as anybody knows
    assert [r.getMessage() for r in caplog.records] == [
        'budget tenant:acme refuses calls: no ledger to ask, and on_outage = "closed" allows no more'
    ]


def test_what_the_ledger_is_told(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(MONTH + 'on_outage = "closed"\noutage_allowance = 0.25\n')
    (group,) = budgets._book.plan(call()).groups
    (full,), (degraded,) = group.full, group.degraded
    assert full[:2] == ("tenant:acme|month|2026-11", 110 * USD)
    assert full[3:] == ("closed", 25 * USD)
    assert degraded == full._replace(limit=120 * USD)


# -- without the network -----------------------------------------------------------------------------------


class Slow:
    """A ledger that would have to ask its store about one scope."""

    def __init__(self, ledger: LeasedLedger, key: str) -> None:
        self._ledger, self._key = ledger, key

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)

    def reserve_nowait(self, scopes: list[object], estimate: int) -> object:
        if any(self._key in scope.key for scope in scopes):  # type: ignore[attr-defined]
            return None
        return self._ledger.reserve(scopes, estimate)  # type: ignore[arg-type]


def test_nowait(call: MakeCall, clock: Clock, ledger: LeasedLedger) -> None:
    config = config_of(CREDITS + STRICT.replace("tenant:*", "global") + CHEAPER)
    search = call(provider="scavio", model=None, credits="2.5")
    budgets = Budgets(config, Slow(ledger, "credits"), clock=clock)  # type: ignore[arg-type]
    assert budgets.admit(search, USD, nowait=True) is None
    assert budgets.status().held == 0  # what was held before it was known is given back
    admitted(budgets.admit(search, USD)).hold.release()
    admitted(budgets.admit(call(), USD, nowait=True)).hold.release()
    # Refused here, and only the network could tell about the degraded call.
    pay(budgets, call(), 100)
    budgets = Budgets(config, Slow(ledger, "nothing"), clock=clock)  # type: ignore[arg-type]
    with pytest.raises(BudgetExceeded):
        budgets.admit(call(), USD, nowait=True)


# -- periods -----------------------------------------------------------------------------------------------


def test_a_new_period_starts_at_nothing(make: MakeBudgets, call: MakeCall, clock: Clock) -> None:
    clock.set("2026-10-31T22:59:59")
    budgets = make(STRICT + 'timezone = "Europe/Berlin"\n')
    pay(budgets, call(), 100)
    with pytest.raises(BudgetExceeded):
        budgets.admit(call(), USD)
    clock.forward(1)  # November in Berlin
    assert pay(budgets, call(), 1).tier == "ok"
    status = budgets.status(tenant="acme")
    assert (status.spent, status.tier) == (1, "ok")


def test_a_call_counts_in_the_period_it_started_in(
    make: MakeBudgets, call: MakeCall, clock: Clock
) -> None:
    clock.set("2026-10-31T23:59:59")
    budgets = make(STRICT)
    old = call()
    hold = admitted(budgets.admit(old, 10 * USD)).hold
    clock.forward(2)
    pay(budgets, call(), 1)
    hold.settle(20 * USD)
    budgets.record(old, 5 * USD)  # learnt late
    pay(budgets, old, 2)  # admitted late: it waited over the edge
    assert budgets.status(tenant="acme").spent == 1
    clock.forward(-2)
    assert budgets.status(tenant="acme").spent == 27


def test_what_a_call_counts_as(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(CREDITS + STRICT.replace("tenant:*", "global") + "unknown_usd = 3\n")
    spent = Spent("acme", None, None, "openai", call().started_ns, 4, 5, Decimal("0.5"))

    def counted(spent: Spent) -> dict[str, int]:
        return {scope.key: amount for scope, amount in budgets.counted(spent).items()}

    assert counted(spent) == {
        "tenant:acme|month|2026-11|credits": 2 * USD,
        "global|month|2026-11": 5,
    }
    assert counted(spent._replace(nano_usd=None, credits=None)) == {
        "tenant:acme|month|2026-11|credits": 0,
        "global|month|2026-11": 4 * 3 * USD,
    }
    last_month = spent.started_ns - 40 * 86_400 * 10**9
    assert counted(spent._replace(started_ns=last_month)) == {}
