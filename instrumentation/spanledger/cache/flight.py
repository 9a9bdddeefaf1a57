"""What a caller of the data layer gets: a hit, a lead, a flight to follow, or its failure."""

import json
import time
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Final, Literal, NamedTuple, cast

from spanledger.api.guard import say_once, swallow
from spanledger.cache.codec import UnstorableError, pack, unpack
from spanledger.cache.config import CacheConfig, Rule
from spanledger.cache.steps import Call, Steps, Wait, adrive, drive
from spanledger.cache.store import Ask, Failure, Kept, Packed, Reply, Store, StoreDownError, Waiter

ErrorKind = Literal["rejected", "unavailable", "own"]
"""Whom a leader's failure concerns.

rejected: everybody who asks the same (the provider refuses the request itself: 400, 404, 422).
unavailable: everybody for now (timeout, refused connection, 429, 5xx); what is stale is served for
    some seconds.
own: the leader alone (its budget, its credentials, its cancellation): a follower leads next.
"""

HOLD_S: Final = 5.0
"""After an `unavailable`, what may still be served is served for so long without a new attempt."""

MOST_FLIGHTS: Final = 3
"""A follower of so many flights that ended without a result makes the call by itself."""

_UNSTORABLE: Final = "unstorable"  # says nothing to followers: each makes the call alone
_encode_detail: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Saved(NamedTuple):
    """What the avoided call cost when it was last made; None where that is not known."""

    nano_usd: int | None
    credits: Decimal | None


class Hit(NamedTuple):
    """A result to serve: equal to the provider's, and this caller's own.

    age_s: seconds since it was fetched. stale: it is past its freshness.
    """

    value: object
    age_s: float
    stale: bool
    saved: Saved


class Failed(NamedTuple):
    """The leader failed in a way that concerns its followers. Of `error` and `detail` at least one
    is there.

    error: a copy of the leader's exception, where the leader is in this process.
    detail: what the leader said of it for other processes (JSON), such as status and body.
    """

    kind: ErrorKind
    error: BaseException | None
    detail: object


class Lookup(NamedTuple):
    """One look into the cache: where, for what, by which rule, on which terms."""

    store: Store
    config: CacheConfig
    key: str
    rule: Rule
    ask: Ask

    def asked(self, ask: Ask) -> Call:
        """The step that asks the store; a lead that comes when the caller has gone is given on."""
        return Call(self.store, partial(self.store.ask, self.key, ask), self._give_on)

    def answer(self, reply: Reply) -> "Hit | Lead | Follow":
        """What a reply (not a failure) is to the caller. Raises ValueError for a damaged entry."""
        if reply.verdict == "follow":
            return Follow(self, reply)
        if reply.verdict == "lead":
            return Lead(self, reply.token, reply.kept)
        assert reply.kept
        return self.hit(reply.kept)

    def hit(self, kept: Kept) -> Hit:
        """Raises ValueError for a damaged entry."""
        data, nano_usd, credits_ = kept.packed
        value = unpack(data, self.config.max_entry_bytes)
        return Hit(value, kept.age_s, not kept.fresh, Saved(nano_usd, credits_))

    def _give_on(self, reply: Reply) -> None:
        if reply.verdict == "lead":
            with swallow("cache.undo"), suppress(StoreDownError):
                self.store.fail(self.key, reply.token, Failure(None))


