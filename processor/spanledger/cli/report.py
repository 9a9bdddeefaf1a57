"""`spanledger report`: what was spent, summed by tenant, feature, model, day or any other key."""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from spanledger.cli.amounts import decimal_text, usd_text
from spanledger.cli.arguments import (
    Subparsers,
    add_period,
    add_place,
    nanoseconds,
    open_to_read,
    period,
)
from spanledger.ledger.journal import Journal
from spanledger.ledger.journal_totals import DIMENSIONS, Total, Unpriced

Key = tuple[str | None, ...]
TREND_PARTS: Final = 8
_TOP: Final = 20


def add(subparsers: Subparsers) -> None:
    """Register `spanledger report`."""
    parser = subparsers.add_parser(
        "report",
        help="show what each tenant, user and feature spent",
        description="Sum the journal's charges. A sum that misses calls without a price is marked.",
    )
    parser.add_argument(
        "--by",
        type=_names,
        default="tenant,feature",
        metavar="NAME,…",
        help=f"{', '.join(DIMENSIONS)} or a further baggage key of yours; default: tenant,feature",
    )
    add_period(parser)
    add_place(parser)
    parser.add_argument(
        "--top",
        type=int,
        default=_TOP,
        metavar="N",
        help=f"rows of each group in the table, 0 for all; default: {_TOP}",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all of it as JSON, amounts exact")
    form.add_argument("--csv", action="store_true", help="the rows as CSV, amounts exact")
    parser.set_defaults(func=run)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in (part.strip() for part in text.split(",")) if name)
    if not names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different names")
    return names


@dataclass(frozen=True, slots=True)
class Group:
    """The rows that share `total.key`, and the groups into which they fall by the next name."""

    total: Total
    groups: "list[Group]" = field(default_factory=list["Group"])


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says, before it takes a form.

    since: start of the period; where none was asked for, the first call; None without calls.
    groups: by the first name in `by`; the last name's groups are the rows.
    trends: USD of each group in equal parts of the period.
    recorded: how many rows the journal holds, and from when to when, in Unix nanoseconds.
    fleet: the figures are those of a fleet's Prometheus, and rounded.
    unknown: measures that it does not have.
    estimated_nano_usd: the part of the cost that is estimated, where only that is known.
    saved: nano-USD of the total that was saved, by what.
    """

    place: str
    by: tuple[str, ...]
    since: datetime | None
    until: datetime
    total: Total
    groups: list[Group]
    trends: dict[Key, list[float]]
    unpriced: list[Unpriced]
    recorded: tuple[int, int | None, int | None]
    fleet: bool = False
    unknown: frozenset[str] = frozenset()
    estimated_nano_usd: int = 0
    saved: Mapping[str, int] = field(default_factory=dict[str, int])

    def rows(self) -> list[Total]:
        """The groups by all of the names in `by`, in order."""
        return [total for group in self.groups for total in _leaves(group)]


def _leaves(group: Group) -> Iterable[Total]:
    if not group.groups:
        yield group.total
    for inner in group.groups:
        yield from _leaves(inner)


def make_report(
    journal: Journal, by: tuple[str, ...], since: datetime | None, until: datetime
) -> Report:
    """Sum `journal`. Raises JournalError, also for a name in `by` that rows cannot be summed by."""
    recorded = journal.extent()
    if since is None and recorded[1] is not None:
        since = datetime.fromtimestamp(recorded[1] / 1e9, until.tzinfo)
    start, end = nanoseconds(since), nanoseconds(until)
    levels = [journal.totals(by[: depth + 1], start, end) for depth in range(len(by))]
    trends: dict[Key, list[float]] = {}
    _, first, last = recorded
    if first is not None and last is not None and "day" not in by:
        # Where there are calls at all: a day of calls in a long month shows its own course.
        drawn = max(start or first, first), min(end or last, last) + 1
        for depth in range(len(by)):
            trends |= journal.series(by[: depth + 1], *drawn, TREND_PARTS)
    return Report(
        journal.url,
        by,
        since,
        until,
        journal.totals((), start, end)[0],
        tree(levels, by),
        trends,
        journal.unpriced(start, end),
        recorded,
        saved=journal.saved(start, end),
    )


def tree(levels: Sequence[Sequence[Total]], by: Sequence[str]) -> list[Group]:
    """The totals of each depth as one tree: the dearest first, days in their order."""
    top: list[Group] = []
    above: dict[Key, list[Group]] = {(): top}
    for name, totals in zip(by, levels, strict=True):
        here: dict[Key, list[Group]] = {}
        for total in sorted(totals, key=_day) if name == "day" else totals:
            group = Group(total)
            above[total.key[:-1]].append(group)
            here[total.key] = group.groups
        above = here
    return top


def _day(total: Total) -> str:
    return total.key[-1] or ""


def run(arguments: argparse.Namespace) -> int:
    """Write the report; the exit code is 1 where there is no journal yet."""
    start, end = period(arguments)
    if arguments.prometheus is not None:
        report = _fleet_report(arguments, start, end)
    else:
        journal = open_to_read(arguments)
        if journal is None:
            return 1
        with closing(journal):
            report = make_report(journal, arguments.by, start, end)
    if arguments.json:
        print(json.dumps(as_json(report), indent=2))
    elif arguments.csv:
        _write_csv(report)
    else:
        from spanledger.cli.report_table import show  # noqa: PLC0415 - rich takes its time

        show(report, top=arguments.top)
    return 0


def _fleet_report(arguments: argparse.Namespace, since: datetime | None, until: datetime) -> Report:
    from spanledger.cli.prometheus import Prometheus  # noqa: PLC0415 - not for every report
    from spanledger.cli.report_prometheus import Fleet, make_fleet_report  # noqa: PLC0415

    fleet = Fleet(Prometheus(arguments.prometheus), daily="day" in arguments.by)
    return make_fleet_report(fleet, arguments.by, since, until)


def as_json(report: Report) -> dict[str, Any]:
    """The report for other programs; money and credits are texts of exact decimals."""
    return {
        "since": None if report.since is None else report.since.isoformat(),
        "until": report.until.isoformat(),
        "currency": "USD",
        **(_fleet_notes(report) if report.fleet else {}),
        "total": _measures(report, report.total),
        "rows": [_row(report, total) for total in report.rows()],
    }


def _fleet_notes(report: Report) -> dict[str, Any]:
    return {
        "place": report.place,
        "rounded": True,
        "estimated_usd": usd_text(report.estimated_nano_usd),
    }


def _row(report: Report, total: Total) -> dict[str, Any]:
    return dict(zip(report.by, total.key, strict=True)) | _measures(report, total)


def _measures(report: Report, total: Total) -> dict[str, Any]:
    measures = {
        "cost_usd": usd_text(total.nano_usd),
        "calls": total.calls,
        "uses": total.uses,
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "cache_read_tokens": total.cache_read_tokens,
        "cache_write_tokens": total.cache_write_tokens,
        "credits": decimal_text(total.credits),
        "unpriced_calls": total.unpriced_calls,
        "partial_calls": total.partial_calls,
        "estimated_calls": total.estimated_calls,
        "saved_usd": usd_text(total.saved_nano_usd),
    }
    return measures | dict.fromkeys(report.unknown)


def _write_csv(report: Report) -> None:
    writer = csv.DictWriter(
        sys.stdout, [*report.by, *_measures(report, report.total)], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(_row(report, total) for total in report.rows())
