"""Any other paid function: a decorator and a context manager.

    @metered(provider="geocoder", operation="geocode", cost="0.005")
    def geocode(address): ...

    with metered(provider="tavily", operation="search") as call:
        call.result = requests.post(...).json()
        call.credits = call.result["usage"]["credits"]

What a use costs is said by `cost` (USD), `credits` or `usage`; each may be a value or a function of
the result. Of `cost` and `credits` together, the one is charged and the other counted; where
`usage` says something, it alone counts. For a generator the result is the last item it yields.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry import context
from opentelemetry.context import Context

from spanledger.api.contexts import Decorated, async_steps, attached, left, steps
from spanledger.instrumentation.awaited import awaited, is_awaited
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.pipeline import (
    Failed,
    Flow,
    admission,
    advance,
    advance_async,
    paid_call,
    run,
    run_async,
    start,
    unbilled,
)
from spanledger.instrumentation.request import Reading, Request
from spanledger.instrumentation.said import Said, SaidUsage, Says
from spanledger.instrumentation.shared import data_call
from spanledger.instrumentation.streams import LiveStream

F = TypeVar("F", bound=Callable[..., Any])


class metered:  # noqa: N801 - reads as a statement
    """Meter a paid function, or a block, as one paid call a use.

    Args:
        provider: whose API it is; the books and the price of its credits go by it.
        operation: what is done there, a low-cardinality name.
        model: the model that is asked for, where there is one.
        cost: USD of one use, or a function of the result that gives it.
        credits: credits of one use, or a function of the result that gives them.
        usage: a `spanledger.api.Usage`, or a function of the result that gives one, or None.

    Raises ConfigurationError for what is neither an amount nor a function.

    A call that raises is booked as billed and estimated, unless its error says that it was not sent
    (a refused connection) or not billed (an HTTP status of 4xx).
    """

    def __init__(
        self,
        *,
        provider: str,
        operation: str,
        model: str | None = None,
        cost: Said = None,
        credits: Said = None,
        usage: SaidUsage = None,
    ) -> None:
        self._says = Says(cost, credits, usage)
        self._says.check()
        known = self._says.known()
        # What names a model or a price is paid in USD, as far as is known. Of the rest only the
        # result can tell, and budgets in credits must ask whether they have any room.
        unsaid = callable(credits) or (known is None and cost is None and model is None)
        self._request = Request(provider, operation, model, known=known, credits_unsaid=unsaid)
        self._entered: list[tuple[Block, Context]] = []

    # -- decorator
    # -----------------------------------------------------------------------------------------

    def __call__(self, function: F) -> F:
        request, says = self._request, self._says
        if isinstance(function, classmethod | staticmethod):
            return cast("F", type(function)(self(function.__func__)))
        if inspect.isasyncgenfunction(function):
            return cast("F", Decorated(function, lambda made: _follow_async(made, request, says)))
        if inspect.isgeneratorfunction(function):
            return cast("F", Decorated(function, lambda made: _follow(made, request, says)))
        wrap = _metered_coroutine if _is_coroutine_function(function) else _metered_function
        return cast("F", functools.wraps(function)(wrap(function, request, says)))

    # -- context manager
    # -----------------------------------------------------------------------------------

    def __enter__(self) -> "Block":
        block = Block(self._says)
        call = start(self._request)
        if call is not None:
            block.flow = paid_call(call, _Completion(block), nowait=False)
            advance(block.flow)
        self._entered.append((block, context.get_current()))
        return block

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> "Block":
        block = Block(self._says)
        call = start(self._request)
        if call is not None:
            block.flow = paid_call(call, _Completion(block), nowait=True)
            await advance_async(block.flow)
        self._entered.append((block, context.get_current()))
        return block

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        block = left(self._entered)
        if block.flow is not None:
            advance(block.flow, block.result if error is None else Failed(error))


class Block(Says):
    """A metered block: set `result`, or `cost` (USD), `credits` or `usage`, when they are known."""

    def __init__(self, says: Says) -> None:
        super().__init__(says.cost, says.credits, says.usage)
        self.result: Any = None
        self.flow: Flow | None = None


class _Completion:
    """What happens to the result of one use."""

    __slots__ = ("_says",)

    def __init__(self, says: Says) -> None:
        self._says = says

    def completed(self, call: Call, result: Any) -> Any:
        call.finish(self._says.reading(result))
        return result

    def failed(self, call: Call, error: BaseException) -> None:
        call.fail(error, self._says.unsaid(), unbilled=unbilled(error))

    def error_detail(self, error: BaseException) -> object:
        return None  # another process makes the call itself

    def error_from(self, detail: object) -> BaseException | None:
        return None


class _FunctionCompletion(_Completion):
    """What happens to the result of a plain function: it may be one that is awaited."""

    __slots__ = ()

    def completed(self, call: Call, result: Any) -> Any:
        if is_awaited(result):
            return awaited(call, self._says, result)
        return super().completed(call, result)


Function = Callable[..., Any]


def _is_coroutine_function(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )


def _name(function: Function) -> str | None:
    """What tells the results of `function` from those of others; None where nothing does."""
    name = getattr(function, "__qualname__", None)
    if name is None or name.endswith("<lambda>"):
        return None
    return f"{function.__module__}.{name}"


def _content(
    name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    return None if name is None else {"function": name, "args": list(args), "kwargs": kwargs}


def _metered_function(function: Function, request: Request, says: Says) -> Function:
    name = _name(function)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = start(request)
        if call is None:
            return function(*args, **kwargs)
        content = _content(name, args, kwargs)
        flow = data_call(call, _FunctionCompletion(says), content, nowait=False)
        return run(flow, lambda: function(*args, **kwargs))

    return wrapper


def _metered_coroutine(function: Function, request: Request, says: Says) -> Function:
    name = _name(function)

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = start(request)
        if call is None:
            return await function(*args, **kwargs)
        flow = data_call(call, _Completion(says), _content(name, args, kwargs), nowait=True)
        return await run_async(flow, lambda: function(*args, **kwargs))

    return wrapper


# -- generators
# ------------------------------------------------------------------------------------------------


class _LastItem:
    """Reads the items of a metered generator: the last one is its result."""

    complete = False

    def __init__(self, says: Says) -> None:
        self._says = says
        self._item: Any = None

    def observe(self, chunk: Any) -> bool:
        self._item = chunk
        return True

    def reading(self) -> Reading:
        return self._says.reading(self._item)


def _follow(inner: Generator[Any, Any, Any], request: Request, says: Says) -> Any:
    return steps(_Items(inner, request, says), context.get_current())


def _follow_async(inner: AsyncGenerator[Any, Any], request: Request, says: Says) -> Any:
    return async_steps(_AsyncItems(inner, request, says), context.get_current())


class _Use:
    """One use of a generator: a paid call from its first step to its last."""

    def __init__(self, request: Request, says: Says) -> None:
        self._request = request
        self._says = says
        self._begun = False
        self._within = context.get_current()
        self._call: Call | None = None
        self._live: LiveStream | None = None

    def _begin(self, *, nowait: bool) -> Flow:
        self._begun = True
        call = start(self._request)
        if call is not None:
            yield from admission(call, nowait=nowait)
            self._call, self._within = call, call.context()
            self._live = LiveStream(call, _LastItem(self._says), None)

    def _seen(self, item: Any) -> Any:
        if self._live is not None:
            self._live.watch(item)
        return item

    def _ended(self, error: BaseException | None = None) -> None:
        if self._call is not None and error is not None:
            self._call.fail(error, self._says.unsaid(), unbilled=unbilled(error))
        if self._live is not None:
            self._live.end()

    def _closed(self) -> None:
        if self._live is not None:
            self._live.dropped()


class _Items(_Use):
    """A metered generator, as `steps` takes it."""

    def __init__(self, inner: Generator[Any, Any, Any], request: Request, says: Says) -> None:
        super().__init__(request, says)
        self._inner = inner

    def _step(self, step: Callable[[], Any]) -> Any:
        if not self._begun:
            advance(self._begin(nowait=False))
        try:
            with attached(self._within):
                item = step()
        except StopIteration:
            self._ended()
            raise
        except BaseException as error:
            self._ended(error)
            raise
        return self._seen(item)

    def __next__(self) -> Any:
        return self._step(self._inner.__next__)

    def send(self, value: Any) -> Any:
        return self._step(lambda: self._inner.send(value))

    def throw(self, error: BaseException) -> Any:
        return self._step(lambda: self._inner.throw(error))

    def close(self) -> None:
        self._closed()
        self._inner.close()


class _AsyncItems(_Use):
    """A metered asynchronous generator, as `async_steps` takes it."""

    def __init__(self, inner: AsyncGenerator[Any, Any], request: Request, says: Says) -> None:
        super().__init__(request, says)
        self._inner = inner

    async def _step(self, step: Callable[[], Awaitable[Any]]) -> Any:
        if not self._begun:
            await advance_async(self._begin(nowait=True))
        try:
            with attached(self._within):
                item = await step()
        except StopAsyncIteration:
            self._ended()
            raise
        except BaseException as error:
            self._ended(error)
            raise
        return self._seen(item)

    async def __anext__(self) -> Any:
        return await self._step(self._inner.__anext__)

    async def asend(self, value: Any) -> Any:
        return await self._step(lambda: self._inner.asend(value))

    async def athrow(self, error: BaseException) -> Any:
        return await self._step(lambda: self._inner.athrow(error))

    async def aclose(self) -> None:
        self._closed()
        await self._inner.aclose()
