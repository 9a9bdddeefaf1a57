"""Charge events over OTLP/HTTP, from real processes to a real endpoint: what arrives is what the journal has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

APPLICATION = """
import multiprocessing, os, sys
from spanledger.api import attribute
from spanledger.instrumentation.metered import metered

@metered(provider="geocoder", operation="geocode", cost="0.005")
def geocode(address):
    return address

def calls(tenant):
    with attribute(tenant=tenant):
        for _ in range(3):
            geocode("main street")

def child():
    calls("child")

if __name__ == "__main__":
    if "late" in sys.argv:
        from spanledger.processor.startup import start
        start(service="shop")
        from opentelemetry._logs import set_logger_provider
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        provider = LoggerProvider()
        provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        set_logger_provider(provider)
    calls("parent")
    if "fork" in sys.argv:
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                child()
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    if "multiprocessing" in sys.argv:
        for method in ("fork", "spawn"):
            process = multiprocessing.get_context(method).Process(target=child)
            process.start()
            process.join()
            assert process.exitcode == 0
"""
LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))


def run(directory: Path, endpoint: str, *arguments: str, launcher: bool = True) -> str:
    """Run the application; what it said on stderr."""
    (directory / "application.py").write_text(APPLICATION)
    (directory / "spanledger.toml").write_text("[events]\ncharges = true\n")
    known = {
        k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SPANLEDGER_", "COV_"))
    }
    done = subprocess.run(
        [*([LAUNCHER] if launcher else []), sys.executable, "application.py", *arguments],
        env={
            **known,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "openai,anthropic",
            "SPANLEDGER_JOURNAL": f"sqlite:///{directory / 'journal.db'}",
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def arrived(server: Loopback) -> list[dict[str, Any]]:
    """The attributes of each event that arrived."""
    events = []
    for request in server.requests:
        assert request.path == "/v1/logs"
        for resource in ExportLogsServiceRequest.FromString(request.body).resource_logs:
            for scope in resource.scope_logs:
                assert scope.scope.name == "spanledger.processor"
                for log in scope.log_records:
                    assert log.event_name == "spanledger.charge"
                    assert not log.body.WhichOneof("value")
                    attributes = {
                        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
                        for pair in log.attributes
                    }
                    events.append(attributes | {"time": log.time_unix_nano})
    return events


def exported(directory: Path) -> list[dict[str, Any]]:
    command = [str(Path(sys.executable).with_name("spanledger")), "export", "--since", "all"]
    done = subprocess.run(
        [*command, "--journal", f"sqlite:///{directory / 'journal.db'}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "launcher", "calls"),
    [
        ((), True, 3),
        (("fork",), True, 9),
        (("multiprocessing",), True, 9),
        (("late",), False, 3),
    ],
    ids=["a short job", "forked workers", "multiprocessing", "a provider set after the start"],
)
def test_what_arrives_is_what_the_journal_has(
    tmp_path: Path, arguments: tuple[str, ...], launcher: bool, calls: int
) -> None:
    with Loopback(lambda _: (200, b"")) as server:
        run(tmp_path, server.url, *arguments, launcher=launcher)
        events = arrived(server)
    rows = exported(tmp_path)
    assert len(rows) == calls
    by_id = {event["spanledger.charge.id"]: event for event in events}
    assert len(by_id) == len(events)
    assert by_id.keys() == {row["charge_id"] for row in rows}
    for row in rows:
        event = by_id[row["charge_id"]]
        assert event["spanledger.cost.nano_usd"] == 5_000_000
        assert row["cost_usd"] == "0.005"
        assert event["tenant.id"] == row["tenant_id"]
        assert event["service.name"] == row["service"] == "shop"
        assert event["gen_ai.provider.name"] == row["provider"] == "geocoder"


def test_an_endpoint_that_is_down_harms_neither_the_books_nor_the_end(tmp_path: Path) -> None:
    said = run(tmp_path, "http://127.0.0.1:9")
    assert len(exported(tmp_path)) == 3
    assert "spanledger failed" not in said
