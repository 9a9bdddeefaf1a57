"""Connections to the cache's Redis: no caller waits longer than the time limit, whatever Redis or
the network does.

Callers use only connections that stand. One background thread makes them (a name look-up, a TLS
handshake and a login have no common time limit), and once Redis is down, that thread alone tries
until it answers again.
"""

import hashlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from spanledger.api.guard import internal_errors, say_once
from spanledger.cache.forks import forget_at_fork
from spanledger.cache.store import StoreDownError

Argument: TypeAlias = str | bytes | int

CONNECT_S: Final = 1.0
MOST_CONNECTIONS: Final = 64
TIMEOUTS_TO_GO_DOWN: Final = 3
"""A single reply that is late may be a busy moment of this machine."""
FIRST_PROBE_S: Final = 0.05
LAST_PROBE_S: Final = 2.0
RESTED_S: Final = 1.0
"""A connection that rested for so long is looked at before use: the server may have closed it."""
IDLE_S: Final = 10.0
"""A background thread without work for so long ends."""


class Script(NamedTuple):
    """A Lua script and the digest that Redis knows it by."""

    text: str
    digest: str

    @classmethod
    def load(cls, name: str) -> "Script":
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Run(NamedTuple):
    """One run of a script on one key."""

    script: Script
    key: str
    arguments: Sequence[Argument]


