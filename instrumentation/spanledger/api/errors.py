"""The errors of spanledger.

    SpanledgerError
    ├── ConfigurationError       raised at start, never at a call
    ├── JournalError             raised by reports and the cli, never at a call
    └── BudgetError              the only ones that a user's call can raise, and only where a budget
    says so
        ├── BudgetThrottled      critical tier: come back after `retry_after` seconds
        └── BudgetExceeded       nothing left to degrade to: hard tier, until `resets_at`; or the
                                 ledger cannot be asked; or a price is unknown and must not be

A budget error is a decision, not a fault: a retry loop that swallows it defeats the budget. Neither
subclasses an error of a provider SDK, and both carry `retryable = False` for libraries that look
for such a mark.
"""

from datetime import datetime
from decimal import Decimal
from typing import Literal

from spanledger.api.values import Tier

Reason = Literal["used_up", "unverified", "unknown_price"]


class SpanledgerError(Exception):
    """Base of all errors of spanledger."""


class ConfigurationError(SpanledgerError):
    """A setting is wrong. The message names where (file or environment), which key, and what to do.

    Attributes: source (file path or "environment"), key, remedy.
    """

    def __init__(self, problem: str, *, source: str, key: str, remedy: str) -> None:
        super().__init__(f"{source}: {key}: {problem}. {remedy}")
        self.source = source
        self.key = key
        self.remedy = remedy


class JournalError(SpanledgerError):
    """The journal cannot be opened, read or written; the message says where and what to do."""


class BudgetError(SpanledgerError):
    """A budget stopped a paid call before anything was sent.

    Attributes:
        scope: the budget's scope, such as `tenant:acme`.
        tier: `critical` or `hard`; where `reason` is not `used_up`, the tier as far as is known.
        retryable: always False: do not retry in a loop (see the module's docstring).
    """

    retryable = False

    def __init__(self, message: str, *, scope: str, tier: Tier) -> None:
        super().__init__(message)
        self.scope = scope
        self.tier = tier


class BudgetThrottled(BudgetError):
    """The critical tier paces calls, and this one would have waited longer than the budget's
    `max_wait`.

    Attributes: retry_after (seconds until a call of this size would be let through).
    """

    def __init__(self, *, scope: str, retry_after: float) -> None:
        super().__init__(
            f"budget {scope} is at its critical tier and paces calls: "
            f"come back in {retry_after:.1f} s",
            scope=scope,
            tier="critical",
        )
        self.retry_after = retry_after


class BudgetExceeded(BudgetError):
    """The budget refuses the call: no stale result, no cheaper model, or the ceiling is reached.

    Attributes:
        limit, spent: in `unit`, as far as is known.
        resets_at: start of the next period.
        reason: `used_up`; `unverified`: the ledger cannot be asked, or has lost its memory and is
            being told again, and the budget's `on_outage` allows no more until then;
            `unknown_price`: the budget has `unknown = "block"`.
    """

    def __init__(
        self,
        *,
        scope: str,
        limit: Decimal | None,
        spent: Decimal | None,
        resets_at: datetime | None,
        unit: Literal["usd", "credits"] = "usd",
        reason: Reason = "used_up",
        tier: Tier = "hard",
    ) -> None:
        used = "" if limit is None else f"{spent} of {limit} {'USD' if unit == 'usd' else unit}"
        if reason == "unverified":
            known = f" ({used} are known of)" if used else ""
            said = f"refuses calls until the ledger can say what was spent{known}"
        elif reason == "unknown_price":
            said = "refuses calls of unknown price"
        else:
            until = f"; it resets at {resets_at.isoformat()}" if resets_at else ""
            said = f"is used up{used and ': '}{used}{until}"
        super().__init__(f"budget {scope} {said}", scope=scope, tier=tier)
        self.limit = limit
        self.spent = spent
        self.resets_at = resets_at
        self.unit = unit
        self.reason = reason

    @property
    def unverified(self) -> bool:
        """The budget may have room: nobody can tell at present."""
        return self.reason == "unverified"
