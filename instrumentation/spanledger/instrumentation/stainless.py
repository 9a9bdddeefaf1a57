"""The engine for SDKs that Stainless generates (openai, anthropic): one choke point each, sync and
async.

Every call of such an SDK passes `_base_client.SyncAPIClient` or `AsyncAPIClient`, retries inside;
every decoded stream passes `Stream.__stream__`. A provider file says how to describe a request and
how to read a result; see `StainlessSDK`.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol, cast

from opentelemetry import context

from spanledger.api.attribution import without_attribution
from spanledger.api.guard import swallow
from spanledger.api.values import EMPTY, ModelSwap
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.patching import Wrapper, lay, say_unsupported, when_supported
from spanledger.instrumentation.pipeline import Flow, paid_call, run, run_async, start, unbilled
from spanledger.instrumentation.request import NOTHING_READ, Reading, Request
from spanledger.instrumentation.streams import (
    LiveStream,
    StreamReader,
    attach,
    relay,
    relay_async,
)

RAW_RESPONSE_HEADER: Final = "X-Stainless-Raw-Response"


class StainlessSDK(Protocol):
    """What a provider file says.

    module: the SDK's import name.
    requirement: the SDK's name and the versions that are patched.
    choke_point: the method of its two API clients that every call passes.
    """

    module: str
    requirement: str
    choke_point: str

    def describe(self, client: Any, options: Any, *, stream: bool) -> Request | None:
        """The request, or None where the call costs nothing."""
        ...

    def prepare(self, options: Any, request: Request) -> tuple[Any, bool]:
        """The options to send for a stream that the SDK decodes, and whether usage was asked for
        that the user did not ask for.
        """
        ...

    def refused(self, client: Any, error: BaseException) -> bool:
        """Whether `error` is about what `prepare` added: the call is then made without it."""
        ...

    def read(self, result: Any, request: Request) -> Reading:
        """Read a whole result: a model of the SDK's, or the JSON of a raw one."""
        ...

    def stream_reader(self, request: Request, *, asked: bool) -> StreamReader:
        """A reader for the chunks of one stream."""
        ...


