"""The metrics as Prometheus sees them, with the labels of each: what rules and boards may use."""

from typing import Final

CALL: Final = frozenset({"provider", "model", "operation", "tenant", "feature"})
BUDGET: Final = frozenset({"scope", "period"})

METRICS: Final[dict[str, frozenset[str]]] = {
    "spanledger_cost_USD_total": CALL,
    "spanledger_estimated_cost_USD_total": CALL,
    "spanledger_tokens_total": CALL | {"type"},
    "spanledger_credits_total": CALL,
    "spanledger_credits_remaining": frozenset({"provider"}),
    "spanledger_calls_total": CALL | {"outcome"},
    "spanledger_saved_USD_total": CALL | {"reason"},
    "spanledger_unpriced_calls_total": CALL | {"reason"},
    "spanledger_feature_uses_total": frozenset({"tenant", "feature"}),
    "spanledger_call_duration_seconds_bucket": CALL | {"le"},
    "spanledger_budget_limit_USD": BUDGET,
    "spanledger_budget_spent_USD": BUDGET,
    "spanledger_budget_held_USD": BUDGET,
    "spanledger_budget_projected_USD": BUDGET,
    "spanledger_budget_credits_limit": BUDGET,
    "spanledger_budget_credits_spent": BUDGET,
    "spanledger_budget_credits_held": BUDGET,
    "spanledger_budget_credits_projected": BUDGET,
    "spanledger_budget_tier": frozenset({"scope"}),
    "spanledger_ledger_unverified": frozenset(),
    "spanledger_internal_errors_total": frozenset({"reason"}),
    "spanledger_prices_timestamp_seconds": frozenset(),
}
TARGET: Final = frozenset({"job", "instance"})
"""What Prometheus adds."""

ALERTS: Final = frozenset(
    {
        "alertname",
        "alertstate",
        "severity",
        "about",
        "tier",
        "scope",
        "period",
        "unit",
        "provider",
        "feature",
        "job",
    }
)
"""Labels of the series ALERTS, which Prometheus makes of the rules."""
