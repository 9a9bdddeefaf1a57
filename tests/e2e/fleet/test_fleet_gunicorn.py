"""gunicorn's workers, replaced twice, through the real collector into a real Prometheus: it knows what the journal knows."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector_program import Backend, Collector
from fleet_programs import BIN, ask, journal, launched, prometheus_config
from otlp_sink import Sink
from stack_programs import free_port, get, program, prometheus, wait_for

WORKERS, CALLS = 4, 667


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    collector = Collector(tmp_path, Backend(), OTLP_EXPORTER="nop")
    collector.start()
    yield collector
    collector.stop()
    assert collector.complaints() == []


@pytest.fixture
def prometheus_url(tmp_path: Path, collector: Collector) -> Iterator[str]:
    """The Prometheus of the compose file, but for its hosts, and faster."""
    program("prometheus")
    config = prometheus_config(tmp_path, "[]", collector_8889=collector.url("METRICS"))
    with prometheus(config, tmp_path / "tsdb", log=tmp_path / "prometheus.log") as url:
        yield url


def asked(url: str, expression: str) -> float:
    found = get(f"{url}/api/v1/query", query=expression)["result"]
    return float(found[0]["value"][1]) if found else 0.0


def serve(directory: Path, workers: int, *options: str, **env: str) -> set[int]:
    """Calls of `workers` workers, which are replaced twice meanwhile; the process ids that answered."""
    port = free_port()
    server = ("--workers", str(workers), "--bind", f"127.0.0.1:{port}", "--no-control-socket")
    command = (str(BIN / "gunicorn"), *server, *options, "fleet_app:application")
    url = f"http://127.0.0.1:{port}/"
    with launched(directory, *command, **env) as process:
        pids = set(ask(url, CALLS))
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            # One that is still young is what a worker's last export has to catch.
            pids |= set(ask(url, CALLS))
        process.terminate()
        process.wait(60)
    return pids


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_prometheus_knows_what_the_journal_knows(
    tmp_path: Path, collector: Collector, prometheus_url: str
) -> None:
    env = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url("HTTP"),
    }
    pids = serve(tmp_path, WORKERS, "--preload", **env)
    total = journal(tmp_path)
    assert total["calls"] == 3 * CALLS
    # Of the processes that are gone, the last that was known.
    calls = "sum(last_over_time(spanledger_calls_total[10m]))"
    wait_for(
        lambda: asked(prometheus_url, calls) >= total["calls"],
        "the calls",
        lambda: (asked(prometheus_url, calls), collector.complaints()),
        60,
    )
    time.sleep(1)  # two more scrapes, that would bring what is too much
    assert asked(prometheus_url, calls) == total["calls"]
    cost = asked(prometheus_url, "sum(last_over_time(spanledger_cost_USD_total[10m]))")
    assert round(cost, 9) == float(total["cost_usd"]) == round(3 * CALLS * 0.005, 9)
    instances = "count(count by (instance) (last_over_time(spanledger_calls_total[10m]) > 0))"
    assert asked(prometheus_url, instances) == len(pids) >= WORKERS


@pytest.mark.slow
def test_workers_that_send_differences(tmp_path: Path, sink: Sink) -> None:
    preference = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    pids = serve(tmp_path, 2, **sink.environment("http/protobuf"), **preference)
    total = journal(tmp_path)
    assert sink.total("spanledger.calls") == total["calls"] == 3 * CALLS
    assert round(sink.total("spanledger.cost"), 9) == float(total["cost_usd"])
    assert all(len(found) == 1 for found in sink.instances.values()), sink.instances
    assert pids <= set().union(*sink.instances.values())
