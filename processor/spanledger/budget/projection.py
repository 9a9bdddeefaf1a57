"""Projection: what a budget will have spent when its period ends.

A plain run rate, spent over elapsed, is far off early in a period: the first hours are a night, the
    first days a weekend. So it is damped: the rate of the last period (without one, the budget's
    own) counts as much as a tenth of the period that was watched, and fades as the period goes on.
"""

from decimal import Decimal
from typing import Final

from spanledger.budget.amounts import portion
from spanledger.budget.periods import Period

WEIGHT: Final = 0.1
"""How much of a period the prior rate counts as."""

VERDICT_AFTER: Final = Decimal("0.05")
"""Part of the period, and of the limit, before which there is no verdict."""


def project(spent: int, prior: int, elapsed: float) -> int:
    """What will be spent at the end, nano-units.

    prior: what the last period spent, scaled to this one's length; without one, this budget's
        limit.
    elapsed: the part of the period that has gone by, 0 to 1.
    """
    # Rates are per period, so that a rate is also an amount.
    rate = (spent + WEIGHT * prior) / (elapsed + WEIGHT)
    return spent + round(rate * max(0.0, 1.0 - elapsed))


def verdict(spent: int, limit: int, last_spent: float, period: Period, now_ns: int) -> int | None:
    """The projection, or None where it is too early to tell.

    last_spent: what the last period spent, scaled to this one's length; 0 where that is not known.
    """
    elapsed = (now_ns - period.start_ns) / (period.end_ns - period.start_ns)
    if elapsed < VERDICT_AFTER or spent < portion(limit, VERDICT_AFTER):
        return None
    return project(spent, round(last_spent) or limit, min(elapsed, 1.0))
