"""One row of the journal: how an entry becomes one, and how it is read again."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from spanledger.api.gate import new_charge_id
from spanledger.api.values import EMPTY
from spanledger.ledger.entry import Entry


class Row(NamedTuple):
    """A paid call as the journal holds it; fields have the columns' names, in the columns' order.

    timestamp_ns: when the call started, Unix time in nanoseconds.
    use_id: the feature use the call belongs to; with `feature`, what uses are counted by.
    input_tokens: cached tokens included, as the semantic conventions say; output_tokens: reasoning
        included.
    units: what else was consumed, by genai-prices' usage keys.
    nano_usd: None where no price is known.
    latency_ms, first_chunk_ms: milliseconds.
    trace_id, span_id: hexadecimal; None without tracing.
    attributes: values of the further attribution keys that the settings name.
    """

    charge_id: str
    timestamp_ns: int
    service: str
    tenant_id: str | None
    user_id: str | None
    feature: str | None
    use_id: str | None
    provider: str
    operation: str
    model_requested: str | None
    model: str | None
    outcome: str
    error_type: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    units: Mapping[str, int | Decimal]
    credits: Decimal | None
    nano_usd: int | None
    cost_status: str
    cost_source: str | None
    price_version: str | None
    unpriced_reason: str | None
    saved_nano_usd: int
    saved_credits: Decimal | None
    latency_ms: float | None
    first_chunk_ms: float | None
    trace_id: str | None
    span_id: str | None
    job_key: str | None
    attributes: Mapping[str, str]
    budget_tier: str | None


COLUMNS: Final = ", ".join(Row._fields)
INSERT: Final = (
    f"INSERT INTO charges ({COLUMNS}) VALUES ({', '.join('?' * len(Row._fields))})"  # noqa: S608 - our own names
    " ON CONFLICT (charge_id) DO NOTHING"
)
_TOKENS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_reasoning_tokens",
)
_OWN_COLUMN: Final = frozenset(_TOKENS)
_LARGEST: Final = 2**63 - 1  # of an integer in SQLite


def to_values(entry: Entry, service: str) -> tuple[Any, ...]:
    """The values of `entry`'s row, in the order of the columns."""
    call, usage, ending, charge, key = entry
    tenant, user, feature, use_id, extra = call.attribution
    units = usage.units
    credits_ = usage.credits if charge.credits is None else charge.credits
    nano_usd, status, reason = charge.nano_usd, charge.status, charge.reason
    if nano_usd is not None and not -_LARGEST <= nano_usd <= _LARGEST:
        nano_usd, status, reason = None, "unknown", "amount_out_of_range"
    first_chunk_s = ending.first_chunk_s
    saved_credits = ending.saved_credits
    return (
        charge.id or new_charge_id(),
        call.started_ns,
        service,
        tenant,
        user,
        feature,
        use_id,
        call.provider,
        call.operation,
        call.model,
        usage.model,
        ending.outcome,
        ending.error_type,
        *[None if (amount := units.get(name)) is None else int(amount) for name in _TOKENS],
        None if _OWN_COLUMN.issuperset(units) else _units(units),
        None if credits_ is None else format(credits_, "f"),
        nano_usd,
        status,
        charge.source,
        charge.price_version,
        reason,
        ending.saved_nano_usd,
        None if saved_credits is None else format(saved_credits, "f"),
        round(ending.latency_s * 1000, 3),
        None if first_chunk_s is None else round(first_chunk_s * 1000, 3),
        f"{ending.trace_id:032x}" if ending.trace_id else None,
        f"{ending.span_id:016x}" if ending.span_id else None,
        key,
        json.dumps(dict(extra)) if extra else None,
        charge.tier,
    )


def _units(units: Mapping[str, int | Decimal]) -> str:
    return json.dumps(
        {name: exact(amount) for name, amount in units.items() if name not in _OWN_COLUMN}
    )


def exact(amount: int | Decimal) -> int | str:
    """`amount` for JSON: an integer, or the text of an exact decimal."""
    return format(amount, "f") if isinstance(amount, Decimal) else amount


def inexact(amount: int | str) -> int | Decimal:
    """The amount that `exact` wrote."""
    return Decimal(amount) if isinstance(amount, str) else amount


def storable(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """`values` with what SQLite cannot hold put right: broken text escaped, integers beyond 64 bits
    at their bound.
    """
    return tuple(
        value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, str)
        else max(-_LARGEST, min(value, _LARGEST))
        if isinstance(value, int)
        else value
        for value in values
    )


def from_values(values: tuple[Any, ...]) -> Row:
    """The row that the columns' `values` stand for."""
    row = Row(*values)
    return row._replace(
        units={k: inexact(v) for k, v in json.loads(values[_UNITS]).items()}
        if values[_UNITS]
        else {},
        credits=None if values[_CREDITS] is None else Decimal(values[_CREDITS]),
        saved_credits=None if values[_SAVED_CREDITS] is None else Decimal(values[_SAVED_CREDITS]),
        attributes=json.loads(values[_ATTRIBUTES]) if values[_ATTRIBUTES] else EMPTY,
    )


_UNITS: Final = Row._fields.index("units")
_CREDITS: Final = Row._fields.index("credits")
_SAVED_CREDITS: Final = Row._fields.index("saved_credits")
_ATTRIBUTES: Final = Row._fields.index("attributes")
