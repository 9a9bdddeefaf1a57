"""What becomes of spans: of which instrumentation, in which place, ended how."""

import logging
import threading
from collections.abc import Callable
from time import time_ns
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Status, StatusCode, set_span_in_context

from spanledger.api import attribute, feature, guard, names
from spanledger.api.attribution import configure_attribution, mark_incoming
from spanledger.api.gate import OpenGate, install_gate
from spanledger.processor import span_processor as module
from spanledger.processor.seen_calls import SeenCall, SeenCalls

OPENAI_SCOPE = "opentelemetry.instrumentation.genai.openai"
OTHER_SCOPE = "opentelemetry.instrumentation.openai.v1"
OWN_SCOPE = names.SCOPE_INSTRUMENTATION


def chat(input_tokens: int = 10, output_tokens: int = 5, **more: Any) -> dict[str, Any]:
    return {
        names.OPERATION: "chat",
        names.PROVIDER: "openai",
        names.REQUEST_MODEL: "gpt-4o-mini",
        names.INPUT_TOKENS: input_tokens,
        names.OUTPUT_TOKENS: output_tokens,
        **more,
    }


EMBEDDING = {**chat(), names.OPERATION: "embeddings"}
OWN = chat(**{names.ACCOUNTED: True})


# -- recorded spans of other instrumentations, each label one call ----------------------------------


@pytest.mark.parametrize(
    ("recorded", "booked_by", "tokens"),
    [
        ("openllmetry.json openai_chat", "openai.chat", (1000, 200)),
        ("openllmetry.json openai_responses", "openai.response", (1000, 200)),
        ("openllmetry_old.json anthropic_messages", "anthropic.chat", (800, 200)),
        ("openllmetry.json langchain_openai", "ChatOpenAI.chat", (1000, 200)),
        ("openinference.json langchain_openai", "ChatOpenAI", (1000, 200)),
        ("openinference.json openai_embeddings", "CreateEmbeddings", (12, None)),
        ("litellm.json openai_chat", "litellm_request", (1000, 200)),
        ("litellm.json embed", "litellm_request", (12, 0)),
        ("vercel_6.json generate_text", "ai.generateText.doGenerate", (1000, 200)),
        ("vercel_7.json generate_text", "chat gpt-4o-mini", (1000, 200)),
        # Two instrumentations of one call, their spans in traces of their own: by the response id.
        ("anthropic.json nested_in_openllmetry", "anthropic.messages.create", (800, 200)),
        (
            "openllmetry.json langchain_around_sdk_anthropic",
            "anthropic.messages.create",
            (800, 200),
        ),
        # Without one: by time, model and tokens.
        ("openinference.json langchain_around_sdk_openai", "ChatCompletion", (1000, 200)),
        # Three of them, of which two are nested.
        (
            "openinference.json langchain_around_sdk_anthropic",
            "anthropic.messages.create",
            (800, 200),
        ),
    ],
)
def test_recorded_spans(
    traced: Any, gate: Any, recorded: str, booked_by: str, tokens: tuple[int, int | None]
) -> None:
    traced.replay(*recorded.split())
    units = gate.one().usage.units
    assert (units.get("input_tokens"), units.get("output_tokens")) == tokens
    told = {n: s.attributes.get(names.COST_USD) for n, s in traced.spans().items()}
    priced = {name for name, cost in told.items() if cost is not None}
    assert priced == {booked_by}
    assert told[booked_by] == (tokens[0] + (tokens[1] or 0)) / 1e6
    for name, span in traced.spans().items():
        if names.INPUT_TOKENS in span.attributes or "llm.token_count.prompt" in span.attributes:
            is_agent = name.startswith("invoke_agent")
            assert span.attributes.get(names.ACCOUNTED, False) is not is_agent, name


