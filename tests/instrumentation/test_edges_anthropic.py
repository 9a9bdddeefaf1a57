"""Anthropic's SDK where it is unusual: other platforms, middleware, errors inside a stream, old clients.

Bedrock is exercised with a bearer token: AWS signatures need boto3, which nothing else here does. For its
streams see test_bedrock_streams.py.
"""

import copy
import pickle
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic_endpoint import (
    CALL,
    NANO_USD,
    STATED_NANO_USD,
    AnthropicEndpoint,
    events,
    message,
)
from books import Books
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.api import attribute
from spanledger.instrumentation.anthropic import AnthropicInstrumentor

PLAIN = {"input_tokens": 100, "output_tokens": 10}
PLAIN_NANO_USD = 100 * 3000 + 10 * 15000
BEDROCK_MODEL = "anthropic.claude-sonnet-4-6-20250929-v1:0"


def _on_bedrock(kind: type, endpoint: AnthropicEndpoint) -> Any:
    return endpoint.client(kind, api_key="aws-bearer", aws_region="us-east-1")


def _spied(endpoint: AnthropicEndpoint, answer: dict[str, Any]) -> AnthropicEndpoint:
    endpoint.answer = lambda _: httpx2.Response(200, json=answer)
    return endpoint


@pytest.mark.parametrize("kind", [anthropic.AnthropicBedrock, anthropic.AsyncAnthropicBedrock])
@pytest.mark.parametrize("beta", [False, True])
async def test_bedrock(books: Books, kind: type, beta: bool) -> None:
    endpoint = _spied(AnthropicEndpoint(), message(PLAIN))
    client = _on_bedrock(kind, endpoint)
    messages = client.beta.messages if beta else client.messages
    with attribute(tenant="acme"):
        result = messages.create(**{**CALL, "model": BEDROCK_MODEL})
        if "Async" in kind.__name__:
            result = await result
    assert result.id == "msg_1"
    assert "/invoke" in endpoint.requests[0].url.path
    row = books.row()
    assert (row.provider, row.model_requested, row.tenant_id) == (
        "aws.bedrock",
        BEDROCK_MODEL,
        "acme",
    )
    assert row.nano_usd == PLAIN_NANO_USD * 11 // 10  # a region's endpoint costs 10 % more
    span = books.span()
    assert span.attributes is not None
    assert span.attributes["server.address"] == "bedrock-runtime.us-east-1.amazonaws.com"


def test_a_bedrock_stream_that_cannot_be_decoded_is_the_users_error_and_one_row(
    books: Books,
) -> None:
    """Without botocore the SDK raises when the answer is there: by then the call is made."""
    client = _on_bedrock(anthropic.AnthropicBedrock, AnthropicEndpoint())
    with pytest.raises(ModuleNotFoundError, match="botocore"):
        client.messages.create(**{**CALL, "model": BEDROCK_MODEL}, stream=True)
    row = books.row()
    assert (row.provider, row.cost_status, row.outcome) == ("aws.bedrock", "estimated", "error")
    books.span()


@pytest.mark.parametrize("stream", [False, True])
def test_bedrock_mantle(books: Books, stream: bool) -> None:
    client = _on_bedrock(anthropic.AnthropicBedrockMantle, AnthropicEndpoint())
    result = client.messages.create(**CALL, stream=stream)
    assert len(list(result)) == 8 if stream else result.id == "msg_1"
    row = books.row()
    assert row.provider == "aws.bedrock"
    assert row.input_tokens == 530


def test_foundry(books: Books) -> None:
    client = AnthropicEndpoint().client(anthropic.AnthropicFoundry, resource="acme")
    client.messages.create(**CALL)
    assert (books.row().provider, books.row().nano_usd) == ("anthropic", NANO_USD)


def test_middleware_sees_the_call_and_the_call_is_one(books: Books) -> None:
    seen: list[str] = []

    def middleware(request: Any, call_next: Any) -> Any:
        seen.append(request.options.url)
        return call_next(request)

    client = AnthropicEndpoint().client(anthropic.Anthropic, middleware=[middleware])
    client.messages.create(**CALL)
    assert len(list(client.messages.create(**CALL, stream=True))) == 8
    assert seen == ["/v1/messages"] * 2
    assert [row.nano_usd for row in books.rows()] == [NANO_USD] * 2
    assert len(books.spans()) == 2


@pytest.mark.parametrize("kind", [anthropic.Anthropic, anthropic.AsyncAnthropic])
async def test_an_error_event_in_the_middle_is_the_users_error_and_an_estimate(
    books: Books, kind: type
) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    client = AnthropicEndpoint(said=[*events()[:4], error]).client(kind)
    stream = client.messages.create(**CALL, stream=True)
    with pytest.raises(anthropic.APIError):
        if kind is anthropic.Anthropic:
            list(stream)
        else:
            assert [event async for event in await stream]
    row = books.row()
    assert (row.cost_status, row.outcome, row.input_tokens, row.output_tokens) == (
        "estimated",
        "error",
        530,
        4,
    )
    assert row.nano_usd == STATED_NANO_USD + 4 * 15000
    books.span()


def test_lines_read_past_the_sdk(books: Books) -> None:
    create = AnthropicEndpoint().client().messages.with_streaming_response.create
    with create(**CALL, stream=True) as answer:
        assert len([line for line in answer.iter_lines() if line.startswith("data:")]) == 8
    assert (books.row().nano_usd, books.row().cost_status) == (NANO_USD, "exact")


def test_a_client_made_before_it_was_patched_traces_and_the_charge_rides(books: Books) -> None:
    """Its own tracing cannot be taken from it any more: there is one span all the same."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    AnthropicInstrumentor().uninstrument()
    try:
        client = AnthropicEndpoint().client(open_telemetry={"tracer_provider": provider})
    finally:
        AnthropicInstrumentor().instrument(skip_dep_check=True)
    client.messages.create(**CALL)
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["spanledger.cost.usd"] == pytest.approx(NANO_USD / 1e9)
    assert not books.spans()
    assert books.row().nano_usd == NANO_USD


def test_results_are_copied_and_pickled_as_ever(books: Books) -> None:
    client = AnthropicEndpoint().client()
    result = client.messages.create(**CALL)
    assert pickle.loads(pickle.dumps(result)) == copy.deepcopy(result) == result
    got = list(client.messages.create(**CALL, stream=True))
    assert pickle.loads(pickle.dumps(got)) == got
    stream = client.messages.create(**CALL, stream=True)
    assert len(list(copy.copy(stream))) == 8
    assert [row.nano_usd for row in books.rows()] == [NANO_USD] * 3


def test_what_is_no_message_costs_nothing(books: Books) -> None:
    client = _spied(AnthropicEndpoint(), {"data": [], "has_more": False}).client()
    client.models.list()
    client.messages.batches.list()
    client.beta.files.list()
    assert not books.rows()
    assert not books.spans()
