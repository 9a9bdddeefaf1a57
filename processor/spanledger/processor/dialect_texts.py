"""What two dialects put into texts instead of attributes: JSON, or a Python dict as it prints.

All of it is read with bounds, and what cannot be read counts as not stated.
"""

import ast
import json
from collections.abc import Mapping
from typing import Any, Final, cast

from spanledger.api.values import count

_LONGEST: Final = 16_384  # characters; what is longer holds more than usage

LITELLM: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "input_tokens": (("prompt_tokens",),),
    "output_tokens": (("completion_tokens",),),
    "cache_read_tokens": (
        ("prompt_tokens_details", "cached_tokens"),
        ("cache_read_input_tokens",),
    ),
    "cache_write_tokens": (
        ("prompt_tokens_details", "cache_creation_tokens"),
        ("cache_creation_input_tokens",),
    ),
    "cache_write_5m_tokens": (
        ("prompt_tokens_details", "cache_creation_token_details", "ephemeral_5m_input_tokens"),
    ),
    "cache_write_1h_tokens": (
        ("prompt_tokens_details", "cache_creation_token_details", "ephemeral_1h_input_tokens"),
    ),
    "input_audio_tokens": (("prompt_tokens_details", "audio_tokens"),),
    "input_image_tokens": (("prompt_tokens_details", "image_tokens"),),
    "output_audio_tokens": (("completion_tokens_details", "audio_tokens"),),
    "output_reasoning_tokens": (("completion_tokens_details", "reasoning_tokens"),),
}
VERCEL_CACHED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "cache_read_tokens": (
        ("anthropic", "usage", "cache_read_input_tokens"),
        ("anthropic", "cacheReadInputTokens"),
        ("openai", "cachedPromptTokens"),
    ),
    "cache_write_tokens": (
        ("anthropic", "usage", "cache_creation_input_tokens"),
        ("anthropic", "cacheCreationInputTokens"),
    ),
}


def litellm_usage(text: str | None) -> dict[str, int]:
    """LiteLLM's `metadata.usage_object`: a Python dict as it prints."""
    if text is None or len(text) > _LONGEST:
        return {}
    try:
        stated: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return _counts(stated, LITELLM)


def vercel_cached(text: str | None) -> dict[str, int]:
    """The cached tokens in the Vercel AI SDK's `ai.response.providerMetadata`, JSON."""
    return _counts(_json(text), VERCEL_CACHED)


def model_parameter(text: str | None) -> str | None:
    """The model among OpenInference's `llm.invocation_parameters`, JSON."""
    model = _at(_json(text), ("model",))
    return model if isinstance(model, str) and model else None


def _json(text: str | None) -> object:
    if text is None or len(text) > _LONGEST:
        return None
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None


def _counts(stated: object, table: Mapping[str, tuple[tuple[str, ...], ...]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for unit, paths in table.items():
        for path in paths:
            amount = count(_at(stated, path))
            if amount is not None:
                found[unit] = amount
                break
    return found


def _at(value: object, path: tuple[str, ...]) -> object:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = cast("dict[str, Any]", value).get(key)
    return value