@pytest.mark.parametrize("file", ["openllmetry.json", "openllmetry_old.json", "openinference.json"])
def test_recorded_failures_are_calls_too(traced: Any, gate: Any, file: str) -> None:
    traced.replay(file, "openai_error")
    assert gate.one().ending.outcome == "error"


def test_an_outer_span_without_usage_of_its_own_is_not_booked_as_unknown(
    traced: Any, gate: Any
) -> None:
    traced.replay("vercel_7.json", "embed")
    assert dict(gate.one().usage.units) == {"input_tokens": 12}


def test_tokens_counted_for_free_are_not_booked(traced: Any, gate: Any) -> None:
    traced.replay("anthropic.json", "count_tokens")
    assert gate.booked == []
    assert names.ACCOUNTED not in traced.attributes("anthropic.messages.count_tokens")


# -- who pays ---------------------------------------------------------------------------------------


def test_attribution_is_that_of_the_start(traced: Any, gate: Any) -> None:
    with attribute(tenant="acme", user="u-1"), feature("search"):
        span = traced.start(OPENAI_SCOPE, "chat", attributes=chat())
    with attribute(tenant="late"):
        span.end()
    assert gate.one().call.attribution[:3] == ("acme", "u-1", "search")


def test_attribution_by_the_context_given(traced: Any, gate: Any) -> None:
    ctx = baggage.set_baggage("tenant", "acme", context.Context())
    traced.start(OPENAI_SCOPE, "chat", attributes=chat(), context=ctx).end()
    assert gate.one().call.attribution.tenant == "acme"


def test_what_baggage_does_not_say_the_span_may(traced: Any, gate: Any) -> None:
    said = {names.TENANT: "by span", names.USER: "u-9\n", names.FEATURE: "f"}
    with attribute(tenant="by baggage"):
        traced.start(OPENAI_SCOPE, "chat", attributes={**chat(), **said}).end()
    assert gate.one().call.attribution[:3] == ("by baggage", "u-9", "f")
    # What the span said it keeps.
    assert traced.attributes("chat")[names.TENANT] == "by span"


def test_baggage_from_the_network_is_not_believed_by_way_of_the_span(
    traced: Any, gate: Any
) -> None:
    tenant = "acme"
    incoming = mark_incoming(baggage.set_baggage(names.TENANT, tenant, context.Context()))
    # Some processors copy baggage to attributes.
    attributes = {**chat(), names.TENANT: tenant}
    traced.start(OPENAI_SCOPE, "chat", attributes=attributes, context=incoming).end()
    assert gate.booked.pop().call.attribution.tenant is None
    configure_attribution(trust_incoming=True)
    traced.start(OPENAI_SCOPE, "chat", attributes=chat(), context=incoming).end()
    assert gate.one().call.attribution.tenant == "acme"


def test_the_use_is_the_trace_also_for_a_root(traced: Any, gate: Any) -> None:
    root = traced.start(OPENAI_SCOPE, "chat", attributes=chat())
    root.end()
    assert gate.one().call.attribution.use_id == f"{root.get_span_context().trace_id:032x}"


def test_extra_keys_are_told_to_the_span(traced: Any, gate: Any) -> None:
    configure_attribution(extra=("plan",))
    with attribute(plan="gold"):
        traced.start(OPENAI_SCOPE, "chat", attributes=chat()).end()
    assert dict(gate.one().call.attribution.extra) == {"plan": "gold"}
    assert traced.attributes("chat")["plan"] == "gold"


# -- spans in spans ---------------------------------------------------------------------------------


def nested(traced: Any, *spans: tuple[str, str, dict[str, Any]]) -> None:
    """Spans one in the other, outermost first: (scope, name, attributes)."""
    live: list[Span] = []
    ctx = None
    for scope, name, attributes in spans:
        live.append(traced.start(scope, name, attributes=attributes, context=ctx))
        ctx = set_span_in_context(live[-1])
    for span in reversed(live):
        span.end()


