"""Data calls through the data layer, with the real SDK: hits, shared flights, stale results."""

import asyncio
import functools
import logging
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import scavio
from books import Books
from loopback import Answer, Arrived, Loopback

from spanledger.api import attribute
from spanledger.api.settings import Section
from spanledger.cache import cache_control
from spanledger.cache.config import read_cache_config
from spanledger.cache.layer import DataLayer
from spanledger.cache.store import open_store
from spanledger.instrumentation.metered import metered
from spanledger.instrumentation.shared import use_data_layer

NANO_A_CREDIT = 5_000_000
RULES = """
[cache]
secret = "0123456789abcdef0123456789abcdef"
[cache."scavio/google.*"]
fresh = "15m"
stale = "24h"
[cache."scavio/amazon.*"]
fresh = "15m"
public = true
[cache."geocoder/*"]
fresh = "15m"
stale = "24h"
"""


@pytest.fixture(autouse=True)
def layer(books: Books) -> Iterator[DataLayer]:
    config = read_cache_config(Section(tomllib.loads(RULES)["cache"], "test", "cache"))
    layer = DataLayer(config, open_store(None))
    use_data_layer(layer)
    yield layer
    use_data_layer(None)
    layer.close()


def client(server: Loopback, kind: Any = scavio.ScavioClient) -> Any:
    return kind(api_key="sk-secret", base_url=server.url, max_requests_per_second=50, max_retries=0)


def answering(arrived: Arrived) -> Answer:
    time.sleep(0.05)
    return 200, {"organic_results": [{"title": "fish"}], "credits_used": 2, "credits_remaining": 9}


def outcomes(books: Books) -> list[tuple[str, int | None, int]]:
    return [(row.outcome, row.nano_usd, row.saved_nano_usd) for row in books.rows()]


def test_a_hit_is_equal_free_and_says_what_it_saved(books: Books) -> None:
    with Loopback(answering) as server, attribute(tenant="acme"):
        first = client(server).google.search("fish")
        second = client(server).google.search("fish")
    assert first == second
    assert first is not second
    assert len(server.requests) == 1
    cost = 2 * NANO_A_CREDIT
    assert outcomes(books) == [("ok", cost, 0), ("cached", 0, cost)]
    states = [span.attributes and span.attributes["spanledger.cache"] for span in books.spans()]
    assert states == ["miss", "hit"]


def test_tenants_do_not_share(books: Books) -> None:
    with Loopback(answering) as server:
        for tenant in ("acme", "globex"):
            with attribute(tenant=tenant):
                client(server).google.search("fish")
    assert len(server.requests) == 2


def test_tenants_share_what_is_public_and_each_has_its_row(books: Books) -> None:
    with Loopback(answering) as server:
        for tenant in ("acme", "globex", None):
            with attribute(tenant=tenant):
                assert client(server).amazon.search("fish")["credits_used"] == 2
    assert len(server.requests) == 1
    cost = 2 * NANO_A_CREDIT
    assert [(row.tenant_id, row.outcome, row.nano_usd) for row in books.rows()] == [
        ("acme", "ok", cost),
        ("globex", "cached", 0),
        (None, "cached", 0),
    ]
    assert [row.saved_nano_usd for row in books.rows()] == [0, cost, cost]


def test_an_operation_without_a_rule_is_not_cached(books: Books) -> None:
    with Loopback(answering) as server:
        for _ in range(2):
            client(server).walmart.search("fish")
    assert [row.outcome for row in books.rows()] == ["ok", "ok"]


def test_identical_calls_in_flight_are_one_among_threads(books: Books) -> None:
    with Loopback(answering) as server:
        shared = client(server)
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda: results.append(shared.google.search("fish")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.requests) == 1
    assert len(results) == 8
    assert all(result == results[0] for result in results)
    rows = books.rows()
    assert sum(row.nano_usd or 0 for row in rows) == 2 * NANO_A_CREDIT
    assert sorted({row.outcome for row in rows} - {"cached"}) == ["deduplicated", "ok"]
    assert len(rows) == 8


async def test_identical_calls_in_flight_are_one_among_tasks(books: Books) -> None:
    with Loopback(answering) as server:
        async with client(server, scavio.AsyncScavioClient) as shared:
            results = await asyncio.gather(*(shared.google.search("fish") for _ in range(8)))
    assert len(server.requests) == 1
    assert all(result == results[0] for result in results)
    assert sorted(row.outcome for row in books.rows()) == ["deduplicated"] * 7 + ["ok"]


async def test_a_cancelled_leader_harms_no_follower(books: Books) -> None:
    def slow(arrived: Arrived) -> Answer:
        time.sleep(0.3 if len(server.requests) == 1 else 0.0)
        return 200, {"organic_results": [], "credits_used": 1}

    with Loopback(slow) as server:
        async with client(server, scavio.AsyncScavioClient) as shared:
            leader = asyncio.create_task(shared.google.search("fish"))
            await asyncio.sleep(0.1)
            follower = asyncio.create_task(shared.google.search("fish"))
            await asyncio.sleep(0.05)
            leader.cancel()
            assert (await follower)["credits_used"] == 1
            with pytest.raises(asyncio.CancelledError):
                await leader
    by_outcome = {row.outcome: row for row in books.rows()}
    assert by_outcome["error"].error_type == "CancelledError"
    assert by_outcome["ok"].nano_usd == NANO_A_CREDIT


