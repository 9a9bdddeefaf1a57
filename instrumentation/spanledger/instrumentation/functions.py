"""The engine for SDKs whose paid calls are plain functions: a request in, a result out, no streams.

A provider file describes a call from its arguments and reads its result; see `FunctionSDK`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from opentelemetry import context

from spanledger.api.attribution import without_attribution
from spanledger.api.guard import swallow
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.patching import lay, say_unsupported, when_supported
from spanledger.instrumentation.pipeline import (
    Flow,
    observed_call,
    run,
    run_async,
    start,
    unbilled,
)
from spanledger.instrumentation.request import Reading, Request
from spanledger.instrumentation.shared import data_call

_SHORTEST_KEY: Final = 8  # what is shorter is no key, and stands in other words


class FunctionSDK(Protocol):
    """What a provider file says of one patched function."""

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        """The request, or None where the call costs nothing."""
        ...

    def read(self, result: Any, request: Request) -> Reading:
        """What the result says was used."""
        ...

    def read_error(self, error: BaseException, request: Request) -> Reading | None:
        """What an error says was used all the same; None where it says nothing."""
        ...

    def error_detail(self, error: BaseException) -> object:
        """What of an error others need to raise the same (JSON); None where that cannot be said."""
        ...

    def error_from(self, detail: object) -> BaseException | None:
        """The error that `error_detail` told of."""
        ...

    def api_key(self, client: Any) -> str | None:
        """The key that the client sends; None where it has none."""
        ...


class FunctionEngine:
    """Patches of functions. After `unpatch` they pass through.

    requirement: the SDK's name and the versions that are patched.
    """

    def __init__(self, requirement: str) -> None:
        self.requirement = requirement
        self.active = False
        self._patched: set[str] = set()

    def patch(
        self, module: str, function: str, sdk: FunctionSDK, *, is_async: bool = False
    ) -> None:
        """Patch `function` ("Class.method") of `module`, now or when it is imported."""
        self.active = True
        name = f"{module}.{function}"
        if name in self._patched:
            return
        self._patched.add(name)
        wrapper = self._wrap_async(sdk) if is_async else self._wrap(sdk)
        # Each by itself: one that is not there harms no other.
        when_supported(
            self.requirement,
            module,
            lambda imported: lay(imported, {function: wrapper}, "its calls are not metered"),
        )
        say_unsupported(self.requirement, module.partition(".")[0])

    def unpatch(self) -> None:
        """Let every patch pass through."""
        self.active = False

    def _wrap(self, sdk: FunctionSDK) -> Callable[..., Any]:
        def call(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
            if not self.active:
                return wrapped(*args, **kwargs)
            flow = _begin(sdk, client, args, kwargs, nowait=False)
            if flow is None:
                token = context.attach(without_attribution(context.get_current()))
                try:
                    return wrapped(*args, **kwargs)
                finally:
                    context.detach(token)
            return run(flow, lambda: wrapped(*args, **kwargs))

        return call

    def _wrap_async(self, sdk: FunctionSDK) -> Callable[..., Any]:
        async def call(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
            if not self.active:
                return await wrapped(*args, **kwargs)
            flow = _begin(sdk, client, args, kwargs, nowait=True)
            if flow is None:
                token = context.attach(without_attribution(context.get_current()))
                try:
                    return await wrapped(*args, **kwargs)
                finally:
                    context.detach(token)
            return await run_async(flow, lambda: wrapped(*args, **kwargs))

        return call


def _begin(sdk: FunctionSDK, client: Any, args: Any, kwargs: Any, *, nowait: bool) -> Flow | None:
    with swallow("describing a call"):
        request = sdk.describe(client, args, kwargs)
        call = None if request is None else start(request)
        if request is not None and call is not None:
            reader = _Completion(sdk, request, client)
            if not request.spends:
                return observed_call(call, reader)
            return data_call(call, reader, request.content, nowait=nowait)
    return None


class _Completion:
    """What happens to the result of one call."""

    __slots__ = ("_client", "_request", "_sdk")

    def __init__(self, sdk: FunctionSDK, request: Request, client: Any) -> None:
        self._sdk = sdk
        self._request = request
        self._client = client

    def completed(self, call: Call, result: Any) -> Any:
        reading = self._sdk.read(result, self._request)
        if self._request.spends:
            call.finish(reading)
        else:
            call.observed(reading)
        return result

    def error_detail(self, error: BaseException) -> object:
        detail = self._sdk.error_detail(error)
        return None if detail is None else _masked(detail, self._sdk.api_key(self._client))

    def error_from(self, detail: object) -> BaseException | None:
        return self._sdk.error_from(detail)

    def failed(self, call: Call, error: BaseException) -> None:
        reading = self._sdk.read_error(error, self._request)
        call.fail(error, reading, unbilled=reading is None and unbilled(error))


def _masked(detail: object, key: str | None) -> object:
    """`detail`, which is JSON, without the key: some providers repeat it in their errors."""
    if not key or len(key) < _SHORTEST_KEY:
        return detail
    if isinstance(detail, str):
        return detail.replace(key, "***")
    if isinstance(detail, Mapping):
        return {name: _masked(value, key) for name, value in detail.items()}
    if isinstance(detail, list):
        return [_masked(value, key) for value in detail]
    return detail
