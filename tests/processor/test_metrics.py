"""Metrics as the SDK's readers and a real Prometheus exporter see them."""

import os
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics._internal import _ProxyMeterProvider
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
)
from prometheus_client import CollectorRegistry, generate_latest

from spanledger.api import guard, names
from spanledger.api.guard import internal_errors
from spanledger.api.values import Attribution, Charge, Ending, Outcome, PaidCall, Usage
from spanledger.budget.windows import BudgetReading
from spanledger.ledger.entry import Entry
from spanledger.processor.metrics import Metrics
from spanledger.processor.series import Recent, Sums, Tenants

CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA
ACME = {
    "provider": "openai",
    "model": "gpt-4o-mini-2024-07-18",
    "operation": "chat",
    "tenant": "acme",
    "feature": "search",
}


def entry(
    nano: int | None = 1_500_000,
    *,
    tenant: str | None = "acme",
    feature: str | None = "search",
    use: str | None = "trace-1",
    outcome: Outcome = "ok",
    status: Any = "exact",
    reason: str | None = None,
    credits: Decimal | None = None,
    units: dict[str, int] | None = None,
    saved: int = 0,
    seconds: float = 0.3,
    key: str | None = None,
    spends: bool = True,
    model: str = "gpt-4o-mini",
) -> Entry:
    return Entry(
        PaidCall(
            "openai", "chat", model, Attribution(tenant, "u-1", feature, use), 1, spends=spends
        ),
        Usage(units or {}, model=f"{model}-2024-07-18"),
        Ending(outcome, seconds, saved_nano_usd=saved),
        Charge("id", nano, credits, status, reason=reason),
        key,
    )


class Meter:
    """Metrics over a real SDK, and what a reader gets of them."""

    def __init__(self, temporality: AggregationTemporality, **settings: Any) -> None:
        self.reader = InMemoryMetricReader(
            preferred_temporality={ObservableCounter: temporality, HistogramInstrument: temporality}
        )
        self.provider = MeterProvider(metric_readers=[self.reader], shutdown_on_exit=False)
        self.metrics = Metrics(**settings)
        self.metrics.register(self.provider)

    def collect(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        return points(self.reader.get_metrics_data())

    def value(self, name: str, **labels: str) -> Any:
        found = self.collect().get(name, [])
        return next((v for attributes, v in found if attributes.items() >= labels.items()), None)

    def total(self, name: str) -> Any:
        return sum(value for _, value in self.collect()[name])


def points(data: MetricsData | None) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    if data is not None:
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                if isinstance(point, NumberDataPoint):
                    value: Any = point.value
                else:
                    assert isinstance(point, HistogramDataPoint)
                    value = (point.count, point.sum)
                found.setdefault(metric.name, []).append((dict(point.attributes or {}), value))
    return found


@pytest.fixture
def meter() -> Iterator[Meter]:
    meter = Meter(CUMULATIVE, zero_first=False)
    yield meter
    meter.provider.shutdown()


# -- what is counted -------------------------------------------------------------------------------


def test_one_call_in_all_its_metrics(meter: Meter) -> None:
    units = {
        "input_tokens": 1000,
        "output_tokens": 200,
        "cache_read_tokens": 400,
        "web_searches": 3,
    }
    meter.metrics([entry(units=units, credits=Decimal("2.5"))])
    assert meter.collect() == {
        names.METRIC_COST: [(ACME, 0.0015)],
        names.METRIC_TOKENS: [
            ({**ACME, "type": "input"}, 1000),
            ({**ACME, "type": "output"}, 200),
            ({**ACME, "type": "cache_read"}, 400),
        ],
        names.METRIC_CREDITS: [(ACME, 2.5)],
        names.METRIC_CALLS: [({**ACME, "outcome": "ok"}, 1)],
        names.METRIC_FEATURE_USES: [({"tenant": "acme", "feature": "search"}, 1)],
        names.METRIC_DURATION: [(ACME, (1, 0.3))],
    }


def test_units_and_names_are_those_of_the_design(meter: Meter) -> None:
    meter.metrics([entry(status="estimated", saved=1, outcome="degraded"), entry(None)])
    data = meter.reader.get_metrics_data()
    assert data is not None
    units = {m.name: m.unit for m in data.resource_metrics[0].scope_metrics[0].metrics}
    assert units == {
        "spanledger.cost": "USD",
        "spanledger.estimated.cost": "USD",
        "spanledger.calls": "{call}",
        "spanledger.saved": "USD",
        "spanledger.unpriced.calls": "{call}",
        "spanledger.feature.uses": "{use}",
        "spanledger.call.duration": "s",
    }


def test_an_unknown_cost_is_an_unpriced_call_and_no_zero(meter: Meter) -> None:
    meter.metrics([entry(None, status="unknown", reason="unknown_model")])
    collected = meter.collect()
    assert names.METRIC_COST not in collected
    assert collected[names.METRIC_UNPRICED] == [({**ACME, "reason": "unknown_model"}, 1)]


def test_long_words_of_a_provider_do_not_make_long_labels(meter: Meter) -> None:
    reason = "unpriced:service_tier=" + "s" * 9999
    meter.metrics([entry(None, status="unknown", reason=reason, model="m" * 9999)])
    for name, found in meter.collect().items():
        for attributes, _ in found:
            assert max(map(len, attributes.values())) <= 256, name


def test_estimated_cost_is_part_of_the_cost(meter: Meter) -> None:
    meter.metrics([entry(100), entry(20, status="estimated"), entry(3, status="partial")])
    collected = meter.collect()
    assert collected[names.METRIC_COST] == [(ACME, 123e-9)]
    assert collected[names.METRIC_ESTIMATED_COST] == [(ACME, 20e-9)]


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [("cached", "cache"), ("deduplicated", "single_flight"), ("degraded", "degrade")],
)
def test_what_was_saved_and_how(meter: Meter, outcome: Outcome, reason: str) -> None:
    meter.metrics([entry(0, outcome=outcome, saved=2_000_000)])
    assert meter.collect()[names.METRIC_SAVED] == [({**ACME, "reason": reason}, 0.002)]


