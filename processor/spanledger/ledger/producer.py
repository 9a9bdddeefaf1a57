"""This process as a producer: its scopes, and the one thread that speaks with the store.

Calls never touch the network themselves, so that nothing there (names, TLS, a server that hangs)
can hold them: they leave a ticket and wait for it, within bounds. Needs that come while a sync is
under way go together in the next.
"""

import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from opentelemetry.instrumentation.utils import suppress_instrumentation

from spanledger.api.gate import new_charge_id
from spanledger.api.guard import swallow
from spanledger.ledger.breaker import Breaker
from spanledger.ledger.protocol import CHARGE_PREFIX, LimitedScope, ScopeState
from spanledger.ledger.scope import HURRY_S, REPORT_S, Rested, Scope, forgotten
from spanledger.ledger.store import Store, Totals

T = TypeVar("T")

_BATCH: Final = 100
_CLOSE_S: Final = 0.5
_SLEEP_S: Final = 2.0
_SWEEP_S: Final = 60.0
_SLOWEST_S: Final = 0.05
_numbers: Final = itertools.count(1)


class Producer:
    """The scopes of this process and their syncs.

    abandoned: in a forked child. left: closed, and the store was told everything; no longer where
        a call ended since.
    """

    def __init__(self, store: Store) -> None:
        # Its first part is that of this process's charge ids: so a journal's rows are found again.
        self.name = f"{new_charge_id()[:CHARGE_PREFIX]}.{next(_numbers)}"
        # Reentrant: a finalizer that settles may run where this thread holds it already.
        self.lock = threading.RLock()
        self.breaker = Breaker()
        self.scopes: dict[str, Scope] = {}
        self.rested: dict[str, Rested] = {}
        self.reads: dict[str, tuple[Totals, float]] = {}
        self.abandoned = False
        self.closed = False
        self.left = False
        self._store = store
        self._seq = itertools.count(1)
        self._urgent: list[Scope] = []
        self._reading: list[str] = []
        self._tickets: list[threading.Lock] = []
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put is safe in a finalizer
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._tick_at = 0.0
        self._sweep_at = 0.0
        self._identity: str | None = None
        self._identity_at = 0.0

    # -- for calls; with the lock held -------------------------------------------------------------

    def scope(self, limited: LimitedScope, now: float) -> Scope:
        """The scope of `limited`, taken up where it is not in use here."""
        scope = self.scopes.get(limited.key)
        if scope is None:
            rested = self.rested.pop(limited.key, None)
            scope = Scope(limited.key, int(limited.expires_s), now, rested)
            self.scopes[limited.key] = scope
            self._tick_at = min(self._tick_at, now + REPORT_S)
            self._start()
            self._wake.put(None)
        return scope

    def top_up(self, scope: Scope) -> None:
        """A lease runs low: have it renewed before it runs out."""
        scope.run_low()
        self._urgent.append(scope)
        self._wake.put(None)

    def ticket(self, scopes: Iterable[Scope] = (), keys: Iterable[str] = ()) -> threading.Lock:
        """A lock, released when the store was asked for `scopes` and `keys`, or cannot be."""
        ticket = threading.Lock()
        ticket.acquire()
        self._urgent.extend(scopes)
        self._reading.extend(keys)
        self._tickets.append(ticket)
        self._start()
        self._wake.put(None)
        return ticket

    def _start(self) -> None:
        if self._thread is None and not self.closed:
            thread = threading.Thread(target=self._run, name="spanledger-ledger", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter ends
                self.breaker.suspect()
            else:
                self._thread = thread

    def read_at(self, key: str) -> float:
        """When the totals of `key` were last read."""
        read = self.reads.get(key)
        return read[1] if read else float("-inf")

    def state(self, key: str, oldest: float) -> ScopeState:
        """The state of `key`; a read before `oldest` is not believed."""
        down = self.breaker.open or self.closed
        if scope := self.scopes.get(key):
            return scope.state(down=down)
        totals, at = self.reads.get(key, (None, 0.0))
        if totals is not None and at >= oldest:
            return ScopeState(totals.spent, totals.held, down or totals.recovering)
        if rested := self.rested.get(key):
            return ScopeState(rested.spent, rested.held, unverified=True)
        return ScopeState(0, 0, unverified=True)

    # -- for calls; without the lock ---------------------------------------------------------------

    def wait(self, ticket: threading.Lock, timeout_s: float) -> None:
        """Wait for `ticket`. Where that takes longer, the store is taken to be down, unless the
        wait was shorter than what a store that is there may take.
        """
        if self._store.instant:
            self._serve()
            return
        if not ticket.acquire(timeout=max(timeout_s, 0)) and timeout_s >= _SLOWEST_S:
            self.breaker.suspect()
            self._wake.put(None)

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        with suppress_instrumentation():
            while not self.closed:
                with swallow("ledger sync"):
                    self._serve()
                    self._tick()
                with swallow("ledger sync"):
                    self._sleep()

    def _sleep(self) -> None:
        now = time.monotonic()
        seconds = self.breaker.wait_s(now) if self.breaker.open else max(0.0, self._tick_at - now)
        try:
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()
        except queue.Empty:
            pass

    def _serve(self) -> None:
        """Ask the store what calls wait for."""
        with self._turn:
            with self.lock:
                tickets, self._tickets = self._tickets, []
                now = time.monotonic()
                urgent, self._urgent = dict.fromkeys(self._urgent), []
                scopes = [scope for scope in urgent if not scope.sated(now)]
                keys, self._reading = self._reading, []
            try:
                # While the breaker is open, calls decide without the store.
                if not self.breaker.open and all(map(self._sync, _batches(scopes))):
                    self._read(keys)
            finally:
                for ticket in tickets:
                    ticket.release()

    def _tick(self) -> None:
        """Report what is due; first see whether the store is there, where it was not."""
        now = time.monotonic()
        was_down = self.breaker.open
        if self.breaker.wait_s(now) or (now < self._tick_at and not was_down):
            return
        self._tick_at = now + REPORT_S  # also where the following fails
        with self._turn:
            if not self._identify(now, at_once=was_down):
                return
        scopes = list(self.scopes.values())
        due = [scope for scope in scopes if scope.due(now)]
        for batch in _batches(due):
            self._serve()
            with self._turn:
                if not self._sync(batch):
                    return
        with self.lock:
            # The more scopes are in use, the longer apart are their reports.
            pause = max(REPORT_S, 1e-4 * len(self.scopes)) if self.scopes else _SLEEP_S
            if any(scope.hurried for scope in scopes):
                pause = HURRY_S
            self._tick_at = now + pause
        self._sweep(now)

    def _sync(self, scopes: Sequence[Scope], *, final: bool = False) -> bool:
        """Report `scopes`, at most a batch; whether the store answered for all."""
        sent = time.monotonic()
        with self.lock:
            reports = [
                scope.report(self.name, next(self._seq), sent, final=final or scope.idle(sent))
                for scope in scopes
            ]
        grants = self._store.sync(reports)
        now = time.monotonic()
        with self.lock:
            for scope, report, grant in zip(scopes, reports, grants, strict=True):
                if grant is None:
                    scope.unanswered()
                    continue
                scope.apply(report, grant, sent, now)
                if report.final and not scope.dirty:
                    self.rested[scope.key] = scope.rested()
                    self.scopes.pop(scope.key, None)
        return self._note(answered=None not in grants, now=now)

    def _note(self, *, answered: bool, now: float) -> bool:
        if answered:
            self.breaker.succeeded()
        else:
            self.breaker.failed(now)
        return answered

    def _read(self, keys: Sequence[str]) -> None:
        for batch in _batches(keys):
            totals = self._store.read(batch)
            now = time.monotonic()
            self._note(answered=None not in totals, now=now)
            for key, found in zip(batch, totals, strict=True):
                if found is not None:
                    self.reads[key] = (found, now)

    def _identify(self, now: float, *, at_once: bool) -> bool:
        """See whether the store is there and still remembers; whether it answered."""
        if self._store.instant or (now < self._identity_at and not at_once):
            return True
        identity = self._store.identity()
        if not self._note(answered=identity is not None, now=time.monotonic()):
            return False
        if self._identity not in (None, identity) and not self._remind():
            return False
        self._identity = identity
        self._identity_at = now + _SLEEP_S
        return True

    def _remind(self) -> bool:
        """The store lost its memory: tell it of the scopes that rest here; the others report."""
        with self.lock:
            rested = list(self.rested.items())
            for scope in self.scopes.values():
                scope.dirty = True
        for batch in _batches(rested):
            reports = [forgotten(key, rest, self.name, next(self._seq)) for key, rest in batch]
            answered = None not in self._store.sync(reports)
            if not self._note(answered=answered, now=time.monotonic()):
                return False
        return True

    def _sweep(self, now: float) -> None:
        """Forget what is over."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_S
        with self.lock:
            unix = time.time()
            for key in [key for key, rest in self.rested.items() if rest.expires_s < unix]:
                del self.rested[key]
            self.reads = {key: read for key, read in self.reads.items() if now - read[1] < _SWEEP_S}

    def replay(self, key: str, producer: str, cum: int) -> bool:
        """Correct what the dead `producer` spent in `key`; whether the store had it as gone."""
        with self._turn, suppress_instrumentation():
            corrected = bool(self._store.replay(key, producer, cum))
        with self.lock:  # what is known here is now out of date
            self.reads.pop(key, None)
            if scope := self.scopes.get(key):
                scope.synced_at = float("-inf")
        return corrected

    # -- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the thread, report everything and give the leases back."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            thread = self._thread
        self._wake.put(None)
        if thread is not None:
            thread.join(timeout=_CLOSE_S)
        if not self._turn.acquire(timeout=_CLOSE_S):
            return  # the thread hangs in the store
        try:
            deadline = time.monotonic() + _CLOSE_S
            self.left = True  # until a call ends that this tells no more
            with suppress_instrumentation():
                for batch in _batches(list(self.scopes.values())):
                    if time.monotonic() > deadline or not self._sync(batch, final=True):
                        self.left = False
                        break
        finally:
            self._turn.release()


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]
