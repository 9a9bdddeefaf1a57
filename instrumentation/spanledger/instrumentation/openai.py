"""OpenAI's SDK, and every provider that people reach through it by another base URL.

Sources: openai 3.54's types (CompletionUsage, ResponseUsage, ImagesResponse, Transcription),
OpenAI's API reference. `prompt_tokens` and `input_tokens` include cached tokens;
`completion_tokens` includes reasoning.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.guard import say_once
from spanledger.api.values import EMPTY, Usage, count, decimal_amount
from spanledger.instrumentation.hosts import ask_no_more, host_of, path_of
from spanledger.instrumentation.pipeline import status_of
from spanledger.instrumentation.request import Counts, Reading, Request
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.stainless import Engine, fields, get, input_size, text

# Path -> (operation, shape of the result). What is not here costs nothing itself, or is a job that
# reports later.
_PATHS: Final[Mapping[str, tuple[str, str]]] = {
    "/chat/completions": ("chat", "chat"),
    "/responses": ("chat", "responses"),
    "/responses/compact": ("chat", "responses"),
    "/decisions": ("decision", "responses"),
    "/completions": ("text_completion", "chat"),
    "/embeddings": ("embeddings", "chat"),
    "/images/generations": ("image_generation", "images"),
    "/images/edits": ("image_generation", "images"),
    "/images/variations": ("image_generation", "images"),
    "/audio/transcriptions": ("transcription", "audio"),
    "/audio/translations": ("translation", "audio"),
    "/audio/speech": ("speech", "speech"),
}
_TEXT_DELTAS: Final = frozenset(
    {
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.mcp_call_arguments.delta",
        "response.code_interpreter_call_code.delta",
        "response.shell_call_command.delta",
    }
)


class _OpenAI:
    module = "openai"
    requirement = "openai >= 3.0, < 4"
    choke_point = "request"

    def describe(self, client: Any, options: Any, *, stream: bool) -> Request | None:
        url = options.url
        # With "?beta=true" of the beta namespace, or as a bare `client.post` may have it.
        found = _PATHS.get(url) or _PATHS.get(path_of(client, url))
        if found is None or options.method.lower() != "post":
            return None
        operation, shape = found
        body = options.json_data
        if type(body) is not dict:
            body = {}
        extra: Mapping[str, Any] = options.extra_json or EMPTY
        host = host_of(client)
        model = host.deployment or extra.get("model") or body.get("model")
        limit = count(
            body.get("max_completion_tokens")
            or body.get("max_output_tokens")
            or body.get("max_tokens")
        )
        attributes: dict[str, AttributeValue] = {}
        temperature = body.get("temperature")
        if type(temperature) in (float, int):
            attributes[names.REQUEST_TEMPERATURE] = temperature
        return Request(
            host.provider,
            operation,
            model if isinstance(model, str) else None,
            host.address,
            host.port,
            stream=stream or body.get("stream") is True,
            max_output_tokens=limit,
            input_bytes=input_size(body),
            attributes=attributes,
            shape=shape,
            ask_usage=host.ask_usage,
            swappable=type(options.json_data) is dict and host.deployment is None,
            known=_speech_usage(body) if shape == "speech" else None,
        )

    def prepare(self, options: Any, request: Request) -> tuple[Any, bool]:
        """Ask for the usage of a chat stream."""
        body = options.json_data
        if request.shape != "chat":
            return options, False
        wanted = body.get("stream_options")
        wanted = wanted if isinstance(wanted, Mapping) else {}
        if wanted.get("include_usage") is True or not request.ask_usage:
            return options, False
        asked = {**body, "stream_options": {**wanted, "include_usage": True}}
        return options.model_copy(update={"json_data": asked}), True

    def refused(self, client: Any, error: BaseException) -> bool:
        """Whether the provider refuses `stream_options`; it is then asked for usage no more."""
        if status_of(error) not in (400, 422) or "stream_options" not in str(error):
            return False
        address = ask_no_more(client)
        say_once(
            "stream usage",
            address,
            "%s refuses stream_options: usage of its streams is estimated. Set ask_usage = false "
            "for it under [providers], and its first stream is not sent twice",
            address,
        )
        return True

    def read(self, result: Any, request: Request) -> Reading:
        shape = request.shape
        if shape == "speech":
            return Reading(request.known)
        if shape == "images":
            return Reading(_image_usage(result))
        if shape == "audio":
            return Reading(_audio_usage(result))
        if shape == "responses":
            return _read_response(result)
        return _read_completion(result, request)

    def stream_reader(self, request: Request, *, asked: bool) -> "_ChatStream | _EventStream":
        return (
            _ChatStream(request, asked=asked) if request.shape == "chat" else _EventStream(request)
        )


class _ChatStream:
    """Chat chunks: the last one, or one without choices, carries the usage."""

    __slots__ = ("_asked", "_chunks", "_finished", "_last", "_request", "_stated", "complete")

    def __init__(self, request: Request, *, asked: bool) -> None:
        self.complete = False
        self._request = request
        self._asked = asked
        self._chunks = 0
        self._last: Any = None
        self._stated: Any = None
        self._finished: dict[Any, bool] = {}

    def observe(self, chunk: Any) -> bool:
        self._chunks += 1
        self._last = chunk
        if get(chunk, "usage") is None:
            return True
        self._stated = chunk
        choices = get(chunk, "choices")
        if not choices:
            self.complete = True
            return not self._asked
        # Some providers repeat a growing usage on every chunk: it is all when every choice is over.
        for choice in choices:
            self._finished[get(choice, "index")] = get(choice, "finish_reason") is not None
        return True

    def reading(self) -> Reading:
        if self._stated is not None:
            reading = _read_completion(self._stated, self._request)
            if self.complete or all(self._finished.values()) or reading.usage is None:
                return reading
            return reading._replace(usage=reading.usage._replace(estimated=True))
        if self._last is None:
            return Reading(None)
        # A provider sends about one token a chunk; the input is estimated by the gate's rule, bytes
        # / 4.
        sizes = self._request.input_bytes
        units = {"input_tokens": sizes() // 4 if sizes else 0, "output_tokens": self._chunks}
        return Reading(
            Usage(units, model=text(self._last, "model"), estimated=True), text(self._last, "id")
        )


class _EventStream:
    """Events of responses, images and transcriptions: one that ends it carries the whole result
    or its usage.
    """

    __slots__ = ("_deltas", "_reading", "_request", "complete")

    def __init__(self, request: Request) -> None:
        self.complete = False
        self._request = request
        self._deltas = 0
        self._reading: Reading | None = None

    def observe(self, chunk: Any) -> bool:
        kind = get(chunk, "type")
        if kind in _TEXT_DELTAS:
            self._deltas += 1
        elif (response := get(chunk, "response")) is not None and get(
            response, "usage"
        ) is not None:
            self._reading = _read_response(response)
            self.complete = True
        elif get(chunk, "usage") is not None:
            self._reading = SDK.read(chunk, self._request)
            self.complete = True
        return True

    def reading(self) -> Reading:
        if self._reading is not None:
            return self._reading
        if not self._deltas or self._request.shape != "responses":
            unstated = self._request.known or _UNSTATED
            return Reading(None if self._request.shape == "responses" else unstated)
        sizes = self._request.input_bytes
        units = {"input_tokens": sizes() // 4 if sizes else 0, "output_tokens": self._deltas}
        return Reading(Usage(units, estimated=True))


# -- usage
# -------------------------------------------------------------------------------------------------

# Tools that are billed besides the tokens, and whose price no price list has.
_BILLED_TOOLS: Final = frozenset(
    {"file_search_call", "code_interpreter_call", "image_generation_call"}
)
# Something was consumed, and neither its amount nor an honest estimate is known.
_UNSTATED: Final = Usage(unpriced=("usage",))


def _read_completion(result: Any, request: Request) -> Reading:
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


def _read_response(result: Any) -> Reading:
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


def _image_usage(result: Any) -> Usage:
    usage = get(result, "usage")
    if usage is not None and (counts := _counts(usage)).units:
        units = counts.units
        if "output_image_tokens" not in units and "output_tokens" in units:
            units["output_image_tokens"] = units["output_tokens"]  # without details: all of it
        return Usage(units, model=text(result, "model"), unpriced=tuple(counts.wrong))
    images = get(result, "data")
    return Usage({"images": len(images)}) if images else _UNSTATED


def _audio_usage(result: Any) -> Usage:
    usage = get(result, "usage")
    if usage is not None and (counts := _counts(usage)).units:
        return Usage(counts.units, unpriced=tuple(counts.wrong))
    seconds = decimal_amount(get(usage, "seconds")) or decimal_amount(get(result, "duration"))
    return (
        Usage({"audio_seconds": seconds, "input_audio_seconds": seconds}) if seconds else _UNSTATED
    )


def _speech_usage(body: Mapping[str, Any]) -> Usage:
    # OpenAI bills its tts models by the characters of the input; the result is sound and states
    # nothing.
    spoken = text(body, "input")
    return Usage({"input_characters": len(spoken)}) if spoken else _UNSTATED


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


# -- switching it on
# ---------------------------------------------------------------------------------------

SDK: Final = _OpenAI()
_engine: Final = Engine(SDK)


class OpenAIInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Meters every call of the `openai` package."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return (SDK.requirement,)

    def _instrument(self, **kwargs: Any) -> None:
        if (provider := kwargs.get("tracer_provider")) is not None:
            use_tracer_provider(provider)
        _engine.patch()

    def _uninstrument(self, **kwargs: Any) -> None:
        _engine.unpatch()
