"""The dated price list, genai-prices, as unit prices that hold over a stretch of time.

Importing this module loads genai-prices, which takes tens of milliseconds, and hundreds where
pydantic is not loaded yet: `PriceBook.warm` does it off the caller's path.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib.metadata import version
from typing import Final, NamedTuple

import httpx2
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.data_units import unit_data
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.units import UnitDef, UnitRegistry
from genai_prices.update_prices import UpdatePrices
from opentelemetry.instrumentation.utils import suppress_instrumentation

from spanledger.api.guard import say_once
from spanledger.pricing.sheet import Rate, Units

_REGISTRY: Final = UnitRegistry(unit_data)
UNITS: Final = Units({key: unit.dimensions for key, unit in _REGISTRY.units.items()})
BY_PRICE_KEY: Final = {unit.price_key: unit for unit in _REGISTRY.units.values()}
"""Units by the keys of their prices: `input_mtok` is what a million of `input_tokens` cost."""

# `gen_ai.provider.name` -> genai-prices' id, where they differ. Its own matching takes
# "azure.ai.openai" for OpenAI.
_PROVIDERS: Final[Mapping[str, str]] = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "together_ai": "together",
    "voyage_ai": "voyageai",
    "x_ai": "x-ai",
    "z_ai": "zai",
}
_STANDARD: Final = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand"})
# Groq bills these tiers at the price of the standard one:
# https://console.groq.com/docs/service-tiers
_STANDARD_AT: Final = frozenset({("groq", "flex")})
_SELECTORS: Final = ("service_tier", "speed", "processing")
_GROQ_LEAST_SECONDS: Final = 10  # as genai-prices has it, for these two models
_GROQ_WHISPER: Final = frozenset({"whisper-large-v3", "whisper-large-v3-turbo"})
_LAST_SECOND: Final = 253_402_300_799 - 86_400  # year 9999, and a day of room for what comes next
_DAY: Final = timedelta(days=1)


class Listed(NamedTuple):
    """A model's entry in the list.

    own: it is the provider's own, not that of another provider whose models it offers.
    """

    provider_id: str
    model: ModelInfo
    own: bool


class ListPrices(NamedTuple):
    """What the list says of a model, for one kind of call, while it does not change.

    start_ns, end_ns: from this moment to before that one, Unix nanoseconds.
    unmatched: what the call asked for that the list has no price for, as `service_tier=flex`.
    """

    rates: tuple[Rate, ...]
    start_ns: int
    end_ns: int
    unmatched: tuple[str, ...]
    least_seconds: int
    free: bool


class PriceList:
    """A snapshot of genai-prices.

    Attributes:
        version: `genai-prices 0.2.3`, and the day of the refresh where it was refreshed.
        data_date: the day of the refresh, else the last day on which a price of the list changed:
            it is as old at most.
    """

    def __init__(self, snapshot: DataSnapshot, today: date) -> None:
        self._providers = snapshot.providers
        self._by_id = {provider.id: provider for provider in snapshot.providers}
        self.refreshed = snapshot.from_auto_update
        self.version = f"genai-prices {version('genai-prices')}"
        if self.refreshed:
            self.data_date: date | None = snapshot.timestamp.date()
            self.version += f" refreshed {self.data_date}"
        else:
            past = (day for day in _start_dates(snapshot.providers) if day <= today)
            self.data_date = max(past, default=None)

    def provider_id(self, provider: str) -> str | None:
        """genai-prices' id of the provider; None where the list does not have it."""
        name = provider.strip().lower()
        name = _PROVIDERS.get(name, name)
        return name if name in self._by_id else None

    def find(self, provider_id: str, model: str) -> Listed | None:
        """The model's entry."""
        provider = self._by_id[provider_id]
        found = provider.find_model(model, all_providers=self._providers)
        if found is None:
            return None
        return Listed(provider_id, found, any(found is own for own in provider.models))

    def prices(self, listed: Listed, when_ns: int, context: Mapping[str, str]) -> ListPrices:
        """The unit prices of `listed` at `when_ns`. `context`: as `normal_context` has it."""
        model = listed.model
        when = _datetime(when_ns)
        stated = model.get_prices(when, context if listed.own else None).__dict__
        rates = tuple(
            _rate(BY_PRICE_KEY[key], price)
            for key, price in stated.items()
            if price is not None and key in BY_PRICE_KEY
        )
        variants = (model.price_variants or ()) if listed.own else ()
        start_ns, end_ns = _stretch(when, _constraints(model.prices, variants))
        whisper = listed.provider_id == "groq" and model.id in _GROQ_WHISPER
        return ListPrices(
            rates,
            start_ns,
            end_ns,
            _unmatched(context, variants, when),
            _GROQ_LEAST_SECONDS if whisper else 0,
            # An entry without any price is what the list has both for free models and for ones
            # whose price it cannot say.
            free=model.id.endswith(":free"),
        )


