"""How foreign instrumentations say that a model was called: attributes of a span -> `ForeignCall`.

Whose input count includes cached tokens, as ours does (recorded: tests/processor/spans):

    official semantic conventions (genai-openai, genai-anthropic 1.3b0): includes
    Anthropic's own tracing (anthropic 2.12): includes, though the API's own count does not
    OpenLLMetry (0.40.14 and 0.62.4): includes, for Anthropic as well
    OpenInference (openai 0.1.66, anthropic 3.1.0, langchain 0.1.80): includes, as well
    LiteLLM's callback (1.106.2): includes; states the cached ones in `usage_object` only
    Vercel AI SDK 6 and 7: includes
    Vercel AI SDK 4 and 5: excludes for Anthropic, includes for OpenAI

Spans do not say what was searched, and only Anthropic's own how long a cache entry lives.
"""

import functools
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.values import EMPTY, Usage, count, decimal_amount
from spanledger.processor import dialect_texts as texts
from spanledger.processor import dialect_words as words

Attributes = Mapping[str, AttributeValue]
Dialect = Literal["semconv", "anthropic", "openllmetry", "openinference", "litellm", "vercel"]


class ForeignCall(NamedTuple):
    """A model call that another instrumentation made a span of.

    provider, operation: in the semantic conventions' words.
    model: the one asked for; `usage.model` is the one that served the call.
    usage: without units where the span states none.
    error_type: where the span states one; a span can also have failed without.
    response_id: the provider's id of the response; a gateway may make one up.
    first_chunk_s: seconds to the first chunk of a stream.
    refused: the provider answered with a 4xx status, and does not bill.
    """

    dialect: Dialect
    provider: str
    operation: str
    model: str | None
    usage: Usage
    error_type: str | None = None
    response_id: str | None = None
    first_chunk_s: float | None = None
    refused: bool = False


# -- before a span ends -----------------------------------------------------------------------

ANTHROPIC_SCOPE: Final = "com.anthropic.sdk.python"
_GENAI_SCOPE: Final = re.compile(
    r"^ai$|(?<![a-z])(?:openai|anthropic|litellm|langchain|langgraph|llama_?index|gen_?ai"
    r"|openinference|traceloop|openlit|bedrock|vertexai|google_generativeai|cohere|mistralai"
    r"|groq|ollama|together|replicate|watsonx|sagemaker|haystack|crewai|dspy|smolagents"
    r"|pydantic[-_]ai|agno|strands)(?![a-z])"
)
_OPERATION_KEYS: Final = (names.OPERATION, "llm.request.type", "ai.operationId")
_KIND_KEYS: Final = ("openinference.span.kind", "traceloop.span.kind")
MARKERS: Final = frozenset(
    {
        *_OPERATION_KEYS,
        *_KIND_KEYS,
        names.PROVIDER,
        names.LEGACY_SYSTEM,
        names.REQUEST_MODEL,
    }
)
"""A span with none of these is no GenAI span, or not yet."""


@functools.lru_cache(maxsize=1024)
def is_genai_scope(scope_name: str) -> bool:
    """Whether this is a GenAI instrumentation, whose spans may say what they are only later."""
    return _GENAI_SCOPE.search(scope_name.lower()) is not None


def may_be_paid(attributes: Attributes) -> bool | None:
    """Whether a span that starts with these can be a paid call; None where they do not tell."""
    for key in _OPERATION_KEYS:
        if (value := attributes.get(key)) is not None:
            return (
                words.operation(value) is not None
                or words.VERCEL_OPERATION.fullmatch(str(value)) is not None
            )
    for key in _KIND_KEYS:
        if (value := attributes.get(key)) is not None:
            return value in words.OPENINFERENCE_KINDS
    return None if MARKERS.isdisjoint(attributes) else True


# -- when it ends -----------------------------------------------------------------------------


def read(attributes: Attributes, scope_name: str | None, span_name: str) -> ForeignCall | None:
    """The model call that a span describes; None for every other span.

    attributes: those the span ends with. scope_name: of the instrumentation that made it.
    """
    call = _read(attributes, scope_name, span_name)
    return call if call is None else _with_doubt(call)


