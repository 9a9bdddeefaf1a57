"""Budgets from an application's code: how one stands, and limits set at run time."""

from decimal import Decimal

from spanledger.api.errors import ConfigurationError
from spanledger.api.gate import gate
from spanledger.budget.budgets import Budgets
from spanledger.budget.config import AMOUNTS, Slot
from spanledger.budget.scopes import Scope
from spanledger.budget.shared import limit_of
from spanledger.budget.status import BudgetStatus


def budget_status(
    *,
    tenant: str | None = None,
    user: str | None = None,
    feature: str | None = None,
    provider: str | None = None,
) -> BudgetStatus:
    """How the budget stands that is worst off, of those for these names; without a name, the global
    one.

    For a banner, or a cheaper path, before a call is made. Where there is no such budget its tier
    is `ok` and all amounts are None. Takes microseconds for a scope in use, else a round trip to
    the ledger, 100 ms at most; in an event loop: `await asyncio.to_thread(budget_status, ...)`.
    """
    budgets = _running()
    if budgets is None:
        return BudgetStatus(str(Scope.of(tenant, user, feature, provider)))
    return budgets.status(tenant=tenant, user=user, feature=feature, provider=provider)


def set_budget(scope: str, **amounts: Decimal | int | str) -> None:
    """Set a scope's limits, in all processes of the ledger, within a second and before the
    configuration file's.

        set_budget("tenant:acme", monthly_usd=1500, daily_usd="99.50")

    amounts: by daily_usd, weekly_usd, monthly_usd, daily_credits, weekly_credits, monthly_credits.

    Waits for the ledger's store, so in an event loop call it in a thread. Raises ConfigurationError
    for what is no scope or amount, OSError where the store cannot be reached.
    """
    budgets = _needed(scope)
    limits = {_slot(scope, key): _limit(key, amount) for key, amount in amounts.items()}
    if not limits:
        raise _error(scope, "no amount is given", f"Give one of {', '.join(AMOUNTS)}.")
    for slot, limit in limits.items():
        budgets.set_limit(slot, limit)


def reset_budget(scope: str) -> None:
    """Take back what `set_budget` and the cli set for a scope: the configuration file counts again.

    What was spent stays spent. Raises as `set_budget` does.
    """
    budgets = _needed(scope)
    for key in AMOUNTS:
        budgets.set_limit(_slot(scope, key), None)


def _running() -> Budgets | None:
    found = getattr(gate(), "budgets", None)
    return found if isinstance(found, Budgets) else None


def _needed(scope: str) -> Budgets:
    budgets = _running()
    if budgets is None:
        raise _error(scope, "no budgets are running in this process", "Start spanledger first.")
    return budgets


def _slot(scope: str, key: str) -> Slot:
    try:
        return Slot(Scope.parse(scope), *AMOUNTS[key])
    except KeyError:
        raise _error(key, "is no amount of a budget", f"Use {', '.join(AMOUNTS)}.") from None
    except ValueError as error:
        raise _error(scope, str(error), 'Write "global", "tenant:acme" or the like.') from error


def _limit(key: str, amount: Decimal | int | str) -> int:
    try:
        return limit_of(Decimal(amount))
    except (ValueError, ArithmeticError, TypeError) as error:
        raise _error(key, f"is {amount!r}", "Give a number of 0 or more.") from error


def _error(key: str, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(problem, source="code", key=key, remedy=remedy)
