"""What comes of asking for a call: an admission with its hold, a pause, or a refusal."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from spanledger.api.errors import BudgetExceeded, Reason
from spanledger.api.gate import Decision
from spanledger.api.guard import say_once
from spanledger.api.values import ModelSwap, PaidCall, Tier
from spanledger.budget.amounts import from_nano, to_nano
from spanledger.budget.plans import ROOM, Group, Plan
from spanledger.budget.tiers import NAMES
from spanledger.budget.windows import Window
from spanledger.ledger.protocol import Denied, Ledger, Reservation

CreditsEstimate = Callable[[PaidCall], int | None]
"""What calls like this one cost, in nano-credits; None where none is known to have cost any."""


class Held(NamedTuple):
    """One group's part of a hold."""

    group: Group
    estimate: int
    reservation: Reservation


class Later:
    """In place of a reservation where nothing is known to be spent: what turns out is counted."""

    __slots__ = ("_group", "_ledger")

    def __init__(self, ledger: Ledger, group: Group) -> None:
        self._ledger: Ledger | None = ledger
        self._group = group

    def settle(self, actual: int) -> None:
        """Count `actual` as spent."""
        ledger, self._ledger = self._ledger, None
        if ledger is not None and actual:
            ledger.add(self._group.full, actual)

    def release(self) -> None:
        """Nothing was spent."""
        self._ledger = None


class Hold:
    """An estimate held in all budgets of a call. It ends exactly once; a second ending does
    nothing.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Held] = ()) -> None:
        self._parts = parts

    def settle(self, actual_nano: int | None, credits: Decimal | None = None) -> None:
        """Count what the call cost: nano-USD, None where no price is known, and credits."""
        for group, estimate, reservation in self._parts:
            actual = group.amount(actual_nano, credits, estimate)
            reservation.settle(actual)
            if actual > estimate:
                for window in group.windows:
                    window.moved += actual - estimate

    def release(self) -> None:
        """Give the estimate back: the call cost nothing."""
        for _, _, reservation in self._parts:
            reservation.release()


NOTHING_HELD: Final = Hold()


class Admission(NamedTuple):
    """Leave to make a call.

    tier: the highest of its budgets' tiers; None where it has no budget.
    decision: as asked, with `swap`'s model, or with the stale result that it announced.
    refusal: with `swap`: what the call is told where the provider rejects that model.
    """

    tier: Tier | None
    decision: Decision = "proceed"
    swap: ModelSwap | None = None
    hold: Hold = NOTHING_HELD
    refusal: BudgetExceeded | None = None


UNLIMITED: Final = Admission(None)


class Pause(NamedTuple):
    """The call is to wait `seconds`, and then ask again."""

    seconds: float


class Refusal(NamedTuple):
    """A budget has no room for a call.

    spent: in all, nano-units. priced: False where it refuses because nobody knows what the call
        costs.
    unverified: it refuses because the ledger cannot be reached.
    """

    window: Window
    spent: int
    priced: bool = True
    unverified: bool = False

    def error(self, call: PaidCall) -> BudgetExceeded:
        """The error that the caller gets."""
        window = self.window
        if not self.priced:
            say_once(
                "budgets",
                ("unpriced", window.scope, call.provider, call.model),
                'budget %s refuses calls of unknown price (unknown = "block"): %s %s has none',
                window.scope,
                call.provider,
                call.model or call.operation,
            )
        if self.unverified:
            say_once(
                "budgets",
                ("unverified", window.scope),
                'budget %s refuses calls: no ledger to ask, and on_outage = "%s" allows no more',
                window.scope,
                window.budget.options.on_outage,
            )
        return BudgetExceeded(
            scope=window.scope,
            limit=from_nano(window.budget.limit),
            spent=from_nano(self.spent),
            resets_at=window.period.resets_at,
            unit=window.budget.unit,
            reason=self.reason,
            tier=self.tier,
        )

    @property
    def reason(self) -> Reason:
        """Why it refuses."""
        if self.unverified:
            return "unverified"
        return "used_up" if self.priced else "unknown_price"

    @property
    def tier(self) -> Tier:
        """The tier that it refuses at: the hard one, unless it does not say that all is spent."""
        return "hard" if self.reason == "used_up" else NAMES[self.window.standing.tier]


def refusal_of(group: Group, denied: Denied) -> Refusal:
    """What the ledger's denial means in this group."""
    window = next(w for w in group.windows if w.key == denied.key)
    return Refusal(window, denied.spent, unverified=denied.unverified)


def amounts_of(
    plan: Plan, call: PaidCall, estimate_nano: int | None, credits_estimate: CreditsEstimate | None
) -> list[int | None]:
    """What the call counts as in each of the plan's groups, nano-units; None where blocked."""
    amounts: list[int | None] = []
    for group in plan.groups:
        if group.unit == "credits":
            amounts.append(_credits(call, credits_estimate))
        elif estimate_nano is not None:
            amounts.append(estimate_nano)
        else:
            amounts.append(None if group.blocks else group.unknown_nano)
    return amounts


def _credits(call: PaidCall, estimate: CreditsEstimate | None) -> int:
    """Nano-credits to hold for the call; 0 where it is not paid in credits, as far as is known."""
    stated = call.known.credits if call.known is not None else None
    seen = estimate(call) if estimate is not None else None
    # What a call states is the least that it costs.
    return max(to_nano(stated or Decimal(0)), seen or 0, ROOM if call.credits_unsaid else 0)
