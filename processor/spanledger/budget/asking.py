"""One call that asks its budgets for leave."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from spanledger.api.errors import BudgetThrottled
from spanledger.api.values import ModelSwap, PaidCall
from spanledger.budget.holds import CreditsEstimate, Pause, Refusal
from spanledger.budget.plans import Plan

_SHORTEST_PAUSE_S: Final = 0.001

Amounts = Sequence[int | None]
"""What a call is reserved as in each group of its plan, nano-units; None where it is blocked."""

CheaperEstimate = Callable[[ModelSwap], int | None]


class Ask(NamedTuple):
    """One call that asks for leave.

    deadline: until when it waits for the ledger, all in all.
    """

    plan: Plan
    call: PaidCall
    amounts: Amounts
    cheaper_estimate: CheaperEstimate | None
    credits_estimate: CreditsEstimate | None
    deadline: float
    nowait: bool


def stale(call: PaidCall, refusal: Refusal) -> bool:
    """A stale result may be served in the place of the call."""
    return call.stale_available and "stale_cache" in refusal.window.budget.degrade


def pause_of(ask: Ask, now: int, waited_s: float) -> Pause | None:
    """How long the critical tier holds the call back. Raises BudgetThrottled."""
    longest = 0.0
    for group, amount in zip(ask.plan.groups, ask.amounts, strict=True):
        for window in group.windows:
            # Where too little is left, the ledger says so.
            if not amount or not window.paces or window.left < amount:
                continue
            wait_s = window.pacer.wait_s(now)
            if wait_s > max(0.0, window.budget.options.max_wait_s - waited_s):
                raise BudgetThrottled(scope=window.scope, retry_after=wait_s)
            longest = max(longest, wait_s)
    return Pause(max(longest, _SHORTEST_PAUSE_S)) if longest else None