def test_only_the_innermost_of_nested_calls_is_booked(traced: Any, gate: Any) -> None:
    nested(
        traced,
        ("openinference.instrumentation.langchain", "outer", chat(1)),
        ("myapp", "between", {}),
        ("opentelemetry.instrumentation.httpx", "POST", {}),
        (OTHER_SCOPE, "middle", chat(2)),
        (OPENAI_SCOPE, "inner", chat(3)),
    )
    assert gate.one().usage.units["input_tokens"] == 3
    for name in ("outer", "middle"):
        assert traced.attributes(name)[names.ACCOUNTED] is True
        assert names.COST_STATUS not in traced.attributes(name)


def test_an_outer_span_that_ends_first_is_booked_and_the_inner_one_is_not(
    traced: Any, gate: Any
) -> None:
    outer = traced.start(OTHER_SCOPE, "outer", attributes=chat(1))
    inner = traced.start(
        OPENAI_SCOPE, "inner", attributes=chat(2), context=set_span_in_context(outer)
    )
    outer.end()
    inner.end()
    assert gate.one().usage.units["input_tokens"] == 1
    assert traced.attributes("inner")[names.ACCOUNTED] is True


def test_an_outer_span_that_ends_first_without_usage_does_not_stand_for_the_inner_one(
    traced: Any, gate: Any
) -> None:
    outer = traced.start(OTHER_SCOPE, "outer", attributes=chat(0, 0))
    inner = traced.start(
        OPENAI_SCOPE, "inner", attributes=chat(2), context=set_span_in_context(outer)
    )
    outer.end()
    inner.end()
    assert [dict(b.usage.units) for b in gate.booked] == [
        {},
        {"input_tokens": 2, "output_tokens": 5},
    ]


def test_a_call_that_begins_after_its_parent_ended_is_another_call(traced: Any, gate: Any) -> None:
    outer = traced.start(OPENAI_SCOPE, "outer", attributes=chat(1))
    task = traced.start("myapp", "task", context=set_span_in_context(outer))
    outer.end()
    traced.start(OTHER_SCOPE, "later", attributes=chat(2), context=set_span_in_context(task)).end()
    task.end()
    assert [b.usage.units["input_tokens"] for b in gate.booked] == [1, 2]


def test_a_call_that_begins_after_our_own_ended_is_another_call(traced: Any, gate: Any) -> None:
    own = traced.start(OWN_SCOPE, "own", attributes=OWN)
    task = traced.start("myapp", "task", context=set_span_in_context(own))
    own.end()
    ctx = set_span_in_context(task)
    traced.start(OTHER_SCOPE, "later", attributes=chat(2), context=ctx).end()
    task.end()
    assert gate.one().usage.units["input_tokens"] == 2


def test_what_is_around_a_span_of_a_call_in_the_books_is_not_booked(traced: Any, gate: Any) -> None:
    outer = traced.start("openinference.instrumentation.langchain", "outer", attributes=chat(99))
    inner = traced.start(
        OTHER_SCOPE, "inner", attributes=chat(), context=set_span_in_context(outer)
    )
    traced.start(OWN_SCOPE, "own beside them", attributes=OWN).end()
    inner.end()
    outer.end()
    assert gate.booked == []


def test_an_embedding_inside_a_chat_is_another_call(traced: Any, gate: Any) -> None:
    nested(traced, ("litellm", "chat", chat(1)), (OPENAI_SCOPE, "embed", EMBEDDING))
    assert [b.call.operation for b in gate.booked] == ["embeddings", "chat"]


def test_two_calls_beside_each_other_in_one_trace_are_two(traced: Any, gate: Any) -> None:
    root = traced.start("myapp", "request")
    for _ in range(2):
        ctx = set_span_in_context(root)
        traced.start(
            OPENAI_SCOPE, "chat", attributes=chat(**{names.RESPONSE_ID: "always"}), context=ctx
        ).end()
    root.end()
    assert len(gate.booked) == 2


