"""The ledger as budgets see it: what was spent and held per scope and period, shared by many
processes.

    ledger = open_ledger("redis://localhost:6379/0")
    answer = ledger.reserve(scopes, estimate)        # Reservation or Denied
    answer.settle(actual)                            # or answer.release(): exactly once

Amounts are integers: nano-USD, or nano-credits where the budget is in credits. A ledger does not
care which, as long as one key never mixes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from spanledger.api.settings import Origin
from spanledger.ledger.store import IN_CODE

if TYPE_CHECKING:
    from spanledger.ledger.leases import LeasedLedger
    from spanledger.ledger.store import Store

_REDIS: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")

OnOutage = Literal["local", "open", "closed"]

LARGEST_AMOUNT: Final = 2**53 - 1
"""The largest amount that a scope can hold in one period: 9,007,199 USD in nano-USD (a Redis script
counts in doubles, which are exact up to here). A larger limit counts as this one: whoever reads
budgets refuses it."""


CHARGE_PREFIX: Final = 20
"""So many characters of a charge id, and of a producer's name, are those of their process."""


PATIENCE_S: Final = 0.08
"""A call waits this long for leases, all in all; then its budgets' outage policy decides."""


class LimitedScope(NamedTuple):
    """One budget's counter for one period, as one paid call sees it.

    key: scope and period, unique, such as `tenant:acme|month|2026-11`.
    limit: the amount up to which this call may go. Calls of one key may have different limits (the
        hard tier for calls at full price, the ceiling for degraded ones), and a limit may change at
        any time.
    expires_s: Unix time in seconds after which the store may forget the counter (some days after
        the period's end).
    on_outage: what happens while the store is down and the lease is used up or expired: `local`
        goes on up to `outage_allowance`, `open` goes on, `closed` denies.
    outage_allowance: amount that each process may spend beyond its lease during one outage (policy
        `local`).
    """

    key: str
    limit: int
    expires_s: float
    on_outage: OnOutage = "local"
    outage_allowance: int = 0


class Denied(NamedTuple):
    """A reservation that does not fit into the scope `key`.

    spent, held: of all processes together, as far as known here, when it was denied.
    unverified: the store was not there to ask; the policy `closed`, or a used up allowance, denied.
    """

    key: str
    spent: int
    held: int
    unverified: bool


class ScopeState(NamedTuple):
    """What was spent in a scope and period, and what is held: estimates of calls in flight, never
    leases.

    unverified: the store is down, or recovers from having lost its memory: the true amounts may be
        higher.
    """

    spent: int
    held: int
    unverified: bool


class Reservation(Protocol):
    """An estimate held in each of a call's scopes. It ends exactly once; a second ending does
    nothing.

    Both endings take microseconds and never touch the network: any thread, event loop or finalizer
    may call them. An ending in a forked child of the process that reserved does nothing: the call
    is the parent's.
    """

    def settle(self, actual: int) -> None:
        """Count `actual` as spent in place of the estimate."""
        ...

    def release(self) -> None:
        """Give the estimate back: nothing was spent."""
        ...


class Ledger(Protocol):
    """The shared counters. All methods are thread-safe; none raises for a store that is down."""

    def reserve(
        self, scopes: Sequence[LimitedScope], estimate: int, *, deadline: float | None = None
    ) -> Reservation | Denied:
        """Hold `estimate` in all of `scopes`, or in none.

        deadline: until when it may wait for the store (`time.monotonic`), where one call reserves
            several times; else for `PATIENCE_S`.

        Takes microseconds as a rule, a round trip to the store when a lease is short, never more
        than 100 ms.
        """
        ...

    def prepare(
        self, wanted: Sequence[tuple[Sequence[LimitedScope], int]], deadline: float
    ) -> None:
        """Have the leases that these reservations will need granted in one round trip, not one
        after the other. Waits until then, at most until `deadline`.
        """
        ...

    def reserve_nowait(
        self, scopes: Sequence[LimitedScope], estimate: int
    ) -> Reservation | Denied | None:
        """As `reserve`, without the network: None where only the store could tell.

        For callers on an event loop, who then run `reserve` in a thread. Whoever abandons that
        thread must release what it returns.
        """
        ...

    def add(self, scopes: Sequence[LimitedScope], actual: int) -> None:
        """Count `actual` as spent in all of `scopes`: what was never admitted. Counted, never
        refused; no network.
        """
        ...

    def state(self, keys: Sequence[str]) -> Mapping[str, ScopeState]:
        """The state of every one of `keys`, all processes together; a key that nobody used yet has
        spent nothing.

        At most one store read (100 ms at most), none where it is known here and at most 250 ms old.
        While the store is down: what is known here, `unverified`.
        """
        ...

    def known(self, keys: Sequence[str]) -> Mapping[str, ScopeState]:
        """As `state`, without the network: only the keys that are known here.

        A scope in use is refreshed once to four times a second; what this process spends shows
        at once.
        """
        ...

    def producers(self, key: str) -> int:
        """How many processes spend from `key` now, this one included, as far as known here; no
        network.
        """
        ...

    def counters(self) -> Iterable[tuple[str, ScopeState]]:
        """All that is known here, for metrics; no network."""
        ...

    def close(self) -> None:
        """Report everything and give the leases back; what is in flight counts as spent at its
        estimate.

        A second close does nothing. Bounded: about a second where the store does not answer.
        """
        ...


def open_ledger(url: str | None = None, origin: Origin = IN_CODE) -> "LeasedLedger":
    """The ledger at `url`; `origin` says where that was said, for errors.

    `memory://` (also None): this process alone. `sqlite:///path` (relative; an absolute path makes
    it four slashes): the processes of one machine. `redis://`,
    `rediss://`, `unix://`: a fleet; `redis+cluster://` and `rediss+cluster://` where that Redis is
    a cluster.

    Raises ConfigurationError: the URL is none of these, the file cannot be opened, the Redis
    refuses the login or may evict counters. A Redis that cannot be reached is no error: it is an
    outage, and budgets say what then.
    """
    # The stores import this module; and only who uses redis pays for its import (60 ms).
    from spanledger.ledger.leases import LeasedLedger  # noqa: PLC0415

    return LeasedLedger(_open_store(url or "memory://", origin))


def check_ledger_url(url: str, origin: Origin) -> None:
    """Raise ConfigurationError where `url` is that of no ledger. Nothing is opened."""
    scheme, _, rest = url.partition("://")
    if scheme in _REDIS:
        from spanledger.ledger.redis import check_url  # noqa: PLC0415

        check_url(url, origin)
    elif url != "memory://" and not (scheme == "sqlite" and len(rest) > 1 and rest[0] == "/"):
        raise origin.error(
            f"no ledger has a URL that starts with {scheme!r}",  # the rest may hold a password
            "Write memory://, sqlite:///ledger.db (relative), sqlite:////var/lib/ledger.db "
            f"(absolute), or one of {', '.join(f'{name}://...' for name in _REDIS)}.",
        )


def _open_store(url: str, origin: Origin) -> "Store":
    check_ledger_url(url, origin)
    scheme, _, rest = url.partition("://")
    if scheme == "memory":
        from spanledger.ledger.memory import MemoryStore  # noqa: PLC0415

        return MemoryStore()
    if scheme == "sqlite":
        from spanledger.ledger.sqlite import SqliteStore  # noqa: PLC0415

        return SqliteStore(Path(rest[1:]).expanduser(), origin)
    from spanledger.ledger.redis import RedisStore  # noqa: PLC0415

    return RedisStore(url, origin=origin)
