"""Tiers: where a budget stands, without flapping.

Money spent does not come back: a tier that it reaches is entered at once. What is only held or
projected must be seen in two evaluations, and a tier is left again (estimates released, a limit
raised) when two evaluations find it missed by five points of the limit. The hard tier is also
entered when a call is refused, and not left before such a call would fit again.
"""

from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal, NamedTuple, Self

from spanledger.api.values import Tier
from spanledger.budget.amounts import portion

NAMES: Final[tuple[Tier, ...]] = ("ok", "warning", "critical", "hard")
OK, WARNING, CRITICAL, HARD = range(4)

POINTS: Final = Decimal("0.05")
"""How far below its threshold, in parts of the limit, a tier is left."""

EVALUATIONS: Final = 2
"""How many evaluations in a row must agree."""

Cause = Literal["spent", "held", "projected"]


class Tiers(NamedTuple):
    """Where the tiers begin, in parts of the limit; degraded calls may spend up to `ceiling`."""

    warning: Decimal = Decimal("0.7")
    critical: Decimal = Decimal("0.9")
    hard: Decimal = Decimal("1.1")
    ceiling: Decimal = Decimal("1.2")


class Thresholds(NamedTuple):
    """`Tiers` of one limit, in nano-units; `full` is the limit itself."""

    warning: int
    critical: int
    hard: int
    ceiling: int
    full: int
    slack: int

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, limit: int, tiers: Tiers) -> Self:
        """The thresholds of `limit`."""
        parts = (*tiers, Decimal(1), POINTS)
        return cls(*(portion(limit, part) for part in parts))

    def reached(self, spent: int, held: int, projected: int | None, slack: int = 0) -> int:
        """The tier that these amounts reach, were the thresholds lower by `slack`."""
        used = spent + held + slack
        if used >= self.hard:
            return HARD
        if used >= self.critical:
            return CRITICAL
        if spent + slack >= self.warning:
            return WARNING
        return WARNING if projected is not None and projected + slack > self.full else OK


class Standing:
    """In which tier one budget stands in one period."""

    __slots__ = ("_agreed", "_leaning", "_refused", "_thresholds", "cause", "tier")

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._leaning = OK  # what the last evaluations would rather have
        self._agreed = 0  # and how many of them
        self._refused = 0  # what the last refused call would have cost
        self.tier = OK
        self.cause: Cause = "spent"

    def evaluate(self, spent: int, held: int, projected: int | None) -> bool:
        """Take note of these amounts (nano-units). True where a higher tier is entered."""
        thresholds, before = self._thresholds, self.tier
        certain = thresholds.reached(spent, 0, None)
        likely = thresholds.reached(spent, held, projected)
        if certain > before:
            self._enter(certain, "spent")
        if likely > self.tier:
            if self._twice(likely):
                self._enter(likely, "held" if likely > WARNING else "projected")
        elif self.tier == before:
            kept = thresholds.reached(spent, held, projected, thresholds.slack)
            if before == HARD and spent + held + self._refused > thresholds.hard:
                kept = HARD
            if kept >= before:
                self._agreed = 0
            elif self._twice(kept):
                self._enter(kept, "spent")
        return self.tier > before

    def refused(self, spent: int, held: int, estimate: int) -> bool:
        """Take note that a call was refused. True where the hard tier is entered.

        Calls stop a little below its threshold, by what the next one would cost. A call that is
        large beside the whole budget says nothing about others.
        """
        used, thresholds = spent + held, self._thresholds
        if used < thresholds.critical and used + thresholds.slack < thresholds.hard:
            return False
        self._refused = estimate
        entered = self.tier < HARD
        self._enter(HARD, "spent")
        return entered

    def _twice(self, tier: int) -> bool:
        up = tier > self.tier
        self._agreed = self._agreed + 1 if self._agreed and up == (self._leaning > self.tier) else 1
        self._leaning = tier
        return self._agreed >= EVALUATIONS

    def _enter(self, tier: int, cause: Cause) -> None:
        self.tier, self.cause, self._agreed = tier, cause, 0
