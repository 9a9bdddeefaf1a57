"""Clients and a store with a network between them that loses, repeats and reorders, in simulated time."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from spanledger.ledger.book import REAPED
from spanledger.ledger.memory import MemoryStore
from spanledger.ledger.scope import Rested, Scope
from spanledger.ledger.store import LEASE_S, Grant, Report

KEY = "tenant:acme|month|2026-11"
LIMIT = 1000
CLIENTS = 3
WHO = st.sampled_from((0, 0, 0, 1, 1, 2))  # the first is busier
ANSWERED = st.sampled_from(("heard",) * 6 + ("reply lost", "lost"))


@dataclass
class Client:
    name: str
    scope: Scope | None = None
    rested: Rested | None = None
    awaited: "Message | None" = None
    seq: int = 0
    spent: int = 0
    estimates: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.spent + sum(self.estimates)


@dataclass(eq=False)
class Message:
    client: Client
    scope: Scope
    report: Report
    sent: float
    grant: Grant | None = None
    final: bool = False


class Leases(RuleBasedStateMachine):
    """Every estimate is an upper bound. What is true is kept beside, in `Client`."""

    messages = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.ms = 1_000_000
        self.names = 0
        self.dead: list[Client] = []
        self.unreported = 0
        self.booked: dict[str, tuple[int, int]] = {}
        self.reaped: set[str] = set()

    @initialize()
    def start(self) -> None:
        self.clients = [self.newcomer() for _ in range(CLIENTS)]

    def newcomer(self) -> Client:
        self.names += 1
        return Client(f"p{self.names}")

    @property
    def now(self) -> float:
        return self.ms / 1000

    def scope_of(self, client: Client) -> Scope:
        if client.scope is None:
            client.scope = Scope(KEY, 2_000_000_000, self.now, client.rested)
            client.rested = None
        return client.scope

    # -- the network -----------------------------------------------------------------------------------------

    def send(self, client: Client, *, final: bool = False) -> Message:
        scope = self.scope_of(client)
        client.seq += 1
        report = scope.report(client.name, client.seq, self.now, final=final)
        assert min(report[2:]) >= 0
        assert report.keep >= report.cum + report.inflight
        client.awaited = Message(client, scope, report, self.now, final=final)
        return client.awaited

    def arrive(self, message: Message) -> None:
        (grant,) = self.store.book([message.report], self.ms)
        assert min(grant) >= 0
        if not grant.stale:
            assert grant.cap >= message.report.keep
            self.booked[message.client.name] = (message.report.cum, message.report.inflight)
        message.grant = message.grant or grant
        self.note_reaped()

    def note_reaped(self) -> None:
        """What a producer did within its lease and could not report before the lease went back is beyond the limit."""
        clients = {client.name: client for client in (*self.clients, *self.dead)}
        records = dict(self.store._books[KEY].all())
        for name, record in records.items():
            if record.state == REAPED and name not in self.reaped:
                self.unreported += max(0, clients[name].total - record.cum)
        self.reaped = {name for name, record in records.items() if record.state == REAPED}

    def answer(self, message: Message) -> None:
        """The client hears the first answer to a message it still waits for."""
        client = message.client
        if message.grant is None or client.awaited is not message:
            return
        client.awaited = None
        message.scope.apply(message.report, message.grant, message.sent, self.now)
        if message.final and not message.scope.dirty and not client.estimates:
            client.rested = message.scope.rested()
            client.scope = None

    @rule(target=messages, who=WHO)
    def report(self, who: int) -> Message:
        client = self.clients[who]
        if client.awaited:  # it took too long
            message, client.awaited = client.awaited, None
            message.scope.unanswered()
        return self.send(client)

    @rule(target=messages, who=WHO, answered=ANSWERED)
    def leave(self, who: int, answered: str) -> Message:
        client = self.clients[who]
        return self.exchange(client, answered, final=not client.estimates)

    def exchange(self, client: Client, answered: str, *, final: bool = False) -> Message:
        client.awaited = None
        message = self.send(client, final=final)
        if answered != "lost":
            self.arrive(message)
        if answered == "heard":
            self.answer(message)
        return message

    @rule(
        who=WHO,
        seconds=st.sampled_from((2, 6, 6, 12)),
        greedy=st.sampled_from((True, True, False)),
        reports=st.sampled_from((False, False, True)),
    )
    def cut_off(self, who: int, seconds: int, greedy: bool, reports: bool) -> None:
        """One client hears and says nothing for a while; the others go on, and perhaps take all there is."""
        lonely = self.clients[who]
        others = [client for client in self.clients if client is not lonely]
        for _ in range(seconds):
            self.ms += 1000
            for client in others:
                self.exchange(client, "heard")
        for client in others * 10 if greedy else ():
            list(self.call(client, 100, "heard"))
        if reports:
            self.exchange(lonely, "heard")
        for estimate in (200, 100, 50, 20, 10):
            self.take(lonely, estimate)

    # -- calls -------------------------------------------------------------------------------------------------

    @rule(target=messages, who=WHO, estimate=st.integers(1, 150), answered=ANSWERED)
    def reserve(self, who: int, estimate: int, answered: str) -> MultipleResults[Message]:
        return multiple(*self.call(self.clients[who], estimate, answered))

    @rule(
        target=messages,
        who=WHO,
        estimates=st.lists(st.integers(50, 250), max_size=5),
        answered=ANSWERED,
    )
    def reserve_more(
        self, who: int, estimates: list[int], answered: str
    ) -> MultipleResults[Message]:
        client = self.clients[who]
        return multiple(*(m for one in estimates for m in self.call(client, one, answered)))

    def call(self, client: Client, estimate: int, answered: str) -> Iterator[Message]:
        scope = self.scope_of(client)
        if not self.take(client, estimate) and client.awaited is None:
            scope.wait(estimate, LIMIT)
            yield self.exchange(client, answered)
            if not scope.denies(LIMIT, estimate, self.now):
                self.take(client, estimate)

    def take(self, client: Client, estimate: int) -> bool:
        scope = client.scope
        if scope is None or scope.used + estimate > scope.cap or self.now >= scope.until:
            return False
        scope.used += estimate
        client.estimates.append(estimate)
        return True

    @rule(who=WHO, percent=st.sampled_from((0, 50, 100, 100, 100)))
    def settle(self, who: int, percent: int) -> None:
        client = self.clients[who]
        if client.estimates:
            estimate = client.estimates.pop(0)
            actual = estimate * percent // 100
            scope = self.scope_of(client)
            scope.used += actual - estimate
            scope.cum += actual
            scope.used_at = self.now
            scope.dirty = True
            client.spent += actual

    @rule(who=WHO)
    def kill(self, who: int) -> None:
        client = self.clients[who]
        client.awaited = None
        self.dead.append(client)
        self.clients[who] = self.newcomer()

    # -- what must hold ----------------------------------------------------------------------------------------

    @invariant()
    def limit_holds(self) -> None:
        everybody = [*getattr(self, "clients", ()), *self.dead]
        total = sum(client.total for client in everybody)
        assert total <= LIMIT + self.unreported

    @invariant()
    def nothing_is_negative(self) -> None:
        """Of what anybody is told, that is: the store's `live` is, where one that was reaped with calls in flight is back."""
        (totals,) = self.store.read([KEY])
        assert min(totals) >= 0
        for _, record in self.store._books[KEY].all() if KEY in self.store._books else ():
            assert min(record) >= 0
        for client in getattr(self, "clients", ()):
            if (scope := client.scope) is not None:
                assert 0 <= scope.cum <= scope.used
                assert min(scope.cap, *scope.state(down=False)) >= 0
            if client.rested is not None:
                assert min(client.rested) >= 0

    @precondition(lambda self: hasattr(self, "clients"))
    @rule()
    def settle_the_books(self) -> None:
        """All live clients report until the dead are reaped: then the store knows the truth."""
        for _ in range(int(LEASE_S * 3)):
            for client in self.clients:
                self.exchange(client, "heard")
            self.ms += 1000
        (totals,) = self.store.read([KEY])
        reported = [self.booked[client.name] for client in self.dead if client.name in self.booked]
        assert totals.spent == sum(client.spent for client in self.clients) + sum(
            cum + inflight for cum, inflight in reported
        )
        assert totals.held == sum(sum(client.estimates) for client in self.clients)
        for client in self.clients:
            assert client.scope is not None
            assert client.scope.state(down=False) == (totals.spent, totals.held, False)


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
