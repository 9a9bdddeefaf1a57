"""The real collector as a plain process, whoever sends it spans, and a backend that takes what it sends on."""

import argparse
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from stack_programs import answers, free_port, wait_for

from spanledger.cli import collector

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "otel-collector-config.yaml"
BUILT = ROOT / ".cache" / "collector" / "otelcol-spanledger"
RECORDED = ROOT / "tests" / "processor" / "spans"

Attributes = Mapping[str, Any]


def collector_program() -> str:
    """The collector that `.ci/collector` built, or the released one. Otherwise the test is skipped, or fails in CI."""
    if BUILT.is_file():
        return str(BUILT)
    if path := shutil.which("otelcol-contrib"):
        return path
    missing = "no collector: `.ci/collector` builds it (with Go, in minutes)"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(f"NOT TESTED: {missing}")


def collector_config(*arguments: str) -> int:
    """Run `spanledger collector-config`; its exit code."""
    parser = argparse.ArgumentParser()
    collector.add(parser.add_subparsers())
    parsed = parser.parse_args(["collector-config", *arguments])
    return int(parsed.func(parsed))


# -- spans ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sent:
    """A span to be sent. `scope` is the instrumentation's; ids are hexadecimal."""

    scope: str
    name: str
    attributes: Attributes
    trace: str = field(default_factory=lambda: os.urandom(16).hex())
    id: str = field(default_factory=lambda: os.urandom(8).hex())
    parent: str | None = None
    failed: bool = False
    message: str = ""
    start_ns: int = field(default_factory=time.time_ns)
    seconds: float = 0.2
    events: Sequence[tuple[str, Attributes]] = ()


def recorded(file: str, name: str) -> list[Sent]:
    """The spans that an instrumentation made of a call (tests/processor/spans), in a trace of their own."""
    spans = json.loads((RECORDED / f"{file}.json").read_text())["spans"][name]
    trace = os.urandom(16).hex()
    ids = {span["id"]: os.urandom(8).hex() for span in spans}
    return [
        Sent(
            span["scope"],
            span["name"],
            dict(span["attributes"]),
            trace,
            ids[span["id"]],
            ids.get(span["parent"]),
            failed=span["status"] == "ERROR",
        )
        for span in spans
    ]


