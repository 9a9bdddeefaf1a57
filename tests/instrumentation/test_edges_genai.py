"""The official GenAI instrumentations beside ours: one GenAI span and one charge a call, whatever the order."""

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic_endpoint import CALL, MODEL, AnthropicEndpoint
from anthropic_endpoint import NANO_USD as MESSAGE_NANO_USD
from books import Books
from openai_endpoint import (
    CHAT_NANO_USD,
    MESSAGES,
    RESPONSE_USAGE,
    Endpoint,
    Pieces,
    answering,
    chat,
    response,
    sse,
    streaming,
)
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor as OfficialAnthropic
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as OfficialOpenAI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.api import attribute, feature
from spanledger.instrumentation.anthropic import AnthropicInstrumentor
from spanledger.instrumentation.openai import OpenAIInstrumentor
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.ledger.journal_rows import Row
from spanledger.processor.sampler import wrap
from spanledger.processor.span_processor import LedgerSpanProcessor

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
STREAM = {**CHAT, "stream": True}
ASKED = {**STREAM, "stream_options": {"include_usage": True}}
RESPONSE_NANO_USD = 300 * 1250 + 100 * 125 + 90 * 10000
EMBEDDING = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 1000, "total_tokens": 1000},
}


class Beside:
    """What the calls left: spans of both, rows of one."""

    def __init__(self, books: Books, exporter: InMemorySpanExporter) -> None:
        self._books = books
        self._exporter = exporter

    def genai(self) -> list[ReadableSpan]:
        spans = self._exporter.get_finished_spans()
        return [s for s in spans if "gen_ai.operation.name" in (s.attributes or {})]

    def one(self) -> tuple[ReadableSpan, Row]:
        row = self._books.row()
        (span,) = self.genai()
        return span, row


