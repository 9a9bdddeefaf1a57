"""One paid call from its start to its end: attribution, permit, span.

A `Call` ends exactly once, by `finish`, `fail` or `observed`; whatever comes later is ignored. What
books and what makes spans swallows our own errors, so that the pipeline around it stays plain.
"""

import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from time import perf_counter, time_ns
from typing import Final, NamedTuple

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
)
from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.attribution import current_attribution, without_attribution
from spanledger.api.errors import BudgetError, BudgetThrottled
from spanledger.api.gate import Decision, Permit, Wait, gate
from spanledger.api.guard import swallow
from spanledger.api.values import (
    EMPTY,
    Attribution,
    Charge,
    Ending,
    ModelSwap,
    Outcome,
    PaidCall,
    Usage,
)

_tracer: Tracer = trace.get_tracer(names.SCOPE_INSTRUMENTATION)

# Operations of a model; a foreign span with one of these is a span of the call itself, not of
# something around it.
MODEL_OPERATIONS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
# Entered on every call: made once.
_ADMIT: Final = swallow("admit")
_FINISH: Final = swallow("finish")
_SPAN: Final = swallow("span")
_REJECTED: Final = (400, 404, 422)  # the provider does not take the request, or not for this model
_LONGEST: Final = 256  # characters of what a provider or a user names, on a span
_NOTHING_USED: Final = Usage(reported_cost=Decimal(0))
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


class Request(NamedTuple):
    """What a provider file says of a call before it is sent.

    attributes: span attributes of this request besides those that the fields give.
    shape: which of the provider's response formats to read; the provider file's own word.
    swappable: another model could be asked instead, in the body of the request.
    ask_usage: whether usage of a stream may be asked for.
    spends: False where the call costs nothing itself, but its answer tells what something else cost
        (a job's poll) or what is left (a balance): it is not admitted and is no call in the books.
    known: usage that the request itself states: a floor, or all there is to know.
    content: what is asked, as JSON, for the data layer; None where a result is not to be shared.
    """

    provider: str
    operation: str
    model: str | None = None
    server_address: str | None = None
    server_port: int | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    input_bytes: Callable[[], int] | None = None
    attributes: Mapping[str, AttributeValue] = EMPTY
    shape: str = ""
    ask_usage: bool = True
    spends: bool = True
    swappable: bool = False
    known: Usage | None = None
    content: Mapping[str, object] | None = None


class Reading(NamedTuple):
    """What a provider file reads from a result.

    usage: None where the provider did not say: the call is then booked as estimated.
    credits_remaining: the balance that the provider states.
    job: id of the job that the call made, or whose usage by now this is.
    """

    usage: Usage | None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    credits_remaining: Decimal | None = None
    job: str | None = None


NOTHING_READ: Final = Reading(None)


