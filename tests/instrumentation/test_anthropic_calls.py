"""Every kind of Anthropic call: one charge and one GenAI span each, to the nano-dollar."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import beta_tool
from anthropic_endpoint import CALL, MODEL, NANO_USD, AnthropicEndpoint, message
from books import Books
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


@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_helper_left_early_is_estimated_from_what_came(books: Books, read: int) -> None:
    with AnthropicEndpoint(words=9).client().messages.stream(**CALL) as stream:
        for _ in range(read):
            next(stream.text_stream)
    books.collect()
    row = books.row()
    assert row.cost_status == "estimated"
    if read:  # the input is stated at the start; 8 bytes a word are 2 tokens
        assert (row.input_tokens, row.output_tokens) == (530, 2 * read)


def test_a_stream_that_breaks_is_the_users_error_and_estimated(books: Books) -> None:
    stream = (
        AnthropicEndpoint(words=9, breaks_after=5).client().messages.create(**CALL, stream=True)
    )
    with pytest.raises(httpx2.RemoteProtocolError):
        list(stream)
    row = books.row()
    assert (row.cost_status, row.outcome, row.error_type) == (
        "estimated",
        "error",
        "RemoteProtocolError",
    )
    assert row.output_tokens == 6


def test_counting_tokens_is_free(books: Books) -> None:
    client = AnthropicEndpoint().client()
    assert client.messages.count_tokens(model=MODEL, messages=CALL["messages"]).input_tokens == 5
    assert not books.rows()
    assert not books.spans()


def test_tool_runner_of_three_turns_is_three_charges(books: Books) -> None:
    @beta_tool
    def price(what: str) -> str:
        """The price of something.

        Args:
            what: the thing.
        """
        return f"{what}: 3.50"

    tool_use = {"type": "tool_use", "id": "tu", "name": "price", "input": {"what": "fish"}}
    turn = message(content=[tool_use], stop_reason="tool_use")
    answers = iter([turn, turn, message()])
    endpoint = AnthropicEndpoint()
    endpoint.answer = lambda _: httpx2.Response(200, json=next(answers))
    runner = endpoint.client().beta.messages.tool_runner(**CALL, tools=[price])
    assert runner.until_done().stop_reason == "end_turn"
    assert [row.nano_usd for row in books.rows()] == [NANO_USD] * 3


def test_iterations_are_priced_each_with_its_model(books: Books) -> None:
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
    AnthropicEndpoint(message(top)).client().beta.messages.create(**CALL)
    row = books.row()
    # Sonnet 4.5: 3.00 in, 15.00 out; Haiku 4.5: 1.00 in, 5.00 out. The top level lacks 1,300 in, 120 out.
    assert row.nano_usd == (1000 + 200) * 3000 + (100 + 40) * 15000 + 300 * 1000 + 20 * 5000
    assert (row.input_tokens, row.output_tokens, row.cost_status) == (1500, 160, "exact")


def test_batch_tier_is_half_price(books: Books) -> None:
    AnthropicEndpoint(
        message({"input_tokens": 100, "output_tokens": 10, "service_tier": "batch"})
    ).client().messages.create(**CALL)
    assert books.row().nano_usd == (100 * 3000 + 10 * 15000) // 2


def test_vertex(books: Books) -> None:
    client = AnthropicEndpoint(message({"input_tokens": 100, "output_tokens": 10})).client(
        anthropic.AnthropicVertex, region="us-east5", project_id="p", access_token="t"
    )
    client.messages.create(**{**CALL, "model": "claude-sonnet-4-6@20250929"})
    row = books.row()
    assert (row.provider, row.model_requested) == ("gcp.vertex_ai", "claude-sonnet-4-6@20250929")
    assert row.nano_usd == 100 * 3000 + 10 * 15000


def test_an_error_of_the_api_costs_nothing(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    endpoint = AnthropicEndpoint()
    endpoint.answer = lambda _: httpx2.Response(400, json=error)
    with pytest.raises(anthropic.BadRequestError):
        endpoint.client().messages.create(**CALL)
    assert (books.row().nano_usd, books.row().outcome) == (0, "error")


def test_a_retried_call_is_one(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    answers = iter([httpx2.Response(529), httpx2.Response(200, json=message())])
    endpoint = AnthropicEndpoint()
    endpoint.answer = lambda _: next(answers)
    endpoint.client(max_retries=2).messages.create(**CALL)
    assert len(endpoint.requests) == 2
    assert books.row().nano_usd == NANO_USD


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
