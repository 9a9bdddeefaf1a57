"""What the data layer promises, over each store."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Self

import pytest

from spanledger.api.guard import internal_errors, reraise_internal_errors
from spanledger.cache import cache_control
from spanledger.cache.config import CacheConfig, Rule
from spanledger.cache.flight import MOST_FLIGHTS, Failed, Follow, Hit, Lead
from spanledger.cache.layer import DataLayer
from spanledger.cache.memory import MemoryStore
from spanledger.cache.redis_store import RedisStore
from spanledger.cache.steps import Call, Wait
from spanledger.cache.store import Store

FRESH = Rule(fresh_s=3600, stale_s=7200)
STALE = Rule(fresh_s=0, stale_s=3600)
"""What is stored is stale at once."""
NOTHING_KEPT = Rule(fresh_s=0, stale_s=0)
AHEAD = Rule(fresh_s=3600, stale_s=3600, ahead_s=3600)
"""What is stored is to be refreshed at once."""

VALUE = {"results": [{"title": "Otters", "rank": 1}], "credits_used": 2}


def lead(layer: DataLayer, key: str, rule: Rule = FRESH) -> Lead:
    answer = layer.begin(key, rule)
    assert isinstance(answer, Lead)
    assert not answer.alone
    return answer


def follow(layer: DataLayer, key: str, rule: Rule = FRESH) -> Follow:
    answer = layer.begin(key, rule)
    assert isinstance(answer, Follow)
    return answer


def hit(layer: DataLayer, key: str, rule: Rule = FRESH) -> Hit:
    answer = layer.begin(key, rule)
    assert isinstance(answer, Hit)
    return answer


def waiting(store: Store, key: str) -> int:
    """How many followers of this process the store would tell."""
    if isinstance(store, MemoryStore):
        return len(store._flights[key].waiters)
    assert isinstance(store, RedisStore)
    return sum(len(watched.waiters) for watched in store._keeper._watched.values())


# -- hits ------------------------------------------------------------------------------------------


def test_a_result_is_kept_with_what_it_cost(layer: DataLayer, key: str) -> None:
    lead(layer, key).store(VALUE, 123_456_789, Decimal("2.5"))
    found = hit(layer, key)
    assert found.value == VALUE
    assert found.saved == (123_456_789, Decimal("2.5"))
    assert not found.stale
    assert 0 <= found.age_s < 5


def test_an_unknown_cost_is_not_zero(layer: DataLayer, key: str) -> None:
    lead(layer, key).store(VALUE, None)
    assert hit(layer, key).saved == (None, None)


def test_hits_share_nothing(layer: DataLayer, key: str) -> None:
    value: dict = {"results": [1]}
    lead(layer, key).store(value, 1)
    value["results"].append("by the leader, later")
    first = hit(layer, key)
    assert isinstance(first.value, dict)
    first.value["results"].append("by a hit")
    assert hit(layer, key).value == {"results": [1]}


def test_a_large_result_is_kept(layer: DataLayer, key: str) -> None:
    value = {"pages": ["otters " * 1000] * 20}
    lead(layer, key).store(value, 1)
    assert hit(layer, key).value == value


def test_an_empty_result_is_kept_for_its_own_time(layer: DataLayer, key: str) -> None:
    rule = Rule(3600, 7200, empty_s=0)
    lead(layer, key, rule).store([], 1)
    assert lead(layer, key, rule).stale() is None
    lead(layer, key + "1", rule).store({"results": []}, 1, empty=True)
    lead(layer, key + "1", rule).store({}, 1, empty=False)
    assert hit(layer, key + "1", rule).value == {}


def test_after_its_time_it_is_gone(layer: DataLayer, key: str) -> None:
    rule = Rule(0.02, 0.04)
    lead(layer, key, rule).store(VALUE, 1)
    time.sleep(0.05)
    assert not lead(layer, key, rule).has_stale


def test_the_end_of_a_lead_counts_once(layer: DataLayer, key: str) -> None:
    leader = lead(layer, key)
    leader.store({"first": 1}, 1)
    leader.store({"second": 2}, 1)
    leader.fail("unavailable")
    leader.abandon()
    assert hit(layer, key).value == {"first": 1}


# -- stale -----------------------------------------------------------------------------------------


def test_one_caller_revalidates_while_the_others_are_served_stale(
    layer: DataLayer, key: str
) -> None:
    lead(layer, key, STALE).store({"old": 1}, 7)
    leader = lead(layer, key, STALE)
    assert leader.has_stale
    served = [hit(layer, key, STALE) for _ in range(3)]
    assert all(found.stale and found.value == {"old": 1} for found in served)
    leader.store({"new": 1}, 7)
    old = lead(layer, key, STALE).stale()
    assert old is not None
    assert (old.value, old.stale, old.saved.nano_usd) == ({"new": 1}, True, 7)


def test_one_caller_refreshes_ahead_and_the_others_are_served_fresh(
    layer: DataLayer, key: str
) -> None:
    lead(layer, key, AHEAD).store({"old": 1}, 1)
    leader = lead(layer, key, AHEAD)
    fallback = leader.stale()
    assert fallback is not None
    assert not fallback.stale
    assert not hit(layer, key, AHEAD).stale
    leader.store({"new": 1}, 1)
    assert lead(layer, key, AHEAD).has_stale


def test_after_a_provider_failure_what_is_stale_is_served_without_a_new_attempt(
    layer: DataLayer, key: str
) -> None:
    lead(layer, key, STALE).store(VALUE, 1)
    lead(layer, key, STALE).fail("unavailable")
    assert hit(layer, key, STALE).stale
    with cache_control(refresh=True):
        assert lead(layer, key, STALE).has_stale


@pytest.mark.parametrize("kind", ["own", "rejected"])
def test_after_other_failures_the_next_caller_tries(layer: DataLayer, key: str, kind: str) -> None:
    lead(layer, key, STALE).store(VALUE, 1)
    lead(layer, key, STALE).fail(kind)  # type: ignore[arg-type]
    assert lead(layer, key, STALE).has_stale


def test_errors_are_not_cached(layer: DataLayer, key: str) -> None:
    lead(layer, key).fail("unavailable", ValueError("x"), {"status": 500})
    assert not lead(layer, key).has_stale


# -- control ---------------------------------------------------------------------------------------


def test_bypass_neither_reads_nor_writes_nor_joins(layer: DataLayer, key: str) -> None:
    leader = lead(layer, key)
    with cache_control(bypass=True):
        answer = layer.begin(key, FRESH)
    assert isinstance(answer, Lead)
    assert answer.alone
    assert answer.bypassed
    assert not answer.has_stale
    answer.store({"bypassed": 1}, 1)
    leader.store(VALUE, 1)
    assert hit(layer, key).value == VALUE


def test_refresh_fetches_anew_and_joins_who_is_fetching(layer: DataLayer, key: str) -> None:
    lead(layer, key).store({"old": 1}, 1)
    with cache_control(refresh=True):
        leader = lead(layer, key)
        assert leader.has_stale
        follower = follow(layer, key)
    assert hit(layer, key).value == {"old": 1}
    leader.store({"new": 1}, 1)
    answer = follower.wait()
    assert isinstance(answer, Hit)
    assert answer.value == {"new": 1}
    assert hit(layer, key).value == {"new": 1}


def test_ttl_bounds_the_age_that_a_caller_accepts(layer: DataLayer, key: str) -> None:
    lead(layer, key).store(VALUE, 1)
    with cache_control(ttl=0):
        leader = lead(layer, key)  # too old for this one, who does not take it stale either
        follow(layer, key)
    with cache_control(ttl="1h"):
        hit(layer, key)
    hit(layer, key)
    leader.abandon()


def test_ttl_is_how_long_what_is_fetched_stays_fresh(layer: DataLayer, key: str) -> None:
    with cache_control(ttl="1h"):
        lead(layer, key, NOTHING_KEPT).store(VALUE, 1)
    assert not hit(layer, key, NOTHING_KEPT).stale
    with cache_control(ttl="1h"):
        lead(layer, key + "1", Rule(3600, 3600, empty_s=0)).store([], 1)
    assert not lead(layer, key + "1").has_stale


# -- followers -------------------------------------------------------------------------------------


def test_followers_get_equal_results_of_their_own(layer: DataLayer, key: str) -> None:
    leader = lead(layer, key, NOTHING_KEPT)
    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(follow(layer, key, NOTHING_KEPT).wait) for _ in range(8)]
        time.sleep(0.02)
        leader.store(VALUE, 5, Decimal(2))
        answers = [wait.result() for wait in waits]
    values = []
    for answer in answers:
        assert isinstance(answer, Hit)
        assert answer.value == VALUE
        assert answer.saved == (5, 2)
        assert not answer.stale
        values.append(answer.value)
    assert len({id(value) for value in [*values, VALUE]}) == 9
    assert not lead(layer, key, NOTHING_KEPT).has_stale  # nothing was kept


def test_a_follower_that_comes_to_wait_late_gets_the_result(layer: DataLayer, key: str) -> None:
    leader = lead(layer, key, NOTHING_KEPT)
    follower = follow(layer, key, NOTHING_KEPT)
    leader.store(VALUE, 5)
    answer = follower.wait()
    assert isinstance(answer, Hit)
    assert answer.value == VALUE


async def test_followers_of_an_event_loop_do_not_block_it(layer: DataLayer, key: str) -> None:
    leader = await layer.async_begin(key, NOTHING_KEPT)
    assert isinstance(leader, Lead)
    followers = [await layer.async_begin(key, NOTHING_KEPT) for _ in range(8)]
    waits = [asyncio.create_task(f.async_wait()) for f in followers if isinstance(f, Follow)]
    assert len(waits) == 8
    for _ in range(10):
        await asyncio.sleep(0.001)  # the loop runs on
    assert not any(wait.done() for wait in waits)
    await leader.async_store(VALUE, 5)
    values = [answer.value for answer in await asyncio.gather(*waits) if isinstance(answer, Hit)]
    assert values == [VALUE] * 8
    assert len({id(value) for value in values}) == 8


async def test_a_thread_leads_and_tasks_of_two_loops_follow(layer: DataLayer, key: str) -> None:
    leader = lead(layer, key)

    def other_loop() -> object:
        async def wait() -> object:
            answer = await layer.async_begin(key, FRESH)
            assert isinstance(answer, Follow)
            return await answer.async_wait()

        return asyncio.run(wait())

    first = asyncio.create_task(follow(layer, key).async_wait())
    second = asyncio.create_task(asyncio.to_thread(other_loop))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(leader.store, VALUE, 1)
    for answer in await asyncio.gather(first, second):
        assert isinstance(answer, Hit)
        assert answer.value == VALUE


def test_who_waited_too_long_calls_alone(layer: DataLayer, store: Store, key: str) -> None:
    leader = lead(layer, key)
    answer = follow(layer, key).wait(timeout=0.02)
    assert isinstance(answer, Lead)
    assert answer.alone
    assert waiting(store, key) == 0
    answer.store({"alone": 1}, 1)
    leader.store(VALUE, 1)
    assert hit(layer, key).value == VALUE


# -- failures --------------------------------------------------------------------------------------


class ProviderError(Exception):
    """Like those of the SDKs: cannot be made from its arguments, carries a body."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@pytest.mark.parametrize("kind", ["rejected", "unavailable"])
