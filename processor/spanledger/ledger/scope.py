"""The client's side of the leases, for one scope: what this process spent there, and the lease it
spends from.

Nothing here does input or output or reads a clock; the producer's lock guards all of it.
"""

from typing import Final, NamedTuple

from spanledger.ledger.protocol import LARGEST_AMOUNT, Denied, LimitedScope, ScopeState
from spanledger.ledger.store import LEASE_S, Grant, Report

USABLE_S: Final = 0.8 * LEASE_S
IDLE_S: Final = 2.0
"""A scope that nobody used for so long leaves the store, with its lease."""
REPORT_S: Final = 0.25
RENEW_S: Final = 1.0
HURRY_S: Final = 0.05
_DENIAL_S: Final = 0.25
_LARGEST_WANT: Final = LARGEST_AMOUNT // 8


class Rested(NamedTuple):
    """What is remembered of a scope that left the store: to come back, and to remind a store."""

    cum: int
    retired: int
    generation: int
    spent: int
    held: int
    expires_s: int


class _Denial(NamedTuple):
    """What the store refused: calls at least as large, under limits no higher, need not ask."""

    limit: int
    least: int
    until: float


class Scope:
    """One scope and period in this process.

    cum: spent here, ever. used: cum and the estimates in flight. cap: the lease, up to where `used`
        may go.
    limit: the limit that the lease was granted under; a call with a lower one must not use it.
    until: when the lease ends, by the monotonic clock. soft: a lease used beyond this is topped up
        early.
    synced_at: when the last answered report was sent. producers: how many spent from it then.
    """

    __slots__ = (
        "_base",
        "_denial",
        "_generation",
        "_granted_need",
        "_granted_used",
        "_low",
        "_others_held",
        "_others_spent",
        "_outage_from",
        "_retired",
        "_short",
        "_waiting",
        "_want",
        "cap",
        "cum",
        "dirty",
        "expires_s",
        "key",
        "limit",
        "producers",
        "recovering",
        "soft",
        "synced_at",
        "until",
        "used",
        "used_at",
    )

    def __init__(self, key: str, expires_s: int, now: float, rested: Rested | None = None) -> None:
        self.key = key
        self.expires_s = expires_s
        self.cum = self.used = self.cap = self._base = self._granted_used = (
            rested.cum if rested else 0
        )
        self._granted_need = 0
        self.limit = 0
        self.until = 0.0
        self.soft = LARGEST_AMOUNT
        self.dirty = False
        self.used_at = now
        self.recovering = False
        self._retired = rested.retired if rested else 0
        self._generation = rested.generation if rested else 0
        self._others_spent = rested.spent - rested.cum if rested else 0
        self._others_held = rested.held if rested else 0
        self._short = False
        self._low = False
        self._want = 0
        self.synced_at = float("-inf")
        self.producers = 1
        self._waiting: list[tuple[int, int]] = []
        self._outage_from: int | None = None
        self._denial: _Denial | None = None

    # -- what calls ask ----------------------------------------------------------------------------

    def wait(self, estimate: int, limit: int) -> None:
        """A call waits for a lease; the next report asks for it."""
        self._waiting.append((estimate, min(limit, LARGEST_AMOUNT)))

    def sated(self, now: float) -> bool:
        """All who wait fit into the lease by now: asking for another would take it from them."""
        if (
            not self._waiting
            or now >= self.until
            or self.used + sum(estimate for estimate, _ in self._waiting) > self.cap
            or min(limit for _, limit in self._waiting) < self.limit
        ):
            return False
        self._waiting.clear()
        return True

    def denies(self, limit: int, estimate: int, now: float) -> bool:
        """The store refused such a call a moment ago."""
        denial = self._denial
        return (
            denial is not None
            and now < denial.until
            and min(limit, LARGEST_AMOUNT) <= denial.limit
            and estimate >= denial.least
        )

    def allows(self, scope: LimitedScope, estimate: int) -> bool:
        """Without the store: does the policy let such a call go on?"""
        if scope.on_outage != "local":
            return scope.on_outage == "open"
        if self._outage_from is None:
            self._outage_from = self.used
        elsewhere = self._others_spent + self._others_held
        return (
            self.used + estimate <= self._outage_from + scope.outage_allowance
            and elsewhere + self.used + estimate <= scope.limit
        )

    def run_low(self) -> None:
        """The lease is nearly used up; said once a lease."""
        self._low = True
        self.soft = LARGEST_AMOUNT

    def denied(self, *, unverified: bool) -> Denied:
        """The answer to a call that is denied."""
        spent, held, _ = self.state(down=unverified)
        return Denied(self.key, spent, held, unverified)

    def state(self, *, down: bool) -> ScopeState:
        """What is known: all others as of the last sync, and this process as of now."""
        return ScopeState(
            self._others_spent + self.cum,
            self._others_held + self.used - self.cum,
            down or self.recovering or not self._generation,
        )

    # -- what the store is told --------------------------------------------------------------------

    @property
    def hurried(self) -> bool:
        """Somebody needs what is leased here, or nobody knows yet what was spent."""
        return self._short or self.recovering

    def idle(self, now: float) -> bool:
        """Nothing is in flight, nothing was for a while, and nobody waits."""
        return self.used == self.cum and now - self.used_at > IDLE_S and not self._waiting

    def due(self, now: float) -> bool:
        """It is time to report."""
        age = now - self.synced_at
        if self.hurried:
            return age >= HURRY_S
        return age >= RENEW_S or (self.dirty and age >= 0.8 * REPORT_S)

    def report(self, producer: str, seq: int, now: float, *, final: bool = False) -> Report:
        """What to tell the store now. From here on the lease is only what the report keeps."""
        limit, least, need = self._take_waiting()
        slack = max(0, self.cap - self.used) if now < self.until else 0
        want = self._wanted(need, now)
        if final or self.hurried or need or limit < self.limit or not want:
            slack = 0
        kept = min(slack, want // 2)
        self.cap = self.used + kept
        self.soft = LARGEST_AMOUNT
        self.dirty = False
        return Report(
            key=self.key,
            producer=producer,
            seq=seq,
            cum=self.cum,
            inflight=self.used - self.cum,
            keep=self.cap,
            least=least,
            need=need,
            want=0 if final or self.hurried else want - kept,
            limit=limit,
            base=self._base,
            retired=self._retired,
            generation=self._generation,
            final=final,
            expires_s=self.expires_s,
        )

    def _take_waiting(self) -> tuple[int, int, int]:
        """The lowest limit of those who wait, and the smallest and the sum of all their estimates.

        A lease is granted under one limit, and who has a low one must not gain by a high one. Who
        has a high one may use any lease; where the low limit leaves too little, he asks again.
        """
        if not self._waiting:
            return self.limit, 0, 0
        limit = min(limit for _, limit in self._waiting)
        estimates = [estimate for estimate, _ in self._waiting]
        self._waiting.clear()
        return limit, min(estimates), sum(estimates)

    def _wanted(self, need: int, now: float) -> int:
        """How much lease to hold: twice what the last interval took, more where it ran out early.

        A single call in the interval leaves no wish: what it did not spend goes back.
        """
        taken = max(0, self.used - self._granted_used - self._granted_need)
        if need or self._low:
            self._want = max(need, 2 * taken, 2 * self._want)
        else:
            self._want = max(2 * taken, self._want // 2) if taken else 0
        if self.idle(now):
            self._want = 0
        self._low = False
        self._want = min(self._want, _LARGEST_WANT)
        return self._want

    def apply(self, report: Report, grant: Grant, sent: float, now: float) -> None:
        """Take the store's answer to `report`, which was sent at `sent`."""
        self.synced_at = sent
        if grant.stale:
            self.dirty = True
            return
        self._base = grant.base
        self._retired = grant.retired
        self._generation = grant.generation
        self._others_spent = grant.spent - report.cum
        self._others_held = grant.held - report.inflight
        self.producers = grant.producers
        self._short = grant.short
        self.recovering = grant.recovering
        self.cap = grant.cap
        self.limit = report.limit
        self.until = 0.0 if report.final else sent + USABLE_S
        self._granted_used = self.used
        self._granted_need = report.need
        if not grant.recovering:
            self._outage_from = None
            beyond = self.cap - self.used - report.need
            if beyond > 0 and not grant.short:
                self.soft = self.cap - beyond // 4
        if report.need and grant.cap - report.keep < report.need and not grant.recovering:
            until = now + (HURRY_S if grant.short else _DENIAL_S)
            self._denial = _Denial(report.limit, report.least, until)
        if self.cum != report.cum or self.used - self.cum != report.inflight:
            self.dirty = True

    def unanswered(self) -> None:
        """A report got no answer: it must be said again."""
        self.dirty = True

    def rested(self) -> Rested:
        """What to remember of a scope that has left."""
        spent, held, _ = self.state(down=False)
        return Rested(self.cum, self._retired, self._generation, spent, held, self.expires_s)


def forgotten(key: str, rested: Rested, producer: str, seq: int) -> Report:
    """What to tell a store that lost its memory of a scope that rests here."""
    return Report(
        key=key,
        producer=producer,
        seq=seq,
        cum=rested.cum,
        inflight=0,
        keep=rested.cum,
        least=0,
        need=0,
        want=0,
        limit=0,
        base=rested.cum,
        retired=rested.retired,
        generation=rested.generation,
        final=True,
        expires_s=rested.expires_s,
    )