def _with_doubt(call: ForeignCall) -> ForeignCall:
    """Cache entries of Anthropic's models cost by how long they live, which most do not say."""
    units = call.usage.units
    if "cache_write_tokens" not in units or not _TTLS.isdisjoint(units):
        return call
    if "claude" not in (call.usage.model or call.model or ""):
        return call
    return call._replace(usage=call.usage._replace(unpriced=("cache_ttl",)))


_TTLS: Final = frozenset({"cache_write_5m_tokens", "cache_write_1h_tokens"})


def _read(attributes: Attributes, scope_name: str | None, span_name: str) -> ForeignCall | None:
    if scope_name == ANTHROPIC_SCOPE:
        return _anthropic(attributes, span_name)
    if "openinference.span.kind" in attributes:
        return _openinference(attributes, scope_name)
    if "ai.operationId" in attributes:
        return _vercel(attributes)
    if scope_name == "litellm" or "litellm.call_id" in attributes:
        return _litellm(attributes)
    if not _OPENLLMETRY_KEYS.isdisjoint(attributes):
        return _openllmetry(attributes)
    return _semconv(attributes)


# One of these is on every span of OpenLLMetry that may be a paid call.
_OPENLLMETRY_KEYS: Final = frozenset(
    {"llm.request.type", "traceloop.workflow.name", "gen_ai.is_streaming"}
)


def _anthropic(attributes: Attributes, span_name: str) -> ForeignCall | None:
    # Its spans of other methods (count_tokens, batches, sessions, ...) state no operation.
    stated = attributes.get(names.OPERATION)
    if stated is None and span_name == "anthropic.messages.create":
        stated = "chat"
    return _of_gen_ai("anthropic", attributes, stated, "anthropic")


def _semconv(attributes: Attributes) -> ForeignCall | None:
    stated = attributes.get(names.OPERATION)
    if (
        stated is None
        and names.REQUEST_MODEL in attributes
        and "gen_ai.agent.name" not in attributes
        and _first_count(attributes, words.GEN_AI["output_tokens"]) is not None
    ):
        stated = "chat"  # the operation was not always required; what has output of its own is one
    return _of_gen_ai("semconv", attributes, stated)


def _openllmetry(attributes: Attributes) -> ForeignCall | None:
    stated = attributes.get(names.OPERATION) or attributes.get("llm.request.type")
    return _of_gen_ai("openllmetry", attributes, stated)


def _litellm(attributes: Attributes) -> ForeignCall | None:
    # With message logging off it states no operation, only its own call type.
    stated = attributes.get(names.OPERATION) or attributes.get("llm.request.type")
    prefix, slash, _ = str(attributes.get("litellm.provider.model", "")).partition("/")
    call = _of_gen_ai("litellm", attributes, stated, prefix if slash else "")
    if call is None:
        return None
    units = texts.litellm_usage(_text(attributes, "metadata.usage_object"))
    return call._replace(usage=call.usage._replace(units=_checked(units))) if units else call


def _of_gen_ai(
    dialect: Dialect, attributes: Attributes, stated_operation: object, provider: str = ""
) -> ForeignCall | None:
    """A call described by `gen_ai.*` attributes. provider: where they state none."""
    operation = words.operation(stated_operation)
    if operation is None:
        return None
    return ForeignCall(
        dialect,
        words.provider(_text(attributes, names.PROVIDER, names.LEGACY_SYSTEM) or provider),
        operation,
        _text(attributes, names.REQUEST_MODEL),
        Usage(
            _checked(_units(attributes, words.GEN_AI)),
            reported_cost=_reported_cost(attributes),
            model=_text(attributes, names.RESPONSE_MODEL),
            price_context=_price_context(attributes),
        ),
        _text(attributes, names.ERROR_TYPE),
        _text(attributes, names.RESPONSE_ID),
        _seconds(attributes.get(names.FIRST_CHUNK_SECONDS)),
        _refused(attributes),
    )


