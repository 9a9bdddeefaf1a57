"""Nine days of a small company's metrics, known to the cent: what a Prometheus is filled with to test the boards.

From 25 October to 2 November 2025, 23:00 UTC, over a month's start, a sample each ten minutes. Counters start at 0. On
the fifth day a process restarts (its counters start again) and a new tenant appears.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

STEP: Final = 600
START: Final = int(datetime(2025, 10, 25, tzinfo=UTC).timestamp())
MONTH: Final = int(datetime(2025, 11, 1, tzinfo=UTC).timestamp())
TODAY: Final = int(datetime(2025, 11, 2, tzinfo=UTC).timestamp())
END: Final = int(datetime(2025, 11, 2, 23, tzinfo=UTC).timestamp())
STEPS: Final = (END - START) // STEP
RESTART: Final = 600  # a step of the fifth day

Labels = Mapping[str, str]


class Kind(NamedTuple):
    """One kind of call that the company makes."""

    provider: str
    model: str
    operation: str
    tenant: str
    feature: str
    microusd: int
    first_step: int = 0

    @property
    def labels(self) -> dict[str, str]:
        return {
            name: getattr(self, name)
            for name in ("provider", "model", "operation", "tenant", "feature")
        }


KINDS: Final = (
    Kind("openai", "gpt-5", "chat", "acme", "search", 21_000),
    Kind("openai", "gpt-5", "chat", "acme", "summarise", 34_000),
    Kind("openai", "gpt-5-mini", "chat", "globex", "search", 1_700),
    Kind("anthropic", "claude-sonnet-4-5", "chat", "globex", "summarise", 48_000),
    Kind("anthropic", "claude-sonnet-4-5", "chat", "", "", 13_000),
    Kind("scavio", "", "google.search", "acme", "search", 900),
    Kind("scavio", "", "google.search", "other", "search", 1_100),
    Kind("scavio", "", "amazon.product", "globex", "search", 2_300),
    Kind("openai", "gpt-5-mini", "chat", "newcomer", "search", 2_900, RESTART + 50),
)


@dataclass
class Counter:
    """What is added in each step, in millionths; sums are exact."""

    name: str
    labels: dict[str, str]
    added: list[int] = field(default_factory=lambda: [0] * (STEPS + 1))
    first_step: int = 0
    restarts: bool = False

    def samples(self) -> Iterable[tuple[int, float]]:
        value = 0
        for step in range(self.first_step, STEPS + 1):
            if self.restarts and step == RESTART:
                value = 0
            value += self.added[step]
            yield START + step * STEP, value / 1e6


@dataclass
class Gauge:
    name: str
    labels: dict[str, str]
    value: Callable[[int], float]

    def samples(self) -> Iterable[tuple[int, float]]:
        return ((at, self.value(at)) for at in range(START, END + 1, STEP))


class Days:
    """The series, and what they add up to."""

    def __init__(self) -> None:
        self.counters: list[Counter] = []
        self.gauges: list[Gauge] = []
        for number, kind in enumerate(KINDS):
            self._calls(number, kind)
        self._books()
        self._budgets()

    def total(
        self, name: str, since: int, until: int = END, by: str = "", **labels: str | tuple[str, ...]
    ) -> dict[str, float]:
        """What `name` grew by from `since` to `until`, of the series with these labels.

        By the labels `by` ("tenant, feature"): their values, in the order of the labels' names.
        """
        first, last = (since - START) // STEP + 1, (until - START) // STEP
        sums: dict[str, int] = defaultdict(int)
        for counter in self.counters:
            if counter.name == name and all(
                counter.labels.get(label, "") in ((value,) if isinstance(value, str) else value)
                for label, value in labels.items()
            ):
                values = (counter.labels.get(label, "") for label in sorted(by.split(", ")))
                sums[" ".join(filter(None, values))] += sum(counter.added[max(first, 0) : last + 1])
        return {key: amount / 1e6 for key, amount in sums.items() if amount}

    def openmetrics(self) -> str:
        lines = []
        by_name: dict[str, list[Counter | Gauge]] = defaultdict(list)
        for series in (*self.counters, *self.gauges):
            by_name[series.name].append(series)
        for name, group in by_name.items():
            kind = "counter" if name.endswith("_total") else "unknown"
            lines.append(f"# TYPE {name.removesuffix('_total')} {kind}")
            for series in group:
                labels = ",".join(f'{k}="{v}"' for k, v in series.labels.items() if v)
                lines += [f"{name}{{{labels}}} {value} {at}" for at, value in series.samples()]
        return "\n".join([*lines, "# EOF", ""])

    # -- what is in them -----------------------------------------------------------------------------------

    def _count(
        self, name: str, number: int, kind: Kind, each: Callable[[int], int], **more: str
    ) -> Counter:
        """A counter of one kind of call; `each` says how many millionths a step adds."""
        process = str(number % 2)
        counter = Counter(
            f"spanledger_{name}_total",
            {**kind.labels, **more, "job": "api", "instance": process},
            first_step=kind.first_step,
            restarts=process == "1",
        )
        for step in range(kind.first_step + 1, STEPS + 1):
            # A restarted process comes back with 0; what it does in that step is counted from the next one on.
            if not (counter.restarts and step == RESTART):
                counter.added[step] = each(step)
        self.counters.append(counter)
        return counter

    def _calls(self, number: int, kind: Kind) -> None:
        def busy(step: int) -> int:
            return 1 + (step * 7 + number * 13) % 5  # 1 to 5 paid calls in ten minutes

        million = 1_000_000
        cost = kind.microusd
        self._count("cost_USD", number, kind, lambda s: busy(s) * cost)
        self._count("estimated_cost_USD", number, kind, lambda s: busy(s) * cost // 20)
        self._count("calls", number, kind, lambda s: busy(s) * million, outcome="ok")
        self._count("calls", number, kind, lambda s: (s % 3) * million, outcome="cached")
        self._count("calls", number, kind, lambda s: (s % 2) * million, outcome="deduplicated")
        for outcome in ("throttled", "degraded", "blocked"):
            self._count("calls", number, kind, lambda s: (s % 6 == 0) * million, outcome=outcome)
        self._count("saved_USD", number, kind, lambda s: (s % 3) * cost, reason="cache")
        self._count("saved_USD", number, kind, lambda s: (s % 2) * cost, reason="single_flight")
        self._count("saved_USD", number, kind, lambda s: (s % 6 == 0) * cost, reason="degrade")
        self._count(
            "unpriced_calls",
            number,
            kind,
            lambda s: (s % 48 == 0) * million,
            reason="unknown_model",
        )
        for limit, part in (("0.5", 8), ("2", 18), ("8", 20), ("+Inf", 20)):
            self._count_buckets(number, kind, limit, part)
        if kind.model:
            self._count("tokens", number, kind, lambda s: busy(s) * 900 * million, type="input")
            self._count("tokens", number, kind, lambda s: busy(s) * 100 * million, type="output")
        else:
            self._count("credits", number, kind, lambda s: busy(s) * 2 * million)
        uses = Kind("", "", "", kind.tenant, kind.feature, 0, kind.first_step)
        self._count("feature_uses", number, uses, lambda s: million).labels["job"] = f"api-{number}"

    def _count_buckets(self, number: int, kind: Kind, limit: str, part: int) -> None:
        made = self._count(
            "call_duration_seconds", number, kind, lambda _: part * 1_000_000, le=limit
        )
        made.name = "spanledger_call_duration_seconds_bucket"

    def _books(self) -> None:
        nobody = Kind("", "", "", "", "", 0)
        self._count(
            "internal_errors", 0, nobody, lambda s: (s % 100 == 0) * 1_000_000, reason="settle"
        )
        job = {"job": "api", "instance": "0"}
        self._gauge("ledger_unverified", lambda _: 0, **job)
        self._gauge("prices_timestamp_seconds", lambda _: START - 86_400 * 3, **job)
        self._gauge(
            "credits_remaining", lambda at: 100_000 - (at - START) / 60, provider="scavio", **job
        )
        for name, about in (
            ("BudgetWarning", "budget"),
            ("NoData", "books"),
            ("CacheHitRateCollapsed", "data_layer"),
        ):
            labels = {"alertname": f"Spanledger{name}", "alertstate": "firing", "about": about}
            self.gauges.append(
                Gauge(
                    "ALERTS", {**labels, "severity": "warning", "scope": "tenant:acme"}, lambda _: 1
                )
            )

    def _budgets(self) -> None:
        for scope, period, limit, labels in (
            ("global", "month", 60, {}),
            ("tenant:acme", "month", 20, {"tenant": "acme"}),
            ("feature:search", "day", 5, {"feature": "search"}),
        ):
            self._budget(scope, period, limit, labels)
        self._budget_in_credits(1000)

    def _budget_in_credits(self, limit: int) -> None:
        """Scavio's, for the month."""
        spent = self._running_total("month", {}, "spanledger_credits_total")
        at = {"scope": "provider:scavio", "period": "month", "job": "api", "instance": "0"}
        self._gauge("budget_credits_limit", lambda _: limit, **at)
        self._gauge("budget_credits_spent", lambda t: spent[t], **at)
        self._gauge("budget_credits_held", lambda _: 2, **at)
        self._gauge("budget_credits_projected", lambda t: spent[t] * 2, **at)
        self._gauge("budget_tier", lambda _: 1, **{**at, "period": ""})

    def _budget(self, scope: str, period: str, limit: int, labels: Labels) -> None:
        spent = self._running_total(period, labels)
        for process in ("0", "1"):  # each reports the same, from the ledger
            at = {"scope": scope, "period": period, "job": "api", "instance": process}
            self._gauge("budget_limit_USD", lambda _: limit, **at)
            self._gauge("budget_spent_USD", lambda t: spent[t], **at)
            self._gauge("budget_held_USD", lambda _: 0.25, **at)
            self._gauge("budget_projected_USD", lambda t: spent[t] * 2, **at)
            self._gauge(
                "budget_tier", lambda t: min(3, int(4 * spent[t] / limit)), **{**at, "period": ""}
            )

    def _running_total(
        self, period: str, labels: Labels, name: str = "spanledger_cost_USD_total"
    ) -> dict[int, float]:
        """What was spent since the month (or day) began, at each sample."""
        totals, value = {}, 0
        costs = [c for c in self.counters if c.name == name and labels.items() <= c.labels.items()]
        for step in range(STEPS + 1):
            at = START + step * STEP
            value += sum(counter.added[step] for counter in costs)
            if at == MONTH or (period == "day" and at % 86_400 == 0):
                value = 0
            totals[at] = value / 1e6
        return totals

    def _gauge(self, name: str, value: Callable[[int], float], **labels: str) -> None:
        self.gauges.append(Gauge(f"spanledger_{name}", labels, value))
