import gc
import threading
import tracemalloc

import pytest

from spanledger.api.errors import ConfigurationError
from spanledger.cache.memory import ENTRY_OVERHEAD, MemoryStore
from spanledger.cache.store import Ask, Failure, Packed, Waiter, open_store


def keep(store: MemoryStore, key: str, data: bytes, stale_s: float = 3600) -> None:
    reply = store.ask(key, Ask(refresh=True))
    assert reply.verdict == "lead"
    assert store.put(key, reply.token, Packed(data, 1), stale_s, stale_s)


def fill(store: MemoryStore, keys: int) -> None:
    for number in range(keys):
        keep(store, f"{number:048x}", b"j" + bytes(str(number), "ascii") * 40)


def test_a_hundred_thousand_keys_stay_within_the_bound() -> None:
    most = 4 * 1024 * 1024
    store = MemoryStore(max_bytes=most)
    fill(store, 100_000)
    assert most - 2000 < store.bytes <= most
    assert store.bytes == sum(entry.size for entry in store._entries.values())
    assert store._flights == {}


def test_the_bound_is_true_of_the_memory_taken() -> None:
    most = 1024 * 1024
    store = MemoryStore(max_bytes=most)
    fill(store, 10)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        fill(store, 10_000)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < most * 1.1
    assert peak - before < most * 1.3


def test_the_least_recently_used_goes_first() -> None:
    store = MemoryStore(max_bytes=3 * (ENTRY_OVERHEAD + 10))
    for key in "abc":
        keep(store, key, b"x" * 10)
    assert store.ask("a", Ask()).verdict == "hit"
    keep(store, "d", b"x" * 10)
    assert [store.ask(key, Ask()).verdict for key in "abcd"] == ["hit", "lead", "hit", "hit"]


def test_replacing_and_expiring_give_the_bytes_back() -> None:
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    keep(store, "a", b"x" * 1000)
    keep(store, "a", b"x" * 10)
    assert store.bytes == ENTRY_OVERHEAD + 10
    now[0] = 3600
    assert store.ask("a", Ask()).kept is None
    assert (store.bytes, len(store)) == (0, 0)


def test_what_is_larger_than_the_cache_is_not_kept_but_reaches_followers() -> None:
    store = MemoryStore(max_bytes=1000)
    keep(store, "a", b"x" * 10)
    leader = store.ask("b", Ask())
    follower = store.ask("b", Ask())
    assert store.put("b", leader.token, Packed(b"x" * 2000), 60, 60)
    waiter: Waiter = Waiter()
    store.watch("b", follower, waiter)
    news = waiter.result(0)
    assert news
    assert news.kept
    assert news.kept.packed.data == b"x" * 2000
    assert store.bytes <= 1000


def test_a_clock_that_is_set_back_makes_nothing_younger_than_new() -> None:
    now = [1000.0]
    store = MemoryStore(clock=lambda: now[0])
    keep(store, "a", b"x")
    now[0] = 0.0
    reply = store.ask("a", Ask())
    assert reply.kept
    assert reply.kept.age_s == 0


def test_a_flight_ends_for_its_leader_only() -> None:
    store = MemoryStore(lease_s=0)
    first = store.ask("a", Ask())
    second = store.ask("a", Ask())
    assert second.verdict == "lead"
    assert second.token > first.token
    assert not store.put("a", first.token, Packed(b"late"), 60, 60)
    assert not store.fail("a", first.token, Failure("unavailable"))
    assert store.put("a", second.token, Packed(b"good"), 60, 60)
    assert not store.put("a", first.token, Packed(b"late"), 60, 60)
    assert not store.put("a", second.token, Packed(b"twice"), 60, 60)
    reply = store.ask("a", Ask())
    assert reply.kept
    assert reply.kept.packed.data == b"good"


def test_followers_of_a_leader_that_is_gone_are_told_once_another_leads() -> None:
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0], lease_s=1)
    store.ask("a", Ask())
    waiter: Waiter = Waiter()
    store.watch("a", store.ask("a", Ask()), waiter)
    now[0] = 1.0
    assert not waiter.done()
    assert store.ask("a", Ask()).verdict == "lead"
    assert waiter.result(0) is None


def test_threads_agree_on_one_leader() -> None:
    store = MemoryStore()
    verdicts: list[str] = []
    start = threading.Barrier(16)

    def ask() -> None:
        start.wait()
        verdicts.append(store.ask("a", Ask()).verdict)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(verdicts) == ["follow"] * 15 + ["lead"]


def test_a_failure_holds_back_new_attempts_for_its_time() -> None:
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    reply = store.ask("a", Ask())
    store.put("a", reply.token, Packed(b"x"), 0, 3600)
    reply = store.ask("a", Ask())
    store.fail("a", reply.token, Failure("unavailable", hold_s=5))
    assert store.ask("a", Ask()).verdict == "hit"
    assert store.ask("a", Ask(max_age_s=1)).verdict == "lead"
    now[0] = 5.0
    store.fail("a", store.ask("a", Ask(max_age_s=1)).token, Failure(None))
    assert store.ask("a", Ask()).verdict == "lead"


@pytest.mark.parametrize("url", [None, "memory://"])
def test_the_store_of_no_url_is_in_memory(url: str | None) -> None:
    store = open_store(url, max_bytes=5000)
    assert isinstance(store, MemoryStore)
    assert store._max_bytes == 5000


@pytest.mark.parametrize(
    "url", ["memcached://h", "redis:/h", "", "redis://:pass/word@h:1", "redis://h?socket_timeout=x"]
)
def test_a_url_of_no_store_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert caught.value.key == "cache_store"
    assert "pass" not in str(caught.value).replace("/pass", "")
    assert caught.value.__cause__ is None
