"""What is new in a job's cumulative usage, so that each credit and token of it is booked once.

Crawls, batches and background responses state their whole usage each time they are asked. What was
booked of a job stands in the journal's `jobs`, one line a job, which all processes on that journal
share.
"""

import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from spanledger.api.values import EMPTY, Attribution, Usage
from spanledger.ledger.journal_rows import exact, inexact

_MOST_REMEMBERED: Final = 10_000

Amounts = Mapping[str, int | Decimal]


class Booked(NamedTuple):
    """What was booked of a job: the highest amounts seen, and on whose account it is."""

    units: Amounts
    credits: Decimal | None
    reported_cost: Decimal | None
    attribution: Attribution

    def to_text(self) -> tuple[str, str]:
        """The amounts and the attribution, as the journal keeps them."""
        amounts = {
            "units": {name: exact(amount) for name, amount in self.units.items()},
            "credits": None if self.credits is None else format(self.credits, "f"),
            "reported_cost": None
            if self.reported_cost is None
            else format(self.reported_cost, "f"),
        }
        who = self.attribution
        return json.dumps(amounts), json.dumps(who._replace(extra=dict(who.extra)))

    @classmethod
    def from_text(cls, amounts: str, attribution: str) -> "Booked":
        """What `to_text` wrote."""
        said: dict[str, Any] = json.loads(amounts)
        tenant, user, feature, use_id, extra = json.loads(attribution)
        return cls(
            {name: inexact(amount) for name, amount in said["units"].items()},
            None if said["credits"] is None else Decimal(said["credits"]),
            None if said["reported_cost"] is None else Decimal(said["reported_cost"]),
            Attribution(tenant, user, feature, use_id, extra or EMPTY),
        )


def highest(one: Booked | None, other: Booked | None) -> Booked | None:
    """What two views of a job know together: amounts only grow, so the higher is the later."""
    if one is None or other is None:
        return one or other
    return Booked(
        _highest_units(one.units, other.units),
        _highest(one.credits, other.credits),
        _highest(one.reported_cost, other.reported_cost),
        one.attribution,
    )


def difference(
    usage: Usage, attribution: Attribution, booked: Booked | None
) -> tuple[Usage, Booked]:
    """What of cumulative `usage` is new, never negative, and what is booked with it."""
    if booked is None:
        now = Booked(dict(usage.units), usage.credits, usage.reported_cost, attribution)
        return usage, now
    new = usage._replace(
        units={
            name: amount - before
            for name, amount in usage.units.items()
            if amount > (before := booked.units.get(name, 0))
        },
        credits=_above(usage.credits, booked.credits),
        reported_cost=_above(usage.reported_cost, booked.reported_cost),
        parts=(),  # the parts of the whole; `units` is their sum
    )
    now = Booked(
        _highest_units(booked.units, usage.units),
        _highest(booked.credits, usage.credits),
        _highest(booked.reported_cost, usage.reported_cost),
        booked.attribution,
    )
    return new, now


class Memory:
    """The jobs this process saw last: books them where the journal does not answer in time."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], Booked] = OrderedDict()
        self.lock = threading.Lock()
        _memories.add(self)

    def book(
        self,
        provider: str,
        key: str,
        usage: Usage,
        attribution: Attribution,
        stored: Booked | None = None,
    ) -> tuple[Usage, Booked]:
        """`difference` to what is known here or `stored`, known from now on."""
        with self.lock:
            booked = highest(stored, self._jobs.get((provider, key)))
            new, now = difference(usage, attribution, booked)
            self._jobs[provider, key] = now
            self._jobs.move_to_end((provider, key))
            if len(self._jobs) > _MOST_REMEMBERED:
                self._jobs.popitem(last=False)
        return new, now


_memories: Final[weakref.WeakSet[Memory]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for memory in _memories:
        memory.lock = threading.Lock()  # a thread that the child does not have may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


def _above(amount: Decimal | None, before: Decimal | None) -> Decimal | None:
    return None if amount is None else max(amount - (before or Decimal(0)), Decimal(0))


def _highest(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)


def _highest_units(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}
