"""The ledger of one process: no store outside it. Forked children each begin anew."""

import threading
import time
from collections.abc import Sequence
from typing import Final

from spanledger.ledger import book
from spanledger.ledger.store import LEASE_S, Grant, Report, Totals

_LEASE_MS: Final = int(LEASE_S * 1000)
_SWEEP: Final = 1000


class _Book:
    """The books of one scope."""

    __slots__ = ("_records", "expires_s", "head")

    def __init__(self, expires_s: int) -> None:
        self.expires_s = expires_s
        self.head: book.Head | None = None
        self._records: dict[str, book.Record] = {}

    def get(self, producer: str) -> book.Record | None:
        return self._records.get(producer)

    def put(self, producer: str, record: book.Record) -> None:
        self._records[producer] = record

    def drop(self, producer: str) -> None:
        del self._records[producer]

    def all(self) -> Sequence[tuple[str, book.Record]]:
        return list(self._records.items())


class MemoryStore:
    """Books in this process, for any thread."""

    instant = True

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}
        self._lock = threading.Lock()

    def sync(self, reports: Sequence[Report]) -> Sequence[Grant]:
        return self.book(reports, int(time.monotonic() * 1000))

    def book(self, reports: Sequence[Report], now: int) -> Sequence[Grant]:
        """Book `reports` at `now` (milliseconds)."""
        with self._lock:
            return [self._book(report, now) for report in reports]

    def _book(self, report: Report, now: int) -> Grant:
        found = self._books.get(report.key)
        if found is None:
            if len(self._books) % _SWEEP == _SWEEP - 1:
                self._forget()
            found = self._books[report.key] = _Book(report.expires_s)
        found.head, grant = book.sync(found.head, found, report, now, _LEASE_MS)
        return grant

    def _forget(self) -> None:
        unix = time.time()
        self._books = {key: b for key, b in self._books.items() if b.expires_s > unix}

    def read(self, keys: Sequence[str]) -> Sequence[Totals]:
        now = int(time.monotonic() * 1000)
        books = self._books
        return [
            book.totals(books[key].head if key in books else None, now, _LEASE_MS) for key in keys
        ]

    def replay(self, key: str, producer: str, cum: int) -> bool:
        with self._lock:
            found = self._books.get(key)
            return found is not None and book.replay(found.head, found, producer, cum)

    def identity(self) -> str:
        return "memory"

    def before_fork(self) -> None:
        """Nothing here is shared with a child."""

    def after_fork(self, *, in_child: bool) -> None:
        if in_child:
            self._books = {}
            self._lock = threading.Lock()

    def close(self) -> None:
        """Nothing to let go of."""
