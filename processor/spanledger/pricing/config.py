"""The table `[prices]`: what the user knows better than the price list. See docs/prices.md."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Final, NamedTuple

from spanledger.api.settings import Section
from spanledger.api.values import EMPTY
from spanledger.pricing.sheet import Rate

ALWAYS: Final = -(2**63)
"""The start, in Unix nanoseconds, of what has no start date."""


class Scope(NamedTuple):
    """Which calls an override or multiplier is for; None is for all.

    provider: as spanledger names it, or as the price list does.
    model: the model's name; one that ends in `*` is the start of a name.
    when: what the call's price context has to say, such as service_tier=flex; what it does not say
        is "default".
    """

    provider: str | None = None
    model: str | None = None
    tenant: str | None = None
    start: date | None = None
    start_ns: int = ALWAYS
    when: Mapping[str, str] = EMPTY

    def covers(
        self,
        providers: Collection[str | None],
        models: Collection[str],
        tenant: str | None,
        context: Mapping[str, str],
        when_ns: int,
    ) -> bool:
        """Whether a call that goes by these names is in the scope."""
        return (
            (self.provider is None or self.provider in providers)
            and (self.model is None or any(self._is_model(model) for model in models))
            and (self.tenant is None or self.tenant == tenant)
            and self.start_ns <= when_ns
            and all(context.get(key, "default") == value for key, value in self.when.items())
        )

    def _is_model(self, model: str) -> bool:
        assert self.model is not None
        if self.model.endswith("*"):
            return model.startswith(self.model[:-1])
        return model == self.model

    @property
    def rank(self) -> tuple[bool, int, int, bool, int]:
        """Of several scopes the highest counts: the most specific, and of equals the latest."""
        model = self.model or ""
        exact = 1_000_000 if model and not model.endswith("*") else 0
        return (
            self.tenant is not None,
            exact + len(model),
            len(self.when),
            self.provider is not None,
            self.start_ns,
        )

    def __str__(self) -> str:
        conditions = (f"{key}={value}" for key, value in self.when.items())
        words = (
            f"{self.provider or '*'}/{self.model or '*'}",
            self.tenant,
            self.start,
            *conditions,
        )
        return " ".join(str(word) for word in words if word)


class Override(NamedTuple):
    """Unit prices that stand in front of the price list's."""

    scope: Scope
    rates: tuple[Rate, ...]


class Multiplier(NamedTuple):
    """A factor on the price list's prices."""

    scope: Scope
    factor: Decimal


class CreditPrice(NamedTuple):
    """What a credit costs from `start_ns` on, in USD."""

    usd: Decimal
    version: str
    start_ns: int = ALWAYS


@dataclass(frozen=True, slots=True)
class PriceConfig:
    """What the user says about prices.

    deployments: names of deployments, bare or as provider/name, to the names of the models that
        they run.
    usd_per_credit: by provider, ascending by start.
    refresh: fetch newer price lists from the network, in the background.
    refresh_url: where from; None for genai-prices' own place.
    """

    overrides: tuple[Override, ...] = ()
    multipliers: tuple[Multiplier, ...] = ()
    deployments: Mapping[str, str] = field(default_factory=dict[str, str])
    usd_per_credit: Mapping[str, tuple[CreditPrice, ...]] = field(
        default_factory=dict[str, tuple[CreditPrice, ...]]
    )
    refresh: bool = False
    refresh_url: str | None = None


def read_price_config(section: Section, usd_per_credit: Mapping[str, Decimal]) -> PriceConfig:
    """Read the table `[prices]`. `usd_per_credit`: the environment's, which wins over the file's.

    Raises ConfigurationError.
    """
    deployments = section.section("deployments")
    config = PriceConfig(
        overrides=tuple(_override(table) for table in section.sections("override")),
        multipliers=tuple(_multiplier(table) for table in section.sections("multiplier")),
        deployments={name.lower(): deployments.text(name) for name in sorted(deployments.keys())},
        usd_per_credit={
            **_credit_prices(section.section("usd_per_credit")),
            **{
                provider: (CreditPrice(usd, f"usd_per_credit {provider}"),)
                for provider, usd in usd_per_credit.items()
            },
        },
        refresh=section.flag("refresh", False),
        refresh_url=section.text("refresh_url", None),
    )
    section.finish()
    return config


