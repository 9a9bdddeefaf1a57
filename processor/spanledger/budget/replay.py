"""What a killed process spent, and had not told the ledger yet, comes from its journal.

The ledger knows what it told, and counted what it had in flight at its estimate; the journal knows
what it really spent, but for the last moment (200 ms).
"""

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from spanledger.api.errors import JournalError
from spanledger.budget.budgets import Budgets
from spanledger.ledger.journal_producers import Spent
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.protocol import LimitedScope

_INTERVAL_S: Final = 5.0
_LONGEST_PERIOD_NS: Final = 32 * 86_400 * 10**9


class Producers(Protocol):
    """What is asked of a journal."""

    def say_alive(self, producer: str, ledger: str) -> None: ...
    def claim_silent(self, ledger: str) -> Sequence[str]: ...
    def spent_by(self, producer: str, since_ns: int) -> Sequence[Spent]: ...
    def forget_producer(self, producer: str) -> None: ...


class Replay:
    """Says that this process lives, and brings into `ledger`, at `url`, what those spent that do
    not.
    """

    def __init__(
        self, budgets: Budgets, ledger: LeasedLedger, url: str, journal: Producers
    ) -> None:
        self._budgets = budgets
        self._ledger = ledger
        self._place = hashlib.sha256(url.encode()).hexdigest()  # it may hold a password
        self._journal = journal
        self._known_as: str | None = None
        self._look_at = 0.0

    def look(self) -> None:
        """One round, for a thread that may wait. Costs nothing between two, and without budgets."""
        name = self._ledger.producer  # a forked child has one of its own
        now = time.monotonic()
        if self._budgets.idle or (name == self._known_as and now < self._look_at):
            return
        self._look_at = now + _INTERVAL_S
        try:
            self._journal.say_alive(name, self._place)
            self._known_as = name
            if self._ledger.reachable:
                for producer in self._journal.claim_silent(self._place):
                    self._replay(producer)
        except JournalError:
            return  # the recorder says so; it is tried again

    def _replay(self, producer: str) -> None:
        spent: Counter[LimitedScope] = Counter()
        for part in self._journal.spent_by(producer, time.time_ns() - _LONGEST_PERIOD_NS):
            spent.update(self._budgets.counted(part))
        amounts = {scope.key: amount for scope, amount in spent.items()}
        corrected = set(self._ledger.replay(producer, amounts))
        # A store takes nobody for dead where nobody else reports: there it will the next time.
        for scope in spent:
            if scope.key not in corrected:
                self._ledger.add((scope,), 0)

    def close(self) -> None:
        """Last of all: what was told in order needs no replay, but calls may end while the rest is
        closed.
        """
        if self._known_as is None or not self._ledger.left:
            return
        self._journal.forget_producer(self._known_as)
        if not self._ledger.left:
            self._journal.say_alive(self._known_as, self._place)