class Lead:
    """Leave to fetch the result for everybody who asks the same. It ends once: by `store`, `fail`
    or `abandon`.

    A lead that is no longer referenced, or whose process is silent, is given to another within a
    second or so; what the late leader brings is then refused. A lead that is `alone` has no
    followers, and its end does nothing.

    bypassed: because the application said so (`cache_control`).
    """

    __slots__ = ("__weakref__", "_done", "_kept", "_lookup", "_token", "bypassed")

    def __init__(
        self,
        lookup: Lookup | None = None,
        token: int = 0,
        kept: Kept | None = None,
        *,
        bypassed: bool = False,
    ) -> None:
        self._lookup = lookup
        self._token = token
        self._kept = kept
        self._done = False
        self.bypassed = bypassed
        if lookup:
            lookup.store.hold(lookup.key, token, self)

    @property
    def alone(self) -> bool:
        """Whether the call is made without the cache: bypassed, store down, or waited too long."""
        return self._lookup is None

    @property
    def has_stale(self) -> bool:
        """Whether there is a result to serve, should the provider fail or a budget refuse."""
        return self._kept is not None

    def stale(self) -> Hit | None:
        """That result; it may still be fresh, where this lead refreshes it ahead of its expiry."""
        if self._lookup and self._kept:
            with swallow("cache.stale"):
                return self._lookup.hit(self._kept)
        return None

    def store(
        self,
        value: object,
        charge_nano_usd: int | None,
        credits: Decimal | None = None,
        *,
        empty: bool | None = None,
    ) -> None:
        """Keep the result and give it to the followers.

        charge_nano_usd, credits: what the call cost, None where unknown: what a hit will have
            saved.
        empty: whether the result is an empty one; by default, whether Python takes it for one.
        """
        drive(self._store(value, charge_nano_usd, credits, empty=empty))

    async def async_store(
        self,
        value: object,
        charge_nano_usd: int | None,
        credits: Decimal | None = None,
        *,
        empty: bool | None = None,
    ) -> None:
        """As `store`, without blocking the event loop."""
        await adrive(self._store(value, charge_nano_usd, credits, empty=empty))

    def fail(
        self, error_kind: ErrorKind, error: BaseException | None = None, detail: object = None
    ) -> None:
        """Say that there is no result.

        error: for followers in this process, who get copies. detail: JSON, for followers in other
            processes.
        """
        drive(self._fail(error_kind, error, detail))

    async def async_fail(
        self, error_kind: ErrorKind, error: BaseException | None = None, detail: object = None
    ) -> None:
        """As `fail`, without blocking the event loop."""
        await adrive(self._fail(error_kind, error, detail))

    def abandon(self) -> None:
        """Give the lead on without waiting: for cancellations and the ends of generators."""
        with swallow("cache.abandon"), suppress(StoreDownError):
            if call := self._failing(Failure(None)):
                call.leave()

    # -- steps -------------------------------------------------------------------------------------

    def _store(
        self,
        value: object,
        nano_usd: int | None,
        credits_: Decimal | None,
        *,
        empty: bool | None,
    ) -> Steps[None]:
        lookup = self._lookup
        if lookup is None or self._done:
            return
        with swallow("cache.store"), suppress(StoreDownError):
            try:
                data = pack(value, lookup.config.max_entry_bytes)
            except UnstorableError as error:
                say_once(
                    "cache.store",
                    lookup.rule.pattern,
                    'a result under [cache."%s"] cannot be cached: %s',
                    lookup.rule.pattern,
                    error,
                )
                if call := self._failing(Failure(_UNSTORABLE)):
                    yield call
                return
            self._done = True
            fresh_s, stale_s = _times(lookup, empty=not value if empty is None else empty)
            packed = Packed(data, nano_usd, credits_)
            yield Call(
                lookup.store,
                partial(lookup.store.put, lookup.key, self._token, packed, fresh_s, stale_s),
            )

    def _fail(self, kind: ErrorKind, error: BaseException | None, detail: object) -> Steps[None]:
        with swallow("cache.fail"), suppress(StoreDownError):
            failure = Failure(None)
            if kind != "own":
                text = None if detail is None else _encode_detail(detail).encode()
                failure = Failure(kind, text, error, HOLD_S if kind == "unavailable" else 0.0)
            if call := self._failing(failure):
                yield call

    def _failing(self, failure: Failure) -> Call | None:
        lookup = self._lookup
        if lookup is None or self._done:
            return None
        self._done = True
        return Call(lookup.store, partial(lookup.store.fail, lookup.key, self._token, failure))


class Follow:
    """Somebody else is fetching the result. Giving up, or being cancelled, harms nobody."""

    __slots__ = ("_followed", "_lookup")

    def __init__(self, lookup: Lookup, followed: Reply) -> None:
        self._lookup = lookup
        self._followed = followed

    def wait(self, timeout: float | None = None) -> Hit | Lead | Failed:
        """Wait for the leader's result.

        timeout: seconds, after which the caller makes the call alone; by default as configured
            (`wait`).
        A `Lead` that is not alone means: the leader is gone, and this caller fetches the result for
        the others.
        """
        return drive(self._wait(timeout))

    async def async_wait(self, timeout: float | None = None) -> Hit | Lead | Failed:  # noqa: ASYNC109
        """As `wait`, without blocking the event loop."""
        return await adrive(self._wait(timeout))

    def _wait(self, timeout: float | None) -> Steps[Hit | Lead | Failed]:
        with swallow("cache.follow"), suppress(StoreDownError):
            wait_s = self._lookup.config.wait_s if timeout is None else timeout
            return (yield from self._follow(time.monotonic() + wait_s))
        return Lead()

    def _follow(self, deadline: float) -> Steps[Hit | Lead | Failed]:
        lookup, followed, flights = self._lookup, self._followed, 1
        while flights <= MOST_FLIGHTS:
            news = yield from self._news(followed, deadline)
            if news is None:
                if time.monotonic() >= deadline:
                    break
                news = yield lookup.asked(lookup.ask._replace(following=followed.token))
            if news.verdict == "failed":
                return _failed(news)
            if news.verdict != "follow":
                return cast("Hit | Lead", lookup.answer(news))
            flights += news.token != followed.token
            followed = news
        return Lead()

    def _news(self, followed: Reply, deadline: float) -> Steps[Reply | None]:
        store, key = self._lookup.store, self._lookup.key
        waiter = Waiter()
        store.watch(key, followed, waiter)
        try:
            left = max(0.0, deadline - time.monotonic())
            news: Reply | None = yield Wait(waiter, min(left, store.recheck_s or left))
            return news
        finally:
            store.unwatch(key, followed, waiter)


def _times(lookup: Lookup, *, empty: bool) -> tuple[float, float]:
    """Until which ages, in seconds, a result fetched now is fresh, and may be served stale."""
    rule, ttl_s = lookup.rule, lookup.ask.max_age_s
    fresh_s = rule.fresh_s if ttl_s is None else ttl_s
    if empty:
        fresh_s = min(fresh_s, rule.empty_s)
        return fresh_s, fresh_s
    return fresh_s, max(fresh_s, rule.stale_s)


def _failed(news: Reply) -> Failed | Lead:
    error = _copy(news.error) if news.error else None
    detail: object = json.loads(news.detail) if news.detail else None
    if error is None and detail is None:
        return Lead()
    return Failed(cast("ErrorKind", news.kind), error, detail)


def _copy(error: BaseException) -> BaseException | None:
    """An exception like `error`, with a traceback of its own; None where it cannot be made."""
    kind = type(error)
    try:
        twin = kind.__new__(kind, *error.args)
        twin.__dict__.update(error.__dict__)
    except Exception:  # noqa: BLE001 - an exception class may do anything
        return None
    twin.args = error.args
    return twin
