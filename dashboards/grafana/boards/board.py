"""A board: its variables, its rows of panels, and its links to other boards, traces and alerts."""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from boards.look import DATASOURCE, RED, Column, Link
from boards.panels import Panel, grid
from boards.queries import CALL_LABELS, CALLS
from spanledger.api import names

ALL_VALUES: Final = ".*"  # matches the empty label too: calls that nobody is named for

KEEP: Final = "${__url_time_range}&${datasource:queryparam}"

Row = tuple[str, Sequence[Panel]]


def board(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[dashboard.QueryVariable | dashboard.TextBoxVariable],
    rows: Sequence[Row],
    *,
    start: str = "now-30d",
    linked: bool = True,
) -> models.Dashboard:
    """The dashboard `spanledger-{uid}`, read only: it is changed here and generated anew.

    linked: it shows the other boards and the alerts; not so where a customer sees it.
    """
    made = (
        dashboard.Dashboard(title)
        .uid(f"spanledger-{uid}")
        .description(description)
        .tags(["spanledger"] if linked else ["spanledger-tenant"])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(start, "now")
        .refresh("5m")
        .readonly()
        .with_variable(_datasource())
    )
    for variable in variables:
        made.with_variable(variable)
    if linked:
        made.link(_other_boards()).link(_alert_list()).annotation(_firing_alerts())
    number = 0
    for heading, panels in rows:
        number += 1
        made.with_row(dashboard.Row(heading).id(number))
        for panel in panels:
            number += 1
            # Grafana tells panels apart by their ids: links and repeated loads need them.
            made.with_panel(panel.id(number))
    return made.build()


# -- variables -------------------------------------------------------------------------------------


def choose(
    label: str, *, metric: str = CALLS, within: str = "", multi: bool = True
) -> dashboard.QueryVariable:
    """A variable with the values of `label` on `metric`; `within`: matchers that narrow them."""
    series = f"{metric}{{{within}}}" if within else metric
    variable = (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(DATASOURCE)
        .query(f"label_values({series}, {label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi)
    )
    if multi:
        everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
        variable.include_all(include_all=True).all_value(ALL_VALUES).current(everything)
    return variable


def choose_calls(*labels: str) -> list[dashboard.QueryVariable]:
    """A variable for each label of a call; models and operations are the chosen providers'."""
    of_provider = f'{names.LABEL_PROVIDER}=~"${names.LABEL_PROVIDER}"'
    narrowed = (names.LABEL_MODEL, names.LABEL_OPERATION)
    return [
        choose(label, within=of_provider if label in narrowed else "")
        for label in labels or CALL_LABELS
    ]


def ask(name: str, label: str, default: str, description: str) -> dashboard.TextBoxVariable:
    """A variable that is typed in."""
    return (
        dashboard.TextBoxVariable(name)
        .label(label)
        .description(description)
        .default_value(default)
        .current(models.VariableOption(selected=True, text=default, value=default))
    )


def _datasource() -> dashboard.DatasourceVariable:
    return (
        dashboard.DatasourceVariable("datasource")
        .label("Prometheus")
        .type("prometheus")
        .current(models.VariableOption(selected=True, text="Prometheus", value="prometheus"))
    )


# -- links -----------------------------------------------------------------------------------------


def to_board(title: str, uid: str, **variables: str) -> Link:
    """A link to another board, with these variables set, in the same time range."""
    chosen = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return Link(title, f"/d/spanledger-{uid}?{KEEP}{chosen}")


def to_traces(label: str, value: str) -> Link:
    """A link to traces that cost: with `value` (a variable of Grafana's) for the metric `label`."""
    query = f'{{ span.{_SPAN_ATTRIBUTES[label]} = "{value}" && span.{names.COST_USD} > 0 }}'
    panes = (
        '{"a":{"datasource":"tempo","queries":[{"refId":"A","queryType":"traceql","query":'
        f'"{query.replace(chr(34), chr(92) + chr(34))}"'
        '}],"range":{"from":"${__from}","to":"${__to}"}}}'
    )
    # Grafana fills in ${...} before the browser decodes the address.
    encoded = quote(panes, safe="${}_.:")
    return Link("Traces with a cost", f"/explore?schemaVersion=1&orgId=1&panes={encoded}")


_SPAN_ATTRIBUTES: Final[Mapping[str, str]] = {
    names.LABEL_PROVIDER: names.PROVIDER,
    names.LABEL_MODEL: names.REQUEST_MODEL,
    names.LABEL_OPERATION: names.OPERATION,
    names.LABEL_TENANT: names.TENANT,
    names.LABEL_FEATURE: names.FEATURE,
}


def series_links(label: str, uid: str) -> list[Link]:
    """From a series of a panel: to another board, for its value of `label`, and to its traces."""
    value = f"${{__field.labels.{label}}}"
    return [
        to_board(f"Show this {label}", uid, **{label: value}),
        to_traces(label, value),
    ]


def cell_links(label: str, uid: str) -> list[Link]:
    """As `series_links`, from a cell of a table."""
    return [
        to_board(f"Show this {label}", uid, **{label: "${__value.raw}"}),
        to_traces(label, "${__value.raw}"),
    ]


def _other_boards() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("spanledger")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["spanledger"])
        .as_dropdown(as_dropdown=True)
        .include_vars(include_vars=False)
        .keep_time(keep_time=True)
    )


def _alert_list() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("Alerts")
        .type(models.DashboardLinkType.LINK)
        .icon("bell")
        .url("/alerting/list?search=Spanledger")
    )


# -- alerts ----------------------------------------------------------------------------------------

_FIRING: Final = 'alertname=~"Spanledger.+", alertstate="firing"'


def _firing_alerts() -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(DATASOURCE)
        .enable(enable=True)
        .icon_color(RED)
        .expr(f"max by (alertname, scope) (ALERTS{{{_FIRING}}})")
    )


def alerts(about: str) -> Panel:
    """A table of the alerts that fire now."""
    keys = ("alertname", "severity", "scope", "provider", "feature", "job")
    expr = f'max by ({", ".join(keys)}) (ALERTS{{{_FIRING}, about=~"{about}"}})'
    return grid(
        "Alerts that fire now",
        keys,
        {"Firing": Column(expr)},
        "Empty is good. docs/alerts.md says what to do about each.",
        sort="Firing",
        links={"alertname": [Link("Rule", "/alerting/list?search=${__value.raw}")]},
        height=6,
    )
