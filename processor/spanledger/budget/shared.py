"""What the processes of one ledger share about budgets besides the counters.

- limits that were set at run time (in code, over the cli);
- which events are out, so that one process tells and not all;
- which scopes were used, so that the cli can list the budgets of every tenant.

It lies beside the ledger: for SQLite in a file of its own next to the ledger's, for Redis under
    keys of their own. Only our background thread and the cli come here, never a paid call.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol, cast

from spanledger.api.guard import log, say_once
from spanledger.budget.amounts import from_nano, to_nano
from spanledger.budget.config import Slot, most_limit
from spanledger.budget.tiers import Tiers

_CEILING: Final = Tiers().ceiling


class SharedBudgets(Protocol):
    """The place. Its methods raise OSError (or a kin of it) where it cannot be reached, and may
    take a second.
    """

    shares: bool
    """Other processes see what is written here."""

    def limits(self) -> Mapping[str, str]:
        """The limits that were set: nano-units by the text of a `Slot`."""
        ...

    def set_limit(self, slot: Slot, limit: int | None) -> None:
        """Set a limit (nano-units), or with None go back to the configuration's."""
        ...

    def claim(self, name: str, expires_s: float) -> bool:
        """True for the first who asks for this name before it expires (Unix seconds)."""
        ...

    def note_used(self, keys: Mapping[str, float]) -> None:
        """Note keys of the ledger that are in use, and until when (Unix seconds)."""
        ...

    def used(self) -> Sequence[str]:
        """The keys in use."""
        ...


def read_limits(shared: SharedBudgets) -> dict[Slot, int]:
    """The limits that were set, nano-units; one that nobody can read is left out and said once."""
    limits: dict[Slot, int] = {}
    for text, value in shared.limits().items():
        try:
            limits[Slot.parse(text)] = limit_of(Decimal(value).scaleb(-9))
        except (ValueError, ArithmeticError) as error:
            say_once(
                "budgets",
                ("limit", text),
                "the limit that was set for %r is not used: %s",
                text,
                error,
            )
    return limits


def open_shared(url: str | None) -> SharedBudgets:
    """The place beside the ledger at `url`."""
    if url is None or url == "memory://":
        return MemoryShared()
    if url.startswith("sqlite:///"):
        ledger = Path(url.removeprefix("sqlite:///"))
        return SqliteShared(ledger.with_name(f"{ledger.name}.budgets"))
    return RedisShared(url)


class MemoryShared:
    """Of one process."""

    shares: bool = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._limits: dict[str, str] = {}
        self._claimed: dict[str, float] = {}

    def limits(self) -> Mapping[str, str]:
        return dict(self._limits)

    def set_limit(self, slot: Slot, limit: int | None) -> None:
        if limit is None:
            self._limits.pop(str(slot), None)
        else:
            self._limits[str(slot)] = str(limit)

    def claim(self, name: str, expires_s: float) -> bool:
        now = self._clock()
        self._claimed = {known: until for known, until in self._claimed.items() if until > now}
        if name in self._claimed:
            return False
        self._claimed[name] = expires_s
        return True

    def note_used(self, keys: Mapping[str, float]) -> None:
        return None

    def used(self) -> Sequence[str]:
        return ()


_TABLES: Final = """
CREATE TABLE IF NOT EXISTS limits (slot TEXT PRIMARY KEY, nano TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (name TEXT PRIMARY KEY, expires_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used (key TEXT PRIMARY KEY, expires_s REAL NOT NULL) WITHOUT ROWID;
"""


class SqliteShared:
    """Of one machine: a file. It is opened anew each time, twice a second, so that nothing is
    carried over a fork.
    """

    shares: bool = True

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=0.5)) as connection:
                connection.executescript(_TABLES)
                with connection:
                    yield connection
        except sqlite3.Error as error:
            raise OSError(f"{self._path}: {error}") from error

    def _rows(self, sql: str, *values: object) -> list[Any]:
        if not self._path.exists():
            return []
        with self._open() as connection:
            return connection.execute(sql, values).fetchall()

    def limits(self) -> Mapping[str, str]:
        return dict(self._rows("SELECT slot, nano FROM limits"))

    def set_limit(self, slot: Slot, limit: int | None) -> None:
        with self._open() as connection:
            connection.execute("DELETE FROM limits WHERE slot = ?", (str(slot),))
            if limit is not None:
                connection.execute("INSERT INTO limits VALUES (?, ?)", (str(slot), str(limit)))

    def claim(self, name: str, expires_s: float) -> bool:
        with self._open() as connection:
            connection.execute("DELETE FROM claims WHERE expires_s <= ?", (time.time(),))
            added = connection.execute(
                "INSERT OR IGNORE INTO claims VALUES (?, ?)", (name, expires_s)
            )
            return added.rowcount == 1

    def note_used(self, keys: Mapping[str, float]) -> None:
        with self._open() as connection:
            connection.execute("DELETE FROM used WHERE expires_s <= ?", (time.time(),))
            connection.executemany("INSERT OR REPLACE INTO used VALUES (?, ?)", keys.items())

    def used(self) -> Sequence[str]:
        rows = self._rows("SELECT key FROM used WHERE expires_s > ? ORDER BY key", time.time())
        return [key for (key,) in rows]


