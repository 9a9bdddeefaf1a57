"""The ledger's client: calls spend from leases, which `producer` fetches and `book` grants."""

import os
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from spanledger.ledger.producer import Producer
from spanledger.ledger.protocol import (
    PATIENCE_S,
    Denied,
    LimitedScope,
    Reservation,
    ScopeState,
)
from spanledger.ledger.scope import REPORT_S, Scope
from spanledger.ledger.store import Store


class _Held:
    """An estimate held in the scopes of a call."""

    __slots__ = ("_estimate", "_producer", "_scopes")

    def __init__(self, producer: Producer, scopes: Sequence[Scope], estimate: int) -> None:
        self._producer = producer
        self._scopes = scopes
        self._estimate: int | None = estimate

    def settle(self, actual: int) -> None:
        """Count `actual` as spent in place of the estimate."""
        self._end(max(actual, 0))

    def release(self) -> None:
        """Give the estimate back: nothing was spent."""
        self._end(0)

    def _end(self, actual: int) -> None:
        producer = self._producer
        if producer.abandoned:  # a forked child: the call is the parent's
            return
        now = time.monotonic()
        with producer.lock:
            estimate, self._estimate = self._estimate, None
            if estimate is None:
                return
            producer.left = False
            for scope in self._scopes:
                scope.used += actual - estimate
                scope.cum += actual
                scope.used_at = now
                scope.dirty = True


