"""Which unit prices a call has: the user's overrides laid over the price list, at its time."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from spanledger.api.values import CostSource, Usage
from spanledger.pricing.config import ALWAYS, Multiplier, Override, PriceConfig
from spanledger.pricing.generations import Generations
from spanledger.pricing.sheet import Rate, Sheet

if TYPE_CHECKING:  # it loads genai-prices: only `PriceBook.warm` does that
    from spanledger.pricing.price_list import ListPrices, PriceList

_FOREVER: Final = 2**63
_MOST_KEYS: Final = 2048
_MOST_STRETCHES: Final = 8
_FREE: Final = ("input_tokens", "output_tokens")

# They bill audio tokens at prices of their own, at a multiple of text (https://openai.com/api/pricing):
# where the list knows none, its text price is too low. Others bill audio as text unless listed.
_AUDIO_APART: Final = frozenset({"openai", "azure"})
_AUDIO: Final = {"input_audio_tokens": "input_tokens", "output_audio_tokens": "output_tokens"}

_Rule = TypeVar("_Rule", Override, Multiplier)
_Key = tuple[str, str | None, str | None, tuple[tuple[str, str], ...], str | None]


class Quote(NamedTuple):
    """What the calls of one kind are priced by, from `start_ns` to before `end_ns`.

    sheet: None where there is no price; `reason` then says why.
    reason: with a sheet, what is not right about its prices for such calls, as
        `unpriced:service_tier=flex`.
    """

    sheet: Sheet | None
    source: CostSource | None = None
    version: str | None = None
    reason: str | None = None
    start_ns: int = ALWAYS
    end_ns: int = _FOREVER


class Quotes:
    """The quotes from one price list, kept for the next calls of their kind."""

    def __init__(self, prices: "PriceList", config: PriceConfig) -> None:
        self.prices: Final = prices
        self._config = config
        scopes = [*(o.scope for o in config.overrides), *(m.scope for m in config.multipliers)]
        # Whoever has no prices of his own shares the quotes of all.
        self._tenants = frozenset(scope.tenant for scope in scopes if scope.tenant is not None)
        self._starts = sorted({scope.start_ns for scope in scopes} - {ALWAYS})
        self._kept: Generations[_Key, tuple[Quote, ...]] = Generations(_MOST_KEYS)

    def get(
        self,
        provider: str,
        asked: str | None,
        usage: Usage,
        when_ns: int,
        tenant: str | None,
    ) -> Quote:
        """The quote for a call of `provider` for the model `asked`, with this usage."""
        context = usage.price_context
        key = (
            provider,
            asked,
            usage.model,
            tuple(context.items()) if context else (),
            tenant if tenant in self._tenants else None,
        )
        kept = self._kept.get(key) or ()
        for quote in kept:
            if quote.start_ns <= when_ns < quote.end_ns:
                return quote
        quote = self._within_starts(self._make(provider, asked, usage, when_ns, tenant), when_ns)
        self._kept.put(key, (quote, *kept[: _MOST_STRETCHES - 1]))
        return quote

    def _within_starts(self, quote: Quote, when_ns: int) -> Quote:
        start = max((s for s in self._starts if s <= when_ns), default=ALWAYS)
        end = min((s for s in self._starts if s > when_ns), default=_FOREVER)
        return quote._replace(start_ns=max(quote.start_ns, start), end_ns=min(quote.end_ns, end))

    def _make(
        self,
        provider: str,
        asked: str | None,
        usage: Usage,
        when_ns: int,
        tenant: str | None,
    ) -> Quote:
        from spanledger.pricing.price_list import normal_context  # noqa: PLC0415 - loaded by now

        list_id = self.prices.provider_id(provider)
        context = normal_context(list_id, usage.price_context)
        for name, certain in self._names(provider, asked, usage.model):
            listed = self.prices.find(list_id, name) if list_id and name else None
            call = (
                {provider.lower(), list_id},
                {n.lower() for n in (name, listed and listed.model.id) if n},
                tenant,
                context,
                when_ns,
            )
            override = _strongest(o for o in self._config.overrides if o.scope.covers(*call))
            if listed is None and override is None:
                continue
            multiplier = _strongest(m for m in self._config.multipliers if m.scope.covers(*call))
            found = self.prices.prices(listed, when_ns, context) if listed else None
            quote = self._quote(found, override, multiplier, list_id)
            if certain or override is not None:
                return quote
            return quote._replace(reason="unknown_model")
        return Quote(None, reason="unknown_model" if list_id else "unknown_provider")

    def _names(
        self, provider: str, asked: str | None, served: str | None
    ) -> Iterator[tuple[str | None, bool]]:
        """The names to look the model up by, and whether a price found by it is certain."""
        if served:
            yield self._deployed(provider, served) or served, True
        if asked and asked != served:
            model = self._deployed(provider, asked)
            yield model or asked, bool(model) or not served
        if not asked and not served:
            yield None, True

    def _deployed(self, provider: str, name: str) -> str | None:
        get = self._config.deployments.get
        return get(f"{provider}/{name}".lower()) or get(name.lower())

    def _quote(
        self,
        found: "ListPrices | None",
        override: Override | None,
        multiplier: Multiplier | None,
        list_id: str | None,
    ) -> Quote:
        from spanledger.pricing.price_list import UNITS  # noqa: PLC0415 - loaded by now

        rates: dict[str, Rate] = {}
        version = self.prices.version
        if found is not None:
            rates = {rate.unit: rate for rate in found.rates}
            if multiplier is not None:
                rates = {u: rate._replace(factor=multiplier.factor) for u, rate in rates.items()}
                version += f" x {multiplier.factor}"
            if list_id in _AUDIO_APART:
                rates |= _guessed_audio(rates)
            if not rates and found.free:
                rates = {unit: Rate(unit, Decimal(0), 1) for unit in _FREE}
        if override is not None:
            own = {rate.unit: rate for rate in override.rates}
            over = f" over {version}" if rates.keys() - own.keys() else ""
            rates |= own
            version = f"override {override.scope}{over}"
        unmatched = found.unmatched if found is not None and override is None else ()
        least_seconds = found.least_seconds if found is not None else 0
        return Quote(
            Sheet(rates.values(), UNITS, least_seconds) if rates else None,
            "price_list" if override is None else "override",
            version,
            (f"unpriced:{unmatched[0]}" if unmatched else None) if rates else "unpriced_model",
            ALWAYS if found is None else found.start_ns,
            _FOREVER if found is None else found.end_ns,
        )


def _guessed_audio(rates: Mapping[str, Rate]) -> dict[str, Rate]:
    """The text price for audio tokens that the list has no price for, as a guess."""
    return {
        audio: rates[whole]._replace(unit=audio, guessed=True)
        for audio, whole in _AUDIO.items()
        if whole in rates and audio not in rates
    }


def _strongest(rules: Iterable[_Rule]) -> _Rule | None:
    return max(rules, key=lambda rule: rule.scope.rank, default=None)