class _Given(NamedTuple):
    """The arguments of a choke point, as they came.

    options: those of the request; None where they are not where they always were.
    unasked: the user's own options, where `options` ask for more than he did.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Any
    unasked: Any = None

    @property
    def stream(self) -> bool:
        return bool(self.kwargs.get("stream"))

    def send(self, wrapped: Callable[..., Any], call: Call | None) -> Any:
        """Send the call, with the cheaper model where that is what it has leave for."""
        swap = call.swap if call is not None else None
        options = self.options if swap is None else _swapped(self.options, swap)
        if "options" in self.kwargs:
            return wrapped(*self.args, **{**self.kwargs, "options": options})
        return wrapped(self.args[0], options, *self.args[2:], **self.kwargs)


class Engine:
    """The patches of one SDK. After `unpatch` what was patched passes through, also where the
    SDK kept a reference.
    """

    def __init__(self, sdk: StainlessSDK) -> None:
        self.sdk = sdk
        self.active = False
        self._patched = False
        self._describing = swallow(f"describing a {sdk.module} call")

    def patch(self) -> None:
        """Patch the SDK, now or when it is imported."""
        self.active = True
        if not self._patched:
            self._patched = True
            sdk = self.sdk
            when_supported(sdk.requirement, f"{sdk.module}._base_client", self._lay)
            say_unsupported(sdk.requirement, sdk.module)

    def unpatch(self) -> None:
        """Let every patch pass through."""
        self.active = False

    def _lay(self, base_client: Any) -> None:
        point = self.sdk.choke_point
        patches: dict[str, Wrapper] = {
            f"SyncAPIClient.{point}": self._request,
            f"AsyncAPIClient.{point}": self._request_async,
            # Without these two the user would meet the chunk that we ask for.
            "Stream.__stream__": self._stream,
            "AsyncStream.__stream__": self._stream_async,
        }
        lay(base_client, patches, f"calls of {self.sdk.module} are not metered")

    # -- the patches
    # ---------------------------------------------------------------------------------------

    def _request(self, wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
        if not self.active:
            return wrapped(*args, **kwargs)
        given, call, flow = self._begin(client, args, kwargs, nowait=False)
        if flow is None:
            token = context.attach(without_attribution(context.get_current()))
            try:
                return wrapped(*args, **kwargs)
            finally:
                context.detach(token)
        return run(flow, lambda: self._send(wrapped, client, given, call))

    async def _request_async(
        self, wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any
    ) -> Any:
        if not self.active:
            return await wrapped(*args, **kwargs)
        given, call, flow = self._begin(client, args, kwargs, nowait=True)
        if flow is None:
            token = context.attach(without_attribution(context.get_current()))
            try:
                return await wrapped(*args, **kwargs)
            finally:
                context.detach(token)
        return await run_async(flow, lambda: self._send_async(wrapped, client, given, call))

    def _stream(self, wrapped: Callable[[], Any], stream: Any, args: Any, kwargs: Any) -> Any:
        inner = wrapped(*args, **kwargs)
        return relay(inner, stream.response) if self.active else inner

    def _stream_async(self, wrapped: Callable[[], Any], stream: Any, args: Any, kwargs: Any) -> Any:
        inner = wrapped(*args, **kwargs)
        return relay_async(inner, stream.response) if self.active else inner

    def _send(
        self, wrapped: Callable[..., Any], client: Any, given: _Given, call: Call | None
    ) -> Any:
        try:
            return given.send(wrapped, call)
        except Exception as error:
            if not self._is_our_fault(client, given, error):
                raise
        return given._replace(options=given.unasked).send(wrapped, call)

    async def _send_async(
        self, wrapped: Callable[..., Any], client: Any, given: _Given, call: Call | None
    ) -> Any:
        try:
            return await given.send(wrapped, call)
        except Exception as error:
            if not self._is_our_fault(client, given, error):
                raise
        return await given._replace(options=given.unasked).send(wrapped, call)

    def _is_our_fault(self, client: Any, given: _Given, error: Exception) -> bool:
        """Whether the provider refused what the user did not ask for."""
        if given.unasked is None:
            return False
        with self._describing:
            return self.sdk.refused(client, error)
        return False

    # -- one call
    # ------------------------------------------------------------------------------------------

    def _begin(
        self, client: Any, args: Any, kwargs: Any, *, nowait: bool
    ) -> tuple[_Given, Call | None, Flow | None]:
        given = _given(args, kwargs)
        with self._describing:
            request = self.sdk.describe(client, given.options, stream=given.stream)
            if request is None:
                return given, None, None
            raw, asked = _raw_header(given.options), False
            # Who reads the lines of a stream himself would meet what we asked for.
            if given.stream and raw != "stream":
                options, asked = self.sdk.prepare(given.options, request)
                if asked:
                    given = given._replace(options=options, unasked=given.options)
            call = start(request)
            if call is not None:
                reader = _Completion(self.sdk, request, asked=asked, raw=raw)
                return given, call, paid_call(call, reader, nowait=nowait)
        return given, None, None


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Given:
    options = args[1] if len(args) > 1 else kwargs.get("options")
    return _Given(args, kwargs, options)


def _swapped(options: Any, swap: ModelSwap) -> Any:
    """A copy of `options` that asks for the cheaper model."""
    gone = (*swap.unset, *swap.set, "model")
    body = {key: value for key, value in options.json_data.items() if key not in gone}
    extra = {key: value for key, value in (options.extra_json or {}).items() if key not in gone}
    body.update(swap.set, model=swap.model)
    return options.model_copy(update={"json_data": body, "extra_json": extra or None})


def _raw_header(options: Any) -> str | None:
    """How the user asked for the raw response: "true" (with_raw_response), "stream"
    (with_streaming_response).
    """
    return text(options.headers, RAW_RESPONSE_HEADER)


class _Completion:
    """What happens to the result of one call."""

    __slots__ = ("_asked", "_raw", "_request", "_sdk")

    def __init__(
        self, sdk: StainlessSDK, request: Request, *, asked: bool, raw: str | None
    ) -> None:
        self._sdk = sdk
        self._request = request
        self._asked = asked
        self._raw = raw

    def completed(self, call: Call, result: Any) -> Any:
        response = None
        if self._request.stream or self._raw is not None:
            # Of a Stream, of a raw response, or the httpx response itself.
            response = getattr(result, "http_response", None) or getattr(result, "response", None)
        if response is None:
            response = result if type(result).__module__.startswith("httpx") else None
        if response is None:
            call.finish(self._sdk.read(result, self._request))
        elif response.is_closed and (not self._request.stream or result is response):
            call.finish(self._read_body(response.content) or NOTHING_READ)
        else:
            reader = self._sdk.stream_reader(self._request, asked=self._asked)
            read = functools.partial(self._read_raw, type(response), response.headers)
            known = self._request.known is not None  # then its bytes tell nothing more
            attach(response, LiveStream(call, reader, None if known else read))
        return result

    def failed(self, call: Call, error: BaseException) -> None:
        """Book a call that raised."""
        call.fail(error, None, unbilled=unbilled(error))

    def _read_raw(self, kind: type, headers: Any, body: bytes) -> Reading | None:
        """`_read_body` for bytes as they were sent, which may be compressed."""
        coding = headers.get("content-encoding")
        if coding is not None:
            body = kind(200, headers={"content-encoding": coding}, content=body).content
        return self._read_body(body)

    def _read_body(self, body: bytes) -> Reading | None:
        """Read usage from a body that the user took as bytes; None where it holds none."""
        try:
            if self._request.stream:
                reader = self._sdk.stream_reader(self._request, asked=False)
                for event in _events(body):
                    reader.observe(event)
                return reader.reading()
            return self._sdk.read(json.loads(body), self._request)
        except ValueError:  # not JSON: audio, HTML with a 200
            return self._sdk.read(None, self._request)


def _events(body: bytes) -> Iterable[Any]:
    for line in body.splitlines():
        if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
            try:
                yield json.loads(data)
            except ValueError:  # broken off in the middle of a line
                return


def get(holder: Any, name: str) -> Any:
    """`name` of a model of the SDK's or of plain JSON; None where there is none."""
    # Not `isinstance(..., Mapping)`: an abstract class asks for microseconds, a dozen times a call.
    return holder.get(name) if type(holder) is dict else getattr(holder, name, None)


def fields(holder: Any) -> Mapping[str, Any]:
    """A model of the SDK's, or plain JSON, as a mapping: the quick way to read many fields."""
    return holder if type(holder) is dict else getattr(holder, "__dict__", EMPTY)


def text(holder: Any, name: str) -> str | None:
    """The text `name` of a model of the SDK's or of plain JSON; None where there is none."""
    value = get(holder, name)
    return value if isinstance(value, str) and value else None


def text_size(value: Any) -> int:
    """Bytes of the text in a request body, near enough for an estimate, without making its JSON."""
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, Mapping):
        return sum(text_size(item) for item in cast("Mapping[str, Any]", value).values())
    if isinstance(value, list | tuple):
        return sum(text_size(item) for item in cast("list[Any]", value))
    return 1


def input_size(body: Any) -> Callable[[], int]:
    """Counts the input of `body` when somebody asks."""
    return functools.partial(text_size, body)
