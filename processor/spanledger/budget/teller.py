"""Tells what budgets do: makes an event of a tier that was entered, once for all processes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from spanledger.api.guard import say_once, swallow
from spanledger.budget.amounts import from_nano
from spanledger.budget.evaluator import Entered
from spanledger.budget.events import BudgetEvent, TopSpenders, announce
from spanledger.budget.shared import SharedBudgets
from spanledger.budget.tiers import NAMES

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Teller:
    """Makes and announces events."""

    def __init__(
        self,
        shared: SharedBudgets,
        on_event: Callable[[BudgetEvent], object] | None,
        top_spenders: Callable[[BudgetEvent], TopSpenders] | None,
    ) -> None:
        self._shared = shared
        self._further = (on_event,) if on_event else ()
        self._top_spenders = top_spenders

    def tell(self, entered: Entered) -> None:
        """Announce that a window has entered a tier, unless another process did."""
        if not self._is_mine(entered):
            return
        event = event_of(entered)
        if self._top_spenders is not None:
            with swallow("top spenders"):
                event = event.with_top(self._top_spenders(event))
        announce(event, *self._further)

    def _is_mine(self, entered: Entered) -> bool:
        window, tier, *_ = entered
        # The limit is part of the name: whoever raises a limit wants to hear when that one is near.
        name = f"{window.key}|{NAMES[tier]}|{window.budget.limit}"
        try:
            return self._shared.claim(name, window.period.end_ns / 1e9)
        except OSError as error:
            say_once("budgets", "claim", "budget events may come from each process: %s", error)
            return True  # told twice is better than not at all


def event_of(entered: Entered) -> BudgetEvent:
    """The event, without its top spenders."""
    window, tier, cause, spent, held, projected = entered
    return BudgetEvent(
        scope=window.scope,
        period=window.period.kind,
        unit=window.budget.unit,
        tier=NAMES[tier],
        cause=cause,
        limit=from_nano(window.budget.limit),
        spent=from_nano(spent),
        held=from_nano(held),
        projected=None if projected is None else from_nano(projected),
        starts_at=_EPOCH + timedelta(microseconds=window.period.start_ns // 1000),
        resets_at=window.period.resets_at,
        top={},
    )
