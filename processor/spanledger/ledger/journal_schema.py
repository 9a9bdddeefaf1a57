"""The journal's tables, and how a journal of an older format becomes one of this format.

The format's number stands in SQLite's `user_version`. A step, once released, is never changed: a
new one is added.
"""

import sqlite3
from pathlib import Path
from typing import Final

from spanledger.api.errors import JournalError

APPLICATION_ID: Final = 0x5B1ED6E2
"""Tells a journal from another program's SQLite file."""

_CHARGES: Final = """
CREATE TABLE charges (
    seq INTEGER PRIMARY KEY,
    charge_id TEXT NOT NULL UNIQUE,
    timestamp_ns INTEGER NOT NULL,
    service TEXT NOT NULL,
    tenant_id TEXT,
    user_id TEXT,
    feature TEXT,
    use_id TEXT,
    provider TEXT NOT NULL,
    operation TEXT NOT NULL,
    model_requested TEXT,
    model TEXT,
    outcome TEXT NOT NULL,
    error_type TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cache_read_tokens INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens INTEGER,
    units TEXT,
    credits TEXT,
    nano_usd INTEGER,
    cost_status TEXT NOT NULL,
    cost_source TEXT,
    price_version TEXT,
    unpriced_reason TEXT,
    saved_nano_usd INTEGER NOT NULL,
    saved_credits TEXT,
    latency_ms REAL,
    first_chunk_ms REAL,
    trace_id TEXT,
    span_id TEXT,
    job_key TEXT,
    attributes TEXT,
    budget_tier TEXT
);
CREATE INDEX charges_by_time ON charges (timestamp_ns);
CREATE TRIGGER charges_keep BEFORE DELETE ON charges
BEGIN SELECT raise(ABORT, 'the journal is append-only: book a correction as a new row'); END;
CREATE TRIGGER charges_stay BEFORE UPDATE ON charges
BEGIN SELECT raise(ABORT, 'the journal is append-only: book a correction as a new row'); END;
"""

# What was booked of each job whose usage is a cumulative statement, and on whose account.
_JOBS: Final = """
CREATE TABLE jobs (
    provider TEXT NOT NULL,
    job_key TEXT NOT NULL,
    booked TEXT NOT NULL,
    attribution TEXT NOT NULL,
    PRIMARY KEY (provider, job_key)
) WITHOUT ROWID;
"""

# Who spends under limits and has not left in order: see `journal_producers`.
_PRODUCERS: Final = """
CREATE TABLE producers (
    name TEXT PRIMARY KEY,
    ledger TEXT NOT NULL,
    seen_s REAL NOT NULL,
    tried_s REAL NOT NULL,
    tries INTEGER NOT NULL
) WITHOUT ROWID;
"""

STEPS: Final = (_CHARGES, _JOBS, _PRODUCERS)
"""Step n makes format n + 1 of format n."""


def format_of(connection: sqlite3.Connection, path: Path | None) -> int:
    """The format of an open journal; 0 for an empty file. Raises JournalError where it is not a
    journal of ours.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables and application == 0:
        return 0
    if application != APPLICATION_ID:
        raise JournalError(
            f"journal {path} is another program's SQLite file, and is left alone. "
            "Set SPANLEDGER_JOURNAL to a file of its own"
        )
    if version > len(STEPS):
        raise JournalError(
            f"journal {path} has format {version}, made by a newer spanledger; "
            f"this one knows up to {len(STEPS)}. "
            "Upgrade spanledger, or set SPANLEDGER_JOURNAL to another file"
        )
    return int(version)


def migrate(connection: sqlite3.Connection, path: Path | None) -> None:
    """Bring an open journal to this format. Several processes may do so at once. Raises
    JournalError.
    """
    if format_of(connection, path) == len(STEPS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(format_of(connection, path), len(STEPS)):
            for statement in _statements(STEPS[number]):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _statements(script: str) -> list[str]:
    # Not executescript: it would commit the transaction that makes the step one step.
    statements: list[str] = []
    start = ""
    for line in script.splitlines(keepends=True):
        start += line
        if sqlite3.complete_statement(start):
            statements.append(start)
            start = ""
    return statements
