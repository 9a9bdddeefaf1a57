"""The budgets of a process: they admit calls, count what was never admitted, and tell how things
stand.
"""

import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Final

from spanledger.api.values import Attribution, PaidCall
from spanledger.budget.asking import Amounts, Ask, CheaperEstimate, pause_of, stale
from spanledger.budget.config import BudgetConfig, Slot
from spanledger.budget.evaluator import Evaluator
from spanledger.budget.events import BudgetEvent, TopSpenders
from spanledger.budget.holds import (
    UNLIMITED,
    Admission,
    CreditsEstimate,
    Held,
    Hold,
    Later,
    Pause,
    Refusal,
    amounts_of,
    refusal_of,
)
from spanledger.budget.plans import Book
from spanledger.budget.scopes import ANY, Scope
from spanledger.budget.shared import MemoryShared, SharedBudgets, read_limits
from spanledger.budget.status import BudgetStatus, status_of, worst
from spanledger.budget.teller import Teller
from spanledger.budget.tiers import NAMES
from spanledger.budget.windows import BudgetReading, Series, Window
from spanledger.ledger.journal_producers import Spent
from spanledger.ledger.protocol import PATIENCE_S, Denied, Ledger, LimitedScope, Reservation

_FORGET_NS: Final = 60 * 10**9
_LOOK_NS: Final = 5 * 10**9
_LOOK_EACH_NS: Final = 10**7
"""The store is asked every five seconds how budgets stand that are used elsewhere; less often where
there are over 500, so that a process asks for a hundred in a second at most.
"""

_Reserve = Callable[[Sequence[LimitedScope], int], Reservation | Denied | None]


