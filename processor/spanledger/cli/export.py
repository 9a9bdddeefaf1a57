"""`spanledger export`: the rows of the journal, for other programs."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from spanledger.cli.amounts import decimal_text, usd_text
from spanledger.cli.arguments import (
    EPOCH,
    Subparsers,
    add_journal,
    add_period,
    nanoseconds,
    open_to_read,
    period,
)
from spanledger.ledger.journal_rows import Row, exact


def add(subparsers: Subparsers) -> None:
    """Register `spanledger export`."""
    parser = subparsers.add_parser(
        "export",
        help="write the rows of the journal as JSON lines or CSV",
        description="Write the rows of the journal, one a paid call, to standard output.",
    )
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    add_period(parser)
    add_journal(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the rows; the exit code is 1 where there is no journal yet."""
    start, end = period(arguments)
    journal = open_to_read(arguments)
    if journal is None:
        return 1
    with closing(journal):
        rows = journal.rows(nanoseconds(start), nanoseconds(end))
        if arguments.format == "csv":
            _write_csv(rows)
        else:
            for row in rows:
                sys.stdout.write(json.dumps(record(row)) + "\n")
    return 0


def _write_csv(rows: Iterable[Row]) -> None:
    writer = csv.DictWriter(sys.stdout, _NAMES, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        fields = record(row)
        for name in ("units", "attributes"):
            fields[name] = json.dumps(fields[name]) if fields[name] else None
        writer.writerow(fields)


def record(row: Row) -> dict[str, Any]:
    """`row` by the names under which it leaves; money and credits are texts of exact decimals."""
    return {
        name: _CONVERSIONS[name](row) if name in _CONVERSIONS else getattr(row, name)
        for name in _NAMES
    }


def _timestamp(row: Row) -> str:
    started = EPOCH + timedelta(microseconds=row.timestamp_ns // 1000)
    return started.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _decimal(amount: Decimal | None) -> str | None:
    return None if amount is None else decimal_text(amount)


_CONVERSIONS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "timestamp": _timestamp,
    "credits": lambda row: _decimal(row.credits),
    "cost_usd": lambda row: usd_text(row.nano_usd),
    "saved_usd": lambda row: usd_text(row.saved_nano_usd),
    "saved_credits": lambda row: _decimal(row.saved_credits),
    "time_to_first_chunk_ms": lambda row: row.first_chunk_ms,
    "units": lambda row: {name: exact(amount) for name, amount in row.units.items()},
    "attributes": lambda row: dict(row.attributes),
}
_NAMES: Final[tuple[str, ...]] = (
    "timestamp",
    "service",
    "tenant_id",
    "user_id",
    "feature",
    "provider",
    "operation",
    "model_requested",
    "model",
    "outcome",
    "error_type",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "credits",
    "cost_usd",
    "cost_status",
    "cost_source",
    "price_version",
    "saved_usd",
    "latency_ms",
    "time_to_first_chunk_ms",
    "trace_id",
    "span_id",
    "charge_id",
    "use_id",
    "unpriced_reason",
    "saved_credits",
    "budget_tier",
    "job_key",
    "units",
    "attributes",
)
