"""Every kind of Anthropic call: one charge and one GenAI span each, to the nano-dollar."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import beta_async_tool, beta_tool
from anthropic_endpoint import (
    CALL,
    MODEL,
    NANO_USD,
    STATED_NANO_USD,
    USAGE,
    AnthropicEndpoint,
    events,
    message,
)
from books import Books
from openai_endpoint import Pieces, sse
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.api import attribute, feature

KINDS = [anthropic.Anthropic, anthropic.AsyncAnthropic]


async def _collected(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def _wait(awaitable: Any) -> Any:
    result = await awaitable
    return await _collected(result) if hasattr(result, "__anext__") else result


def outcome(result: Any) -> Any:
    """The end of a call of a synchronous or an asynchronous client; streams are read to the end."""
    if inspect.isawaitable(result):
        return asyncio.run(_wait(result))
    return list(result) if hasattr(result, "__next__") else result


WAYS: dict[str, Callable[[Any], Any]] = {
    "create": lambda c: c.messages.create(**CALL),
    "stream=True": lambda c: c.messages.create(**CALL, stream=True),
    "raw": lambda c: c.messages.with_raw_response.create(**CALL),
    "beta": lambda c: c.beta.messages.create(**CALL),
    "beta stream": lambda c: c.beta.messages.create(**CALL, stream=True),
    "with_options": lambda c: c.with_options(timeout=3).messages.create(**CALL),
    "post": lambda c: c.post("/v1/messages", body=CALL, cast_to=httpx2.Response),
    "post without the slash": lambda c: c.post("v1/messages", body=CALL, cast_to=httpx2.Response),
    "post to the whole URL": lambda c: c.post(
        f"{c.base_url}v1/messages", body=CALL, cast_to=httpx2.Response
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_one_charge_and_one_span(books: Books, way: str, kind: type) -> None:
    with attribute(tenant="acme", user="u-1"), feature("prices"):
        outcome(WAYS[way](AnthropicEndpoint().client(kind)))
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.provider, row.model) == (
        NANO_USD,
        "exact",
        "anthropic",
        MODEL,
    )
    assert (row.tenant_id, row.user_id, row.feature) == ("acme", "u-1", "prices")
    assert (row.input_tokens, row.cache_read_tokens, row.cache_write_tokens) == (530, 400, 30)
    span = books.span()
    assert span.name == f"chat {MODEL}"
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 530


def test_stream_helper(books: Books) -> None:
    with AnthropicEndpoint().client().messages.stream(**CALL) as stream:
        assert "".join(stream.text_stream) == "12345678" * 3
    row = books.row()
    assert (row.nano_usd, row.cost_status) == (NANO_USD, "exact")
    assert row.first_chunk_ms is not None


async def test_stream_helper_async(books: Books) -> None:
    client = AnthropicEndpoint().client(anthropic.AsyncAnthropic)
    async with client.messages.stream(**CALL) as stream:
        assert (await stream.get_final_message()).id == "msg_1"
    assert books.row().nano_usd == NANO_USD


# Of a stream that said nothing: 47 bytes asked are 12 tokens, and all the output that it allows.
UNSAID_NANO_USD = 12 * 3000 + 100 * 15000


def broken_off(words: int) -> int:
    """What is booked of a stream that ended early: 8 bytes a word are 2 tokens."""
    return STATED_NANO_USD + 2 * words * 15000


@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_helper_left_early_is_estimated_from_what_came(books: Books, read: int) -> None:
    with AnthropicEndpoint(words=9).client().messages.stream(**CALL) as stream:
        for _ in range(read):
            next(stream.text_stream)
    books.collect()
    row = books.row()
    assert row.cost_status == "estimated"
    assert row.nano_usd == (broken_off(read) if read else UNSAID_NANO_USD)
    if read:
        assert (row.input_tokens, row.output_tokens) == (530, 2 * read)


@pytest.mark.parametrize("read", [0, 1, 2])
async def test_an_async_helper_left_early_is_the_same(books: Books, read: int) -> None:
    client = AnthropicEndpoint(words=9).client(anthropic.AsyncAnthropic)
    async with client.messages.stream(**CALL) as stream:
        for _ in range(read):
            await anext(stream.text_stream)
    books.collect()
    row = books.row()
    assert (row.cost_status, row.outcome) == ("estimated", "ok")
    assert row.nano_usd == (broken_off(read) if read else UNSAID_NANO_USD)
    books.span()


@pytest.mark.parametrize("how", ["close", "leave", "drop"])
def test_a_stream_ended_early_is_one_estimated_charge(books: Books, how: str) -> None:
    stream = AnthropicEndpoint(words=9).client().messages.create(**CALL, stream=True)
    for _ in range(4):  # a start, a block's start, two words
        next(stream)
    if how == "close":
        stream.close()
    elif how == "leave":
        with stream:
            pass
    del stream
    books.collect()
    row = books.row()
    assert (row.cost_status, row.outcome, row.nano_usd) == ("estimated", "ok", broken_off(2))
    books.span()


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("how", ["close", "leave", "drop", "unread"])
async def test_an_async_stream_ended_early_is_one_estimated_charge(
    books: Books, how: str, beta: bool
) -> None:
    client = AnthropicEndpoint(words=9).client(anthropic.AsyncAnthropic)
    messages = client.beta.messages if beta else client.messages
    stream = await messages.create(**CALL, stream=True)
    if how != "unread":
        for _ in range(4):
            await anext(stream)
    if how == "close":
        await stream.close()
    elif how == "leave":
        async with stream:
            pass
    del stream
    books.collect()
    await asyncio.sleep(0.05)  # the loop closes what the collector found
    row = books.row()
    expected = UNSAID_NANO_USD if how == "unread" else broken_off(2)
    assert (row.cost_status, row.outcome, row.nano_usd) == ("estimated", "ok", expected)
    books.span()


@pytest.mark.parametrize("helper", [False, True])
async def test_a_cancelled_stream_is_one_estimated_charge(books: Books, helper: bool) -> None:
    said = asyncio.Event()

    class Slow(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in sse(events(9), named=True)[:5]:
                yield piece
            said.set()
            await asyncio.sleep(60)

    headers = {"content-type": "text/event-stream"}
    endpoint = AnthropicEndpoint()
    endpoint.answer = lambda _: httpx2.Response(200, headers=headers, stream=Slow())
    client = endpoint.client(anthropic.AsyncAnthropic)

    async def read() -> None:
        if helper:
            async with client.messages.stream(**CALL) as stream:
                await stream.until_done()
        else:
            async for _ in await client.messages.create(**CALL, stream=True):
                pass

    task = asyncio.create_task(read())
    await said.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    row = books.row()
    assert (row.cost_status, row.outcome, row.error_type, row.nano_usd) == (
        "estimated",
        "error",
        "CancelledError",
        broken_off(3),
    )
    books.span()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_breaks_is_the_users_error_and_estimated(books: Books, kind: type) -> None:
    client = AnthropicEndpoint(words=9, breaks_after=5).client(kind)
    with pytest.raises(httpx2.RemoteProtocolError):
        outcome(client.messages.create(**CALL, stream=True))
    row = books.row()
    assert (row.cost_status, row.outcome, row.error_type) == (
        "estimated",
        "error",
        "RemoteProtocolError",
    )
    assert row.nano_usd == broken_off(3)
    books.span()


@pytest.mark.parametrize("kind", KINDS)
def test_a_timeout_may_be_billed(books: Books, kind: type) -> None:
    def late(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("late")

    endpoint = AnthropicEndpoint()
    endpoint.answer = late
    with pytest.raises(anthropic.APITimeoutError):
        outcome(endpoint.client(kind).messages.create(**CALL))
    row = books.row()
    assert (row.cost_status, row.outcome, row.nano_usd) == ("estimated", "error", UNSAID_NANO_USD)
    books.span()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [False, True])
def test_counting_tokens_is_free(books: Books, kind: type, beta: bool) -> None:
    client = AnthropicEndpoint().client(kind)
    messages = client.beta.messages if beta else client.messages
    counted = outcome(messages.count_tokens(model=MODEL, messages=CALL["messages"]))
    assert counted.input_tokens == 5
    assert not books.rows()
    assert not books.spans()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
def test_tool_runner_of_three_turns_is_three_charges(
    books: Books, kind: type, stream: bool
) -> None:
    def price(what: str) -> str:
        """The price of something.

        Args:
            what: the thing.
        """
        return f"{what}: 3.50"

    async def price_async(what: str) -> str:
        return price(what)

    price_async.__name__, price_async.__doc__ = "price", price.__doc__
    is_async = kind is anthropic.AsyncAnthropic
    tool: Any = beta_async_tool(price_async) if is_async else beta_tool(price)
    endpoint = _of_three_turns(stream=stream)
    arguments: Any = {**CALL, "tools": [tool], **({"stream": True} if stream else {})}
    runner = endpoint.client(kind).beta.messages.tool_runner(**arguments)
    assert outcome(runner.until_done()).stop_reason == "end_turn"
    assert [(row.nano_usd, row.cost_status) for row in books.rows()] == [(NANO_USD, "exact")] * 3
    assert len(books.spans()) == 3


def _of_three_turns(*, stream: bool) -> AnthropicEndpoint:
    tool_use = {"type": "tool_use", "id": "tu", "name": "price", "input": {"what": "fish"}}
    turns = iter([True, True, False])

    def answer(_: httpx2.Request) -> httpx2.Response:
        asks = next(turns)
        if not stream:
            more = {"content": [tool_use], "stop_reason": "tool_use"} if asks else {}
            return httpx2.Response(200, json=message(**more))
        said = events()
        if asks:
            part = {"type": "input_json_delta", "partial_json": '{"what": "fish"}'}
            said[1]["content_block"] = {**tool_use, "input": {}}
            said[2:5] = [{"type": "content_block_delta", "index": 0, "delta": part}]
            said[-2]["delta"]["stop_reason"] = "tool_use"
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=Pieces(sse(said, named=True)))

    endpoint = AnthropicEndpoint()
    endpoint.answer = answer
    return endpoint


@pytest.mark.parametrize("kind", KINDS)
def test_iterations_are_priced_each_with_its_model(books: Books, kind: type) -> None:
    tokens = {
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_creation": None,
    }
    iterations = [
        {"type": "compaction", "input_tokens": 1000, "output_tokens": 100, **tokens},
        {"type": "message", "input_tokens": 200, "output_tokens": 40, **tokens},
        {
            "type": "advisor_message",
            "model": "claude-haiku-4-5",
            "input_tokens": 300,
            "output_tokens": 20,
            **tokens,
        },
    ]
    top = {
        "input_tokens": 200,
        "output_tokens": 40,
        "iterations": iterations,
        "server_tool_use": None,
    }
    outcome(AnthropicEndpoint(message(top)).client(kind).beta.messages.create(**CALL))
    row = books.row()
    # Sonnet 4.5: 3.00 in, 15.00 out; Haiku 4.5: 1.00 in, 5.00 out. The top level lacks 1,300 in, 120 out.
    assert row.nano_usd == (1000 + 200) * 3000 + (100 + 40) * 15000 + 300 * 1000 + 20 * 5000
    assert (row.input_tokens, row.output_tokens, row.cost_status) == (1500, 160, "exact")


@pytest.mark.parametrize("kind", KINDS)
def test_iterations_of_a_stream_are_priced_each_with_its_model(books: Books, kind: type) -> None:
    said = events()
    said[0]["message"]["usage"] = {"input_tokens": 200, "output_tokens": 1}
    said[-2]["usage"] = {
        "output_tokens": 40,
        "iterations": [
            {"type": "compaction", "input_tokens": 1000, "output_tokens": 100},
            {"type": "message", "input_tokens": 200, "output_tokens": 40},
        ],
    }
    outcome(AnthropicEndpoint(said=said).client(kind).beta.messages.create(**CALL, stream=True))
    row = books.row()
    assert (row.nano_usd, row.cost_status) == (1200 * 3000 + 140 * 15000, "exact")


def test_batch_tier_is_half_price(books: Books) -> None:
    AnthropicEndpoint(
        message({"input_tokens": 100, "output_tokens": 10, "service_tier": "batch"})
    ).client().messages.create(**CALL)
    assert books.row().nano_usd == (100 * 3000 + 10 * 15000) // 2


@pytest.mark.parametrize("kind", [anthropic.AnthropicVertex, anthropic.AsyncAnthropicVertex])
@pytest.mark.parametrize("stream", [False, True])
def test_vertex(books: Books, kind: type, stream: bool) -> None:
    usage = {name: stated for name, stated in USAGE.items() if name != "server_tool_use"}
    said = events()
    said[0]["message"]["usage"] = {**usage, "output_tokens": 1}
    client = AnthropicEndpoint(message(usage), said=said).client(
        kind, region="us-east5", project_id="p", access_token="t"
    )
    arguments = {**CALL, "model": "claude-sonnet-4-6@20250929", "stream": stream}
    outcome(client.messages.create(**arguments))
    row = books.row()
    assert (row.provider, row.model_requested) == ("gcp.vertex_ai", "claude-sonnet-4-6@20250929")
    # The list has no price for searches there.
    assert (row.nano_usd, row.cost_status) == (NANO_USD - 2 * 10_000_000, "exact")
    books.span()


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_api_costs_nothing(books: Books, kind: type) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    endpoint = AnthropicEndpoint()
    endpoint.answer = lambda _: httpx2.Response(400, json=error)
    with pytest.raises(anthropic.BadRequestError):
        outcome(endpoint.client(kind).messages.create(**CALL))
    assert (books.row().nano_usd, books.row().outcome) == (0, "error")


@pytest.mark.parametrize("kind", KINDS)
def test_a_retried_call_is_one(books: Books, kind: type) -> None:
    at_once = {"retry-after-ms": "1"}
    answers = iter([httpx2.Response(529, headers=at_once), httpx2.Response(200, json=message())])
    endpoint = AnthropicEndpoint()
    endpoint.answer = lambda _: next(answers)
    outcome(endpoint.client(kind, max_retries=2).messages.create(**CALL))
    assert len(endpoint.requests) == 2
    assert books.row().nano_usd == NANO_USD
    books.span()


# -- Anthropic's own tracing -------------------------------------------------------------------------------


def native(**options: Any) -> tuple[Any, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return {"tracer_provider": provider, **options}, exporter


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_where_the_user_switched_it_on_the_charge_rides_on_its_span(
    books: Books, way: str, kind: type
) -> None:
    option, exporter = native()
    client = AnthropicEndpoint().client(kind, open_telemetry=option)
    with attribute(tenant="acme"):
        outcome(WAYS[way](client))
    (span,) = [*books.spans(), *exporter.get_finished_spans()]
    if not way.startswith("post"):  # of a bare post its tracing knows nothing
        assert exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["spanledger.cost.usd"] == pytest.approx(NANO_USD / 1e9)
    assert span.attributes["tenant.id"] == "acme"
    assert span.attributes["spanledger.accounted"] is True
    assert books.row().nano_usd == NANO_USD


def test_its_own_propagation_carries_no_attribution(books: Books) -> None:
    option, _ = native()
    endpoint = AnthropicEndpoint()
    ctx = baggage.set_baggage("request.priority", "high", baggage.set_baggage("tenant.id", "acme"))
    token = context.attach(ctx)
    try:
        endpoint.client(open_telemetry=option).messages.create(**CALL)
        endpoint.client(open_telemetry=option).messages.count_tokens(
            model=MODEL, messages=CALL["messages"]
        )
    finally:
        context.detach(token)
    for request in endpoint.requests:
        assert request.headers["baggage"] == "request.priority=high"
    assert books.row().tenant_id == "acme"


def test_a_copy_of_a_client_keeps_its_tracing_as_it_is(books: Books) -> None:
    AnthropicEndpoint().client().with_options(timeout=3).messages.create(**CALL)
    books.span()
    option, exporter = native()
    AnthropicEndpoint().client(open_telemetry=option).with_options(timeout=3).messages.create(
        **CALL
    )
    assert len(exporter.get_finished_spans()) == 1


def test_switched_off_by_the_user(books: Books) -> None:
    AnthropicEndpoint().client(open_telemetry=False).messages.create(**CALL)
    books.span()
    assert books.row().nano_usd == NANO_USD
