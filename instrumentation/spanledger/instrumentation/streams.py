"""Streams: a call that ends when its stream is read, broken off, closed, dropped or breaks.

The state of a call in flight (`LiveStream`) hangs on the byte stream of its HTTP response, because
everything that can
end a stream passes there: `Stream.close()`, a helper that closes the response, a reader that
bypasses the SDK's decoding, the garbage collector. Nothing refers back, so that a dropped stream is
collected as it was without us.

What the garbage collector ends is booked by a thread of its own: it may come in the middle of
anything, holding any lock, and a `SimpleQueue` is what may be touched then.
"""

import atexit
import os
import queue
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, Protocol

import wrapt

from spanledger.api.guard import swallow
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.request import NOTHING_READ, Reading

LONGEST_BODY: Final = 32 * 1024 * 1024
_WATCHING: Final = swallow("stream chunk")  # entered for every chunk: made once
"""Bytes of a body kept to read its usage, where the user reads the bytes himself."""


class StreamReader(Protocol):
    """Reads usage from the chunks of one stream.

    complete: the provider's final statement has been seen.
    """

    complete: bool

    def observe(self, chunk: Any) -> bool:
        """Look at one chunk; False where it must not reach the user, because we asked for it."""
        ...

    def reading(self) -> Reading:
        """What is known by now: the provider's statement, or an estimate marked as such, or
        nothing.
        """
        ...


class LiveStream:
    """A paid call whose stream is still open."""

    __slots__ = ("__weakref__", "_body", "_inner", "_read_body", "_unwatched", "call", "reader")

    def __init__(
        self, call: Call, reader: StreamReader, read_body: Callable[[bytes], Reading | None] | None
    ) -> None:
        self.call = call
        self.reader = reader
        # Filled only where the user reads bytes past the SDK's decoding.
        self._body: bytearray | None = bytearray() if read_body else None
        self._read_body = read_body
        self._inner: weakref.ref[Any] | None = None
        self._unwatched = True
        _open.add(self)
        _collector.ensure_running()

    def decoding(self, inner: Any) -> None:
        """The SDK decodes the stream in the generator `inner`."""
        self._inner = weakref.ref(inner)
        self._body = None

    @property
    def decoded(self) -> bool:
        """Whether the SDK decodes the stream; else the user reads its bytes himself."""
        return self._inner is not None

    def keep(self, data: bytes) -> None:
        """Keep bytes that the user reads himself."""
        if self._unwatched:
            self._unwatched = False
            self.call.first_chunk()
        body = self._body
        if body is not None:
            if len(body) + len(data) <= LONGEST_BODY:
                body += data
            else:
                self._body = None

    def watch(self, chunk: Any) -> bool:
        """Look at one chunk; False where it must not reach the user."""
        if self._unwatched:
            self._unwatched = False
            self.call.first_chunk()
        reader = self.reader
        wanted = True  # where it cannot be read, too
        with _WATCHING:
            wanted = reader.observe(chunk)
            if reader.complete:
                self.end()
        return wanted

    def end(self) -> None:
        """Book what is known."""
        if not self.call.ended:
            self.call.finish(self._reading())
        _open.discard(self)

    def fail(self, error: BaseException) -> None:
        """The stream broke in the middle: the provider bills what it sent."""
        if not self.call.ended:
            self.call.fail(error, self._reading(), unbilled=False)
        _open.discard(self)

    def closed(self) -> None:
        """The response was closed: by the SDK's decoding, which then goes on to its end, or by
        the user.
        """
        if self._inner is not None:
            inner = self._inner()
            if inner is None:  # the garbage collector has found both, and ends the decoding
                self.dropped()
                return
            if getattr(inner, "gi_running", False) or getattr(inner, "ag_running", False):
                return
        self.end()

    def dropped(self) -> None:
        """Nobody can read on. Called by the garbage collector, so that it only leaves a note."""
        if not self.call.ended:
            _collector.notes.put(self)

    def _reading(self) -> Reading:
        with swallow("stream reading"):
            if self._body and self._read_body and (reading := self._read_body(bytes(self._body))):
                return reading
            return self.reader.reading()
        return NOTHING_READ


