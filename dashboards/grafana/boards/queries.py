"""The PromQL that the boards share: names of metrics, selections, sums, periods.

Names come from `spanledger.api.names`, spelled as Prometheus spells them: dots become underscores,
then the unit, then `_total` on a counter. Counters are summed over processes; budgets' gauges are
the same in each: their maximum.
"""

from dataclasses import dataclass
from typing import Final

from spanledger.api import names


def _gauge(name: str, unit: str = "") -> str:
    return "_".join(filter(None, (name.replace(".", "_"), unit)))


def _counter(name: str, unit: str = "") -> str:
    return f"{_gauge(name, unit)}_total"


COST: Final = _counter(names.METRIC_COST, "USD")
ESTIMATED: Final = _counter(names.METRIC_ESTIMATED_COST, "USD")
TOKENS: Final = _counter(names.METRIC_TOKENS)
CREDITS: Final = _counter(names.METRIC_CREDITS)
CREDITS_REMAINING: Final = _gauge(names.METRIC_CREDITS_REMAINING)
CALLS: Final = _counter(names.METRIC_CALLS)
SAVED: Final = _counter(names.METRIC_SAVED, "USD")
UNPRICED: Final = _counter(names.METRIC_UNPRICED)
USES: Final = _counter(names.METRIC_FEATURE_USES)
DURATION: Final = f"{_gauge(names.METRIC_DURATION, 'seconds')}_bucket"
LIMIT: Final = _gauge(names.METRIC_BUDGET_LIMIT, "USD")
SPENT: Final = _gauge(names.METRIC_BUDGET_SPENT, "USD")
HELD: Final = _gauge(names.METRIC_BUDGET_HELD, "USD")
PROJECTED: Final = _gauge(names.METRIC_BUDGET_PROJECTED, "USD")
CREDITS_LIMIT: Final = _gauge(names.METRIC_BUDGET_CREDITS_LIMIT)
CREDITS_SPENT: Final = _gauge(names.METRIC_BUDGET_CREDITS_SPENT)
CREDITS_HELD: Final = _gauge(names.METRIC_BUDGET_CREDITS_HELD)
CREDITS_PROJECTED: Final = _gauge(names.METRIC_BUDGET_CREDITS_PROJECTED)
TIER: Final = _gauge(names.METRIC_BUDGET_TIER)
UNVERIFIED: Final = _gauge(names.METRIC_LEDGER_UNVERIFIED)
PRICES: Final = _gauge(names.METRIC_PRICES_TIMESTAMP, "seconds")
INTERNAL_ERRORS: Final = _counter(names.METRIC_INTERNAL_ERRORS)

CALL_LABELS: Final = (
    names.LABEL_PROVIDER,
    names.LABEL_MODEL,
    names.LABEL_OPERATION,
    names.LABEL_TENANT,
    names.LABEL_FEATURE,
)

RANGE: Final = "$__range"
RATE: Final = "$__rate_interval"

SERVED: Final = 'outcome=~"ok|error|cached|deduplicated|degraded"'
"""Calls that were answered; the others were refused."""
GIVEN_AND_MADE: Final = 'type=~"input|output"'
"""All tokens, each once: the other types are parts of these."""
UNPAID: Final = 'outcome=~"cached|deduplicated"'


@dataclass(frozen=True)
class Selection:
    """What a board looks at: the labels it has variables for, and matchers that always hold."""

    labels: tuple[str, ...]
    fixed: tuple[str, ...] = ()

    def of(self, metric: str, *matchers: str) -> str:
        """The series of `metric` that the board looks at."""
        chosen = [f'{label}=~"${label}"' for label in self.labels]
        return f"{metric}{{{', '.join([*chosen, *self.fixed, *matchers])}}}"

    def total(
        self, metric: str, *matchers: str, by: str = "", window: str = RANGE, offset: str = ""
    ) -> str:
        """What the counter `metric` grew by within `window`, summed by the labels `by`."""
        shift = f" offset {offset}" if offset else ""
        growth = f"increase({self.of(metric, *matchers)}[{window}]{shift})"
        return f"sum by ({by}) ({growth})" if by else f"sum({growth})"

    def daily(self, metric: str, *matchers: str, by: str = "") -> str:
        """`total` day by day: at a step of a day, each amount stands on its own day."""
        return self.total(metric, *matchers, by=by, window="1d", offset="-1d")

    def highest(self, metric: str, by: str = "scope, period") -> str:
        """The gauge `metric`, which every process reports, by the labels `by`."""
        return f"max by ({by}) ({self.of(metric)})"


MONTH_SECONDS: Final = "days_in_month() * 86400"

_ELAPSED: Final = {
    "month": "(day_of_month() - 1 + hour() / 24 + minute() / 1440) / days_in_month()",
    "week": "((day_of_week() + 6) % 7 + hour() / 24 + minute() / 1440) / 7",
    "day": "hour() / 24 + minute() / 1440",
}
_DAYS: Final = {"month": "days_in_month()", "week": "vector(7)", "day": "vector(1)"}


def elapsed_by_period() -> str:
    """The part of the month, week and day (UTC) that has gone by, by the label `period`."""
    return _by_period(_ELAPSED)


def days_left_by_period() -> str:
    """Days to the end of the month, week and day (UTC), by the label `period`."""
    return _by_period({kind: f"{_DAYS[kind]} * (1 - ({part}))" for kind, part in _ELAPSED.items()})


def _by_period(expressions: dict[str, str]) -> str:
    return " or ".join(
        f'label_replace({expression}, "period", "{kind}", "", "")'
        for kind, expression in expressions.items()
    )


def month_end(so_far: str, pace: str) -> str:
    """`so_far`, since the month's start, and the rest of the month at `pace` (per second)."""
    return f"{so_far} + scalar(clamp_min({MONTH_SECONDS} - $__range_s, 0)) * {pace}"


def pace(selection: Selection) -> str:
    """USD a second, averaged over those of the last seven days that have data."""
    return f"avg_over_time(sum(rate({selection.of(COST)}[1h]))[7d:1h])"
