"""The configuration of budgets: [[budgets]], [budget_defaults] and [models.cheaper] of the
configuration file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, cast

from spanledger.api.settings import Section
from spanledger.api.values import ModelSwap
from spanledger.budget.amounts import Unit, from_nano, portion, to_nano
from spanledger.budget.periods import PeriodKind, load_zone
from spanledger.budget.scopes import ANY, Scope
from spanledger.budget.tiers import Thresholds, Tiers
from spanledger.ledger.protocol import LARGEST_AMOUNT, OnOutage

Degradation = Literal["stale_cache", "cheaper_model"]
Exhausted = Literal["raise", "allow"]
Unknown = Literal["ceiling", "block", "ignore"]

DEGRADATIONS: Final[tuple[Degradation, ...]] = ("stale_cache", "cheaper_model")
AMOUNTS: Final[Mapping[str, tuple[PeriodKind, Unit]]] = MappingProxyType(
    {
        "daily_usd": ("day", "usd"),
        "weekly_usd": ("week", "usd"),
        "monthly_usd": ("month", "usd"),
        "daily_credits": ("day", "credits"),
        "weekly_credits": ("week", "credits"),
        "monthly_credits": ("month", "credits"),
    }
)
"""The keys that set an amount: of which period, in which unit."""


class Slot(NamedTuple):
    """What one limit is for."""

    scope: Scope
    period: PeriodKind
    unit: Unit

    def __str__(self) -> str:
        return f"{self.scope}|{self.period}|{self.unit}"

    @classmethod
    def parse(cls, text: str) -> "Slot":
        """The slot of that text. Raises ValueError."""
        scope, *rest = text.rsplit("|", 2)
        for known in AMOUNTS.values():
            if known == tuple(rest):
                return cls(Scope.parse(scope), *known)
        raise ValueError(f"{text!r} is for no period and unit")


class Options(NamedTuple):
    """How a budget is kept, apart from its amount.

    degrade: what is tried at the hard tier before a call is refused.
    exhausted: refuse ("raise") or only observe ("allow").
    max_wait_s: how long the critical tier may hold a call back, seconds.
    unknown, unknown_nano: how a charge of unknown price counts: as an amount a call (`ceiling`), as
        nothing (`ignore`), or not at all, for such a call is refused where that is known beforehand
        (`block`).
    outage_part: part of the limit that each process may spend beyond its lease while the ledger is
        down.
    """

    zone: tzinfo = UTC
    tiers: Tiers = Tiers()
    degrade: tuple[Degradation, ...] | None = None
    exhausted: Exhausted = "raise"
    max_wait_s: float = 2.0
    unknown: Unknown = "ceiling"
    unknown_nano: int = 100_000_000
    on_outage: OnOutage = "local"
    outage_part: Decimal = Decimal("0.01")


DEFAULTS: Final = Options()


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount for a scope (or, with `*`, for each of many) and a period. `limit` is in
    nano-units.
    """

    scope: Scope
    period: PeriodKind
    unit: Unit
    limit: int
    options: Options = DEFAULTS

    @property
    def slot(self) -> Slot:
        """What only one budget can be for."""
        return Slot(self.scope, self.period, self.unit)

    @property
    def thresholds(self) -> Thresholds:
        """Where its tiers begin, nano-units."""
        return Thresholds.of(self.limit, self.options.tiers)

    @property
    def degrade(self) -> tuple[Degradation, ...]:
        """What is tried at the hard tier: all there is, unless said otherwise, or nothing is ever
        refused.
        """
        if self.options.degrade is not None:
            return self.options.degrade
        return DEGRADATIONS if self.options.exhausted == "raise" else ()

    @property
    def unknown_nano(self) -> int:
        """What a call of unknown price counts as, nano-USD."""
        return 0 if self.options.unknown == "ignore" else self.options.unknown_nano

    @property
    def outage_nano(self) -> int:
        """What a process may spend beyond its lease during an outage, nano-units."""
        return portion(self.limit, self.options.outage_part)


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """All budgets, and what is used instead of a model where a budget is used up.

    cheaper: by `provider/model`.
    defaults: the options of budgets that are set at run time.
    """

    budgets: tuple[Budget, ...] = ()
    cheaper: Mapping[str, ModelSwap] = field(default_factory=dict[str, ModelSwap])
    defaults: Options = DEFAULTS

    def with_limits(self, limits: Mapping[Slot, int]) -> "BudgetConfig":
        """This, with `limits` (nano-units) that were set at run time: they go before the file's.

        A budget that the file does not have takes the options of the one that counted for its scope
        until now.
        """
        budgets = {budget.slot: budget for budget in self.budgets}
        for slot, limit in limits.items():
            budgets[slot] = Budget(*slot, limit, self._options_for(slot))
        return replace(self, budgets=tuple(budgets.values()))

    def _options_for(self, slot: Slot) -> Options:
        covering = [b for b in self.budgets if b.scope.covers(slot.scope)]
        # The nearest: the one for the same period and unit, and of these the one with the most
        # names.
        covering.sort(key=lambda b: (b.slot[1:] == slot[1:], -sum(name == ANY for name in b.scope)))
        return covering[-1].options if covering else self.defaults