def test_calls_that_were_not_sent_have_no_duration_and_use_no_tokens(meter: Meter) -> None:
    for outcome in ("cached", "deduplicated", "throttled", "blocked"):
        meter.metrics([entry(0, outcome=outcome, spends=False, units={"input_tokens": 5})])
    collected = meter.collect()
    assert {labels["outcome"] for labels, _ in collected[names.METRIC_CALLS]} == {
        "cached",
        "deduplicated",
        "throttled",
        "blocked",
    }
    assert names.METRIC_DURATION not in collected
    assert names.METRIC_TOKENS not in collected


def test_a_use_is_counted_once_however_many_calls_it_makes(meter: Meter) -> None:
    meter.metrics([entry(use="t1"), entry(use="t1"), entry(use="t2")])
    meter.metrics([entry(use="t1")])
    meter.metrics([entry(use=None), entry(use=None)])  # each a use of its own
    meter.metrics([entry(feature=None, use="t9")])  # a use of nothing
    assert meter.value(names.METRIC_FEATURE_USES) == 4


def test_the_same_use_of_two_features_is_a_use_of_each(meter: Meter) -> None:
    meter.metrics([entry(use="t1"), entry(use="t1", feature="chat")])
    assert meter.total(names.METRIC_FEATURE_USES) == 2


def test_what_a_job_reports_over_time_is_no_further_call(meter: Meter) -> None:
    meter.metrics([entry(0)])  # whoever created the job
    for _ in range(3):
        meter.metrics([entry(10, credits=Decimal(1), key="job-1")])
    collected = meter.collect()
    assert collected[names.METRIC_CALLS] == [({**ACME, "outcome": "ok"}, 1)]
    assert collected[names.METRIC_COST] == [(ACME, 30e-9)]
    assert collected[names.METRIC_CREDITS] == [(ACME, 3.0)]


def test_nobodys_calls_have_empty_labels(meter: Meter) -> None:
    meter.metrics([entry(tenant=None, feature=None)])
    ((labels, _),) = meter.collect()[names.METRIC_COST]
    assert (labels["tenant"], labels["feature"]) == ("", "")


def test_no_metric_says_who_the_user_was(meter: Meter) -> None:
    meter.metrics([entry(None), entry(status="estimated", credits=Decimal(1), saved=3)])
    for found in meter.collect().values():
        for labels, _ in found:
            assert "u-1" not in labels.values()


def test_money_does_not_drift(meter: Meter) -> None:
    for _ in range(1000):
        meter.metrics([entry(100_000_001)])
    assert meter.value(names.METRIC_COST) == 100.000001


