"""The price book's prices as statements for the collector.

Each sets `spanledger.call.rates` for one model: nano-USD for a thousand tokens, by service tier.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final, NamedTuple

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo

from spanledger.api.values import EMPTY, Usage
from spanledger.cli.arguments import nanoseconds
from spanledger.cli.collector_cost import PER
from spanledger.cli.collector_names import NotExpressible, condition, in_order, names, taken_before
from spanledger.cli.collector_ottl import Group, Literal, call, literal, put
from spanledger.cli.collector_reading import AMOUNTS
from spanledger.pricing.config import ALWAYS, PriceConfig
from spanledger.pricing.price_list import Listed, load
from spanledger.pricing.quotes import Quote, Quotes
from spanledger.pricing.sheet import Sheet
from spanledger.processor.dialect_words import provider as provider_word

_FOREVER: Final = 2**63
_MOST_STRETCHES: Final = 8
_FINEST: Final = 10**6
_LARGEST: Final = 2**33  # a rate; times 10**9 tokens it fits into 64 bits
_NAME: Final = call("name")

Rates = Mapping[str, Literal]


class NoPrice(Exception):
    """There is no price, or it cannot be said to the collector; the message says why."""


class _Stretch(NamedTuple):
    """Rates that hold from `start_ns` to before `end_ns`."""

    rates: Rates
    start_ns: int
    end_ns: int


class Prices(NamedTuple):
    """Statements, and what could not be said in them, for whoever asked for it."""

    groups: list[Group]
    version: str
    problems: list[str]


def price_groups(models: Iterable[str], config: PriceConfig, moment: datetime) -> Prices:
    """One group for each provider of `models`, names such as openai/gpt-4o.

    moment: prices are those from the day before it on, announced changes included.
    """
    prices = load()
    book = _Book(Quotes(prices, config), config, moment)
    statements: dict[str, list[str]] = {}
    problems: list[str] = []
    for name in models:
        given, _, model = name.partition("/")
        provider = provider_word(given)
        try:
            statements.setdefault(provider, []).extend(book.statements(provider, model.lower()))
        except (NoPrice, NotExpressible) as problem:
            problems.append(f"{name}: {problem}")
    groups = [
        Group(
            f"Prices of {provider}: nano-USD for {PER:,} tokens, by service tier.",
            (f"{call('rates')} == nil and {call('provider')} == {literal(provider)}",),
            tuple(dict.fromkeys(lines)),
            label="prices_" + "".join(c if c.isalnum() else "_" for c in provider),
        )
        for provider, lines in sorted(statements.items())
        if lines
    ]
    return Prices(groups, prices.version, problems)


class _Book:
    """What the price book says of models, from one moment on."""

    def __init__(self, quotes: Quotes, config: PriceConfig, moment: datetime) -> None:
        self._quotes = quotes
        self._start_ns = nanoseconds(moment - timedelta(days=1)) or 0
        self._deployments = config.deployments
        self._scopes = [
            *(override.scope for override in config.overrides),
            *(multiplier.scope for multiplier in config.multipliers),
        ]
        tenants = {scope.tenant for scope in self._scopes if scope.tenant is not None}
        # A tenant's own prices go before everybody's.
        self._tenants = (*sorted(tenants), None)

    def statements(self, provider: str, name: str) -> list[str]:
        """The statements for one model, and for those that take some of its names before it."""
        prices = self._quotes.prices
        list_id = prices.provider_id(provider)
        deployed = f"{provider}/{name}" in self._deployments or name in self._deployments
        listed = prices.find(list_id, name) if list_id and not deployed else None
        if listed is None:
            return [*self._of_names(provider, name, f"{_NAME} == {literal(name)}")]
        snapshot = get_snapshot().providers
        own = next(one for one in snapshot if one.id == list_id)
        before = taken_before(listed.model, in_order(own, snapshot))
        found: list[str] = []
        for model in before:
            first = (*names(model.match), model.id)[0]
            found += self._of_model(provider, first, Listed(listed.provider_id, model, listed.own))
        return found + self._of_model(provider, name, listed)

    def _of_model(self, provider: str, name: str, listed: Listed) -> list[str]:
        """The statements for a model's names, those with a price of their own first."""
        model = listed.model
        usual = self._all_stretches(provider, name)
        own = {*names(model.match), *(s.model for s in self._scopes if s.model is not None)}
        found: list[str] = []
        for other in sorted(own):
            is_its = not other.endswith("*") and model.is_match(other)
            if is_its and self._all_stretches(provider, other) != usual:
                found += self._of_names(provider, other, f"{_NAME} == {literal(other)}")
        return [*found, *self._of_names(provider, name, condition(model.match, _NAME))]

    def _of_names(self, provider: str, name: str, is_named: str) -> Iterator[str]:
        for tenant, stretches in self._all_stretches(provider, name).items():
            for stretch in stretches:
                conditions = [f"{call('rates')} == nil"]
                if tenant is not None:
                    conditions.append(f'span.attributes["tenant.id"] == {literal(tenant)}')
                if stretch.start_ns != ALWAYS:
                    conditions.append(f"span.start_time_unix_nano >= {stretch.start_ns}")
                if stretch.end_ns != _FOREVER:
                    conditions.append(f"span.start_time_unix_nano < {stretch.end_ns}")
                where = " and ".join((*conditions, is_named))
                yield put(call("rates"), literal(stretch.rates), where)

    def _all_stretches(self, provider: str, name: str) -> dict[str | None, list[_Stretch]]:
        found = {tenant: [*self._stretches(provider, name, tenant)] for tenant in self._tenants}
        everybodys = found.pop(None)
        return {
            **{tenant: own for tenant, own in found.items() if own != everybodys},
            None: everybodys,
        }

    def _stretches(self, provider: str, name: str, tenant: str | None) -> Iterator[_Stretch]:
        when_ns = self._start_ns
        for number in range(_MOST_STRETCHES):
            stretch = self._stretch(provider, name, tenant, when_ns)
            # Spans that come days late are priced as those of the first day.
            yield stretch if number else stretch._replace(start_ns=ALWAYS)
            if stretch.end_ns == _FOREVER:
                return
            when_ns = stretch.end_ns
        raise NoPrice("its price changes by the time of day")

    def _stretch(self, provider: str, name: str, tenant: str | None, when_ns: int) -> _Stretch:
        def quote(context: Mapping[str, str]) -> Quote:
            usage = Usage({"input_tokens": 1}, model=name, price_context=context)
            return self._quotes.get(provider, name, usage, when_ns, tenant)

        standard = quote(EMPTY)
        if standard.sheet is None:
            raise NoPrice(f"the price book has none ({standard.reason})")
        quotes = {"standard": standard}
        for tier in self._tiers(provider, name):
            one = quote({"service_tier": tier})
            if one.reason is None and one.sheet is not None:
                quotes[tier] = one
        steps = self._steps(provider, name, when_ns)
        sheets = [one.sheet for one in quotes.values() if one.sheet is not None]
        per = _per(sheets, steps)
        rates: dict[str, Literal] = {
            tier: _rates(sheet, per, steps) for tier, sheet in zip(quotes, sheets, strict=True)
        }
        if per != PER:
            rates["per"] = per
        if any(unit.endswith("_tokens") and unit not in AMOUNTS for unit in standard.sheet.order):
            rates["apart"] = True
        if standard.source == "override":
            rates["source"], rates["version"] = "override", standard.version or ""
        elif standard.version != self._quotes.prices.version:
            rates["version"] = standard.version or ""
        return _Stretch(
            rates,
            max(one.start_ns for one in quotes.values()),
            min(one.end_ns for one in quotes.values()),
        )

    def _model(self, provider: str, name: str) -> ModelInfo | None:
        list_id = self._quotes.prices.provider_id(provider)
        known_as = (
            self._deployments.get(f"{provider}/{name}") or self._deployments.get(name) or name
        )
        listed = self._quotes.prices.find(list_id, known_as) if list_id else None
        return None if listed is None else listed.model

    def _tiers(self, provider: str, name: str) -> list[str]:
        """The service tiers that have prices of their own somewhere."""
        model = self._model(provider, name)
        conditions = [variant.when for variant in (model and model.price_variants) or ()]
        conditions += [dict(scope.when) for scope in self._scopes]
        tiers = {when["service_tier"] for when in conditions if "service_tier" in when}
        if any("processing" in when for when in conditions):
            tiers.add("batch")
        return sorted(tiers - {"default", "standard"})

    def _steps(self, provider: str, name: str, when_ns: int) -> list[int]:
        """The numbers of input tokens above which the model has another price."""
        model = self._model(provider, name)
        if model is None:
            return []
        listed = Listed(provider, model, own=True)
        rates = self._quotes.prices.prices(listed, when_ns, {}).rates
        return sorted({start for rate in rates for start, _ in rate.tiers})


