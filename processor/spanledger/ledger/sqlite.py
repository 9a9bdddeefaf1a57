"""The ledger of one machine: its processes share an SQLite file, with no server.

One transaction a sync. Write-ahead log without a wait for the disk at each commit: the books
survive the death of every process; after a loss of power the last moments may be missing, and the
producers tell them again.
"""

import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from spanledger.api.guard import say_once
from spanledger.api.settings import Origin
from spanledger.ledger import book
from spanledger.ledger.store import IN_CODE, LEASE_S, Grant, Report, Totals

_LEASE_MS: Final = int(LEASE_S * 1000)
_BUSY_S: Final = 1.0
_FORK_S: Final = 1.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS ledger_scope (
    key TEXT PRIMARY KEY, expires_s INTEGER,
    generation INTEGER, born INTEGER, old INTEGER, retired INTEGER, live INTEGER, caps INTEGER,
    held INTEGER, producers INTEGER, seen INTEGER, clock INTEGER, short INTEGER, scan INTEGER,
    lost INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger_producer (
    key TEXT, producer TEXT,
    seq INTEGER, cum INTEGER, inflight INTEGER, cap INTEGER, base INTEGER, deadline INTEGER,
    state INTEGER,
    PRIMARY KEY (key, producer)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ledger_scope_expiry ON ledger_scope (expires_s);
"""
_HEAD: Final = (
    "generation, born, old, retired, live, caps, held, producers, seen, clock, short, scan, lost"
)
_RECORD: Final = "seq, cum, inflight, cap, base, deadline, state"


class _Records:
    """The producers of one scope, in the transaction under way."""

    def __init__(self, db: sqlite3.Connection, key: str) -> None:
        self._db = db
        self._key = key

    def get(self, producer: str) -> book.Record | None:
        row = self._db.execute(
            f"SELECT {_RECORD} FROM ledger_producer WHERE key = ? AND producer = ?",  # noqa: S608
            (self._key, producer),
        ).fetchone()
        return book.Record(*row) if row else None

    def put(self, producer: str, record: book.Record) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO ledger_producer VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._key, producer, *record),
        )

    def drop(self, producer: str) -> None:
        self._db.execute(
            "DELETE FROM ledger_producer WHERE key = ? AND producer = ?", (self._key, producer)
        )

    def all(self) -> Sequence[tuple[str, book.Record]]:
        rows = self._db.execute(
            f"SELECT producer, {_RECORD} FROM ledger_producer WHERE key = ?",  # noqa: S608
            (self._key,),
        ).fetchall()
        return [(row[0], book.Record(*row[1:])) for row in rows]


class SqliteStore:
    """Books in the file `path`; `origin`: where that was said."""

    instant = False

    def __init__(self, path: Path, origin: Origin = IN_CODE) -> None:
        """Open the file, and make it where there is none. Raises ConfigurationError."""
        self._path = path
        self._db: sqlite3.Connection | None = None
        # Held over a fork: a connection must not be open then, nor a transaction under way.
        self._lock = threading.Lock()
        self._held = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise origin.error(
                f"the ledger {path} cannot be opened: {error}",
                "Name a file on a local disk that this process may write: "
                "SPANLEDGER_LEDGER=sqlite:////path/ledger.db.",
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            db = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript(_SCHEMA)
            self._db = db
        return self._db

    def sync(self, reports: Sequence[Report]) -> Sequence[Grant | None]:
        return self.book(reports, _now_ms())

    def book(self, reports: Sequence[Report], now: int) -> Sequence[Grant | None]:
        """Book `reports` at `now` (milliseconds), in one transaction."""
        with self._lock:
            try:
                db = self._open()
                db.execute("BEGIN IMMEDIATE")
                grants = [_book(db, report, now) for report in reports]
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._failed(error)
                return [None] * len(reports)
        return grants

    def read(self, keys: Sequence[str]) -> Sequence[Totals | None]:
        now = _now_ms()
        with self._lock:
            try:
                db = self._open()
                return [book.totals(_head(db, key), now, _LEASE_MS) for key in keys]
            except sqlite3.Error as error:
                self._failed(error)
                return [None] * len(keys)

    def replay(self, key: str, producer: str, cum: int) -> bool | None:
        with self._lock:
            try:
                db = self._open()
                db.execute("BEGIN IMMEDIATE")
                head = _head(db, key)
                corrected = book.replay(head, _Records(db, key), producer, cum)
                if head and corrected:
                    db.execute(
                        "UPDATE ledger_scope SET retired = ? WHERE key = ?", (head.retired, key)
                    )
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._failed(error)
                return None
        return corrected

    def identity(self) -> str | None:
        with self._lock:
            try:
                db = self._open()
                db.execute("BEGIN IMMEDIATE")
                db.execute("COMMIT")
            except sqlite3.Error as error:
                self._failed(error)
                return None
        return "sqlite"

    def _failed(self, error: sqlite3.Error) -> None:
        say_once(
            "ledger",
            type(error),
            "the ledger %s does not answer; budgets go on by their on_outage",
            self._path,
            error=error,
        )
        self._close()

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()  # what was not committed is rolled back

    def before_fork(self) -> None:
        self._held = self._lock.acquire(timeout=_FORK_S)
        if self._held:
            self._close()

    def after_fork(self, *, in_child: bool) -> None:
        if in_child:
            self._lock = threading.Lock()
        elif self._held:
            self._lock.release()
        self._held = False

    def close(self) -> None:
        with self._lock:
            self._close()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _head(db: sqlite3.Connection, key: str) -> book.Head | None:
    query = f"SELECT {_HEAD} FROM ledger_scope WHERE key = ?"  # noqa: S608
    row = db.execute(query, (key,)).fetchone()
    return book.Head(*row) if row else None


def _book(db: sqlite3.Connection, report: Report, now: int) -> Grant:
    head = _head(db, report.key)
    if head is None:
        _forget(db, now // 1000)
    head, grant = book.sync(head, _Records(db, report.key), report, now, _LEASE_MS)
    db.execute(
        "INSERT OR REPLACE INTO ledger_scope VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            report.key,
            report.expires_s,
            head.generation,
            head.born,
            head.old,
            head.retired,
            head.live,
            head.caps,
            head.held,
            head.producers,
            head.seen,
            head.clock,
            head.short,
            head.scan,
            head.lost,
        ),
    )
    return grant


def _forget(db: sqlite3.Connection, unix: int) -> None:
    """Forget scopes whose time is over; a few each time that a new one comes."""
    over = db.execute(
        "SELECT key FROM ledger_scope WHERE expires_s < ? LIMIT 20", (unix,)
    ).fetchall()
    for table in ("ledger_scope", "ledger_producer"):
        db.executemany(f"DELETE FROM {table} WHERE key = ?", over)  # noqa: S608
