"""The values that cross the seam between instrumentation and processor.

They are named tuples, not frozen dataclasses, because each paid call makes one of most of them: a
frozen dataclass of ten fields costs 2 us to make, a named tuple 0.4 us.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

CostStatus = Literal["exact", "partial", "estimated", "unknown"]
CostSource = Literal["provider", "override", "price_list"]
Outcome = Literal["ok", "error", "cached", "deduplicated", "degraded", "throttled", "blocked"]
Tier = Literal["ok", "warning", "critical", "hard"]

NANO: Final = 1_000_000_000
"""Nano-USD in one USD."""

LONGEST: Final = 256
"""Characters of what a provider or a user names, in a span attribute or a metric label."""

EMPTY: Final[Mapping[str, str]] = MappingProxyType({})

# A provider's number above this is a fault of the provider's, not usage: 10^12 tokens cost more
# than any budget.
_LARGEST_UNIT: Final = 10**12


class Attribution(NamedTuple):
    """On whose account a paid call is made, read once from the baggage when it starts.

    use_id: the feature use the call belongs to: that of the enclosing `feature(...)` block, else
        the trace's id, else None (the call is a use of its own).
    extra: values of the further keys that the settings name, such as `plan`.
    """

    tenant: str | None = None
    user: str | None = None
    feature: str | None = None
    use_id: str | None = None
    extra: Mapping[str, str] = EMPTY


NOBODY: Final = Attribution()


class Usage(NamedTuple):
    """What the provider says was consumed by one paid call.

    units: amounts by genai-prices' usage keys (`input_tokens`, `cache_read_tokens`,
        `output_tokens`, `output_reasoning_tokens`, `web_searches`, `audio_seconds`,
        `input_characters`, ...). As in the semantic conventions, `input_tokens` INCLUDES cached
        tokens and `output_tokens` includes reasoning.
    credits: for providers that bill in credits.
    reported_cost: USD, where the provider or the caller states it.
    model: the model that served the call, as the provider names it.
    price_context: what selects a price besides the model: `service_tier`, `speed`, `processing`
        (batch), ...
    estimated: the amounts are ours, not the provider's.
    unpriced: names of consumed things that `units` cannot express, or with a colon the whole
        reason (`invalid:input_tokens`, `missing:output_tokens`); the charge is then at best
        partial.
    parts: the call was served in several parts, each with a model of its own (Anthropic's fallback
        iterations); each part is priced by itself and `units` is their sum, for the books.
    """

    units: Mapping[str, int | Decimal] = MappingProxyType({})
    credits: Decimal | None = None
    reported_cost: Decimal | None = None
    model: str | None = None
    price_context: Mapping[str, str] = EMPTY
    estimated: bool = False
    unpriced: tuple[str, ...] = ()
    parts: "tuple[Usage, ...]" = ()


class PaidCall(NamedTuple):
    """One paid call, as the gate sees it before it is sent.

    provider: `gen_ai.provider.name` (`openai`, `anthropic`, `azure.ai.openai`, `scavio`, ...).
    operation: `gen_ai.operation.name`, or the data API's own name of the operation
        (`google.search`).
    model: the model asked for; None for data APIs.
    started_ns: Unix time in nanoseconds; decides the price's date and the budget's period.
    input_bytes: size of the input in bytes, counted only when an estimate needs it.
    max_output_tokens: the caller's own bound on the output.
    known: usage that the request itself states: a data API's floor in credits, what a metered
        function says it costs, the characters of a speech.
    stale_available: a stale cached result could be served instead.
    swappable: another model could be asked instead.
    spends: False for a cache hit or the follower of an identical call in flight: nothing is
        reserved for it and it is never refused.
    credits_unsaid: it may cost credits, and how many is said only afterwards.
    """

    provider: str
    operation: str
    model: str | None
    attribution: Attribution
    started_ns: int
    input_bytes: Callable[[], int] | None = None
    max_output_tokens: int | None = None
    known: Usage | None = None
    stale_available: bool = False
    swappable: bool = False
    spends: bool = True
    credits_unsaid: bool = False


class Ending(NamedTuple):
    """How a paid call ended, for the books.

    job: id of the job that the call created, whose usage arrives later (`Gate.record`).

    latency_s: seconds from the call's start to its end (for a stream: to its last chunk).
    first_chunk_s: seconds to the first chunk of a stream.
    error_type: `error.type` where the call failed.
    trace_id, span_id: of the call's span; 0 without tracing.
    sampled: the span is exported.
    saved_nano_usd, saved_credits: what the avoided call would have cost, where the data layer
        served the result.
    """

    outcome: Outcome
    latency_s: float
    first_chunk_s: float | None = None
    error_type: str | None = None
    trace_id: int = 0
    span_id: int = 0
    saved_nano_usd: int = 0
    saved_credits: Decimal | None = None
    job: str | None = None
    sampled: bool = False


class Charge(NamedTuple):
    """Usage priced.

    id: the charge's own id, unique in the journal (span ids are 0 when tracing is off).
    nano_usd: integer nano-USD; None where no price is known. Unknown is never 0.
    reason: why the charge is unknown or partial.
    price_version: which price list or override priced it.
    tier: the budget tier the call was admitted in; None without budgets.
    """

    id: str
    nano_usd: int | None
    credits: Decimal | None = None
    status: CostStatus = "unknown"
    source: CostSource | None = None
    price_version: str | None = None
    reason: str | None = None
    tier: Tier | None = None

    @property
    def usd(self) -> Decimal | None:
        """The amount in USD, exact."""
        return None if self.nano_usd is None else Decimal(self.nano_usd).scaleb(-9)


class ModelSwap(NamedTuple):
    """The cheaper model that a budget at its hard tier allows instead of the one asked for.

    set, unset: request parameters to put in or take out of the copy that is sent.
    """

    model: str
    set: Mapping[str, object] = MappingProxyType({})
    unset: tuple[str, ...] = ()


def count(value: object) -> int | None:
    """`value` as an amount of usage, or None where it is not one (absent, negative, boolean, not
    a number, absurd).
    """
    if type(value) is int:  # the common case first; bool is excluded, being another type
        return value if 0 <= value <= _LARGEST_UNIT else None
    if isinstance(value, float) and value.is_integer():
        return count(int(value))
    return None


def decimal_amount(value: object) -> Decimal | None:
    """`value` as a non-negative Decimal (credits, seconds, USD), or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        return None
    return amount if amount.is_finite() and 0 <= amount <= _LARGEST_UNIT else None