def _scope(table: Section) -> Scope:
    when = table.section("when")
    start: date | None = table.day("start", None)
    scope = Scope(
        _lower(table.text("provider", None)),
        _lower(table.text("model", None)),
        table.text("tenant", None),
        start,
        _start_ns(start),
        {key: when.text(key) for key in sorted(when.keys())},
    )
    if not any((scope.provider, scope.model, scope.tenant)):
        raise table.error("", "is for every call there is", "Name a provider, model or tenant.")
    return scope


def _lower(text: str | None) -> str | None:
    return text.lower() if text else None


def _start_ns(start: date | None) -> int:
    if start is None:
        return ALWAYS
    return int(datetime.combine(start, time(), UTC).timestamp()) * 10**9


def _multiplier(table: Section) -> Multiplier:
    multiplier = Multiplier(_scope(table), table.number("factor", most="1000"))
    table.finish()
    return multiplier


def _override(table: Section) -> Override:
    scope = _scope(table)
    rates = [*_listed_rates(table.section("prices")), *_unit_rates(table.section("units"))]
    table.finish()
    if not rates:
        raise table.error(
            "prices", "is missing", 'State prices, such as prices = {input_mtok = "0.15"}.'
        )
    twice = {rate.unit for rate in rates if sum(other.unit == rate.unit for other in rates) > 1}
    if twice:
        raise table.error(
            "units", f"prices {min(twice)} a second time", "Leave it out here or under prices."
        )
    return Override(scope, tuple(rates))


def _listed_rates(prices: Section) -> list[Rate]:
    """Prices by genai-prices' price keys: `input_mtok` is for a million input tokens."""
    if not prices.values:
        return []
    # Only who overrides prices pays for this import at start.
    from spanledger.pricing.price_list import BY_PRICE_KEY  # noqa: PLC0415

    rates: list[Rate] = []
    for key in sorted(prices.keys()):
        unit = BY_PRICE_KEY.get(key)
        if unit is None:
            import difflib  # noqa: PLC0415 - a millisecond, for an error

            near = difflib.get_close_matches(key, BY_PRICE_KEY, 1)
            raise prices.error(
                key,
                "is not a price key",
                (f'Did you mean "{near[0]}"? ' if near else "")
                + "Units without a price key go under units, as name = {usd = ..., per = ...}.",
            )
        rates.append(Rate(unit.usage_key, prices.number(key, most="1e9"), unit.per))
    return rates


def _unit_rates(units: Section) -> list[Rate]:
    rates: list[Rate] = []
    for name in sorted(units.keys()):
        table = units.section(name)
        usd, per = table.number("usd", most="1e9"), table.number("per", Decimal(1), least="1")
        table.finish()
        if per != int(per):
            raise table.error("per", f"is {per}", "Set it to a whole number.")
        rates.append(Rate(name, usd, int(per)))
    return rates


def _credit_prices(section: Section) -> dict[str, tuple[CreditPrice, ...]]:
    return {name: _credit_price(section, name) for name in sorted(section.keys())}


def _credit_price(section: Section, provider: str) -> tuple[CreditPrice, ...]:
    version = f"usd_per_credit {provider}"
    if not isinstance(section.values[provider], list):
        return (CreditPrice(section.number(provider, most="1e6"), version),)
    prices: list[CreditPrice] = []
    for table in section.sections(provider):
        start: date | None = table.day("start", None)
        usd = table.number("usd", most="1e6")
        table.finish()
        dated = f"{version} {start}" if start else version
        prices.append(CreditPrice(usd, dated, _start_ns(start)))
    if len({price.start_ns for price in prices}) < max(len(prices), 1):
        raise section.error(
            provider, "has no price, or two from the same date", "Give each price its own start."
        )
    return tuple(sorted(prices, key=lambda price: price.start_ns))
