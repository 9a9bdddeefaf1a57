"""The metrics: sums over the books, kept by ourselves and read by observable instruments.

Not by the SDK's own counters: `add` costs 8 us, and a forked child would report its parent's total
again. Here a forked child begins at 0, and makes the SDK forget what it had from the parent.

A label set that appears is 0 at first and gets its sum at the next collection: Prometheus'
`increase()` takes a series' first value for nothing new. A process that is about to end has no next
collection: after `finish`, and while the meter provider shuts down, sums come at once. So do they
with `zero_first=False`, for processes that are frozen between collections (AWS Lambda).
"""

import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation

from spanledger.api import names
from spanledger.api.guard import internal_errors, swallow
from spanledger.api.values import LONGEST, Attribution
from spanledger.ledger.entry import Entry
from spanledger.processor.budget_series import TIERS, BudgetReading, Shown
from spanledger.processor.exemplars import Dearest, trace_of
from spanledger.processor.exits import at_child_exit, flush_providers
from spanledger.processor.series import Key, Recent, Sums, Tenants

_NANO: Final = 10**9
_LABELS: Final = (
    names.LABEL_PROVIDER,
    names.LABEL_MODEL,
    names.LABEL_OPERATION,
    names.LABEL_TENANT,
    names.LABEL_FEATURE,
)
_SAVED_BY: Final = {"cached": "cache", "deduplicated": "single_flight", "degraded": "degrade"}
_SENT: Final = frozenset({"ok", "error", "degraded"})
_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_USES: Final = 20_000


