"""Anthropic's SDK: messages, beta messages, tool runners, Bedrock, Vertex.

Sources: anthropic 2.12's types (Usage, BetaUsage, BetaIterationsUsage), Anthropic's API reference.
Its `input_tokens` EXCLUDES what was read from and written to the cache, ours includes both.
`iterations[]` of the beta holds tokens that the top level lacks (compaction, advisor), each with
its model.

The SDK makes GenAI spans of its own by default. They are suppressed, because one call has one GenAI
span; where the user switched them on himself, the charge rides on them. That is why the choke point
is `_request`, below their span.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from spanledger.api.guard import swallow
from spanledger.api.values import EMPTY, Usage, count
from spanledger.instrumentation.hosts import path_of
from spanledger.instrumentation.patching import lay
from spanledger.instrumentation.request import Counts, Reading, Request
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.stainless import Engine, get, input_size, text

_PATHS: Final = frozenset({"/v1/messages", "/v1/messages?beta=true"})
_PROVIDERS: Final = {"vertex": "gcp.vertex_ai", "bedrock": "aws.bedrock"}


class _Anthropic:
    module = "anthropic"
    requirement = "anthropic >= 2.0, < 3"
    choke_point = "_request"

    def describe(self, client: Any, options: Any, *, stream: bool) -> Request | None:
        path = options.url
        if path not in _PATHS and path_of(client, path) not in _PATHS:
            return None
        if options.method.lower() != "post":
            return None
        body: Mapping[str, Any] = (
            options.json_data if isinstance(options.json_data, Mapping) else {}
        )
        url = client.base_url
        return Request(
            _provider(client),
            "chat",
            text(body, "model"),
            url.host,
            url.port or (443 if url.scheme == "https" else 80),
            stream=stream or body.get("stream") is True,
            max_output_tokens=count(body.get("max_tokens")),
            input_bytes=input_size(body),
            swappable=type(options.json_data) is dict,
        )

    def prepare(self, options: Any, request: Request) -> tuple[Any, bool]:
        return options, False  # its streams state usage unasked

    def refused(self, client: Any, error: BaseException) -> bool:
        return False

    def read(self, result: Any, request: Request) -> Reading:
        stop = text(result, "stop_reason")
        usage = get(result, "usage")
        model = text(result, "model") or request.model
        return Reading(
            None if usage is None else read_usage(_fields(usage), model),
            text(result, "id"),
            (stop,) if stop else (),
        )

    def stream_reader(self, request: Request, *, asked: bool) -> "_MessageStream":
        return _MessageStream(request)


class _MessageStream:
    """`message_start` states the input, `message_delta` the cumulative rest, `message_stop` ends
    it.
    """

    __slots__ = ("_fields", "_id", "_model", "_stop", "_text_bytes", "complete")

    def __init__(self, request: Request) -> None:
        self.complete = False
        self._fields: dict[str, Any] = {}
        self._id: str | None = None
        self._model = request.model
        self._stop: str | None = None
        self._text_bytes = 0

    def observe(self, chunk: Any) -> bool:
        kind = get(chunk, "type")
        if kind == "content_block_delta":
            if self._stop is None:
                delta = get(chunk, "delta")
                said = get(delta, "text") or get(delta, "thinking") or get(delta, "partial_json")
                self._text_bytes += len(said) if isinstance(said, str) else 0
        elif kind == "message_start":
            message = get(chunk, "message")
            self._id, self._model = text(message, "id"), text(message, "model") or self._model
            self._fields.update(_fields(get(message, "usage")))
        elif kind == "message_delta":
            self._stop = text(get(chunk, "delta"), "stop_reason") or self._stop
            self._fields.update(_fields(get(chunk, "usage")))
        elif kind == "message_stop":
            self.complete = True
        return True

    def reading(self) -> Reading:
        if not self._fields:
            return Reading(None)
        stated = self._stop is not None
        fields = self._fields
        if (
            not stated
        ):  # broken off: the input is stated, the output is what came, at about 4 bytes a token
            fields = {
                **fields,
                "output_tokens": max(
                    self._text_bytes // 4, count(fields.get("output_tokens")) or 0
                ),
            }
        usage = read_usage(fields, self._model)
        if usage is not None and not stated:
            usage = usage._replace(estimated=True)
        return Reading(usage, self._id, (self._stop,) if self._stop else ())


# -- usage
# -------------------------------------------------------------------------------------------------

_FIELDS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation",
    "output_tokens_details",
    "server_tool_use",
    "service_tier",
    "speed",
    "inference_geo",
    "iterations",
)


def _fields(usage: Any) -> dict[str, Any]:
    """What a usage states; what it leaves out does not overwrite what an earlier one stated."""
    return {name: value for name in _FIELDS if (value := get(usage, name)) is not None}


def read_usage(fields: Mapping[str, Any], model: str | None) -> Usage | None:
    """Our usage from the fields of Anthropic's."""
    counts = _counts(fields)
    if not counts.units:
        return None
    context = _price_context(fields)
    parts = _parts(fields.get("iterations"), model, context)
    tools = Counts() if parts else counts  # what the iterations state is not stated twice
    tools.add("web_searches", get(fields.get("server_tool_use"), "web_search_requests"))
    if parts and tools.units:
        parts = (*parts, Usage(tools.units, model=model, price_context=context))
    return Usage(
        _sum(parts) if parts else counts.units,
        model=model,
        price_context=context,
        unpriced=tuple(tools.wrong),
        parts=parts,
    )


