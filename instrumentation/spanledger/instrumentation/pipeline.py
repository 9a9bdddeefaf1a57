"""The path of every paid call, written once for sync and async.

`paid_call` is a generator that says what to do next and does no input or output itself; `run` and
`run_async` do what
it says: sleep the seconds it yields, do the `Offload` that may block, or send the call where it
yields SEND.
"""

import asyncio
import contextlib
import contextvars
import functools
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, NamedTuple, Protocol

from opentelemetry import context

from spanledger.api.attribution import without_attribution
from spanledger.api.gate import Wait
from spanledger.api.guard import swallow
from spanledger.cache.workers import Workers
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.request import NOTHING_READ, Request


class _Send:
    """Send the call now, and answer with its result or `Failed`."""


class Offload(NamedTuple):
    """Do `work`, which may block on the network; in an event loop await `awaitable`, or do `work`
    in a thread where there is none. Answer with what it returns; what it raises comes in.
    """

    work: Callable[[], Any]
    awaitable: Callable[[], Awaitable[Any]] | None = None


class Failed(NamedTuple):
    """The call raised `error`."""

    error: BaseException


class Done(NamedTuple):
    """A flow has come to its end."""

    value: Any


class Raise(NamedTuple):
    """As a flow's result: raise `error` instead of sending the call."""

    error: BaseException


SEND: Final = _Send()
RAISE: Final = object()  # as a flow's result: let the error that the call raised go on, untouched

Flow = Generator[float | Offload | _Send, Any, Any]


class Reader(Protocol):
    """What a provider makes of the end of a call."""

    def completed(self, call: Call, result: Any) -> Any:
        """Book `result`, or arrange that it is booked when its stream ends; return what the user
        gets.
        """
        ...

    def failed(self, call: Call, error: BaseException) -> None:
        """Book a call that raised `error`."""
        ...


# Entered on every call: made once.
_START: Final = swallow("start")
_COMPLETED: Final = swallow("completed")


def start(request: Request) -> Call | None:
    """The call for `request`; None where making it failed, and the user's call goes on without
    us.
    """
    with _START:
        return Call(request)
    return None


def admission(call: Call, *, nowait: bool) -> Flow:
    """The steps until `call` has its permit. `nowait`: they are taken in an event loop."""
    waited: Wait | None = None
    try:
        while True:
            answer = call.ask(waited, nowait=nowait)
            if answer is False:
                answer = yield Offload(functools.partial(call.ask, waited, nowait=False))
            if not isinstance(answer, Wait):
                return
            yield answer.seconds
            slept = waited.waited_s if waited else 0.0
            waited = Wait(answer.seconds, slept + answer.seconds)
    except BaseException as error:  # refused, or cancelled while it waited: nothing was sent
        call.fail(error, None, unbilled=True)
        raise


def paid_call(call: Call, reader: Reader, *, nowait: bool) -> Flow:
    """The steps of one paid call. `nowait`: they are taken in an event loop."""
    yield from admission(call, nowait=nowait)
    token = context.attach(call.context())
    try:
        result = yield SEND
    finally:
        context.detach(token)
    if isinstance(result, Failed):
        with swallow("failed"):
            reader.failed(call, result.error)
        call.fail(result.error, None, unbilled=False)  # where it could not be read what it used
        refusal = call.rejection(result.error)
        return RAISE if refusal is None else Raise(refusal)
    with _COMPLETED:
        return reader.completed(call, result)
    call.finish(NOTHING_READ)  # where it could not be read what it used
    return result


def observed_call(call: Call, reader: Reader) -> Flow:
    """The steps of a call that costs nothing itself."""
    token = context.attach(without_attribution(context.get_current()))
    try:
        result = yield SEND
    finally:
        context.detach(token)
    if isinstance(result, Failed):
        return RAISE
    with swallow("observed"):
        return reader.completed(call, result)
    return result


def run(flow: Flow, send: Callable[[], Any]) -> Any:
    """Take the steps of `flow` in a thread."""
    if (done := advance(flow)) is not None:
        return _result(done.value)
    try:
        result = send()
    except BaseException as error:
        value = _end(advance(flow, Failed(error)))
        if value is RAISE:
            raise
        return _result(value)
    return _end(advance(flow, result))


