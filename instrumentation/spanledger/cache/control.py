"""Per-call control of the cache, for applications.

with cache_control(refresh=True):
    client.google.search("opentelemetry")
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import Section


class Control(NamedTuple):
    """What the innermost `cache_control` blocks say."""

    bypass: bool = False
    refresh: bool = False
    ttl_s: float | None = None


_current: Final[ContextVar[Control]] = ContextVar(
    "spanledger-cache-control",
    default=Control(),  # noqa: B039 - a named tuple does not change
)


@contextmanager
def cache_control(
    *, bypass: bool | None = None, refresh: bool | None = None, ttl: str | float | None = None
) -> Generator[None]:
    """Control the cache for the paid calls inside, in this thread or task. Blocks nest; what is
    None is left as it is.

    bypass: neither read nor write the cache, and do not join an identical call in flight.
    refresh: ask the provider (or join a call already on its way to it) and keep what it says.
    ttl: accept no result older than this ("5m", or seconds), and keep what is fetched fresh for as
        long.

    A block, not a decorator: on a coroutine function it would end before the coroutine runs.
    Raises ValueError for a ttl that is not a duration.
    """
    outer = _current.get()
    token = _current.set(
        Control(
            outer.bypass if bypass is None else bypass,
            outer.refresh if refresh is None else refresh,
            outer.ttl_s if ttl is None else _seconds(ttl),
        )
    )
    try:
        yield
    finally:
        _current.reset(token)


def current_control() -> Control:
    """What applies to a call that starts now."""
    return _current.get()


def _seconds(ttl: str | float) -> float:
    try:
        return Section({"ttl": ttl}, "cache_control").seconds("ttl")
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