def test_a_leaders_failure_is_its_followers_too(books: Books) -> None:
    def failing(arrived: Arrived) -> Answer:
        time.sleep(0.1)
        return 404, {"error": "no such thing"}

    raised: list[BaseException] = []

    def ask(shared: Any) -> None:
        try:
            shared.google.search("fish")
        except scavio.NotFoundError as error:
            raised.append(error)

    with Loopback(failing) as server:
        shared = client(server)
        threads = [threading.Thread(target=ask, args=(shared,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.requests) == 1
    assert [str(error) for error in raised] == ["no such thing"] * 4
    assert len({id(error) for error in raised}) == 4
    assert [(row.outcome, row.nano_usd) for row in books.rows()] == [("error", 0)] * 4


def test_what_is_stale_is_served_when_the_provider_fails(books: Books) -> None:
    answers: list[Callable[[], Answer]] = [
        lambda: (200, {"organic_results": ["fresh"], "credits_used": 1}),
        lambda: (503, {"error": "down"}),
    ]
    with Loopback(lambda _: answers.pop(0)()) as server:
        with cache_control(ttl=0.01):
            client(server).google.search("fish")
        time.sleep(0.05)
        assert client(server).google.search("fish")["organic_results"] == ["fresh"]
    assert [row.outcome for row in books.rows()] == ["ok", "error"]
    states = [span.attributes and span.attributes["spanledger.cache"] for span in books.spans()]
    assert states == ["miss", "stale"]


def test_what_is_not_stale_any_more_is_a_miss_that_failed(books: Books) -> None:
    with Loopback(lambda _: (503, {"error": "down"})) as server:
        with pytest.raises(scavio.ScavioError):
            client(server).google.search("fish")
    assert books.span().attributes
    assert books.span().attributes["spanledger.cache"] == "miss"


def test_bypass_and_refresh(books: Books) -> None:
    with Loopback(answering) as server:
        client(server).google.search("fish")
        with cache_control(bypass=True):
            client(server).google.search("fish")
        with cache_control(refresh=True):
            client(server).google.search("fish")
        client(server).google.search("fish")
    assert len(server.requests) == 3
    assert [row.outcome for row in books.rows()] == ["ok", "ok", "ok", "cached"]


def test_metered_functions_are_shared_too(books: Books) -> None:
    made = []

    @metered(provider="geocoder", operation="geocode", cost="0.005")
    def geocode(address: str, *, country: str = "de") -> dict[str, Any]:
        made.append(address)
        return {"address": address, "country": country}

    assert (
        geocode("main street")
        == geocode("main street")
        == {"address": "main street", "country": "de"}
    )
    geocode("main street", country="fr")
    assert made == ["main street", "main street"]
    assert outcomes(books) == [("ok", 5_000_000, 0), ("cached", 0, 5_000_000), ("ok", 5_000_000, 0)]


def test_metered_methods_generators_and_blocks_are_not_and_methods_say_so(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    meter = metered(provider="geocoder", operation="geocode", cost="0.005")

    class Geocoder:
        @meter
        def geocode(self, address: str) -> str:
            return address

    @meter
    def addresses(number: int) -> Iterator[int]:
        yield number

    with caplog.at_level(logging.WARNING, "spanledger"):
        for _ in range(2):
            Geocoder().geocode("main street")
            list(addresses(1))
            with meter:
                pass
    assert outcomes(books) == [("ok", 5_000_000, 0)] * 6
    (record,) = caplog.records
    assert "meter a function without self" in record.getMessage()


async def test_two_functions_do_not_share(books: Books) -> None:
    """They ask the same of one provider by one operation."""
    cent = metered(provider="geocoder", operation="geocode", cost="0.01")

    @cent
    def web(query: str) -> dict[str, str]:
        return {"web": query}

    @cent
    def news(query: str) -> dict[str, str]:
        return {"news": query}

    @cent
    async def images(query: str) -> dict[str, str]:
        return {"images": query}

    for _ in range(2):
        assert web("x") == {"web": "x"}
        assert news("x") == {"news": "x"}
        assert await images("x") == {"images": "x"}
    assert [row.outcome for row in books.rows()] == 3 * ["ok"] + 3 * ["cached"]


def test_functions_without_a_name_do_not_share(books: Books) -> None:
    cent = metered(provider="geocoder", operation="geocode", cost="0.01")

    def ask(kind: str, query: str) -> dict[str, str]:
        return {kind: query}

    web, news = cent(functools.partial(ask, "web")), cent(functools.partial(ask, "news"))
    near, far = cent(lambda query: {"near": query}), cent(lambda query: {"far": query})
    for _ in range(2):
        assert [f("x") for f in (web, news, near, far)] == [
            {"web": "x"},
            {"news": "x"},
            {"near": "x"},
            {"far": "x"},
        ]


async def test_what_a_plain_function_gives_to_await_is_its_callers(books: Books) -> None:
    async def answer(address: str) -> str:
        await asyncio.sleep(0.05)
        return address.upper()

    @metered(provider="geocoder", operation="geocode", cost="0.005")
    def geocode(address: str) -> Any:
        return answer(address)

    assert await asyncio.gather(geocode("a"), geocode("a")) == ["A", "A"]
    assert outcomes(books) == 2 * [("ok", 5_000_000, 0)]
    assert [row.cost_status for row in books.rows()] == ["exact", "exact"]


async def test_metered_coroutines_are_shared_too(books: Books) -> None:
    @metered(provider="geocoder", operation="geocode", cost="0.005")
    async def geocode(address: str) -> str:
        await asyncio.sleep(0.05)
        return address.upper()

    assert await asyncio.gather(geocode("a"), geocode("a"), geocode("b")) == ["A", "A", "B"]
    assert sorted(row.outcome for row in books.rows()) == ["deduplicated", "ok", "ok"]
