"""What OpenAI's results state of their usage.

Sources: openai 3.54's types (CompletionUsage, ResponseUsage, ImagesResponse, Transcription),
OpenAI's API reference. `prompt_tokens` and `input_tokens` include cached tokens;
`completion_tokens` includes reasoning.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from spanledger.api.values import EMPTY, Usage, decimal_amount
from spanledger.instrumentation.request import Counts, Reading, Request
from spanledger.instrumentation.stainless import fields, get, text

# Tools that are billed besides the tokens, and whose price no price list has.
_BILLED_TOOLS: Final = frozenset(
    {"file_search_call", "code_interpreter_call", "image_generation_call"}
)
# Something was consumed, and neither its amount nor an honest estimate is known.
UNSTATED: Final = Usage(unpriced=("usage",))


def read_completion(result: Any, request: Request) -> Reading:
    finish: tuple[str, ...] = ()
    choices = get(result, "choices")
    if choices:
        finish = tuple(
            reason for choice in choices if isinstance(reason := get(choice, "finish_reason"), str)
        )
    usage = get(result, "usage")
    return Reading(
        None if usage is None else _completion_usage(usage, result, request),
        text(result, "id"),
        finish,
    )


def _completion_usage(usage: Any, result: Any, request: Request) -> Usage | None:
    counts = _counts(usage, _CHAT_FIELDS, output_due=request.operation != "embeddings")
    if not counts.units:
        return None
    if request.shape == "search":
        counts.add("web_searches", 1)
    # OpenRouter states what it charges in USD: https://openrouter.ai/docs/use-cases/usage-accounting
    cost = decimal_amount(get(usage, "cost")) if request.provider == "openrouter" else None
    return Usage(
        counts.units,
        None,
        cost,
        text(result, "model"),
        _context(get(result, "service_tier")),
        unpriced=tuple(counts.wrong),
    )


def read_response(result: Any) -> Reading:
    identity, status = text(result, "id"), text(result, "status")
    finish = (status,) if status else ()
    usage = get(result, "usage")
    if usage is None:
        # A background response reports when it is done: by then it has cost something, and nobody
        # knows yet what.
        waiting = status in ("queued", "in_progress")
        return Reading(Usage(unpriced=("deferred",)) if waiting else None, identity, finish)
    counts = _counts(usage)
    if not counts.units:
        return Reading(None, identity, finish)
    tools = [get(item, "type") for item in get(result, "output") or ()]
    searches = get(get(get(result, "tool_usage"), "web_search"), "num_requests")
    if searches is None:
        # Without the provider's count of billable searches, its items tell how many were made.
        searches = tools.count("web_search_call")
    counts.add("web_searches", searches)
    served = Usage(
        counts.units,
        None,
        None,
        text(result, "model"),
        _context(get(result, "service_tier")),
        unpriced=(*counts.wrong, *sorted(_BILLED_TOOLS.intersection(tools))),
    )
    return Reading(served, identity, finish)


def image_usage(result: Any) -> Usage:
    usage = get(result, "usage")
    if usage is not None and (counts := _counts(usage)).units:
        units = counts.units
        if "output_image_tokens" not in units and "output_tokens" in units:
            units["output_image_tokens"] = units["output_tokens"]  # without details: all of it
        return Usage(units, model=text(result, "model"), unpriced=tuple(counts.wrong))
    images = get(result, "data")
    return Usage({"images": len(images)}) if images else UNSTATED


def audio_usage(result: Any) -> Usage:
    usage = get(result, "usage")
    if usage is not None and (counts := _counts(usage)).units:
        return Usage(counts.units, unpriced=tuple(counts.wrong))
    seconds = decimal_amount(get(usage, "seconds")) or decimal_amount(get(result, "duration"))
    return (
        Usage({"audio_seconds": seconds, "input_audio_seconds": seconds}) if seconds else UNSTATED
    )


def speech_usage(body: Mapping[str, Any]) -> Usage:
    # OpenAI bills its tts models by the characters of the input; the result is sound and states
    # nothing.
    spoken = text(body, "input")
    return Usage({"input_characters": len(spoken)}) if spoken else UNSTATED


_FIELDS: Final = (
    "input_tokens",
    "output_tokens",
    "input_tokens_details",
    "output_tokens_details",
)
_CHAT_FIELDS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
)
_INPUT_DETAILS: Final = (
    ("cached_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("audio_tokens", "input_audio_tokens"),
    ("image_tokens", "input_image_tokens"),
)
_OUTPUT_DETAILS: Final = (
    ("reasoning_tokens", "output_reasoning_tokens"),
    ("audio_tokens", "output_audio_tokens"),
    ("image_tokens", "output_image_tokens"),
)


def _counts(
    usage: Any, named: tuple[str, str, str, str] = _FIELDS, *, output_due: bool = True
) -> Counts:
    """The tokens that `usage` states; without units where neither input nor output is an amount."""
    stated, counts = fields(usage), Counts()
    consumed, made, consumed_details, made_details = named
    counts.add("input_tokens", stated.get(consumed), due=True)
    counts.add("output_tokens", stated.get(made), due=output_due)
    if not counts.units:
        return counts
    # Transcriptions call it `input_token_details`.
    details = stated.get(consumed_details) or stated.get("input_token_details")
    if details is not None:
        _add_details(counts, details, _INPUT_DETAILS)
    if (details := stated.get(made_details)) is not None:
        _add_details(counts, details, _OUTPUT_DETAILS)
    return counts


def _add_details(counts: Counts, details: Any, units: Iterable[tuple[str, str]]) -> None:
    stated = fields(details)
    for name, unit in units:
        counts.add(unit, stated.get(name))


def _context(service_tier: object) -> Mapping[str, str]:
    return (
        {"service_tier": service_tier} if isinstance(service_tier, str) and service_tier else EMPTY
    )
