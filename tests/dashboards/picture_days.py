"""The synthetic days with a life of their own: `python tests/dashboards/picture_days.py docs/pictures` draws the boards.

The same calls, over 18 days up to 18 November 2025, 17:00 UTC, a sample each 20 minutes. Nights and weekends are quiet, a
tenant grows, a feature runs away for an afternoon, a cache learns and is lost, and a budget wears thin.
"""

import math
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from stack_programs import DASHBOARDS, prometheus_with
from synthetic_days import END, START, STEP, STEPS, Counter, Days, Gauge, Kind, Labels

SCRAPE: Final = 1200
UNTIL: Final = int(datetime(2025, 11, 18, 17, tzinfo=UTC).timestamp())
BY_HOUR: Final = "111111123455445543322211"
RUNAWAY: Final = range(1006, 1021)  # the afternoon of 14 November
COLLAPSE: Final = 1180  # on the 17th, of what the cache holds of one kind of call
HELD_BACK: Final = {"throttled": 3, "degraded": 2, "degrade": 2, "blocked": 1}
BUDGETS: Final[tuple[tuple[str, str, int, Labels], ...]] = (
    ("global", "month", 1200, {}),
    ("tenant:acme", "month", 640, {"tenant": "acme"}),
    ("tenant:globex", "month", 900, {"tenant": "globex"}),
    ("feature:search", "day", 15, {"feature": "search"}),
)
LIMIT_IN_CREDITS: Final = 100_000
TYPED: Final = {"price": "1500", "active_users": "250"}
TIERS: Final = (0.7, 0.9, 1.1)
SECONDS_OF_A_CALL: Final = {"openai": 0.9, "anthropic": 1.6, "scavio": 0.5}


def when(step: int) -> datetime:
    return datetime.fromtimestamp(UNTIL - (STEPS - step) * SCRAPE, UTC)


def _times(step: int, number: int, kind: Kind) -> int:
    """How many times the usual calls are made in a step."""
    noise = (step * 2_654_435_761 + number * 40_503 >> 7) % 3
    times = busy(step) * (2 + noise)
    if kind.tenant == "newcomer":
        times = times * (step - kind.first_step) // 150
    if kind.tenant == "acme" and kind.feature == "summarise" and step in RUNAWAY:
        times *= 4
    return times


def _reuse(step: int, kind: Kind) -> float:
    """Calls that the cache answers, for each that it does not."""
    if kind.operation == "google.search" and step > COLLAPSE:
        return 0.1
    return {"chat": 0.15, "google.search": 0.5, "amazon.product": 0.3}[kind.operation] + step / 4000


def busy(step: int) -> int:
    """How busy the hour is, from 1 to 5; half of that at a weekend."""
    at = when(step)
    busy = int(BY_HOUR[at.hour])
    return busy if at.weekday() < 5 else (busy + 1) // 2


class Alert(Gauge):
    """One that fires from a step on."""

    first_step = 0

    def samples(self) -> list[tuple[int, float]]:
        return [
            sample for sample in super().samples() if sample[0] >= START + self.first_step * STEP
        ]


