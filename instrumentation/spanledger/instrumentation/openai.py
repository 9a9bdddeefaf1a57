"""OpenAI's SDK, and every provider that people reach through it by another base URL.

What its results state is read in `openai_usage`.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.guard import say_once
from spanledger.api.values import EMPTY, Usage, count
from spanledger.instrumentation.hosts import ask_no_more, host_of, path_of
from spanledger.instrumentation.openai_usage import (
    UNSTATED,
    audio_usage,
    image_usage,
    read_completion,
    read_response,
    speech_usage,
)
from spanledger.instrumentation.pipeline import status_of
from spanledger.instrumentation.request import Reading, Request
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.stainless import Engine, get, input_size, text

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


_CHATS: Final = ("chat", "search")
# They search the web once before each answer, and bill that besides the tokens; no usage states it.
# https://platform.openai.com/docs/guides/tools-web-search?api-mode=chat
_SEARCH_MODELS: Final = ("-search-preview", "-search-api")


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
        if shape == "chat" and _searches(body, model, host.provider):
            shape = "search"
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
            known=speech_usage(body) if shape == "speech" else None,
        )

    def prepare(self, options: Any, request: Request) -> tuple[Any, bool]:
        """Ask for the usage of a chat stream."""
        body = options.json_data
        if request.shape not in _CHATS:
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
            return Reading(image_usage(result))
        if shape == "audio":
            return Reading(audio_usage(result))
        if shape == "responses":
            return read_response(result)
        return read_completion(result, request)

    def stream_reader(self, request: Request, *, asked: bool) -> "_ChatStream | _EventStream":
        return (
            _ChatStream(request, asked=asked) if request.shape in _CHATS else _EventStream(request)
        )


def _searches(body: Mapping[str, Any], model: object, provider: str) -> bool:
    """Whether a chat is one with a web search that nothing states. Other providers' is in what
    they state, or in a price for each call.
    """
    if provider not in ("openai", "azure.ai.openai"):
        return False
    return body.get("web_search_options") is not None or any(
        name in str(model) for name in _SEARCH_MODELS
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
            reading = read_completion(self._stated, self._request)
            if self.complete or all(self._finished.values()) or reading.usage is None:
                return reading
            return reading._replace(usage=reading.usage._replace(estimated=True))
        if self._last is None:
            return Reading(None)
        # A provider sends about one token a chunk; the input is estimated by the gate's rule, bytes
        # / 4.
        sizes = self._request.input_bytes
        units = {"input_tokens": sizes() // 4 if sizes else 0, "output_tokens": self._chunks}
        if self._request.shape == "search":
            units["web_searches"] = 1
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
            self._reading = read_response(response)
            self.complete = True
        elif get(chunk, "usage") is not None:
            self._reading = SDK.read(chunk, self._request)
            self.complete = True
        return True

    def reading(self) -> Reading:
        if self._reading is not None:
            return self._reading
        if not self._deltas or self._request.shape != "responses":
            unstated = self._request.known or UNSTATED
            return Reading(None if self._request.shape == "responses" else unstated)
        sizes = self._request.input_bytes
        units = {"input_tokens": sizes() // 4 if sizes else 0, "output_tokens": self._deltas}
        return Reading(Usage(units, estimated=True))


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
