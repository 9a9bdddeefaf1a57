"""The sampler wrapper on a real tracer provider."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes

from spanledger.api import guard, names
from spanledger.processor.sampler import KeepGenAI, wrap

CHAT = {names.OPERATION: "chat", names.PROVIDER: "openai", "more": 1}


def provider_with(sampler: Sampler) -> TracerProvider:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    assert wrap(provider)
    return provider


@pytest.fixture
def off() -> Iterator[TracerProvider]:
    """A provider that samples nothing, wrapped."""
    provider = provider_with(ALWAYS_OFF)
    yield provider
    provider.shutdown()


def test_a_genai_span_is_recorded_and_not_sampled(off: TracerProvider) -> None:
    span = off.get_tracer("myapp").start_span("chat gpt", attributes=CHAT)
    assert isinstance(span, Span)
    assert span.is_recording()
    assert not span.get_span_context().trace_flags.sampled
    assert dict(span.attributes or {}) == CHAT


@pytest.mark.parametrize(
    ("scope", "attributes", "kept"),
    [
        ("myapp", None, False),
        ("myapp", {"http.request.method": "GET"}, False),
        ("myapp", {"openinference.span.kind": "LLM"}, True),
        ("myapp", {"openinference.span.kind": "CHAIN"}, False),
        ("myapp", {"llm.request.type": "completion"}, True),
        ("myapp", {"ai.operationId": "ai.streamText.doStream"}, True),
        ("myapp", {"ai.operationId": "ai.streamText"}, False),
        ("myapp", {names.OPERATION: "invoke_agent"}, False),
        ("myapp", {names.LEGACY_SYSTEM: "openai"}, True),
        (names.SCOPE_INSTRUMENTATION, CHAT, True),
        # These say later what they are.
        ("opentelemetry.instrumentation.langchain", None, True),
        ("openinference.instrumentation.langchain", {}, True),
        ("litellm", None, True),
        ("litellm", {names.OPERATION: "invoke_agent"}, False),
        ("opentelemetry.instrumentation.httpx", None, False),
    ],
)
def test_what_is_kept(off: TracerProvider, scope: str, attributes: Attributes, kept: bool) -> None:
    span = off.get_tracer(scope).start_span("x", attributes=attributes)
    assert span.is_recording() is kept


def test_what_is_sampled_stays_sampled() -> None:
    provider = provider_with(ALWAYS_ON)
    for attributes in (CHAT, {}):
        span = provider.get_tracer("myapp").start_span("x", attributes=attributes)
        assert span.get_span_context().trace_flags.sampled


def test_children_of_a_kept_span_are_sampled_as_before() -> None:
    provider = provider_with(ParentBased(ALWAYS_OFF))
    tracer = provider.get_tracer("myapp")
    ctx = set_span_in_context(tracer.start_span("chat", attributes=CHAT))
    child = tracer.start_span("POST", context=ctx)
    assert not child.is_recording()
    assert not child.get_span_context().trace_flags.sampled
    inner = tracer.start_span("chat", attributes=CHAT, context=ctx)
    assert inner.is_recording()
    assert not inner.get_span_context().trace_flags.sampled


def test_the_trace_state_is_the_samplers(off: TracerProvider) -> None:
    remote = SpanContext(
        1, 2, is_remote=True, trace_flags=TraceFlags(0), trace_state=TraceState([("a", "b")])
    )
    ctx = set_span_in_context(NonRecordingSpan(remote), Context())
    span = off.get_tracer("myapp").start_span("chat", attributes=CHAT, context=ctx)
    assert span.is_recording()
    assert dict(span.get_span_context().trace_state) == {"a": "b"}


class _Adds(Sampler):
    """Drops all, with an attribute that says so."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        self.asked.append((parent_context, trace_id, name, kind, attributes, links, trace_state))
        return SamplingResult(Decision.DROP, {"sampler.rule": "x"})

    def get_description(self) -> str:
        return "Adds"


def test_the_inner_sampler_is_asked_the_same_and_its_attributes_stay() -> None:
    inner = _Adds()
    question = (Context(), 7, "chat", SpanKind.CLIENT, CHAT, (), TraceState())
    result = KeepGenAI(inner).should_sample(*question)
    assert inner.asked == [question]
    assert result.decision is Decision.RECORD_ONLY
    assert dict(result.attributes) == {**CHAT, "sampler.rule": "x"}


def test_a_dropped_spans_result_is_the_inner_samplers_own() -> None:
    inner = _Adds()
    result = KeepGenAI(inner).should_sample(None, 7, "GET", attributes={"http.route": "/"})
    assert result.decision is Decision.DROP
    assert dict(result.attributes) == {"sampler.rule": "x"}


def test_its_description_names_the_inner_one() -> None:
    assert (
        KeepGenAI(TraceIdRatioBased(0.5)).get_description() == "KeepGenAI{TraceIdRatioBased{0.5}}"
    )


def test_tracers_made_before_are_equipped_too() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    ours, langchain = provider.get_tracer("myapp"), provider.get_tracer("langchain")
    assert not ours.start_span("chat", attributes=CHAT).is_recording()
    assert wrap(provider)
    assert ours.start_span("chat", attributes=CHAT).is_recording()
    assert not ours.start_span("other").is_recording()
    assert langchain.start_span("ChatOpenAI").is_recording()
    assert provider.get_tracer("myapp") is ours


def test_a_tracer_with_a_sampler_of_its_own_keeps_it() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    tracer: Any = provider.get_tracer("langchain")
    tracer.sampler = ALWAYS_ON
    assert wrap(provider)
    assert tracer.sampler is ALWAYS_ON


def test_wrapping_happens_once_and_only_where_there_is_a_sampler() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    assert wrap(provider)
    first = provider.sampler
    assert not wrap(provider)
    assert provider.sampler is first
    assert not wrap(trace.NoOpTracerProvider())
    assert not wrap(trace.ProxyTracerProvider())
    assert not wrap(None)


def test_get_tracer_takes_its_arguments_as_before(off: TracerProvider) -> None:
    tracer: Any = off.get_tracer(
        instrumenting_module_name="litellm",
        instrumenting_library_version="1",
        schema_url="u",
        attributes={"a": 1},
    )
    assert tracer.start_span("litellm_request").is_recording()
    scope = tracer._instrumentation_scope
    assert (scope.name, scope.version, scope.schema_url) == ("litellm", "1", "u")
    with pytest.raises(TypeError):
        off.get_tracer()  # type: ignore[call-arg]


def test_our_failure_leaves_the_inner_samplers_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> bool:
        raise RuntimeError

    guard.reraise_internal_errors(False)
    monkeypatch.setattr("spanledger.processor.sampler.may_be_paid", broken)
    result = KeepGenAI(ALWAYS_OFF).should_sample(None, 7, "chat", attributes=CHAT)
    assert result.decision is Decision.DROP
    assert guard.internal_errors["sampler"] == 1
