"""What travels to a provider, seen by the server at the other end, with the HTTP clients instrumented.

Attribution never does. Whatever else is in the baggage does, and so does the trace.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import requests
import scavio
from anthropic_endpoint import CALL, MODEL, message
from loopback import Answer, Arrived, Loopback
from openai_endpoint import CHAT_USAGE, MESSAGES, RESPONSE_USAGE, chat, chunks, response, sse
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.api import attribute
from spanledger.api.attribution import configure_attribution
from spanledger.api.contexts import attached
from spanledger.api.gate import install_gate
from spanledger.api.settings import Section, Settings
from spanledger.instrumentation.anthropic import AnthropicInstrumentor
from spanledger.instrumentation.metered import metered
from spanledger.instrumentation.openai import OpenAIInstrumentor
from spanledger.instrumentation.scavio import ScavioInstrumentor
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.streams import flush_streams
from spanledger.processor.startup import Engine

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
SECRETS = {
    "tenant.id": "acme-corp",
    "user.id": "u-4711",
    "feature.name": "secret-project",
    "tenant": "acme-alias",
    "user": "user-alias",
    "feature": "feature-alias",
    "plan": "platinum",
}
OTHERS = {"request.priority": "high", "experiment": "b"}


class Wire:
    """A server, the tracer around the calls, and what the calls left."""

    def __init__(
        self, server: Loopback, engine: Engine, provider: TracerProvider, exporter: Any
    ) -> None:
        self.server = server
        self.engine = engine
        self.tracer = provider.get_tracer("the application")
        self.exporter = exporter

    def calls(self) -> int:
        assert flush_streams()
        assert self.engine.flush()
        rows = list(self.engine.journal.rows())
        for row in rows:
            assert (row.tenant_id, row.user_id, row.feature) == (
                "acme-corp",
                "u-4711",
                "secret-project",
            )
            assert row.attributes == {"plan": "platinum"}
        return len(rows)


def answer(arrived: Arrived) -> Answer:
    body = arrived.body if isinstance(arrived.body, dict) else {}
    path = arrived.path.partition("?")[0]
    if path.endswith("chat/completions"):
        if body.get("stream"):
            return 200, b"".join(sse(chunks(3, usage=CHAT_USAGE)))
        return 200, chat()
    if path.endswith("/responses"):
        return 200, response("gpt-5", RESPONSE_USAGE)
    if path.endswith("count_tokens"):
        return 200, {"input_tokens": 5}
    if path.endswith("/messages"):
        return 200, message()
    if path.endswith("/usage"):
        return 200, {"credit_balance": 5}
    if "/extract/crawl" in path:
        return 200, {"data": {"id": "job_1", "status": "completed", "credits_used": 1}}
    return 200, {"object": "list", "data": [], "credits_used": 1}


def _ours() -> list[BaseInstrumentor]:
    return [OpenAIInstrumentor(), AnthropicInstrumentor(), ScavioInstrumentor()]


@pytest.fixture
def wire() -> Iterator[Wire]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = Settings(root=Section({}, "test"), journal="memory://")
    engine = Engine(settings, service="test")
    clients = [HTTPXClientInstrumentor(), HTTPX2ClientInstrumentor(), RequestsInstrumentor()]
    with ExitStack() as stack:
        stack.callback(engine.close)
        install_gate(engine.gate)
        configure_attribution(extra=("plan",))
        use_tracer_provider(provider)
        stack.callback(use_tracer_provider, None)
        for instrumentor in (*_ours(), *clients):
            if not instrumentor.is_instrumented_by_opentelemetry:
                instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
                stack.callback(instrumentor.uninstrument)
        use_tracer_provider(provider)
        yield Wire(stack.enter_context(Loopback(answer)), engine, provider, exporter)


def _openai(server: Loopback, kind: Any = openai.OpenAI, **options: Any) -> Any:
    return kind(api_key="sk-secret", base_url=f"{server.url}/v1", max_retries=0, **options)


def _anthropic(server: Loopback, kind: Any = anthropic.Anthropic) -> Any:
    return kind(api_key="sk-secret", base_url=server.url, max_retries=0)


def _scavio(server: Loopback, kind: Any = scavio.ScavioClient) -> Any:
    return kind(api_key="sk-secret", base_url=server.url, max_requests_per_second=50)


def _tolerant(error: type[Exception], call: Callable[[], Any]) -> None:
    with pytest.raises(error):
        call()


# -- synchronous: (what is done, paid calls, requests) ---------------------------------------------


def openai_calls(server: Loopback) -> None:
    with _openai(server) as client:
        client.chat.completions.create(**CHAT)
        list(client.chat.completions.create(**CHAT, stream=True))
        client.chat.completions.with_raw_response.create(**CHAT)
        with client.chat.completions.with_streaming_response.create(**CHAT) as streamed:
            streamed.read()
        client.responses.create(input="x", model="gpt-5")
        client.beta.responses.create(input="x", model="gpt-5")
        client.post("/chat/completions", body=CHAT, cast_to=httpx2.Response)


def openai_free_calls(server: Loopback) -> None:
    with _openai(server) as client:
        client.models.list()
        client.files.list()
        client.responses.retrieve("resp_1")
        client.get("/anything", cast_to=httpx2.Response)


def openai_legacy_httpx(server: Loopback) -> None:
    with httpx.Client() as http, _openai(server, http_client=http) as client:
        client.chat.completions.create(**CHAT)
        client.models.list()


def anthropic_calls(server: Loopback) -> None:
    with _anthropic(server) as client:
        client.messages.create(**CALL)
        client.beta.messages.create(**CALL)
        client.messages.count_tokens(model=MODEL, messages=CALL["messages"])
        client.models.list()


def scavio_calls(server: Loopback) -> None:
    with _scavio(server) as client:
        client.google.search("fish")
        client.get_usage()
        client.extract.crawl("https://fish.example")
        client.extract.crawl_status("job_1")
        client.extract.cancel_crawl("job_1")


def metered_calls(server: Loopback) -> None:
    meter = metered(provider="raw", operation="post", cost="0.01")

    def post() -> None:
        requests.post(f"{server.url}/raw", json={"q": "fish"}, timeout=5)

    def items() -> Generator[int, None, None]:
        for number in range(2):
            httpx2.post(f"{server.url}/raw", json={})
            yield number

    meter(post)()
    list(meter(items)())
    with meter:
        httpx.post(f"{server.url}/raw", json={})


@pytest.mark.parametrize(
    ("do", "paid", "sent"),
    [
        (openai_calls, 7, 7),
        (openai_free_calls, 0, 4),
        (openai_legacy_httpx, 1, 2),
        (anthropic_calls, 2, 4),
        (scavio_calls, 2, 5),  # the job's polls bring nothing new
        (metered_calls, 3, 4),
    ],
)
def test_synchronous_calls(
    wire: Wire, do: Callable[[Loopback], None], paid: int, sent: int
) -> None:
    with wire.tracer.start_as_current_span("request") as request, attached(_context()):
        do(wire.server)
        assert dict(baggage.get_all()) == {**SECRETS, **OTHERS}
    _check(wire, request, sent)
    assert wire.calls() == paid


SYNCHRONOUS = (openai_calls, openai_free_calls, anthropic_calls, scavio_calls, metered_calls)


@pytest.mark.parametrize("do", SYNCHRONOUS)
def test_what_the_helper_sets_stays_here_without_any_setting(
    wire: Wire, do: Callable[[Loopback], None]
) -> None:
    configure_attribution()
    who = {"tenant": "acme-corp", "plan": "platinum", "customer_email": "bob@x.example"}
    with attached(baggage.set_baggage("experiment", "b")), attribute(**who):
        do(wire.server)
    assert wire.server.requests
    for arrived in wire.server.requests:
        assert arrived.headers["baggage"] == "experiment=b"


# -- asynchronous ----------------------------------------------------------------------------------


async def openai_async(server: Loopback) -> None:
    async with _openai(server, openai.AsyncOpenAI) as client:
        await client.chat.completions.create(**CHAT)
        stream = await client.chat.completions.create(**CHAT, stream=True)
        assert len([chunk async for chunk in stream]) == 3
        await client.models.list()


async def openai_async_legacy_httpx(server: Loopback) -> None:
    async with httpx.AsyncClient() as http:
        client = _openai(server, openai.AsyncOpenAI, http_client=http)
        stream = await client.chat.completions.create(**CHAT, stream=True)
        assert len([chunk async for chunk in stream]) == 3
        await client.models.list()


async def anthropic_async(server: Loopback) -> None:
    async with _anthropic(server, anthropic.AsyncAnthropic) as client:
        await client.messages.create(**CALL)
        await client.messages.count_tokens(model=MODEL, messages=CALL["messages"])


async def scavio_async(server: Loopback) -> None:
    async with _scavio(server, scavio.AsyncScavioClient) as client:
        await client.google.search("fish")
        await client.get_usage()
        await client.extract.crawl("https://fish.example")
        await client.extract.crawl_status("job_1")


async def metered_async(server: Loopback) -> None:
    meter = metered(provider="raw", operation="post", cost="0.01")

    async def post() -> None:
        async with httpx2.AsyncClient() as http:
            await http.post(f"{server.url}/raw", json={})

    await meter(post)()
    async with meter:
        await post()


@pytest.mark.parametrize(
    ("do", "paid", "sent"),
    [
        (openai_async, 2, 3),
        (openai_async_legacy_httpx, 1, 2),
        (anthropic_async, 1, 2),
        (scavio_async, 2, 4),
        (metered_async, 2, 2),
    ],
)
async def test_asynchronous_calls(
    wire: Wire, do: Callable[[Loopback], Awaitable[None]], paid: int, sent: int
) -> None:
    with wire.tracer.start_as_current_span("request") as request, attached(_context()):
        await do(wire.server)
        assert dict(baggage.get_all()) == {**SECRETS, **OTHERS}
        await asyncio.gather(*(do(wire.server) for _ in range(3)))
        assert dict(baggage.get_all()) == {**SECRETS, **OTHERS}
    _check(wire, request, 4 * sent)
    assert wire.calls() == 4 * paid


# -- errors ----------------------------------------------------------------------------------------


def test_a_failing_call_gives_the_baggage_back(wire: Wire) -> None:
    with Loopback(lambda _: (500, {"error": {"message": "no"}})) as broken, attached(_context()):
        _tolerant(openai.APIError, lambda: _openai(broken).chat.completions.create(**CHAT))
        _tolerant(openai.APIError, lambda: _openai(broken).models.list())
        _tolerant(anthropic.APIError, lambda: _anthropic(broken).messages.create(**CALL))
        assert dict(baggage.get_all()) == {**SECRETS, **OTHERS}
        told = [json.dumps(arrived.headers) for arrived in broken.requests]
    assert len(told) == 3
    for headers in told:
        assert not [value for value in SECRETS.values() if value in headers]
    assert wire.calls() == 2


def test_baggage_without_attribution_travels_as_it_is(wire: Wire) -> None:
    ctx = baggage.set_baggage("experiment", "b")
    with attached(ctx):
        _openai(wire.server).chat.completions.create(**CHAT)
    (arrived,) = wire.server.requests
    assert arrived.headers["baggage"] == "experiment=b"


def _context() -> context.Context:
    ctx = context.get_current()
    for key, value in {**SECRETS, **OTHERS}.items():
        ctx = baggage.set_baggage(key, value, ctx)
    return ctx


def _check(wire: Wire, request: trace.Span, sent: int) -> None:
    """Nothing of the attribution has arrived, everything else has; each request is of this trace."""
    arrived = wire.server.requests
    assert len(arrived) == sent, [one.path for one in arrived]
    trace_id = f"{request.get_span_context().trace_id:032x}"
    for one in arrived:
        said = f"{one.path} {one.headers} {one.body}"
        assert not [value for value in SECRETS.values() if value in said], said
        entries = dict(entry.split("=") for entry in one.headers["baggage"].split(","))
        assert entries == OTHERS
        assert one.headers["traceparent"].split("-")[1] == trace_id
