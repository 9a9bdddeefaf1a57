"""Usage that raises questions: units without a price, amounts missing or not adding up.

Nothing here raises: what can be charged is charged, the rest is said in the status and its reasons.
"""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Final, NamedTuple

from spanledger.api.values import CostStatus, decimal_amount
from spanledger.pricing.sheet import PER_CALL, Sheet

_ORDER: Final[tuple[CostStatus, ...]] = ("exact", "partial", "estimated", "unknown")


def worst(*statuses: CostStatus) -> CostStatus:
    """The least certain of `statuses`."""
    return max(statuses, key=_ORDER.index)


class Reckoned(NamedTuple):
    """What usage comes to.

    nano_usd: exact, not rounded; None where something was consumed and nothing of it could be
        charged.
    reasons: why it is not exact, as `unpriced:unit`, `invalid:unit`, `missing:unit` (another unit
        implies that there was some of it) or `inconsistent:unit` (its parts come to more than
        itself).
    """

    nano_usd: Fraction | None
    status: CostStatus
    reasons: tuple[str, ...] = ()


def reckon(sheet: Sheet, usage: Mapping[str, int | Decimal]) -> Reckoned:
    """What `usage` comes to at the prices of `sheet`, whatever it looks like."""
    return _Reckoning(sheet, usage).result()


class _Reckoning:
    def __init__(self, sheet: Sheet, usage: Mapping[str, int | Decimal]) -> None:
        self._sheet = sheet
        self._units = sheet.units
        self._status: CostStatus = "exact"
        self._reasons: list[str] = []
        self._amounts: dict[str, Fraction] = {}
        for unit, value in usage.items():
            amount = decimal_amount(value)
            if amount is None:
                self._note("partial", f"invalid:{unit}")
            else:
                self._amounts[unit] = Fraction(amount)
        self._bill_least_seconds()
        self._consumed = [unit for unit, amount in self._amounts.items() if amount]

    def result(self) -> Reckoned:
        sheet = self._sheet
        for unit in self._consumed:
            if unit != PER_CALL and not sheet.has_price(unit):
                self._note("partial", f"unpriced:{unit}")
        charged = self._charged()
        prices = sheet.prices(self._whole_input(charged))
        total = sum(
            (charged[unit] * price for unit, price in zip(sheet.order, prices, strict=True)),
            Fraction(0),
        )
        if sheet.per_call is not None:
            total += sheet.per_call * self._amounts.get(PER_CALL, 1)
        elif PER_CALL in self._consumed:
            self._note("partial", f"unpriced:{PER_CALL}")
        reasons = tuple(sorted(self._reasons))
        if reasons and sheet.per_call is None and not any(charged.values()):
            return Reckoned(None, "unknown", reasons)
        return Reckoned(total / sheet.denominator, self._status, reasons)

    def _note(self, status: CostStatus, reason: str) -> None:
        self._status = worst(self._status, status)
        self._reasons.append(reason)

    def _bill_least_seconds(self) -> None:
        amounts = self._amounts
        seconds = amounts.get("audio_seconds") or amounts.get("input_audio_seconds")
        if self._sheet.least_seconds and seconds:
            billed = max(seconds, Fraction(self._sheet.least_seconds))
            amounts["audio_seconds"] = amounts["input_audio_seconds"] = billed

    def _charged(self) -> dict[str, Fraction]:
        """How much of each priced unit is charged at its own price."""
        charged: dict[str, Fraction] = {}
        for unit in self._sheet.order:
            amount = self._amounts.get(unit)
            parts = sum((charged[o] for o in charged if self._units.part(o, unit)), Fraction(0))
            rest = (self._implied(unit, parts) if amount is None else amount) - parts
            if rest < 0:
                self._note("partial", f"inconsistent:{unit}")
                rest = Fraction(0)
            if rest and unit in self._sheet.guessed:
                self._note("estimated", f"unpriced:{unit}")
            charged[unit] = rest
        return charged

    def _whole_input(self, charged: Mapping[str, Fraction]) -> Fraction:
        stated = self._amounts.get("input_tokens")
        if stated is not None:
            return stated
        parts = (o for o in charged if o == "input_tokens" or self._units.part(o, "input_tokens"))
        return sum((charged[o] for o in parts), Fraction(0))

    def _implied(self, unit: str, parts: Fraction) -> Fraction:
        """The least there is of a unit that was not stated. `parts`: what is charged of it."""
        within = [other for other in self._consumed if self._units.part(other, unit)]
        if within:
            self._note("partial", f"missing:{unit}")
            outer = [o for o in within if not any(self._units.part(o, whole) for whole in within)]
            amounts = [self._amounts[other] for other in outer]
            apart = all(self._units.disjoint(*pair) for pair in combinations(outer, 2))
            return max(parts, sum(amounts, Fraction(0)) if apart else max(amounts))
        for one, other in combinations(self._consumed, 2):
            if self._units.joint(one, other) == unit:
                return self._overlap(unit, one, other)
        return Fraction(0)

    def _overlap(self, unit: str, one: str, other: str) -> Fraction:
        """How much is both at the least: what does not fit side by side into their whole."""
        a, b = self._amounts[one], self._amounts[other]
        wholes = [
            self._amounts[whole]
            for whole in self._consumed
            if self._units.part(one, whole) and self._units.part(other, whole)
        ]
        least, most = max(Fraction(0), a + b - min(wholes)) if wholes else Fraction(0), min(a, b)
        if least >= most:  # it can be nothing else
            return most
        self._note("estimated", f"missing:{unit}")
        return least