@pytest.fixture(params=["ours first", "the official ones first", "ours switched off"])
def order(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def beside(books: Books, order: str) -> Iterator[Beside]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    wrap(provider)
    provider.add_span_processor(LedgerSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    ours = (OpenAIInstrumentor(), AnthropicInstrumentor())
    official = (OfficialOpenAI(), OfficialAnthropic())
    if order != "ours first":
        for instrumentor in ours:
            instrumentor.uninstrument()
    for instrumentor in official:
        instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
    if order == "the official ones first":
        for instrumentor in ours:
            instrumentor.instrument(skip_dep_check=True)
    use_tracer_provider(provider)
    with attribute(tenant="acme"), feature("beside"):
        yield Beside(books, exporter)
    for instrumentor in official:
        instrumentor.uninstrument()
    for instrumentor in ours:
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(skip_dep_check=True)


def _responses_stream() -> Endpoint:
    created = response("gpt-5", None, status="in_progress", output=[])
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": created, "sequence_number": 0},
        {
            "type": "response.completed",
            "response": response("gpt-5", RESPONSE_USAGE),
            "sequence_number": 1,
        },
    ]
    headers = {"content-type": "text/event-stream"}
    pieces = sse(events, named=True)
    return Endpoint(lambda _: httpx2.Response(200, headers=headers, stream=Pieces(pieces)))


def _anthropic(kind: type = anthropic.Anthropic) -> Any:
    return AnthropicEndpoint().client(kind, open_telemetry=False)


SYNC: dict[str, tuple[Callable[[], Any], int]] = {
    "chat": (lambda: answering(chat()).client().chat.completions.create(**CHAT), CHAT_NANO_USD),
    "parse": (lambda: answering(chat()).client().chat.completions.parse(**CHAT), CHAT_NANO_USD),
    "stream": (
        lambda: list(streaming().client().chat.completions.create(**ASKED)),
        CHAT_NANO_USD,
    ),
    "raw": (
        lambda: answering(chat()).client().chat.completions.with_raw_response.create(**CHAT),
        CHAT_NANO_USD,
    ),
    "responses": (
        lambda: (
            answering(response("gpt-5", RESPONSE_USAGE))
            .client()
            .responses.create(input="x", model="gpt-5")
        ),
        RESPONSE_NANO_USD,
    ),
    "responses stream": (
        lambda: list(
            _responses_stream().client().responses.create(input="x", model="gpt-5", stream=True)
        ),
        RESPONSE_NANO_USD,
    ),
    "embeddings": (
        lambda: (
            answering(EMBEDDING)
            .client()
            .embeddings.create(input="x", model="text-embedding-3-small", encoding_format="float")
        ),
        1000 * 20,
    ),
    "messages": (lambda: _anthropic().messages.create(**CALL), MESSAGE_NANO_USD),
    "messages stream": (
        lambda: list(_anthropic().messages.create(**CALL, stream=True)),
        MESSAGE_NANO_USD,
    ),
}


async def _collected(stream: Any) -> list[Any]:
    return [item async for item in await stream]


ASYNC: dict[str, tuple[Callable[[], Any], int]] = {
    "chat": (
        lambda: answering(chat()).client(openai.AsyncOpenAI).chat.completions.create(**CHAT),
        CHAT_NANO_USD,
    ),
    "stream": (
        lambda: _collected(streaming().client(openai.AsyncOpenAI).chat.completions.create(**ASKED)),
        CHAT_NANO_USD,
    ),
    "responses": (
        lambda: (
            answering(response("gpt-5", RESPONSE_USAGE))
            .client(openai.AsyncOpenAI)
            .responses.create(input="x", model="gpt-5")
        ),
        RESPONSE_NANO_USD,
    ),
    "messages": (
        lambda: _anthropic(anthropic.AsyncAnthropic).messages.create(**CALL),
        MESSAGE_NANO_USD,
    ),
    "messages stream": (
        lambda: _collected(
            _anthropic(anthropic.AsyncAnthropic).messages.create(**CALL, stream=True)
        ),
        MESSAGE_NANO_USD,
    ),
}


def _money(way: str, order: str, nano_usd: int) -> int:
    if way.startswith("messages") and order == "ours switched off":
        # Of a foreign span nobody learns of searches, nor how long a cache write is to live.
        return nano_usd - 2 * 10_000_000 - 20 * (6000 - 3750)
    return nano_usd


@pytest.mark.parametrize("way", SYNC)
def test_one_span_and_one_charge(beside: Beside, order: str, way: str) -> None:
    do, nano_usd = SYNC[way]
    do()
    _check(beside, _money(way, order, nano_usd))


@pytest.mark.parametrize("way", ASYNC)
async def test_one_span_and_one_charge_async(beside: Beside, order: str, way: str) -> None:
    do, nano_usd = ASYNC[way]
    await do()
    _check(beside, _money(way, order, nano_usd))


def _check(beside: Beside, nano_usd: int) -> None:
    span, row = beside.one()
    assert (row.nano_usd, row.tenant_id, row.feature) == (nano_usd, "acme", "beside")
    assert span.attributes is not None
    assert span.attributes["spanledger.cost.usd"] == pytest.approx(nano_usd / 1e9)
    assert span.attributes["tenant.id"] == "acme"
    assert span.context is not None
    assert row.span_id == f"{span.context.span_id:016x}"


@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
async def test_an_error_is_one_span_and_one_row(beside: Beside, kind: type) -> None:
    client = answering({"error": {"message": "no"}}, 400).client(kind)
    with pytest.raises(openai.BadRequestError):
        result = client.chat.completions.create(**CHAT)
        await result
    span, row = beside.one()
    assert (row.nano_usd, row.outcome) == (0, "error")
    assert span.attributes is not None
    assert span.status.status_code.name == "ERROR"


@pytest.mark.parametrize("how", ["close", "break", "fail"])
def test_a_stream_ended_early_is_one_span_and_one_row(beside: Beside, order: str, how: str) -> None:
    endpoint = streaming(n=9, breaks_after=3 if how == "fail" else None)
    stream = endpoint.client().chat.completions.create(**ASKED)
    if how == "fail":
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    elif how == "close":
        next(stream)
        stream.close()
    else:
        with stream:
            for _ in stream:
                break
    span, row = beside.one()
    status = "unknown" if order == "ours switched off" else "estimated"
    assert row.cost_status == status
    assert row.outcome == ("error" if how == "fail" else "ok")
    assert span.attributes is not None
    assert span.attributes["spanledger.cost.status"] == status


def test_usage_asked_for_by_us_reaches_nobody(beside: Beside, order: str) -> None:
    chunks = list(streaming().client().chat.completions.create(**STREAM))
    assert len(chunks) == 3
    _, row = beside.one()
    assert row.cost_status == ("unknown" if order == "ours switched off" else "exact")


def test_a_free_call_is_none(beside: Beside) -> None:
    answering({"object": "list", "data": []}).client().models.list()
    _anthropic().messages.count_tokens(model=MODEL, messages=CALL["messages"])
    assert beside.genai() == []
