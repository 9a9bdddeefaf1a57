"""The ledger of a fleet: Redis, alone or as a cluster. Each scope is one hash, so that no cluster
slot is shared.

Timeouts of 50 ms and no retries: the breaker and the next sync are the retry, and a lost reply does
no harm. Whatever is not an answer counts as down, also READONLY (a replica), OOM and LOADING.
"""

import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    RedisError,
)
from redis.retry import Retry

from spanledger.api.errors import ConfigurationError
from spanledger.api.guard import say_once
from spanledger.api.settings import Origin
from spanledger.ledger.store import IN_CODE, LEASE_S, Grant, Report, Totals

_LEASE_MS: Final = int(LEASE_S * 1000)
_TIMEOUT_S: Final = 0.05
_CONNECT_S: Final = 0.5
_MARK: Final = "spanledger:store"
_MOST_MARKS: Final = 200  # tried, to find one for each node of a cluster; a node may be empty
_DOWN: Final = (RedisError, RedisClusterException, OSError)
_REMEDY: Final = (
    "Set maxmemory-policy noeviction on it (CONFIG SET maxmemory-policy noeviction, and in "
    "redis.conf), or give budgets a Redis of their own, apart from caches: an evicted counter is "
    "a budget that starts anew."
)


class _Script(NamedTuple):
    text: str
    sha: str


def _script(name: str) -> _Script:
    text = files("spanledger.ledger").joinpath(name).read_text(encoding="utf-8")
    return _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def check_url(url: str, origin: Origin) -> None:
    """Raise ConfigurationError where redis cannot read `url`. Nothing is connected."""
    try:
        Redis.from_url(_for_client(url)).close()
    except ValueError:
        # Without the cause: it may quote a part of the password.
        raise origin.error(
            f"is a {url.partition('://')[0]}:// URL that cannot be read",
            "Write redis://user:password@host:port/0.",
        ) from None


def _for_client(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme.removesuffix('+cluster')}://{rest}"