def request(spans: Iterable[Sent], service: str = "shop") -> bytes:
    """An OTLP export of these spans: one resource, spans by scope as SDKs send them."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.extend(key_values({"service.name": service}))
    scopes: dict[str, Any] = {}
    for sent in spans:
        if sent.scope not in scopes:
            scopes[sent.scope] = resource.scope_spans.add()
            scopes[sent.scope].scope.name = sent.scope
        span = scopes[sent.scope].spans.add()
        span.name, span.kind = sent.name, Span.SPAN_KIND_CLIENT
        span.trace_id, span.span_id = bytes.fromhex(sent.trace), bytes.fromhex(sent.id)
        if sent.parent is not None:
            span.parent_span_id = bytes.fromhex(sent.parent)
        span.start_time_unix_nano = sent.start_ns
        span.end_time_unix_nano = sent.start_ns + int(sent.seconds * 1e9)
        span.attributes.extend(key_values(sent.attributes))
        if sent.failed:
            span.status.code, span.status.message = Status.STATUS_CODE_ERROR, sent.message
        for name, attributes in sent.events:
            span.events.add(name=name, attributes=key_values(attributes))
    return message.SerializeToString()


def key_values(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def any_value(value: object) -> AnyValue:
    result = AnyValue()
    if isinstance(value, bool):
        result.bool_value = value
    elif isinstance(value, int):
        result.int_value = value
    elif isinstance(value, float):
        result.double_value = value
    elif isinstance(value, (list, tuple)):
        result.array_value.values.extend(any_value(item) for item in value)
    else:
        result.string_value = str(value)
    return result


def plain(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in attributes}


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return plain(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


# -- the backend behind it --------------------------------------------------------------------


class Backend:
    """Takes OTLP over HTTP, and may be down for a while: `stop`, then `start`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.logs: list[ExportLogsServiceRequest] = []
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        kinds: dict[str, tuple[list[Any], type[Any]]] = {
            "/v1/traces": (self.traces, ExportTraceServiceRequest),
            "/v1/metrics": (self.metrics, ExportMetricsServiceRequest),
            "/v1/logs": (self.logs, ExportLogsServiceRequest),
        }

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                where, kind = kinds[self.path]
                where.append(kind.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def spans(self) -> dict[str, dict[str, Any]]:
        """The attributes of the spans that arrived, by span id."""
        return {span.span_id.hex(): plain(span.attributes) for span in self.whole_spans()}

    def whole_spans(self) -> list[Span]:
        return [
            span
            for message in list(self.traces)
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def totals(self, metric: str) -> dict[tuple[str, int], float]:
        """The last value of each series of a cumulative metric, by labels and start."""
        found: dict[tuple[str, int], float] = {}
        for message in list(self.metrics):
            for resource in message.resource_metrics:
                service = plain(resource.resource.attributes)
                for scope in resource.scope_metrics:
                    for one in scope.metrics:
                        if one.name == metric:
                            assert one.sum.aggregation_temporality == 2, one
                            for point in one.sum.data_points:
                                labels = json.dumps(
                                    [service, plain(point.attributes)], sort_keys=True
                                )
                                key = labels, point.start_time_unix_nano
                                found[key] = max(found.get(key, 0), point.as_double or point.as_int)
        return found


# -- the collector ----------------------------------------------------------------------------


class Collector:
    """A collector on ports of its own."""

    def __init__(self, directory: Path, backend: Backend, *more: Path, **settings: str) -> None:
        self._log = directory / "collector.log"
        names = ("GRPC", "HTTP", "METRICS", "COUNTED", "HEALTH", "OWN_METRICS")
        self.ports = {name: free_port() for name in names}
        self._command = [collector_program()]
        for file in (CONFIG, *more):
            self._command += ["--config", str(file)]
        settings = {
            "LISTEN": "127.0.0.1",
            "STORAGE": str(directory / "queue"),
            "OTLP_EXPORTER": "otlp_http",
            "OTLP_ENDPOINT": backend.url,
            "DECISION_WAIT": "1s",
            "METRICS_DELAY": "1s",
            **{f"{name}_PORT": str(port) for name, port in self.ports.items()},
            **settings,
        }
        variables = {f"SPANLEDGER_COLLECTOR_{name}": value for name, value in settings.items()}
        self._environment = {**os.environ, **variables}
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment
            )
        process = self._process
        health = self.url("HEALTH")
        wait_for(lambda: answers(health) or process.poll() is not None, "the collector", self.log)
        assert process.poll() is None, self.log()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def log(self) -> str:
        return self._log.read_text()

    def complaints(self) -> list[str]:
        """What the collector logged as an error."""
        return [line for line in self.log().splitlines() if re.search(r"\t(?:error|fatal)\t", line)]

    def send(self, body: bytes, kind: str = "traces", seconds: float = 20) -> None:
        """Export, and try again while the collector cannot be reached, as SDKs do."""
        url = f"{self.url('HTTP')}/v1/{kind}"
        ask = urllib.request.Request(
            url, body, {"Content-Type": "application/x-protobuf"}, method="POST"
        )
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(ask, timeout=10) as answer:
                    assert answer.status == 200
                    return
            except urllib.error.HTTPError as error:
                if error.code not in (429, 502, 503, 504):
                    raise
            except OSError:
                pass
            assert time.monotonic() < deadline, f"{url} takes nothing"
            time.sleep(0.1)

    def scrape(self, *ports: str) -> dict[str, dict[str, float]]:
        """What Prometheus would read at these ports: name -> labels as they stand -> value.

        By default the two that have services' metrics. No series may stand at both.
        """
        found: dict[str, dict[str, float]] = {}
        for port in ports or ("METRICS", "COUNTED"):
            with urllib.request.urlopen(f"{self.url(port)}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            for line in text.splitlines():
                if line and not line.startswith("#"):
                    name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
                    series = found.setdefault(name, {})
                    assert (labels or "") not in series, line
                    series[labels or ""] = float(value)
        return found
