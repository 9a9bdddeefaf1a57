"""Where the collector sends what: over gRPC too, and to a backend that takes traces only."""

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from collector_program import Backend, Collector, recorded, request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from stack_programs import wait_for


class TracesOnly(TraceServiceServicer):
    """A backend on gRPC without TLS that has no metrics and logs service, as Tempo."""

    def __init__(self) -> None:
        self.spans = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, _: Any) -> ExportTraceServiceResponse:  # noqa: N802 - its name in the protocol
        self.spans += sum(
            len(scope.spans) for one in request.resource_spans for scope in one.scope_spans
        )
        return ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(None)


@pytest.fixture
def grpc_backend() -> Iterator[TracesOnly]:
    backend = TracesOnly()
    yield backend
    backend.stop()


def test_traces_alone_over_grpc(tmp_path: Path, grpc_backend: TracesOnly) -> None:
    settings = {
        "OTLP_EXPORTER": "otlp_grpc",
        "OTLP_ENDPOINT": grpc_backend.address,
        "OTLP_INSECURE": "true",
        "METRICS_EXPORTER": "nop",
        "LOGS_EXPORTER": "nop",
        "SAMPLE_PERCENT": "100",
    }
    collector = Collector(tmp_path, Backend(), **settings)
    collector.start()
    try:
        collector.send(request(recorded("openllmetry", "openai_chat")))
        wait_for(lambda: grpc_backend.spans > 0, "a span", collector.log)
        # The metrics of that call are there, and nobody was sent them: no complaint below.
        wait_for(lambda: "spanledger_calls_total" in collector.scrape(), "a metric", collector.log)
    finally:
        collector.stop()
    assert collector.complaints() == []