class Budgets:
    """All budgets of this process, over the ledger that it shares with others.

    clock: Unix time in nanoseconds. on_event: called with each event, besides the callbacks of
        `on_budget_event`.
    top_spenders: fills in an event's `top`. shared: limits set at run time, and what else processes
        share.

    `refresh` and `catch_up` are to be called about twice a second in a thread that may wait for the
        network, `tell` in one that may wait for callbacks too: `Watcher`.
    """

    def __init__(
        self,
        config: BudgetConfig,
        ledger: Ledger,
        *,
        clock: Callable[[], int] = time.time_ns,
        on_event: Callable[[BudgetEvent], object] | None = None,
        top_spenders: Callable[[BudgetEvent], TopSpenders] | None = None,
        shared: SharedBudgets | None = None,
    ) -> None:
        self.shared: Final = shared or MemoryShared(lambda: clock() / 1e9)
        self._ledger = ledger
        self._clock = clock
        self._evaluator = Evaluator(ledger)
        self._teller = Teller(self.shared, on_event, top_spenders)
        self._config = config
        self._limits: Mapping[Slot, int] = {}
        self._book = Book(config, clock())
        self._forget_at = self._look_at = 0
        self._lock = threading.Lock()  # of whoever changes the configuration; calls do without

    @property
    def idle(self) -> bool:
        """No budget is set: nothing has to be asked or counted."""
        return not self._book.config.budgets

    # -- calls -------------------------------------------------------------------------------------

    def admit(
        self,
        call: PaidCall,
        estimate_nano: int | None,
        *,
        waited_s: float = 0.0,
        cheaper_estimate: CheaperEstimate | None = None,
        credits_estimate: CreditsEstimate | None = None,
        nowait: bool = False,
    ) -> Admission | Pause | None:
        """Ask leave for `call`.

        estimate_nano: nano-USD; None where no price is known. waited_s: seconds that the call has
            waited so far.
        cheaper_estimate: what the call would cost with another model; without it no model is
            swapped.
        credits_estimate: asked where a budget is in credits.
        nowait: answer None where only the network could tell.

        Raises BudgetThrottled and BudgetExceeded.
        """
        plan = self._book.plan(call)
        if not plan.windows:
            return UNLIMITED
        now = self._clock()
        tier = self._evaluator.tier(plan, now)
        amounts = amounts_of(plan, call, estimate_nano, credits_estimate)
        deadline = time.monotonic() + PATIENCE_S
        ask = Ask(plan, call, amounts, cheaper_estimate, credits_estimate, deadline, nowait)
        if tier:
            pause = pause_of(ask, now, waited_s)
            if pause is not None:
                return pause
            observed = next((w for w in plan.windows if w.degrades_unasked), None)
            if observed is not None:
                way = self._degrade(ask, Refusal(observed, observed.spent))
                if not isinstance(way, Refusal):
                    return way
        return self._proceed(ask, tier, now)

    def _proceed(self, ask: Ask, tier: int, now: int) -> Admission | None:
        """Admit the call as asked, or the next best."""
        held = self._reserve(ask, ask.amounts)
        if held is None:
            return None
        if isinstance(held, Hold):
            if tier:
                self._pace(ask, now)
            return Admission(NAMES[tier], hold=held)
        way = self._degrade(ask, held)
        if isinstance(way, Refusal):
            raise way.error(ask.call)
        return way

    def _reserve(
        self, ask: Ask, amounts: Amounts, *, degraded: bool = False
    ) -> Hold | Refusal | None:
        """Hold the amounts in all budgets or in none; None where only the network could tell."""
        reserve = self._reserve_of(ask, amounts, degraded=degraded)
        held: list[Held] = []
        for group, amount in zip(ask.plan.groups, amounts, strict=True):
            if amount is None:
                Hold(held).release()
                return Refusal(group.windows[0], group.windows[0].spent, priced=False)
            answer: Reservation | Denied | None
            if not amount and group.unit == "credits":
                answer = Later(self._ledger, group)  # it is not paid in credits, as far as is known
            else:
                answer = reserve(group.degraded if degraded else group.full, amount)
            if answer is None or isinstance(answer, Denied):
                Hold(held).release()
                if answer is None:
                    return None
                refusal = refusal_of(group, answer)
                if not degraded:
                    self._evaluator.refused(refusal.window, answer, amount)
                return refusal
            held.append(Held(group, amount, answer))
            self._evaluator.moved(group, amount)
        return Hold(held)

    def _reserve_of(self, ask: Ask, amounts: Amounts, *, degraded: bool) -> _Reserve:
        """How to reserve for one group after the other."""
        if ask.nowait:
            return self._ledger.reserve_nowait
        if len(amounts) > 1:
            wanted = [
                (group.degraded if degraded else group.full, amount)
                for group, amount in zip(ask.plan.groups, amounts, strict=True)
                if amount is not None and (amount or group.unit == "usd")
            ]
            self._ledger.prepare(wanted, ask.deadline)
        return partial(self._ledger.reserve, deadline=ask.deadline)

    def _pace(self, ask: Ask, now: int) -> None:
        """Note a call that was let through at the critical tier."""
        for group, amount in zip(ask.plan.groups, ask.amounts, strict=True):
            for window in group.windows:
                if amount and window.paces:
                    sharers = self._ledger.producers(window.key)
                    window.pacer.passed(now, amount, window.left, sharers)

    def _degrade(self, ask: Ask, refusal: Refusal) -> Admission | Refusal | None:
        """The next best that the refusing budget allows; else the refusal that remains."""
        if stale(ask.call, refusal):
            return Admission(refusal.tier, "stale")
        swap = self._book.config.cheaper.get(f"{ask.call.provider}/{ask.call.model}")
        allowed = "cheaper_model" in refusal.window.budget.degrade
        if swap is None or ask.cheaper_estimate is None or not allowed:
            return refusal
        estimate_nano = ask.cheaper_estimate(swap)
        amounts = amounts_of(ask.plan, ask.call, estimate_nano, ask.credits_estimate)
        held = self._reserve(ask, amounts, degraded=True)
        if isinstance(held, Refusal):
            return Admission(held.tier, "stale") if stale(ask.call, held) else held
        if held is None:
            return None
        return Admission(refusal.tier, "cheaper_model", swap, held, refusal.error(ask.call))

    def record(
        self, call: PaidCall, actual_nano: int | None, credits: Decimal | None = None
    ) -> None:
        """Count a call that was never admitted; it is never refused.

        actual_nano: nano-USD; None where no price is known.
        """
        for group in self._book.plan(call).groups:
            amount = group.amount(actual_nano, credits, 0)
            if amount:
                self._ledger.add(group.full, amount)
                self._evaluator.moved(group, amount)

    def counted(self, spent: Spent) -> dict[LimitedScope, int]:
        """What such charges count as now, nano-units, where a period still runs."""
        credits_ = None if spent.credits is None else spent.credits * spent.calls
        attribution = Attribution(spent.tenant, spent.user, spent.feature)
        call = PaidCall(spent.provider, "", None, attribution, spent.started_ns)
        now = self._clock()
        amounts: dict[LimitedScope, int] = {}
        for group in self._book.plan(call).groups:
            amount = group.amount(spent.nano_usd, credits_, 0)
            if spent.nano_usd is None and group.unit == "usd":
                amount *= spent.calls
            for window in group.windows:
                if now < window.period.end_ns:
                    amounts[window.full] = amount
        return amounts

    # -- how things stand --------------------------------------------------------------------------

    def status(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        feature: str | None = None,
        provider: str | None = None,
    ) -> BudgetStatus:
        """How the budget stands that is worst off, of those for these names; without a name, the
        global one.

        Asks the ledger's store where this process does not use the scope: up to 100 ms.
        """
        names = Scope.of(tenant, user, feature, provider)
        now = self._clock()
        windows = [
            window
            for window in self._book.of_call(names, now)
            if window.scope != "global" or not names.dimensions
        ]
        if not windows:
            return BudgetStatus(str(names))
        self._evaluator.evaluate(windows, now, ask=True)
        window = worst(windows)
        assert window is not None
        return status_of(window)

    def readings(self) -> Iterable[BudgetReading]:
        """How the budgets stand that are for one scope, as of the last look into the store where
        this process does not use it, and those that this process used; for metrics, no network.
        """
        now = self._clock()
        windows = self._book.current(now)
        self._evaluator.evaluate(windows, now)
        spelt_out = {budget.scope for budget in self._config.budgets}
        return [window.reading(_series(window.budget.scope, spelt_out)) for window in windows]

    # -- changes -----------------------------------------------------------------------------------

    @property
    def config(self) -> BudgetConfig:
        """What is in force: the configuration with the limits that were set at run time."""
        return self._book.config

    def reload(self, config: BudgetConfig) -> None:
        """Put a new configuration in force; limits set at run time stay before it."""
        with self._lock:
            self._config = config
            self._compile()

    def refresh(self) -> None:
        """Put in force what was set at run time, here or elsewhere. Raises OSError where that
        cannot be read.
        """
        limits = read_limits(self.shared)
        with self._lock:
            if limits != self._limits:
                self._limits = limits
                self._compile()

    def _compile(self) -> None:
        self._book = Book(self._config.with_limits(self._limits), self._clock(), self._book)
        self._look_at = 0

    def set_limit(self, slot: Slot, limit: int | None) -> None:
        """Set a limit (nano-units) for all processes, or with None go back to the configuration's.
        Raises OSError.
        """
        self.shared.set_limit(slot, limit)
        self.refresh()

    # -- the background ----------------------------------------------------------------------------

    @property
    def woken(self) -> threading.Event:
        """Set when there is something new to tell."""
        return self._evaluator.woken

    def tick(self) -> None:
        """`catch_up` and `tell`. Raises OSError."""
        self.catch_up()
        self.tell()

    def catch_up(self) -> None:
        """Evaluate what has moved. May wait for the network. Raises OSError."""
        now = self._clock()
        new = self._evaluator.catch_up(now, self._at_rest(now))
        self.woken.clear()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_NS
            self._book.forget_ended(now)
        if new and self.shared.shares:
            self.shared.note_used({w.key: w.period.end_ns / 1e9 for w in new})

    @property
    def has_news(self) -> bool:
        """There is something to tell."""
        return bool(self._evaluator.news)

    def tell(self) -> None:
        """Tell what is new. Takes as long as the application's callbacks, and the journal, do."""
        while self._evaluator.news:
            self._teller.tell(self._evaluator.news.popleft())

    def _at_rest(self, now: int) -> list[Window]:
        """The windows to ask the store for, where it is time: of budgets for one scope, used here
        or not, and those that nothing is known of yet. Budgets for many scopes are told of by
        those who use them.
        """
        if now < self._look_at:
            return []
        windows = [
            window
            for window in self._book.current(now)
            if not (window.known and window.budget.scope.is_template)
        ]
        self._look_at = now + max(_LOOK_NS, len(windows) * _LOOK_EACH_NS)
        return windows

    def after_fork(self) -> None:
        """In a child: new locks, and the parent's news are the parent's."""
        self._lock = threading.Lock()
        self._evaluator.after_fork()


def _series(scope: Scope, spelt_out: Container[Scope]) -> Series:
    """Whether a budget for `scope` is exported: what the configuration spells out is. Others are as
    many as there are tenants, and users, who are on no metric.
    """
    if scope in spelt_out and not scope.is_template:
        return "always"
    return "never" if scope.user and (scope.user == ANY or scope not in spelt_out) else "bounded"