def test_a_failure_that_concerns_all_reaches_followers_as_an_error_of_their_own(
    layer: DataLayer, key: str, kind: str
) -> None:
    leader, error = lead(layer, key), ProviderError("no such place", status=404)
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(follow(layer, key).wait) for _ in range(2)]
        time.sleep(0.05)
        leader.fail(kind, error)  # type: ignore[arg-type]
        answers = [wait.result() for wait in waits]
    errors = []
    for answer in answers:
        assert isinstance(answer, Failed)
        assert answer.kind == kind
        assert isinstance(answer.error, ProviderError)
        assert answer.error.args == ("no such place",)
        assert answer.error.status == 404
        errors.append(answer.error)
    assert len({id(each) for each in [*errors, error]}) == 3


def test_what_the_leader_tells_of_its_failure_arrives(layer: DataLayer, key: str) -> None:
    leader, follower = lead(layer, key), follow(layer, key)
    leader.fail("rejected", detail={"status": 404, "body": {"credits_used": 1}})
    answer = follower.wait()
    assert answer == Failed("rejected", None, {"status": 404, "body": {"credits_used": 1}})


def test_a_failure_that_nobody_can_tell_sends_followers_to_the_provider(
    layer: DataLayer, key: str
) -> None:
    leader, follower = lead(layer, key), follow(layer, key)
    leader.fail("unavailable")
    answer = follower.wait()
    assert isinstance(answer, Lead)
    assert answer.alone


