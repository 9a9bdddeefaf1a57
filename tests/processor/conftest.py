"""Foreign spans of a real SDK, and a gate that shows what was booked."""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode, set_span_in_context

from spanledger.api.gate import OpenGate, Permit, Wait, install_gate, new_charge_id
from spanledger.api.values import Charge, Ending, PaidCall, Usage
from spanledger.instrumentation.anthropic import AnthropicInstrumentor
from spanledger.instrumentation.openai import OpenAIInstrumentor
from spanledger.processor.span_processor import LedgerSpanProcessor

SPANS = Path(__file__).parent / "spans"


class Booked(NamedTuple):
    call: PaidCall
    usage: Usage
    ending: Ending
    charge: Charge


class RecordingGate:
    """A double of the real gate, which would make these tests of prices, of a recorder's thread and a journal.

    It remembers what it is told to record, in order, at 1,000 nano-USD a token; what states neither
    tokens nor a cost is unknown. What is admitted is settled by the open gate's permit, and counted.
    """

    def __init__(self) -> None:
        self.booked: list[Booked] = []
        self.admitted: list[PaidCall] = []

    def admit(
        self, call: PaidCall, waited: Wait | None = None, *, nowait: bool = False
    ) -> Permit | Wait | None:
        self.admitted.append(call)
        return OpenGate.permit

    def record(
        self, call: PaidCall, usage: Usage, ending: Ending, key: str | None = None
    ) -> Charge:
        assert key is None
        if usage.reported_cost is not None:
            charge = Charge(
                new_charge_id(), int(usage.reported_cost * 10**9), None, "exact", "provider"
            )
        elif usage.units:
            tokens = usage.units.get("input_tokens", 0) + usage.units.get("output_tokens", 0)
            charge = Charge(
                new_charge_id(), int(tokens) * 1000, None, "exact", "price_list", "test 1"
            )
        else:
            charge = Charge(new_charge_id(), None, reason="no_usage")
        self.booked.append(Booked(call, usage, ending, charge))
        return charge

    def credits_remaining(self, provider: str, credits: Decimal) -> None:
        return None

    def one(self) -> Booked:
        """The only one booked."""
        assert len(self.booked) == 1, self.booked
        return self.booked[0]


@pytest.fixture
def gate() -> RecordingGate:
    gate = RecordingGate()
    install_gate(gate)
    return gate


class Traced:
    """A real tracer provider with our processor, and the spans that it exports."""

    def __init__(self, *processors: Any, **settings: Any) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False, **settings)
        self.exporter = InMemorySpanExporter()
        self.processor = LedgerSpanProcessor()
        for processor in (*processors, SimpleSpanProcessor(self.exporter), self.processor):
            self.provider.add_span_processor(processor)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def attributes(self, name: str) -> Mapping[str, Any]:
        return dict(self.spans()[name].attributes or {})

    def start(self, scope: str, name: str, **settings: Any) -> Span:
        span = self.provider.get_tracer(scope).start_span(name, **settings)
        assert isinstance(span, Span)
        return span

    def replay(self, file: str, label: str) -> None:
        """Make the recorded spans again, as they were nested; those that ended last began first."""
        spans: list[dict[str, Any]] = json.loads((SPANS / file).read_text())["spans"][label]
        live: dict[str, Span] = {}
        for span in reversed(spans):
            parent = live.get(span["parent"])
            live[span["id"]] = self.start(
                span["scope"],
                span["name"],
                attributes=span["at_start"],
                context=set_span_in_context(parent) if parent is not None else None,
            )
        for span in spans:
            live[span["id"]].set_attributes(span["attributes"])
            if span["status"] == "ERROR":
                live[span["id"]].set_status(Status(StatusCode.ERROR))
            live[span["id"]].end()


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced()
    yield traced
    assert not traced.processor._inside
    traced.provider.shutdown()


@pytest.fixture
def unpatched() -> Iterator[None]:
    """Without our own instrumentation, which other tests leave in place."""
    ours = [
        i
        for i in (OpenAIInstrumentor(), AnthropicInstrumentor())
        if i.is_instrumented_by_opentelemetry
    ]
    for instrumentor in ours:
        instrumentor.uninstrument()
    yield
    for instrumentor in ours:
        instrumentor.instrument(skip_dep_check=True)


USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 50},
}


def _chunks(*, usage: bool) -> bytes:
    base = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
    }
    chunks: list[dict[str, Any]] = [
        {**base, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]},
        {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    if usage:
        chunks.append({**base, "choices": [], "usage": USAGE})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def _openai(request: httpx2.Request) -> httpx2.Response:
    body = json.loads(request.content)
    if body["model"] == "broken":
        return httpx2.Response(429, json={"error": {"message": "slow down", "type": "requests"}})
    if request.url.path.endswith("/embeddings"):
        return httpx2.Response(
            200,
            json={
                "object": "list",
                "model": body["model"],
                "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
                "usage": {"prompt_tokens": 12, "total_tokens": 12},
            },
        )
    if body.get("stream"):
        asked = (body.get("stream_options") or {}).get("include_usage", False)
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, content=_chunks(usage=asked)
        )
    return httpx2.Response(
        200,
        json={
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini-2024-07-18",
            "service_tier": "default",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi"},
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
        },
    )


def _anthropic(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(
        200,
        json={
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-4-5-20251001",
            "content": [{"type": "text", "text": "Hi"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 300,
                "output_tokens": 200,
                "cache_read_input_tokens": 400,
                "cache_creation_input_tokens": 100,
            },
        },
    )


@pytest.fixture
def openai_http() -> Iterator[httpx2.Client]:
    """What stands in for OpenAI on the wire."""
    with httpx2.Client(transport=httpx2.MockTransport(_openai)) as client:
        yield client


@pytest.fixture
def anthropic_http() -> Iterator[httpx2.Client]:
    """What stands in for Anthropic on the wire."""
    with httpx2.Client(transport=httpx2.MockTransport(_anthropic)) as client:
        yield client