class _State:
    """What one process counts. Money and credits are in nano."""

    def __init__(self, max_series: int, max_tenants: int) -> None:
        def counter(*more: str) -> Sums:
            return Sums((*_LABELS, *more), max_series)

        self.cost = counter()
        self.estimated = counter()
        self.credits = counter()
        self.tokens = counter(names.LABEL_TYPE)
        self.calls = counter(names.LABEL_OUTCOME)
        self.saved = counter(names.LABEL_REASON)
        self.unpriced = counter(names.LABEL_REASON)
        self.uses = Sums((names.LABEL_TENANT, names.LABEL_FEATURE), max_series)
        self.errors = Sums((names.LABEL_REASON,), max_series)
        # A histogram has a series for each of its buckets.
        self.durations = Sums(_LABELS, max_series // len(_SECONDS))
        self.tenants = Tenants(max_tenants)
        self.seen_uses = Recent(_USES)
        self.dearest = Dearest()

    def add(self, entry: Entry) -> Key | None:
        """Count `entry`; the label set to record its duration under, None where it was not sent."""
        call, usage, ending, charge, job = entry
        who = call.attribution
        tenant = self.tenants.label(who.tenant, charge.nano_usd or 0)
        model = (usage.model or call.model or "")[:LONGEST]
        provider, operation = call.provider[:LONGEST], call.operation[:LONGEST]
        key = (provider, model, operation, tenant, who.feature or "")
        if charge.nano_usd is None:
            self.unpriced.add((*key, (charge.reason or "unknown")[:LONGEST]), 1)
        else:
            taken = self.cost.add(key, charge.nano_usd)
            self.dearest.note(taken, charge.nano_usd, ending)
            if charge.status == "estimated":
                self.estimated.add(key, charge.nano_usd)
        if charge.credits is not None:
            self.credits.add(key, round(charge.credits * _NANO))
        if call.spends:
            for unit, amount in usage.units.items():
                if (kind := _token_type(unit)) is not None:
                    self.tokens.add((*key, kind), int(amount))
        if ending.saved_nano_usd and ending.outcome in _SAVED_BY:
            self.saved.add((*key, _SAVED_BY[ending.outcome]), ending.saved_nano_usd)
        self._add_use(who, tenant)
        if job is not None:
            return None  # what a job has used since: no call of its own
        self.calls.add((*key, ending.outcome), 1)
        return self.durations.add(key, 1) if ending.outcome in _SENT else None

    def _add_use(self, who: Attribution, tenant: str) -> None:
        if who.feature is not None and (
            who.use_id is None or self.seen_uses.is_new((who.feature, who.use_id))
        ):
            self.uses.add((tenant, who.feature), 1)


@functools.lru_cache(maxsize=256)
def _token_type(unit: str) -> str | None:
    """What kind of tokens a unit counts; None where it counts something else."""
    return unit.removesuffix("_tokens") if unit.endswith("_tokens") else None


class _Counter(NamedTuple):
    name: str
    unit: str
    doc: str
    sums: Callable[[_State], Sums]
    divisor: int = 1


# The first is read first, and begins a collection.
_COUNTERS: Final = (
    _Counter(names.METRIC_COST, "USD", "What paid calls cost.", lambda s: s.cost, _NANO),
    _Counter(
        names.METRIC_ESTIMATED_COST,
        "USD",
        "The part of the cost that is estimated.",
        lambda s: s.estimated,
        _NANO,
    ),
    _Counter(
        names.METRIC_TOKENS,
        "{token}",
        "Tokens used; input includes cached ones, output reasoning.",
        lambda s: s.tokens,
    ),
    _Counter(names.METRIC_CREDITS, "{credit}", "Credits used.", lambda s: s.credits, _NANO),
    _Counter(names.METRIC_CALLS, "{call}", "Paid calls by outcome.", lambda s: s.calls),
    _Counter(
        names.METRIC_SAVED, "USD", "What avoided calls would have cost.", lambda s: s.saved, _NANO
    ),
    _Counter(names.METRIC_UNPRICED, "{call}", "Calls whose cost is unknown.", lambda s: s.unpriced),
    _Counter(names.METRIC_FEATURE_USES, "{use}", "Uses of features.", lambda s: s.uses),
    _Counter(
        names.METRIC_INTERNAL_ERRORS,
        "{error}",
        "Errors of spanledger's own that it swallowed, by place.",
        lambda s: s.errors,
    ),
)


class Metrics:
    """Counts what goes into the books. A sink of the recorder: call it with batches of entries.

    max_series: label sets a metric may have; the SDK's own limit is 2,000.
    max_tenants: tenants with series of their own; the rest is `other`. Also scopes of budgets that
        are for many.
    read_budgets: how the budgets stand, read at each collection.
    zero_first: let each new label set begin with 0.
    """

    def __init__(
        self,
        *,
        max_series: int = 2000,
        max_tenants: int = 200,
        read_budgets: Callable[[], Iterable[BudgetReading]] | None = None,
        zero_first: bool = True,
    ) -> None:
        self.flush: Callable[[], object] | None = None
        """Called before each collection, to count what is still on its way. It must be quick."""
        self.read_prices_timestamp: Callable[[], float | None] | None = None
        """Unix time, in seconds, of the price list in use."""
        self._new_state = functools.partial(_State, max_series, max_tenants)
        self._read_budgets = read_budgets
        self._zero_first = zero_first
        self._providers: list[MeterProvider] = []
        self._histograms: list[Histogram] = []
        self._balances: dict[str, Decimal] = {}
        self._readings: tuple[BudgetReading, ...] = ()
        self._shown = Shown(max_tenants)
        self._unverified = False
        self._errors_counted: dict[str, int] = {}
        self._end_awaited = False
        self._lock = threading.Lock()
        self._state = self._new_state()
        after_fork = weakref.WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := after_fork()) and method())

    # -- counting ------------------------------------------------------------------------------

    def __call__(self, entries: Sequence[Entry]) -> None:
        """Count `entries`."""
        if not self._end_awaited:
            self._end_awaited = True
            at_child_exit(self.send)
        state = self._state
        with self._lock:
            sent = [(state.add(entry), entry.ending) for entry in entries]
        for key, ending in sent:
            if key is not None:
                for histogram in self._histograms:
                    histogram.record(
                        ending.latency_s, state.durations.attributes(key), trace_of(ending)
                    )

    def credits_remaining(self, provider: str, balance: Decimal) -> None:
        """Note the balance that a provider reported."""
        self._balances[provider] = balance

    def finish(self) -> None:
        """This process is about to end: no sum waits for another collection any more."""
        self._zero_first = False

    def send(self) -> None:
        """Let the meter providers send everything now: this process is about to end."""
        self.finish()
        flush_providers(self._all_providers())

    # -- instruments ---------------------------------------------------------------------------

    def register(self, meter_provider: MeterProvider) -> None:
        """Make the instruments with `meter_provider`."""
        self._providers.append(meter_provider)
        meter = meter_provider.get_meter(names.SCOPE_PROCESSOR)
        for counter in _COUNTERS:
            callback = functools.partial(self._read_counter, counter)
            meter.create_observable_counter(counter.name, [callback], counter.unit, counter.doc)
        gauges: list[tuple[str, str, str, Callable[[CallbackOptions], list[Observation]]]] = [
            (
                names.METRIC_CREDITS_REMAINING,
                "{credit}",
                "The balance that the provider last reported.",
                self._read_balances,
            ),
            (
                names.METRIC_PRICES_TIMESTAMP,
                "s",
                "Unix time of the price list.",
                self._read_prices,
            ),
        ]
        if self._read_budgets is not None:
            gauges += [
                *(
                    (name, _UNITS[unit], doc, functools.partial(self._read_amounts, field, unit))
                    for name, unit, field, doc in _BUDGET_AMOUNTS
                ),
                (
                    names.METRIC_BUDGET_TIER,
                    "",
                    "0 ok, 1 warning, 2 critical, 3 hard.",
                    self._read_tiers,
                ),
                (
                    names.METRIC_LEDGER_UNVERIFIED,
                    "",
                    "1 while the ledger cannot be reached.",
                    self._read_unverified,
                ),
            ]
        for name, unit, doc, read in gauges:
            meter.create_observable_gauge(name, [read], unit, doc)
        self._histograms.append(
            meter.create_histogram(
                names.METRIC_DURATION,
                "s",
                "How long calls took that were sent.",
                explicit_bucket_boundaries_advisory=_SECONDS,
            )
        )

    def _begin_collection(self) -> None:
        if self.flush is not None:
            with swallow("metrics: flush"):
                self.flush()
        if self._read_budgets is not None:
            with swallow("metrics: budgets"):
                readings = tuple(self._read_budgets())
                self._unverified = any(reading.unverified for reading in readings)
                self._readings = self._shown.choose(readings)
        with self._lock:
            for place, count in dict(internal_errors).items():
                new = count - self._errors_counted.get(place, 0)
                if new > 0:
                    self._state.errors.add((place,), new)
                self._errors_counted[place] = count

    def _read_counter(self, counter: _Counter, _: CallbackOptions) -> list[Observation]:
        with swallow("metrics"):
            if counter is _COUNTERS[0]:
                self._begin_collection()
            # A provider that shuts down collects for the last time.
            ending = any(
                getattr(provider, "_shutdown", False) for provider in self._all_providers()
            )
            zero_first = self._zero_first and not ending
            with self._lock:
                found = list(counter.sums(self._state).read(zero_first=zero_first))
                traces = self._state.dearest.take() if counter.name == names.METRIC_COST else {}
            return [
                Observation(
                    amount if counter.divisor == 1 else amount / counter.divisor,
                    labels,
                    traces.get(tuple(labels.values())),
                )
                for labels, amount in found
            ]
        return []

    def _read_balances(self, _: CallbackOptions) -> list[Observation]:
        balances = list(self._balances.items())
        return [Observation(float(b), {names.LABEL_PROVIDER: provider}) for provider, b in balances]

    def _read_prices(self, _: CallbackOptions) -> list[Observation]:
        with swallow("metrics: prices"):
            when = self.read_prices_timestamp() if self.read_prices_timestamp else None
            return [] if when is None else [Observation(when)]
        return []

    def _read_amounts(self, field: str, unit: str, _: CallbackOptions) -> list[Observation]:
        return [
            Observation(
                amount / _NANO,
                {names.LABEL_SCOPE: reading.scope, names.LABEL_PERIOD: reading.period},
            )
            for reading in self._readings
            if reading.unit == unit and (amount := getattr(reading, field)) is not None
        ]

    def _read_tiers(self, _: CallbackOptions) -> list[Observation]:
        worst: dict[str, int] = {}  # a scope may have a budget a day and one a month
        for reading in self._readings:
            worst[reading.scope] = max(worst.get(reading.scope, 0), TIERS[reading.tier])
        return [Observation(tier, {names.LABEL_SCOPE: scope}) for scope, tier in worst.items()]

    def _read_unverified(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(int(self._unverified))]

    # -- fork ----------------------------------------------------------------------------------

    def _after_fork(self) -> None:
        """What the parent counted, the parent reports; its writer may have held the lock."""
        self._end_awaited = False
        self._lock = threading.Lock()
        self._state = self._new_state()
        self._errors_counted = dict(internal_errors)
        with swallow("metrics: fork"):
            for provider in self._all_providers():
                _forget_collected(provider)

    def _all_providers(self) -> tuple[MeterProvider, ...]:
        # What was registered may be a proxy, which the application's own has replaced since.
        return (*self._providers, metrics.get_meter_provider())