def test_credits_remaining(meter: Meter) -> None:
    meter.metrics.credits_remaining("scavio", Decimal("99.5"))
    meter.metrics.credits_remaining("scavio", Decimal(98))
    assert meter.collect()[names.METRIC_CREDITS_REMAINING] == [({"provider": "scavio"}, 98.0)]


def test_the_age_of_the_prices(meter: Meter) -> None:
    assert names.METRIC_PRICES_TIMESTAMP not in meter.collect()
    meter.metrics.read_prices_timestamp = lambda: None
    assert names.METRIC_PRICES_TIMESTAMP not in meter.collect()
    meter.metrics.read_prices_timestamp = lambda: 1.7e9
    assert meter.collect()[names.METRIC_PRICES_TIMESTAMP] == [({}, 1.7e9)]


def test_internal_errors_by_place(meter: Meter) -> None:
    internal_errors["settle"] += 2
    assert meter.value(names.METRIC_INTERNAL_ERRORS, reason="settle") == 2
    internal_errors["settle"] += 1
    assert meter.value(names.METRIC_INTERNAL_ERRORS, reason="settle") == 3


def reading(scope: str, tier: Any, **more: Any) -> BudgetReading:
    usd = 10**9
    stands = BudgetReading(
        scope, "month", "usd", 100 * usd, 71_500_000_000, usd // 4, None, tier, unverified=False
    )
    return stands._replace(**more)


def test_budgets_as_the_ledger_has_them() -> None:
    readings = [
        reading("global", "warning", projected=120 * 10**9),
        reading("tenant:acme", "ok"),
        reading("tenant:acme", "hard", period="day", unverified=True),
        reading("provider:scavio", "critical", unit="credits", projected=130 * 10**9),
    ]
    meter = Meter(CUMULATIVE, read_budgets=lambda: readings)
    collected = meter.collect()
    month = {"scope": "global", "period": "month"}
    assert (month, 100.0) in collected[names.METRIC_BUDGET_LIMIT]
    assert (month, 71.5) in collected[names.METRIC_BUDGET_SPENT]
    assert (month, 0.25) in collected[names.METRIC_BUDGET_HELD]
    assert collected[names.METRIC_BUDGET_PROJECTED] == [(month, 120.0)]
    assert {labels["scope"] for labels, _ in collected[names.METRIC_BUDGET_LIMIT]} == {
        "global",
        "tenant:acme",
    }
    credits = ({"scope": "provider:scavio", "period": "month"},)
    assert collected[names.METRIC_BUDGET_CREDITS_LIMIT] == [(*credits, 100.0)]
    assert collected[names.METRIC_BUDGET_CREDITS_SPENT] == [(*credits, 71.5)]
    assert collected[names.METRIC_BUDGET_CREDITS_HELD] == [(*credits, 0.25)]
    assert collected[names.METRIC_BUDGET_CREDITS_PROJECTED] == [(*credits, 130.0)]
    assert {labels["scope"]: tier for labels, tier in collected[names.METRIC_BUDGET_TIER]} == {
        "global": 1,
        "tenant:acme": 3,
        "provider:scavio": 2,
    }
    assert collected[names.METRIC_LEDGER_UNVERIFIED] == [({}, 1)]
    readings.clear()
    assert meter.collect()[names.METRIC_LEDGER_UNVERIFIED] == [({}, 0)]
    meter.provider.shutdown()


def test_a_budget_that_the_ledger_did_not_tell_of_yet_has_no_amounts() -> None:
    readings = [reading("global", "ok", unverified=True, known=False)]
    meter = Meter(CUMULATIVE, read_budgets=lambda: readings)
    collected = meter.collect()
    assert collected[names.METRIC_LEDGER_UNVERIFIED] == [({}, 1)]
    assert not collected.keys() & {names.METRIC_BUDGET_SPENT, names.METRIC_BUDGET_TIER}
    meter.provider.shutdown()