def _openinference(attributes: Attributes, scope_name: str | None) -> ForeignCall | None:
    operation = words.OPENINFERENCE_KINDS.get(str(attributes["openinference.span.kind"]))
    if operation is None:
        return None
    # `llm.provider` is who hosts the model and bills it, `llm.system` whose model it is.
    provider = _text(attributes, "llm.provider", "llm.system")
    if provider is None and scope_name is not None:
        provider = scope_name.rpartition(".")[2]
    served = _text(attributes, "llm.response.model_name", "llm.model_name", "embedding.model_name")
    parameters = _text(attributes, "llm.invocation_parameters", "embedding.invocation_parameters")
    asked = _text(attributes, "llm.request.model_name") or texts.model_parameter(parameters)
    return ForeignCall(
        "openinference",
        words.provider(provider or ""),
        operation,
        asked or served,
        Usage(
            _checked(_units(attributes, words.OPENINFERENCE)),
            model=served,
            price_context=_price_context(attributes),
        ),
        _text(attributes, names.ERROR_TYPE),
        _text(attributes, names.RESPONSE_ID),
        refused=_refused(attributes),
    )


def _vercel(attributes: Attributes) -> ForeignCall | None:
    # `ai.generateText` and its like span several calls (`.doGenerate`) and repeat their usage.
    found = words.VERCEL_OPERATION.fullmatch(str(attributes["ai.operationId"]))
    if found is None:
        return None
    provider = words.provider(_text(attributes, "ai.model.provider", names.LEGACY_SYSTEM) or "")
    units = _units(attributes, words.VERCEL)
    if "ai.usage.inputTokenDetails.noCacheTokens" not in attributes:
        cached = texts.vercel_cached(_text(attributes, "ai.response.providerMetadata"))
        units.update(cached)
        if provider == "anthropic" and "input_tokens" in units:
            units["input_tokens"] += sum(cached.values())
    milliseconds = attributes.get("ai.response.msToFirstChunk")
    return ForeignCall(
        "vercel",
        provider,
        "embeddings" if found["embed"] else "chat",
        _text(attributes, "ai.model.id", names.REQUEST_MODEL),
        Usage(_checked(units), model=_text(attributes, "ai.response.model", names.RESPONSE_MODEL)),
        _text(attributes, names.ERROR_TYPE),
        _text(attributes, "ai.response.id", names.RESPONSE_ID),
        _seconds(milliseconds / 1000) if isinstance(milliseconds, float | int) else None,
        _refused(attributes),
    )


# -- the pieces -------------------------------------------------------------------------------


def _units(attributes: Attributes, table: words.Table) -> dict[str, int]:
    found: dict[str, int] = {}
    for unit, keys in table.items():
        amount = _first_count(attributes, keys)
        if amount is not None:
            found[unit] = amount
    return found


def _checked(units: dict[str, int]) -> Mapping[str, int | Decimal]:
    """`units` as ours; empty where all are 0: nothing was stated then, rather than used.

    Whoever counts less input than cached tokens does not include these: they are added.
    """
    if not any(units.values()):
        return {}
    cached = units.get("cache_read_tokens", 0) + units.get("cache_write_tokens", 0)
    if "input_tokens" in units and units["input_tokens"] < cached:
        units["input_tokens"] += cached
    return {
        unit: amount
        for unit, amount in units.items()
        if amount or unit in ("input_tokens", "output_tokens")
    }


def _first_count(attributes: Attributes, keys: tuple[str, ...]) -> int | None:
    for key in keys:
        if (amount := count(attributes.get(key))) is not None:
            return amount
    return None


def _text(attributes: Attributes, *keys: str) -> str | None:
    for key in keys:
        value = attributes.get(key)
        if isinstance(value, str) and value:
            return value
    return None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, float | int) and 0 <= value < 86_400 else None


def _price_context(attributes: Attributes) -> Mapping[str, str]:
    tier = _text(attributes, *words.SERVICE_TIERS)
    return {"service_tier": tier} if tier else EMPTY


def _reported_cost(attributes: Attributes) -> Decimal | None:
    """USD that the provider stated; what an instrumentation reckoned for itself is not that."""
    if (
        attributes.get(names.COST_SOURCE_SEMCONV) == "provider"
        and attributes.get(names.COST_CURRENCY) == "USD"
    ):
        return decimal_amount(attributes.get(names.COST_AMOUNT))
    return None


def _refused(attributes: Attributes) -> bool:
    status = count(attributes.get("http.response.status_code"))
    if status is not None:
        return 400 <= status < 500
    return words.is_refusal(str(attributes.get(names.ERROR_TYPE, "")))
