"""The store within one process: bounded by bytes, least recently used first out, thread-safe."""

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from spanledger.cache.config import MAX_BYTES
from spanledger.cache.forks import forget_at_fork
from spanledger.cache.store import LEASE_S, Ask, Failure, Kept, Packed, Reply, Waiter, tell

ENTRY_OVERHEAD: Final = 600
"""Bytes that an entry takes besides its packed value: key, record, numbers, places in the table."""


class _Entry:
    __slots__ = ("born", "fresh_s", "hold_until", "packed", "stale_s", "token")

    def __init__(
        self, packed: Packed, token: int, born: float, fresh_s: float, stale_s: float
    ) -> None:
        self.packed = packed
        self.token = token
        self.born = born
        self.fresh_s = fresh_s
        self.stale_s = stale_s
        self.hold_until = 0.0

    @property
    def size(self) -> int:
        return len(self.packed.data) + ENTRY_OVERHEAD

    def age(self, now: float) -> float:
        return max(0.0, now - self.born)


class _Flight:
    __slots__ = ("holder", "news", "token", "until", "waiters")

    def __init__(self, token: int, until: float) -> None:
        self.token = token
        self.until = until
        self.holder: weakref.ref[object] | None = None
        self.waiters: set[Waiter] = set()
        self.news: tuple[Reply | None] | None = None  # in a tuple: the news may be None

    def alive(self, now: float) -> bool:
        # Until its holder is known, a flight lives by its lease.
        return now < self.until if self.holder is None else self.holder() is not None

    def end(self, news: Reply | None) -> tuple[Waiter, ...]:
        """Note how the flight ended; whom to tell, once the lock is let go."""
        self.news = (news,)
        return tuple(self.waiters)


class MemoryStore:
    """Entries and flights of this process.

    max_bytes: of all entries together. clock: Unix time in seconds, as in Redis: a monotonic clock
        stands still while the machine sleeps, and what was fetched before would be served as fresh
        after.
    A flight lives as long as its leader holds on to it; there is no other sign of life to wait for
    in one process.
    """

    blocks = False
    recheck_s = 0.5
    timeout_s = 0.0

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_bytes = max_bytes
        self._lease_s = lease_s
        self._clock = clock
        self.after_fork()
        forget_at_fork(self)

    def after_fork(self) -> None:
        """Start empty: a thread of the parent may have been in the middle of a change."""
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._bytes = 0
        self._token = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """What the entries take, by the store's own count."""
        return self._bytes

    def ask(self, key: str, ask: Ask) -> Reply:
        with self._lock:
            now = self._clock()
            entry = self._entry(key, now)
            if entry and ask.following and entry.token >= ask.following:
                return Reply("hit", entry.token, Kept(entry.packed, entry.age(now), fresh=True))
            flight = self._flights.get(key)
            live = flight is not None and flight.alive(now)
            kept = None
            if entry:
                age = entry.age(now)
                kept = Kept(entry.packed, age, age < entry.fresh_s)
                if not ask.refresh and _serves(entry, age, ask, live or now < entry.hold_until):
                    return Reply("hit", entry.token, kept)
            if flight and live:
                return Reply("follow", flight.token, flight=flight)
            self._token += 1
            new = self._flights[key] = _Flight(self._token, now + self._lease_s)
            # An old flight's leader is gone: whoever followed it asks again.
            waiters = flight.end(None) if flight else ()
        _tell_all(waiters, None)
        return Reply("lead", new.token, kept)

    def hold(self, key: str, token: int, holder: object) -> None:
        with self._lock:
            if (flight := self._flights.get(key)) and flight.token == token:
                flight.holder = weakref.ref(holder)

    def put(self, key: str, token: int, packed: Packed, fresh_s: float, stale_s: float) -> bool:
        with self._lock:
            flight = self._take(key, token)
            if flight is None:
                return False
            self._drop(key)
            if stale_s > 0:
                self._keep(key, _Entry(packed, token, self._clock(), fresh_s, stale_s))
            news = Reply("hit", token, Kept(packed, 0.0, fresh=True))
            waiters = flight.end(news)
        _tell_all(waiters, news)
        return True

    def fail(self, key: str, token: int, failure: Failure) -> bool:
        with self._lock:
            flight = self._take(key, token)
            if flight is None:
                return False
            if failure.hold_s and (entry := self._entries.get(key)):
                entry.hold_until = self._clock() + failure.hold_s
            news = failure.news(token)
            waiters = flight.end(news)
        _tell_all(waiters, news)
        return True

    def watch(self, key: str, followed: Reply, waiter: Waiter) -> None:
        flight = followed.flight
        assert isinstance(flight, _Flight)
        with self._lock:
            if flight.news is None:
                flight.waiters.add(waiter)
                return
        tell(waiter, flight.news[0])

    def unwatch(self, key: str, followed: Reply, waiter: Waiter) -> None:
        flight = followed.flight
        assert isinstance(flight, _Flight)
        with self._lock:
            flight.waiters.discard(waiter)

    def close(self) -> None:
        """Nothing to let go of."""

    # -- under the lock ----------------------------------------------------------------------------

    def _entry(self, key: str, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.age(now) >= entry.stale_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def _keep(self, key: str, entry: _Entry) -> None:
        self._entries[key] = entry
        self._bytes += entry.size
        while self._bytes > self._max_bytes:
            self._bytes -= self._entries.popitem(last=False)[1].size

    def _drop(self, key: str) -> None:
        if old := self._entries.pop(key, None):
            self._bytes -= old.size

    def _take(self, key: str, token: int) -> _Flight | None:
        flight = self._flights.get(key)
        return self._flights.pop(key) if flight and flight.token == token else None


def _serves(entry: _Entry, age: float, ask: Ask, busy: bool) -> bool:  # noqa: FBT001
    """Whether an entry is served. busy: it is being fetched anew, or that has just failed."""
    if age < entry.fresh_s and (ask.max_age_s is None or age < ask.max_age_s):
        return busy or age < entry.fresh_s - ask.ahead_s
    return busy and ask.max_age_s is None


def _tell_all(waiters: Iterable[Waiter], news: Reply | None) -> None:
    for waiter in waiters:
        tell(waiter, news)