def test_budgets_for_many_scopes_have_a_bounded_number_of_series() -> None:
    def tenant(name: str, tier: str, spent: int, **more: Any) -> BudgetReading:
        return reading(f"tenant:{name}", tier, spent=spent, series="bounded", **more)

    def shown() -> set[str]:
        collected = meter.collect()
        scopes = {labels["scope"] for labels, _ in collected[names.METRIC_BUDGET_SPENT]}
        assert scopes == {labels["scope"] for labels, _ in collected[names.METRIC_BUDGET_TIER]}
        found = {scope.removeprefix("tenant:") for scope in scopes}
        ever.update(found)
        return found

    ever: set[str] = set()
    readings = [tenant(f"t{n}", "ok", n) for n in range(100)]
    readings += [reading("global", "ok"), reading("user:u-1", "hard", series="never")]
    # What is spelt out in one period has room in all.
    readings += [reading("tenant:own", "ok"), tenant("own", "ok", 0, period="day")]
    meter = Meter(CUMULATIVE, max_tenants=3, read_budgets=lambda: readings)
    always = {"global", "own"}
    assert shown() == {"t97", "t98", "t99", *always}
    readings[0] = tenant("t0", "ok", 10**12)  # the same tier: nobody gives way
    assert shown() == {"t97", "t98", "t99", *always}
    readings[1] = tenant("t1", "critical", 1)
    assert shown() == {"t1", "t98", "t99", *always}
    del readings[99]  # its period is over
    assert shown() == {"t0", "t1", "t98", *always}
    # In all its life a process shows ten times as many.
    for n in range(2, 90):
        for others in range(2, 90):
            readings[others] = tenant(f"t{others}", "hard" if others == n else "ok", 1)
        shown()
    assert len(ever - always) == 30
    meter.provider.shutdown()


# -- collections -----------------------------------------------------------------------------------


def test_a_collection_counts_what_is_still_on_its_way_first(meter: Meter) -> None:
    on_its_way = [entry(), entry()]

    def flush() -> None:
        meter.metrics(on_its_way)
        on_its_way.clear()

    meter.metrics.flush = flush
    assert meter.value(names.METRIC_COST) == 0.003


@pytest.mark.parametrize(
    ("temporality", "costs"),
    [(CUMULATIVE, [0, 0.0015, 0.0015, 0.003]), (DELTA, [0, 0.0015, 0, 0.0015])],
)
def test_a_new_label_set_begins_with_zero(
    temporality: AggregationTemporality, costs: Sequence[float]
) -> None:
    meter = Meter(temporality)
    meter.metrics([entry()])
    seen = [meter.value(names.METRIC_COST) for _ in range(3)]
    meter.metrics([entry()])
    seen.append(meter.value(names.METRIC_COST))
    assert seen == pytest.approx(list(costs))
    meter.provider.shutdown()


def test_what_fails_in_a_collection_leaves_the_rest() -> None:
    def broken() -> Any:
        raise RuntimeError

    guard.reraise_internal_errors(False)
    meter = Meter(CUMULATIVE, zero_first=False, read_budgets=broken)
    meter.metrics.flush = meter.metrics.read_prices_timestamp = broken
    meter.metrics([entry()])
    collected = meter.collect()
    assert collected[names.METRIC_COST] == [(ACME, 0.0015)]
    assert {labels["reason"] for labels, _ in collected[names.METRIC_INTERNAL_ERRORS]} == {
        "metrics: flush",
        "metrics: budgets",
    }
    assert internal_errors["metrics: prices"] == 1
    meter.provider.shutdown()


def test_a_meter_provider_set_later_gets_the_instruments() -> None:
    """As by an application that configures OpenTelemetry after spanledger has started."""
    proxy = _ProxyMeterProvider()
    metrics = Metrics(zero_first=False)
    metrics.register(proxy)
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    proxy.on_set_meter_provider(provider)
    metrics([entry()])
    collected = points(reader.get_metrics_data())
    assert collected[names.METRIC_COST] == [(ACME, 0.0015)]
    assert collected[names.METRIC_DURATION] == [(ACME, (1, 0.3))]
    provider.shutdown()


class _Kept(MetricExporter):
    """Keeps what it is given: the values of the cost metric, in order."""

    def __init__(self, temporality: AggregationTemporality) -> None:
        super().__init__(
            preferred_temporality={
                ObservableCounter: temporality,
                HistogramInstrument: temporality,
            }
        )
        self.costs: list[float] = []
        self.counts: list[int] = []

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        found = points(metrics_data)
        self.costs += [value for _, value in found.get(names.METRIC_COST, [])]
        self.counts += [value[0] for _, value in found.get(names.METRIC_DURATION, [])]
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        return None


