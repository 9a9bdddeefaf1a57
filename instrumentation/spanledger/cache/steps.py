"""The data layer's logic is generators that yield what they need; here it is done, in two ways."""

import asyncio
import functools
from collections.abc import Callable, Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, NamedTuple, TypeVar

from spanledger.cache.store import Reply, Store, StoreDownError, Waiter
from spanledger.cache.workers import Workers

T = TypeVar("T")


class Call(NamedTuple):
    """Ask the store. undo: what to do with an answer that comes when its caller has gone."""

    store: Store
    function: Callable[[], Any]
    undo: Callable[[Any], object] | None = None

    def run(self) -> Any:
        return self.function()

    async def arun(self) -> Any:
        if not self.store.blocks:
            return self.function()
        job = _submit(self.function)
        try:
            done, _ = await asyncio.wait({asyncio.wrap_future(job)}, timeout=self.store.timeout_s)
        except BaseException:
            self._desert(job)
            raise
        if not done:
            self._desert(job)
            raise StoreDownError("the store did not answer in time")
        return job.result().get()

    def leave(self) -> None:
        """Do it without waiting, and without an answer."""
        if self.store.blocks:
            _submit(self.function)
        else:
            self.function()

    def _desert(self, job: "Future[_Outcome]") -> None:
        undo = self.undo
        if undo is not None and not job.cancel():
            job.add_done_callback(lambda job: job.result().error or undo(job.result().value))


class _Outcome(NamedTuple):
    """What a function in another thread came to.

    A value even where it raised: the caller may be gone, and asyncio reports what nobody saw.
    """

    value: Any = None
    error: Exception | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def _outcome(function: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(function())
    except Exception as error:  # noqa: BLE001 - raised again where it is waited for
        return _Outcome(error=error)


_workers: Final = Workers(4, "spanledger-cache")


def _submit(function: Callable[[], Any]) -> "Future[_Outcome]":
    try:
        return _workers.submit(functools.partial(_outcome, function))
    except RuntimeError as error:
        raise StoreDownError("the process is about to end") from error


class Wait(NamedTuple):
    """Wait for news of a flight, for some seconds; None where there are none."""

    waiter: Waiter
    seconds: float

    def run(self) -> Reply | None:
        try:
            return self.waiter.result(self.seconds)
        except FutureTimeoutError:
            return None

    async def arun(self) -> Reply | None:
        done, _ = await asyncio.wait({asyncio.wrap_future(self.waiter)}, timeout=self.seconds)
        return self.waiter.result() if done else None


Steps = Generator[Call | Wait, Any, T]


def drive(steps: Steps[T]) -> T:
    """Run `steps` in this thread."""
    try:
        step = next(steps)
        while True:
            try:
                result = step.run()
            except BaseException as error:  # noqa: BLE001 - thrown in: the generator's to handle
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def adrive(steps: Steps[T]) -> T:
    """Run `steps` without blocking the event loop."""
    try:
        step = next(steps)
        while True:
            try:
                result = await step.arun()
            except BaseException as error:  # noqa: BLE001 - thrown in: the generator's to handle
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