class PictureDays(Days):
    def openmetrics(self) -> str:
        """As it is, with the times moved: the steps are longer, and end later."""

        def moved(at: re.Match[str]) -> str:
            return f" {UNTIL - (END - int(at[1])) * SCRAPE // STEP}"

        return re.sub(r" (\d+)$", moved, super().openmetrics(), flags=re.MULTILINE)

    def _count(
        self, name: str, number: int, kind: Kind, each: Callable[[int], int], **more: str
    ) -> Counter:
        what = more.get("outcome") or more.get("reason") or name
        if name == "unpriced_calls" and kind.provider == "scavio":
            more["reason"] = "no_credit_price"
        # A step that adds something to each of them, for the calls to vary by the hour alone.
        usual = next(s for s in range(1, 30, 6) if (s * 7 + number * 13) % 5 == 0)

        def lively(step: int) -> int:
            times = _times(step, number, kind)
            if what in HELD_BACK:
                searching = kind.feature == "search" and busy(step) >= 4
                return each(0) * searching * (times * HELD_BACK[what] // 30)
            if what in {"cached", "cache"}:
                return each(usual) * round(times * _reuse(step, kind))
            if what in {"deduplicated", "single_flight"}:
                return each(usual) * (times // 9)
            if name == "unpriced_calls":
                return (
                    each(0) * (times % 5 == 0) * (kind.operation == "amazon.product" or number == 8)
                )
            if name == "internal_errors":
                return each(step)
            if name == "estimated_cost_USD":
                times *= number % 4
            return each(step if name == "call_duration_seconds" else usual) * times

        return super()._count(name, number, kind, lively, **more)

    def _count_buckets(self, number: int, kind: Kind, limit: str, part: int) -> None:
        if limit != "+Inf":
            return
        mean = SECONDS_OF_A_CALL[kind.provider]

        def faster(le: str) -> Callable[[int], int]:
            return lambda s: round(1e6 * (1 - math.exp(-float(le) / mean / (0.8 + busy(s) / 8))))

        for le in ("0.25", "0.5", "1", "2", "4", "8", "+Inf"):
            made = self._count("call_duration_seconds", number, kind, faster(le), le=le)
            made.name = "spanledger_call_duration_seconds_bucket"

    def _gauge(self, name: str, value: Callable[[int], float], **labels: str) -> None:
        if name == "credits_remaining":
            left, balance = [], 90_000.0
            used = [c for c in self.counters if c.name == "spanledger_credits_total"]
            for step in range(STEPS + 1):
                balance -= sum(counter.added[step] for counter in used) / 1e6
                left.append(balance)
            super()._gauge(name, lambda at: left[(at - START) // STEP], **labels)
        else:
            super()._gauge(name, value, **labels)

    def _books(self) -> None:
        super()._books()
        self.gauges = [gauge for gauge in self.gauges if gauge.name != "ALERTS"]
        unpriced = {"provider": "scavio", "reason": "no_credit_price"}
        self._alert(310, "UnpricedCalls", about="books", **unpriced)
        collapsed = {"provider": "scavio", "operation": "google.search"}
        self._alert(COLLAPSE + 6, "CacheHitRateCollapsed", about="data_layer", **collapsed)

    def _budgets(self) -> None:
        for scope, period, limit, labels in BUDGETS:
            self._budget(scope, period, limit, labels)
        self._budget_in_credits(LIMIT_IN_CREDITS)

    def _budget(self, scope: str, period: str, limit: int, labels: Labels) -> None:
        spent = self._running_total(period, labels)
        tiers = {
            at: sum((usd + 0.25) / limit >= tier for tier in TIERS) for at, usd in spent.items()
        }
        steps = {at: (at - START) // STEP for at in spent}
        for process in ("0", "1"):
            at = {"scope": scope, "period": period, "job": "api", "instance": process}
            self._gauge("budget_limit_USD", lambda _: limit, **at)
            self._gauge("budget_spent_USD", lambda t: spent[t], **at)
            self._gauge("budget_held_USD", lambda _: 0.25, **at)
            self._gauge(
                "budget_projected_USD",
                lambda t: spent[t] / max(_gone_by(when(steps[t]), period), 0.1),
                **at,
            )
            self._gauge("budget_tier", lambda t: tiers[t], **{**at, "period": ""})
        if tier := tiers[END]:
            since = 1 + max(steps[at] for at in spent if tiers[at] != tier)
            name = ("Warning", "Critical", "Hard")[tier - 1]
            severity = "warning" if tier == 1 else "critical"
            self._alert(since, f"Budget{name}", severity, about="budget", scope=scope)

    def _running_total(
        self, period: str, labels: Labels, name: str = "spanledger_cost_USD_total"
    ) -> dict[int, float]:
        costs = [
            counter
            for counter in self.counters
            if counter.name == name and labels.items() <= counter.labels.items()
        ]
        totals, value = {}, 0
        for step in range(STEPS + 1):
            value += sum(counter.added[step] for counter in costs)
            at = when(step)
            if at.hour == at.minute == 0 and (period == "day" or at.day == 1):
                value = 0
            totals[START + step * STEP] = value / 1e6
        return totals

    def _alert(self, first_step: int, name: str, severity: str = "warning", **labels: str) -> None:
        state = {"alertname": f"Spanledger{name}", "alertstate": "firing", "severity": severity}
        alert = Alert("ALERTS", {**state, **labels}, lambda _: 1)
        alert.first_step = first_step
        self.gauges.append(alert)


def _gone_by(at: datetime, period: str) -> float:
    day = at.hour / 24 + at.minute / 1440
    return day if period == "day" else (at.day - 1 + day) / 30


def main() -> None:
    sys.path.append(str(DASHBOARDS / "grafana"))
    from pictures.__main__ import draw_all
    from pictures.answers import Span

    span = Span(UNTIL - 9 * 86_400, UNTIL, SCRAPE)
    with (
        tempfile.TemporaryDirectory() as folder,
        prometheus_with(PictureDays().openmetrics(), Path(folder)) as url,
    ):
        draw_all(url, span, Path(sys.argv[1]), TYPED)


if __name__ == "__main__":
    main()