def test_a_failure_of_the_leaders_own_lets_another_lead(layer: DataLayer, key: str) -> None:
    leader = lead(layer, key)
    followers = [follow(layer, key) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        leading: list[Lead] = []

        def wait(follower: Follow) -> object:
            answer = follower.wait()
            if isinstance(answer, Lead):
                leading.append(answer)
                time.sleep(0.02)
                answer.store(VALUE, 1)
                return VALUE
            assert isinstance(answer, Hit)
            return answer.value

        waits = [pool.submit(wait, follower) for follower in followers]
        time.sleep(0.02)
        leader.fail("own", ValueError("budget"))
        assert [each.result() for each in waits] == [VALUE] * 4
    assert [each.alone for each in leading] == [False]


def test_after_several_flights_without_a_result_a_follower_calls_alone(
    layer: DataLayer, key: str
) -> None:
    leader, follower = lead(layer, key), follow(layer, key)
    steps = follower._wait(10.0)
    waiting = next(steps)
    answer: object = None
    for flights in range(1, MOST_FLIGHTS + 1):
        leader.fail("own")
        leader = lead(layer, key)
        assert isinstance(waiting, Wait)
        asking = steps.send(None)
        assert isinstance(asking, Call)
        try:
            waiting = steps.send(asking.run())
            assert flights < MOST_FLIGHTS
        except StopIteration as stop:
            assert flights == MOST_FLIGHTS
            answer = stop.value
    assert isinstance(answer, Lead)
    assert answer.alone


def test_a_result_that_cannot_be_kept_sends_each_follower_to_the_provider(
    layer: DataLayer, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    for value in ({"a": (1, 2)}, {"a": object()}, "x" * layer.config.max_entry_bytes):
        leader, follower = lead(layer, key), follow(layer, key)
        leader.store(value, 1)
        answer = follower.wait()
        assert isinstance(answer, Lead)
        assert answer.alone
    lead(layer, key)
    assert len(caplog.records) == 1
    assert "cannot be cached" in caplog.text


# -- cancellation and death ------------------------------------------------------------------------


async def test_cancelling_a_follower_harms_nobody(layer: DataLayer, store: Store, key: str) -> None:
    leader = await layer.async_begin(key, NOTHING_KEPT)
    assert isinstance(leader, Lead)
    waits = [asyncio.create_task(follow(layer, key).async_wait()) for _ in range(3)]
    await asyncio.sleep(0.02)
    waits[1].cancel()
    await asyncio.sleep(0.02)
    assert waits[1].cancelled()
    assert waiting(store, key) == 2
    await leader.async_store(VALUE, 1)
    for answer in await asyncio.gather(waits[0], waits[2]):
        assert isinstance(answer, Hit)
        assert answer.value == VALUE


async def test_cancelling_the_leader_lets_a_follower_lead(layer: DataLayer, key: str) -> None:
    async def call() -> object:
        answer = await layer.async_begin(key, FRESH)
        if isinstance(answer, Follow):
            followed.append(answer)
            answer = await answer.async_wait()
        if isinstance(answer, Hit):
            return answer.value
        assert isinstance(answer, Lead)
        try:
            await asyncio.sleep(0.05 if followed else 60)
            await answer.async_store(VALUE, 1)
        except asyncio.CancelledError:
            answer.abandon()
            raise
        return VALUE

    followed: list[Follow] = []
    leader = asyncio.create_task(call())
    await asyncio.sleep(0.05)
    followers = [asyncio.create_task(call()) for _ in range(4)]
    while len(followed) < 4:
        await asyncio.sleep(0.005)
    leader.cancel()
    assert await asyncio.wait_for(asyncio.gather(*followers), 1.0) == [VALUE] * 4


def test_a_lead_that_nobody_holds_is_replaced(layer: DataLayer, key: str) -> None:
    leader, follower = lead(layer, key), follow(layer, key)
    started = time.monotonic()
    del leader
    gc.collect()
    answer = follower.wait()
    assert isinstance(answer, Lead)
    assert not answer.alone
    assert time.monotonic() - started < 2.0


def test_a_lead_that_is_held_is_not_replaced(layer: DataLayer, key: str) -> None:
    leader = lead(layer, key)
    time.sleep(1.3)  # longer than a lease
    follower = follow(layer, key)
    leader.store(VALUE, 1)
    assert isinstance(follower.wait(), Hit)


async def test_a_lead_that_comes_when_its_caller_has_gone_is_given_on(
    layer: DataLayer, key: str
) -> None:
    for _ in range(5):
        task = asyncio.create_task(layer.async_begin(key, FRESH))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        gc.collect()
    started = time.monotonic()
    answer: object = await layer.async_begin(key, FRESH)
    if isinstance(answer, Follow):
        answer = await answer.async_wait()
    assert isinstance(answer, Lead)
    assert not answer.alone
    assert time.monotonic() - started < 1.5


# -- faults of our own -----------------------------------------------------------------------------


class Broken:
    """A store that fails in an unforeseen way."""

    blocks, timeout_s, recheck_s = False, 1.0, None

    def ask(self, *_: object) -> None:
        raise ZeroDivisionError

    def __getattr__(self, name: str) -> object:
        raise ZeroDivisionError


async def test_whatever_breaks_the_call_goes_on(key: str) -> None:
    reraise_internal_errors(False)
    layer = DataLayer(CacheConfig(), Broken())  # type: ignore[arg-type]
    for answer in (layer.begin(key, FRESH), await layer.async_begin(key, FRESH)):
        assert isinstance(answer, Lead)
        assert answer.alone
    assert internal_errors["cache.begin"] == 2


def test_an_error_that_cannot_be_copied_sends_followers_to_the_provider(
    layer: DataLayer, key: str
) -> None:
    class Odd(Exception):
        def __new__(cls, *args: object) -> Self:
            if args:
                raise RuntimeError
            return super().__new__(cls)

    error = Odd()
    error.args = ("x",)
    leader, follower = lead(layer, key), follow(layer, key)
    leader.fail("unavailable", error)
    answer = follower.wait()
    assert isinstance(answer, Lead)
    assert answer.alone


def test_parameters_that_are_not_json_have_no_key(
    layer: DataLayer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        key = layer.key(FRESH, provider="p", operation="o", request={"q": object()})
        assert key is None
        answer = layer.begin(key, FRESH)
        assert isinstance(answer, Lead)
        assert answer.alone
        assert not answer.bypassed
    assert layer.key(FRESH, provider="p", operation="o", request={"q": "otters"})
    assert len(caplog.records) == 1
    assert "otters" not in caplog.text


def test_tenants_share_only_what_is_public(layer: DataLayer, key: str) -> None:
    public = Rule(3600, 3600, public=True)

    def key_of(rule: Rule, tenant: str | None) -> str:
        made = layer.key(
            rule, provider="scavio", operation="search", request={"query": key}, tenant=tenant
        )
        assert made
        return made

    lead(layer, key_of(FRESH, "acme")).store({"for": "acme"}, 1)
    lead(layer, key_of(FRESH, "globex")).store({"for": "globex"}, 1)
    lead(layer, key_of(FRESH, None)).store({"for": None}, 1)
    lead(layer, key_of(public, "acme"), public).store({"for": "all"}, 1)
    assert hit(layer, key_of(FRESH, "acme")).value == {"for": "acme"}
    assert hit(layer, key_of(FRESH, "globex")).value == {"for": "globex"}
    assert hit(layer, key_of(FRESH, None)).value == {"for": None}
    assert hit(layer, key_of(public, "globex"), public).value == {"for": "all"}


def test_threads_of_many_make_one_call_each(layer: DataLayer, key: str) -> None:
    calls: list[str] = []

    def get(name: str) -> object:
        answer: object = layer.begin(name, FRESH)
        if isinstance(answer, Follow):
            answer = answer.wait()
        if isinstance(answer, Hit):
            return answer.value
        assert isinstance(answer, Lead)
        calls.append(name)
        time.sleep(0.01)
        answer.store({"of": name}, 1)
        return {"of": name}

    names = [f"{key}{i % 10}" for i in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(get, names)) == [{"of": name} for name in names]
    assert sorted(calls) == sorted(set(names))


def test_a_damaged_entry_is_fetched_anew(store: Store, key: str) -> None:
    small = DataLayer(CacheConfig(max_entry_bytes=1024), store)
    large = DataLayer(CacheConfig(), store)
    lead(large, key).store(["x" * 20_000], 1)  # compressed, and too large for the other's taste
    with cache_control(refresh=True):
        refreshing = lead(small, key)
    reraise_internal_errors(False)
    assert refreshing.has_stale
    assert refreshing.stale() is None
    refreshing.fail("own")
    leader = lead(small, key)
    leader.store(["y"], 1)
    assert hit(small, key).value == ["y"]


def test_the_keeper_goes_to_rest_when_there_is_nothing_to_keep(layer: DataLayer, key: str) -> None:
    leader, follower = lead(layer, key), follow(layer, key)
    timer = threading.Timer(0.05, leader.store, (VALUE, 1))
    timer.start()
    assert isinstance(follower.wait(), Hit)
    timer.join()
    store = layer._store
    keeper = getattr(store, "_keeper", None)
    if keeper:
        assert not keeper._led
        assert not keeper._watched
    else:
        assert store._flights == {}  # type: ignore[attr-defined]
