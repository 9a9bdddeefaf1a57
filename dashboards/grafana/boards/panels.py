"""The panels of the boards. The helpers ask for what each must have: title, description, unit."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    piechart,
    prometheus,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.piechart import PieChartLegendValues, PieChartType
from grafana_foundation_sdk.models.text import TextMode

from boards.look import (
    BLUE,
    COUNT,
    DATASOURCE,
    USD,
    Column,
    Link,
    Steps,
    column_properties,
    in_full,
    thresholds,
    usual_decimals,
    words,
)
from spanledger.api import names

Panel: TypeAlias = (
    bargauge.Panel
    | piechart.Panel
    | stat.Panel
    | statetimeline.Panel
    | table.Panel
    | text.Panel
    | timeseries.Panel
)
P = TypeVar(
    "P",
    bargauge.Panel,
    piechart.Panel,
    stat.Panel,
    statetimeline.Panel,
    table.Panel,
    timeseries.Panel,
)

NOBODY: Final = "(none)"
"""Stands for the tenant, feature or model of calls that have none."""


def number(
    title: str,
    expr: str,
    description: str,
    *,
    unit: str = USD,
    decimals: int | None = None,
    since: str | None = None,
    steps: Steps = (),
    links: Sequence[Link] = (),
    width: int = 4,
    height: int = 4,
) -> stat.Panel:
    """One number over the board's time range; `since`: over this one instead, such as now/M."""
    panel = (
        stat.Panel()
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(
            common_models.BigValueColorMode.VALUE if steps else common_models.BigValueColorMode.NONE
        )
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("0" if unit == COUNT else "no data")
        .with_target(_query(expr).instant())
    )
    if since:
        panel.time_from(since)
    return _dress(
        panel,
        title,
        description,
        unit=in_full(unit),
        steps=steps,
        links=links,
        width=width,
        height=height,
        decimals=decimals,
    )


def numbers(
    title: str, exprs: Mapping[str, str], description: str, *, since: str, unit: str = USD
) -> stat.Panel:
    """Several numbers side by side, each with its name."""
    panel = (
        stat.Panel()
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)
        .time_from(since)
        .targets([_query(expr, name).instant() for name, expr in exprs.items()])
    )
    _letter(panel)
    return _dress(panel, title, description, unit=in_full(unit), width=12, height=8)


def lines(
    title: str,
    exprs: Mapping[str, str],
    description: str,
    *,
    unit: str = USD,
    steps: Steps = (),
    links: Sequence[Link] = (),
    exemplars: bool = False,
    interval: str | None = None,
    width: int = 12,
) -> timeseries.Panel:
    """Lines over time; `exprs` by legend."""
    panel = _series(exprs, exemplars=exemplars).line_width(2).fill_opacity(8)
    panel.show_points(common_models.VisibilityMode.NEVER)
    if steps:
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    if interval:
        panel.interval(interval)
    return _dress(
        panel, title, description, unit=unit, steps=steps, links=links, width=width, height=8
    )


def bars(
    title: str,
    expr: str,
    legend: str,
    description: str,
    *,
    unit: str = USD,
    interval: str = "1d",
    links: Sequence[Link] = (),
    width: int = 12,
) -> timeseries.Panel:
    """Stacked bars, one a day unless `interval` says otherwise, with each legend's total."""
    panel = (
        _series({legend: expr}, calcs=("sum",))
        .draw_style(common_models.GraphDrawStyle.BARS)
        .line_width(0)
        .fill_opacity(80)
        .bar_alignment(common_models.BarAlignment.AFTER)
        .stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
        .interval(interval)
    )
    return _dress(panel, title, description, unit=unit, links=links, width=width, height=8)


def ranking(
    title: str,
    expr: str,
    legend: str,
    description: str,
    *,
    unit: str = USD,
    steps: Steps = (),
    links: Sequence[Link] = (),
    width: int = 8,
) -> bargauge.Panel:
    """Horizontal bars, the longest first."""
    expr, legend = _named(expr, legend)
    panel = (
        bargauge.Panel()
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .show_unfilled(show_unfilled=True)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .min(0)
        .with_target(_query(f"sort_desc({expr})", legend).instant())
    )
    if not steps:
        panel.color_scheme(
            dashboard.FieldColor().mode(models.FieldColorModeId.FIXED).fixed_color(BLUE)
        )
    return _dress(
        panel, title, description, unit=unit, steps=steps, links=links, width=width, height=8
    )


def share(
    title: str,
    expr: str,
    legend: str,
    description: str,
    *,
    links: Sequence[Link] = (),
    width: int = 8,
) -> piechart.Panel:
    """A ring of shares."""
    panel = (
        piechart.Panel()
        .pie_type(PieChartType.DONUT)
        .hide_from(
            common.HideSeriesConfig().legend(legend=False).tooltip(tooltip=False).viz(viz=False)
        )
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .legend(
            piechart.PieChartLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.RIGHT)
            .show_legend(show_legend=True)
            .values([PieChartLegendValues.PERCENT, PieChartLegendValues.VALUE])
        )
        .with_target(_query(*_named(expr, legend)).instant())
    )
    _palette(panel)
    return _dress(panel, title, description, unit=USD, links=links, width=width, height=8)


