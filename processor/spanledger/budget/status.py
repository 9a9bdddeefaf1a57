"""How a budget stands, for an application that wants to know beforehand."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from spanledger.api.values import Tier
from spanledger.budget.amounts import Unit, from_nano
from spanledger.budget.periods import PeriodKind
from spanledger.budget.tiers import NAMES
from spanledger.budget.windows import Window


class BudgetStatus(NamedTuple):
    """How a budget stands. Amounts are in `unit`; where no budget was asked for, all but scope and
    tier are None.

    held: estimates of calls in flight.
    projected: at the period's end; None where it is too early to tell.
    left: what remains of the limit, never below 0.
    resets_at: the period's end, in UTC.
    unverified: the ledger cannot be reached: more may have been spent.
    """

    scope: str
    tier: Tier = "ok"
    period: PeriodKind | None = None
    unit: Unit | None = None
    limit: Decimal | None = None
    spent: Decimal | None = None
    held: Decimal | None = None
    projected: Decimal | None = None
    left: Decimal | None = None
    resets_at: datetime | None = None
    unverified: bool = False


def status_of(window: Window) -> BudgetStatus:
    """The status as of the window's last evaluation."""
    left = window.budget.limit - window.spent - window.held
    return BudgetStatus(
        window.scope,
        NAMES[window.standing.tier],
        window.period.kind,
        window.budget.unit,
        from_nano(window.budget.limit),
        from_nano(window.spent),
        from_nano(window.held),
        None if window.projected is None else from_nano(window.projected),
        from_nano(max(0, left)),
        window.period.resets_at,
        window.unverified,
    )


def worst(windows: Iterable[Window]) -> Window | None:
    """The window in the highest tier, and of these the one that is used up furthest."""

    def rank(window: Window) -> tuple[int, float]:
        used, limit = window.spent + window.held, window.budget.limit
        return window.standing.tier, used / limit if limit else float("inf")

    return max(windows, key=rank, default=None)
