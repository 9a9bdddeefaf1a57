"""What applications import, and the seam between instrumentation and processor.

from spanledger.api import attribute, feature

with attribute(tenant="acme", user="u-17"), feature("competitive-analysis"):
    client.chat.completions.create(...)
"""

from spanledger.api.attribution import attribute, current_attribution, feature
from spanledger.api.errors import (
    BudgetError,
    BudgetExceeded,
    BudgetThrottled,
    ConfigurationError,
    JournalError,
    SpanledgerError,
)
from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage

__all__ = [
    "Attribution",
    "BudgetError",
    "BudgetExceeded",
    "BudgetThrottled",
    "Charge",
    "ConfigurationError",
    "Ending",
    "JournalError",
    "PaidCall",
    "SpanledgerError",
    "Usage",
    "attribute",
    "current_attribution",
    "feature",
]
