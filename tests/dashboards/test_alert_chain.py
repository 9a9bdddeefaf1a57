"""Each tier's notification, through the real Prometheus and Alertmanager, to the receivers that it is meant for.

A small exporter plays the application: two processes that report the same budgets. The shipped rules and routes are
used as they are, but for two things: what Slack and mail would get goes to a webhook, and what takes minutes
(keep_firing_for, group_wait, group_interval) takes a second or two.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from stack_programs import DASHBOARDS, alertmanager, get, program, prometheus, wait_for

Heard = tuple[str, str, str, str]  # receiver, alert, scope, status

USED = (10, 72, 93, 112)
"""USD of 100, in each tier."""


class Application(BaseHTTPRequestHandler):
    """Reports budgets, whose tiers the test sets."""

    tiers: dict[str, int]

    def do_GET(self) -> None:
        lines = []
        for scope, tier in self.tiers.items():
            labels = f'{{scope="{scope}",period="month"}}'
            lines += [
                f'spanledger_budget_tier{{scope="{scope}"}} {tier}',
                f"spanledger_budget_limit_USD{labels} 100",
                f"spanledger_budget_spent_USD{labels} {USED[tier]}",
                f"spanledger_budget_held_USD{labels} 0",
            ]
        answer(self, "\n".join([*lines, ""]))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Webhook(BaseHTTPRequestHandler):
    """Notes what arrives."""

    heard: list[Heard]
    descriptions: dict[str, str]

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in message["alerts"]:
            name, scope = alert["labels"]["alertname"], alert["labels"]["scope"]
            self.heard.append((message["receiver"], name, scope, alert["status"]))
            self.descriptions[name] = alert["annotations"]["description"]
        answer(self, "")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def answer(handler: BaseHTTPRequestHandler, body: str) -> None:
    with suppress(OSError):  # whoever asked may have been ended meanwhile
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain; version=0.0.4")
        handler.end_headers()
        handler.wfile.write(body.encode())


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def quick_rules(folder: Path) -> list[str]:
    paths = []
    for source in sorted((DASHBOARDS / "prometheus" / "rules").glob("*.yml")):
        path = folder / source.name
        path.write_text(re.sub(r"keep_firing_for: \w+", "keep_firing_for: 2s", source.read_text()))
        paths.append(str(path))
    return paths


def to_webhook(port: int) -> str:
    """The shipped configuration of Alertmanager, with a webhook for each receiver, and short waits."""
    folder = DASHBOARDS / "alertmanager"
    config = yaml.safe_load((folder / "alertmanager.yml").read_text())
    config["templates"] = [str(folder / name) for name in config["templates"]]
    config["receivers"] = [
        {
            "name": receiver["name"],
            "webhook_configs": [{"url": f"http://127.0.0.1:{port}/", "send_resolved": True}],
        }
        for receiver in config["receivers"]
    ]
    config["route"].update(group_wait="3s", group_interval="1s")
    return yaml.safe_dump(config)


def prometheus_config(rules: list[str], alertmanager_url: str, ports: list[int]) -> str:
    targets = [f"127.0.0.1:{port}" for port in ports]
    return yaml.safe_dump(
        {
            "global": {
                "scrape_interval": "500ms",
                "scrape_timeout": "500ms",
                "evaluation_interval": "500ms",
            },
            "rule_files": rules,
            "alerting": {
                "alertmanagers": [
                    {"static_configs": [{"targets": [alertmanager_url.removeprefix("http://")]}]}
                ]
            },
            "scrape_configs": [{"job_name": "api", "static_configs": [{"targets": targets}]}],
        }
    )


def expected(scope: str, *statuses: str, **told: list[str]) -> set[Heard]:
    """What is heard of `scope`: for each tier, by whom."""
    return {
        (who, f"SpanledgerBudget{tier.capitalize()}", scope, status)
        for tier, receivers in told.items()
        for who in receivers
        for status in statuses
    }


@pytest.mark.timeout(90)
def test_each_tier_is_heard_of_once_and_resolves(tmp_path: Path) -> None:
    # Both, before anything is started.
    program("prometheus")
    program("prometheus-alertmanager", "alertmanager")
    heard: list[Heard] = []
    descriptions: dict[str, str] = {}
    tiers = {"tenant:acme": 0, "global": 0}
    webhook = type("TheWebhook", (Webhook,), {"heard": heard, "descriptions": descriptions})
    application = type("TheApplication", (Application,), {"tiers": tiers})
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(application)) for _ in range(2)]
        config = tmp_path / "alertmanager.yml"
        config.write_text(to_webhook(stack.enter_context(serving(webhook))))
        am_url = stack.enter_context(
            alertmanager(config, tmp_path / "am", log=tmp_path / "alertmanager.log")
        )
        config = tmp_path / "prometheus.yml"
        config.write_text(prometheus_config(quick_rules(tmp_path), am_url, ports))
        log = tmp_path / "prometheus.log"
        url = stack.enter_context(
            prometheus(config, tmp_path / "data", "--rules.alert.resend-delay=1s", log=log)
        )
        wait_for(
            lambda: get(f"{url}/api/v1/alertmanagers")["activeAlertmanagers"],
            "Prometheus to find Alertmanager",
            log.read_text,
        )

        def move(scope: str, tier: int, told: set[Heard]) -> None:
            tiers[scope] = tier
            since = time.monotonic()
            wait_for(lambda: told <= {*heard}, f"{told}", lambda: heard)
            took = time.monotonic() - since
            print(f"{scope} to tier {tier}: the last webhook after {took:.1f} s")

        warning, critical, hard = (
            ["finance"],
            ["finance", "tenant-owner"],
            ["finance", "on-call", "tenant-owner"],
        )
        move("tenant:acme", 1, expected("tenant:acme", "firing", warning=warning))
        move("tenant:acme", 2, expected("tenant:acme", "firing", critical=critical))
        move("tenant:acme", 3, expected("tenant:acme", "firing", hard=hard))
        time.sleep(2.5)  # two group intervals, in which nothing may come again
        acme = {"warning": warning, "critical": critical, "hard": hard}
        move("tenant:acme", 0, expected("tenant:acme", "resolved", **acme))
        assert Counter(heard) == Counter(expected("tenant:acme", "firing", "resolved", **acme))
        # Straight to the hard tier: of the lower ones, which are true as well, nobody hears.
        everybody = expected("global", "firing", hard=["finance", "on-call"])
        move("global", 3, everybody)
        time.sleep(4.5)  # longer than a group waits for what inhibits it

    # By the set: a group's message says again what it said of others, such as acme, a moment ago.
    assert {what for what in heard if what[2] == "global"} == everybody
    assert descriptions["SpanledgerBudgetHard"].startswith("112% of the month budget is used.")
