"""Many calls at once are as many rows; many calls one after the other leave nothing behind."""

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Generator
from typing import Any

import openai
import pytest
from books import Books
from openai_endpoint import CHAT_NANO_USD, MESSAGES, answering, chat, streaming
from opentelemetry.sdk.trace import TracerProvider

from spanledger.api import attribute, feature
from spanledger.instrumentation.metered import metered
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.streams import flush_streams
from spanledger.processor.span_processor import LedgerSpanProcessor

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
STREAM = {**CHAT, "stream": True}


@metered(provider="geocoder", operation="geocode", cost="0.01")
def geocode() -> Generator[int, None, None]:
    yield from range(3)


def test_64_threads_are_one_row_a_call(books: Books) -> None:
    client, streams = answering(chat()).client(), streaming().client()
    start = threading.Barrier(64)

    def work(number: int) -> None:
        start.wait()
        with attribute(tenant=f"t{number}"), feature("load"):
            for _ in range(3):
                client.chat.completions.create(**CHAT)
            list(streams.chat.completions.create(**STREAM))
            next(streams.chat.completions.create(**STREAM))  # dropped
            list(geocode())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    books.collect()
    rows = books.rows()
    assert Counter(row.tenant_id for row in rows) == {f"t{n}": 6 for n in range(64)}
    assert Counter(row.cost_status for row in rows) == {"exact": 64 * 5, "estimated": 64}
    assert sum(row.nano_usd == CHAT_NANO_USD for row in rows) == 64 * 4
    assert len({row.charge_id for row in rows}) == len(rows) == len(books.spans())


async def test_500_tasks_are_one_row_a_call(books: Books) -> None:
    client = answering(chat()).client(openai.AsyncOpenAI)
    streams = streaming().client(openai.AsyncOpenAI)

    async def work(number: int) -> None:
        with attribute(tenant=f"t{number}"):
            await asyncio.sleep(0)
            if number % 2:
                await client.chat.completions.create(**CHAT)
            else:
                stream = await streams.chat.completions.create(**STREAM)
                assert len([chunk async for chunk in stream]) == 3

    await asyncio.gather(*(work(number) for number in range(500)))
    rows = books.rows()
    assert Counter(row.tenant_id for row in rows) == {f"t{n}": 1 for n in range(500)}
    assert {row.nano_usd for row in rows} == {CHAT_NANO_USD}


def _alive() -> Counter[str]:
    assert flush_streams()
    gc.collect()
    return Counter(f"{kind.__module__}.{kind.__qualname__}" for kind in map(type, gc.get_objects()))


def test_nothing_is_left_of_5000_calls_and_1000_streams(books: Books) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(LedgerSpanProcessor())
    use_tracer_provider(provider)
    calls, streams = answering(chat()), streaming()
    client, stream_client = calls.client(), streams.client()

    def stream(number: int) -> None:
        made = stream_client.chat.completions.create(**STREAM)
        if number % 4 == 0:
            list(made)
        elif number % 4 == 1:
            next(made)
            made.close()
        elif number % 4 == 2:
            next(made)  # dropped half-way
        # else dropped unread

    def work(many_calls: int, many_streams: int) -> Counter[str]:
        with attribute(tenant="acme"), feature("load"):
            for _ in range(many_calls):
                client.chat.completions.create(**CHAT)
            for number in range(many_streams):
                stream(number)
                next(geocode())
        calls.requests.clear()
        streams.requests.clear()
        assert flush_streams()
        assert books.engine.flush()  # what waits to be written is not left over
        alive = _alive()
        assert books.engine.flush()  # also what the collector has just found
        return alive

    before = work(200, 80)
    after = work(5000, 1000)
    grown = {kind: many - before[kind] for kind, many in after.items()}
    # Of each kind of stream there were 250. The interpreter and SQLite have caches of their own.
    allowed = {kind: 900 if kind.startswith(("builtins.", "weakref.")) else 200 for kind in grown}
    assert not {kind: many for kind, many in grown.items() if many > allowed[kind]}
    (total,) = books.engine.journal.totals(())
    assert total.calls == 5200 + 2 * 1080


def test_nothing_is_left_of_polls_that_bring_nothing_new(books: Books) -> None:
    """Neither of their spans, which are never exported."""
    import scavio
    from loopback import Loopback

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(LedgerSpanProcessor())
    use_tracer_provider(provider)
    options: Any = {"api_key": "k", "max_requests_per_second": 50}

    def answer(_: object) -> Any:
        return 200, {"credit_balance": 5, "data": {"id": "job_1", "credits_used": 3}}

    with Loopback(answer) as server, scavio.ScavioClient(base_url=server.url, **options) as client:
        client._rate_limiter.acquire = lambda: None  # type: ignore[method-assign]

        def poll(many: int) -> Counter[str]:
            for _ in range(many):
                client.get_usage()
                client.extract.crawl_status("job_1")
            return _alive()

        before = poll(3)
        after = poll(20)
    kinds = [kind for kind in after if after[kind] - before[kind] > 15]
    assert not [kind for kind in kinds if "spanledger" in kind or "opentelemetry" in kind]


@pytest.fixture(autouse=True)
def _small_switches() -> Generator[None]:
    """Threads take turns more often, so that what may go wrong between two of them does."""
    import sys

    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(before)
