"""Metrics of processes that fork, spawn, and end at once: their sum is what the journal says."""

import signal
import sys
from pathlib import Path

import pytest
from fleet_programs import BIN, HERE, ask, books, job, journal, launched
from otlp_sink import Sink
from stack_programs import free_port, wait_for

from spanledger.ledger.journal import open_journal

HTTP, GRPC = "http/protobuf", "grpc"
CALLS, COST = "spanledger.calls", "spanledger.cost"


def agree(sink: Sink, directory: Path, calls: int) -> None:
    """Sink and journal know of `calls` calls, and of what they cost."""
    total = journal(directory)
    assert sink.broken == []
    assert sink.total(CALLS) == total["calls"] == calls
    assert sink.total("spanledger.call.duration") == calls
    assert round(sink.total(COST), 9) == float(total["cost_usd"]) == round(calls * 0.005, 9)


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_a_job_that_ends_at_once_loses_nothing(
    tmp_path: Path, sink: Sink, protocol: str, temporality: str
) -> None:
    more = {
        "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
    }
    job(tmp_path, "job", "30", "3", **sink.environment(protocol), **more)
    agree(sink, tmp_path, 30)
    assert sink.total(CALLS, tenant="tenant-1") == 10


def test_5000_tenants(tmp_path: Path, sink: Sink) -> None:
    """Series are bounded, and neither the total nor the journal is short of anything."""
    job(tmp_path, "job", "5000", "5000", **sink.environment(HTTP))
    agree(sink, tmp_path, 5000)
    assert sink.series(CALLS) == 201
    assert sink.total(CALLS, tenant="other") == 4800


def test_children_do_not_write_into_their_parents_connection(tmp_path: Path, sink: Sink) -> None:
    job(tmp_path, "forking", "2", "3", **sink.environment(HTTP))
    agree(sink, tmp_path, 7)
    assert len(sink.instances) == 3
    for mapping in (sink.instances, sink.connections):
        assert all(len(users) == 1 for users in mapping.values()), mapping


def test_children_of_a_parent_that_is_sending(tmp_path: Path, sink: Sink) -> None:
    """What is locked in the parent while the collector does not answer is not locked in its children.

    Not over gRPC, whose library may crash or hang in such a child.
    """
    command = (sys.executable, str(HERE / "fleet_app.py"), "forking", "2", "3", "sending")
    with launched(tmp_path, *command, **sink.environment(HTTP)) as process:
        assert sink.arrived.wait(20)  # the parent's first
        sink.answering.clear()
        sink.arrived.clear()
        assert sink.arrived.wait(20)  # its second is on its way
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for(lambda: journal(tmp_path)["calls"] == 7, "the calls", lambda: journal(tmp_path))
        sink.answering.set()
        process.wait(30)
    agree(sink, tmp_path, 7)
    assert all(len(pids) == 1 for pids in sink.instances.values()), sink.instances


def test_a_service_that_is_stopped_loses_nothing(tmp_path: Path, sink: Sink) -> None:
    """By SIGTERM, which it does not handle."""
    env = {**sink.environment(HTTP), "OTEL_METRIC_EXPORT_INTERVAL": "60000"}
    command = (sys.executable, str(HERE / "fleet_app.py"), "commanded")
    with launched(tmp_path, *command, **env) as process:
        assert process.stdin is not None
        process.stdin.write("30\n")
        process.stdin.flush()
        log = tmp_path / "log"
        wait_for(lambda: "made 30" in log.read_text(), "the calls", log.read_text)
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
    agree(sink, tmp_path, 30)


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
def test_exemplars_lead_to_traces_that_are_exported(
    tmp_path: Path, sink: Sink, sampler: str
) -> None:
    job(tmp_path, "job", "4", "2", **sink.environment(HTTP), OTEL_TRACES_SAMPLER=sampler)
    traces = {
        row.trace_id for row in open_journal(books(tmp_path), service="", create=False).rows()
    }
    assert len(traces) == 4
    for metric in (COST, "spanledger.call.duration"):
        found = sink.exemplars[metric]
        assert found <= traces
        assert bool(found) is (sampler == "always_on"), metric


@pytest.mark.parametrize("given", ["", "service.instance.id=pod-1"])
def test_uvicorn_workers_are_told_apart(tmp_path: Path, sink: Sink, given: str) -> None:
    """Whether each has an id of its own, or the environment has one for all, as the OpenTelemetry operator does."""
    port = free_port()
    command = (str(BIN / "uvicorn"), "--workers", "2", "--port", str(port), "fleet_app:asgi")
    env = {**sink.environment(HTTP), "OTEL_RESOURCE_ATTRIBUTES": given}
    with launched(tmp_path, *command, **env) as process:
        url = f"http://127.0.0.1:{port}/"
        pids: set[int] = set()
        while len(pids) < 2:  # one is up before the other
            pids |= set(ask(url, 8))
        process.terminate()
        process.wait(30)
    agree(sink, tmp_path, journal(tmp_path)["calls"])
    found = {pid: instance for instance, users in sink.instances.items() for pid in users}
    assert len(found) == len(sink.instances), sink.instances
    assert pids <= found.keys()
    if given:
        assert {found[pid] for pid in pids} == {f"pod-1-{pid}" for pid in pids}
        assert "pod-1" in sink.instances
