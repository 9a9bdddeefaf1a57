"""Statements by which the collector reads a GenAI span as `spanledger.processor.dialects` does.

What they learn they note in the span attribute `spanledger.call`: operation, provider, the model
asked for and the one that served the call, service tier, amounts, and what is not exact about them.
They are made from the tables of the dialects.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from spanledger.api import names
from spanledger.cli.collector_ottl import (
    CALL,
    Group,
    attribute,
    call,
    escape,
    first_of,
    literal,
    put,
)
from spanledger.processor import dialect_texts as texts
from spanledger.processor import dialect_words as words
from spanledger.processor.dialects import ANTHROPIC_SCOPE, MARKERS

NOTED: Final = f"{call()} != nil"
_LARGEST: Final = 10**9  # tokens; times their price, in 64 bits
_LONGEST: Final = 16_384  # characters of JSON; what is longer holds more than usage

AMOUNTS: Final[Mapping[str, str]] = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "cache_write_5m_tokens": "cache_write_5m",
    "cache_write_1h_tokens": "cache_write_1h",
    "output_reasoning_tokens": "output_reasoning",
}
"""Unit -> the key of its amount in `spanledger.call`. All others, audio and images, are `other`."""


def reading_groups() -> list[Group]:
    """Note what each GenAI span says of a call, in `spanledger.call`; no other span gets one."""
    markers = (*sorted(MARKERS), "litellm.call_id")
    marked = " or ".join(f"{attribute(name)} != nil" for name in markers)
    return [
        Group(
            "Which instrumentation made the span. What is accounted is left alone.",
            (f"{attribute(names.ACCOUNTED)} == nil and ({marked})",),
            _dialect(),
        ),
        Group(
            "gen_ai.*: the semantic conventions, new and old, OpenLLMetry, LiteLLM, Anthropic.",
            (_is("semconv", "openllmetry", "litellm", "anthropic"),),
            (*_gen_ai(), *_amounts(words.GEN_AI)),
        ),
        Group("LiteLLM has the cached tokens in a text only.", (_is("litellm"),), _litellm()),
        Group("OpenInference.", (_is("openinference"),), _openinference()),
        Group("The Vercel AI SDK, 4 to 6.", (_is("vercel"),), _vercel()),
        Group("What costs nothing is no call.", (NOTED,), _operation()),
        Group("The same words for all of them.", (NOTED,), (*_provider(), *_checked())),
    ]


def _is(*dialects: str) -> str:
    return " or ".join(f"{call('dialect')} == {literal(name)}" for name in dialects)


def _dialect() -> tuple[str, ...]:
    # The last one that is true counts.
    dialects = {
        "openllmetry": ["llm.request.type", "traceloop.workflow.name", "gen_ai.is_streaming"],
        "litellm": ["litellm.call_id"],
        "vercel": ["ai.operationId"],
        "openinference": ["openinference.span.kind"],
    }
    scopes = {"litellm": "litellm", "anthropic": ANTHROPIC_SCOPE}
    tests = {
        name: " or ".join(f"{attribute(key)} != nil" for key in keys)
        for name, keys in dialects.items()
    }
    for name, scope in scopes.items():
        by_scope = f"instrumentation_scope.name == {literal(scope)}"
        tests[name] = f"{tests[name]} or {by_scope}" if name in tests else by_scope
    return (
        put(call(), "{}"),
        put(call("dialect"), literal("semconv")),
        *(put(call("dialect"), literal(name), test) for name, test in tests.items()),
    )


# -- one dialect ------------------------------------------------------------------------------


def _texts(key: str, *attributes: str) -> list[str]:
    """Note the first of these attributes that is a text and not empty."""
    # What is no text is not greater than one.
    return [put(call(key), path, f'{path} > ""') for path in map(attribute, reversed(attributes))]


def _amounts(table: words.Table) -> list[str]:
    return [
        _amount(AMOUNTS.get(unit, "other"), attribute(name))
        for unit, attributes in table.items()
        for name in reversed(attributes)
    ]


def _amount(key: str, path: str, *conditions: str) -> str:
    # Of audio and images it is enough to know that there were some. What is no number is neither.
    least = f"{path} > 0" if key == "other" else f"{path} >= 0"
    return put(
        call(key), f"Int({path})", " and ".join((*conditions, least, f"{path} <= {_LARGEST}"))
    )


def _json_amounts(parsed: str, table: Mapping[str, tuple[tuple[str, ...], ...]]) -> Iterable[str]:
    for unit, paths in table.items():
        for path in reversed(paths):
            parents = [call(parsed, *path[:length]) for length in range(1, len(path))]
            is_map = [f"IsMap({parent})" for parent in parents]
            yield _amount(AMOUNTS.get(unit, "other"), call(parsed, *path), *is_map)


def _parse(key: str, path: str, where: str = "true") -> str:
    looks_right = (
        f'IsString({path}) and Len({path}) <= {_LONGEST} and IsMatch({path}, "(?s)^[{{].*[}}]$")'
    )
    return put(call(key), f"ParseJSON({path})", f"{where} and {looks_right}")


def _gen_ai() -> list[str]:
    operation, output = attribute(names.OPERATION), words.GEN_AI["output_tokens"]
    stated = f"{call('stated')} == nil"
    has_output = " or ".join(f"{attribute(name)} != nil" for name in output)
    looks_like_chat = (
        f'{stated} and {call("dialect")} == "semconv" and {attribute(names.REQUEST_MODEL)} != nil'
        f" and {attribute('gen_ai.agent.name')} == nil and ({has_output})"
    )
    return [
        put(call("stated"), first_of(operation, attribute("llm.request.type"))),
        put(
            call("stated"),
            '"chat"',
            f'{stated} and {_is("anthropic")} and span.name == "anthropic.messages.create"',
        ),
        put(call("stated"), '"chat"', looks_like_chat),
        put(call("provider"), '"anthropic"', _is("anthropic")),
        *_texts("provider", names.PROVIDER, names.LEGACY_SYSTEM),
        *_texts("asked", names.REQUEST_MODEL),
        *_texts("served", names.RESPONSE_MODEL),
        *_texts("tier", *words.SERVICE_TIERS),
        *_texts("response_id", names.RESPONSE_ID),
        put(
            call("reported"),
            attribute(names.COST_AMOUNT),
            f'{attribute(names.COST_SOURCE_SEMCONV)} == "provider"'
            f' and {attribute(names.COST_CURRENCY)} == "USD"'
            f" and {attribute(names.COST_AMOUNT)} >= 0",
        ),
    ]


def _litellm() -> tuple[str, ...]:
    usage, model = attribute("metadata.usage_object"), attribute("litellm.provider.model")
    # A Python dict as it prints; there are no texts in it that hold a quotation mark.
    rewritten = call("usage")
    words_of_python = (
        ("'", '"'),
        (r"\bNone\b", "null"),
        (r"\bTrue\b", "true"),
        (r"\bFalse\b", "false"),
    )
    return (
        put(
            call("provider"),
            f'Split({model}, "/")[0]',
            f'{call("provider")} == nil and IsMatch({model}, "/")',
        ),
        put(rewritten, usage, f"IsString({usage}) and Len({usage}) <= {_LONGEST}"),
        *(
            f"replace_pattern({rewritten}, {literal(old)}, {literal(new)}) where {rewritten} != nil"
            for old, new in words_of_python
        ),
        _parse("parsed", rewritten),
        *_json_amounts("parsed", texts.LITELLM),
    )


def _openinference() -> tuple[str, ...]:
    kind, parsed = attribute("openinference.span.kind"), call("parsed", "model")
    parameters = ("embedding.invocation_parameters", "llm.invocation_parameters")
    return (
        *(
            put(call("stated"), literal(operation), f"{kind} == {literal(name)}")
            for name, operation in words.OPENINFERENCE_KINDS.items()
        ),
        put(call("provider"), "instrumentation_scope.name"),
        f'replace_pattern({call("provider")}, "^.*[.]", "")',
        *_texts("provider", "llm.provider", "llm.system"),
        *_texts("served", "llm.response.model_name", "llm.model_name", "embedding.model_name"),
        *(_parse("parsed", attribute(name)) for name in parameters),
        put(call("asked"), parsed, f'{parsed} > ""'),
        *_texts("asked", "llm.request.model_name"),
        put(call("asked"), call("served"), f"{call('asked')} == nil"),
        *_texts("tier", *words.SERVICE_TIERS),
        *_texts("response_id", names.RESPONSE_ID),
        *_amounts(words.OPENINFERENCE),
    )


def _vercel() -> tuple[str, ...]:
    operation, details = (
        attribute("ai.operationId"),
        attribute("ai.usage.inputTokenDetails.noCacheTokens"),
    )
    chat, embed = (
        "^ai[.](?:generate|stream)(?:Text|Object)[.]do(?:Generate|Stream)$",
        "^ai[.]embed(?:Many)?[.]doEmbed$",
    )
    anthropic = f'IsMatch({call("provider")}, "(?i)^anthropic(?:$|[.])")'
    return (
        put(call("stated"), '"chat"', f"IsMatch({operation}, {literal(chat)})"),
        put(call("stated"), '"embeddings"', f"IsMatch({operation}, {literal(embed)})"),
        *_texts("provider", "ai.model.provider", names.LEGACY_SYSTEM),
        *_texts("asked", "ai.model.id", names.REQUEST_MODEL),
        *_texts("served", "ai.response.model", names.RESPONSE_MODEL),
        *_texts("response_id", "ai.response.id", names.RESPONSE_ID),
        *_amounts(words.VERCEL),
        _parse("parsed", attribute("ai.response.providerMetadata"), f"{details} == nil"),
        *_json_amounts("parsed", texts.VERCEL_CACHED),
        *(
            put(
                call("input"),
                f"{call('input')} + {call(key)}",
                f"{call('parsed')} != nil and {anthropic}"
                f" and {call('input')} != nil and {call(key)} != nil",
            )
            for key in ("cache_read", "cache_write")
        ),
    )


# -- all of them ------------------------------------------------------------------------------


def _operation() -> tuple[str, ...]:
    known = {
        prefix + word: operation
        for prefix in ("", "a")  # LiteLLM puts an "a" before its asynchronous ones
        for word, operation in words.OPERATIONS.items()
    }
    return (
        put('span.cache["operations"]', literal(known)),
        put(
            call("operation"),
            f'span.cache["operations"][{call("stated")}]',
            f"IsString({call('stated')})",
        ),
        f"delete_key(span.attributes, {literal(CALL)}) where {call('operation')} == nil",
    )


def _provider() -> list[str]:
    provider = call("provider")
    renamed = f'span.cache["providers"][{provider}]'
    with_an_api = "^(" + "|".join(map(escape, sorted(words.BEFORE_AN_API))) + ")[.][^.]+$"
    return [
        put('span.cache["providers"]', literal(words.PROVIDERS)),
        put(provider, '""', f"{provider} == nil"),
        put(provider, f'ConvertCase(Trim({provider}), "lower")'),
        f'replace_pattern({provider}, {literal(with_an_api)}, "$1") where {renamed} == nil',
        put(provider, renamed),
        put(provider, '"unknown"', f'{provider} == ""'),
    ]


def _checked() -> list[str]:
    amounts = [call(key) for key in (*AMOUNTS.values(), "other")]
    some_input, read, write = call("input"), call("cache_read"), call("cache_write")
    status, error = attribute("http.response.status_code"), attribute(names.ERROR_TYPE)
    model = first_of(call("served"), call("asked"))
    ttl_unknown = f"{write} > 0 and {call('cache_write_5m')} == 0 and {call('cache_write_1h')} == 0"
    return [
        put(call("used"), "true", " or ".join(f"{amount} > 0" for amount in amounts)),
        *(put(amount, "0", f"{amount} == nil") for amount in amounts if amount != some_input),
        # Whoever counts less input than cached tokens does not include these.
        put(some_input, f"{some_input} + {read} + {write}", f"{some_input} < {read} + {write}"),
        put(some_input, "0", f"{some_input} == nil"),
        put(call("doubt"), '"unpriced:cache_ttl"', f'{ttl_unknown} and IsMatch({model}, "claude")'),
        put(call("refused"), "true", f"{status} >= 400 and {status} < 500"),
        put(
            call("refused"),
            "true",
            f"{status} == nil and IsMatch({error}, {literal(_refusal())})",
        ),
        put(call("model"), model),
    ]


def _refusal() -> str:
    return "^(?:.*[.])?(?:" + "|".join(sorted(words.REFUSALS)) + ")$|^4[0-9][0-9]$"
