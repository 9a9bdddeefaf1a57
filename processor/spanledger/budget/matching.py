"""Which budgets a call counts in."""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

from spanledger.budget.amounts import Unit
from spanledger.budget.config import Budget
from spanledger.budget.periods import PeriodKind
from spanledger.budget.scopes import ANY, Scope


class Match(NamedTuple):
    """A budget, and the scope in which a call counts there (for a template: the one of the call's
    tenant, ...).
    """

    budget: Budget
    scope: Scope


class Matcher:
    """The budgets, ready to be found.

    Budgets whose scopes name different dimensions all count. Of those that name the same, the most
    specific one counts,
    for each period and unit: the one with the fewest `*`, and of equals the one that names the
        tenant, then the user, the feature, the provider.
    """

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self._found: dict[tuple[int, ...], dict[Scope, list[Budget]]] = {}
        for budget in budgets:
            same = self._found.setdefault(budget.scope.dimensions, {})
            same.setdefault(budget.scope, []).append(budget)

    def names(self, dimension: int) -> bool:
        """Some budget names the dimension at this place."""
        return any(dimension in dimensions for dimensions in self._found)

    def of_call(self, values: Scope) -> Iterator[Match]:
        """All budgets that a call with these names counts in."""
        for dimensions in self._found:
            scope = values.within(dimensions)
            if len(scope.dimensions) == len(dimensions):
                yield from self.of_scope(scope)

    def of_scope(self, scope: Scope) -> Iterator[Match]:
        """The budgets of just this scope, which is no template."""
        same = self._found.get(scope.dimensions, {})
        taken: set[tuple[PeriodKind, Unit]] = set()
        for pattern in _patterns(scope):
            for budget in same.get(pattern, ()):
                kind = (budget.period, budget.unit)
                if kind not in taken:
                    taken.add(kind)
                    yield Match(budget, scope)

    def concrete(self) -> Iterator[Match]:
        """The budgets that are for one scope only."""
        for same in self._found.values():
            for scope in same:
                if not scope.is_template:
                    yield from self.of_scope(scope)


def _patterns(scope: Scope) -> list[Scope]:
    """What may stand in a budget's scope to cover `scope`, the most specific first."""
    choices = [(name, ANY) if name else (None,) for name in scope]
    patterns = [Scope(*names) for names in product(*choices)]
    return sorted(patterns, key=lambda pattern: sum(name == ANY for name in pattern))
