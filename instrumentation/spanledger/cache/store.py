"""What the data layer asks of a store, and which stores there are.

A store keeps, by key, an entry (a packed result with its age and charge) and a flight (who is
fetching one now). Each operation is atomic for its key. A flight has a fencing token that only
grows: what its leader brings counts only while the flight is still the leader's.
"""

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from decimal import Decimal
from typing import Final, Literal, NamedTuple, Protocol

from spanledger.api.errors import SpanledgerError
from spanledger.api.settings import Origin
from spanledger.cache.config import MAX_BYTES

LEASE_S: Final = 1.0
"""How long a leader is believed to be at work without a sign of life, in seconds."""

_IN_CODE: Final = Origin("code", "cache_store")
_REMEDY: Final = "Set it to memory:// or redis://host:port/db."


class StoreDownError(SpanledgerError):
    """The store does not answer in time. It never leaves the data layer: the call goes ahead."""


class Packed(NamedTuple):
    """A result to keep: the packed value and what the call that made it cost."""

    data: bytes
    nano_usd: int | None = None
    credits: Decimal | None = None


class Kept(NamedTuple):
    """A result that was kept. fresh: by its own time; a caller may still find it too old."""

    packed: Packed
    age_s: float
    fresh: bool


class Ask(NamedTuple):
    """A caller's question.

    max_age_s: older is not good enough for this caller, who then waits for the flight rather than
        take it.
    refresh: no entry is good enough, only what a flight brings.
    ahead_s: an entry with less than this left to be fresh is fetched anew by one caller.
    following: the token of the flight that the caller waited for: what it, or a later one, brought
        is good enough.
    """

    max_age_s: float | None = None
    refresh: bool = False
    ahead_s: float = 0.0
    following: int = 0


class Reply(NamedTuple):
    """A store's answer.

    verdict: hit (`kept` is to be served); lead (the caller fetches, as the leader of flight
        `token`; `kept` is what could be served if that fails); follow (somebody else leads flight
        `token`); failed (the flight that the caller waited for failed, by `kind`, `detail` and, in
        the leader's process, `error`).
    flight: the in-memory store's own record of the flight to follow.
    """

    verdict: Literal["hit", "lead", "follow", "failed"]
    token: int = 0
    kept: Kept | None = None
    kind: str = ""
    detail: bytes | None = None
    error: BaseException | None = None
    flight: object = None


Waiter = Future[Reply | None]
"""One follower's wait. Its result is the news of its flight, or None: ask the store again."""


class Failure(NamedTuple):
    """How a flight failed.

    kind: what followers are told; None lets one of them lead.
    hold_s: for so long an entry that is still good is served without a new attempt.
    """

    kind: str | None
    detail: bytes | None = None
    error: BaseException | None = None
    hold_s: float = 0.0

    def news(self, token: int) -> Reply | None:
        """What the followers of flight `token` are told."""
        if self.kind is None:
            return None
        return Reply("failed", token, kind=self.kind, detail=self.detail, error=self.error)


class Store(Protocol):
    """Where entries and flights are. `ask`, `put` and `fail` raise StoreDownError."""

    @property
    def blocks(self) -> bool:
        """Whether `ask`, `put` and `fail` do IO, and so must be kept off an event loop."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long an operation takes at most."""
        ...

    @property
    def recheck_s(self) -> float | None:
        """How often a follower must ask to notice that its leader is gone; None: it is told."""
        ...

    def ask(self, key: str, ask: Ask) -> Reply:
        """Answer a caller; where it is to lead, its flight has begun."""
        ...

    def hold(self, key: str, token: int, holder: object) -> None:
        """Keep flight `token` alive while `holder` is referenced and the flight has no end."""
        ...

    def put(self, key: str, token: int, packed: Packed, fresh_s: float, stale_s: float) -> bool:
        """End flight `token` with a result, kept until its age is `stale_s`.

        False: too late, another one leads.
        """
        ...

    def fail(self, key: str, token: int, failure: Failure) -> bool:
        """End flight `token` without a result. False: too late, another one leads."""
        ...

    def watch(self, key: str, followed: Reply, waiter: Waiter) -> None:
        """Tell `waiter`, from any thread, once the flight of `followed` has an end."""
        ...

    def unwatch(self, key: str, followed: Reply, waiter: Waiter) -> None:
        """Tell `waiter` no more."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def open_store(url: str | None, *, max_bytes: int = MAX_BYTES, origin: Origin = _IN_CODE) -> Store:
    """The store that `url` names: None or memory://, redis://, rediss://, unix://.

    Nothing goes to the network yet. max_bytes: of the in-memory store. origin: where the URL was
    said. Raises ConfigurationError.
    """
    if url is None or url == "memory://":
        from spanledger.cache.memory import MemoryStore  # noqa: PLC0415 - each its own imports

        return MemoryStore(max_bytes=max_bytes)
    scheme = url.partition("://")[0]
    if scheme not in ("redis", "rediss", "unix"):
        raise origin.error(f"names a store of an unknown kind ({scheme}://)", _REMEDY)
    from spanledger.cache.redis_store import RedisStore  # noqa: PLC0415 - slow import

    try:
        return RedisStore(url)
    except ValueError:
        # Without the cause: it may quote a part of the password.
        raise origin.error("is not a Redis URL", _REMEDY) from None


def tell(waiter: Waiter, news: Reply | None) -> None:
    """Wake a follower; one that has given up, or was told already, is left alone."""
    with suppress(InvalidStateError):
        waiter.set_result(news)