def exporting(temporality: AggregationTemporality) -> tuple[_Kept, MeterProvider]:
    exporter = _Kept(temporality)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    return exporter, MeterProvider(metric_readers=[reader], shutdown_on_exit=False)


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_a_process_that_collects_only_when_it_ends_loses_nothing(
    temporality: AggregationTemporality,
) -> None:
    exporter, provider = exporting(temporality)
    metrics = Metrics()
    metrics.register(provider)
    metrics([entry()])
    provider.shutdown()
    assert exporter.costs == [0.0015]


def test_after_finish_sums_come_at_once() -> None:
    meter = Meter(CUMULATIVE)
    meter.metrics([entry()])
    meter.metrics.finish()
    assert meter.value(names.METRIC_COST) == 0.0015
    meter.provider.shutdown()


# -- cardinality -----------------------------------------------------------------------------------


def test_five_thousand_tenants_are_few_series_and_the_whole_sum() -> None:
    meter = Meter(CUMULATIVE, max_tenants=50, zero_first=False)
    for number in range(5000):
        meter.metrics([entry(7, tenant=f"t{number}", use=f"u{number}")])
    collected = meter.collect()
    tenants = {labels["tenant"] for labels, _ in collected[names.METRIC_COST]}
    assert len(tenants) == 51
    assert names.OVERFLOW in tenants
    assert sum(value for _, value in collected[names.METRIC_COST]) == pytest.approx(35_000e-9)
    assert sum(value for _, value in collected[names.METRIC_CALLS]) == 5000
    assert sum(value for _, value in collected[names.METRIC_FEATURE_USES]) == 5000
    assert sum(count for _, (count, _) in collected[names.METRIC_DURATION]) == 5000
    meter.provider.shutdown()


def test_a_big_spender_that_comes_late_gets_a_name_and_sums_never_fall() -> None:
    tenants = Tenants(4)
    sums = Sums((names.LABEL_TENANT,), 100)
    for number in range(100):
        sums.add((tenants.label(f"t{number % 10}", 10 + number % 10),), 10 + number % 10)
    before = dict(sums._sums)
    for _ in range(100):
        sums.add((tenants.label("big", 1000),), 1000)
    assert sums._sums[("big",)] > 90_000
    assert all(sums._sums[key] >= amount for key, amount in before.items())
    assert sum(sums._sums.values()) == sum(10 + n % 10 for n in range(100)) + 100_000
    assert len(sums._sums) <= 4 * 1.5 + 1


def test_a_series_limit_gives_up_tenant_and_feature_first_and_keeps_the_provider() -> None:
    meter = Meter(CUMULATIVE, max_series=40, zero_first=False)
    for number in range(500):
        meter.metrics([entry(1, feature=f"f{number}", use=None, units={"input_tokens": 2})])
    for number in range(500):
        meter.metrics([entry(1, feature=f"f{number}", use=None, model=f"m{number}")])
    collected = meter.collect()
    for name in (names.METRIC_COST, names.METRIC_TOKENS, names.METRIC_CALLS):
        assert len(collected[name]) <= 40
        assert {labels["provider"] for labels, _ in collected[name]} <= {"openai", "other"}
    assert sum(value for _, value in collected[names.METRIC_COST]) == pytest.approx(1000e-9)
    assert sum(value for _, value in collected[names.METRIC_TOKENS]) == 1000
    coarse = [
        labels
        for labels, _ in collected[names.METRIC_COST]
        if labels["feature"] == names.OVERFLOW and labels["model"] == "gpt-4o-mini-2024-07-18"
    ]
    assert [labels["operation"] for labels in coarse] == ["chat"]
    meter.provider.shutdown()


@given(
    st.integers(1, 30),
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 10**12)),
        max_size=200,
    ),
)
def test_sums_are_bounded_and_exact(most: int, adds: list[tuple[int, int, int, int]]) -> None:
    labels = (names.LABEL_PROVIDER, names.LABEL_TENANT, names.LABEL_REASON)
    sums = Sums(labels, most)
    for provider, tenant, reason, amount in adds:
        sums.add((f"p{provider}", f"t{tenant}", f"r{reason}"), amount)
    read = list(sums.read(zero_first=False))
    assert len(read) <= max(most, 4)
    assert sum(amount for _, amount in read) == sum(add[3] for add in adds)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10**9)), max_size=300))
