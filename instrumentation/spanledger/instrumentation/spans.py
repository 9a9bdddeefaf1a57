"""The span of a call: one of ours, or a foreign one that the charge rides on."""

from time import time_ns
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.values import LONGEST, Attribution, Usage
from spanledger.instrumentation.request import Request

_tracer: Tracer = trace.get_tracer(names.SCOPE_INSTRUMENTATION)

# Operations of a model; a foreign span with one of these is a span of the call itself, not of
# something around it.
MODEL_OPERATIONS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
_UNIT_ATTRIBUTES: Final = {
    "input_tokens": names.INPUT_TOKENS,
    "output_tokens": names.OUTPUT_TOKENS,
    "cache_read_tokens": names.CACHE_READ_TOKENS,
    "cache_write_tokens": names.CACHE_WRITE_TOKENS,
    "output_reasoning_tokens": names.REASONING_TOKENS,
}


def use_tracer_provider(provider: TracerProvider | None) -> None:
    """Make spans with `provider` from now on; None for the global one."""
    global _tracer  # noqa: PLW0603 - one tracer for all providers, so that a test can replace it
    _tracer = trace.get_tracer(names.SCOPE_INSTRUMENTATION, tracer_provider=provider)


class RiddenSpan:
    """A foreign span that waits for the charge: whoever made it may end it first (Anthropic's
    own does).
    """

    __slots__ = ("_before", "_end_time", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._end_time: int | None = None
        span.set_attribute(names.ACCOUNTED, True)  # from now on: it is ridden once
        self._before = vars(span).get("end")
        span.end = self._end  # type: ignore[method-assign]

    def _end(self, end_time: int | None = None) -> None:
        if self._end_time is None:
            self._end_time = end_time or time_ns()

    def release(self) -> None:
        """Give the span its `end` back, and end it where its maker has done so."""
        if self._before is None:
            del vars(self._span)["end"]
        else:
            self._span.end = self._before  # type: ignore[method-assign]
        if self._end_time is not None:
            self._span.end(self._end_time)


def set_attributes(span: Span, attributes: dict[str, AttributeValue]) -> None:
    """Set attributes of which each is clean: a text of bounded length, a number, a tuple of texts.

    The SDK's own way looks at each of them again, and takes a third of the time of a span. It is
    taken where the SDK has other insides than we know, or limits on what a span may hold.
    """
    bounded = getattr(span, "_attributes", None)
    held = getattr(bounded, "_dict", None)
    if (
        type(held) is dict
        and getattr(bounded, "_immutable", None) is False
        and getattr(bounded, "max_value_len", 0) is None
        and len(held) + len(attributes) <= (getattr(bounded, "maxlen", 0) or 0)
    ):
        held.update(attributes)
    else:
        span.set_attributes(attributes)


def add_usage(attributes: dict[str, AttributeValue], usage: Usage) -> None:
    """Add what was used, and the model that served it, to span attributes."""
    for unit, amount in usage.units.items():
        if amount and (name := _UNIT_ATTRIBUTES.get(unit)):
            attributes[name] = int(amount)
    if usage.model:
        attributes[names.RESPONSE_MODEL] = usage.model[:LONGEST]
    tier = usage.price_context.get("service_tier")
    if tier:
        attributes[names.SERVICE_TIER] = tier[:LONGEST]


def start_span(request: Request, attribution: Attribution, started_ns: int | None = None) -> Span:
    """The span of a call that begins."""
    name = request.operation[:LONGEST]
    attributes: dict[str, AttributeValue] = {
        names.OPERATION: name,
        names.PROVIDER: request.provider[:LONGEST],
        names.ACCOUNTED: True,
        **request.attributes,
        **attribution_attributes(attribution),
    }
    if request.model:
        model = request.model[:LONGEST]
        attributes[names.REQUEST_MODEL] = model
        name = f"{name} {model}"
    if request.server_address:
        attributes[names.SERVER_ADDRESS] = request.server_address[:LONGEST]
    if request.server_port:
        attributes[names.SERVER_PORT] = request.server_port
    if request.stream:
        attributes[names.REQUEST_STREAM] = True
    if request.max_output_tokens:
        attributes[names.REQUEST_MAX_TOKENS] = request.max_output_tokens
    return _tracer.start_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, start_time=started_ns
    )


def attribution_attributes(attribution: Attribution) -> dict[str, AttributeValue]:
    """Who spends, as span attributes."""
    attributes: dict[str, AttributeValue] = dict(attribution.extra)
    if attribution.tenant is not None:
        attributes[names.TENANT] = attribution.tenant
    if attribution.user is not None:
        attributes[names.USER] = attribution.user
    if attribution.feature is not None:
        attributes[names.FEATURE] = attribution.feature
    return attributes


def foreign_span(operation: str) -> Span | None:
    """The current span, where another instrumentation made it for this very call: the charge rides
    on it.

    One GenAI span a call: so no second one is made. A span that carries a charge already is not
        ridden again.
    """
    if operation not in MODEL_OPERATIONS:
        return None
    span = trace.get_current_span()
    if not isinstance(span, ReadableSpan) or not span.is_recording():
        return None
    attributes = span.attributes
    if not attributes or names.ACCOUNTED in attributes:
        return None
    is_model_call = (
        attributes.get(names.OPERATION) in MODEL_OPERATIONS
        or attributes.get("openinference.span.kind") in ("LLM", "EMBEDDING")
        or attributes.get("llm.request.type") in ("chat", "completion", "embedding")
        # Anthropic's own span states its operation only when it ends.
        or (attributes.get(names.PROVIDER) is not None and _is_anthropics(span))
    )
    return span if is_model_call else None


def _is_anthropics(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name.startswith("com.anthropic.sdk.python")
