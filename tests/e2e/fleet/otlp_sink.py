"""A backend for metrics, over HTTP and over gRPC, that adds up what arrives, and can be slow."""

import gzip
import threading
from collections import defaultdict
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)

DELTA = 1  # as OTLP numbers temporalities


class Sink:
    """Listens on ports of its own.

    broken: requests that could not be read.
    instances: process ids by `service.instance.id`, where the resource has them.
    connections: the instances that used a connection.
    exemplars: the traces that a metric's exemplars name.
    """

    def __init__(self) -> None:
        self.broken: list[str] = []
        self.instances: defaultdict[str, set[int]] = defaultdict(set)
        self.connections: defaultdict[str, set[str]] = defaultdict(set)
        self.exemplars: defaultdict[str, set[str]] = defaultdict(set)
        self.arrived = threading.Event()
        self.answering = threading.Event()
        self.answering.set()
        self._sums: defaultdict[str, dict[tuple[Any, ...], float]] = defaultdict(dict)
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._grpc = grpc.server(futures.ThreadPoolExecutor(16))
        add_MetricsServiceServicer_to_server(self._servicer(), self._grpc)
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        self._grpc.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.answering.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._grpc.stop(0).wait()

    def environment(self, protocol: str) -> dict[str, str]:
        """What a process needs in its environment to send here; `protocol` as OpenTelemetry names it."""
        port = self._grpc_port if protocol == "grpc" else self._http.server_port
        return {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process",
        }

    def total(self, metric: str, **labels: str) -> float:
        """The sum over all processes and series that have these labels."""
        with self._lock:
            return sum(
                value
                for (_, *series), value in self._sums[metric].items()
                if labels.items() <= dict(series).items()
            )

    def series(self, metric: str) -> int:
        with self._lock:
            return len(self._sums[metric])

    # -- what arrives --------------------------------------------------------------------------

    def take(self, message: ExportMetricsServiceRequest, peer: str) -> None:
        self.arrived.set()
        self.answering.wait(30)
        with self._lock:
            for resource in message.resource_metrics:
                attributes = {pair.key: pair.value for pair in resource.resource.attributes}
                instance = attributes["service.instance.id"].string_value
                self.instances[instance].add(attributes["process.pid"].int_value)
                self.connections[peer].add(instance)
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        self._add(instance, metric)

    def _add(self, instance: str, metric: Any) -> None:
        sums = self._sums[metric.name]
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        for point in data.data_points:
            labels = sorted((pair.key, pair.value.string_value) for pair in point.attributes)
            series = (instance, *labels)
            for exemplar in point.exemplars:
                self.exemplars[metric.name].add(exemplar.trace_id.hex())
            value = point.count if kind == "histogram" else point.as_double or point.as_int
            if getattr(data, "aggregation_temporality", None) == DELTA:
                value += sums.get(series, 0)
            sums[series] = value

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                try:
                    message = ExportMetricsServiceRequest.FromString(body)
                except ValueError as error:
                    sink.broken.append(str(error))
                else:
                    sink.take(message, f"port {self.client_address[1]}")
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def send_error(self, code: int, *_: Any, **__: Any) -> None:
                sink.broken.append(f"answered {code}")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _servicer(self) -> MetricsServiceServicer:
        sink = self

        class Servicer(MetricsServiceServicer):  # type: ignore[misc]
            def Export(self, message: Any, call: Any) -> ExportMetricsServiceResponse:  # noqa: N802
                sink.take(message, call.peer())
                return ExportMetricsServiceResponse()

        return Servicer()
