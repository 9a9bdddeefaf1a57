"""How values look on every board: units, colours, thresholds, links, and the columns of tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

Steps: TypeAlias = Sequence[tuple[float, str]]
"""Thresholds: from this value on, this colour. Below the first: green."""

DATASOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
USD: Final = units.Dollars
PERCENT: Final = units.PercentUnit
COUNT: Final = units.LocaleFormat  # 2,381, where `short` says 2 K
SECONDS: Final = units.Seconds
DAYS: Final = "d"

# Grafana's own names: each theme has its own shade of them.
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
USED_STEPS: Final[Steps] = ((0.7, YELLOW), (0.9, ORANGE), (1.1, RED))
"""A budget's tiers, as a part of it."""
ANY_IS_BAD: Final[Steps] = ((1, RED),)

_IN_FULL: Final = {USD: "prefix:$"}  # every currency of Grafana's says $1.10K
_DECIMALS: Final = {
    _IN_FULL[USD]: 2,
    COUNT: 0,  # Grafana takes 2,381 for no number where it is left to choose them itself
}


def in_full(unit: str) -> str:
    """The unit that does not shorten amounts: for numbers, which are compared with each other."""
    return _IN_FULL.get(unit, unit)


def usual_decimals(unit: str) -> int | None:
    """Decimals of values in this unit; None leaves them to Grafana."""
    return _DECIMALS.get(unit)


@dataclass(frozen=True)
class Link(Builder[models.DashboardLink]):
    """A link from a value, with Grafana's variables in its address."""

    title: str
    url: str

    def build(self) -> models.DashboardLink:
        """The link as the SDK models it."""
        return models.DashboardLink(title=self.title, url=self.url, target_blank=False)


@dataclass(frozen=True)
class Column:
    """A column of a table: a PromQL expression, its unit, and colours or words for its values."""

    expr: str
    unit: str = COUNT
    decimals: int | None = None
    steps: Steps = ()
    mapping: Mapping[int, tuple[str, str]] | None = None


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Green, and from each step's value on its colour."""
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps(
            [models.Threshold(value=None, color=GREEN)]
            + [models.Threshold(value=value, color=colour) for value, colour in steps]
        )
    )


def column_properties(column: Column) -> list[models.DynamicConfigValue]:
    """How Grafana is to show a table's column."""
    unit = in_full(column.unit)
    properties = [models.DynamicConfigValue("unit", unit)]
    decimals = usual_decimals(unit) if column.decimals is None else column.decimals
    if decimals is not None:
        properties.append(models.DynamicConfigValue("decimals", decimals))
    if column.steps:
        properties += [
            models.DynamicConfigValue("thresholds", thresholds(column.steps).build()),
            models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ]
    if column.mapping:
        properties += [
            models.DynamicConfigValue("mappings", [words(column.mapping)]),
            models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ]
    return properties


def words(mapping: Mapping[int, tuple[str, str]]) -> models.ValueMap:
    """A word and a colour for each value."""
    return models.ValueMap(
        options={
            str(value): models.ValueMappingResult(text=word, color=colour, index=place)
            for place, (value, (word, colour)) in enumerate(mapping.items())
        }
    )