def grid(
    title: str,
    keys: Sequence[str],
    columns: Mapping[str, Column],
    description: str,
    *,
    sort: str,
    links: Mapping[str, Sequence[Link]] | None = None,
    width: int = 24,
    height: int = 8,
) -> table.Panel:
    """A table: a row for each combination of the labels `keys`, which all columns have."""
    queries = [
        _query(column.expr).instant().format(prometheus_models.PromQueryFormat.TABLE)
        for column in columns.values()
    ]
    panel = table.Panel().targets([*queries]).align(common_models.FieldTextAlignment.AUTO)
    letters = _letter(panel)
    # A single query's column is called Value, without its letter.
    raw = [f"Value #{letter}" for letter in letters] if len(letters) > 1 else ["Value"]
    order = [*keys, *raw]
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: place for place, name in enumerate(order)},
                "renameByName": dict(zip(raw, columns, strict=True)),
            },
        )
    )
    for name, column in columns.items():
        panel.override_by_name(name, column_properties(column))
    for key in keys:
        shown = [models.DynamicConfigValue("noValue", NOBODY)] if len(keys) == 1 else []
        if links and key in links:
            shown.append(
                models.DynamicConfigValue(
                    "links", [{"title": link.title, "url": link.url} for link in links[key]]
                )
            )
        if shown:
            panel.override_by_name(key, shown)
    panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(desc=True)])
    # Of the labels: in a unit of numbers, a tenant named 0042 would be 42.
    return _dress(panel, title, description, unit=units.String, width=width, height=height)


def timeline(
    title: str,
    expr: str,
    legend: str,
    description: str,
    mapping: Mapping[int, tuple[str, str]],
    *,
    width: int = 12,
) -> statetimeline.Panel:
    """States over time; `mapping` gives each value's word and colour."""
    panel = (
        statetimeline.Panel()
        .mappings([words(mapping)])
        .show_value(common_models.VisibilityMode.NEVER)
        .line_width(0)
        .fill_opacity(80)
        .with_target(_query(expr, legend).range())
    )
    return _dress(panel, title, description, unit=COUNT, width=width, height=8)


def note(title: str, markdown: str, *, width: int = 24, height: int = 3) -> text.Panel:
    """A paragraph."""
    return (
        text.Panel()
        .title(title)
        .description(title)
        .mode(TextMode.MARKDOWN)
        .content(markdown)
        .span(width)
        .height(height)
    )


# -- what they share -------------------------------------------------------------------------------


def _query(expr: str, legend: str = "") -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expr).datasource(DATASOURCE).ref_id("A")
    return query.legend_format(legend) if legend else query


def _named(expr: str, legend: str) -> tuple[str, str]:
    """The query and its legend, with a word for calls without tenant, feature or model.

    It is a label beside theirs, which stays empty: links to boards and traces go by that.
    """
    if "{{provider}}" not in legend:  # that is a name already, and searches have no model
        for label in (names.LABEL_TENANT, names.LABEL_FEATURE, names.LABEL_MODEL):
            if (place := f"{{{{{label}}}}}") in legend:
                expr = f'label_replace({expr}, "no_{label}", "{NOBODY}", "{label}", "")'
                legend = legend.replace(place, f"{place}{{{{no_{label}}}}}")
    return expr, legend


def _series(
    exprs: Mapping[str, str], *, exemplars: bool = False, calcs: Sequence[str] = ("lastNotNull",)
) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .targets(
            [
                _query(*_named(expr, name)).range().exemplar(exemplars)
                for name, expr in exprs.items()
            ]
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.RIGHT)
            .show_legend(show_legend=True)
            .calcs([*calcs])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .axis_soft_min(0)
    )
    _palette(panel)
    _letter(panel)
    return panel


def _palette(panel: timeseries.Panel | piechart.Panel) -> None:
    # By name, so that a tenant or a provider has one colour on every panel.
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))


def _letter(panel: stat.Panel | table.Panel | timeseries.Panel) -> list[str]:
    """Give the queries of a panel the letters that Grafana tells them apart by."""
    targets = panel.build().targets or []
    letters = [chr(ord("A") + place) for place in range(len(targets))]
    for letter, target in zip(letters, targets, strict=True):
        assert isinstance(target, prometheus_models.Dataquery)
        target.ref_id = letter
    return letters


def _dress(
    panel: P,
    title: str,
    description: str,
    *,
    unit: str,
    width: int,
    height: int,
    steps: Steps = (),
    links: Sequence[Link] = (),
    decimals: int | None = None,
) -> P:
    panel.title(title).description(description).datasource(DATASOURCE).span(width).height(height)
    panel.unit(unit).thresholds(thresholds(steps))
    if decimals is None:
        decimals = usual_decimals(unit)
    if decimals is not None:
        panel.decimals(decimals)
    if links:
        panel.data_links([*links])
    return panel
