"""Every name that leaves this program: span attributes, metrics, baggage keys, context keys.

GenAI names follow OpenTelemetry's semantic conventions for generative AI (repository
semantic-conventions-genai); the cost names follow that repository's open proposal #443. They move
now and then, so that they stand here and nowhere else.
"""

from typing import Final

# -- baggage, and the span attributes of the same name
# -------------------------------------------------
TENANT: Final = "tenant.id"
USER: Final = "user.id"
FEATURE: Final = "feature.name"
BAGGAGE_ALIASES: Final = {TENANT: "tenant", USER: "user", FEATURE: "feature"}

# -- semantic conventions
# --------------------------------------------------------------------------------
OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
LEGACY_SYSTEM: Final = "gen_ai.system"  # what PROVIDER was called until 1.37
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK_SECONDS: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
COST_SOURCE_SEMCONV: Final = "gen_ai.usage.cost.source"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# -- ours
# ------------------------------------------------------------------------------------------------
COST_USD: Final = "spanledger.cost.usd"
COST_STATUS: Final = "spanledger.cost.status"
COST_SOURCE: Final = "spanledger.cost.source"
UNPRICED_REASON: Final = "spanledger.cost.unpriced_reason"
PRICE_VERSION: Final = "spanledger.price.version"
CREDITS: Final = "spanledger.credits"
CACHE: Final = "spanledger.cache"
BUDGET_TIER: Final = "spanledger.budget.tier"
DEGRADED: Final = "spanledger.degraded"  # by the words of a budget's `degrade`
SERVICE_TIER: Final = "spanledger.service_tier"
ACCOUNTED: Final = "spanledger.accounted"  # the call is in the books: nobody prices it again

# -- the log event of a charge; what a span says too has its name there
# -----------------------------------------------------------------------------------------
EVENT_CHARGE: Final = "spanledger.charge"
SERVICE: Final = "service.name"
CHARGE_ID: Final = "spanledger.charge.id"
USE_ID: Final = "spanledger.use.id"
JOB_KEY: Final = "spanledger.job.key"
OUTCOME: Final = "spanledger.outcome"
CALL_SECONDS: Final = "spanledger.call.duration"
COST_NANO_USD: Final = "spanledger.cost.nano_usd"  # the exact amount, an integer
SAVED_NANO_USD: Final = "spanledger.saved.nano_usd"
SAVED_CREDITS: Final = "spanledger.saved.credits"
UNITS: Final = "spanledger.units"  # a prefix: spanledger.units.web_searches

# -- metrics
# ---------------------------------------------------------------------------------------------
METRIC_COST: Final = "spanledger.cost"
METRIC_ESTIMATED_COST: Final = "spanledger.estimated.cost"  # the part of it that is estimated
METRIC_TOKENS: Final = "spanledger.tokens"
METRIC_CREDITS: Final = "spanledger.credits"
METRIC_CREDITS_REMAINING: Final = "spanledger.credits.remaining"
METRIC_CALLS: Final = "spanledger.calls"
METRIC_SAVED: Final = "spanledger.saved"
METRIC_UNPRICED: Final = "spanledger.unpriced.calls"
METRIC_FEATURE_USES: Final = "spanledger.feature.uses"
METRIC_DURATION: Final = "spanledger.call.duration"
METRIC_BUDGET_LIMIT: Final = "spanledger.budget.limit"
METRIC_BUDGET_SPENT: Final = "spanledger.budget.spent"
METRIC_BUDGET_HELD: Final = "spanledger.budget.held"
METRIC_BUDGET_PROJECTED: Final = "spanledger.budget.projected"
METRIC_BUDGET_CREDITS_LIMIT: Final = "spanledger.budget.credits.limit"
METRIC_BUDGET_CREDITS_SPENT: Final = "spanledger.budget.credits.spent"
METRIC_BUDGET_CREDITS_HELD: Final = "spanledger.budget.credits.held"
METRIC_BUDGET_CREDITS_PROJECTED: Final = "spanledger.budget.credits.projected"
METRIC_BUDGET_TIER: Final = "spanledger.budget.tier"
METRIC_LEDGER_UNVERIFIED: Final = "spanledger.ledger.unverified"
METRIC_INTERNAL_ERRORS: Final = "spanledger.internal.errors"
METRIC_PRICES_TIMESTAMP: Final = "spanledger.prices.timestamp"  # Unix time of the price list, s

# Metric labels. Never the user: one series a user has no bound.
LABEL_PROVIDER: Final = "provider"
LABEL_MODEL: Final = "model"
LABEL_OPERATION: Final = "operation"
LABEL_TENANT: Final = "tenant"
LABEL_FEATURE: Final = "feature"
LABEL_TYPE: Final = "type"
LABEL_OUTCOME: Final = "outcome"
LABEL_REASON: Final = "reason"
LABEL_SCOPE: Final = "scope"
LABEL_PERIOD: Final = "period"
OVERFLOW: Final = "other"  # the label value that stands for everything past a label's bound

# -- entry points and scopes
# -------------------------------------------------------------------------------
SCOPE_INSTRUMENTATION: Final = "spanledger.instrumentation"
SCOPE_PROCESSOR: Final = "spanledger.processor"
