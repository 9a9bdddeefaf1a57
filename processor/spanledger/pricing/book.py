"""The price book: usage made into nano-USD, or into "unknown", never into 0 for unknown.

What the provider reported wins, then the user's overrides, then the dated price list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from spanledger.api.values import NANO, CostSource, CostStatus, Usage, decimal_amount
from spanledger.pricing.config import CreditPrice, PriceConfig
from spanledger.pricing.loading import Loader
from spanledger.pricing.quotes import Quote
from spanledger.pricing.reckoning import reckon, worst
from spanledger.pricing.sheet import half_even

NO_PRICE_LIST: Final = "no_price_list"
"""The reason of a price that is unknown because the list is still being loaded."""


class Price(NamedTuple):
    """What usage costs.

    nano_usd: integer nano-USD, None where it is unknown.
    version: which price list, override or credit price it comes from.
    reason: why it is not exact; several are joined by commas.
    """

    nano_usd: int | None
    status: CostStatus
    source: CostSource | None
    version: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class PriceInfo:
    """What a price book goes by.

    version: of the price list; None while it is not loaded.
    data_date: the day of its last refresh, else of the last price change it knows of: it is as old
        as that at most.
    refreshed: it came from the network.
    overrides, multipliers: how many the user has configured.
    credit_providers: for whom `usd_per_credit` is known.
    """

    version: str | None
    data_date: date | None
    refreshed: bool
    overrides: int
    multipliers: int
    credit_providers: tuple[str, ...]


class PriceBook:
    """Prices usage. Cheap to make: `warm`, or the first call in need, loads the price list."""

    def __init__(self, config: PriceConfig) -> None:
        self._config: Final = config
        self._loader: Final = Loader(config)

    def warm(self) -> None:
        """Load the price list, once, and begin to refresh it where that is configured. Thread safe.

        It takes a tenth of a second and more: call it in a thread of its own. Raises ImportError
        where genai-prices cannot be imported.
        """
        self._loader.warm()

    def close(self) -> None:
        """Stop refreshing."""
        self._loader.close()

    def info(self) -> PriceInfo:
        """What the book goes by now."""
        quotes = self._loader.quotes
        prices = None if quotes is None else quotes.prices
        return PriceInfo(
            version=None if prices is None else prices.version,
            data_date=None if prices is None else prices.data_date,
            refreshed=prices is not None and prices.refreshed,
            overrides=len(self._config.overrides),
            multipliers=len(self._config.multipliers),
            credit_providers=tuple(sorted(self._config.usd_per_credit)),
        )

    def price(
        self,
        provider: str,
        model: str | None,
        usage: Usage,
        when_ns: int,
        tenant: str | None = None,
    ) -> Price:
        """The price of `usage`.

        provider: `gen_ai.provider.name`.
        model: the model asked for. `usage.model`, the one that served the call, comes before it.
        when_ns: when the call started, Unix nanoseconds: prices are those of that moment.
        """
        quotes = self._loader.quotes
        if (
            quotes is None
            or usage.reported_cost is not None
            or usage.credits is not None
            or usage.parts
        ):
            return self._price_otherwise(provider, model, usage, when_ns, tenant)
        quote = quotes.get(provider, model, usage, when_ns, tenant)
        if quote.sheet is not None and quote.reason is None and usage.units and not usage.unpriced:
            nano_usd = quote.sheet.quick(usage.units)
            if nano_usd is not None:
                status: CostStatus = "estimated" if usage.estimated else "exact"
                return Price(nano_usd, status, quote.source, quote.version, None)
        return _sum([_piece(quote, usage)])

    def _price_otherwise(
        self, provider: str, model: str | None, usage: Usage, when_ns: int, tenant: str | None
    ) -> Price:
        """The price of what is not simply units of one model: reported costs, credits, parts."""
        reported = decimal_amount(usage.reported_cost)
        if reported is not None:
            status: CostStatus = "estimated" if usage.estimated else "exact"
            return Price(_nano_usd(reported, _ONE_USD), status, "provider", None, None)
        in_credits = self._price_of_credits(provider, usage, when_ns)
        if in_credits is not None and in_credits.nano_usd is not None:
            return in_credits
        by_units = self._price_of_units(provider, model, usage, when_ns, tenant)
        if by_units.nano_usd is None and in_credits is not None:
            return in_credits
        return by_units

    def _price_of_credits(self, provider: str, usage: Usage, when_ns: int) -> Price | None:
        used = decimal_amount(usage.credits)
        if used is None:
            return None
        price = self._credit_price(provider, when_ns)
        if price is not None:
            nano_usd = _nano_usd(used, price.usd)
            return _doubted(Price(nano_usd, "exact", "override", price.version, None), usage)
        if not used and not usage.unpriced:  # nothing, at whatever price
            return _doubted(Price(0, "exact", "provider", None, None), usage)
        return Price(None, "unknown", None, None, "usd_per_credit")

    def _credit_price(self, provider: str, when_ns: int) -> CreditPrice | None:
        prices = self._config.usd_per_credit.get(provider, ())
        return next((p for p in reversed(prices) if p.start_ns <= when_ns), None)

    def _price_of_units(
        self, provider: str, model: str | None, usage: Usage, when_ns: int, tenant: str | None
    ) -> Price:
        if not usage.units and not usage.parts and not self._config.overrides:
            return Price(None, "unknown", None, None, ",".join(_unpriced(usage)) or "no_usage")
        quotes = self._loader.wait()
        if quotes is None:
            return Price(None, "unknown", None, None, NO_PRICE_LIST)
        pieces: list[_Piece] = []
        for part in usage.parts or (usage,):
            whole = part._replace(
                model=part.model or usage.model,
                price_context={**usage.price_context, **part.price_context},
            )
            pieces.append(_piece(quotes.get(provider, model, whole, when_ns, tenant), whole))
        price = _sum(pieces)
        return _doubted(price, usage) if usage.parts else price


_ONE_USD: Final = Decimal(1)


def _nano_usd(amount: Decimal, usd: Decimal) -> int:
    """Amount times usd, exact until it is rounded."""
    (amount_above, amount_below), (above, below) = amount.as_integer_ratio(), usd.as_integer_ratio()
    return half_even(amount_above * above * NANO, amount_below * below)


class _Piece(NamedTuple):
    """One part of a call, priced. nano_usd: exact, not rounded."""

    nano_usd: Fraction | None
    status: CostStatus
    reasons: tuple[str, ...]
    quote: Quote


def _piece(quote: Quote, usage: Usage) -> _Piece:
    sheet = quote.sheet
    reasons = _unpriced(usage)
    silent = not any(usage.units.values()) and bool(reasons or not usage.units)
    if silent and (sheet is None or sheet.per_call is None):
        return _Piece(None, "unknown", reasons or ("no_usage",), quote)
    if sheet is None:
        return _Piece(None, "unknown", (*reasons, quote.reason or "unknown_model"), quote)
    reckoned = reckon(sheet, usage.units)
    status = worst(reckoned.status, _certainty(usage))
    if quote.reason:
        status = worst(status, "estimated")
        reasons = (*reasons, quote.reason)
    if reckoned.nano_usd is None:
        status = "unknown"
    return _Piece(reckoned.nano_usd, status, (*reckoned.reasons, *reasons), quote)


def _sum(pieces: Sequence[_Piece]) -> Price:
    """The pieces as one price, rounded once. What has no price among them makes it partial."""
    reason = ",".join(sorted({reason for piece in pieces for reason in piece.reasons})) or None
    known = [piece for piece in pieces if piece.nano_usd is not None]
    if not known:
        return Price(None, "unknown", None, None, reason)
    statuses: list[CostStatus] = [piece.status for piece in known]
    if len(known) < len(pieces):
        statuses.append("partial")
    total = sum((piece.nano_usd or Fraction(0) for piece in known), Fraction(0))
    return Price(
        round(total),
        worst(*statuses),
        "override" if any(p.quote.source == "override" for p in known) else "price_list",
        ", ".join(dict.fromkeys(piece.quote.version or "" for piece in known)),
        reason,
    )


def _doubted(price: Price, usage: Usage) -> Price:
    """`price`, as certain as the usage it was made of."""
    if price.nano_usd is None:
        return price
    status = worst(price.status, _certainty(usage))
    reasons = (*filter(None, (price.reason,)), *_unpriced(usage))
    return price._replace(status=status, reason=",".join(reasons) or None)


def _certainty(usage: Usage) -> CostStatus:
    """How certain a price can be at best."""
    if usage.estimated:
        return "estimated"
    return "partial" if usage.unpriced else "exact"


def _unpriced(usage: Usage) -> tuple[str, ...]:
    return tuple(name if ":" in name else f"unpriced:{name}" for name in usage.unpriced)
