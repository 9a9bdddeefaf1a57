"""One foreign call into the books, and what its span is told of it."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NamedTuple, Self

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.attribution import current_attribution
from spanledger.api.charges import add_charge
from spanledger.api.gate import gate
from spanledger.api.values import Attribution, Charge, Ending, PaidCall
from spanledger.processor.dialects import ForeignCall

_ATTRIBUTION: Final = (names.TENANT, names.USER, names.FEATURE)
_OTHER_ERROR: Final = "_OTHER"  # the semantic conventions' error.type where there is no better


class SpanEnd(NamedTuple):
    """What the books need of a span that ends.

    start_ns, end_ns: Unix time in nanoseconds.
    exception: type of the last exception recorded on it.
    """

    name: str
    scope: str
    attributes: Mapping[str, AttributeValue]
    start_ns: int
    end_ns: int
    failed: bool
    exception: str | None
    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def of(cls, span: ReadableSpan, attributes: Mapping[str, AttributeValue], end_ns: int) -> Self:
        """What `span` says, with these attributes, when it ends at `end_ns`."""
        scope, where = span.instrumentation_scope, span.context
        failed = span.status.status_code is StatusCode.ERROR or names.ERROR_TYPE in attributes
        return cls(
            span.name,
            scope.name if scope is not None else "",
            attributes,
            span.start_time or end_ns,
            end_ns,
            failed,
            _exception(span) if failed else None,
            where.trace_id if where is not None else 0,
            where.span_id if where is not None else 0,
            where is not None and where.trace_flags.sampled,
        )


def _exception(span: ReadableSpan) -> str | None:
    for event in reversed(span.events):
        kind = (event.attributes or {}).get("exception.type")
        if isinstance(kind, str):
            return kind.rpartition(".")[2]
    return None


def book(call: ForeignCall, end: SpanEnd, started_in: Context | None) -> tuple[Charge, Attribution]:
    """Book `call` by the installed gate.

    started_in: the context in which the span started; None where it is not known.
    """
    attribution = _attribution(end, started_in)
    paid = PaidCall(call.provider, call.operation, call.model, attribution, end.start_ns)
    usage = call.usage
    if call.refused and not usage.units and usage.reported_cost is None:
        usage = usage._replace(reported_cost=Decimal(0))
    ending = Ending(
        "error" if end.failed else "ok",
        max(0, end.end_ns - end.start_ns) / 1e9,
        call.first_chunk_s,
        (call.error_type or end.exception or _OTHER_ERROR) if end.failed else None,
        end.trace_id,
        end.span_id,
        sampled=end.sampled,
    )
    return gate().record(paid, usage, ending), attribution


def _attribution(end: SpanEnd, started_in: Context | None) -> Attribution:
    """By the baggage where the span started; what is not there, by the span's own attributes."""
    ctx = Context() if started_in is None else started_in
    in_baggage = baggage.get_all(ctx)
    for name in _ATTRIBUTION:
        stated = end.attributes.get(name)
        alias = names.BAGGAGE_ALIASES[name]
        if isinstance(stated, str) and not (in_baggage.get(name) or in_baggage.get(alias)):
            ctx = baggage.set_baggage(name, stated, ctx)
    attribution = current_attribution(ctx)
    if attribution.use_id is None and end.trace_id:  # nothing was around the span
        attribution = attribution._replace(use_id=f"{end.trace_id:032x}")
    return attribution


def charge_attributes(
    charge: Charge, attribution: Attribution, present: Mapping[str, AttributeValue]
) -> dict[str, AttributeValue]:
    """What a booked span is told: no cost where it is unknown, and nothing that it says itself."""
    told: dict[str, AttributeValue] = {
        names.ACCOUNTED: True,
        names.COST_STATUS: charge.status,
    }
    add_charge(told, charge)
    who = {
        names.TENANT: attribution.tenant,
        names.USER: attribution.user,
        names.FEATURE: attribution.feature,
        **attribution.extra,
    }
    told.update({k: v for k, v in who.items() if v is not None and k not in present})
    return told
