"""The journal: the durable list of charges, append-only, one SQLite file for several processes.

    journal = open_journal("sqlite:///journal.db", service="shop")
    journal.append(entries)                       # the recorder's thread; one transaction
    journal.totals(("tenant",), since, until)     # reports

Durable means: what `append` has returned for survives kill -9 of every process (it is in the
kernel's hands). A loss of power may take the last seconds with it, never the file: SQLite's WAL
with `synchronous = NORMAL`. To wait for the disk ten times a second, in each process, would buy
those seconds at the price of stalls on slow disks.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from spanledger.api.errors import JournalError
from spanledger.api.guard import internal_errors, say_once, swallow
from spanledger.api.settings import Origin
from spanledger.api.values import Attribution, Usage
from spanledger.ledger import journal_producers, journal_totals
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal_connection import BUSY_S, Busy, Connection
from spanledger.ledger.journal_files import connect, connect_memory, is_damage, set_aside
from spanledger.ledger.journal_jobs import Booked, Memory
from spanledger.ledger.journal_place import (
    IN_CODE,
    Place,
    TemporaryJournalError,
    failure,
    locate,
    notice,
    prepare,
)
from spanledger.ledger.journal_producers import Spent
from spanledger.ledger.journal_rows import COLUMNS, INSERT, Row, from_values, storable, to_values
from spanledger.ledger.journal_totals import Span, Total, Unpriced

T = TypeVar("T")

MOST_IN_MEMORY: Final = 100_000
"""Rows that a journal in memory keeps; the oldest go first."""

# What a paid call's own thread waits for our other threads, and then for other processes.
_PATIENCE_S: Final = 0.045
_PAGE: Final = 2_000  # rows read at a time
_UNSTORABLE: Final = (
    ValueError,
    OverflowError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""What is raised where a value of ours, not the journal, is at fault."""


def open_journal(
    url: str | None, *, service: str, create: bool = True, origin: Origin = IN_CODE
) -> "Journal":
    """Open the journal at `url`; None is the user's state directory.

    url: `sqlite:///path` (relative), `sqlite:////path` (absolute) or `memory://`.
    origin: where the URL was said, for errors.
    service: the name of the application, for the rows it appends.
    create: False opens an existing journal, for reading.

    Raises ConfigurationError for any other URL, and JournalError where the place cannot be used,
    the file is another program's or of a newer format, or, with `create=False`, there is none
    (NoJournal). A journal that is busy or has no room now is opened all the same: the recorder
    tries again. A damaged file is set aside and a new one begun, which is logged.
    """
    place = locate(url, origin)
    journal = Journal(place, service)
    if not create:
        journal.extent()
        return journal
    prepare(place)
    with suppress(TemporaryJournalError):
        journal.check()
    if journal.notice:
        say_once("journal", "place", "%s", journal.notice)
    return journal