_UNITS: Final = {"usd": "USD", "credits": "{credit}"}
_BUDGET_AMOUNTS: Final = (
    (names.METRIC_BUDGET_LIMIT, "usd", "limit", "The budget of the period."),
    (names.METRIC_BUDGET_SPENT, "usd", "spent", "Spent in the period."),
    (names.METRIC_BUDGET_HELD, "usd", "held", "Estimates of calls in flight."),
    (names.METRIC_BUDGET_PROJECTED, "usd", "projected", "Projected for the period's end."),
    (names.METRIC_BUDGET_CREDITS_LIMIT, "credits", "limit", "The budget of the period."),
    (names.METRIC_BUDGET_CREDITS_SPENT, "credits", "spent", "Spent in the period."),
    (names.METRIC_BUDGET_CREDITS_HELD, "credits", "held", "Estimates of calls in flight."),
    (names.METRIC_BUDGET_CREDITS_PROJECTED, "credits", "projected", "At the period's end."),
)


def _forget_collected(provider: object) -> None:
    """Make the SDK forget what it collected from our instruments.

    It keeps the last value of each series, by which a child's first difference would be negative,
    the parent's histogram, and the parent's start time. There is no public way.
    """
    consumer = getattr(provider, "_measurement_consumer", None)
    storages: dict[Any, Any] = getattr(consumer, "_reader_storages", {})
    for storage in storages.values():
        matches: dict[Any, Any] = getattr(storage, "_instrument_view_instrument_matches", {})
        for instrument in list(matches):
            scope = getattr(instrument, "instrumentation_scope", None)
            if getattr(scope, "name", None) == names.SCOPE_PROCESSOR:
                del matches[instrument]
