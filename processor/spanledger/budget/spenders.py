"""Who spent in a budget's scope and period, from the journal."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, Protocol

from spanledger.budget.amounts import Unit, from_nano
from spanledger.budget.events import BudgetEvent, Spender, TopSpenders
from spanledger.budget.scopes import DIMENSIONS, Scope, escape
from spanledger.ledger.journal_totals import Total

GROUPS: Final = ("tenant", "user", "feature", "model")
MOST: Final = 3


class Totals(Protocol):
    """What a journal is asked."""

    def totals(self, by: tuple[str, ...], since: int | None, until: int | None) -> list[Total]:
        """The rows from `since` to before `until` (Unix nanoseconds), summed by `by`."""
        ...


def top_spenders(journal: Totals, event: BudgetEvent) -> TopSpenders:
    """The three largest spenders of each kind that the event's scope leaves open.

    Raises JournalError.
    """
    since, until = (round(at.timestamp()) * 10**9 for at in (event.starts_at, event.resets_at))
    return spenders(journal, Scope.parse(event.scope), event.unit, (since, until), most=MOST)


def spenders(
    journal: Totals, scope: Scope, unit: Unit, span: tuple[int, int], *, most: int
) -> TopSpenders:
    """The `most` largest spenders in `scope`, by tenant, user, feature and model.

    span: from when to before when, Unix nanoseconds.

    What the scope names itself is left out. Raises JournalError.
    """
    by = (*DIMENSIONS, "model")
    totals = [t for t in journal.totals(by, *span) if _counts_in(scope, t)]
    open_groups = [g for g in GROUPS if g == "model" or not getattr(scope, g)]
    return {group: _largest(totals, by.index(group), unit, most) for group in open_groups}


def _counts_in(scope: Scope, total: Total) -> bool:
    names = total.key[: len(DIMENSIONS)]
    return all(
        wanted is None or (name is not None and wanted == escape(name))
        for wanted, name in zip(scope, names, strict=True)
    )


def _largest(totals: Iterable[Total], place: int, unit: Unit, most: int) -> list[Spender]:
    sums: dict[str, Decimal] = {}
    for total in totals:
        amount = from_nano(total.nano_usd or 0) if unit == "usd" else total.credits
        name = total.key[place] or "(none)"
        sums[name] = sums.get(name, Decimal(0)) + amount
    found = [Spender(name, amount) for name, amount in sums.items() if amount]
    return sorted(found, key=lambda spender: (-spender.amount, spender.name))[:most]