def test_tenant_labels_are_bounded(charges: list[tuple[int, int]]) -> None:
    tenants = Tenants(4)
    labels = {tenants.label(f"t{tenant}", nano) for tenant, nano in charges}
    assert len(labels - {names.OVERFLOW}) <= 6


def test_what_is_seen_again_stays_remembered() -> None:
    recent = Recent(2)
    assert [recent.is_new((thing,)) for thing in "abacab"] == [True, True, False, True, False, True]


# -- fork ------------------------------------------------------------------------------------------


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` is true in a forked child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_a_forked_child_does_not_report_its_parents_total(
    temporality: AggregationTemporality,
) -> None:
    meter = Meter(temporality, zero_first=False)
    internal_errors["settle"] += 5
    meter.metrics([entry(5_000_000_000), entry(5_000_000_000)])
    assert meter.value(names.METRIC_COST) == 10.0

    def work() -> bool:
        nothing = meter.collect() == {}
        meter.metrics([entry(100_000_000)])
        collected = meter.collect()
        return (
            nothing
            and collected[names.METRIC_COST] == [(ACME, 0.1)]
            and collected[names.METRIC_DURATION] == [(ACME, (1, 0.3))]
            and names.METRIC_INTERNAL_ERRORS not in collected
        )

    assert in_child(work)
    meter.metrics([entry(1_000_000_000)])
    expected = 11.0 if temporality is CUMULATIVE else 1.0
    assert meter.value(names.METRIC_COST) == expected
    meter.provider.shutdown()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_the_parent_counts_is_not_stuck() -> None:
    meter = Meter(CUMULATIVE, zero_first=False)

    def work() -> bool:
        meter.metrics([entry()])
        return bool(meter.value(names.METRIC_COST) == 0.0015)

    with meter.metrics._lock:
        assert in_child(work)
    meter.provider.shutdown()


# -- Prometheus ------------------------------------------------------------------------------------


def test_prometheus_renders_the_names_of_the_design() -> None:
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    metrics = Metrics(read_budgets=lambda: [reading("global", "hard", projected=3 * 10**9)])
    metrics.register(provider)
    metrics.credits_remaining("scavio", Decimal(7))
    metrics.read_prices_timestamp = lambda: 1.7e9
    internal_errors["settle"] += 1
    metrics(
        [
            entry(units={"input_tokens": 9}, credits=Decimal(2)),
            entry(status="estimated", outcome="degraded", saved=5),
            entry(None, reason="unknown_model"),
        ]
    )
    first = generate_latest(registry).decode()
    text = generate_latest(registry).decode()
    provider.shutdown()
    labels = 'feature="search",model="gpt-4o-mini-2024-07-18",operation="chat",provider="openai"'
    assert f'spanledger_cost_USD_total{{{labels},tenant="acme"}} 0.0\n' in first
    assert f'spanledger_cost_USD_total{{{labels},tenant="acme"}} 0.003\n' in text
    for line in (
        "spanledger_estimated_cost_USD_total",
        "spanledger_tokens_total",
        "spanledger_credits_total",
        "spanledger_credits_remaining",
        "spanledger_calls_total",
        "spanledger_saved_USD_total",
        "spanledger_unpriced_calls_total",
        "spanledger_feature_uses_total",
        "spanledger_call_duration_seconds_bucket",
        "spanledger_internal_errors_total",
        "spanledger_prices_timestamp_seconds",
        "spanledger_budget_limit_USD",
        "spanledger_budget_spent_USD",
        "spanledger_budget_held_USD",
        "spanledger_budget_projected_USD",
        "spanledger_budget_tier",
        "spanledger_ledger_unverified",
    ):
        assert f"\n{line}{{" in text or f"\n{line} " in text, line


def test_durations_fall_into_buckets_of_seconds(meter: Meter) -> None:
    meter.metrics([entry(seconds=0.3), entry(seconds=70.0)])
    data = meter.reader.get_metrics_data()
    assert data is not None
    (histogram,) = [
        metric.data
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == names.METRIC_DURATION
    ]
    assert isinstance(histogram, Histogram)
    (point,) = histogram.data_points
    filled = [
        bound
        for bound, count in zip(point.explicit_bounds, point.bucket_counts, strict=False)
        if count
    ]
    assert filled == [0.5, 80.0]
