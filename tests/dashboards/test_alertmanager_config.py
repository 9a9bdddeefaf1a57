"""Alertmanager's configuration: valid, routes to whom it says, and words that read well."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack_programs import DASHBOARDS, program, run

FOLDER = DASHBOARDS / "alertmanager"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((DASHBOARDS / "prometheus/rules/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}


@pytest.mark.parametrize("name", ["alertmanager.yml", "webhook.yml"])
def test_amtool_accepts_it(name: str) -> None:
    assert "SUCCESS" in run(program("amtool"), "check-config", str(FOLDER / name))


ROUTES = [
    ("SpanledgerBudgetWarning", "tenant:acme", "finance"),
    ("SpanledgerBudgetCritical", "tenant:acme", "tenant-owner,finance"),
    ("SpanledgerBudgetHard", "tenant:acme", "tenant-owner,on-call,finance"),
    ("SpanledgerBudgetHard", "tenant:acme+feature:search", "tenant-owner,on-call,finance"),
    ("SpanledgerBudgetHard", "global", "on-call,finance"),
    ("SpanledgerBudgetCritical", "feature:search", "finance"),
    ("SpanledgerBudgetProjectedOverrun", "tenant:acme", "finance"),
    ("SpanledgerBudgetBurnFast", "global", "on-call,finance"),
    ("SpanledgerBudgetBurnSlow", "global", "finance"),
    ("SpanledgerSpendAnomaly", None, "finance"),
    ("SpanledgerUnpricedCalls", None, "books"),
    ("SpanledgerEstimatedShareHigh", None, "books"),
    ("SpanledgerLedgerUnverified", None, "on-call"),
    ("SpanledgerPricesStale", None, "books"),
    ("SpanledgerNoData", None, "books"),
    ("SpanledgerCacheHitRateCollapsed", None, "books"),
]


@pytest.mark.parametrize(("alert", "scope", "receivers"), ROUTES)
def test_an_alert_reaches_its_people(alert: str, scope: str | None, receivers: str) -> None:
    labels = {"alertname": alert, **ALERTS[alert]["labels"], **({"scope": scope} if scope else {})}
    pairs = [f"{name}={value}" for name, value in labels.items()]
    config = f"--config.file={FOLDER / 'alertmanager.yml'}"
    assert run(program("amtool"), "config", "routes", "test", config, *pairs).strip() == receivers


def test_every_alert_has_its_route_tested() -> None:
    assert {alert for alert, _, _ in ROUTES} == set(ALERTS)


def alert(scope: str, *, tier: str = "hard", resolved: bool = False) -> dict[str, Any]:
    return {
        "status": "resolved" if resolved else "firing",
        "labels": {
            "alertname": f"SpanledgerBudget{tier.capitalize()}",
            "scope": scope,
            "tier": tier,
        },
        "annotations": {
            "summary": f"{scope} is at its {tier} tier",
            "description": "112% of the month budget is used.",
            "runbook_url": f"docs/alerts.md#spanledgerbudget{tier}",
            "dashboard_url": "/d/spanledger-budgets?var-scope=x",
        },
        "startsAt": "2025-11-02T10:00:00Z",
        "endsAt": "2025-11-02T12:30:00Z" if resolved else "0001-01-01T00:00:00Z",
    }


def render(
    tmp_path: Path,
    name: str,
    *alerts: dict[str, Any],
    kind: str = "text",
    severity: str = "critical",
) -> str:
    labels = alerts[0]["labels"]
    data = tmp_path / "data.json"
    firing = any(alert["status"] == "firing" for alert in alerts)
    common = {"alertname": labels["alertname"], "tier": labels["tier"], "severity": severity}
    data.write_text(
        json.dumps(
            {
                "status": "firing" if firing else "resolved",
                "alerts": alerts,
                "groupLabels": {"alertname": labels["alertname"], "scope": labels["scope"]},
                "commonLabels": common,
                "commonAnnotations": {},
            }
        )
    )
    return run(
        program("amtool"),
        "template",
        "render",
        f"--template.glob={FOLDER / 'templates' / '*.tmpl'}",
        f'--template.text={{{{ template "spanledger.{name}" . }}}}',
        f"--template.type={kind}",
        f"--template.data={data}",
    )


def test_the_title_says_how_bad_and_of_whom(tmp_path: Path) -> None:
    acme, globex = alert("tenant:acme"), alert("tenant:globex")
    over = alert("tenant:initech", resolved=True)
    assert render(tmp_path, "title", acme) == "HARD: tenant:acme is at its hard tier"
    assert render(tmp_path, "title", acme, over) == "HARD: tenant:acme is at its hard tier"
    assert (
        render(tmp_path, "title", acme, globex)
        == "HARD: 2 \N{MULTIPLICATION SIGN} SpanledgerBudgetHard"
    )
    assert render(tmp_path, "title", over) == "Resolved: tenant:initech is at its hard tier"


def test_slack_has_the_words_and_the_links(tmp_path: Path) -> None:
    assert render(tmp_path, "slack", alert("tenant:acme")).splitlines() == [
        "112% of the month budget is used.",
        "<http://localhost:3000/d/spanledger-budgets?var-scope=x|Dashboard> · Runbook: docs/alerts.md#spanledgerbudgethard",
    ]
    several = render(tmp_path, "slack", alert("tenant:acme"), alert("tenant:globex", resolved=True))
    assert several.splitlines()[0] == "*tenant:acme is at its hard tier*"
    assert (
        several.splitlines()[-1]
        == ":white_check_mark: tenant:globex is at its hard tier: over after 2h30m0s"
    )


def test_a_tenant_cannot_write_slack_commands(tmp_path: Path) -> None:
    said = render(tmp_path, "slack", alert("tenant:<!channel>&"), alert("tenant:b"))
    assert "*tenant:&lt;!channel&gt;&amp; is at its hard tier*" in said
    assert "<!channel>" not in said


def test_mail_has_the_words_and_the_links(tmp_path: Path) -> None:
    acme, over = alert("tenant:<b>acme</b>"), alert("tenant:globex", resolved=True)
    html = render(tmp_path, "mail", acme, over, kind="html")
    assert "tenant:&lt;b&gt;acme&lt;/b&gt; is at its hard tier" in html
    assert '<a href="http://localhost:3000/d/spanledger-budgets?var-scope=x">Dashboard</a>' in html
    assert "Over: tenant:globex is at its hard tier" in html
    assert html.count("<div") == html.count("</div>")
    plain = render(tmp_path, "mail_text", acme, over)
    assert "Since:     2025-11-02 10:00 UTC" in plain
    assert "From 2025-11-02 10:00 to 2025-11-02 12:30 UTC" in plain


def test_colours_follow_the_tier(tmp_path: Path) -> None:
    hard, warning = alert("global"), alert("global", tier="warning")
    colours = {
        render(tmp_path, "colour", hard),
        render(tmp_path, "colour", alert("global", tier="critical")),
        render(tmp_path, "colour", warning, severity="warning"),
        render(tmp_path, "colour", alert("global", resolved=True)),
    }
    assert len(colours) == 4
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_a_tenant_has_its_owner_and_all_others_have_one(tmp_path: Path) -> None:
    assert render(tmp_path, "owner", alert("tenant:acme")) == "acme-owner@example.com"
    assert render(tmp_path, "owner", alert("tenant:globex")) == "customer-success@example.com"


def test_every_template_that_the_configuration_names_is_rendered_here() -> None:
    named = set(
        re.findall(r'template "spanledger\.(\w+)"', (FOLDER / "alertmanager.yml").read_text())
    )
    assert named == {"title", "slack", "colour", "mail", "mail_text", "owner", "dashboard"}


def test_the_title_in_slack_leads_to_the_dashboard(tmp_path: Path) -> None:
    assert (
        render(tmp_path, "dashboard", alert("global"))
        == "http://localhost:3000/d/spanledger-budgets?var-scope=x"
    )
