"""The figures of a whole fleet, from its Prometheus: what `report` and `digest` say with
`--prometheus`.

Counters grow by `increase()`, which minds restarts, summed over all processes. It takes the first
value of a series for nothing new, which is why spanledger's series begin with 0; and between two
scrapes it can only reckon: so amounts are rounded, and an invoice is a matter for the journal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, NamedTuple, cast

from spanledger.api import names
from spanledger.api.errors import ConfigurationError
from spanledger.budget.amounts import Unit, to_nano
from spanledger.budget.periods import PeriodKind
from spanledger.budget.tiers import NAMES as TIERS
from spanledger.budget.windows import BudgetReading
from spanledger.cli.arguments import midnight
from spanledger.cli.prometheus import Prometheus, Sample
from spanledger.cli.report import TREND_PARTS, Key, Report, tree
from spanledger.ledger.journal_totals import SAVED_BY, Total, Unpriced

LABELS: Final[Mapping[str, str]] = {
    "tenant": names.LABEL_TENANT,
    "feature": names.LABEL_FEATURE,
    "provider": names.LABEL_PROVIDER,
    "model": names.LABEL_MODEL,
    "operation": names.LABEL_OPERATION,
    "service": "job",
}
"""What the metrics can be summed by, and the label for it; besides, by day."""

_USES_BY: Final = frozenset({"tenant", "feature", "service", "day"})
_COST: Final = "spanledger_cost_USD_total"
_UNPRICED: Final = "spanledger_unpriced_calls_total"
_SAVED: Final = "spanledger_saved_USD_total"
_SAVED_BY: Final = {"cache": "cached", "single_flight": "deduplicated"}
_CREDITS: Final = "usd_per_credit"  # the price book's reason for credits without a price


class _Line(NamedTuple):
    """What one label set grew by. labels: in the order of `LABELS`, with the day at the end."""

    labels: Key
    measure: str
    amount: Decimal


class Fleet:
    """What a Prometheus knows of a fleet's spend. All methods raise SpanledgerError.

    daily: ask for each day by itself, for sums by day.
    """

    def __init__(self, prometheus: Prometheus, *, daily: bool = False) -> None:
        self.place = f"the fleet's Prometheus at {prometheus.name}; amounts are rounded"
        self._prometheus = prometheus
        self._daily = daily
        self._known: dict[tuple[datetime, datetime], list[_Line]] = {}

    def totals(self, by: Sequence[str], since: datetime, until: datetime) -> list[Total]:
        """What the fleet spent, summed by the names in `by`, the dearest first. Calls that are
        priced in part or estimated are not told apart; uses are 0 where nobody counts them so.
        """
        sums: dict[Key, dict[str, Decimal]] = {}
        places = [_PLACES[name] for name in by]
        for line in self._lines(since, until):
            measures = sums.setdefault(tuple(line.labels[place] for place in places), {})
            measures[line.measure] = measures.get(line.measure, Decimal(0)) + line.amount
        if not by:
            sums.setdefault((), {})
        found = [_total(key, measures) for key, measures in sums.items()]
        if not by:
            return found
        kept = [total for total in found if any(total[1:])]
        if not _USES_BY.issuperset(by):
            kept = [total._replace(uses=0) for total in kept if any(total._replace(uses=0)[1:])]
        return sorted(kept, key=lambda t: (-(t.nano_usd or 0), -t.credits, -t.calls, str(t.key)))

    def estimated(self, since: datetime, until: datetime) -> int:
        """The part of the cost that is estimated, nano-USD."""
        lines = self._lines(since, until)
        return to_nano(sum((n.amount for n in lines if n.measure == "estimated"), Decimal(0)))

    def saved(self, since: datetime, until: datetime) -> dict[str, int]:
        """Nano-USD saved, by what. Only calls of models are degraded to a cheaper one."""
        found: dict[str, int] = {}
        for (reason, model), amount in self._grown(
            _SAVED, ("reason", "model"), since, until
        ).items():
            degraded = "cheaper_model" if model else "stale"
            why = _SAVED_BY.get(reason or "", degraded)
            if nano_usd := to_nano(amount):
                found[why] = found.get(why, 0) + nano_usd
        return {why: found[why] for why in SAVED_BY if why in found}

    def unpriced(self, since: datetime, until: datetime) -> list[Unpriced]:
        """Why calls have no price, most frequent reason first."""
        by = ("provider", "model", "reason")
        calls = self._grown(_UNPRICED, by, since, until)
        credits_of = {(t.key): t.credits for t in self.totals(("provider", "model"), since, until)}
        found = [
            Unpriced(
                provider or "",
                model,
                reason,
                "unknown",
                count,
                credits_of.get((provider, model), Decimal(0)) if reason == _CREDITS else Decimal(0),
            )
            for (provider, model, reason), amount in calls.items()
            if (count := _whole(amount))
        ]
        return sorted(found, key=lambda line: -line.calls)

    def series(
        self, by: Sequence[str], since: datetime, until: datetime, parts: int
    ) -> dict[Key, list[float]]:
        """USD by group in `parts` equal parts of the time, for drawing."""
        step = (until - since) / parts
        labels = [LABELS[name] for name in by]
        rows = self._prometheus.query_range(
            f"sum by ({', '.join(labels)}) (increase({_COST}[{_milliseconds(step)}ms]))",
            since + step,
            until + step / 2,  # the last part ends at `until`, give or take the rounding of a step
            step.total_seconds(),
        )
        first = (since + step).timestamp()
        drawn: dict[Key, list[float]] = {}
        for row in rows:
            key = tuple(row.labels.get(label) or None for label in labels)
            values = drawn.setdefault(key, [0.0] * parts)
            for at, value in row.values.items():
                part = round((at - first) / step.total_seconds())
                values[min(part, parts - 1)] += float(value)
        return drawn

    def budgets(self, now: datetime) -> list[BudgetReading]:
        """The budgets as they stand `now`. Every process reports each, from the ledger."""

        def gauge(what: str, *by: str) -> dict[Key, Decimal]:
            rows = self._prometheus.query(f"max by ({', '.join(by)}) (spanledger_{what})", now)
            return {tuple(row.labels.get(name) or "" for name in by): row.value for row in rows}

        scoped = (names.LABEL_SCOPE, names.LABEL_PERIOD)
        tiers = gauge("budget_tier", names.LABEL_SCOPE)
        unverified = any(gauge("ledger_unverified", "job").values())
        nothing = Decimal(0)
        readings: list[BudgetReading] = []
        for unit, metric in _BUDGETS.items():
            limits, spent, held, projected = (
                gauge(metric.format(what), *scoped)
                for what in ("limit", "spent", "held", "projected")
            )
            readings += [
                BudgetReading(
                    str(key[0]),
                    cast("PeriodKind", key[1]),
                    unit,
                    to_nano(limit),
                    to_nano(spent.get(key, nothing)),
                    to_nano(held.get(key, nothing)),
                    to_nano(projected[key]) if key in projected else None,
                    TIERS[int(tiers.get(key[:1], nothing))],
                    unverified,
                )
                for key, limit in limits.items()
            ]
        return readings

    # -- asking ------------------------------------------------------------------------------------

    def _lines(self, since: datetime, until: datetime) -> list[_Line]:
        """What every label set grew by. Asked once."""
        if (since, until) not in self._known:
            spans = _days(since, until) if self._daily else [(None, since, until)]
            self._known[since, until] = [line for span in spans for line in self._measured(*span)]
        return self._known[since, until]

    def _measured(self, day: str | None, since: datetime, until: datetime) -> Iterator[_Line]:
        for metric, measure in _MEASURES.items():
            more = () if measure else ("type",)
            for key, amount in self._grown(metric, (*LABELS, *more), since, until).items():
                kind = measure or f"{key[-1]}_tokens"
                if amount:
                    yield _Line((*key[: len(LABELS)], day), kind, amount)

    def _grown(
        self, metric: str, by: Iterable[str], since: datetime, until: datetime
    ) -> dict[Key, Decimal]:
        """What a counter grew by, by the names in `by`."""
        labels = [LABELS.get(name, name) for name in by]
        span = _milliseconds(until - since)
        rows = self._prometheus.query(
            f"sum by ({', '.join(labels)}) (increase({metric}[{span}ms]))", until
        )
        return {_key(row, labels): row.value for row in rows if row.values}


_BUDGETS: Final[Mapping[Unit, str]] = {"usd": "budget_{}_USD", "credits": "budget_credits_{}"}
_PLACES: Final = {name: place for place, name in enumerate((*LABELS, "day"))}
# The tokens' measures are named by the metric's own label.
_MEASURES: Final = {
    _COST: "cost",
    "spanledger_estimated_cost_USD_total": "estimated",
    "spanledger_calls_total": "calls",
    "spanledger_feature_uses_total": "uses",
    'spanledger_tokens_total{type=~"input|output|cache_read|cache_write"}': "",
    "spanledger_credits_total": "credits",
    _UNPRICED: "unpriced",
    _SAVED: "saved",
}


def make_fleet_report(
    fleet: Fleet, by: tuple[str, ...], since: datetime | None, until: datetime
) -> Report:
    """The report of a fleet. Raises SpanledgerError, and ConfigurationError for a name in `by` that
    is no label, or without a start.
    """
    for name in by:
        if name not in LABELS and name != "day":
            raise _error("--by", _NO_LABEL.get(name, f"{name} is no label of the metrics"), _USE)
    if since is None:
        raise _error("--since", "Prometheus has no first call", "Say since when, such as 30d.")
    levels = [fleet.totals(by[: depth + 1], since, until) for depth in range(len(by))]
    trends: dict[Key, list[float]] = {}
    if "day" not in by:
        for depth in range(len(by)):
            trends |= fleet.series(by[: depth + 1], since, until, TREND_PARTS)
    unknown = {"partial_calls", "estimated_calls"}
    if not _USES_BY.issuperset(by):
        unknown.add("uses")
    return Report(
        fleet.place,
        by,
        since,
        until,
        fleet.totals((), since, until)[0],
        tree(levels, by),
        trends,
        fleet.unpriced(since, until),
        (0, None, None),
        fleet=True,
        unknown=frozenset(unknown),
        estimated_nano_usd=fleet.estimated(since, until),
        saved=fleet.saved(since, until),
    )


_NO_LABEL: Final = {
    "user": "users are no label of the metrics: one series a user has no bound",
    "outcome": "outcome is a label of calls, not of what they cost",
}
_USE: Final = (
    f"Use {', '.join(LABELS)} or day; the journal (without --prometheus) and the charge events "
    "have everything else."
)


def _error(key: str, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(problem, source="command line", key=key, remedy=remedy)


def _key(row: Sample, labels: Sequence[str]) -> Key:
    return tuple(row.labels.get(label) or None for label in labels)


def _total(key: Key, measures: Mapping[str, Decimal]) -> Total:
    def amount(name: str, convert: Callable[[Decimal], int]) -> int:
        return convert(measures.get(name, Decimal(0)))

    calls, unpriced = amount("calls", _whole), amount("unpriced", _whole)
    cost = amount("cost", to_nano)
    return Total(
        key,
        # Where no call has a price, nobody knows what they cost.
        None if not cost and unpriced >= max(calls, 1) else cost,
        calls,
        amount("uses", _whole),
        amount("input_tokens", _whole),
        amount("output_tokens", _whole),
        amount("cache_read_tokens", _whole),
        amount("cache_write_tokens", _whole),
        _rounded(measures.get("credits", Decimal(0))),
        unpriced,
        0,
        0,
        amount("saved", to_nano),
    )


def _whole(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_EVEN))


def _rounded(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.001"), ROUND_HALF_EVEN)


def _milliseconds(span: timedelta) -> int:
    return max(round(span / timedelta(milliseconds=1)), 1)


def _days(since: datetime, until: datetime) -> Iterator[tuple[str, datetime, datetime]]:
    """The days of this machine's time zone from `since` to `until`."""
    start = since.astimezone()
    while start < until:
        end = min(midnight(start + timedelta(hours=36 - start.hour)), until)
        yield start.date().isoformat(), start, end
        start = end.astimezone()
