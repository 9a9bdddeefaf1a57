"""What a ledger client and a store say to each other about one scope and period.

Amounts of a producer are absolute: what it ever spent in the scope (`cum`), and up to where it may
go (`cap`, its lease). A message that is lost, repeated or late therefore does no harm: the next one
says it all again.

    store: spent of all = retired + sum of (cum - base) of the producers; base is the part of cum
        that is in retired.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from spanledger.api.settings import Origin

IN_CODE: Final = Origin("code", "ledger")
"""Where the URL of a ledger was said that no setting names."""

LEASE_S: Final = 5.0
"""Seconds that the store honours a lease; the producer uses it for 0.8 of that, by its clock."""


class Report(NamedTuple):
    """What a producer says of one scope, and what it asks for.

    seq: grows with every report of the producer; the store ignores what is older than what it has.
    cum: what the producer ever spent in the scope.
    inflight: its estimates in flight.
    keep: up to where it goes on meanwhile, at least cum + inflight; applied by the producer before
        it is sent.
    least, need: the smallest single estimate, and the sum of all those, that wait for a lease; 0
        where none waits.
    want: how much beyond `keep` it would like to have.
    limit: the limit of those who wait, else of the lease.
    base, retired, generation: as the store last told it; 0 where it never did.
    final: it leaves the scope; what is in flight counts as spent.
    expires_s: Unix time in seconds after which the store may forget the scope.
    """

    key: str
    producer: str
    seq: int
    cum: int
    inflight: int
    keep: int
    least: int
    need: int
    want: int
    limit: int
    base: int
    retired: int
    generation: int
    final: bool
    expires_s: int


class Grant(NamedTuple):
    """What the store answers.

    generation: of the store's memory of this scope; another one means that it lost the former.
    base: the part of the producer's cum that is in `retired` (it was reaped, or had left).
    cap: the lease: the cum up to which the producer may go; never below its `keep`.
    spent, held: of all producers together; held are estimates in flight.
    retired: spent by producers that are gone.
    producers: how many spend from the scope now.
    recovering: the store lost its memory a moment ago and grants nothing until everybody had time
        to report.
    short: somebody needs what others hold unused: give it back.
    stale: the report was older than what the store has; nothing was changed and nothing is granted.
    """

    generation: int
    base: int
    cap: int
    spent: int
    held: int
    retired: int
    producers: int
    recovering: bool
    short: bool
    stale: bool


class Totals(NamedTuple):
    """What all producers together spent and hold in a scope."""

    spent: int
    held: int
    recovering: bool


class Store(Protocol):
    """Where the producers of one fleet meet. No method raises for a store that is down: it answers
    None.

    instant: its answers cost no waiting, so that whoever needs one asks for himself, in any thread.
        All other stores are used by one thread at a time.
    """

    instant: bool

    def sync(self, reports: Sequence[Report]) -> Sequence[Grant | None]:
        """Book each of `reports` by itself; None for what got no answer (booked or not)."""
        ...

    def read(self, keys: Sequence[str]) -> Sequence[Totals | None]:
        """The totals of each of `keys`; zero where nothing was ever booked."""
        ...

    def replay(self, key: str, producer: str, cum: int) -> bool | None:
        """Correct what a dead producer ever spent to `cum`; False where it is not known as dead."""
        ...

    def identity(self) -> str | None:
        """A text that stays the same as long as the store keeps its memory."""
        ...

    def before_fork(self) -> None:
        """The process forks: let go of what must not be shared."""
        ...

    def after_fork(self, *, in_child: bool) -> None:
        """The process has forked."""
        ...

    def close(self) -> None:
        """Let go of connections and files; a later call opens them again."""
        ...