class Call:
    """One paid call in flight."""

    __slots__ = (
        "_ended",
        "_first_chunk",
        "_permit",
        "_ridden",
        "_started",
        "charge",
        "paid",
        "request",
        "span",
    )

    def __init__(self, request: Request) -> None:
        self._started = perf_counter()
        self._first_chunk: float | None = None
        self._ended = threading.Lock()  # acquired once, without blocking: an atomic "who ends it"
        self.request = request
        attribution = current_attribution()
        self.paid = PaidCall(
            request.provider,
            request.operation,
            request.model,
            attribution,
            time_ns(),
            request.input_bytes,
            request.max_output_tokens,
            request.known,
            swappable=request.swappable,
        )
        self._permit: Permit | None = None
        self.charge: Charge | None = None
        self._ridden: _RiddenSpan | None = None
        self.span: Span = INVALID_SPAN  # money does not depend on a span
        with _SPAN:
            if not request.spends:  # it has a span of its own only where there is something to tell
                self.span = trace.get_current_span()
            elif (foreign := _foreign_span(request.operation)) is not None:
                self._ridden = _RiddenSpan(foreign)
                self.span = foreign
            else:
                self.span = _start_span(request, attribution)

    def ask(self, waited: Wait | None, *, nowait: bool) -> Wait | bool:
        """Ask the gate: True with a permit, `Wait` to sleep and ask again, False where it must be
        asked in a thread.

        Raises BudgetError.
        """
        try:
            with _ADMIT:
                answer = gate().admit(self.paid, waited, nowait=nowait)
                if answer is None:
                    return False
                if isinstance(answer, Wait):
                    return answer
                self._permit = answer
        except BudgetError as error:
            self._refuse(error)
            raise
        return True

    @property
    def decision(self) -> Decision:
        """What the permit allows."""
        return "proceed" if self._permit is None else self._permit.decision

    @property
    def swap(self) -> ModelSwap | None:
        """The cheaper model that is asked instead."""
        return None if self._permit is None else self._permit.swap

    def rejection(self, error: BaseException) -> BudgetError | None:
        """The budget's refusal, where the provider rejected the cheaper model."""
        rejected = self.swap is not None and getattr(error, "status_code", None) in _REJECTED
        return self._permit.refusal if rejected and self._permit else None

    def looked_up(self, state: str, *, stale_available: bool) -> None:
        """The data layer has no result to serve: this call makes one."""
        self.span.set_attribute(names.CACHE, state)
        if stale_available:
            self.paid = self.paid._replace(stale_available=True)

    def served(
        self,
        outcome: Outcome,
        state: str,
        saved_nano_usd: int | None,
        saved_credits: Decimal | None,
    ) -> None:
        """The data layer served a result: book a call that spends nothing, and what that saved."""
        if not self._ended.acquire(blocking=False):
            return
        with _FINISH:
            self.span.set_attribute(names.CACHE, state)
            if outcome == "degraded":
                self.span.set_attribute(names.DEGRADED, True)
            else:
                self.paid = self.paid._replace(spends=False)
                self.ask(None, nowait=True)  # admitted whatever the budgets say
            ending = self._ending(outcome, None)._replace(
                saved_nano_usd=saved_nano_usd or 0, saved_credits=saved_credits
            )
            self._describe(NOTHING_READ, self._release(ending))
        self._end_span()

    def context(self) -> Context:
        """The context to send the call in: its span is current, and attribution does not travel
        to the provider.
        """
        ctx = without_attribution(context.get_current())
        return ctx if self._ridden else trace.set_span_in_context(self.span, ctx)

    def first_chunk(self) -> None:
        """The first chunk of the stream is here."""
        self._first_chunk = perf_counter() - self._started

    @property
    def ended(self) -> bool:
        """Whether the call is in the books."""
        return self._ended.locked()

    def forget(self) -> None:
        """Another process makes this call, and books it."""
        self._ended.acquire(blocking=False)

    def finish(self, reading: Reading, outcome: Outcome = "ok") -> None:
        """The provider answered: book what was read."""
        if not self._ended.acquire(blocking=False):
            return
        with _FINISH:
            charge = self._settle(reading.usage, self._ending(outcome, None, reading.job))
            self.charge = charge
            self._describe(reading, charge)
            self._note_balance(reading)
        self._end_span()

    def fail(self, error: BaseException, reading: Reading | None, *, unbilled: bool) -> None:
        """The call raised. `unbilled`: it was not sent, or the provider does not bill it; else
        it may be billed.
        """
        if not self._ended.acquire(blocking=False):
            return
        with swallow("fail"):
            kind = type(error).__qualname__
            ending = self._ending("error", kind)
            if not unbilled:
                charge = self._settle(reading.usage if reading else None, ending)
            else:
                charge = self._release(ending)
            self._describe(reading or NOTHING_READ, charge)
            self._mark_error(kind)
        self._end_span()

    def observed(self, reading: Reading) -> None:
        """A call that costs nothing itself was answered: book what its job has used by now.

        A poll that brings nothing new leaves no row and no span. The row of one that does has the
        ids of the span around it.
        """
        if not self._ended.acquire(blocking=False):
            return
        with swallow("job"):
            self._note_balance(reading)
            if reading.job is None or reading.usage is None:
                return
            ending = self._ending("ok", None)
            charge = gate().record(self.paid, reading.usage, ending, reading.job)
            if charge.id:
                self.span = _start_span(self.request, self.paid.attribution, self.paid.started_ns)
                self._describe(reading, charge)
                self._end_span()

    def _settle(self, usage: Usage | None, ending: Ending) -> Charge:
        if self._permit is not None:
            return self._permit.settle(usage, ending)
        # It could not be admitted, by a fault of ours: it is booked all the same.
        return gate().record(self.paid, usage or Usage(estimated=True), ending)

    def _release(self, ending: Ending) -> Charge:
        if self._permit is not None:
            return self._permit.release(ending)
        return gate().record(self.paid, _NOTHING_USED, ending)

    def _note_balance(self, reading: Reading) -> None:
        if reading.credits_remaining is not None:
            gate().credits_remaining(self.request.provider, reading.credits_remaining)

    def _refuse(self, error: BudgetError) -> None:
        if not self._ended.acquire(blocking=False):
            return
        with swallow("refuse"):
            kind = type(error).__qualname__
            outcome: Outcome = "throttled" if isinstance(error, BudgetThrottled) else "blocked"
            charge = gate().record(self.paid, Usage(), self._ending(outcome, kind))
            self._describe(NOTHING_READ, charge)
            self._mark_error(kind)
        self._end_span()

    def _ending(self, outcome: Outcome, error_type: str | None, job: str | None = None) -> Ending:
        where = self.span.get_span_context()
        return Ending(
            outcome,
            perf_counter() - self._started,
            self._first_chunk,
            error_type,
            where.trace_id,
            where.span_id,
            job=job,
        )

    def _describe(self, reading: Reading, charge: Charge) -> None:
        """Put what was read and charged on the span."""
        span = self.span
        if not span.is_recording():
            return
        attributes: dict[str, AttributeValue] = {names.COST_STATUS: charge.status}
        usage = reading.usage
        if usage is not None:
            _add_usage(attributes, usage)
        if reading.response_id:
            attributes[names.RESPONSE_ID] = reading.response_id[:_LONGEST]
        if reading.finish_reasons:
            attributes[names.FINISH_REASONS] = [r[:_LONGEST] for r in reading.finish_reasons]
        if self._first_chunk is not None:
            attributes[names.FIRST_CHUNK_SECONDS] = self._first_chunk
        if self.swap is not None:
            attributes[names.DEGRADED] = True
        if self._ridden:
            attributes.update(_attribution_attributes(self.paid.attribution))
        add_charge(attributes, charge)
        span.set_attributes(attributes)

    def _mark_error(self, kind: str) -> None:
        if not self._ridden:
            self.span.set_attribute(names.ERROR_TYPE, kind)
            self.span.set_status(Status(StatusCode.ERROR))  # no text: an error's may hold a prompt

    def _end_span(self) -> None:
        with _SPAN:
            if self._ridden:
                self._ridden.release()
            else:
                self.span.end()


