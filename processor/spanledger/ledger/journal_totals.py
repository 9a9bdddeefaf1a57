"""The journal summed, in SQL: by tenant, feature, model, day, or any key that the rows carry."""

import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple

from spanledger.api.errors import JournalError

_NANO: Final = 1_000_000_000

DIMENSIONS: Final[Mapping[str, str]] = {
    "tenant": "tenant_id",
    "user": "user_id",
    "feature": "feature",
    "provider": "provider",
    "model": "coalesce(model, model_requested)",
    "operation": "operation",
    "service": "service",
    "outcome": "outcome",
    # Days as the reader's clock has them, as are the bounds that a report is asked for.
    "day": f"date(timestamp_ns / {_NANO}, 'unixepoch', 'localtime')",
}
"""What rows can be summed by, and the expression for it; besides, the names in the column
`attributes`.
"""

SAVED_BY: Final = ("cached", "deduplicated", "stale", "cheaper_model")
"""What money is saved by: a kept result, one call for several, a budget's stale result or model."""

# A sum of 64-bit integers can overflow, and SQLite then fails: so whole dollars and the rest are
# summed apart.
_MEASURES: Final = f"""
    sum(nano_usd / {_NANO}), sum(nano_usd % {_NANO}),
    count(*) FILTER (WHERE job_key IS NULL),
    count(DISTINCT CASE WHEN feature IS NOT NULL
        THEN feature || char(31) || coalesce('u' || use_id, 'c' || charge_id) END),
    coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
    coalesce(sum(cache_read_tokens), 0), coalesce(sum(cache_write_tokens), 0),
    exact_sum(credits) FILTER (WHERE credits IS NOT NULL),
    count(*) FILTER (WHERE nano_usd IS NULL),
    count(*) FILTER (WHERE cost_status = 'partial'),
    count(*) FILTER (WHERE cost_status = 'estimated'),
    coalesce(sum(saved_nano_usd / {_NANO}), 0), coalesce(sum(saved_nano_usd % {_NANO}), 0)
"""


class Total(NamedTuple):
    """What the rows of one group come to.

    key: the group's values, one for each name it is grouped by; None where the rows name none.
    nano_usd: of the priced calls; None where calls were made and none of them has a price. Unknown
        is not zero.
    calls: rows of jobs that were booked later are none.
    uses: feature uses; a row with a feature and no use is a use of its own.
    unpriced_calls: calls without a price; partial_calls: calls priced in part only.
    """

    key: tuple[str | None, ...]
    nano_usd: int | None
    calls: int
    uses: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    credits: Decimal
    unpriced_calls: int
    partial_calls: int
    estimated_calls: int
    saved_nano_usd: int


class Unpriced(NamedTuple):
    """Calls without a (whole) price, by why."""

    provider: str
    model: str | None
    reason: str | None
    cost_status: str
    calls: int
    credits: Decimal


class ExactSum:
    """SQLite aggregate: the sum of decimals kept as text."""

    _context: Final = Context(prec=100)

    def __init__(self) -> None:
        self.total = Decimal(0)

    def step(self, text: str) -> None:
        self.total = self._context.add(self.total, Decimal(text))

    def finalize(self) -> str:
        return format(self.total, "f")


class Span(NamedTuple):
    """A stretch of time, Unix nanoseconds, `until` excluded; None is without bound."""

    since: int | None = None
    until: int | None = None

    def where(self, *further: str) -> tuple[str, list[int]]:
        """The SQL condition and its parameters."""
        conditions = list(further)
        bounds: list[int] = []
        if self.since is not None:
            conditions.append("timestamp_ns >= ?")
            bounds.append(self.since)
        if self.until is not None:
            conditions.append("timestamp_ns < ?")
            bounds.append(self.until)
        return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), bounds


def totals(connection: sqlite3.Connection, by: Sequence[str], span: Span) -> list[Total]:
    """The rows in `span` summed by the names in `by`, the dearest first. Raises JournalError for an
    unknown name.
    """
    groups = _expressions(connection, by)
    where, bounds = span.where()
    chosen = "".join(f"{expression}, " for expression in groups)
    grouped = f"GROUP BY {', '.join(str(i + 1) for i in range(len(groups)))}" if groups else ""
    sql = f"SELECT {chosen}{_MEASURES} FROM charges {where} {grouped}"  # noqa: S608 - our own expressions
    found = [_total(values, len(groups)) for values in connection.execute(sql, bounds)]
    return sorted(found, key=_by_cost)


def spent(
    connection: sqlite3.Connection,
    by: str,
    span: Span,
    within: Mapping[str, str],
    *,
    credits: bool,
) -> list[tuple[str | None, Decimal]]:
    """What the rows in `span` come to by each `by` (one of DIMENSIONS), in USD or in credits.

    within: only rows with these values of other DIMENSIONS. Not `totals`: this is asked while
        budgets are used up, and takes a fraction of the time.
    """
    where, bounds = span.where(*(f"{DIMENSIONS[name]} = ?" for name in within))
    sums = (
        "exact_sum(credits) FILTER (WHERE credits IS NOT NULL), 0"
        if credits
        else f"sum(nano_usd / {_NANO}), sum(nano_usd % {_NANO})"
    )
    sql = f"SELECT {DIMENSIONS[by]}, {sums} FROM charges {where} GROUP BY 1"  # noqa: S608 - our own expressions
    return [
        (name, Decimal(whole or 0) + Decimal(nano or 0).scaleb(-9))
        for name, whole, nano in connection.execute(sql, [*within.values(), *bounds])
    ]