def _per(sheets: Iterable[Sheet], steps: list[int]) -> int:
    """For how many units prices are whole numbers of nano-USD, in all of the sheets."""
    per = PER
    while True:
        amounts = [
            price * per
            for sheet in sheets
            for step in (0, *(step + 1 for step in steps))
            for price in _by_unit(sheet, step).values()
        ]
        if max(amounts, default=Fraction(0)) > _LARGEST:
            raise NoPrice("it is too large")
        if all(amount.denominator == 1 for amount in amounts):
            return per
        per *= 10
        if per > _FINEST:
            raise NoPrice("it has too many decimals")


def _by_unit(sheet: Sheet, input_tokens: int) -> dict[str, Fraction]:
    """Nano-USD for one of each unit that the collector counts, and for a call."""
    prices = zip(sheet.order, sheet.prices(input_tokens), strict=True)
    found = {
        AMOUNTS[unit]: Fraction(price, sheet.denominator)
        for unit, price in prices
        if unit in AMOUNTS
    }
    if sheet.per_call is not None:
        found["call"] = Fraction(sheet.per_call, sheet.denominator)
    return found


def _rates(sheet: Sheet, per: int, steps: list[int]) -> dict[str, Literal]:
    """The sheet's prices; `longer` has those of inputs of more tokens than `above`."""
    rates: dict[str, Literal] = {}
    for step in reversed((0, *steps)):
        prices = _by_unit(sheet, step + 1 if step else 0)
        longer = rates
        rates = {unit: int(price * per) for unit, price in sorted(prices.items())}
        above = next((other for other in steps if other > step), None)
        if above is not None and longer != rates:
            rates["above"], rates["longer"] = above, longer
    return rates
