"""Evaluates windows: seldom and cheaply while calls are admitted, the rest in the background."""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from spanledger.budget.plans import Group, Plan
from spanledger.budget.tiers import Cause
from spanledger.budget.windows import Window
from spanledger.ledger.protocol import Denied, Ledger, ScopeState

_BATCH: Final = 100
"""So many keys the store is asked for at once: what takes it long, passes for an outage."""


class Entered(NamedTuple):
    """A window has entered a tier: how it stood then. Amounts are in nano-units."""

    window: Window
    tier: int
    cause: Cause
    spent: int
    held: int
    projected: int | None


class Evaluator:
    """Keeps the windows' amounts and tiers up to date.

    news: tiers that were entered and nobody told yet, at most three a window; `woken` is set when
        there are some.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._touched: dict[Window, None] = {}  # moved since they were evaluated
        self.news: deque[Entered] = deque()
        self._not_ours: deque[Entered] = deque()
        self.woken = threading.Event()

    def after_fork(self) -> None:
        """In a child: what its parent noticed is the parent's to tell."""
        self._touched = {}
        self.news.clear()
        self._not_ours.clear()
        self.woken = threading.Event()

    def tier(self, plan: Plan, now_ns: int) -> int:
        """The highest tier of the plan's windows; those of which too much has moved are evaluated
        anew.
        """
        tier = 0
        due: list[Window] | None = None
        for window in plan.windows:
            if now_ns >= window.due_ns or window.moved > window.step:
                due = due or []
                due.append(window)
            elif window.standing.tier > tier:
                tier = window.standing.tier
        if due:
            self.evaluate(due, now_ns)
            tier = max(tier, *(window.standing.tier for window in due))
        return tier

    def evaluate(
        self,
        windows: Sequence[Window],
        now_ns: int,
        *,
        ask: bool = False,
        news: deque[Entered] | None = None,
    ) -> list[Window]:
        """Evaluate by what the ledger knows here; with `ask`, the store is asked for the rest (100
        ms at most for a hundred windows). Tiers that are entered go to `news`, as a rule ours.

        Returns the windows that nothing is known of here.
        """
        keys = [window.key for window in windows]
        states = self._ask(keys) if ask else self._ledger.known(keys)
        unknown: list[Window] = []
        for window in windows:
            state = states.get(window.key)
            if state is None:
                unknown.append(window)
            elif window.evaluate(state, now_ns):
                self._entered(window, self.news if news is None else news)
        return unknown

    def _ask(self, keys: Sequence[str]) -> dict[str, ScopeState]:
        states: dict[str, ScopeState] = {}
        for start in range(0, len(keys), _BATCH):
            states.update(self._ledger.state(keys[start : start + _BATCH]))
        return states

    def refused(self, window: Window, denied: Denied, amount: int) -> None:
        """Note that the ledger refused a call of this amount (nano-units)."""
        if denied.unverified:
            return
        if window.standing.refused(denied.spent, denied.held, amount):
            window.spent, window.held = denied.spent, denied.held
            self._entered(window, self.news)

    def _entered(self, window: Window, news: deque[Entered]) -> None:
        tier, cause, mine = window.standing.tier, window.standing.cause, object()
        if window.entered.setdefault(tier, mine) is mine:  # of several threads, one
            amounts = window.spent, window.held, window.projected
            news.append(Entered(window, tier, cause, *amounts))
            if news is self.news:
                self.woken.set()

    def moved(self, group: Group, amount: int) -> None:
        """Note that a call added `amount` (nano-units) to the group's windows."""
        touched = self._touched
        for window in group.windows:
            # Each time: whoever looked first whether it is there could look while it is taken out.
            touched[window] = None
            window.moved += amount or 1

    def catch_up(self, now_ns: int, asked: Sequence[Window] = ()) -> list[Window]:
        """Evaluate what has moved since it was evaluated last, and `asked`. Returns the windows
        that were used for the first time.

        The store is asked for `asked`, for what has come to rest since it moved, and for what the
        period before has spent. What others spent is theirs to tell, who know who it was: it is
        ours when they had until the next time that something is asked.
        """
        touched = self._touched
        windows = tuple(touched)
        for window in windows:
            del touched[window]
        new = [window for window in windows if window.last_spent is None]
        self._learn_last(dict.fromkeys((*new, *asked)))
        # None twice: what is held or projected counts when two evaluations have seen it.
        looked, moved = set(asked), set(windows)
        unknown = self.evaluate([w for w in windows if w not in looked], now_ns)
        self.evaluate([*(w for w in windows if w in looked), *unknown], now_ns, ask=True)
        if asked:
            self.news.extend(self._not_ours)
            self._not_ours.clear()
            idle = [window for window in asked if window not in moved]
            self.evaluate(idle, now_ns, ask=True, news=self._not_ours)
        return new

    def _learn_last(self, windows: Iterable[Window]) -> None:
        """Have them know what the period before has spent."""
        unlearned = [window for window in windows if window.last_spent is None]
        last = self._ask([window.last_key() for window in unlearned])
        for window in unlearned:
            state = last.get(window.last_key())
            window.take_last(state.spent if state else 0)
