"""The rules of Prometheus: valid, tested both ways by promtool, explained, and on metrics that exist."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from boards import BOARDS
from metric_table import METRICS
from stack_programs import DASHBOARDS, program, run

FOLDER = DASHBOARDS / "prometheus"
RULE_FILES = sorted((FOLDER / "rules").glob("*.yml"))
TEST_FILES = sorted((FOLDER / "tests").glob("*.test.yml"))
RUNBOOKS = DASHBOARDS.parent / "docs" / "alerts.md"

RULES: list[dict[str, Any]] = [
    rule
    for path in RULE_FILES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS: list[dict[str, Any]] = [
    test for path in TEST_FILES for test in yaml.safe_load(path.read_text())["tests"]
]


def test_promtool_accepts_the_rules() -> None:
    output = run(
        program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULE_FILES)
    )
    assert output.count("SUCCESS") == len(RULE_FILES)


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_promtool_runs_the_tests(path: Path) -> None:
    assert "SUCCESS" in run(program("promtool"), "test", "rules", str(path))


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_must_not(name: str) -> None:
    """Firing, with its whole text, by `alert_rule_test`; silence by an expression over ALERTS."""
    fires = [
        case
        for test in TESTS
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == name and case["exp_alerts"]
    ]
    assert all(
        alert["exp_annotations"]["description"] for case in fires for alert in case["exp_alerts"]
    )
    silent = [
        case
        for test in TESTS
        for case in test.get("promql_expr_test", ())
        if "ALERTS" in case["expr"]
        and re.search(looks_at(case["expr"]), name)
        and leaves_out(name, case)
    ]
    assert fires, f"{name} never fires in the tests"
    assert silent, f"{name} is never silent in the tests"


def looks_at(expr: str) -> str:
    """The pattern of names of alerts that a test's expression selects."""
    named = re.search(r'alertname=~?"([^"]+)"', expr)
    return f"^(?:{named[1]})$" if named else "."


def leaves_out(name: str, case: dict[str, Any]) -> bool:
    """The expression has no row, or no row of this alert, or not all that was given to the alert to judge."""
    rows = case["exp_samples"]
    return not rows or "group by" in case["expr"] or all(name not in row["labels"] for row in rows)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_explains_itself(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["labels"]["about"] in {"budget", "spend", "books", "data_layer"}
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert notes["runbook_url"] == f"docs/alerts.md#{name.lower()}"
    address = urlsplit(notes["dashboard_url"])
    board = BOARDS[address.path.removeprefix("/d/spanledger-")]().to_json()
    variables = {variable.name for variable in board["templating"].list_val}
    templated = re.sub(r"{{.*?}}", "x", address.query)
    assert {key.removeprefix("var-") for key, _ in parse_qsl(templated)} <= variables


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    headings = re.findall(r"^## (Spanledger\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


def test_the_tiers_are_the_three() -> None:
    tiers = {alert["labels"]["tier"] for alert in ALERTS.values() if "tier" in alert["labels"]}
    assert tiers == {"warning", "critical", "hard"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_uses_metrics_that_exist_and_no_filter_on_job(rule: dict[str, Any]) -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    used = set(re.findall(r"\b(?:\w+:)?spanledger_\w+(?::\w+)?", rule["expr"]))
    assert used
    assert used <= METRICS.keys() | recorded
    assert not re.search(r"job\s*[=!]", rule["expr"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_on_raw_series_is_summed_over_processes(rule: dict[str, Any]) -> None:
    """A raw metric stands inside of sum/max/min/group by (...), so that instances never show."""
    for found in re.finditer(r"(?<![\w:])spanledger_\w+(?![\w:])", rule["expr"]):
        before = rule["expr"][: found.start()]
        assert re.search(
            r"(sum|max|min|group)( by \([a-z, ]+\))? ?\(\s*((increase|rate)\()?$", before
        ), rule
