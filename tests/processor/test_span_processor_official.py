"""The real SDKs with the official GenAI instrumentations, and Anthropic's own tracing."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor as OfficialAnthropic
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as OfficialOpenAI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from spanledger.api import attribute, feature, names
from spanledger.instrumentation.openai import OpenAIInstrumentor
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.processor.sampler import wrap
from spanledger.processor.span_processor import LedgerSpanProcessor

HELLO: Any = [{"role": "user", "content": "Hello"}]
pytestmark = pytest.mark.usefixtures("unpatched")


@pytest.fixture
def official(traced: Any) -> Iterator[Any]:
    """`traced`, and the official instrumentations in place."""
    instrumentors = (OfficialOpenAI(), OfficialAnthropic())
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=traced.provider, skip_dep_check=True)
    yield traced
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


@pytest.fixture
def client(openai_http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", http_client=openai_http, max_retries=0)


def claude(http: httpx2.Client, *, own_tracing: Any = False) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="none", http_client=http, max_retries=0, open_telemetry=own_tracing
    )


def ask(client: openai.OpenAI, model: str = "gpt-4o-mini", **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=HELLO, **more)


def ask_claude(client: anthropic.Anthropic) -> None:
    client.messages.create(model="claude-haiku-4-5", max_tokens=100, messages=HELLO)


def test_a_chat_is_booked_once_and_its_span_told_the_cost(
    official: Any, gate: Any, client: openai.OpenAI
) -> None:
    with attribute(tenant="acme", user="u-17"), feature("search"):
        ask(client)
    booked = gate.one()
    assert booked.call[:3] == ("openai", "chat", "gpt-4o-mini")
    assert booked.call.attribution[:3] == ("acme", "u-17", "search")
    assert booked.usage.model == "gpt-4o-mini-2024-07-18"
    assert dict(booked.usage.units) == {
        "input_tokens": 1000,
        "output_tokens": 200,
        "cache_read_tokens": 400,
        "output_reasoning_tokens": 50,
    }
    assert dict(booked.usage.price_context) == {"service_tier": "default"}
    span = official.spans()["chat gpt-4o-mini"]
    where = span.get_span_context()
    assert booked.ending.outcome == "ok"
    assert (booked.ending.trace_id, booked.ending.span_id) == (where.trace_id, where.span_id)
    assert booked.ending.latency_s == (span.end_time - span.start_time) / 1e9
    assert booked.call.started_ns == span.start_time
    assert {
        key: value
        for key, value in official.attributes("chat gpt-4o-mini").items()
        if key.startswith(("spanledger.", "gen_ai.usage.cost.", "tenant.", "user.", "feature."))
    } == {
        names.ACCOUNTED: True,
        names.COST_AMOUNT: 0.0012,
        names.COST_CURRENCY: "USD",
        names.COST_USD: 0.0012,
        names.COST_STATUS: "exact",
        names.COST_SOURCE: "price_list",
        names.PRICE_VERSION: "test 1",
        names.TENANT: "acme",
        names.USER: "u-17",
        names.FEATURE: "search",
    }


def test_a_stream_read_under_another_tenant_belongs_to_who_asked(
    official: Any, gate: Any, client: openai.OpenAI
) -> None:
    with attribute(tenant="acme"):
        stream = ask(client, stream=True, stream_options={"include_usage": True})
    with attribute(tenant="other"):
        assert len(list(stream)) == 3
    booked = gate.one()
    assert booked.call.attribution.tenant == "acme"
    assert booked.usage.units["output_tokens"] == 200
    assert booked.ending.first_chunk_s is not None
    assert official.attributes("chat gpt-4o-mini")[names.COST_USD] == 0.0012


def test_a_stream_without_usage_is_booked_as_unknown(
    official: Any, gate: Any, client: openai.OpenAI
) -> None:
    list(ask(client, stream=True))
    assert gate.one().charge.nano_usd is None
    attributes = official.attributes("chat gpt-4o-mini")
    assert attributes[names.COST_STATUS] == "unknown"
    assert attributes[names.UNPRICED_REASON] == "no_usage"
    assert names.COST_USD not in attributes


def test_embeddings(official: Any, gate: Any, client: openai.OpenAI) -> None:
    client.embeddings.create(model="text-embedding-3-small", input="x", encoding_format="float")
    booked = gate.one()
    assert booked.call.operation == "embeddings"
    assert dict(booked.usage.units) == {"input_tokens": 12}


def test_a_refused_call_costs_nothing_and_is_no_unknown(
    official: Any, gate: Any, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.RateLimitError):
        ask(client, model="broken")
    booked = gate.one()
    assert (booked.ending.outcome, booked.ending.error_type) == ("error", "openai.RateLimitError")
    assert booked.charge.nano_usd == 0


@pytest.mark.parametrize("own_tracing", [False, None])
def test_a_message_with_anthropics_own_tracing_on_and_off(
    official: Any, gate: Any, anthropic_http: httpx2.Client, own_tracing: Any
) -> None:
    tracing = False if own_tracing is False else {"tracer_provider": official.provider}
    ask_claude(claude(anthropic_http, own_tracing=tracing))
    booked = gate.one()
    assert booked.call[:3] == ("anthropic", "chat", "claude-haiku-4-5")
    assert dict(booked.usage.units) == {
        "input_tokens": 800,
        "output_tokens": 200,
        "cache_read_tokens": 400,
        "cache_write_tokens": 100,
    }
    spans = official.spans()
    costs = {n: (s.attributes or {}).get(names.COST_USD) for n, s in spans.items()}
    if own_tracing is False:
        assert costs == {"chat claude-haiku-4-5": 0.001}
    else:  # the inner one is booked, the outer one is marked
        assert costs == {"anthropic.messages.create": 0.001, "chat claude-haiku-4-5": None}
    assert all((span.attributes or {})[names.ACCOUNTED] for span in spans.values())


def test_anthropics_own_tracing_alone(
    traced: Any, gate: Any, anthropic_http: httpx2.Client
) -> None:
    client = claude(anthropic_http, own_tracing={"tracer_provider": traced.provider})
    with attribute(tenant="acme"):
        ask_claude(client)
    assert gate.one().call.attribution.tenant == "acme"
    assert traced.attributes("anthropic.messages.create")[names.COST_USD] == 0.001


def test_our_own_instrumentation_rides_and_nothing_is_booked_twice(
    official: Any, gate: Any, client: openai.OpenAI
) -> None:
    use_tracer_provider(official.provider)
    OpenAIInstrumentor().instrument(skip_dep_check=True)
    try:
        ask(client)
    finally:
        OpenAIInstrumentor().uninstrument()
        use_tracer_provider(None)
    assert len(gate.admitted) == 1
    assert gate.booked == []
    assert list(official.spans()) == ["chat gpt-4o-mini"]
    assert official.attributes("chat gpt-4o-mini")[names.ACCOUNTED] is True


def test_unsampled_calls_are_booked_and_not_exported(gate: Any, client: openai.OpenAI) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    assert wrap(provider)
    provider.add_span_processor(LedgerSpanProcessor())
    OfficialOpenAI().instrument(tracer_provider=provider, skip_dep_check=True)
    try:
        ask(client)
    finally:
        OfficialOpenAI().uninstrument()
    assert gate.one().usage.units["input_tokens"] == 1000
    assert exporter.get_finished_spans() == ()
