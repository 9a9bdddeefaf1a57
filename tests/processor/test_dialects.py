"""Each dialect by spans recorded from the real instrumentation, then by hand for what was not recorded."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.api import names
from spanledger.processor.dialects import ForeignCall, is_genai_scope, may_be_paid, read

SPANS = Path(__file__).parent / "spans"

# What the loopback server said, in our words (see "source" in each file).
CHAT = {"input_tokens": 1000, "output_tokens": 200, "cache_read_tokens": 400}
REASONED = {**CHAT, "output_reasoning_tokens": 50}
MESSAGE = {
    "input_tokens": 800,
    "output_tokens": 200,
    "cache_read_tokens": 400,
    "cache_write_tokens": 100,
}
LONGER_MESSAGE = {**MESSAGE, "output_tokens": 201}
BY_TTL = {"cache_write_5m_tokens": 60, "cache_write_1h_tokens": 40}
MINI, MINI_SERVED = "gpt-4o-mini", "gpt-4o-mini-2024-07-18"
SONNET, SONNET_SERVED = "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"
SMALL = "text-embedding-3-small"


def recorded(file: str, label: str) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = json.loads((SPANS / file).read_text())["spans"][label]
    return spans


def calls(file: str, label: str) -> list[ForeignCall]:
    found = (read(s["attributes"], s["scope"], s["name"]) for s in recorded(file, label))
    return [call for call in found if call is not None]


OPENAI = ("openai", "chat", MINI, MINI_SERVED)
ANTHROPIC = ("anthropic", "chat", SONNET, SONNET_SERVED)
EMBEDDED = ("openai", "embeddings", SMALL, SMALL)


@pytest.mark.parametrize(
    ("file", "label", "who", "units"),
    [
        ("anthropic.json", "messages", ANTHROPIC, {**MESSAGE, **BY_TTL}),
        ("anthropic.json", "stream", ANTHROPIC, {**MESSAGE, **BY_TTL}),
        ("openllmetry.json", "openai_chat", OPENAI, REASONED),
        ("openllmetry.json", "openai_chat_stream", OPENAI, CHAT),
        ("openllmetry.json", "openai_responses", OPENAI, REASONED),
        ("openllmetry.json", "openai_embeddings", EMBEDDED, {"input_tokens": 12}),
        ("openllmetry.json", "anthropic_messages", ANTHROPIC, MESSAGE),
        # Its own mistake: it adds message_start's one output token to message_delta's 200.
        ("openllmetry.json", "anthropic_stream", ANTHROPIC, LONGER_MESSAGE),
        ("openllmetry.json", "langchain_openai", OPENAI, CHAT),
        ("openllmetry_old.json", "openai_chat", OPENAI, CHAT),
        ("openllmetry_old.json", "openai_chat_stream", OPENAI, {}),  # it states no usage
        ("openllmetry_old.json", "openai_embeddings", EMBEDDED, {"input_tokens": 12}),
        ("openllmetry_old.json", "anthropic_messages", ANTHROPIC, MESSAGE),
        ("openinference.json", "openai_chat", OPENAI, REASONED),
        ("openinference.json", "openai_chat_stream", OPENAI, REASONED),
        ("openinference.json", "openai_responses", OPENAI, REASONED),
        ("openinference.json", "openai_embeddings", EMBEDDED, {"input_tokens": 12}),
        ("openinference.json", "anthropic_messages", ANTHROPIC, MESSAGE),
        ("openinference.json", "anthropic_stream", ANTHROPIC, MESSAGE),
        ("openinference.json", "langchain_openai", OPENAI, REASONED),
        ("litellm.json", "openai_chat", OPENAI, REASONED),
        ("litellm.json", "openai_stream", ("openai", "chat", MINI, MINI), REASONED),
        ("litellm.json", "anthropic", ANTHROPIC, {**MESSAGE, **BY_TTL}),
        ("litellm.json", "embed", EMBEDDED, {"input_tokens": 12, "output_tokens": 0}),
        ("vercel_7.json", "generate_text", OPENAI, CHAT),
        ("vercel_7.json", "anthropic_generate_text", ANTHROPIC, MESSAGE),
        ("vercel_6.json", "generate_text", OPENAI, REASONED),
        ("vercel_6.json", "stream_text", OPENAI, REASONED),
        ("vercel_6.json", "anthropic_generate_text", ANTHROPIC, MESSAGE),
        ("vercel_6.json", "embed", ("openai", "embeddings", SMALL, None), {"input_tokens": 12}),
        # Version 5 states cached tokens of OpenAI's for streams only.
        (
            "vercel_5.json",
            "generate_text",
            OPENAI,
            {"input_tokens": 1000, "output_tokens": 200},
        ),
        ("vercel_5.json", "stream_text", OPENAI, REASONED),
        ("vercel_5.json", "anthropic_generate_text", ANTHROPIC, MESSAGE),
        ("vercel_4.json", "generate_text", OPENAI, CHAT),
        ("vercel_4.json", "stream_text", OPENAI, {}),  # it states null
        ("vercel_4.json", "anthropic_generate_text", ANTHROPIC, MESSAGE),
    ],
)
def test_recorded_call(
    file: str, label: str, who: tuple[str, str, str, str | None], units: dict[str, int]
) -> None:
    (call,) = calls(file, label)
    assert (call.provider, call.operation, call.model, call.usage.model) == who
    assert dict(call.usage.units) == units
    assert call.error_type is None
    assert not call.refused
    assert call.usage.reported_cost is None
    # Only two say how long Anthropic's cache entries live, by which they cost.
    assert call.usage.unpriced == (("cache_ttl",) if units in (MESSAGE, LONGER_MESSAGE) else ())


@pytest.mark.parametrize(
    ("file", "label", "dialect", "refused"),
    [
        ("anthropic.json", "error", "anthropic", True),
        ("openllmetry.json", "openai_error", "openllmetry", True),
        ("openllmetry_old.json", "openai_error", "openllmetry", False),  # no word of why
        ("openinference.json", "openai_error", "openinference", False),
        ("litellm.json", "error", "litellm", True),
        ("vercel_7.json", "error", "semconv", True),
        ("vercel_6.json", "error", "vercel", False),
    ],
)
def test_recorded_failure(file: str, label: str, dialect: str, refused: bool) -> None:
    (call,) = calls(file, label)
    assert (call.dialect, call.model) == (dialect, "broken")
    assert call.provider in ("openai", "anthropic")
    assert dict(call.usage.units) == {}
    assert call.refused is refused


def test_tokens_counted_for_free_are_no_call() -> None:
    assert calls("anthropic.json", "count_tokens") == []


def test_chains_agents_and_tasks_are_no_calls() -> None:
    names_read = {
        (span["name"], read(span["attributes"], span["scope"], span["name"]) is not None)
        for file in ("openllmetry.json", "openinference.json")
        for span in recorded(file, "langchain_openai")
    }
    assert names_read == {
        ("execute_task ChatPromptTemplate", False),
        ("ChatOpenAI.chat", True),
        ("RunnableSequence.workflow", False),
        ("ChatPromptTemplate", False),
        ("ChatOpenAI", True),
        ("RunnableSequence", False),
    }


def test_response_ids_service_tiers_and_first_chunks() -> None:
    (chat,) = calls("openllmetry.json", "openai_chat")
    assert (chat.response_id, dict(chat.usage.price_context)) == (
        "chatcmpl-1",
        {"service_tier": "default"},
    )
    (stream,) = calls("anthropic.json", "stream")
    assert stream.response_id == "msg_1"
    assert dict(stream.usage.price_context) == {"service_tier": "standard"}
    assert (
        stream.first_chunk_s
        == recorded("anthropic.json", "stream")[0]["attributes"][
            "gen_ai.response.time_to_first_chunk"
        ]
    )
    (vercel,) = calls("vercel_6.json", "stream_text")
    attributes = recorded("vercel_6.json", "stream_text")[0]["attributes"]
    assert vercel.first_chunk_s == attributes["ai.response.msToFirstChunk"] / 1000


def test_every_recorded_span_of_a_call_may_be_one_at_its_start() -> None:
    for file in SPANS.glob("*.json"):
        for label in json.loads(file.read_text())["spans"]:
            for span in recorded(file.name, label):
                if read(span["attributes"], span["scope"], span["name"]) is not None:
                    told = may_be_paid(span["at_start"])
                    assert told or (told is None and is_genai_scope(span["scope"])), span


def test_cache_entries_of_other_models_cost_the_same_however_long_they_live() -> None:
    (span,) = recorded("openllmetry.json", "openai_chat")
    attributes = {**span["attributes"], "gen_ai.usage.cache_write.input_tokens": 50}
    assert one(attributes).usage.unpriced == ()


# -- what was not recorded -------------------------------------------------------------------------

SEMCONV: dict[str, Any] = {
    names.OPERATION: "chat",
    names.PROVIDER: "openai",
    names.REQUEST_MODEL: MINI,
    names.INPUT_TOKENS: 10,
    names.OUTPUT_TOKENS: 5,
}


def one(attributes: dict[str, Any], scope: str | None = "some.instrumentation") -> ForeignCall:
    call = read(attributes, scope, "chat")
    assert call is not None
    return call


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("text_completion", "text_completion"),
        ("generate_content", "generate_content"),
        ("embeddings", "embeddings"),
        ("invoke_agent", None),
        ("create_agent", None),
        ("execute_tool", None),
        ("invoke_workflow", None),
        ("retrieval", None),
        ("fetch_response", None),  # tokens on it are those of the first generation
        ("agent_step", None),
        ("made up", None),
    ],
)
def test_operations_of_the_semantic_conventions(operation: str, expected: str | None) -> None:
    call = read({**SEMCONV, names.OPERATION: operation}, None, operation)
    assert (call.operation if call else None) == expected
    assert may_be_paid({names.OPERATION: operation}) is (expected is not None)


def test_the_old_name_of_the_provider() -> None:
    attributes = {k: v for k, v in SEMCONV.items() if k != names.PROVIDER}
    assert one({**attributes, "gen_ai.system": "vertex_ai"}).provider == "gcp.vertex_ai"
    assert one(attributes).provider == "unknown"


def test_a_span_older_than_the_operation_name() -> None:
    old = {
        "gen_ai.system": "openai",
        names.REQUEST_MODEL: MINI,
        "gen_ai.usage.completion_tokens": 5,
    }
    assert one(old).operation == "chat"
    assert read({**old, "gen_ai.agent.name": "planner"}, None, "plan") is None
    assert read({names.REQUEST_MODEL: MINI, "gen_ai.system": "openai"}, None, "load") is None


def test_modalities() -> None:
    call = one(
        {
            **SEMCONV,
            "gen_ai.usage.audio.input_tokens": 3,
            "gen_ai.usage.image.output_tokens": 4,
            "gen_ai.usage.audio.cache_read.input_tokens": 0,
        }
    )
    assert dict(call.usage.units) == {
        "input_tokens": 10,
        "output_tokens": 5,
        "input_audio_tokens": 3,
        "output_image_tokens": 4,
    }


def test_a_count_that_excludes_cached_tokens_shows_and_is_made_whole() -> None:
    call = one({**SEMCONV, "gen_ai.usage.cache_read.input_tokens": 400})
    assert call.usage.units["input_tokens"] == 410


@pytest.mark.parametrize(
    ("source", "currency", "expected"),
    [
        ("provider", "USD", Decimal("0.0123")),
        ("local", "USD", None),
        ("provider", "EUR", None),
        (None, None, None),
    ],
)
def test_only_a_cost_in_dollars_that_the_provider_stated_counts(
    source: str | None, currency: str | None, expected: Decimal | None
) -> None:
    stated: dict[str, Any] = {
        "gen_ai.usage.cost.amount": 0.0123,
        "gen_ai.usage.cost.source": source,
        "gen_ai.usage.cost.currency": currency,
    }
    assert one({**SEMCONV, **stated}).usage.reported_cost == expected


@pytest.mark.parametrize("bad", [-1, True, "12", 1e20, float("nan"), None, [1]])
def test_bad_counts_are_not_stated(bad: object) -> None:
    call = one({**SEMCONV, names.INPUT_TOKENS: bad, names.OUTPUT_TOKENS: bad})
    assert dict(call.usage.units) == {}


def test_zero_tokens_in_and_out_state_nothing() -> None:
    call = one({**SEMCONV, names.INPUT_TOKENS: 0, names.OUTPUT_TOKENS: 0})
    assert dict(call.usage.units) == {}


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        ({"error.type": "429"}, True),
        ({"error.type": "openai.RateLimitError"}, True),
        ({"error.type": "invalid_request_error"}, True),
        ({"error.type": "500"}, False),
        ({"error.type": "APITimeoutError"}, False),
        ({"error.type": "timeout", "http.response.status_code": 404}, True),
        ({"error.type": "RateLimitError", "http.response.status_code": 503}, False),
    ],
)
def test_what_counts_as_refused(error: dict[str, Any], refused: bool) -> None:
    assert one({**SEMCONV, **error}).refused is refused


def test_anthropic_through_a_cloud() -> None:
    (span,) = recorded("anthropic.json", "messages")
    attributes = {**span["attributes"], names.PROVIDER: "aws.bedrock"}
    assert one(attributes, span["scope"]).provider == "aws.bedrock"


def test_anthropics_own_span_without_an_operation_is_known_by_its_name() -> None:
    (span,) = recorded("anthropic.json", "messages")
    attributes = {k: v for k, v in span["attributes"].items() if k != names.OPERATION}
    call = read(attributes, span["scope"], "anthropic.messages.create")
    assert call is not None
    assert call.operation == "chat"
    assert read(attributes, span["scope"], "anthropic.messages.batches.create") is None


def test_litellm_with_message_logging_off() -> None:
    (span, _) = recorded("litellm.json", "openai_chat")
    attributes = {k: v for k, v in span["attributes"].items() if k != names.OPERATION}
    call = read({**attributes, "llm.request.type": "acompletion"}, "litellm", "litellm_request")
    assert call is not None
    assert (call.operation, dict(call.usage.units)) == ("chat", REASONED)


@pytest.mark.parametrize("text", ["", "{'prompt_tokens': ", "__import__('os')", "[" * 9000, "1"])
def test_litellm_usage_that_cannot_be_read_leaves_the_attributes(text: str) -> None:
    (span, _) = recorded("litellm.json", "openai_chat")
    call = one({**span["attributes"], "metadata.usage_object": text}, "litellm")
    assert dict(call.usage.units) == {"input_tokens": 1000, "output_tokens": 200}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"anthropic": 1}', '{"openai": {}}', "9" * 99999])
def test_vercel_metadata_that_cannot_be_read_states_no_cached_tokens(text: str) -> None:
    span = recorded("vercel_4.json", "anthropic_generate_text")[0]
    call = one({**span["attributes"], "ai.response.providerMetadata": text}, "ai")
    assert dict(call.usage.units) == {"input_tokens": 300, "output_tokens": 200}


@pytest.mark.parametrize(
    ("said", "provider"),
    [
        ("OpenAI", "openai"),
        ("google.vertex.chat", "gcp.vertex_ai"),
        ("google.generative-ai", "gcp.gemini"),
        ("azure-openai.chat", "azure.ai.openai"),
        ("az.ai.openai", "azure.ai.openai"),
        ("AWS", "aws.bedrock"),
        ("anthropic.messages", "anthropic"),
        ("some.other", "some.other"),
        ("aws.bedrock", "aws.bedrock"),
        (" ", "unknown"),
    ],
)
def test_names_of_providers(said: str, provider: str) -> None:
    assert one({**SEMCONV, names.PROVIDER: said}).provider == provider


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("opentelemetry.instrumentation.openai.v1", True),
        ("opentelemetry.instrumentation.openai_v2", True),
        ("opentelemetry.instrumentation.genai.anthropic", True),
        ("opentelemetry.instrumentation.google_genai", True),
        ("opentelemetry.instrumentation.botocore.bedrock-runtime", True),
        ("openinference.instrumentation.langchain", True),
        ("com.anthropic.sdk.python", True),
        ("litellm", True),
        ("ai", True),
        ("opentelemetry.instrumentation.httpx", False),
        ("opentelemetry.instrumentation.botocore", False),
        ("myapp.email", False),
        ("together_we_build", True),  # a false alarm costs a look at the span, no more
        ("altogether", False),
    ],
)
def test_scopes_of_genai_instrumentations(scope: str, expected: bool) -> None:
    assert is_genai_scope(scope) is expected


_ATTRIBUTE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_KEYS = sorted(
    {
        key
        for file in SPANS.glob("*.json")
        for spans in json.loads(file.read_text())["spans"].values()
        for span in spans
        for key in span["attributes"]
    }
)


@given(
    attributes=st.dictionaries(st.sampled_from(_KEYS), _ATTRIBUTE, max_size=12),
    scope=st.sampled_from([None, "", "litellm", "com.anthropic.sdk.python", "ai", "x"]),
)
def test_no_span_makes_the_reader_raise_or_count_below_zero(
    attributes: dict[str, Any], scope: str | None
) -> None:
    may_be_paid(attributes)
    call = read(attributes, scope, "chat")
    if call is not None:
        assert all(amount >= 0 for amount in call.usage.units.values())
        cached = call.usage.units.get("cache_read_tokens", 0)
        assert call.usage.units.get("input_tokens", cached) >= cached
