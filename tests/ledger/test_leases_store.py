"""What a store must answer, scene by scene, in simulated time: the same for memory, SQLite and Redis."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from spanledger.ledger.memory import MemoryStore
from spanledger.ledger.redis import RedisStore
from spanledger.ledger.sqlite import SqliteStore
from spanledger.ledger.store import Grant, Report

START = 1_800_000_000_000
LEASE = 5000
EXPIRES = 4_000_000_000


class Book(Protocol):
    def __call__(self, report: Report, now: int) -> Grant: ...


Replay = Callable[[str, str, int], bool | None]


class Stand:
    """A store in simulated time."""

    def __init__(self, book: Book, replay: Replay) -> None:
        self.key = f"tenant:acme|{uuid.uuid4().hex}"
        self.now = START
        self._book = book
        self._replay = replay
        self._seq = 0

    def report(self, producer: str, cum: int = 0, inflight: int = 0, **more: int | bool) -> Report:
        self._seq += 1
        words: dict[str, int | bool] = {
            "seq": self._seq,
            "keep": cum + inflight,
            "least": more.get("need", 0),
            "need": 0,
            "want": 0,
            "limit": 1000,
            "base": 0,
            "retired": 0,
            "generation": 0,
            "final": False,
            "expires_s": EXPIRES,
            **more,
        }
        return Report(self.key, producer, cum=cum, inflight=inflight, **words)  # type: ignore[arg-type]

    def send(self, report: Report) -> Grant:
        return self._book(report, self.now)

    def say(self, producer: str, cum: int = 0, inflight: int = 0, **more: int | bool) -> Grant:
        return self.send(self.report(producer, cum, inflight, **more))

    def replay(self, producer: str, cum: int) -> bool | None:
        return self._replay(self.key, producer, cum)

    def pass_time(self, ms: int) -> None:
        self.now += ms

    def live_on(self, ms: int, *producers: str) -> None:
        """Time passes, and `producers`, who spent nothing, report each second."""
        for _ in range(ms // 1000):
            self.now += 1000
            for producer in producers:
                self.say(producer)


def memory_books() -> tuple[Book, Replay]:
    store = MemoryStore()
    return (lambda report, now: store.book([report], now)[0]), store.replay


def sqlite_books(directory: Path) -> tuple[Book, Replay]:
    store = SqliteStore(directory / f"{uuid.uuid4().hex}.db")

    def book(report: Report, now: int) -> Grant:
        (grant,) = store.book([report], now)
        assert grant is not None
        return grant

    return book, store.replay


def redis_books(url: str) -> tuple[Book, Replay]:
    store = RedisStore(url)

    def book(report: Report, now: int) -> Grant:
        store.clock_ms = now
        (grant,) = store.sync([report])
        assert grant is not None
        return grant

    return book, store.replay


@pytest.fixture(params=["memory", "sqlite", "redis"])
def stand(request: pytest.FixtureRequest, tmp_path: Path, strict_guard: None) -> Iterator[Stand]:
    if request.param == "redis":
        yield Stand(*redis_books(request.getfixturevalue("shared_redis").url))
    else:
        yield Stand(*(memory_books() if request.param == "memory" else sqlite_books(tmp_path)))


def test_a_need_is_granted_where_there_is_room(stand: Stand) -> None:
    grant = stand.say("a", need=400)
    assert (grant.cap, grant.spent, grant.held) == (400, 0, 0)
    assert stand.say("b", need=600).cap == 600
    denied = stand.say("c", need=1)
    assert denied.cap == 0
    assert denied.short


def test_beyond_the_need_a_share_is_granted(stand: Stand) -> None:
    # One producer: a quarter of the room; two: a sixth of what is left.
    assert stand.say("a", need=10, want=900).cap == 250
    assert stand.say("b", need=10, want=900).cap == 125
    assert stand.say("c", need=10, want=20).cap == 20


def test_a_grant_tells_how_many_spend(stand: Stand) -> None:
    assert stand.say("a").producers == 1
    assert stand.say("b").producers == 2
    assert stand.say("a").producers == 2
    assert stand.say("b", final=True).producers == 1
    stand.say("c")
    stand.live_on(LEASE + 1000, "a")
    assert stand.say("a").producers == 1


def test_what_is_left_is_granted_to_those_who_fit(stand: Stand) -> None:
    stand.say("a", cum=900)
    assert stand.say("b", least=60, need=180).cap == 100
    assert stand.say("c", least=60, need=60).cap == 0


def test_never_below_what_the_producer_keeps(stand: Stand) -> None:
    stand.say("a", need=1000)
    grant = stand.say("b", cum=300, inflight=200, need=10)
    assert grant.cap == 500
    assert grant.spent == 300
    assert grant.held == 200


def test_a_lower_limit_grants_less(stand: Stand) -> None:
    stand.say("a", cum=500)
    assert stand.say("b", need=100, limit=550).cap == 0
    assert stand.say("b", need=100, limit=600).cap == 100


def test_cumulative_reports_may_be_repeated_and_late(stand: Stand) -> None:
    first = stand.report("a", cum=10)
    second = stand.report("a", cum=30, inflight=5)
    assert stand.send(second).spent == 30
    late = stand.send(first)
    assert late.stale
    assert late.spent == 30
    assert stand.send(second).stale
    assert stand.say("b").spent == 30


def test_a_reservation_while_a_sync_is_under_way(stand: Stand) -> None:
    # The producer keeps 100 of its lease while it reports; in between another takes all the rest.
    stand.say("a", need=300)
    report = stand.report("a", cum=50, inflight=20, keep=100)
    assert stand.say("b", need=700).cap == 700
    assert stand.send(report).cap == 100
    assert stand.say("b", cum=700, need=200).cap == 900
    assert stand.say("a", cum=100).cap == 100


def test_a_lost_reply_leaves_the_lease_with_the_store_until_the_next_report(stand: Stand) -> None:
    stand.say("a", need=800)  # the reply is lost: the producer has no lease, the store thinks so
    assert stand.say("b", need=300).cap == 0
    assert stand.say("a", need=100).cap == 100
    assert stand.say("b", need=300).cap == 300


def test_forty_idle_producers_give_back_what_they_hold(stand: Stand) -> None:
    for i in range(40):
        stand.say(f"p{i}", need=1, want=100)
    first = stand.say("busy", need=900)
    assert first.cap == 0
    assert first.short  # there is money, and others hold it: it is called back
    for i in range(40):
        grant = stand.say(f"p{i}", cum=1, want=100)
        assert grant.short
        assert grant.cap == 1
    assert stand.say("busy", need=900).cap == 900


def test_a_full_scope_recalls_nothing(stand: Stand) -> None:
    stand.say("a", cum=900, inflight=100)
    assert not stand.say("b", need=10).short


def test_a_silent_producer_is_reaped(stand: Stand) -> None:
    stand.say("a", cum=100, inflight=40, need=300)
    assert stand.say("b", need=800).cap == 0
    stand.live_on(LEASE, "b")
    grant = stand.say("b", need=800)
    # Its estimates in flight count as spent, its lease is back.
    assert (grant.cap, grant.spent, grant.held, grant.retired) == (800, 140, 0, 140)


def test_a_reaped_producer_that_comes_back_counts_once(stand: Stand) -> None:
    stand.say("a", cum=100, inflight=40)
    stand.live_on(LEASE + 1000, "b")
    back = stand.say("a", cum=120, inflight=0)
    assert (back.spent, back.held, back.base) == (120, 0, 140)
    assert stand.say("a", cum=170).spent == 170
    stand.live_on(LEASE + 1000, "b")
    assert stand.say("b").spent == 170
    assert stand.say("a", cum=171, base=7).spent == 171  # the store knows better than the producer


def test_a_late_report_of_a_reaped_producer_counts_nothing(stand: Stand) -> None:
    late = stand.report("a", cum=90)
    stand.say("a", cum=100)
    stand.live_on(LEASE + 1000, "b")
    assert stand.send(late).stale
    assert stand.say("b").spent == 100


def test_after_a_stall_comes_a_grace_period(stand: Stand) -> None:
    stand.say("a", need=600)
    stand.say("b", need=300)
    stand.pass_time(3 * LEASE)  # the store stood still: both look expired
    assert stand.say("b", need=500).cap == 0
    stand.live_on(LEASE - 1000, "b")
    assert stand.say("a", cum=600).cap == 600
    assert stand.say("b", need=500).cap == 0
    stand.live_on(LEASE + 1000, "b")  # now a is silent while the store is there
    assert stand.say("b").retired == 600


def test_a_silent_producer_is_reaped_where_few_report(stand: Stand) -> None:
    """Each call comes long after the last one, and its producer leaves two seconds later."""
    stand.say("a", inflight=40, need=300)
    for _ in range(4):
        stand.pass_time(8 * 60_000)
        stand.say("b")
        stand.live_on(2000, "b")
        stand.say("b", final=True)
    assert stand.say("b").held == 0
    assert stand.say("b", need=900).cap == 900


def test_a_jump_of_the_clock_reaps_nobody(stand: Stand) -> None:
    stand.say("a", need=600)
    for jump in (60_000, -60_000, 60_000):
        stand.now += jump
        assert stand.say("b", need=500).cap == 0
        assert stand.say("a", inflight=600).held == 600


def test_who_leaves_gives_all_back_and_counts_once(stand: Stand) -> None:
    stand.say("a", cum=10, need=900)
    leaving = stand.report("a", cum=30, final=True)
    gone = stand.send(leaving)
    assert (gone.spent, gone.retired, gone.base) == (30, 30, 30)
    assert stand.send(leaving).stale
    # Its reply was lost: said again, it counts no more.
    assert stand.say("a", cum=30, final=True).spent == 30
    assert stand.say("b", need=970).cap == 970
    # It comes back.
    assert stand.say("a", cum=35, base=30).spent == 35


def test_who_left_long_ago_may_come_back(stand: Stand) -> None:
    stand.say("a", cum=30, final=True)
    stand.live_on(2000, "b")
    stand.pass_time(20 * 60_000)
    stand.live_on(2 * LEASE, "b")
    assert stand.say("a", cum=35, base=30).spent == 35
    assert stand.say("a", cum=36, base=30).spent == 36


def test_who_leaves_with_calls_in_flight_leaves_their_estimates(stand: Stand) -> None:
    stand.say("a", cum=10, inflight=7)
    gone = stand.say("a", cum=10, inflight=7, final=True)
    assert (gone.spent, gone.held) == (17, 0)


def test_a_lost_memory_is_noticed_and_recovered(stand: Stand) -> None:
    former = START - 100_000
    # The store is empty, but this producer knows of a former memory in which 200 were retired.
    grant = stand.say("a", cum=100, need=10, retired=200, generation=former)
    assert grant.recovering
    assert grant.generation > former
    assert (grant.cap, grant.spent) == (100, 300)
    # Another knew of more retired, and spent 50.
    other = stand.say("b", cum=50, need=10, retired=250, generation=former)
    assert (other.cap, other.spent, other.recovering) == (50, 400, True)
    # Somebody new gets nothing yet.
    assert stand.say("c", need=10).cap == 0
    stand.live_on(LEASE, "c")
    grant = stand.say("c", need=10)
    assert not grant.recovering
    assert grant.cap == 10


def test_a_memory_lost_and_found_again_by_somebody_new_first(stand: Stand) -> None:
    new = stand.say("new", need=10)
    assert not new.recovering
    stand.pass_time(200)
    old = stand.say("old", cum=900, need=10, retired=40, generation=START - 100_000)
    assert old.recovering
    assert old.spent == 940
    assert stand.say("new", cum=10, need=10, generation=new.generation).cap == 10


def test_a_straggler_of_a_former_memory_stops_nobody(stand: Stand) -> None:
    stand.say("new", need=10)
    stand.live_on(2 * LEASE, "new")
    late = stand.say("old", cum=100, retired=40, generation=START - 100_000)
    assert not late.recovering
    assert late.spent == 140
    assert stand.say("new", need=10, generation=late.generation).cap == 10


def test_retirements_after_the_loss_add_to_those_before(stand: Stand) -> None:
    first = stand.say("a", cum=100, retired=200, generation=START - 100_000)
    gone = stand.say("a", cum=110, final=True, generation=first.generation)
    assert gone.retired == 310
    assert stand.say("b", retired=250, generation=START - 100_000).retired == 360


def test_replay_corrects_a_dead_producer_once(stand: Stand) -> None:
    assert not stand.replay("a", 5)
    stand.say("a", cum=100, inflight=40)
    assert not stand.replay("a", 130)  # it lives, for all the store knows
    stand.live_on(LEASE + 1000, "b")
    assert stand.say("b").spent == 140
    assert stand.replay("a", 131)
    assert stand.replay("a", 131)
    assert stand.say("b").spent == 131
    assert stand.replay("a", 90)  # its journal lost what it told itself
    assert stand.say("b").spent == 100
    assert stand.replay("a", 131)
    assert stand.say("a", cum=133).spent == 133


def test_replay_adds_what_was_spent_after_the_last_word(stand: Stand) -> None:
    stand.say("a", cum=100, inflight=40, final=True)
    assert stand.replay("a", 135)  # what was in flight counts, whatever came of it
    assert stand.say("b").spent == 140
    assert stand.replay("a", 150)
    assert stand.say("b").spent == 150
    assert stand.say("a", cum=152, base=140).spent == 152


def test_amounts_stay_exact_up_to_the_largest(stand: Stand) -> None:
    large = 2**53 - 10
    assert stand.say("a", cum=large, inflight=1).spent == large
    grant = stand.say("a", cum=large + 2, need=3, limit=2**53 - 1)
    assert (grant.spent, grant.cap) == (large + 2, large + 5)


# -- the three are one ---------------------------------------------------------------------------------------

AMOUNT = st.integers(0, 400)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("a", "b", "c", "d")),
        AMOUNT,  # spent since
        AMOUNT,  # in flight
        st.sampled_from((0, 0, 5, 100)),  # kept beyond
        st.sampled_from((0, 1, 50, 400)),  # need
        st.sampled_from((0, 100, 5000)),  # want
        st.sampled_from((1000, 1200, 5000)),  # limit
        st.sampled_from((0, 100, 900, 3000, 7000, 1_000_000, -2000)),  # time that passes
        st.sampled_from(("report",) * 8 + ("leave", "late", "amnesia", "replay")),
    ),
    max_size=30,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_all_stores_keep_the_same_books(
    steps: list[tuple[str, int, int, int, int, int, int, int, str]],
    tmp_path: Path,
    shared_redis: "object",
) -> None:
    stands = [
        Stand(*books)
        for books in (
            memory_books(),
            sqlite_books(tmp_path),
            redis_books(shared_redis.url),  # type: ignore[attr-defined]
        )
    ]
    told: dict[str, Grant] = {}
    spent = dict.fromkeys("abcd", 0)
    for producer, more, inflight, kept, need, want, limit, ms, what in steps:
        spent[producer] += more
        grant = told.get(producer)
        generation = START - 5 if what == "amnesia" else grant.generation if grant else 0
        answers: list[Grant | bool | None] = []
        for stand in stands:
            stand.now += ms
            if what == "replay":
                answers.append(stand.replay(producer, spent[producer] - kept))
                continue
            report = stand.report(
                producer,
                spent[producer],
                inflight,
                keep=spent[producer] + inflight + kept,
                least=need // 2,
                need=need,
                want=want,
                limit=limit,
                base=grant.base if grant else 0,
                retired=grant.retired if grant else 0,
                generation=generation,
                final=what == "leave",
            )
            if what == "late":
                report = report._replace(seq=1)
            answers.append(stand.send(report))
        assert answers[0] == answers[1] == answers[2]
        if isinstance(answers[0], Grant) and not answers[0].stale:
            told[producer] = answers[0]


# -- what is over ----------------------------------------------------------------------------------------------


def report_of(key: str, expires_s: int) -> Report:
    return Stand(*memory_books()).report("a", cum=1, expires_s=expires_s)._replace(key=key)


def test_memory_forgets_what_is_over() -> None:
    store = MemoryStore()
    store.sync([report_of("over", 1000), report_of("not over", EXPIRES)])
    store.sync([report_of(f"new {i}", EXPIRES) for i in range(1100)])
    assert [totals.spent for totals in store.read(["over", "not over", "new 0"])] == [0, 1, 1]


def test_sqlite_forgets_what_is_over(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    store.sync([report_of("over", 1000), report_of("not over", EXPIRES)])
    store.sync([report_of("new", EXPIRES)])
    spent = [totals and totals.spent for totals in store.read(["over", "not over", "new"])]
    assert spent == [0, 1, 1]
    store.close()


def test_redis_forgets_what_is_over(shared_redis: object) -> None:
    store = RedisStore(shared_redis.url)  # type: ignore[attr-defined]
    mark, now = uuid.uuid4().hex, int(time.time())
    store.sync([report_of(f"over {mark}", 1000), report_of(f"later {mark}", now + 10 * 86400)])
    with shared_redis.admin as admin:  # type: ignore[attr-defined]
        # What is over already is kept for a day: somebody still reports it.
        assert 86000 < admin.ttl(f"spanledger:{{over {mark}}}") <= 86400
        assert 863000 < admin.ttl(f"spanledger:{{later {mark}}}") <= 864000
    store.close()


def test_sqlite_survives_a_broken_transaction(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    broken = report_of("a", EXPIRES)._replace(key=object())  # type: ignore[arg-type]
    assert store.sync([report_of("b", EXPIRES), broken]) == [None, None]
    assert [totals and totals.spent for totals in store.read(["b"])] == [0]
    (grant,) = store.sync([report_of("b", EXPIRES)])
    assert grant is not None
    assert grant.spent == 1
    store.close()


def test_a_forked_child_has_a_memory_of_its_own() -> None:
    store = MemoryStore()
    store.sync([report_of("a", EXPIRES)])
    store.after_fork(in_child=False)
    assert store.read(["a"])[0].spent == 1
    store.after_fork(in_child=True)
    assert store.read(["a"])[0].spent == 0