class RedisLink:
    """This process's connections to a Redis, and whether it answers. Raises ValueError (URL)."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._settings = ConnectionPool.from_url(
            url,
            protocol=2,  # needs no handshake
            socket_timeout=timeout_s,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self.after_fork()
        forget_at_fork(self)

    def after_fork(self) -> None:
        """Start without connections: the parent's are the parent's."""
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._work = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._resting: list[tuple[Any, float]] = []
        self._open = 0
        self._waiting = 0
        self._up = True
        self._closed = False
        self._up_since = 0.0
        self._timeouts = 0
        self._probe_s = FIRST_PROBE_S
        self._probe_at = 0.0
        self._loaded: set[str] = set()

    def run(self, runs: Sequence[Run]) -> list[Any]:
        """Run scripts in one round trip; their replies. Raises StoreDownError, by `timeout_s`."""
        deadline = time.monotonic() + self.timeout_s
        connection = self._take(deadline)
        try:
            replies = self._exchange(connection, runs, deadline)
        except (RedisError, OSError) as error:
            self._discard(connection)
            self._note_fault(error)
            raise StoreDownError("Redis does not answer") from error
        except BaseException:
            self._discard(connection)  # in the middle of a reply: of no use to anybody
            raise
        self._give_back(connection)
        for reply in replies:
            if isinstance(reply, ResponseError):  # out of memory, read-only, no permission
                self._go_down(reply)
                raise StoreDownError("Redis refuses") from reply
        return replies

    def close(self) -> None:
        """Let go of everything, for good: from now on Redis counts as down."""
        with self._lock:
            self._closed, self._up = True, False
            self._work.notify()
            self._ready.notify_all()
        self._close_resting()

    def _close_resting(self) -> None:
        with self._lock:
            resting, self._resting = self._resting, []
            self._open -= len(resting)
        for connection, _ in resting:
            connection.disconnect()

    # -- a round trip ------------------------------------------------------------------------------

    def _exchange(self, connection: Any, runs: Sequence[Run], deadline: float) -> list[Any]:
        replies = self._send(connection, runs, deadline)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            self._loaded.clear()  # Redis was restarted or flushed
            again = self._send(connection, [runs[i] for i in unknown], deadline)
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies

    def _send(self, connection: Any, runs: Sequence[Run], deadline: float) -> list[Any]:
        commands = [self._command(run) for run in runs]
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            _await_reply(connection, deadline)
            try:
                replies.append(connection.read_response())
            except ResponseError as error:
                replies.append(error)
        self._loaded.update(run.script.digest for run in runs)
        return replies

    def _command(self, run: Run) -> tuple[Argument, ...]:
        known = run.script.digest in self._loaded
        name, script = ("EVALSHA", run.script.digest) if known else ("EVAL", run.script.text)
        return (name, script, 1, run.key, *run.arguments)

    # -- connections -------------------------------------------------------------------------------

    def _take(self, deadline: float) -> Any:
        while True:
            with self._lock:
                while self._up and not self._resting:
                    self._need_thread()
                    self._waiting += 1
                    self._work.notify()
                    in_time = self._ready.wait(deadline - time.monotonic())
                    self._waiting -= 1
                    if not in_time:
                        break
                if not self._up:
                    raise StoreDownError("Redis is down")
                if self._resting:
                    connection, since = self._resting.pop()
                else:
                    connection, since = None, 0.0
            if connection is None:
                error = RedisTimeoutError("no connection in time")
                self._note_fault(error)
                raise StoreDownError("Redis does not answer") from error
            if time.monotonic() - since < RESTED_S or _is_quiet(connection):
                return connection
            self._discard(connection)

    def _give_back(self, connection: Any) -> None:
        with self._lock:
            self._timeouts = 0
            if self._up:
                self._resting.append((connection, time.monotonic()))
                self._ready.notify()
                return
        self._discard(connection)

    def _discard(self, connection: Any) -> None:
        with self._lock:
            self._open -= 1
        connection.disconnect()

    def _note_fault(self, error: BaseException) -> None:
        if isinstance(error, RedisTimeoutError):
            with self._lock:
                self._timeouts += 1
                if self._timeouts < TIMEOUTS_TO_GO_DOWN:
                    return
        self._go_down(error)

    def _go_down(self, error: BaseException) -> None:
        with self._lock:
            if self._closed:
                return
            now = time.monotonic()
            was_up, self._up = self._up, False
            if was_up and now - self._up_since > IDLE_S:
                self._probe_s = FIRST_PROBE_S
            self._probe_at = now + self._probe_s
            self._probe_s = min(self._probe_s * 2, LAST_PROBE_S)
            self._need_thread()
            self._work.notify()
            self._ready.notify_all()
        self._close_resting()
        if was_up:
            internal_errors["cache.redis"] += 1
            say_once(
                "cache.redis",
                "down",
                "the cache's Redis does not answer in time, or refuses (%s: %s); "
                "until it answers, calls go to their providers",
                type(error).__name__,
                error,
            )

    # -- the background thread ---------------------------------------------------------------------

    def _need_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._tend, name="spanledger-cache-link", daemon=True
            )
            self._thread.start()

    def _tend(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    self._thread = None
                    return
                delay = self._delay()
                if delay is None:
                    if not self._work.wait(IDLE_S) and self._delay() is None:
                        self._thread = None
                        return
                    continue
                if delay > 0:
                    self._work.wait(delay)
                    continue
            self._connect()

    def _delay(self) -> float | None:
        """Seconds until a connection is to be made; None: none is."""
        if not self._up:
            return self._probe_at - time.monotonic()
        wanted = self._waiting > len(self._resting) and self._open < MOST_CONNECTIONS
        return 0.0 if wanted else None

    def _connect(self) -> None:
        connection: Any = None
        try:
            connection = self._settings.connection_class(**self._settings.connection_kwargs)
            connection.connect()
            connection.send_command("PING", check_health=False)
            _await_reply(connection, time.monotonic() + self.timeout_s)
            connection.read_response()
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no connection
            if connection is not None:
                connection.disconnect()
            self._go_down(error)
            return
        with self._lock:
            if not self._closed:
                if not self._up:
                    self._up, self._up_since, self._timeouts = True, time.monotonic(), 0
                self._open += 1
                self._resting.append((connection, time.monotonic()))
                self._ready.notify()
                return
        connection.disconnect()


def _await_reply(connection: Any, deadline: float) -> None:
    if not connection.can_read(max(0.0, deadline - time.monotonic())):
        connection.disconnect()
        raise RedisTimeoutError("no reply in time")


def _is_quiet(connection: Any) -> bool:
    """Whether nothing is to be read: no unread reply, no end of the connection."""
    try:
        return not connection.can_read(0)
    except (RedisError, OSError):
        return False
