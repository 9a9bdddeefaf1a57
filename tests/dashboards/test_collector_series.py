"""What becomes of series in the real collector, and of the traces beside them: those of a process end with it, those
that the collector counts itself stay.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from collector_program import Backend, Collector, recorded, request
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)
from stack_programs import DASHBOARDS, get, program, prometheus, wait_for

EXPIRY_S = 2.0
TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    directory = tmp_path_factory.mktemp("collector")
    settings = {"OTLP_EXPORTER": "nop", "METRICS_EXPIRY": f"{EXPIRY_S:g}s"}
    collector = Collector(directory, Backend(), **settings)
    collector.start()
    yield collector
    collector.stop()
    assert collector.complaints() == []


@contextmanager
def application(
    collector: Collector, service: str, *, temporality: AggregationTemporality
) -> Iterator[MeterProvider]:
    """A process' meter provider, which exports four times a second until it ends."""
    kinds = dict.fromkeys((Counter, ObservableCounter, Histogram), temporality)
    exporter = OTLPMetricExporter(
        f"{collector.url('HTTP')}/v1/metrics", preferred_temporality=kinds
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=250)
    resource = Resource({"service.name": service, "service.instance.id": "pod-1"})
    provider = MeterProvider([reader], resource)
    try:
        yield provider
    finally:
        provider.shutdown()


def metrics_of(collector: Collector, service: str) -> dict[str, float]:
    """The sum of each metric of a service."""
    return {
        name: sum(found.values())
        for name, series in collector.scrape().items()
        if (found := {labels: n for labels, n in series.items() if f'job="{service}"' in labels})
        and name != "target_info"
    }


@pytest.mark.parametrize(
    "temporality",
    [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA],
    ids=["cumulative", "delta"],
)
def test_series_end_with_their_process_and_those_of_spans_stay(
    collector: Collector, temporality: AggregationTemporality
) -> None:
    shop, other = f"shop-{temporality.name}", f"other-{temporality.name}"
    collector.send(request(recorded("openllmetry", "openai_chat"), other))
    wait_for(
        lambda: metrics_of(collector, other).get("spanledger_calls_total") == 1,
        "the call of the other service",
        lambda: metrics_of(collector, other),
    )
    counted = metrics_of(collector, other)
    reported = {"spanledger_calls_total": 5.0, "spanledger_budget_tier": 3.0}
    with application(collector, shop, temporality=temporality) as provider:
        meter = provider.get_meter("spanledger")
        meter.create_observable_counter("spanledger.calls", [lambda _: [Observation(5)]])
        meter.create_observable_gauge("spanledger.budget.tier", [lambda _: [Observation(3)]])
        wait_for(
            lambda: metrics_of(collector, shop) == reported,
            "the metrics of the process",
            lambda: metrics_of(collector, shop),
        )
        # Idle is not ended: it repeats what it has, be it a difference of 0.
        idle_until = time.monotonic() + 2 * EXPIRY_S
        while time.monotonic() < idle_until:
            assert metrics_of(collector, shop) == reported
            time.sleep(0.2)
    since = time.monotonic()
    wait_for(
        lambda: metrics_of(collector, shop) == {},
        "the end of the series",
        lambda: metrics_of(collector, shop),
    )
    assert time.monotonic() - since < 2 * EXPIRY_S
    assert metrics_of(collector, other) == counted
    assert collector.scrape("METRICS").keys() <= {"target_info"}


def test_exemplars_reach_prometheus(collector: Collector, tmp_path: Path) -> None:
    """By the shipped configuration, and the flag that the compose file and `make stack` give."""
    program("prometheus")
    text = (DASHBOARDS / "prometheus" / "prometheus.yml").read_text()
    for usual, port in (("8889", "METRICS"), ("8890", "COUNTED")):
        text = text.replace(f"collector:{usual}", f"127.0.0.1:{collector.ports[port]}")
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("15s", "500ms").replace("[rules/*.yml]", "[]"))
    span = SpanContext(TRACE, SPAN, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    context = set_span_in_context(NonRecordingSpan(span))
    flag, log = "--enable-feature=exemplar-storage", tmp_path / "log"
    with (
        prometheus(config, tmp_path / "data", flag, log=log) as url,
        application(collector, "traced", temporality=AggregationTemporality.CUMULATIVE) as provider,
    ):
        meter = provider.get_meter("spanledger")
        cost = [Observation(0.25, {"provider": "openai"}, context)]
        meter.create_observable_counter("spanledger.cost", [lambda _: cost], "USD")
        duration = meter.create_histogram("spanledger.call.duration", "s")

        def exemplars() -> dict[str, tuple[str, str, float]]:
            duration.record(0.7, context=context)  # each export has those since the one before
            now = time.time()
            found = get(
                f"{url}/api/v1/query_exemplars",
                query='{job="traced"}',
                start=str(now - 60),
                end=str(now + 60),
            )
            return {
                one["seriesLabels"]["__name__"]: (
                    exemplar["labels"]["trace_id"],
                    exemplar["labels"]["span_id"],
                    float(exemplar["value"]),
                )
                for one in found
                for exemplar in one["exemplars"]
            }

        ids = f"{TRACE:032x}", f"{SPAN:016x}"
        expected = {
            "spanledger_cost_USD_total": (*ids, 0.25),
            "spanledger_call_duration_seconds_bucket": (*ids, 0.7),
        }
        wait_for(lambda: exemplars() == expected, "the exemplars", exemplars)


@pytest.mark.parametrize("file", ["compose.yaml", "stack.py"])
def test_prometheus_is_started_with_room_for_exemplars(file: str) -> None:
    assert "--enable-feature=exemplar-storage" in (DASHBOARDS / file).read_text()
