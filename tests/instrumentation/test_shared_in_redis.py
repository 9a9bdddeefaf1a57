"""Data calls of real SDKs through a real Redis: what processes share, and what none may read there."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import scavio
import tavily
from books import Books
from langchain_scavio import _utilities as wrappers
from loopback import Answer, Arrived, Loopback
from redis_server import redis_server

from spanledger.api import attribute
from spanledger.api.settings import Section
from spanledger.cache.config import read_cache_config
from spanledger.cache.layer import DataLayer
from spanledger.cache.redis_store import RedisStore
from spanledger.instrumentation.langchain_scavio import LangchainScavioInstrumentor
from spanledger.instrumentation.shared import use_data_layer
from spanledger.instrumentation.tavily import TavilyInstrumentor

KEY = "sk_live_4242_of_nobody_else"
QUERY, TENANT = "who is the lawyer of acme", "globex-tenant"
NANO_A_CREDIT = 5_000_000
RULES = {
    "secret": "0" * 32,
    "scavio/*": {"fresh": "15m", "stale": "24h"},
    "tavily/*": {"fresh": "15m", "stale": "24h"},
}


@pytest.fixture(autouse=True)
def _instrumented() -> Iterator[None]:
    instrumentors = (LangchainScavioInstrumentor(), TavilyInstrumentor())
    for instrumentor in instrumentors:
        instrumentor.instrument(skip_dep_check=True)
    yield
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest.fixture
def store(url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        client.flushall()
        yield client


@pytest.fixture
def join(store: "redis.Redis", url: str) -> Iterator[Callable[[], None]]:
    """From now on calls are those of another process, with nothing in common but the Redis."""
    layers: list[DataLayer] = []

    def another() -> None:
        config = read_cache_config(Section(RULES, "test", "cache"))
        layers.append(DataLayer(config, RedisStore(url, timeout_s=2.0)))
        use_data_layer(layers[-1])

    another()
    yield another
    use_data_layer(None)
    for layer in layers:
        layer.close()


def searching(server: Loopback) -> scavio.ScavioClient:
    return scavio.ScavioClient(
        api_key=KEY, base_url=server.url, max_requests_per_second=50, max_retries=0
    )


def found(arrived: Arrived) -> Answer:
    return 200, {"organic_results": [{"title": "fish"}], "credits_used": 2}


def test_a_result_is_another_processes_hit(books: Books, join: Callable[[], None]) -> None:
    with Loopback(found) as server:
        first = searching(server).google.search("fish")
        join()
        assert searching(server).google.search("fish") == first
    assert len(server.requests) == 1
    cost = 2 * NANO_A_CREDIT
    assert [(r.outcome, r.nano_usd, r.saved_nano_usd) for r in books.rows()] == [
        ("ok", cost, 0),
        ("cached", 0, cost),
    ]


def two_processes(server: Loopback, join: Callable[[], None]) -> list[Any]:
    """What the leader, in one process, and its follower, in another, got for the same question."""
    got: list[Any] = []

    def ask() -> None:
        try:
            got.append(searching(server).google.search("fish"))
        except scavio.ScavioError as error:
            got.append(error)

    leader = threading.Thread(target=ask)
    leader.start()
    while not server.requests:
        time.sleep(0.001)
    join()
    follower = threading.Thread(target=ask)
    follower.start()
    for thread in (leader, follower):
        thread.join()
    return got


def test_a_call_in_flight_is_another_processes_too(books: Books, join: Callable[[], None]) -> None:
    def slow(arrived: Arrived) -> Answer:
        time.sleep(0.3)
        return found(arrived)

    with Loopback(slow) as server:
        first, second = two_processes(server, join)
    assert first == second == found(server.requests[0])[1]
    assert len(server.requests) == 1
    assert sorted(row.outcome for row in books.rows()) == ["deduplicated", "ok"]


@pytest.mark.parametrize("status", [404, 429, 503])
def test_a_failure_is_another_processes_too_but_for_the_key(
    books: Books, join: Callable[[], None], status: int
) -> None:
    def failing(arrived: Arrived) -> Answer:
        time.sleep(0.3)
        return status, {"error": f"not for {KEY}", "tried": [{"key": KEY}], "credits_used": 0}

    with Loopback(failing) as server:
        first, second = two_processes(server, join)
    assert len(server.requests) == 1
    assert type(first) is type(second)
    assert first.status_code == second.status_code == status
    told = sorted((str(error), str(error.response_body["tried"])) for error in (first, second))
    assert [said.replace(KEY, "***") for said, _ in told] == [told[0][0]] * 2
    assert [key for _, key in told] == ["[{'key': '***'}]", str([{"key": KEY}])]
    assert {row.outcome for row in books.rows()} == {"error"}


# -- what is in Redis ------------------------------------------------------------------------------


def scavio_sync(server: Loopback, query: str) -> None:
    searching(server).google.search(query)


def scavio_async(server: Loopback, query: str) -> None:
    async def main() -> None:
        async with scavio.AsyncScavioClient(
            api_key=KEY, base_url=server.url, max_requests_per_second=50, max_retries=0
        ) as client:
            await client.google.search(query)

    asyncio.run(main())


def tavily_sync(server: Loopback, query: str) -> None:
    tavily.TavilyClient(KEY, api_base_url=server.url).search(query)


def tavily_async(server: Loopback, query: str) -> None:
    async def main() -> None:
        async with tavily.AsyncTavilyClient(KEY, api_base_url=server.url) as client:
            await client.search(query)

    asyncio.run(main())


def _wrapper(server: Loopback) -> Any:
    return wrappers.ScavioG2SearchAPIWrapper(
        scavio_api_key=KEY, api_base_url=server.url, max_requests_per_second=50
    )


def langchain_sync(server: Loopback, query: str) -> None:
    _wrapper(server).raw_results(query=query)


def langchain_async(server: Loopback, query: str) -> None:
    asyncio.run(_wrapper(server).raw_results_async(query=query))


CALLS = (scavio_sync, scavio_async, tavily_sync, tavily_async, langchain_sync, langchain_async)


@pytest.mark.parametrize("call", CALLS)
def test_nothing_of_keys_and_questions_is_in_redis(
    books: Books, store: "redis.Redis", join: object, call: Callable[[Loopback, str], None]
) -> None:
    def answer(arrived: Arrived) -> Answer:
        status = next(int(word) for word in str(arrived.body).split() if word.isdigit())
        if status == 200:
            return 200, {"organic_results": ["a result"], "credits_used": 1}
        said = f"no more of {arrived.headers['authorization']}"
        return status, {"error": said, "detail": {"error": said}}

    with Loopback(answer) as server, attribute(tenant=TENANT):
        for status in (200, 404, 429, 503):
            with contextlib.suppress(Exception):
                call(server, f"{QUERY} {status} times")
    assert len(server.requests) == 4
    keys = list(store.scan_iter("*"))
    assert len(keys) == 4
    there = b" ".join(
        [*keys, *(b" ".join([*kept, *kept.values()]) for kept in map(store.hgetall, keys))]
    )
    assert b"a result" in there
    assert b"Bearer ***" in there  # what was told to others
    for secret in (KEY, TENANT, "lawyer", "acme"):
        assert secret.encode() not in there
