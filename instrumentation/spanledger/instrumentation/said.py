"""What the user of `metered` says that a use costs."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, cast

from spanledger.api.errors import ConfigurationError
from spanledger.api.guard import swallow
from spanledger.api.values import Usage, count, decimal_amount
from spanledger.instrumentation.request import Reading

Amount = int | float | str | Decimal
Said = Amount | Callable[[Any], Any] | None
SaidUsage = Usage | Callable[[Any], Usage | None] | None

_UNSAID: Final = Usage(unpriced=("usage",))


class Says:
    """What the user said a use costs."""

    def __init__(self, cost: Said, credits_: Said, usage: SaidUsage) -> None:
        self.cost = cost
        self.credits = credits_
        self.usage = usage

    def check(self) -> None:
        """Raises ConfigurationError for what is neither an amount nor a function."""
        for key, said in (("cost", self.cost), ("credits", self.credits)):
            if said is not None and not callable(said) and decimal_amount(said) is None:
                remedy = 'Give a non-negative number, text such as "0.005", or a function'
                raise _wrong(key, said, remedy)
        usage = cast("object", self.usage)
        if usage is not None and not callable(usage) and not isinstance(usage, Usage):
            raise _wrong("usage", usage, "Give a spanledger.api.Usage, or a function")

    def known(self) -> Usage | None:
        """What is known before the call, where values are said."""
        if isinstance(self.usage, Usage):
            return _checked_usage(self.usage)
        cost = None if callable(self.cost) else decimal_amount(self.cost)
        used = None if callable(self.credits) else decimal_amount(self.credits)
        return None if cost is None and used is None else Usage(credits=used, reported_cost=cost)

    def reading(self, result: Any) -> Reading:
        """What is known after it."""
        with swallow("what @metered says of a result"):
            usage = self.usage(result) if callable(self.usage) else self.usage
            if usage is not None:
                return Reading(_checked_usage(usage))
            cost = self.cost(result) if callable(self.cost) else self.cost
            used = self.credits(result) if callable(self.credits) else self.credits
            said = Usage(credits=decimal_amount(used), reported_cost=decimal_amount(cost))
            if said.credits is not None or said.reported_cost is not None:
                return Reading(said)
        return Reading(_UNSAID)

    def unsaid(self) -> Reading:
        """What is known of a use whose end nobody saw, or that raised."""
        return Reading((self.known() or _UNSAID)._replace(estimated=True))


def _checked_usage(usage: object) -> Usage:
    """What a user gave, with what is no amount taken out and named as unpriced."""
    if not isinstance(usage, Usage):
        raise TypeError(f"usage is a {type(usage).__name__}, not a spanledger.api.Usage")
    amounts = {
        unit: decimal_amount(value) if (amount := count(value)) is None else amount
        for unit, value in usage.units.items()
    }
    return usage._replace(
        units={unit: amount for unit, amount in amounts.items() if amount is not None},
        credits=decimal_amount(usage.credits),
        reported_cost=decimal_amount(usage.reported_cost),
        unpriced=(*usage.unpriced, *(unit for unit, amount in amounts.items() if amount is None)),
    )


def _wrong(key: str, said: object, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"is {said!r}", source="@metered", key=key, remedy=f"{remedy} of the result."
    )