class LeasedLedger:
    """A ledger over `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._producer = Producer(store)
        _ledgers.add(self)

    @property
    def producer(self) -> str:
        """This process in the store: the first 20 characters of its charge ids, and a number."""
        return self._producer.name

    def reserve(
        self, scopes: Sequence[LimitedScope], estimate: int, *, deadline: float | None = None
    ) -> Reservation | Denied:
        """Hold `estimate` in all of `scopes`, or in none. See `Ledger`."""
        producer = self._producer
        while True:
            now = time.monotonic()
            patient = deadline is None or now < deadline
            short: list[tuple[Scope, LimitedScope]] = []
            with producer.lock:
                answer = self._take(scopes, estimate, now, short, ask=patient)
                if answer is not None:
                    return answer
                for scope, limited in short:
                    scope.wait(estimate, limited.limit)
                ticket = producer.ticket(scope for scope, _ in short)
            if deadline is None:
                deadline = now + PATIENCE_S
            producer.wait(ticket, deadline - now)

    def prepare(
        self, wanted: Sequence[tuple[Sequence[LimitedScope], int]], deadline: float
    ) -> None:
        """Have the leases granted that these reservations will need. See `Ledger`."""
        producer = self._producer
        now = time.monotonic()
        asked: list[Scope] = []
        with producer.lock:
            for scopes, estimate in wanted:
                _, short = self._find(scopes, estimate, now)
                if self._decide(short, estimate, now, ask=True) is not None:
                    return  # the call is going to be denied
                for scope, limited in short:
                    scope.wait(estimate, limited.limit)
                    asked.append(scope)
            ticket = producer.ticket(asked) if asked else None
        if ticket is not None:
            producer.wait(ticket, deadline - now)

    def reserve_nowait(
        self, scopes: Sequence[LimitedScope], estimate: int
    ) -> Reservation | Denied | None:
        """As `reserve`, or None where that would ask the store. See `Ledger`."""
        if self._store.instant:
            return self.reserve(scopes, estimate)
        with self._producer.lock:
            return self._take(scopes, estimate, time.monotonic(), [], ask=True)

    def _take(
        self,
        scopes: Sequence[LimitedScope],
        estimate: int,
        now: float,
        short: list[tuple[Scope, LimitedScope]],
        *,
        ask: bool,
    ) -> Reservation | Denied | None:
        """Take from the leases. None where the store must be asked for those put into `short`."""
        producer = self._producer
        found, lacking = self._find(scopes, estimate, now)
        if lacking:
            denied = self._decide(lacking, estimate, now, ask=ask)
            if denied is not None or lacking:
                short.extend(lacking)
                return denied
        for scope in found:
            scope.used += estimate
            scope.dirty = True
            if scope.used > scope.soft:
                producer.top_up(scope)
        return _Held(producer, found, estimate)

    def _find(
        self, scopes: Sequence[LimitedScope], estimate: int, now: float
    ) -> tuple[list[Scope], list[tuple[Scope, LimitedScope]]]:
        """The scopes in use here, and those of which the lease is too short for `estimate`."""
        producer = self._producer
        known = producer.scopes
        found: list[Scope] = []
        short: list[tuple[Scope, LimitedScope]] = []
        for limited in scopes:
            scope = known.get(limited.key) or producer.scope(limited, now)
            found.append(scope)
            if (
                scope.used + estimate > scope.cap
                or now >= scope.until
                or limited.limit < scope.limit
            ):
                short.append((scope, limited))
        return found, short

    def _decide(
        self, short: list[tuple[Scope, LimitedScope]], estimate: int, now: float, *, ask: bool
    ) -> Denied | None:
        """Decide what can be decided here on `short`; only what the store must tell stays in it."""
        producer = self._producer
        down = producer.breaker.open or producer.closed or not ask
        undecided: list[tuple[Scope, LimitedScope]] = []
        for scope, limited in short:
            if down or scope.recovering:
                if not scope.allows(limited, estimate):
                    return scope.denied(unverified=True)
            elif scope.denies(limited.limit, estimate, now):
                return scope.denied(unverified=False)
            else:
                undecided.append((scope, limited))
        short[:] = undecided
        return None

    def add(self, scopes: Sequence[LimitedScope], actual: int) -> None:
        """Count `actual` as spent in all of `scopes`: counted, never refused."""
        producer = self._producer
        actual = max(actual, 0)
        now = time.monotonic()
        with producer.lock:
            producer.left = False
            for limited in scopes:
                scope = producer.scope(limited, now)
                scope.used += actual
                scope.cum += actual
                scope.used_at = now
                scope.dirty = True

    def state(self, keys: Sequence[str]) -> Mapping[str, ScopeState]:
        """The state of every one of `keys`, all processes together. See `Ledger`."""
        producer = self._producer
        now = time.monotonic()
        oldest = now - REPORT_S
        ticket = None
        with producer.lock:
            used = [scope for key in keys if (scope := producer.scopes.get(key)) is not None]
            stale = [scope for scope in used if scope.synced_at < oldest]
            unread = [
                key for key in keys if key not in producer.scopes and producer.read_at(key) < oldest
            ]
            if (stale or unread) and not producer.breaker.open and not producer.closed:
                ticket = producer.ticket(stale, unread)
        if ticket is not None:
            producer.wait(ticket, PATIENCE_S)
        with producer.lock:
            return {key: producer.state(key, oldest) for key in keys}

    def known(self, keys: Sequence[str]) -> Mapping[str, ScopeState]:
        """The state of those of `keys` that are in use here, without the network. See `Ledger`."""
        producer = self._producer
        down = producer.breaker.open
        with producer.lock:
            used = [scope for key in keys if (scope := producer.scopes.get(key)) is not None]
            return {scope.key: scope.state(down=down) for scope in used}

    def producers(self, key: str) -> int:
        """How many processes spend from `key` now. See `Ledger`."""
        scope = self._producer.scopes.get(key)
        return max(1, scope.producers) if scope else 1

    def counters(self) -> Iterable[tuple[str, ScopeState]]:
        """All that is known here, for metrics; no network."""
        producer = self._producer
        down = producer.breaker.open
        with producer.lock:
            known = {
                key: ScopeState(rested.spent, rested.held, down)
                for key, rested in producer.rested.items()
            }
            for key, scope in producer.scopes.items():
                known[key] = scope.state(down=down)
        return known.items()

    @property
    def reachable(self) -> bool:
        """The store answered when it was last asked."""
        return not self._producer.breaker.open

    @property
    def left(self) -> bool:
        """It is closed, and the store was told everything: no call ended since."""
        return self._producer.left

    def replay(self, producer: str, spent: Mapping[str, int]) -> Sequence[str]:
        """Correct what the dead `producer` ever spent in each scope (by key), as its journal says.

        The store counted a producer that fell silent with its estimates in flight. Replaying twice
        is as good as once.

        Returns the keys that were corrected; a key is not where the store does not have `producer`
        as gone: it lives, it left long ago, or the store lost its memory.
        """
        return [key for key, cum in spent.items() if self._producer.replay(key, producer, cum)]

    def close(self) -> None:
        """Report everything and give the leases back. See `Ledger`."""
        self._producer.close()
        self._store.close()

    def before_fork(self) -> None:
        """The process forks."""
        self._store.before_fork()

    def after_fork(self, *, in_child: bool) -> None:
        """The process has forked: a child is a producer of its own, without leases."""
        if in_child:
            self._producer.abandoned = True
            self._producer = Producer(self._store)
        self._store.after_fork(in_child=in_child)


_ledgers: Final["weakref.WeakSet[LeasedLedger]"] = weakref.WeakSet()


def _before_fork() -> None:
    for ledger in list(_ledgers):
        ledger.before_fork()


def _in_parent() -> None:
    for ledger in list(_ledgers):
        ledger.after_fork(in_child=False)


def _in_child() -> None:
    for ledger in list(_ledgers):
        ledger.after_fork(in_child=True)


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
