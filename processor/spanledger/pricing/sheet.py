"""Unit prices, and the exact arithmetic of what usage costs at them.

Units overlap: `input_tokens` includes `cache_read_tokens`, which includes
`cache_audio_read_tokens`. What is consumed of a unit is charged at the price of the narrowest unit
that has one; a wider unit is charged for its remainder.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Final, NamedTuple

from spanledger.api.values import NANO

PER_CALL: Final = "requests"
"""The unit of which every call consumes one without saying so."""

_LARGEST: Final = 10**12  # what `decimal_amount`, which judges the rest, takes for an amount
_MOST_SHAPES: Final = 64


def half_even(numerator: int, denominator: int) -> int:
    """The quotient, rounded to an integer, a half to the even one."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


class Rate(NamedTuple):
    """The price of a unit: `usd` for `per` of it.

    tiers: (more input tokens than this, USD), ascending: all of the call is charged at the last
        tier it reaches.
    factor: multiplies all of it (a negotiated discount).
    guessed: nobody stated this price.
    """

    unit: str
    usd: Decimal
    per: int
    tiers: tuple[tuple[int, Decimal], ...] = ()
    factor: Decimal = Decimal(1)
    guessed: bool = False

    def nano_usd(self, reached: tuple[int, ...] = ()) -> Fraction:
        """Nano-USD for one, in a call that has reached the tiers of these starts."""
        usd = self.usd
        for start, tier in self.tiers:
            if start in reached:
                usd = tier
        return Fraction(usd) * Fraction(self.factor) * NANO / self.per


class Units:
    """Which units are part of which, by their dimensions: audio input is a part of input."""

    def __init__(self, dimensions: Mapping[str, Mapping[str, str]]) -> None:
        self._dimensions = {unit: frozenset(of.items()) for unit, of in dimensions.items()}
        self._names = {of: unit for unit, of in self._dimensions.items()}

    def _of(self, unit: str) -> frozenset[tuple[str, str]]:
        # A unit that nobody has registered is of a kind of its own.
        return self._dimensions.get(unit) or frozenset(((unit, ""),))

    def depth(self, unit: str) -> int:
        """How narrow the unit is; a part is narrower than what it is part of."""
        return len(self._of(unit))

    def part(self, unit: str, whole: str) -> bool:
        """`unit` is a part of `whole`, and not the same."""
        return self._of(whole) < self._of(unit)

    def joint(self, one: str, other: str) -> str | None:
        """The unit of what is both; None where nothing is, or one is part of the other."""
        a, b = self._of(one), self._of(other)
        both = a | b
        return None if both in (a, b) else self._names.get(both)

    def disjoint(self, one: str, other: str) -> bool:
        """Nothing can be both: the two differ in a dimension."""
        a, b = dict(self._of(one)), dict(self._of(other))
        return any(b.get(dimension, value) != value for dimension, value in a.items())


class _Shape(NamedTuple):
    """What follows from which units a usage names, whatever their amounts.

    rows: (unit, its priced parts as positions in these rows, position of its price), narrow units
        first.
    suspects: units that a closer look has to be taken at where they are not 0.
    """

    rows: tuple[tuple[str, tuple[int, ...], int], ...]
    suspects: tuple[str, ...]


class Sheet:
    """The unit prices of one model, for one kind of call, while none of them changes.

    least_seconds: audio that is not empty is billed as at least so many seconds.

    Attributes:
        order: the units that have a price, narrow ones first.
        guessed: those of them whose price nobody stated.
        per_call: nano-USD of a call whatever it consumes, times `denominator`; None where it has no
            such price.
    """

    __slots__ = (
        "_bands",
        "_shapes",
        "_starts",
        "denominator",
        "guessed",
        "least_seconds",
        "order",
        "per_call",
        "units",
    )

    def __init__(self, rates: Iterable[Rate], units: Units, least_seconds: int = 0) -> None:
        self.units = units
        self.least_seconds = least_seconds
        priced = _with_joints({rate.unit: rate for rate in rates}, units)
        per_call = priced.pop(PER_CALL, None)
        self.order = tuple(sorted(priced, key=lambda unit: (-units.depth(unit), unit)))
        self.guessed = frozenset(unit for unit, rate in priced.items() if rate.guessed)
        self._starts = sorted({start for rate in priced.values() for start, _ in rate.tiers})
        bands = [
            [priced[unit].nano_usd(tuple(self._starts[:reached])) for unit in self.order]
            for reached in range(len(self._starts) + 1)
        ]
        flat = Fraction(0) if per_call is None else per_call.nano_usd()
        # One denominator for all prices, so that a call's amount is a sum of products of integers.
        self.denominator = math.lcm(
            flat.denominator, *(price.denominator for band in bands for price in band)
        )
        self._bands = [tuple(int(price * self.denominator) for price in band) for band in bands]
        self.per_call = None if per_call is None else int(flat * self.denominator)
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    def has_price(self, unit: str) -> bool:
        """The unit has a price of its own or is a part of one that has."""
        return unit in self.order or any(self.units.part(unit, whole) for whole in self.order)

    def prices(self, input_tokens: int | Fraction) -> tuple[int, ...]:
        """Nano-USD for one of each unit in `order`, times `denominator`, at so much input."""
        return self._bands[bisect_left(self._starts, input_tokens)]

    def quick(self, usage: Mapping[str, int | Decimal]) -> int | None:
        """Nano-USD of a usage that raises no question; None where `reckon` has to look at it."""
        names = tuple(usage)
        shape = self._shapes.get(names) or self._shape(names)
        for unit in shape.suspects:
            if usage[unit]:
                return None
        prices = self._bands[0]
        if self._starts:
            whole = usage.get("input_tokens", 0)
            if type(whole) is not int:
                return None
            prices = self.prices(whole)
        total = self.per_call or 0
        charged: list[int] = []
        for unit, parts, position in shape.rows:
            amount = usage[unit]
            if type(amount) is not int:
                return None
            for part in parts:
                amount -= charged[part]
            if not 0 <= amount <= _LARGEST:
                return None
            charged.append(amount)
            total += amount * prices[position]
        return half_even(total, self.denominator)

    def _shape(self, names: tuple[str, ...]) -> _Shape:
        units = self.units
        present = [unit for unit in self.order if unit in names]
        rows = tuple(
            (
                unit,
                tuple(i for i, other in enumerate(present) if units.part(other, unit)),
                self.order.index(unit),
            )
            for unit in present
        )
        suspects = {unit for unit in names if not self.has_price(unit) or unit in self.guessed}
        if self.least_seconds:
            suspects.update(names)
        for missing in self.order:
            if missing not in names:
                suspects.update(unit for unit in names if units.part(unit, missing))
                for pair in combinations(names, 2):
                    if units.joint(*pair) == missing:
                        suspects.update(pair)
        shape = _Shape(rows, tuple(sorted(suspects)))
        if len(self._shapes) < _MOST_SHAPES:
            self._shapes[names] = shape
        return shape


def _with_joints(rates: Mapping[str, Rate], units: Units) -> dict[str, Rate]:
    """`rates`, with a price for whatever is two priced things at once.

    A price list has one; an override for audio over a list's price for cached input may not.
    Without a price of its own, cached audio would be taken out of the remainder twice. It is
    charged as the dearer of the two, as a guess.
    """
    complete = dict(rates)
    while True:
        for one, other in combinations(sorted(complete), 2):
            joint = units.joint(one, other)
            if joint is not None and joint not in complete:
                dearer = max(complete[one], complete[other], key=Rate.nano_usd)
                complete[joint] = dearer._replace(unit=joint, guessed=True)
                break
        else:
            return complete
