"""Budget events: a budget has entered a tier.

    @on_budget_event
    def tell(event: BudgetEvent) -> None:
        ...

An event comes once for each tier, budget and period, to one process where the processes share a
ledger, in a thread of
ours: what a callback does, or raises, costs no paid call anything.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from spanledger.api.guard import log, swallow
from spanledger.api.values import Tier
from spanledger.budget.amounts import Unit
from spanledger.budget.periods import PeriodKind
from spanledger.budget.tiers import Cause


class Spender(NamedTuple):
    """Somebody who spent in a budget's scope and period; `amount` in the budget's unit."""

    name: str
    amount: Decimal


TopSpenders = Mapping[str, Sequence[Spender]]
"""The largest spenders first, by `tenant`, `user`, `feature` and `model`, as far as the scope
leaves them open: by the journal of this host.
"""


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """A budget has entered a tier. Amounts are in `unit` (USD or credits).

    cause: what brought it there: money spent, estimates of calls in flight, or the projection of
        the period's end.
    projected: None where it is too early to tell.
    resets_at: the period's end, in UTC.
    top: see `TopSpenders`; empty where nobody can tell.
    """

    scope: str
    period: PeriodKind
    unit: Unit
    tier: Tier
    cause: Cause
    limit: Decimal
    spent: Decimal
    held: Decimal
    projected: Decimal | None
    starts_at: datetime
    resets_at: datetime
    top: TopSpenders

    def with_top(self, top: TopSpenders) -> "BudgetEvent":
        """The event with these top spenders."""
        return replace(self, top=top)

    def __str__(self) -> str:
        used = f"spent {_text(self.spent)} of {_text(self.limit)} {_UNITS[self.unit]}"
        if self.held:
            used += f", {_text(self.held)} in flight"
        if self.projected is not None:
            used += f", projected {_text(self.projected)}"
        lines = [
            f"budget {self.scope} ({self.period}) is at its tier {self.tier}: {used}",
            f"it resets at {self.resets_at:%Y-%m-%d %H:%M} UTC",
        ]
        lines += [
            f"top {by}: "
            + ", ".join(f"{spender.name} {_text(spender.amount)}" for spender in spenders)
            for by, spenders in self.top.items()
            if spenders
        ]
        return "; ".join(lines)


_UNITS: Final[Mapping[Unit, str]] = {"usd": "USD", "credits": "credits"}


def _text(amount: Decimal) -> str:
    """An amount for people: two digits after the point, more where it is small."""
    return f"{amount:,.2f}" if abs(amount) >= 1 or not amount else f"{amount:.4g}"


Callback = TypeVar("Callback", bound=Callable[[BudgetEvent], object])

_callbacks: Final[list[Callable[[BudgetEvent], object]]] = []


def on_budget_event(callback: Callback) -> Callback:
    """Have `callback` called with every budget event of this process; also a decorator."""
    _callbacks.append(callback)
    return callback


def remove_budget_callback(callback: Callable[[BudgetEvent], object]) -> None:
    """Have `callback` called no more; nothing happens where it was not registered."""
    if callback in _callbacks:
        _callbacks.remove(callback)


def announce(event: BudgetEvent, *further: Callable[[BudgetEvent], object]) -> None:
    """Log the event, and call the callbacks and `further`, each by itself."""
    log.log(logging.ERROR if event.tier == "hard" else logging.WARNING, "%s", event)
    for callback in (*further, *tuple(_callbacks)):
        with swallow("budget event"):
            callback(event)
