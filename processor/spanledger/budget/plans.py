"""Plans: what a call of one tenant, user, feature and provider counts in, looked up once and kept
for the next ones.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from spanledger.api.values import PaidCall
from spanledger.budget.amounts import Unit, to_nano
from spanledger.budget.config import BudgetConfig
from spanledger.budget.matching import Match, Matcher
from spanledger.budget.periods import period_at
from spanledger.budget.scopes import Scope
from spanledger.budget.windows import Window, ledger_key
from spanledger.ledger.protocol import LimitedScope

MOST_PLANS: Final = 10_000
MOST_WINDOWS: Final = 50_000

_NEVER: Final = 2**63
_LATE_NS: Final = 3_600 * 10**9
_USER: Final = 1  # the dimension's place in a scope

ROOM: Final = 1
"""Nano-credits held for a call that may cost credits, where nobody knows how many: whether there is
room at all is asked like that.
"""

PlanKey = tuple[str | None, str | None, str | None, str]


class Group(NamedTuple):
    """Windows in which a call always counts as one and the same amount: they are reserved together.

    unknown_nano: what a call of unknown price counts as. blocks: such a call is refused.
    full, degraded: the windows' limits, for a call as it was asked and for a degraded one.
    """

    unit: Unit
    unknown_nano: int
    blocks: bool
    windows: tuple[Window, ...]
    full: tuple[LimitedScope, ...]
    degraded: tuple[LimitedScope, ...]

    def amount(self, nano_usd: int | None, credits: Decimal | None, otherwise: int) -> int:
        """What a call of that price counts as; `otherwise`, its estimate, where its credits are not
        known.
        """
        if self.unit == "credits":
            if credits is None:
                return 0 if otherwise == ROOM else otherwise
            return to_nano(credits)
        return self.unknown_nano if nano_usd is None else nano_usd


class Plan(NamedTuple):
    """The windows of a call that starts from `start_ns` to before `end_ns`."""

    start_ns: int
    end_ns: int
    windows: tuple[Window, ...]
    groups: tuple[Group, ...]


class Book:
    """The budgets of one configuration, with their windows."""

    def __init__(self, config: BudgetConfig, now_ns: int, former: "Book | None" = None) -> None:
        self.config: Final = config
        self.matcher: Final = Matcher(config.budgets)
        self.windows: Final[dict[str, Window]] = {}
        self._plans: dict[PlanKey, Plan] = {}
        self._by_user = self.matcher.names(_USER)
        for window in former.windows.values() if former else ():
            self._carry(window, now_ns)
        self.current(now_ns)

    def _carry(self, window: Window, now_ns: int) -> None:
        """Keep a window of the former configuration, or put one with the changed budget in its
        place.
        """
        for match in self.matcher.of_scope(Scope.parse(window.scope)):
            if match.budget == window.budget:
                self.windows[window.key] = window
            elif match.budget.slot[1:] == window.budget.slot[1:]:
                self._window(match, now_ns)

    def current(self, now_ns: int) -> list[Window]:
        """The windows that are open at `now_ns`: of budgets for one scope, and of what was used."""
        for match in self.matcher.concrete():
            self._window(match, now_ns)
        return [
            w for w in tuple(self.windows.values()) if w.period.start_ns <= now_ns < w.period.end_ns
        ]

    def plan(self, call: PaidCall) -> Plan:
        """The plan of `call`."""
        tenant, user, feature, _, _ = call.attribution
        key = (tenant, user if self._by_user else None, feature, call.provider)
        plan = self._plans.get(key)
        if plan is None or not plan.start_ns <= call.started_ns < plan.end_ns:
            return self._make(key, call.started_ns, plan)
        return plan

    def _make(self, key: PlanKey, ns: int, former: Plan | None) -> Plan:
        windows = self.of_call(Scope.of(*key), ns)
        plan = Plan(
            max((w.period.start_ns for w in windows), default=0),
            min((w.period.end_ns for w in windows), default=_NEVER),
            tuple(windows),
            _groups(windows),
        )
        # A late call of the last period has a plan of its own.
        if former is None or ns >= former.end_ns:
            if len(self._plans) >= MOST_PLANS:
                self._plans = {}
            self._plans[key] = plan
        return plan

    def of_call(self, names: Scope, ns: int) -> list[Window]:
        """The windows that a call with these names counts in."""
        if len(self.windows) >= MOST_WINDOWS:
            self._make_room(ns)
        return [self._window(match, ns) for match in self.matcher.of_call(names)]

    def _window(self, match: Match, ns: int) -> Window:
        budget, scope = match
        period = period_at(budget.period, budget.options.zone, ns)
        key = ledger_key(str(scope), period, budget.unit)
        found = self.windows.get(key)
        return found or self.windows.setdefault(key, Window(budget, str(scope), period))

    def forget_ended(self, now_ns: int) -> None:
        """Let go of the windows that ended more than an hour ago."""
        ended = now_ns - _LATE_NS
        for key, window in tuple(self.windows.items()):
            if window.period.end_ns <= ended:
                self.windows.pop(key, None)
        self._plans = {key: p for key, p in tuple(self._plans.items()) if p.end_ns > ended}

    def _make_room(self, ns: int) -> None:
        self.forget_ended(ns)
        if len(self.windows) >= MOST_WINDOWS:
            for key in tuple(self.windows)[: MOST_WINDOWS // 10]:  # the oldest
                self.windows.pop(key, None)
            self._plans = {}


def _groups(windows: Sequence[Window]) -> tuple[Group, ...]:
    same: dict[tuple[Unit, int, bool], list[Window]] = {}
    for window in windows:
        budget = window.budget
        blocks = budget.options.unknown == "block" and budget.options.exhausted == "raise"
        usd = budget.unit == "usd"
        kind = (budget.unit, budget.unknown_nano if usd else 0, usd and blocks)
        same.setdefault(kind, []).append(window)
    return tuple(
        Group(
            unit,
            unknown_nano,
            blocks,
            tuple(group),
            tuple(window.full for window in group),
            tuple(window.degraded for window in group),
        )
        for (unit, unknown_nano, blocks), group in same.items()
    )
