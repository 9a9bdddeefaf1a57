"""The dashboards: generated as committed, shaped as Grafana's model says, and complete.

There is no Grafana here to load them. Their shape is checked against the SDK, which is generated from Grafana's own
schema: each JSON goes through its model and comes out the same.
"""

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from boards import BOARDS
from boards.__main__ import rendered
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units
from metric_table import ALERTS, METRICS, TARGET
from stack_programs import DASHBOARDS

FOLDER = DASHBOARDS / "grafana"
LOADED: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "json").glob("*.json"))
}
UNITS = {value for value in vars(units).values() if isinstance(value, str)} | {"prefix:$"}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


ALL_PANELS = [
    pytest.param(name, panel, id=f"{name}: {panel['title']}")
    for name, board in LOADED.items()
    for panel in panels(board)
]


def test_the_committed_json_is_what_the_code_generates() -> None:
    assert {name: (FOLDER / "json" / name).read_text() for name in rendered()} == rendered()
    assert set(LOADED) == set(BOARDS)


@pytest.mark.parametrize("name", LOADED)
def test_the_model_of_grafana_reads_it_and_loses_nothing(name: str) -> None:
    register_default_plugins()
    read = models.Dashboard.from_json(LOADED[name])
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == LOADED[name]


@pytest.mark.parametrize("name", LOADED)
def test_ids_are_unique_and_panels_do_not_overlap(name: str) -> None:
    board = LOADED[name]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", LOADED)
def test_rows_of_panels_fill_the_width(name: str) -> None:
    for y in {panel["gridPos"]["y"] for panel in LOADED[name]["panels"]}:
        line = [panel["gridPos"] for panel in LOADED[name]["panels"] if panel["gridPos"]["y"] == y]
        assert sum(at["w"] for at in line) == 24, line
        assert len({at["h"] for at in line}) == 1, line


@pytest.mark.parametrize(("board", "panel"), ALL_PANELS)
def test_a_panel_is_complete(board: str, panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 10
    assert panel["title"]
    if panel["type"] == "text":
        return
    assert panel["datasource"]["uid"] == "${datasource}"
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    assert defaults["thresholds"]["steps"][0] == {"value": None, "color": "green"}
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters) > 0


def test_shares_have_a_good_and_a_bad() -> None:
    """But for two, which are a matter of the traffic."""
    plain = {
        panel["title"]
        for board in LOADED.values()
        for panel in panels(board)
        if panel.get("fieldConfig", {}).get("defaults", {}).get("unit") == "percentunit"
        and len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) == 1
    }
    assert plain == {"Shared in flight", "Saved of all"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(
            (name, {"provider", "model", "operation", "tenant", "feature"})
            for name in ("spend", "unit-economics", "data-layer", "books")
        ),
        ("budgets", {"scope", "period", "tenant", "feature"}),
        ("tenant", {"tenant"}),
    ],
)
def test_the_labels_that_docs_name_are_variables(name: str, expected: set[str]) -> None:
    variables = LOADED[name]["templating"]["list"]
    assert {each["name"] for each in variables if each["type"] == "query"} == expected


@pytest.mark.parametrize(("board", "panel"), ALL_PANELS)
def test_numbers_are_shown_in_full(board: str, panel: dict[str, Any]) -> None:
    """`short` says 2 K of 2,381, currencyUSD $1.10K of 1101.37; and `locale` needs its decimals set."""
    config = panel.get("fieldConfig", {"defaults": {}, "overrides": ()})
    own = [
        {p["id"]: p["value"] for p in override["properties"]} for override in config["overrides"]
    ]
    shown = [config["defaults"], *own]
    assert all("decimals" in each for each in shown if each.get("unit") == "locale")
    assert "short" not in {each.get("unit") for each in shown}
    if panel["type"] in {"stat", "table"}:
        assert "currencyUSD" not in {each.get("unit") for each in shown}


def test_labels_in_tables_are_not_read_as_numbers() -> None:
    tables = [
        panel for board in LOADED.values() for panel in panels(board) if panel["type"] == "table"
    ]
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in tables} == {"string"}


