"""The table that rules and boards are held against, held against what the metrics code really exports."""

import re
from decimal import Decimal

import pytest
from metric_table import METRICS
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, generate_latest

from spanledger.api.guard import internal_errors
from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.budget.windows import BudgetReading
from spanledger.ledger.entry import Entry
from spanledger.processor.metrics import Metrics


def entry(nano_usd: int | None, ending: Ending) -> Entry:
    return Entry(
        PaidCall("openai", "chat", "gpt-5", Attribution("acme", "u-1", "search", "use-1"), 1),
        Usage({"input_tokens": 7, "output_tokens": 2}, credits=Decimal(3)),
        ending,
        Charge("id", nano_usd, Decimal(3), "estimated", reason="no_usage"),
    )


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The labels of each metric, as OpenTelemetry's own exporter renders them for Prometheus."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    readings = [
        BudgetReading("tenant:acme", "month", unit, 100, 10, 1, 40, tier="ok", unverified=False)
        for unit in ("usd", "credits")
    ]
    metrics = Metrics(read_budgets=lambda: readings)
    metrics.read_prices_timestamp = lambda: 1_700_000_000.0
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    metrics.register(provider)
    metrics.credits_remaining("scavio", Decimal(500))
    internal_errors["settle"] += 1
    saved = Ending("cached", 0.1, saved_nano_usd=5)
    metrics([entry(5, Ending("ok", 0.1)), entry(None, Ending("ok", 0.1)), entry(0, saved)])
    text = generate_latest(registry).decode()
    provider.shutdown()
    internal_errors.clear()
    labels: dict[str, set[str]] = {}
    for name, inside in re.findall(r"^(spanledger_\w+)(?:\{(.*)\})? ", text, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', inside))
    return labels


def test_every_metric_of_the_table_is_exported_under_that_name_and_with_those_labels(
    exported: dict[str, set[str]],
) -> None:
    assert {name: exported.get(name) for name in METRICS} == METRICS


def test_every_exported_metric_is_in_the_table(exported: dict[str, set[str]]) -> None:
    parts = ("_sum", "_count", "_created")  # of the histogram, of which the buckets are looked at
    assert {name for name in exported if not name.endswith(parts)} == METRICS.keys()
