"""Who spent in a budget's scope and period, from the journal."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, Protocol

from spanledger.budget.amounts import Unit
from spanledger.budget.events import BudgetEvent, Spender, TopSpenders
from spanledger.budget.scopes import DIMENSIONS, Scope, unescape

GROUPS: Final = ("tenant", "user", "feature", "model")
MOST: Final = 3


class Spending(Protocol):
    """What a journal is asked."""

    def spent(
        self, by: str, span: tuple[int, int], within: Mapping[str, str], *, credits: bool
    ) -> list[tuple[str | None, Decimal]]:
        """USD, or credits, by each `by` in `span`, from the rows with the values `within`."""
        ...


def top_spenders(journal: Spending, event: BudgetEvent) -> TopSpenders:
    """The three largest spenders of each kind that the event's scope leaves open.

    Raises JournalError.
    """
    since, until = (round(at.timestamp()) * 10**9 for at in (event.starts_at, event.resets_at))
    return spenders(journal, Scope.parse(event.scope), event.unit, (since, until), most=MOST)


def spenders(
    journal: Spending, scope: Scope, unit: Unit, span: tuple[int, int], *, most: int
) -> TopSpenders:
    """The `most` largest spenders in `scope`, by tenant, user, feature and model.

    span: from when to before when, Unix nanoseconds.

    What the scope names itself is left out. Raises JournalError.
    """
    within = {
        dimension: unescape(name) for dimension, name in zip(DIMENSIONS, scope, strict=True) if name
    }
    return {
        group: _largest(journal.spent(group, span, within, credits=unit == "credits"), most)
        for group in GROUPS
        if group not in within
    }


def _largest(amounts: Iterable[tuple[str | None, Decimal]], most: int) -> list[Spender]:
    sums: dict[str, Decimal] = {}
    for name, amount in amounts:
        sums[name or "(none)"] = sums.get(name or "(none)", Decimal(0)) + amount
    found = [Spender(name, amount) for name, amount in sums.items() if amount]
    return sorted(found, key=lambda spender: (-spender.amount, spender.name))[:most]