@pytest.mark.parametrize(("board", "panel"), ALL_PANELS)
def test_calls_without_a_name_are_named(board: str, panel: dict[str, Any]) -> None:
    """In legends by a label beside the empty one, which links go by; in tables by `noValue`."""
    for target in panel.get("targets", ()):
        legend = target.get("legendFormat", "")
        for label in ("tenant", "feature", "model"):
            if f"{{{{{label}}}}}" in legend and "{{provider}}" not in legend:
                assert f"{{{{{label}}}}}{{{{no_{label}}}}}" in legend
                assert f'"no_{label}", "(none)", "{label}", "")' in target["expr"]
    if panel["type"] == "table":
        keys = panel["transformations"][1]["options"]["indexByName"]
        named = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if {"id": "noValue", "value": "(none)"} in override["properties"]
        }
        assert named >= {"tenant", "feature"} & {*keys} or {"provider", "alertname"} & {*keys}


@pytest.mark.parametrize(("board", "panel"), ALL_PANELS)
def test_a_panel_uses_metrics_labels_and_variables_that_exist(
    board: str, panel: dict[str, Any]
) -> None:
    variables = {variable["name"] for variable in LOADED[board]["templating"]["list"]}
    for target in panel.get("targets", ()):
        expr = target["expr"]
        metrics = set(re.findall(r"\b(?:spanledger_\w+|ALERTS)\b", expr))
        assert metrics
        assert metrics <= METRICS.keys() | {"ALERTS"}
        allowed = frozenset().union(*(METRICS.get(metric, ALERTS) for metric in metrics)) | TARGET
        if "ALERTS" in metrics:
            allowed |= ALERTS
        assert labels_of(expr) <= allowed, expr
        used = {name for name in re.findall(r"\$\{?(\w+)", expr) if not name.startswith("__")}
        assert used <= variables, expr
        assert not re.search(r"job\s*[=!]", expr)


def labels_of(expr: str) -> set[str]:
    """The labels that an expression groups by, joins on or selects."""
    groups = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", expr)
    named = {label.strip() for group in groups for label in group.split(",") if label.strip()}
    return named | set(re.findall(r'(\w+)=~?"', expr))


@pytest.mark.parametrize("name", LOADED)
def test_every_variable_is_used_and_lists_what_exists(name: str) -> None:
    board = LOADED[name]
    text = json.dumps(
        [target["expr"] for panel in panels(board) for target in panel.get("targets", ())]
    )
    for variable in board["templating"]["list"]:
        if variable["type"] == "datasource":
            continue
        assert re.search(rf"\${{?{variable['name']}\b", text), variable["name"]
        if variable["type"] == "query":
            series, label = re.fullmatch(
                r"label_values\(([^,]+), (\w+)\)", variable["query"]
            ).groups()  # type: ignore[union-attr]
            metrics = re.findall(r"\bspanledger_\w+", series)
            assert metrics
            assert all(label in METRICS[metric] for metric in metrics)


@pytest.mark.parametrize("name", LOADED)
def test_links_lead_to_boards_and_variables_that_exist(name: str) -> None:
    uids = {board["uid"]: board for board in LOADED.values()}
    links = re.findall(r"/d/([\w-]+)\?([^\"\\]*)", json.dumps(LOADED[name]))
    for uid, query in links:
        variables = {variable["name"] for variable in uids[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= variables
    if name == "tenant":
        assert not links, "a customer is shown no other board"
        assert "links" not in LOADED[name]
    else:
        assert links
        assert {link["title"] for link in LOADED[name]["links"]} == {"spanledger", "Alerts"}


def test_links_to_traces_are_searches_that_tempo_reads() -> None:
    found = set(re.findall(r"/explore\?[^\"]*panes=([^\"]*)", json.dumps(LOADED)))
    assert len(found) >= 5
    for encoded in found:
        pane = json.loads(unquote(encoded))["a"]
        assert pane["datasource"] == "tempo"
        assert re.fullmatch(
            r'\{ span\.[a-z_.]+ = "\$\{__\w+\.[\w.]+\}" && span\.spanledger\.cost\.usd > 0 \}',
            pane["queries"][0]["query"],
        )


def test_the_customers_page_names_nobody_else() -> None:
    for panel in panels(LOADED["tenant"]):
        for target in panel.get("targets", ()):
            assert (
                'tenant="$tenant"' in target["expr"] or 'scope="tenant:$tenant"' in target["expr"]
            )
            assert not labels_of(target["expr"]) & {
                "provider",
                "model",
                "operation",
                "job",
                "instance",
            }


def test_provisioning_has_what_the_boards_name() -> None:
    sources = yaml.safe_load((FOLDER / "provisioning/datasources/spanledger.yml").read_text())[
        "datasources"
    ]
    assert {source["uid"] for source in sources} == {"prometheus", "tempo", "alertmanager"}
    provider = yaml.safe_load((FOLDER / "provisioning/dashboards/spanledger.yml").read_text())[
        "providers"
    ][0]
    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"]
