"""Any interleaving of asking, storing, failing, dying and time passing keeps the promises."""

import uuid
from concurrent.futures import Future
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from spanledger.cache.memory import MemoryStore
from spanledger.cache.redis_store import RedisStore
from spanledger.cache.store import Ask, Failure, Packed, Reply, Waiter

KEYS = st.sampled_from(["a", "b"])
LEASE_S = 10.0


class Holder:
    """What a leader holds on to."""


class Flight:
    def __init__(self, token: int, started: float) -> None:
        self.token = token
        self.started = started
        self.holder: Holder | None = None
        self.held = False
        self.ended = False
        self.waiters: list[Waiter] = []


class Entry:
    def __init__(self, token: int, born: float, fresh_s: float, stale_s: float) -> None:
        self.token = token
        self.born = born
        self.fresh_s = fresh_s
        self.stale_s = stale_s
        self.hold_until = 0.0


class Interleavings(RuleBasedStateMachine):
    """One store, its clock in our hands, and an account of what was promised to whom."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.store = MemoryStore(clock=lambda: self.now, lease_s=LEASE_S)
        self.flights: dict[str, Flight] = {}
        self.entries: dict[str, Entry] = {}
        self.tokens: list[tuple[str, int]] = []

    def live(self, key: str) -> Flight | None:
        flight = self.flights.get(key)
        if flight is None or flight.ended:
            return None
        alive = flight.holder is not None if flight.held else self.now < flight.started + LEASE_S
        return flight if alive else None

    @rule(
        key=KEYS,
        max_age_s=st.sampled_from([None, None, 0.0, 3.0, 100.0]),
        refresh=st.sampled_from([False, False, True]),
        ahead_s=st.sampled_from([0.0, 2.0]),
        follows=st.booleans(),
    )
    def ask(
        self, key: str, max_age_s: float | None, refresh: bool, ahead_s: float, follows: bool
    ) -> None:
        mine = [token for of, token in self.tokens if of == key]
        following = mine[-1] if follows and mine else 0
        live, entry = self.live(key), self.entries.get(key)
        if entry and self.now - entry.born >= entry.stale_s:
            entry = None
        reply = self.store.ask(key, Ask(max_age_s, refresh, ahead_s, following))
        brought = entry is not None and 0 < following <= entry.token
        if entry is None:
            assert reply.kept is None, "what is too old, or was never stored, is served"
        elif reply.kept:
            age = self.now - entry.born
            assert reply.kept.packed == Packed(b"%d" % entry.token, entry.token, Decimal(1))
            assert reply.kept.age_s == age
            if reply.verdict == "hit" and not brought:
                assert not refresh
                assert max_age_s is None or age < max_age_s
                assert reply.kept.fresh == (age < entry.fresh_s)
                busy = live or self.now < entry.hold_until
                assert busy or age < entry.fresh_s - ahead_s, "stale, and nobody fetches anew"
        if brought:
            assert reply.verdict == "hit"
        elif reply.verdict == "follow":
            assert live
            assert reply.token == live.token
            waiter: Waiter = Future()
            live.waiters.append(waiter)
            self.store.watch(key, reply, waiter)
        elif reply.verdict == "lead":
            assert live is None, "two leaders"
            assert all(reply.token > token for _, token in self.tokens), "tokens do not grow"
            if old := self.flights.get(key):
                assert old.ended or all(waiter.result(0) is None for waiter in old.waiters)
                old.ended = True
            self.flights[key] = Flight(reply.token, self.now)
            self.tokens.append((key, reply.token))
        else:
            assert reply.verdict == "hit"
        if entry and self.now - entry.born < entry.fresh_s - ahead_s and not refresh:
            assert reply.verdict == "hit" or max_age_s is not None, "a fresh entry is not served"

    @rule(key=KEYS)
    def hold(self, key: str) -> None:
        if (flight := self.live(key)) and not flight.held:
            flight.held, flight.holder = True, Holder()
            self.store.hold(key, flight.token, flight.holder)

    @rule(key=KEYS)
    def die(self, key: str) -> None:
        if flight := self.flights.get(key):
            flight.holder = None

    @rule(
        data=st.data(),
        fresh_s=st.sampled_from([0.0, 1.0, 5.0]),
        more_s=st.sampled_from([0.0, 4.0, 50.0]),
    )
    def put(self, data: st.DataObject, fresh_s: float, more_s: float) -> None:
        if not self.tokens:
            return
        key, token = data.draw(st.sampled_from(self.tokens))
        flight = self.flights[key]
        stored = self.store.put(
            key, token, Packed(b"%d" % token, token, Decimal(1)), fresh_s, fresh_s + more_s
        )
        assert stored == (flight.token == token and not flight.ended), "fencing"
        if stored:
            flight.ended = True
            self.entries.pop(key, None)
            if fresh_s + more_s:
                self.entries[key] = Entry(token, self.now, fresh_s, fresh_s + more_s)
            for waiter in flight.waiters:
                news = waiter.result(0)
                assert news
                assert news.kept
                assert news.kept.packed.data == b"%d" % token

    @rule(
        data=st.data(),
        failure=st.sampled_from(
            [Failure(None), Failure("rejected", b"{}"), Failure("x", hold_s=5)]
        ),
    )
    def fail(self, data: st.DataObject, failure: Failure) -> None:
        if not self.tokens:
            return
        key, token = data.draw(st.sampled_from(self.tokens))
        flight = self.flights[key]
        failed = self.store.fail(key, token, failure)
        assert failed == (flight.token == token and not flight.ended), "fencing"
        if failed:
            flight.ended = True
            if failure.hold_s and (entry := self.entries.get(key)):
                entry.hold_until = self.now + failure.hold_s
            for waiter in flight.waiters:
                assert waiter.result(0) == failure.news(token)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def followers_of_who_is_at_work_wait(self) -> None:
        for flight in self.flights.values():
            if not flight.ended:
                assert not any(waiter.done() for waiter in flight.waiters)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


class BothStores(RuleBasedStateMachine):
    """The same questions to both stores have the same answers: what is true of one is true of the other.

    Time does not pass here: what is to be stale or gone is so at once, and leases have either no length or a long one.
    """

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryStore(clock=lambda: 1_000.0)
        self.redis = RedisStore(self.url, timeout_s=2.0)
        self.run = uuid.uuid4().hex
        self.pairs: list[tuple[str, int, int]] = []
        self.last: dict[str, Packed] = {}

    def teardown(self) -> None:
        self.redis.close()

    @rule(
        key=KEYS,
        max_age_s=st.sampled_from([None, None, 0.0, 3000.0]),
        refresh=st.sampled_from([False, False, True]),
        ahead_s=st.sampled_from([0.0, 7200.0]),
        lease_s=st.sampled_from([0, 3600]),
        follows=st.booleans(),
    )
    def ask(
        self,
        key: str,
        max_age_s: float | None,
        refresh: bool,
        ahead_s: float,
        lease_s: int,
        follows: bool,
    ) -> None:
        mine = [pair for pair in self.pairs if pair[0] == key]
        _, in_memory, in_redis = mine[-1] if follows and mine else (key, 0, 0)
        self.memory._lease_s = lease_s
        self.redis._lease_ms = lease_s * 1000
        one = self.memory.ask(key, Ask(max_age_s, refresh, ahead_s, in_memory))
        other = self.redis.ask(self.run + key, Ask(max_age_s, refresh, ahead_s, in_redis))
        ended = other.verdict == "failed" or (other.verdict, one.verdict) == ("hit", "lead")
        if in_redis and ended:
            # In memory a follower is told how its flight ended; Redis keeps the end, to be asked.
            if other.kept:
                assert other.kept.packed == self.last[key]
            if one.verdict == "lead":
                self.memory.fail(key, one.token, Failure(None))
            return
        assert self.said(one) == self.said(other)
        if one.verdict == "lead":
            self.pairs.append((key, one.token, other.token))
        if one.verdict == "follow":
            assert (key, one.token, other.token) in self.pairs

    @staticmethod
    def said(reply: Reply) -> tuple[object, ...]:
        kept = reply.kept
        return (reply.verdict, kept and kept.packed, kept and kept.fresh)

    @rule(
        data=st.data(),
        times=st.sampled_from([(3600, 7200), (0, 7200), (0, 0)]),
        nano_usd=st.sampled_from([None, 0, 10**17]),
        credits_=st.sampled_from([None, Decimal("0.5")]),
        content=st.binary(max_size=20),
    )
    def put(
        self,
        data: st.DataObject,
        times: tuple[int, int],
        nano_usd: int | None,
        credits_: Decimal | None,
        content: bytes,
    ) -> None:
        if self.pairs:
            key, in_memory, in_redis = data.draw(st.sampled_from(self.pairs))
            packed = Packed(content, nano_usd, credits_)
            one = self.memory.put(key, in_memory, packed, *times)
            assert one == self.redis.put(self.run + key, in_redis, packed, *times)
            if one:
                self.last[key] = packed

    @rule(
        data=st.data(),
        failure=st.sampled_from([Failure(None), Failure("x", b"{}"), Failure("x", hold_s=3600)]),
    )
    def fail(self, data: st.DataObject, failure: Failure) -> None:
        if self.pairs:
            key, in_memory, in_redis = data.draw(st.sampled_from(self.pairs))
            one = self.memory.fail(key, in_memory, failure)
            assert one == self.redis.fail(self.run + key, in_redis, failure)


def test_both_stores_answer_alike(server: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BothStores, "url", server.url)  # type: ignore[attr-defined]
    run_state_machine_as_test(
        BothStores,
        settings=settings(
            max_examples=120,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