def test_our_own_call_below_a_foreign_span_is_the_one_in_the_books(traced: Any, gate: Any) -> None:
    nested(
        traced,
        (OTHER_SCOPE, "outer", chat()),
        ("myapp", "between", {}),
        (OWN_SCOPE, "own", OWN),
    )
    assert gate.booked == []
    assert traced.attributes("outer")[names.ACCOUNTED] is True


def test_a_foreign_span_below_our_own_call_is_of_that_call(traced: Any, gate: Any) -> None:
    nested(traced, (OWN_SCOPE, "own", OWN), (OPENAI_SCOPE, "inner", chat()))
    assert gate.booked == []
    assert traced.attributes("inner")[names.ACCOUNTED] is True


def test_a_call_of_a_data_api_of_ours_stands_for_no_model_call(traced: Any, gate: Any) -> None:
    search = {names.OPERATION: "google.search", names.PROVIDER: "scavio", names.ACCOUNTED: True}
    nested(traced, (OTHER_SCOPE, "outer", chat(1)), (OWN_SCOPE, "search", search))
    nested(traced, (OWN_SCOPE, "research", search), (OTHER_SCOPE, "inner", chat(2)))
    assert [b.usage.units["input_tokens"] for b in gate.booked] == [1, 2]


def test_our_own_call_beside_a_callbacks_span_is_found_by_its_tokens(
    traced: Any, gate: Any
) -> None:
    outer = traced.start("openinference.instrumentation.langchain", "outer")
    traced.start(OWN_SCOPE, "own", attributes=OWN).end()
    outer.set_attributes(
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt-4o-mini",
            "llm.token_count.prompt": 10,
            "llm.token_count.completion": 5,
        }
    )
    outer.end()
    assert gate.booked == []


@pytest.mark.parametrize(
    "other",
    [
        chat(11),
        chat(10, 6),
        {**chat(), names.REQUEST_MODEL: "gpt-4o"},
        {**chat(), names.OPERATION: "embeddings"},
        {**chat(), names.ERROR_TYPE: "timeout"},
    ],
)
def test_a_span_beside_another_that_differs_is_another_call(
    traced: Any, gate: Any, other: dict[str, Any]
) -> None:
    outer = traced.start(OTHER_SCOPE, "outer", attributes=other)
    traced.start(OWN_SCOPE, "own", attributes=OWN).end()
    outer.end()
    assert len(gate.booked) == 1


def test_each_call_has_one_view_a_scope(traced: Any, gate: Any) -> None:
    outer = [traced.start(OTHER_SCOPE, f"outer {n}", attributes=chat()) for n in range(3)]
    for _ in range(2):
        traced.start(OWN_SCOPE, "own", attributes=OWN).end()
    for span in outer:
        span.end()
    assert len(gate.booked) == 1  # three were seen, two are ours


# -- the end of a span ------------------------------------------------------------------------------


def test_the_end_time_is_the_callers(traced: Any, gate: Any) -> None:
    span = traced.start(OPENAI_SCOPE, "chat", attributes=chat(), start_time=1_000_000_000)
    span.end(end_time=3_500_000_000)
    assert span.end_time == 3_500_000_000
    assert gate.one().ending.latency_s == 2.5


