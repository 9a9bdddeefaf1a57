"""Amounts of budgets: integers of a thousand-millionth of their unit, and back into what people
read.
"""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal

Unit = Literal["usd", "credits"]


def to_nano(amount: Decimal) -> int:
    """`amount` (USD or credits) in nano-units, rounded half-even."""
    return int(amount.scaleb(9).quantize(Decimal(1), ROUND_HALF_EVEN))


def from_nano(nano: int) -> Decimal:
    """Nano-units as USD or credits, exact, without trailing zeros."""
    amount = Decimal(nano).scaleb(-9)
    whole = amount.to_integral_value()
    return whole if amount == whole else amount.normalize()


def portion(nano: int, fraction: Decimal) -> int:
    """`fraction` of an amount, rounded half-even."""
    return int((nano * fraction).quantize(Decimal(1), ROUND_HALF_EVEN))