def series(
    connection: sqlite3.Connection, by: Sequence[str], span: Span, buckets: int
) -> dict[tuple[str | None, ...], list[float]]:
    """USD by group in `buckets` equal parts of `span`, to draw; calls where nothing is priced."""
    if span.since is None or span.until is None or span.until <= span.since:
        return {}
    groups = _expressions(connection, by)
    where, bounds = span.where()
    width = -(-(span.until - span.since) // buckets)
    chosen = "".join(f"{expression}, " for expression in groups)
    grouped = ", ".join(str(i + 1) for i in range(len(groups) + 1))
    sql = (
        f"SELECT {chosen}(timestamp_ns - ?) / ?, total(nano_usd) / {_NANO}.0, count(*)"  # noqa: S608
        f" FROM charges {where} GROUP BY {grouped}"
    )
    spent: dict[tuple[str | None, ...], list[float]] = {}
    called: dict[tuple[str | None, ...], list[float]] = {}
    for *key, bucket, usd, calls in connection.execute(sql, [span.since, width, *bounds]):
        spent.setdefault(tuple(key), [0.0] * buckets)[bucket] = usd
        called.setdefault(tuple(key), [0.0] * buckets)[bucket] = calls
    return {key: values if any(values) else called[key] for key, values in spent.items()}


def unpriced(connection: sqlite3.Connection, span: Span) -> list[Unpriced]:
    """Why calls in `span` have no price, or not a whole one, the most frequent reason first."""
    where, bounds = span.where("(nano_usd IS NULL OR cost_status = 'partial')")
    sql = (
        f"SELECT provider, {DIMENSIONS['model']}, unpriced_reason, cost_status, count(*),"  # noqa: S608
        f" exact_sum(credits) FILTER (WHERE credits IS NOT NULL) FROM charges {where}"
        " GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC"
    )
    return [
        Unpriced(provider, model, reason, status, calls, _credits(summed))
        for provider, model, reason, status, calls, summed in connection.execute(sql, bounds)
    ]


def saved(connection: sqlite3.Connection, span: Span) -> dict[str, int]:
    """Nano-USD that the calls in `span` saved, by one of `SAVED_BY`; only what saved something."""
    where, bounds = span.where("saved_nano_usd <> 0")
    # A degraded call with a price of its own was made, by the cheaper model.
    why = (
        "CASE WHEN outcome <> 'degraded' THEN outcome"
        " WHEN cost_source IS NULL THEN 'stale' ELSE 'cheaper_model' END"
    )
    sql = (
        f"SELECT {why}, sum(saved_nano_usd / {_NANO}), sum(saved_nano_usd % {_NANO})"  # noqa: S608
        f" FROM charges {where} GROUP BY 1"
    )
    found = {name: usd * _NANO + nano for name, usd, nano in connection.execute(sql, bounds)}
    return {name: found[name] for name in SAVED_BY if name in found}


def extra_keys(connection: sqlite3.Connection) -> list[str]:
    """The further attribution keys that rows carry."""
    sql = "SELECT DISTINCT j.key FROM charges, json_each(charges.attributes) AS j ORDER BY 1"
    return [key for (key,) in connection.execute(sql)]


def _expressions(connection: sqlite3.Connection, by: Sequence[str]) -> list[str]:
    unknown = [name for name in by if name not in DIMENSIONS]
    extra = extra_keys(connection) if unknown else []
    for name in unknown:
        if name not in extra:
            raise JournalError(
                f"rows cannot be summed by {name!r}. Use {', '.join([*DIMENSIONS, *extra])}"
            )
    return [DIMENSIONS.get(name) or f"json_extract(attributes, {_path(name)})" for name in by]


def _path(name: str) -> str:
    """The JSON path of an attribute, as an SQL text."""
    quoted = name.replace("'", "''")
    return f"""'$."{quoted}"'"""


def _total(values: tuple[Any, ...], keys: int) -> Total:
    usd, nano, calls, uses, *rest = values[keys:]
    given, out, read, written, summed, unknown, partial, estimated, saved, saved_nano = rest
    # No call at all costs nothing; calls that all lack a price cost nobody knows what.
    cost = usd * _NANO + nano if usd is not None else 0 if calls == 0 else None
    return Total(
        values[:keys],
        cost,
        calls,
        uses,
        given,
        out,
        read,
        written,
        _credits(summed),
        unknown,
        partial,
        estimated,
        saved * _NANO + saved_nano,
    )


def _credits(summed: str | None) -> Decimal:
    return Decimal(summed or 0)


def _by_cost(total: Total) -> tuple[int, Decimal, int, tuple[str, ...]]:
    return (
        -(total.nano_usd or 0),
        -total.credits,
        -total.calls,
        tuple(key or "" for key in total.key),
    )