def test_an_end_time_of_now_is_before_our_work(
    traced: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked_at: list[int] = []
    record = gate.record
    monkeypatch.setattr(gate, "record", lambda *a: (worked_at.append(time_ns()), record(*a))[1])
    span = traced.start(OPENAI_SCOPE, "chat", attributes=chat())
    span.end()
    assert span.end_time is not None
    assert span.end_time <= worked_at[0]


def test_a_second_end_does_what_it_always_did(
    traced: Any, gate: Any, caplog: pytest.LogCaptureFixture
) -> None:
    span = traced.start(OPENAI_SCOPE, "chat", attributes=chat())
    end = span.end
    span.end()
    assert "end" not in vars(span)
    with caplog.at_level(logging.WARNING, "opentelemetry"):
        span.end()
        end()
    assert [r.message for r in caplog.records] == ["Calling end() on an ended span."] * 2
    assert len(gate.booked) == 1
    assert len(traced.exporter.get_finished_spans()) == 1


def test_with_blocks_and_exceptions(traced: Any, gate: Any) -> None:
    tracer = traced.provider.get_tracer(OPENAI_SCOPE)
    with (
        pytest.raises(ZeroDivisionError),
        tracer.start_as_current_span("chat", attributes={names.OPERATION: "chat"}),
    ):
        _ = 1 / 0
    booked = gate.one()
    assert (booked.ending.outcome, booked.ending.error_type) == ("error", "ZeroDivisionError")
    assert traced.spans()["chat"].status.status_code is StatusCode.ERROR


def test_a_failure_that_says_nothing_has_the_conventions_error_type(traced: Any, gate: Any) -> None:
    span = traced.start(OPENAI_SCOPE, "chat", attributes=chat())
    span.set_status(Status(StatusCode.ERROR))
    span.end()
    assert gate.one().ending.error_type == "_OTHER"


def test_ends_at_once_in_many_threads_are_one_call(traced: Any, gate: Any) -> None:
    span = traced.start(OPENAI_SCOPE, "chat", attributes=chat())
    together = threading.Barrier(8)

    def end() -> None:
        together.wait()
        span.end()

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(gate.booked) == 1
    assert len(traced.exporter.get_finished_spans()) == 1


@pytest.mark.parametrize("scope", [OPENAI_SCOPE, "myapp"])
def test_our_failure_is_counted_and_the_span_ends(
    traced: Any, gate: Any, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    guard.reraise_internal_errors(False)
    monkeypatch.setattr(gate, "record", broken)
    traced.start(scope, "chat", attributes=chat()).end()
    assert list(traced.spans()) == ["chat"]
    assert guard.internal_errors == {"foreign span": 1}  # once: it is not tried again


class _Wraps(SpanProcessor):
    """Another processor that wraps the end of spans."""

    def __init__(self) -> None:
        self.ended: list[int | None] = []

    def on_start(self, span: Span, parent_context: context.Context | None = None) -> None:
        original: Callable[[int | None], None] = span.end

        def end(end_time: int | None = None) -> None:
            self.ended.append(end_time)
            original(end_time)

        vars(span)["end"] = end


def test_another_wrapper_of_the_end_still_works(traced: Any, gate: Any) -> None:
    wraps = _Wraps()
    with_another = type(traced)(wraps)
    with_another.start(OPENAI_SCOPE, "chat", attributes=chat()).end(7)
    assert wraps.ended == [7]
    assert len(gate.booked) == 1


def test_without_a_gate_nothing_is_claimed(traced: Any) -> None:
    install_gate(OpenGate())
    nested(traced, (OTHER_SCOPE, "outer", chat()), (OPENAI_SCOPE, "inner", chat()))
    for name in ("outer", "inner"):
        assert names.ACCOUNTED not in traced.attributes(name)


# -- spans that are none of ours -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "attributes"),
    [
        ("opentelemetry.instrumentation.httpx", {"http.request.method": "POST"}),
        ("myapp", {"a": 1}),
        ("myapp", {}),
        (123, {"a": 1}),  # not a name, and no reason to raise
        (OPENAI_SCOPE, {names.OPERATION: "invoke_agent", names.PROVIDER: "openai"}),
        (OTHER_SCOPE, {"traceloop.span.kind": "workflow"}),
        ("openinference.instrumentation.langchain", {"openinference.span.kind": "CHAIN"}),
    ],
)
def test_spans_that_can_be_no_call_are_left_alone(
    traced: Any, gate: Any, scope: Any, attributes: dict[str, Any]
) -> None:
    span = traced.start(scope, "x", attributes=attributes)
    assert "end" not in vars(span)
    span.end()
    assert gate.booked == []
    assert traced.attributes("x") == attributes


def test_a_call_that_shows_late_is_booked_and_the_next_one_is_told_its_cost(
    traced: Any, gate: Any
) -> None:
    for number in range(2):
        with attribute(tenant="acme"):
            span = traced.start("myapp", "ask")
            span.set_attributes(chat(number + 1))
            span.end()
        traced.start("myapp", "something else").end()
    first, second = (s for s in traced.exporter.get_finished_spans() if s.name == "ask")
    assert [b.usage.units["input_tokens"] for b in gate.booked] == [1, 2]
    assert names.COST_USD not in (first.attributes or {})
    assert (second.attributes or {})[names.COST_USD] == 0.000007
    # Attribution is read at the start or not at all.
    assert [b.call.attribution.tenant for b in gate.booked] == [None, "acme"]


def test_a_late_call_around_another_is_not_booked_again(traced: Any, gate: Any) -> None:
    outer = traced.start("myapp", "outer")
    traced.start(OPENAI_SCOPE, "chat", attributes=chat(), context=set_span_in_context(outer)).end()
    outer.set_attributes(chat())
    outer.end()
    assert len(gate.booked) == 1


# -- bounds ----------------------------------------------------------------------------------------


def test_spans_that_never_end_are_forgotten(
    traced: Any, gate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_INSIDE", 20)
    spans = [traced.start(OPENAI_SCOPE, "chat", attributes=chat()) for _ in range(100)]
    assert len(traced.processor._inside) <= 20
    for span in spans:
        span.end()
    assert len(gate.booked) == 100


def view(scope: str, number: int, *, response_id: str | None = None) -> SeenCall:
    return SeenCall(
        scope,
        "text",
        number * 10,
        number * 10 + 5,
        frozenset({"m"}),
        number,
        1,
        failed=False,
        response_id=response_id,
    )


def test_what_is_seen_is_bounded() -> None:
    seen = SeenCalls(most=10)
    for number in range(100):
        seen.add(view("a", number, response_id=f"id-{number}"))
    assert len(seen._calls) == 10
    assert len(seen._by_key) == 20
    assert not seen.claim(view("b", 5, response_id="id-5"))
    assert seen.claim(view("b", 95, response_id="id-95"))


def test_ids_of_the_provider_decide_where_both_have_one() -> None:
    seen = SeenCalls()
    seen.add(view("a", 1, response_id="msg_1"))
    assert not seen.claim(view("b", 1, response_id="msg_2"))
    gateway = view("litellm", 1, response_id="chatcmpl-made-up")
    gateway.ids_count = False
    assert seen.claim(gateway)


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "same"),
    [(0, 100, True), (30, 100, False), (0, 70, False), (10, 80, True)],
)
def test_without_ids_the_outer_view_lasts_longer(start_ms: int, end_ms: int, same: bool) -> None:
    seen = SeenCalls()
    inner, outer = view("a", 1), view("b", 1)
    inner.start_ns, inner.end_ns = 10_000_000, 80_000_000
    outer.start_ns, outer.end_ns = start_ms * 1_000_000, end_ms * 1_000_000
    seen.add(inner)
    assert seen.claim(outer) is same


def test_the_same_id_at_another_time_is_another_call() -> None:
    seen = SeenCalls()
    seen.add(view("a", 1, response_id="always"))
    assert not seen.claim(view("b", 2, response_id="always"))


def test_readable_spans_are_enough_for_an_end(traced: Any, gate: Any) -> None:
    """`on_end` is called for spans whose start the processor was not there to see."""
    span = traced.start("myapp", "early", attributes={})
    traced.processor.on_end(ReadableSpan("chat", trace.INVALID_SPAN_CONTEXT, attributes=chat()))
    span.end()
    assert len(gate.booked) == 1