def _counts(fields: Any) -> Counts:
    """The tokens that a usage or an iteration states; without units where neither input nor output
    is an amount.
    """
    counts = Counts()
    counts.add("input_tokens", get(fields, "input_tokens"), due=True)
    counts.add("output_tokens", get(fields, "output_tokens"), due=True)
    units = counts.units
    if not units:
        return counts
    creation = get(fields, "cache_creation")
    counts.add("cache_read_tokens", get(fields, "cache_read_input_tokens"))
    counts.add("cache_write_tokens", get(fields, "cache_creation_input_tokens"))
    counts.add("cache_write_5m_tokens", get(creation, "ephemeral_5m_input_tokens"))
    counts.add("cache_write_1h_tokens", get(creation, "ephemeral_1h_input_tokens"))
    thinking = get(get(fields, "output_tokens_details"), "thinking_tokens")
    counts.add("output_reasoning_tokens", thinking)
    by_ttl = units.get("cache_write_5m_tokens", 0) + units.get("cache_write_1h_tokens", 0)
    written = max(units.get("cache_write_tokens", 0), by_ttl)
    if written:
        units["cache_write_tokens"] = written
    if cached := units.get("cache_read_tokens", 0) + written:
        units["input_tokens"] = units.get("input_tokens", 0) + cached
    return counts


def _price_context(fields: Mapping[str, Any]) -> Mapping[str, str]:
    context: dict[str, str] = {}
    tier, speed = fields.get("service_tier"), fields.get("speed")
    if tier == "batch":
        context["processing"] = "batch"
    elif isinstance(tier, str) and tier != "standard":
        context["service_tier"] = tier
    if isinstance(speed, str) and speed != "standard":
        context["speed"] = speed
    return context or EMPTY


def _parts(iterations: Any, model: str | None, context: Mapping[str, str]) -> tuple[Usage, ...]:
    if not isinstance(iterations, list | tuple):
        return ()
    stated = [(iteration, _counts(iteration)) for iteration in iterations]
    if not any(counts.units for _, counts in stated):
        return ()
    return tuple(
        Usage(
            counts.units,
            model=text(iteration, "model") or model,
            price_context=context,
            unpriced=tuple(counts.wrong),
        )
        for iteration, counts in stated
    )


def _sum(parts: Iterable[Usage]) -> dict[str, int | Decimal]:
    total: dict[str, int | Decimal] = {}
    for part in parts:
        for unit, amount in part.units.items():
            total[unit] = total.get(unit, 0) + amount
    return total


def _provider(client: Any) -> str:
    """The client's class says the platform; a subclass of the user's says what its base says."""
    for kind in type(client).__mro__:
        for mark, provider in _PROVIDERS.items():
            if kind.__module__.startswith(f"anthropic.lib.{mark}"):
                return provider
    return "anthropic"


# -- switching it on
# ---------------------------------------------------------------------------------------

SDK: Final = _Anthropic()
_SUPPRESSED: Final = "spanledger_suppressed"


class _AnthropicEngine(Engine):
    def _lay(self, base_client: Any) -> None:
        super()._lay(base_client)
        lay(
            base_client,
            {"BaseClient._set_open_telemetry": self._own_tracing},
            "the SDK's own spans are made, and carry the charges",
        )

    def _own_tracing(
        self, wrapped: Callable[..., None], client: Any, args: Any, kwargs: Any
    ) -> None:
        """Take the client's own tracer away, unless the user asked for it by option or
        environment.
        """
        wrapped(*args, **kwargs)
        if not self.active:
            return
        with swallow("suppressing anthropic's own tracing"):
            option = kwargs.get("open_telemetry", args[0] if args else None)
            asked = os.environ.get("ANTHROPIC_OPEN_TELEMETRY", "").lower() == "true"
            # A copy of a client gets the resolved option of the first, which carries our mark.
            if (option is None and not asked) or (
                isinstance(option, Mapping) and _SUPPRESSED in option
            ):
                client._open_telemetry[_SUPPRESSED] = True  # noqa: SLF001 - there is no public switch
                client._lazy_tracer = None  # noqa: SLF001


_engine: Final = _AnthropicEngine(SDK)


class AnthropicInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Meters every call of the `anthropic` package."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return (SDK.requirement,)

    def _instrument(self, **kwargs: Any) -> None:
        if (provider := kwargs.get("tracer_provider")) is not None:
            use_tracer_provider(provider)
        _engine.patch()

    def _uninstrument(self, **kwargs: Any) -> None:
        _engine.unpatch()
