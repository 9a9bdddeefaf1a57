"""Metrics of processes that fork, spawn, and end at once: their sum is what the journal says."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_programs import BIN, HERE, ask, job, journal, launched
from otlp_sink import Sink
from stack_programs import free_port, wait_for

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


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_children_of_a_parent_that_is_sending(tmp_path: Path, sink: Sink, protocol: str) -> None:
    """What is locked in the parent while the collector does not answer is not locked in its children."""
    command = (sys.executable, str(HERE / "fleet_app.py"), "forking", "2", "3", "sending")
    with launched(tmp_path, *command, **sink.environment(protocol)) as process:
        assert sink.arrived.wait(20)  # the parent's first
        sink.answering.clear()
        sink.arrived.clear()
        assert sink.arrived.wait(20)  # its second is on its way
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
        wait_for(lambda: journal(tmp_path)["calls"] == 7, "the calls", lambda: journal(tmp_path))
        sink.answering.set()
        process.wait(30)
    agree(sink, tmp_path, 7)
    assert all(len(pids) == 1 for pids in sink.instances.values()), sink.instances


@pytest.fixture(params=["", "service.instance.id=pod-1"])
def given(request: pytest.FixtureRequest) -> Iterator[str]:
    """Nothing, or the id that the OpenTelemetry operator gives to a whole container."""
    yield request.param


def test_uvicorn_workers_are_told_apart(tmp_path: Path, sink: Sink, given: str) -> None:
    port = free_port()
    command = (str(BIN / "uvicorn"), "--workers", "2", "--port", str(port), "fleet_app:asgi")
    with launched(
        tmp_path, *command, **sink.environment(HTTP), OTEL_RESOURCE_ATTRIBUTES=given
    ) as process:
        url = f"http://127.0.0.1:{port}/"
        pids = set(ask(url, 40))
        while len(pids) < 2:  # one is up before the other
            pids |= set(ask(url, 40))
        process.terminate()
        process.wait(30)
    agree(sink, tmp_path, journal(tmp_path)["calls"])
    found = {pid: instance for instance, pids in sink.instances.items() for pid in pids}
    assert len(found) == len(sink.instances) == 3, sink.instances
    if given:
        names = {"pod-1", *(f"pod-1-{pid}" for pid in pids)}
        assert set(sink.instances) == names
