"""The words and attribute names of the dialects, as tables."""

import re
from collections.abc import Mapping
from typing import Final

from spanledger.api import names

Table = Mapping[str, tuple[str, ...]]
"""Unit -> the attributes that state it, the likelier first."""

# What is said for an operation that costs money -> the semantic conventions' word. What is not here
# (invoke_agent, execute_tool, retrieval, fetch_response, ...) costs nothing itself.
OPERATIONS: Final[Mapping[str, str]] = {
    "chat": "chat",
    "completion": "chat",
    "responses": "chat",
    "message": "chat",
    "anthropic_messages": "chat",
    "llm_request": "chat",
    "text_completion": "text_completion",
    "generate_content": "generate_content",
    "embeddings": "embeddings",
    "embedding": "embeddings",
    "image_generation": "image_generation",
    "image_edit": "image_generation",
    "transcription": "transcription",
    "speech": "speech",
}
OPENINFERENCE_KINDS: Final[Mapping[str, str]] = {"LLM": "chat", "EMBEDDING": "embeddings"}
VERCEL_OPERATION: Final = re.compile(
    r"ai\.(?:(?:generate|stream)(?:Text|Object)\.do(?:Generate|Stream)"
    r"|(?P<embed>embed(?:Many)?\.doEmbed))"
)

# Names of providers elsewhere -> `gen_ai.provider.name`.
PROVIDERS: Final[Mapping[str, str]] = {
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure-openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "azure_ai": "azure.ai.inference",
    "aws": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "amazon-bedrock": "aws.bedrock",
    "amazon_bedrock": "aws.bedrock",
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google.generative-ai": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "google.vertex": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
    "cohere_chat": "cohere",
    "together_ai": "together",
    "togetherai": "together",
    "fireworks_ai": "fireworks",
    "moonshot": "moonshot_ai",
}
# The Vercel AI SDK adds the API to the provider: openai.chat, google.vertex.chat.
BEFORE_AN_API: Final = frozenset(
    {*PROVIDERS, "openai", "anthropic", "cohere", "groq", "deepseek", "perplexity", "fireworks"}
)

GEN_AI: Final[Table] = {
    "input_tokens": (
        names.INPUT_TOKENS,
        "gen_ai.usage.prompt_tokens",
        "llm.usage.prompt_tokens",
    ),
    "output_tokens": (
        names.OUTPUT_TOKENS,
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
    ),
    "cache_read_tokens": (
        names.CACHE_READ_TOKENS,
        "gen_ai.usage.cache_read_input_tokens",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
    ),
    "cache_write_5m_tokens": ("anthropic.usage.cache_creation.ephemeral_5m_input_tokens",),
    "cache_write_1h_tokens": ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),
    "output_reasoning_tokens": (
        names.REASONING_TOKENS,
        "gen_ai.usage.reasoning_tokens",
        "llm.usage.reasoning_tokens",
    ),
    "input_audio_tokens": ("gen_ai.usage.audio.input_tokens",),
    "input_image_tokens": ("gen_ai.usage.image.input_tokens",),
    "output_audio_tokens": ("gen_ai.usage.audio.output_tokens",),
    "output_image_tokens": ("gen_ai.usage.image.output_tokens",),
    "cache_audio_read_tokens": ("gen_ai.usage.audio.cache_read.input_tokens",),
    "cache_image_read_tokens": ("gen_ai.usage.image.cache_read.input_tokens",),
}
OPENINFERENCE: Final[Table] = {
    "input_tokens": ("llm.token_count.prompt",),
    "output_tokens": ("llm.token_count.completion",),
    "cache_read_tokens": (
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
    ),
    "cache_write_tokens": ("llm.token_count.prompt_details.cache_write",),
    "output_reasoning_tokens": ("llm.token_count.completion_details.reasoning",),
    "input_audio_tokens": ("llm.token_count.prompt_details.audio",),
    "output_audio_tokens": ("llm.token_count.completion_details.audio",),
}
VERCEL: Final[Table] = {
    "input_tokens": (
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
        names.INPUT_TOKENS,
    ),
    "output_tokens": (
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        names.OUTPUT_TOKENS,
    ),
    "cache_read_tokens": (
        "ai.usage.inputTokenDetails.cacheReadTokens",
        "ai.usage.cachedInputTokens",
    ),
    "cache_write_tokens": ("ai.usage.inputTokenDetails.cacheWriteTokens",),
    "output_reasoning_tokens": (
        "ai.usage.outputTokenDetails.reasoningTokens",
        "ai.usage.reasoningTokens",
    ),
}
SERVICE_TIERS: Final = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "anthropic.response.service_tier",
)
# `error.type` of an answer with a 4xx status: the SDKs' exceptions, and the APIs' own words.
REFUSALS: Final = frozenset(
    {
        "BadRequestError",
        "AuthenticationError",
        "PermissionDeniedError",
        "NotFoundError",
        "ConflictError",
        "UnprocessableEntityError",
        "RateLimitError",
        "ContextWindowExceededError",
        "ContentPolicyViolationError",
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "rate_limit_error",
        "billing_error",
    }
)
_REFUSING_STATUS: Final = re.compile("4[0-9][0-9]")


def operation(value: object) -> str | None:
    """The semantic conventions' word for an operation that costs money; None for every other."""
    text = str(value)
    # LiteLLM puts an "a" before its asynchronous ones.
    return OPERATIONS.get(text) or OPERATIONS.get(text.removeprefix("a"))


def provider(value: str) -> str:
    """`gen_ai.provider.name` for what a dialect calls a provider; `unknown` for nothing."""
    text = value.strip().lower()
    if text not in PROVIDERS:
        head, dot, _ = text.rpartition(".")
        if dot and head in BEFORE_AN_API:
            text = head
    return PROVIDERS.get(text, text) or "unknown"


def is_refusal(error_type: str) -> bool:
    """Whether this `error.type` says that the provider answered with a 4xx status."""
    return (
        error_type.rpartition(".")[2] in REFUSALS
        or _REFUSING_STATUS.fullmatch(error_type) is not None
    )
