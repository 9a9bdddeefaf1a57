"""The store for a fleet: one Redis hash for each key, changed by scripts only."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from spanledger.cache.keeper import Check, Keeper
from spanledger.cache.redis_link import RedisLink, Run, Script
from spanledger.cache.store import (
    LEASE_S,
    Ask,
    Failure,
    Kept,
    Packed,
    Reply,
    Waiter,
)

PREFIX: Final = "spanledger:cache:1:"
TIMEOUT_S: Final = 0.05
LINGER_S: Final = 5.0
"""How long a flight's end stays to be seen by followers in other processes (they poll at 50 ms)."""


class RedisStore:
    """Entries and flights of all processes that share a Redis.

    timeout_s: how long an operation takes at most. lease_s: how long a leader's process may be
        silent.
    Time is the server's. The background thread renews leases and looks for followers; Redis calls
    nobody.
    """

    blocks = True
    recheck_s = None

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, lease_s: float = LEASE_S) -> None:
        self.timeout_s = timeout_s
        self._lease_ms = int(lease_s * 1000)
        self._link = RedisLink(url, timeout_s)
        self._keeper = Keeper(self._check, lease_s * 0.3)
        self._ask = Script.load("ask.lua")
        self._put = Script.load("put.lua")
        self._fail = Script.load("fail.lua")
        self._keep = Script.load("keep.lua")

    def ask(self, key: str, ask: Ask) -> Reply:
        max_age = -1 if ask.max_age_s is None else _ms(ask.max_age_s)
        reply = self._run(
            self._ask,
            key,
            (
                ask.following,
                int(ask.refresh),
                max_age,
                _ms(ask.ahead_s),
                self._lease_ms,
                _ms(LINGER_S),
            ),
        )
        return _read(reply)

    def hold(self, key: str, token: int, holder: object) -> None:
        self._keeper.hold((key, token), holder)

    def put(self, key: str, token: int, packed: Packed, fresh_s: float, stale_s: float) -> bool:
        arguments = (
            token,
            packed.data,
            _ms(fresh_s),
            _ms(stale_s),
            "" if packed.nano_usd is None else packed.nano_usd,
            "" if packed.credits is None else str(packed.credits),
            _ms(LINGER_S),
        )
        try:
            return bool(self._run(self._put, key, arguments))
        finally:
            # Whatever Redis says: this is what the followers in this process wait for.
            self._keeper.end((key, token), Reply("hit", token, Kept(packed, 0.0, fresh=True)))

    def fail(self, key: str, token: int, failure: Failure) -> bool:
        arguments = (
            token,
            failure.kind or "",
            failure.detail or b"",
            _ms(failure.hold_s),
            _ms(LINGER_S),
        )
        try:
            return bool(self._run(self._fail, key, arguments))
        finally:
            self._keeper.end((key, token), failure.news(token))

    def watch(self, key: str, followed: Reply, waiter: Waiter) -> None:
        self._keeper.watch((key, followed.token), waiter)

    def unwatch(self, key: str, followed: Reply, waiter: Waiter) -> None:
        self._keeper.unwatch((key, followed.token), waiter)

    def close(self) -> None:
        """Let go of connections, for good; from now on Redis counts as down."""
        self._link.close()

    def _run(self, script: Script, key: str, arguments: Sequence[str | bytes | int]) -> Any:
        return self._link.run([Run(script, PREFIX + key, arguments)])[0]

    def _check(self, checks: list[Check]) -> list[bool]:
        replies = self._link.run(
            [
                Run(self._keep, PREFIX + key, (token, self._lease_ms if renew else 0))
                for key, token, renew in checks
            ]
        )
        return [bool(reply) for reply in replies]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _read(reply: list[Any]) -> Reply:
    verdict, token, rest = reply[0].decode(), int(reply[1]), reply[2:]
    if verdict == "failed":
        return Reply("failed", token, kind=rest[0].decode(), detail=rest[1] or None)
    if not rest:
        return Reply(verdict, token)
    data, age_ms, fresh, nano_usd, credits_ = rest
    packed = Packed(
        data, int(nano_usd) if nano_usd else None, Decimal(credits_.decode()) if credits_ else None
    )
    return Reply(verdict, token, Kept(packed, int(age_ms) / 1000, bool(fresh)))