async def run_async(flow: Flow, send: Callable[[], Awaitable[Any]]) -> Any:
    """Take the steps of `flow` in an event loop."""
    if (done := await advance_async(flow)) is not None:
        return _result(done.value)
    try:
        result = await send()
    except BaseException as error:
        value = _end(await advance_async(flow, Failed(error)))
        if value is RAISE:
            raise
        return _result(value)
    return _end(await advance_async(flow, result))


def _end(done: Done | None) -> Any:
    assert done is not None, "a call is sent once"
    return done.value


def _result(value: Any) -> Any:
    if isinstance(value, Raise):
        raise value.error
    return value


def advance(flow: Flow, answer: object = None) -> Done | None:
    """Take the steps of `flow`, in a thread, up to SEND (None) or its end."""
    try:
        step = flow.send(answer)
        while not isinstance(step, _Send):
            try:
                if isinstance(step, Offload):
                    answer = step.work()
                else:
                    answer = None
                    time.sleep(step)
            except BaseException as error:  # noqa: BLE001 - the flow's to end with
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        return Done(stop.value)
    return None


async def advance_async(flow: Flow, answer: object = None) -> Done | None:
    """Take the steps of `flow`, in an event loop, up to SEND (None) or its end."""
    try:
        step = flow.send(answer)
        while not isinstance(step, _Send):
            try:
                answer = await _wait_for(step)
            except BaseException as error:  # noqa: BLE001 - the flow's to end with
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        return Done(stop.value)
    return None


# A call waits for the ledger 100 ms at most; those of one moment shall not wait for each other.
_workers: Final = Workers(32, "spanledger-calls")


async def _wait_for(step: float | Offload) -> Any:
    if isinstance(step, Offload) and step.awaitable is not None:
        return await step.awaitable()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return await _wait_in_trio(step)
    if not isinstance(step, Offload):
        return await asyncio.sleep(step)
    working = _offloaded(step.work)
    if working is None:
        return step.work()
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        # The thread may get a permit yet, which has to be ended; however often it is cancelled
        # meanwhile, as anyio's scopes do in each turn of the loop.
        while not working.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((working,))
        working.exception()
        raise


def _offloaded(work: Callable[[], Any]) -> "asyncio.Future[Any] | None":
    """`work`, under way in a thread; None where the process is about to end, without threads."""
    in_context = functools.partial(contextvars.copy_context().run, work)
    try:
        return asyncio.wrap_future(_workers.submit(in_context))
    except RuntimeError:
        return None


async def _wait_in_trio(step: float | Offload) -> Any:
    import anyio  # noqa: PLC0415 - every async SDK that we patch and that runs under trio has it
    import anyio.to_thread  # noqa: PLC0415

    if isinstance(step, Offload):
        # The default limiter is the application's, as asyncio's default executor is.
        limiter = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(step.work, limiter=limiter)
    return await anyio.sleep(step)


# Raised before a byte of the request is out: by sockets, by httpx, by urllib3 under requests, by
# aiohttp.
_NEVER_SENT: Final = frozenset(
    {
        "ConnectionRefusedError",
        "gaierror",
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "NewConnectionError",
        "ConnectTimeoutError",
        "NameResolutionError",
        "ClientConnectorError",
        "ClientConnectorCertificateError",
        "ClientConnectorDNSError",
        "ClientConnectorSSLError",
        "ClientProxyConnectionError",
        "ConnectionTimeoutError",
    }
)
# Where HTTP clients and SDKs have it: httpx and requests, aiohttp, urllib.
_STATUS: Final = ("status_code", "status", "code")


def status_of(error: BaseException) -> int | None:
    """The HTTP status that `error` is about: SDKs and HTTP clients give it as an attribute."""
    for holder in (error, getattr(error, "response", None)):
        for name in _STATUS:
            status = getattr(holder, name, None)
            # A code may be anything: an exit's, a database's.
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None


def unbilled(error: BaseException) -> bool:
    """Whether `error` says that the call was not billed: a refused connection, or an answer of 4xx.

    A timeout, a cancellation, a broken reply or a 5xx may be billed.
    """
    seen: BaseException | None = error
    while seen is not None:
        status = status_of(seen)
        if status is not None:
            return 400 <= status < 500
        # requests has it in its argument, urllib as its reason.
        reason = getattr(seen, "reason", None) or (
            getattr(seen.args[0], "reason", None) if seen.args else None
        )
        if type(seen).__name__ in _NEVER_SENT or type(reason).__name__ in _NEVER_SENT:
            return True
        seen = seen.__cause__
    return False
