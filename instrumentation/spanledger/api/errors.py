"""The errors of spanledger.

    SpanledgerError
    ├── ConfigurationError       raised at start, never at a call
    ├── JournalError             raised by reports and the cli, never at a call
    └── BudgetError              the only ones that a user's call can raise, and only where a budget
    says so
        ├── BudgetThrottled      critical tier: come back after `retry_after` seconds
        └── BudgetExceeded       hard tier, nothing left to degrade to, until `resets_at`

A budget error is a decision, not a fault: a retry loop that swallows it defeats the budget. Neither
subclasses an error of a provider SDK, and both carry `retryable = False` for libraries that look
for such a mark.
"""

from datetime import datetime
from decimal import Decimal

from spanledger.api.values import Tier


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
        tier: `critical` or `hard`.
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
    """The hard tier refuses the call: no stale result, no cheaper model, or the ceiling is reached.

    Attributes: limit, spent (USD; None for a budget in credits), resets_at (start of the next
        period).
    """

    def __init__(
        self,
        *,
        scope: str,
        limit: Decimal | None,
        spent: Decimal | None,
        resets_at: datetime | None,
    ) -> None:
        used = "" if limit is None else f": {spent} of {limit} USD"
        until = f"; it resets at {resets_at.isoformat()}" if resets_at else ""
        super().__init__(f"budget {scope} is used up{used}{until}", scope=scope, tier="hard")
        self.limit = limit
        self.spent = spent
        self.resets_at = resets_at