def load() -> PriceList:
    """The list that is installed, or that the application itself has refreshed."""
    return PriceList(get_snapshot(), datetime.now(tz=UTC).date())


def fetch(url: str | None) -> PriceList | None:
    """The newest list, from the network: it takes seconds. None, said once, where it fails."""
    updater = UpdatePrices() if url is None else UpdatePrices(url=url)
    problem = "it is empty"
    try:
        with suppress_instrumentation():  # the request is ours, not the application's
            snapshot = updater.fetch()
        if snapshot is not None and snapshot.providers:
            return PriceList(snapshot, datetime.now(tz=UTC).date())
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        problem = type(error).__name__
    say_once(
        "prices",
        "refresh",
        "newer prices cannot be had from %s (%s); the list that is loaded stays in use",
        updater.url,
        problem,
    )
    return None


def normal_context(provider_id: str | None, context: Mapping[str, str]) -> dict[str, str]:
    """`context` in the price list's words: one word for the standard, `processing` for batches."""
    normal = dict(context)
    for key in _SELECTORS:
        if key not in normal:
            continue
        value = normal[key].strip().lower()
        if key == "service_tier" and value == "batch":  # how Anthropic reports it
            del normal[key]
            normal["processing"] = "batch"
        elif value not in _STANDARD and (provider_id or "", value) not in _STANDARD_AT:
            normal[key] = value
        else:
            del normal[key]
    return normal


def _rate(unit: UnitDef, price: Decimal | TieredPrices) -> Rate:
    if isinstance(price, TieredPrices):
        tiers = tuple((tier.start, tier.price) for tier in price.tiers)
        return Rate(unit.usage_key, price.base, unit.per, tiers)
    return Rate(unit.usage_key, price, unit.per)


def _unmatched(
    context: Mapping[str, str], variants: Iterable[PriceVariant], when: datetime
) -> tuple[str, ...]:
    active = [v.when for v in variants if v.constraint is None or v.constraint.active(when)]
    met = [when for when in active if all(context.get(k) == value for k, value in when.items())]
    return tuple(
        f"{key}={context[key]}"
        for key in _SELECTORS
        if key in context and not any(key in when for when in met)
    )


# -- when a price changes ------------------------------------------------------------------------


def _constraints(
    prices: object, variants: Iterable[PriceVariant]
) -> Iterator[StartDateConstraint | TimeOfDateConstraint]:
    entries: list[ConditionalPrice | PriceVariant] = [*variants]
    if isinstance(prices, list):
        entries += prices
    for entry in entries:
        if entry.constraint is not None:
            yield entry.constraint


def _stretch(
    when: datetime, constraints: Iterable[StartDateConstraint | TimeOfDateConstraint]
) -> tuple[int, int]:
    """The stretch of time around `when` in which no constraint changes, in Unix nanoseconds."""
    changes = [change for constraint in constraints for change in _changes(constraint, when)]
    start = max((change for change in changes if change <= when), default=None)
    end = min((change for change in changes if change > when), default=None)
    return (
        -(2**63) if start is None else _ns(start),
        2**63 if end is None else _ns(end),
    )


def _changes(
    constraint: StartDateConstraint | TimeOfDateConstraint, when: datetime
) -> Iterator[datetime]:
    """When `constraint` begins or ends to hold, as far as it matters at `when`."""
    if isinstance(constraint, StartDateConstraint):
        yield datetime.combine(constraint.start_date, time(), UTC)
        return
    for edge in (constraint.start_time, constraint.end_time):
        zoned = edge if edge.tzinfo else edge.replace(tzinfo=UTC)
        for day in (when.date() - _DAY, when.date(), when.date() + _DAY):
            yield datetime.combine(day, zoned).astimezone(UTC)


def _start_dates(providers: Iterable[Provider]) -> Iterator[date]:
    for provider in providers:
        for model in provider.models:
            for constraint in _constraints(model.prices, model.price_variants or ()):
                if isinstance(constraint, StartDateConstraint):
                    yield constraint.start_date


def _datetime(when_ns: int) -> datetime:
    # The first day is left out for the same reason as the last: its neighbours are asked for.
    return datetime.fromtimestamp(min(max(when_ns // 10**9, 86_400), _LAST_SECOND), UTC)


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9
