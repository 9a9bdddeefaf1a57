"""Uses of a plain function that returns what its caller awaits: each ends when that ends.

The function has been called, so that the call has its permit; what it returned may have been sent
already (a task) or not (a coroutine). What nobody awaits is booked as an estimate.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, Final

import wrapt

from spanledger.api.contexts import attached
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.pipeline import unbilled
from spanledger.instrumentation.request import Reading
from spanledger.instrumentation.said import Says
from spanledger.instrumentation.streams import LiveStream


def is_awaited(result: object) -> bool:
    """Whether `result` comes to something only when it is awaited."""
    # Not `inspect.isawaitable`: an abstract class asks for microseconds.
    return hasattr(type(result), "__await__")


def awaited(call: Call, says: Says, result: Any) -> Any:
    """What the caller gets for `result`; `call` is booked when that has come to its end."""
    use = _Use(call, says)
    if isinstance(result, asyncio.Future):  # on its way already, and perhaps never awaited
        result.add_done_callback(use.done)
        return result
    if inspect.iscoroutine(result):
        return use.follow(result)
    return _Awaited(result, use)


class _Use:
    """One use that is still to end. Held by what its caller awaits, so that it ends with that."""

    def __init__(self, call: Call, says: Says) -> None:
        self._call = call
        self._says = says
        self._within: Final = call.context()
        self._live = LiveStream(call, _Unseen(says), None)

    async def follow(self, result: Awaitable[Any]) -> Any:
        """Await `result`, in the context of the call."""
        try:
            with attached(self._within):
                value = await result
        except BaseException as error:
            self._failed(error)
            raise
        self._call.finish(self._says.reading(value))
        return value

    def done(self, future: "asyncio.Future[Any]") -> None:
        """`future` has come to its end."""
        if future.cancelled():
            self._failed(asyncio.CancelledError())
        # Not `exception()`: asyncio would then take the error for seen, and not tell of it.
        elif (error := future._exception) is not None:  # noqa: SLF001
            self._failed(error)
        else:
            self._call.finish(self._says.reading(future.result()))

    def _failed(self, error: BaseException) -> None:
        self._call.fail(error, self._says.unsaid(), unbilled=unbilled(error))

    def __del__(self) -> None:
        self._live.dropped()


class _Awaited(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """Something that can be awaited, and may be more than that: an SDK's page, a request."""

    def __init__(self, wrapped: Awaitable[Any], use: _Use) -> None:
        super().__init__(wrapped)
        self._self_use = use

    def __await__(self) -> Generator[Any, Any, Any]:
        following: Coroutine[Any, Any, Any] = self._self_use.follow(self.__wrapped__)
        return following.__await__()


class _Unseen:
    """What is known of a use whose end nobody saw."""

    complete = False

    def __init__(self, says: Says) -> None:
        self._says = says

    def observe(self, chunk: Any) -> bool:
        return True

    def reading(self) -> Reading:
        return self._says.unsaid()