class _Collector:
    """Books dropped streams, in a thread that sleeps until there is one."""

    def __init__(self) -> None:
        self.notes: queue.SimpleQueue[LiveStream | threading.Event] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ensure_running(self) -> None:
        if self._thread is not None:
            return
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="spanledger-streams", daemon=True)
                thread.start()
                self._thread = thread
                _end_at_child_exit()

    def _run(self) -> None:
        while True:
            note = self.notes.get()
            note.set() if isinstance(note, threading.Event) else note.end()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all notes left by now are booked."""
        if self._thread is None:
            return True
        done = threading.Event()
        self.notes.put(done)
        return done.wait(timeout_s)


_open: weakref.WeakSet[LiveStream] = weakref.WeakSet()
_collector = _Collector()


def _after_fork() -> None:
    global _collector, _open
    for live in _still_open():
        live.call.forget()
    _collector, _open = _Collector(), weakref.WeakSet()


os.register_at_fork(after_in_child=_after_fork)


def flush_streams(timeout_s: float = 5.0) -> bool:
    """Book every stream that was dropped by now. False where that took longer than `timeout_s`."""
    return _collector.flush(timeout_s)


def end_open_streams() -> None:
    """Book the streams that are still open, as they are: the process ends."""
    flush_streams()
    for live in _still_open():
        live.end()


def _still_open() -> list[LiveStream]:
    while True:
        try:
            return list(_open)
        except RuntimeError:  # another thread has opened one meanwhile
            continue


atexit.register(end_open_streams)


def _end_at_child_exit() -> None:
    """A child of `multiprocessing` ends without `atexit`; it has finalizers of its own."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, end_open_streams, exitpriority=10)  # before the books are closed, at 0


class _ByteStream(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """The byte stream of a response, that tells its `LiveStream` when it is closed or dropped."""

    def __init__(self, wrapped: Any, live: LiveStream) -> None:
        super().__init__(wrapped)
        self._self_live = live

    @property
    def live(self) -> LiveStream:
        return self._self_live

    def __iter__(self) -> Iterator[bytes]:
        live = self._self_live
        inner = iter(self.__wrapped__)
        return inner if live.decoded else _copying(inner, live)

    def __aiter__(self) -> AsyncIterator[bytes]:
        live = self._self_live
        inner = aiter(self.__wrapped__)
        return inner if live.decoded else _copying_async(inner, live)

    def close(self) -> None:
        try:
            self.__wrapped__.close()
        finally:
            self._self_live.closed()

    async def aclose(self) -> None:
        try:
            await self.__wrapped__.aclose()
        finally:
            self._self_live.closed()

    def __del__(self) -> None:
        self._self_live.dropped()


def attach(response: Any, live: LiveStream) -> None:
    """Hang `live` on an httpx response whose body is still to be read."""
    response.stream = _ByteStream(response.stream, live)
    if response.is_closed:
        # The transport handed over a whole body (a cache, a mock): closing the response again tells
        # nobody.
        live.keep(response.content)
        response.close = _Close(live)
        response.aclose = _CloseAsync(live)


class _Close:
    """`close` of a response that is closed already; left out when the response is pickled."""

    def __init__(self, live: LiveStream | None = None) -> None:
        self._live = live

    def __call__(self) -> None:
        if self._live is not None:
            self._live.closed()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class _CloseAsync(_Close):
    async def __call__(self) -> None:  # type: ignore[override]
        super().__call__()


def live_stream(response: Any) -> LiveStream | None:
    """The `LiveStream` that hangs on `response`."""
    stream = getattr(response, "stream", None)
    return stream.live if type(stream) is _ByteStream else None


def _copying(inner: Iterator[bytes], live: LiveStream) -> Iterator[bytes]:
    for data in inner:
        live.keep(data)
        yield data


async def _copying_async(inner: AsyncIterator[bytes], live: LiveStream) -> AsyncIterator[bytes]:
    async for data in inner:
        live.keep(data)
        yield data


def relay(inner: Iterator[Any], response: Any) -> Iterator[Any]:
    """The chunks of `inner`, an SDK's decoding of `response`, observed on their way to the user.

    The call is looked for when the first chunk is asked for: an SDK makes its decoding before we
    have its response.
    """
    live = _decoding(inner, response)
    if live is None:
        yield from inner
        return
    watch = live.watch
    try:
        for chunk in inner:
            if watch(chunk):
                yield chunk
    except GeneratorExit:
        live.dropped()
        if (close := getattr(inner, "close", None)) is not None:
            close()
        raise
    except BaseException as error:
        live.fail(error)
        raise
    live.end()


async def relay_async(inner: AsyncIterator[Any], response: Any) -> AsyncIterator[Any]:
    """`relay` for an asynchronous stream."""
    live = _decoding(inner, response)
    if live is None:
        async for chunk in inner:
            yield chunk
        return
    watch = live.watch
    try:
        async for chunk in inner:
            if watch(chunk):
                yield chunk
    except GeneratorExit:
        live.dropped()
        if (aclose := getattr(inner, "aclose", None)) is not None:
            await aclose()
        raise
    except BaseException as error:
        live.fail(error)
        raise
    live.end()


def _decoding(inner: Any, response: Any) -> LiveStream | None:
    live = live_stream(response)
    if live is None or live.call.ended:
        return None
    live.decoding(inner)
    return live
