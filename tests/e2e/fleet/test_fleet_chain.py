"""From a call to a person: application, collector, Prometheus, Alertmanager, webhook, all of them the real ones.

The budget is a small one, in the ledger beside the journal. The shipped configurations are used as they are, but for what
takes minutes (keep_firing_for, group_wait, scrape intervals), which takes about a second.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from collector_program import Backend, Collector, collector_program
from fleet_programs import BIN, HERE, environment, journal, launched, prometheus_config
from stack_programs import alertmanager, get, program, prometheus, wait_for
from test_alert_chain import Heard, Webhook, expected, quick_rules, serving, to_webhook

# 1 USD a month at 0.005 USD a call: 140 calls are the warning tier, 180 the critical, 220 the hard one.
BUDGET = """
[[budgets]]
scope = "tenant:acme"
monthly_usd = 1
exhausted = "allow"
"""
FINANCE, OWNER, ON_CALL = "finance", "tenant-owner", "on-call"


@pytest.fixture
def heard() -> list[Heard]:
    return []


@pytest.fixture
def collector(tmp_path: Path, heard: list[Heard]) -> Iterator[Collector]:
    """A collector that the rest of the chain stands behind."""
    collector_program()
    program("prometheus")
    program("prometheus-alertmanager", "alertmanager")
    with ExitStack() as stack:
        collector = Collector(tmp_path, Backend(), OTLP_EXPORTER="nop")
        collector.start()
        stack.callback(collector.stop)
        webhook = type("TheWebhook", (Webhook,), {"heard": heard, "descriptions": {}})
        config = tmp_path / "alertmanager.yml"
        config.write_text(to_webhook(stack.enter_context(serving(webhook))))
        am_url = stack.enter_context(
            alertmanager(config, tmp_path / "am", log=tmp_path / "alertmanager.log")
        )
        hosts = {"collector_8889": collector.url("METRICS"), "alertmanager_9093": am_url}
        config = prometheus_config(tmp_path, str(quick_rules(tmp_path)), **hosts)
        flags = ("--rules.alert.resend-delay=1s",)
        log = tmp_path / "prometheus.log"
        url = stack.enter_context(prometheus(config, tmp_path / "tsdb", *flags, log=log))
        wait_for(
            lambda: get(f"{url}/api/v1/alertmanagers")["activeAlertmanagers"],
            "Prometheus to find Alertmanager",
            log.read_text,
        )
        yield collector


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_each_tier_reaches_its_people(
    tmp_path: Path, collector: Collector, heard: list[Heard]
) -> None:
    (tmp_path / "spanledger.toml").write_text(BUDGET)
    env = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url("GRPC"),
    }
    command = (sys.executable, str(HERE / "fleet_app.py"), "commanded")
    with launched(tmp_path, *command, **env) as application:
        assert application.stdin is not None

        def spend(calls: int, status: str, **told: list[str]) -> None:
            since = time.monotonic()
            assert application.stdin is not None
            application.stdin.write(f"{calls}\n")
            application.stdin.flush()
            hear(since, expected("tenant:acme", status, **told))

        def hear(since: float, told: set[Heard]) -> None:
            wait_for(lambda: told <= {*heard}, f"{told}", lambda: heard, 30)
            tier = ", ".join(sorted({name for _, name, _, _ in told}))
            print(f"{tier}: heard after {time.monotonic() - since:.1f} s")

        application.stdin.write("0\n")
        application.stdin.flush()
        log = tmp_path / "log"
        wait_for(lambda: "made 0" in log.read_text(), "the application", log.read_text)
        spend(150, "firing", warning=[FINANCE])
        spend(40, "firing", critical=[FINANCE, OWNER])
        spend(40, "firing", hard=[FINANCE, OWNER, ON_CALL])
        assert journal(tmp_path)["calls"] == 230
        # A larger budget, given on the command line, is news to the running application.
        since = time.monotonic()
        subprocess.run(
            [str(BIN / "spanledger"), "budgets", "set", "tenant:acme", "--monthly-usd", "100"],
            env=environment(tmp_path),
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        tiers = {"warning": [FINANCE], "critical": [FINANCE, OWNER]}
        hear(
            since,
            expected("tenant:acme", "resolved", **tiers, hard=[FINANCE, OWNER, ON_CALL]),
        )
    # Each of them once.
    tier_alerts = [what for what in heard if what[1] != "SpanledgerBudgetProjectedOverrun"]
    assert len(tier_alerts) == len({*tier_alerts}), heard
