"""One paid call from its start to its end: attribution, permit, span.

A `Call` ends exactly once, by `finish`, `fail` or `observed`; whatever comes later is ignored. What
books and what makes spans swallows our own errors, so that the pipeline around it stays plain.
"""

import threading
from decimal import Decimal
from time import perf_counter, time_ns
from typing import Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    Status,
    StatusCode,
)
from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.attribution import current_attribution, without_attribution
from spanledger.api.charges import add_charge
from spanledger.api.errors import BudgetError, BudgetThrottled
from spanledger.api.gate import Decision, Permit, Wait, gate
from spanledger.api.guard import swallow
from spanledger.api.values import (
    LONGEST,
    Charge,
    Ending,
    ModelSwap,
    Outcome,
    PaidCall,
    Usage,
)
from spanledger.instrumentation.request import NOTHING_READ, Reading, Request
from spanledger.instrumentation.spans import (
    RiddenSpan,
    add_usage,
    attribution_attributes,
    foreign_span,
    set_attributes,
    start_span,
)

# Entered on every call: made once.
_ADMIT: Final = swallow("admit")
_FINISH: Final = swallow("finish")
_SPAN: Final = swallow("span")
_REJECTED: Final = (400, 404, 422)  # the provider does not take the request, or not for this model
_NOTHING_USED: Final = Usage(reported_cost=Decimal(0))


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
            credits_unsaid=request.credits_unsaid,
        )
        self._permit: Permit | None = None
        self.charge: Charge | None = None
        self._ridden: RiddenSpan | None = None
        self.span: Span = INVALID_SPAN  # money does not depend on a span
        with _SPAN:
            if not request.spends:  # it has a span of its own only where there is something to tell
                self.span = trace.get_current_span()
            elif (foreign := foreign_span(request.operation)) is not None:
                self._ridden = RiddenSpan(foreign)
                self.span = foreign
            else:
                self.span = start_span(request, attribution)

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
                self.span.set_attribute(names.DEGRADED, "stale_cache")
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
                self.span = start_span(self.request, self.paid.attribution, self.paid.started_ns)
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
            sampled=where.trace_flags.sampled,
        )

    def _describe(self, reading: Reading, charge: Charge) -> None:
        """Put what was read and charged on the span."""
        span = self.span
        if not span.is_recording():
            return
        attributes: dict[str, AttributeValue] = {names.COST_STATUS: charge.status}
        usage = reading.usage
        if usage is not None:
            add_usage(attributes, usage)
        if reading.response_id:
            attributes[names.RESPONSE_ID] = reading.response_id[:LONGEST]
        if reading.finish_reasons:
            attributes[names.FINISH_REASONS] = tuple(r[:LONGEST] for r in reading.finish_reasons)
        if self._first_chunk is not None:
            attributes[names.FIRST_CHUNK_SECONDS] = self._first_chunk
        if self.swap is not None:
            attributes[names.DEGRADED] = "cheaper_model"
        if self._ridden:
            attributes.update(attribution_attributes(self.paid.attribution))
        add_charge(attributes, charge)
        set_attributes(span, attributes)

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