_LIMITS: Final = "spanledger:budgets:limits"
_USED: Final = "spanledger:budgets:used"
_MARK: Final = "mark"  # no slot has this name


class RedisShared:
    """Of a fleet: a hash of limits, a sorted set of what is in use, and a key for each event that
    is out.

    A mark in the hash says whether it is still the one that this process knew. Where it is another
    or none, Redis has lost its memory, and each process writes back what it knew.
    """

    shares: bool = True

    def __init__(self, url: str) -> None:
        # Who has no Redis does not pay for the import (60 ms).
        from redis import Redis, RedisCluster  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import RedisError  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        self._error = RedisError
        options: dict[str, Any] = {
            "socket_timeout": 0.5,
            "socket_connect_timeout": 0.5,
            "decode_responses": True,
            "retry": Retry(NoBackoff(), 0),
        }
        scheme, _, rest = url.partition("://")
        self._kind: Any = RedisCluster if scheme.endswith("+cluster") else Redis
        self._url = f"{scheme.removesuffix('+cluster')}://{rest}"
        self._options = options
        self._client: Any = None
        self._mark: str | None = None
        self._limits: dict[str, str] = {}
        self._used: dict[str, float] = {}

    def _run(self, command: str, *values: object) -> Any:
        try:
            if self._client is None:
                self._client = self._kind.from_url(self._url, **self._options)
            return self._client.execute_command(command, *values)
        except self._error as error:
            # The library's words may hold the URL, and with it a password.
            raise OSError(f"Redis: {type(error).__name__}") from None

    def limits(self) -> Mapping[str, str]:
        mark, limits = self._read_limits()
        if self._mark not in (None, mark):
            self._write_back()
            mark, limits = self._read_limits()
        self._mark, self._limits = mark, limits
        return limits

    def _read_limits(self) -> tuple[str | None, dict[str, str]]:
        limits = dict(cast("Mapping[str, str]", self._run("HGETALL", _LIMITS)))
        return limits.pop(_MARK, None), limits

    def _write_back(self) -> None:
        for slot, limit in self._limits.items():
            self._run("HSETNX", _LIMITS, slot, limit)  # what was set since then is newer
        if self._used:
            self._run("ZADD", _USED, *_scored(self._used))
        self._set_mark()
        if self._limits:
            log.warning(
                "spanledger: the ledger's Redis lost the limits set at run time; the %d that are "
                "known here are written back",
                len(self._limits),
            )

    def _set_mark(self) -> None:
        self._run("HSETNX", _LIMITS, _MARK, os.urandom(8).hex())

    def set_limit(self, slot: Slot, limit: int | None) -> None:
        if limit is None:
            self._run("HDEL", _LIMITS, str(slot))
        else:
            self._run("HSET", _LIMITS, str(slot), str(limit))
            self._set_mark()

    def claim(self, name: str, expires_s: float) -> bool:
        key = f"spanledger:budgets:event:{name}"
        return self._run("SET", key, "1", "NX", "PXAT", round(expires_s * 1000)) is not None

    def note_used(self, keys: Mapping[str, float]) -> None:
        now = time.time()
        self._run("ZREMRANGEBYSCORE", _USED, "-inf", now)
        self._run("ZADD", _USED, *_scored(keys))
        self._set_mark()
        self._used = {key: until for key, until in self._used.items() if until > now} | dict(keys)

    def used(self) -> Sequence[str]:
        found = self._run("ZRANGEBYSCORE", _USED, time.time(), "+inf")
        return sorted(cast("list[str]", found))


def _scored(keys: Mapping[str, float]) -> list[str | float]:
    return [part for key, until in keys.items() for part in (until, key)]


def limit_of(amount: Decimal) -> int:
    """`amount` in nano-units. Raises ValueError where it is not a limit."""
    most = most_limit(_CEILING)
    limit = to_nano(amount) if amount.is_finite() else -1
    if not 0 <= limit <= most:
        raise ValueError(f"{amount} is no limit: it is a number from 0 to {int(from_nano(most)):,}")
    return limit