class Journal:
    """An open journal. Safe to use from several threads, and on both sides of a fork.

    Attributes:
        place: where it is.
        notice: what is to be said about that place; None where it is a good one.
    """

    def __init__(self, place: Place, service: str) -> None:
        self.place = place
        self.notice = notice(place)
        self._service = service
        self._jobs = Memory()
        path = place.path
        if path is None:
            self._writer = self._reader = Connection(connect_memory, None)
        else:
            # Reading has a connection of its own, so that a long report does not keep the writer
            # waiting.
            self._writer = Connection(partial(connect, path), path)
            self._reader = Connection(partial(connect, path, read_only=True), path)

    @property
    def url(self) -> str:
        """The URL that names this journal."""
        return self.place.url

    def check(self) -> None:
        """Open the journal for writing. Raises JournalError where that cannot be."""
        self._write(lambda _: None)

    # -- writing -----------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Write `entries` in one transaction; a charge id that is there already is left out.

        Raises JournalError, and then nothing was written. An entry that cannot be written at all is
        logged, counted in `internal_errors` and left out, so that it does not keep the others from
        the books.
        """
        rows: list[tuple[Any, ...]] = []
        for entry in entries:
            with swallow("journal.row"):
                rows.append(to_values(entry, self._service))
        try:
            self._write(partial(_insert, rows=rows))
        except _UNSTORABLE:
            self._append_one_by_one(rows)
        if self.place.path is None:
            self._write(_forget_oldest)

    def _append_one_by_one(self, rows: Sequence[tuple[Any, ...]]) -> None:
        for row in rows:
            with swallow("journal.row"):
                self._write(partial(_insert, rows=[storable(row)]))

    def job_difference(
        self, provider: str, key: str, usage: Usage, attribution: Attribution
    ) -> tuple[Usage, Attribution]:
        """What of a job's cumulative `usage` is new, and on whose account: the first booked one.

        Books it at the same time, so that every unit is given out once, to one of the processes on
        this journal. Nothing in the answer is negative; an amount of which nothing is new is 0 or
        left out. Raises nothing and waits no longer than a paid call may: where the journal does
        not answer in time, this process's memory of the job stands in, and the journal learns of it
        with the job's next booking.
        """
        book = partial(self._jobs.book, provider, key, usage, attribution)
        try:
            new, booked = self._write(
                partial(_book_job, provider=provider, key=key, book=book), _PATIENCE_S
            )
        except (JournalError, Busy):
            internal_errors["journal.job"] += 1
            new, booked = book()
        return new, booked.attribution

    # -- producers: see `journal_producers` --------------------------------------------------------

    def forget_producer(self, producer: str) -> None:
        """Note that `producer` has told the ledger everything. Raises JournalError."""
        self._write(partial(journal_producers.forget, name=producer))

    def say_alive(self, producer: str, ledger: str) -> None:
        """Note that `producer` lives and spends from `ledger`. Raises JournalError."""
        self._write(partial(journal_producers.say_alive, name=producer, ledger=ledger))

    def claim_silent(self, ledger: str) -> list[str]:
        """The producers of `ledger` that seem dead, each given to one process at a time. Raises
        JournalError.
        """
        return self._write(partial(journal_producers.claim_silent, ledger=ledger))

    def spent_by(self, producer: str, since_ns: int) -> Sequence[Spent]:
        """What it spent since (Unix nanoseconds), by what budgets ask for. Raises JournalError."""
        return self._read(partial(journal_producers.spent_by, producer=producer, since_ns=since_ns))

    # -- reading -----------------------------------------------------------------------------------

    def rows(self, since: int | None = None, until: int | None = None) -> Iterator[Row]:
        """The rows from `since` to before `until` (Unix nanoseconds), by the start of the calls.

        Rows that are appended meanwhile are left out. Raises JournalError.
        """
        (last,) = self._read(lambda c: c.execute("SELECT max(seq) FROM charges").fetchone())
        where, bounds = Span(since, until).where("(timestamp_ns, seq) > (?, ?)", "seq <= ?")
        sql = (
            f"SELECT seq, {COLUMNS} FROM charges {where}"  # noqa: S608 - our own names
            f" ORDER BY timestamp_ns, seq LIMIT {_PAGE}"
        )
        after = (-(2**63), 0)
        while page := self._read(partial(_fetch, sql=sql, values=[*after, last, *bounds])):
            for _, *values in page:
                yield from_values(tuple(values))
            seq, _, timestamp_ns, *_ = page[-1]
            after = (timestamp_ns, seq)

    def totals(
        self, by: Sequence[str] = (), since: int | None = None, until: int | None = None
    ) -> list[Total]:
        """The rows from `since` to before `until` (Unix nanoseconds) summed, the dearest first.

        by: tenant, user, feature, provider, model, operation, service, outcome, day, or a further
            attribution key; with none, one total of all. Raises JournalError.
        """
        return self._read(partial(journal_totals.totals, by=by, span=Span(since, until)))

    def spent(
        self,
        by: str,
        span: tuple[int, int],
        within: Mapping[str, str],
        *,
        credits: bool = False,
    ) -> list[tuple[str | None, Decimal]]:
        """USD, or credits, by each `by`, from the rows with these values. Raises JournalError."""
        return self._read(
            partial(journal_totals.spent, by=by, span=Span(*span), within=within, credits=credits)
        )

    def series(
        self, by: Sequence[str], since: int, until: int, buckets: int
    ) -> dict[tuple[str | None, ...], list[float]]:
        """USD by group in `buckets` equal parts of the time, for drawing. Raises JournalError."""
        return self._read(
            partial(journal_totals.series, by=by, span=Span(since, until), buckets=buckets)
        )

    def unpriced(self, since: int | None = None, until: int | None = None) -> list[Unpriced]:
        """Why calls have no (whole) price, most frequent reason first. Raises JournalError."""
        return self._read(partial(journal_totals.unpriced, span=Span(since, until)))

    def saved(self, since: int | None = None, until: int | None = None) -> dict[str, int]:
        """Nano-USD saved, by what: see `journal_totals.saved`. Raises JournalError."""
        return self._read(partial(journal_totals.saved, span=Span(since, until)))

    def extent(self) -> tuple[int, int | None, int | None]:
        """How many rows there are, and the start of the first and the last. Raises JournalError."""
        sql = "SELECT count(*), min(timestamp_ns), max(timestamp_ns) FROM charges"
        count, first, last = self._read(lambda c: c.execute(sql).fetchone())
        return count, first, last

    def close(self) -> None:
        """Close the file, which then holds everything by itself; a later use opens it again.

        A journal in memory is emptied by this.
        """
        with self._explained():
            self._reader.close()
            self._writer.close()

    # -- connections -------------------------------------------------------------------------------

    def _read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        with self._explained(), self._reader.use() as connection:
            return action(connection)

    def _write(self, action: Callable[[sqlite3.Connection], T], timeout_s: float = -1) -> T:
        """Run `action` in one transaction; where the file is damaged, once more on a new one."""
        with self._explained():
            try:
                return self._transaction(action, timeout_s)
            except sqlite3.DatabaseError as error:
                if self.place.path is None or not is_damage(error):
                    raise
                self._start_anew(self.place.path, error)
                return self._transaction(action, timeout_s)

    def _transaction(self, action: Callable[[sqlite3.Connection], T], timeout_s: float) -> T:
        with self._writer.use(timeout_s) as connection, _hurried(connection, timeout_s):
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = action(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
            return result

    def _start_anew(self, path: Path, error: sqlite3.DatabaseError) -> None:
        damaged = self._writer.file
        self._reader.close()
        self._writer.close()
        aside = set_aside(path, damaged)
        if aside:
            say_once(
                "journal",
                ("damaged", aside),
                "journal %s is damaged (%s): it was set aside as %s and a new one begun. "
                "`sqlite3 %s .recover` saves what can be read",
                path,
                error,
                aside,
                aside,
            )

    @contextmanager
    def _explained(self) -> Generator[None, None, None]:
        try:
            yield
        except _UNSTORABLE:
            raise
        except (sqlite3.Error, OSError) as error:
            raise failure(self.place.path, error) from error


@contextmanager
def _hurried(connection: sqlite3.Connection, timeout_s: float) -> Generator[None, None, None]:
    """With a `timeout_s`, wait that long for other processes, and leave the WAL to the recorder."""
    if timeout_s < 0:
        yield
        return
    try:
        connection.execute(f"PRAGMA busy_timeout = {round(timeout_s * 1000)}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")
        connection.execute("PRAGMA wal_autocheckpoint = 1000")


def _fetch(connection: sqlite3.Connection, sql: str, values: list[int]) -> list[tuple[Any, ...]]:
    return connection.execute(sql, values).fetchall()


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    connection.executemany(INSERT, rows)


def _forget_oldest(connection: sqlite3.Connection) -> None:
    sql = "DELETE FROM charges WHERE seq <= (SELECT max(seq) FROM charges) - ?"
    connection.execute(sql, (MOST_IN_MEMORY,))


def _book_job(
    connection: sqlite3.Connection,
    provider: str,
    key: str,
    book: Callable[[Booked | None], tuple[Usage, Booked]],
) -> tuple[Usage, Booked]:
    sql = "SELECT booked, attribution FROM jobs WHERE provider = ? AND job_key = ?"
    line = connection.execute(sql, (provider, key)).fetchone()
    new, booked = book(Booked.from_text(*line) if line else None)
    connection.execute(
        "INSERT INTO jobs (provider, job_key, booked, attribution) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (provider, job_key) DO UPDATE SET booked = excluded.booked",
        (provider, key, *booked.to_text()),
    )
    return new, booked
