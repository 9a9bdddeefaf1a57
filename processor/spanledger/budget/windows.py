"""A window: one budget in one period, as this process sees it."""

from typing import Final, Literal, NamedTuple

from spanledger.api.values import Tier
from spanledger.budget.amounts import Unit
from spanledger.budget.config import Budget
from spanledger.budget.periods import Period, PeriodKind, period_before
from spanledger.budget.projection import verdict
from spanledger.budget.throttle import Pacer
from spanledger.budget.tiers import CRITICAL, HARD, NAMES, Standing
from spanledger.ledger.protocol import LARGEST_AMOUNT, LimitedScope, ScopeState

FRESH_NS: Final = 50_000_000
"""How old an evaluation may be when a call is admitted, nanoseconds; or fewer, where 1 % of the
limit moved since.
"""

_DAY_S: Final = 86_400


Series = Literal["always", "bounded", "never"]


class BudgetReading(NamedTuple):
    """A budget's amounts, for gauges: integers of a thousand-millionth of `unit`.

    projected: at the period's end; None where it is too early to tell.
    known: the ledger told the amounts; before that they are what this process spent itself.
    series: whether it is exported: `always`, as far as there is room, or never.
    """

    scope: str
    period: PeriodKind
    unit: Unit
    limit: int
    spent: int
    held: int
    projected: int | None
    tier: Tier
    unverified: bool
    known: bool = True
    series: Series = "always"


class Window:
    """One budget of one scope in one period.

    spent, held, projected, unverified: as of the last evaluation (nano-units).
    known: some evaluation was by what the ledger's store told.
    last_spent: what the last period spent, scaled to this one's length; None until the ledger was
        asked.
    moved: what calls added since the last evaluation.
    entered: tiers whose event is out.
    """

    __slots__ = (
        "budget",
        "degraded",
        "due_ns",
        "entered",
        "full",
        "held",
        "key",
        "known",
        "last_spent",
        "moved",
        "pacer",
        "period",
        "projected",
        "scope",
        "spent",
        "standing",
        "step",
        "thresholds",
        "unverified",
    )

    def __init__(self, budget: Budget, scope: str, period: Period) -> None:
        self.budget: Final = budget
        self.scope: Final = scope
        self.period: Final = period
        self.key: Final = ledger_key(self.scope, period, budget.unit)
        self.thresholds: Final = budget.thresholds
        self.full: Final = self._limited(self.thresholds.hard)
        cheaper = "cheaper_model" in budget.degrade
        self.degraded: Final = self._limited(self.thresholds.ceiling) if cheaper else self.full
        self.standing: Final = Standing(self.thresholds)
        self.pacer: Final = Pacer(period.start_ns, period.end_ns)
        self.step: Final = budget.limit // 100
        self.entered: Final[dict[int, object]] = {}
        self.spent = self.held = self.moved = self.due_ns = 0
        self.projected: int | None = None
        self.last_spent: float | None = None
        self.unverified = self.known = False

    def _limited(self, limit: int) -> LimitedScope:
        budget, period = self.budget, self.period
        # The next period is projected from this one: it must be there until that one is over.
        expires_s = (2 * period.end_ns - period.start_ns) // 10**9 + 3 * _DAY_S
        if budget.options.exhausted == "allow":
            return LimitedScope(self.key, LARGEST_AMOUNT, expires_s, "open")
        return LimitedScope(
            self.key, limit, expires_s, budget.options.on_outage, budget.outage_nano
        )

    def evaluate(self, state: ScopeState, now_ns: int) -> bool:
        """Take note of what the ledger knows. True where a higher tier is entered."""
        self.moved = 0
        self.due_ns = now_ns + FRESH_NS
        spent, self.held, self.unverified = state
        if not self.unverified:
            self.known = True
        elif spent < self.spent:
            spent = self.spent  # who does not know all yet has not spent less than was known
        self.spent = spent
        self.projected = verdict(
            self.spent, self.budget.limit, self.last_spent or 0.0, self.period, now_ns
        )
        return self.standing.evaluate(self.spent, self.held, self.projected)

    @property
    def paces(self) -> bool:
        """Calls are to be throttled here. Where hard begins with critical, there is nothing to
        spread.
        """
        thresholds = self.thresholds
        return (
            self.standing.tier >= CRITICAL
            and thresholds.critical < thresholds.hard
            and self.budget.options.exhausted == "raise"
        )

    @property
    def left(self) -> int:
        """What full-price calls may still spend."""
        return self.thresholds.hard - self.spent - self.held

    @property
    def degrades_unasked(self) -> bool:
        """It is used up, and the ledger does not refuse for it (`exhausted = "allow"`), but it
        wants calls degraded.
        """
        budget = self.budget
        return (
            self.standing.tier >= HARD
            and budget.options.exhausted == "allow"
            and bool(budget.degrade)
        )

    def period_before(self) -> Period:
        """The period before."""
        return period_before(self.period, self.budget.options.zone)

    def last_key(self) -> str:
        """The ledger's key of the period before."""
        return ledger_key(self.scope, self.period_before(), self.budget.unit)

    def take_last(self, spent: int) -> None:
        """Note what the period before has spent."""
        self.last_spent = spent * (self.period.length_s / self.period_before().length_s)

    def reading(self, series: Series = "always") -> BudgetReading:
        """Its amounts as of the last evaluation."""
        return BudgetReading(
            self.scope,
            self.period.kind,
            self.budget.unit,
            self.budget.limit,
            self.spent,
            self.held,
            self.projected,
            NAMES[self.standing.tier],
            self.unverified,
            self.known,
            series,
        )


def ledger_key(scope: str, period: Period, unit: Unit) -> str:
    """The ledger's key of a scope and period."""
    key = f"{scope}|{period.kind}|{period.key}"
    return key if unit == "usd" else f"{key}|{unit}"