class RedisStore:
    """Books in the Redis at `url`; `origin`: where that was said. `clock_ms`, where not 0, replaces
    Redis's clock: simulations.
    """

    instant = False

    def __init__(self, url: str, clock_ms: int = 0, origin: Origin = IN_CODE) -> None:
        """Connects, where Redis can be reached. Raises ConfigurationError: see `open_ledger`."""
        self._cluster = url.partition("://")[0].endswith("+cluster")
        self._url = _for_client(url)
        self._origin = origin
        self._client: Any = None
        self._moved = False
        self._checked = False
        self._marks: dict[str, str] = {}
        self.clock_ms = clock_ms
        self._sync = _script("sync.lua")
        self._read = _script("read.lua")
        self._replay = _script("replay.lua")
        try:
            self._check()
        except AuthenticationError as error:
            raise origin.error(
                f"the Redis of the ledger refuses the login: {error}",
                "Correct user and password in the URL: redis://user:password@host:port/0.",
            ) from error
        except _DOWN as error:
            self._failed(error)

    # -- the connection ----------------------------------------------------------------------------

    def _open(self) -> Any:
        if self._client is None:
            # RESP3 would let the server push messages, and the client raise its timeouts for them.
            self._client = (RedisCluster if self._cluster else Redis).from_url(
                self._url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_CONNECT_S,
                protocol=2,
            )
        if self._moved:
            self._client.nodes_manager.initialize()
            self._moved = False
        return self._client

    def _node(self, key: str) -> Any:
        client = self._open()
        if not self._cluster:
            return client
        return client.get_redis_connection(client.get_node_from_key(key))

    def _check(self) -> None:
        """Raise ConfigurationError where this Redis may evict counters."""
        client = self._open()
        nodes = [client]
        if self._cluster:
            nodes = [client.get_redis_connection(node) for node in client.get_primaries()]
        for policy in map(_eviction, nodes):
            if policy is None:
                say_once(
                    "ledger",
                    "eviction",
                    "the ledger's Redis does not say what it evicts (INFO and CONFIG are "
                    "forbidden); see that its maxmemory-policy is noeviction",
                )
            elif policy != "noeviction":
                raise self._origin.error(
                    "the Redis of the ledger evicts keys when memory is short (maxmemory-policy "
                    f"{policy})",
                    _REMEDY,
                )
        self._checked = True

    def _failed(self, error: Exception) -> None:
        self._moved = self._cluster
        say_once(
            "ledger",
            type(error),
            "the ledger's Redis does not answer (%s); budgets go on by their on_outage",
            error,
        )

    # -- commands ----------------------------------------------------------------------------------

    def _each(self, keys: Sequence[str], commands: Sequence[tuple[str | int, ...]]) -> list[Any]:
        """The answer to each of `commands`, on the node of its key, or the error it got instead."""
        answers: list[Any] = [None] * len(commands)
        groups: dict[Any, list[int]] = {}
        try:
            for i, key in enumerate(keys):
                groups.setdefault(self._node(key), []).append(i)
        except _DOWN as error:
            return [error] * len(commands)
        for node, members in groups.items():
            found: list[Any]
            try:
                with node.pipeline(transaction=False) as pipe:
                    for i in members:
                        pipe.execute_command(*commands[i])
                    found = pipe.execute(raise_on_error=False)
            except _DOWN as error:
                found = [error] * len(members)
            for i, answer in zip(members, found, strict=True):
                answers[i] = answer
        return answers

    def _run(
        self, script: _Script, keys: Sequence[str], args: Sequence[tuple[str | int, ...]]
    ) -> list[Any]:
        """The answer of `script` for each of `keys`; None where there is none."""
        names = [f"spanledger:{{{key}}}" for key in keys]
        commands: list[tuple[str | int, ...]] = [
            ("EVALSHA", script.sha, 1, name, *more) for name, more in zip(names, args, strict=True)
        ]
        answers = self._each(names, commands)
        # A restart or SCRIPT FLUSH forgets scripts. Those commands did nothing: load it and say
        # them again.
        missing = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missing:
            again = [names[i] for i in missing]
            self._each(again, [("SCRIPT", "LOAD", script.text)] * len(again))
            repeated = self._each(again, [commands[i] for i in missing])
            for i, answer in zip(missing, repeated, strict=True):
                answers[i] = answer
        return self._answered(answers)

    def _answered(self, answers: list[Any]) -> list[Any]:
        for error in answers:
            if isinstance(error, Exception):
                self._failed(error)
        return [None if isinstance(answer, Exception) else answer for answer in answers]

    # -- the store ---------------------------------------------------------------------------------

    def sync(self, reports: Sequence[Report]) -> Sequence[Grant | None]:
        answers = self._run(
            self._sync,
            [report.key for report in reports],
            [
                (*report[1:13], int(report.final), report.expires_s, _LEASE_MS, self.clock_ms)
                for report in reports
            ],
        )
        return [
            answer and Grant(*answer[:7], *(flag == 1 for flag in answer[7:])) for answer in answers
        ]

    def read(self, keys: Sequence[str]) -> Sequence[Totals | None]:
        answers = self._run(self._read, keys, [(_LEASE_MS, self.clock_ms)] * len(keys))
        return [answer and Totals(answer[0], answer[1], answer[2] == 1) for answer in answers]

    def replay(self, key: str, producer: str, cum: int) -> bool | None:
        (answer,) = self._run(self._replay, [key], [(producer, cum)])
        return None if answer is None else answer == 1

    def identity(self) -> str | None:
        if not self._checked:
            self._check_late()
        try:
            keys = self._mark_keys()
        except _DOWN as error:
            self._failed(error)
            return None
        commands: list[tuple[str | int, ...]] = []
        for key in keys:
            # A write, so that a replica or a full Redis does not pass for one that is there.
            commands += [("SET", key, os.urandom(8).hex(), "NX"), ("GET", key)]
        answers = self._answered(self._each([str(command[1]) for command in commands], commands))
        found = {
            key: answer.decode()
            for key, answer in zip(keys, answers[1::2], strict=True)
            if isinstance(answer, bytes)
        }
        self._marks |= found
        # Of a node that is away, nobody knows yet whether it remembers.
        return " ".join(self._marks.get(key, "") for key in keys) if found else None

    def _mark_keys(self) -> list[str]:
        """A key on each node: one of them may lose its memory alone."""
        if not self._cluster:
            return [_MARK]
        client = self._open()
        nodes = len(client.get_primaries())
        found: dict[str, str] = {}
        for number in range(_MOST_MARKS):
            key = f"{_MARK}:{number}"
            found.setdefault(client.get_node_from_key(key).name, key)
            if len(found) == nodes:
                break
        return list(found.values())

    def _check_late(self) -> None:
        try:
            self._check()
        except ConfigurationError as error:
            self._checked = True
            say_once("ledger", "eviction", "%s", error)
        except _DOWN as error:
            self._failed(error)

    def before_fork(self) -> None:
        """The child does not use this connection."""

    def after_fork(self, *, in_child: bool) -> None:
        if in_child:
            self._client = None

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _eviction(node: Any) -> str | None:
    """What a Redis evicts; None where it does not say."""
    for command, pick in (
        (("INFO", "memory"), "maxmemory_policy"),
        (("CONFIG", "GET", "maxmemory-policy"), "maxmemory-policy"),
    ):
        try:
            found: Any = node.execute_command(*command)
        except NoPermissionError:
            continue
        if isinstance(found, dict) and pick in found:
            return str(found[pick])
    return None
