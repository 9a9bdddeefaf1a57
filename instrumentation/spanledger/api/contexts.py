"""Code run in a context: a block, the calls of a function, the steps of a generator."""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from types import MethodType
from typing import Any, Protocol, TypeVar, cast

from opentelemetry import context
from opentelemetry.context import Context

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def left(entered: list[tuple[T, Context]]) -> T:
    """Take out of `entered` what was entered in the current context, else what was entered last.

    An object may be the subject of `with` in many threads and tasks at once: each leaves its own.
    """
    now = context.get_current()
    entry = next((entry for entry in reversed(entered) if entry[1] is now), entered[-1])
    entered.remove(entry)
    return entry[0]


@contextmanager
def attached(ctx: Context) -> Generator[None]:
    """`ctx` as the current context."""
    token = context.attach(ctx)
    try:
        yield
    finally:
        context.detach(token)


def wrap(function: F, make_context: Callable[[], Context]) -> F:
    """`function`, running in the context that `make_context` gives when it is called.

    Generators get that context for each of their steps only: between two steps their consumer
    runs, in its own.
    """

    def within(*args: Any, **kwargs: Any) -> Any:
        with attached(make_context()):
            return function(*args, **kwargs)

    async def within_async(*args: Any, **kwargs: Any) -> Any:
        with attached(make_context()):
            return await function(*args, **kwargs)

    if isinstance(function, classmethod | staticmethod):
        return cast("F", type(function)(wrap(function.__func__, make_context)))
    if inspect.isasyncgenfunction(function):
        return cast("F", Decorated(function, lambda made: async_steps(made, make_context())))
    if inspect.isgeneratorfunction(function):
        return cast("F", Decorated(function, lambda made: steps(made, make_context())))
    wrapper = within_async if inspect.iscoroutinefunction(function) else within
    return cast("F", functools.wraps(function)(wrapper))


class Decorated:
    """A decorated generator function; `inspect`, `pickle` and `copy` take it for the function.

    It is not one itself, whose body would begin with the first step: what its caller is attributed
    to is read when it is called.
    """

    def __init__(self, function: Callable[..., Any], follow: Callable[[Any], Any]) -> None:
        functools.update_wrapper(self, function)
        for name in ("__code__", "__defaults__", "__kwdefaults__"):  # what makes it "function-like"
            setattr(self, name, getattr(function, name, None))
        self._function = function
        self._follow = follow

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._follow(self._function(*args, **kwargs))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> str:
        return cast("str", getattr(self, "__qualname__"))  # noqa: B009 - set by update_wrapper


class Steps(Protocol):
    """What `steps` needs of a generator."""

    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, error: BaseException, /) -> Any: ...
    def close(self) -> object: ...


class AsyncSteps(Protocol):
    """What `async_steps` needs of an asynchronous generator."""

    def __anext__(self) -> Awaitable[Any]: ...
    def asend(self, value: Any, /) -> Awaitable[Any]: ...
    def athrow(self, error: BaseException, /) -> Awaitable[Any]: ...
    def aclose(self) -> Awaitable[object]: ...


def steps(inner: Steps, ctx: Context) -> Generator[Any, Any, Any]:
    """A generator that takes the steps of `inner` in `ctx`."""
    step: Callable[[], Any] = inner.__next__
    try:
        while True:
            try:
                with attached(ctx):
                    item = step()
            except StopIteration as stop:
                return stop.value
            try:
                sent = yield item
                step = functools.partial(inner.send, sent)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in by the consumer: the generator's to handle
                step = functools.partial(inner.throw, error)
    finally:
        with attached(ctx):
            inner.close()


async def async_steps(inner: AsyncSteps, ctx: Context) -> AsyncGenerator[Any, Any]:
    """An asynchronous generator that takes the steps of `inner` in `ctx`."""
    step: Callable[[], Awaitable[Any]] = inner.__anext__
    try:
        while True:
            try:
                with attached(ctx):
                    item = await step()
            except StopAsyncIteration:
                return
            try:
                sent = yield item
                step = functools.partial(inner.asend, sent)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in by the consumer: the generator's to handle
                step = functools.partial(inner.athrow, error)
    finally:
        with attached(ctx):
            await inner.aclose()