def read_budget_config(root: Section) -> BudgetConfig:
    """The budgets of the configuration `root`. Raises ConfigurationError, which names file, key and
    remedy.
    """
    given = root.section("budget_defaults")
    defaults = _options(given, DEFAULTS)
    given.finish()
    budgets: dict[Slot, Budget] = {}
    for table in root.sections("budgets"):
        for budget in _budgets(table, defaults):
            if budget.slot in budgets:
                raise table.error(
                    "scope",
                    f"has a {budget.period}'s budget in {budget.unit} already: {budget.scope}",
                    "Put both into one table, or remove one.",
                )
            budgets[budget.slot] = budget
    models = root.section("models")
    cheaper = _cheaper(models.section("cheaper"))
    models.finish()
    return BudgetConfig(tuple(budgets.values()), cheaper, defaults)


def _budgets(table: Section, defaults: Options) -> list[Budget]:
    text = table.text("scope")
    try:
        scope = Scope.parse(text)
    except ValueError as error:
        raise table.error(
            "scope",
            str(error),
            'Write "global", "tenant:acme", "tenant:*" or "tenant:acme+feature:search".',
        ) from error
    options = _options(table, defaults)
    budgets: list[Budget] = []
    for key, (period, unit) in AMOUNTS.items():
        if key in table.values:
            limit = to_nano(table.number(key))
            _check_limit(table, key, limit, options)
            budgets.append(Budget(scope, period, unit, limit, options))
    table.finish(tuple(AMOUNTS))
    if not budgets:
        raise table.error("", "has no amount", f"Set one of {', '.join(AMOUNTS)}.")
    return budgets


def most_limit(ceiling: Decimal) -> int:
    """The largest limit, nano-units, up to whose ceiling a ledger can count."""
    return int(LARGEST_AMOUNT / max(ceiling, Decimal(1)))


def _check_limit(table: Section, key: str, limit: int, options: Options) -> None:
    most = most_limit(options.tiers.ceiling)
    if limit > most:
        raise table.error(
            key,
            f"is {from_nano(limit)}, and a ledger counts up to {int(from_nano(most)):,}",
            "Split it into budgets of a shorter period or of narrower scopes.",
        )


def _options(table: Section, defaults: Options) -> Options:
    degrade: tuple[str, ...] | None = defaults.degrade
    if "degrade" in table.values:
        degrade = table.strings("degrade")
        for way in degrade:
            if way not in DEGRADATIONS:
                raise table.error(
                    "degrade", f"has {way!r}", f"Use {' and '.join(DEGRADATIONS)}, or []."
                )
    exhausted = table.choice("exhausted", ("raise", "allow"), defaults.exhausted)
    unknown = table.choice("unknown", ("ceiling", "block", "ignore"), defaults.unknown)
    on_outage = table.choice("on_outage", ("local", "open", "closed"), defaults.on_outage)
    return Options(
        zone=_zone(table, defaults.zone),
        tiers=_tiers(table.section("tiers"), defaults.tiers),
        degrade=cast("tuple[Degradation, ...] | None", degrade),
        exhausted=cast("Exhausted", exhausted),
        max_wait_s=table.seconds("max_wait", defaults.max_wait_s),
        unknown=cast("Unknown", unknown),
        unknown_nano=to_nano(
            table.number("unknown_usd", from_nano(defaults.unknown_nano), most="1000000")
        ),
        on_outage=cast("OnOutage", on_outage),
        outage_part=table.number("outage_allowance", defaults.outage_part, most="1"),
    )


def _zone(table: Section, default: tzinfo) -> tzinfo:
    if "timezone" not in table.values:
        return default
    name = table.text("timezone")
    try:
        return load_zone(name)
    except ValueError as error:
        raise table.error(
            "timezone", f"is {name!r}, which is not known here", str(error)
        ) from error


def _tiers(table: Section, defaults: Tiers) -> Tiers:
    tiers = Tiers(
        *(
            table.number(name, default, most="100")
            for name, default in zip(Tiers._fields, defaults, strict=True)
        )
    )
    table.finish()
    # `ceiling` may be left out where only `hard` is raised: it bounds what degraded calls add to
    # that.
    if "ceiling" not in table.values and tiers.ceiling < tiers.hard:
        tiers = tiers._replace(ceiling=tiers.hard)
    for lower, upper in zip(Tiers._fields, Tiers._fields[1:], strict=False):
        if getattr(tiers, lower) > getattr(tiers, upper):
            raise table.error(
                lower,
                f"is {getattr(tiers, lower)}, above {upper} = {getattr(tiers, upper)}",
                "Let warning <= critical <= hard <= ceiling, in parts of the limit.",
            )
    return tiers


def _cheaper(table: Section) -> dict[str, ModelSwap]:
    swaps: dict[str, ModelSwap] = {}
    for asked in table.keys():  # noqa: SIM118 - a method that also marks them as read
        provider, slash, model = asked.partition("/")
        if not (provider and slash and model):
            raise table.error(
                asked, "names no provider", 'Write "provider/model", such as "openai/gpt-5".'
            )
        given = table.section(asked)
        swap = ModelSwap(
            given.text("model"),
            MappingProxyType(given.section("set").values),
            given.strings("unset", ()),
        )
        given.finish()
        if swap.model == model:
            raise given.error("model", "is the model itself", "Name a cheaper one.")
        swaps[asked] = swap
    return swaps