class _RiddenSpan:
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


def add_charge(attributes: dict[str, AttributeValue], charge: Charge) -> None:
    """Add what a charge says to span attributes; an unknown cost adds no cost."""
    if charge.nano_usd is not None:
        usd = charge.nano_usd / 1e9
        attributes[names.COST_AMOUNT] = usd
        attributes[names.COST_CURRENCY] = "USD"
        attributes[names.COST_USD] = usd
    if charge.source is not None:
        attributes[names.COST_SOURCE] = charge.source
    if charge.price_version is not None:
        attributes[names.PRICE_VERSION] = charge.price_version
    if charge.reason is not None:
        attributes[names.UNPRICED_REASON] = charge.reason
    if charge.credits is not None:
        attributes[names.CREDITS] = float(charge.credits)
    if charge.tier is not None:
        attributes[names.BUDGET_TIER] = charge.tier


def _add_usage(attributes: dict[str, AttributeValue], usage: Usage) -> None:
    for unit, amount in usage.units.items():
        if amount and (name := _UNIT_ATTRIBUTES.get(unit)):
            attributes[name] = int(amount)
    if usage.model:
        attributes[names.RESPONSE_MODEL] = usage.model[:_LONGEST]
    tier = usage.price_context.get("service_tier")
    if tier:
        attributes[names.SERVICE_TIER] = tier[:_LONGEST]


def _start_span(request: Request, attribution: Attribution, started_ns: int | None = None) -> Span:
    attributes: dict[str, AttributeValue] = {
        names.OPERATION: request.operation,
        names.PROVIDER: request.provider,
        names.ACCOUNTED: True,
        **request.attributes,
        **_attribution_attributes(attribution),
    }
    name = request.operation
    if request.model:
        model = request.model[:_LONGEST]
        attributes[names.REQUEST_MODEL] = model
        name = f"{name} {model}"
    if request.server_address:
        attributes[names.SERVER_ADDRESS] = request.server_address
    if request.server_port:
        attributes[names.SERVER_PORT] = request.server_port
    if request.stream:
        attributes[names.REQUEST_STREAM] = True
    if request.max_output_tokens:
        attributes[names.REQUEST_MAX_TOKENS] = request.max_output_tokens
    return _tracer.start_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, start_time=started_ns
    )


def _attribution_attributes(attribution: Attribution) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = dict(attribution.extra)
    if attribution.tenant is not None:
        attributes[names.TENANT] = attribution.tenant
    if attribution.user is not None:
        attributes[names.USER] = attribution.user
    if attribution.feature is not None:
        attributes[names.FEATURE] = attribution.feature
    return attributes


def _foreign_span(operation: str) -> Span | None:
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
