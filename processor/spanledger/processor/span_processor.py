"""Foreign spans into the books: each GenAI span of another instrumentation is booked once.

    on_start    notes the context (attribution is read from it later), and wraps `span.end` of spans
                that may be calls
    span.end    reads the span by its dialect, books it, sets the cost, ends it
    on_end      spans of our own, and spans that turned out to be GenAI too late for a cost

Attributes are frozen before a processor hears of an end: hence the wrapped `end`. A call is in the
books already where its span says so (our instrumentation rode on it), where a span inside or around
it was booked, or where a span beside it tells of the same call (`seen_calls`).
"""

import functools
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import time_ns
from typing import Final

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.guard import swallow
from spanledger.processor.dialects import MARKERS, is_genai_scope, may_be_paid, read
from spanledger.processor.foreign_calls import SpanEnd, book, charge_attributes
from spanledger.processor.seen_calls import SeenCall, SeenCalls, family

_OTHER, _GENAI, _OWN, _TRANSPORT = range(4)
# Instrumentations that make many spans, and never one of a model call.
_TRANSPORTS: Final = re.compile(
    r"opentelemetry\.instrumentation\.(?:a?wsgi|asgi|flask|django|fastapi|starlette|tornado"
    r"|falcon|pyramid|httpx2?|requests|urllib3?|aiohttp_\w+|grpc|redis|sqlalchemy|psycopg2?"
    r"|asyncpg|pymysql|mysql\w*|sqlite3|dbapi|pymongo|elasticsearch|celery|confluent_kafka"
    r"|kafka_python|aiokafka|pika|threading|asyncio|jinja2|logging)(?:\..*)?"
)
_PROCESSING: Final = swallow("span processor")  # entered on every call: made once
_MOST_INSIDE: Final = 20_000
_MOST_OWN: Final = 256
_MOST_LATE: Final = 256


@functools.lru_cache(maxsize=1024)
def _kind(given_name: object) -> int:
    scope_name = str(given_name)  # whatever an application calls its tracer
    if scope_name == names.SCOPE_INSTRUMENTATION:
        return _OWN
    if is_genai_scope(scope_name):
        return _GENAI
    return _TRANSPORT if _TRANSPORTS.fullmatch(scope_name) else _OTHER


class _Candidate:
    """A span that may be a paid call.

    span_id: its own.
    started_in: its context; None where that was not noted.
    outer: the candidate around it that is still open when it starts.
    covered: families of the calls inside it that are in the books.
    booked: the family of the call that it is itself in the books as.
    """

    __slots__ = ("booked", "covered", "ending", "outer", "span_id", "started_in")

    def __init__(
        self, span_id: int, started_in: Context | None, outer: "_Candidate | None"
    ) -> None:
        self.span_id = span_id
        self.started_in = started_in
        self.outer = outer
        self.covered: set[str | None] = set()
        self.booked: str | None = None
        self.ending = threading.Lock()  # acquired once, without blocking: an atomic "who ends it"

    def is_told_by_another(self, kind: str | None) -> bool:
        """Whether a span inside or around this one was booked as a call of this family."""
        if kind in self.covered:
            return True
        outer = self.outer
        while outer is not None:
            if outer.booked == kind:
                return True
            outer = outer.outer
        return False

    def cover_outer(self, kind: str | None) -> None:
        """A call of this family is in the books: the spans around it may be telling of the same."""
        outer = self.outer
        while outer is not None:
            outer.covered.add(kind)
            outer = outer.outer


class _End:
    """Stands in for `span.end` of one span."""

    __slots__ = ("_candidate", "_previous", "_processor", "_span")

    def __init__(self, processor: "LedgerSpanProcessor", span: Span, candidate: _Candidate) -> None:
        self._processor = processor
        self._span = span
        self._candidate = candidate
        # Another processor's stand-in; None for the class's own method.
        self._previous: Callable[[int | None], None] | None = vars(span).get("end")

    def __call__(self, end_time: int | None = None) -> None:
        span = self._span
        if self._candidate.ending.acquire(blocking=False) and span.is_recording():
            end_time = time_ns() if end_time is None else end_time  # our time is not the call's
            with swallow("foreign span"):
                self._processor.end_candidate(span, self._candidate, end_time)
        if vars(span).get("end") is self:
            del vars(span)["end"]
        if self._previous is None:
            type(span).end(span, end_time)
        else:
            self._previous(end_time)


class LedgerSpanProcessor(SpanProcessor):
    """Books foreign GenAI spans through the installed gate.

    What is seen only in spans is recorded and alerts; it is too late to be held to a budget.
    """

    def __init__(self) -> None:
        # Span id -> the innermost open candidate that the span is, or is inside of.
        self._inside: dict[int, _Candidate] = {}
        self._seen = SeenCalls()
        self._own: deque[ReadableSpan] = deque(maxlen=_MOST_OWN)  # ended, and not in `_seen` yet
        self._noting = threading.Lock()
        self._late: set[tuple[str, str]] = set()  # (scope, span name) that turned GenAI late

    # -- start ---------------------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See `opentelemetry.sdk.trace.SpanProcessor`."""
        kind = _kind_of(span)
        if not self._inside and self._is_nothing(span, kind) and not self._late:
            return  # the way of most spans
        with _PROCESSING:
            outer = self._around(span)
            if kind != _OWN and not self._may_be_call(span, kind):
                if outer is not None:
                    self._inside[_span_id(span)] = outer
                return
            if len(self._inside) >= _MOST_INSIDE:  # spans that never ended
                for span_id in list(self._inside)[: _MOST_INSIDE // 10]:
                    self._inside.pop(span_id, None)
            started_in = context.get_current() if parent_context is None else parent_context
            candidate = _Candidate(_span_id(span), started_in, outer)
            self._inside[candidate.span_id] = candidate
            if kind == _OWN:
                # Our call is booked by its own permit, whatever is seen inside it.
                candidate.booked = family(_attributes(span).get(names.OPERATION))
            else:
                vars(span)["end"] = _End(self, span, candidate)

    @staticmethod
    def _is_nothing(span: ReadableSpan, kind: int) -> bool:
        return kind == _TRANSPORT or (kind == _OTHER and MARKERS.isdisjoint(_attributes(span)))

    def _around(self, span: ReadableSpan) -> _Candidate | None:
        """The candidate around `span`; one that has ended is not: `span` is none of its doing."""
        if not self._inside or span.parent is None:
            return None
        outer = self._inside.get(span.parent.span_id)
        while outer is not None and outer.ending.locked():
            outer = outer.outer
        return outer

    def _may_be_call(self, span: Span, kind: int) -> bool:
        if kind == _TRANSPORT:
            return False
        attributes = _attributes(span)
        if not MARKERS.isdisjoint(attributes):
            return may_be_paid(attributes) is not False
        return kind == _GENAI or (_scope_name(span), span.name) in self._late

    # -- end -----------------------------------------------------------------------------------

    def end_candidate(self, span: Span, candidate: _Candidate, end_ns: int) -> None:
        """Book `span`, which ends now, unless its call is in the books; tell it what it cost."""
        end = SpanEnd.of(span, dict(_attributes(span)), end_ns)
        if told := self._account(end, candidate):
            span.set_attributes(told)

    def on_end(self, span: ReadableSpan) -> None:
        """See `opentelemetry.sdk.trace.SpanProcessor`."""
        kind = _kind_of(span)
        nothing = self._is_nothing(span, kind)
        if not self._inside and nothing:
            return
        with _PROCESSING:
            candidate = self._inside.pop(_span_id(span), None)
            if kind == _OWN:
                self._note_own(span, candidate)
            elif kind == _OTHER and not nothing:
                self._end_late(span, candidate)

    def _note_own(self, span: ReadableSpan, candidate: _Candidate | None) -> None:
        self._own.append(span)  # read only when there is a foreign span to compare with
        if candidate is not None:
            candidate.ending.acquire(blocking=False)
            if candidate.booked is not None:
                candidate.cover_outer(candidate.booked)

    def _end_late(self, span: ReadableSpan, candidate: _Candidate | None) -> None:
        """Book a span whose start did not show what it is. It is too late for a cost on it."""
        if candidate is not None and candidate.span_id == _span_id(span):
            return  # `end_candidate` has seen it
        end = SpanEnd.of(span, dict(span.attributes or {}), span.end_time or time_ns())
        told = self._account(end, _Candidate(end.span_id, None, candidate))
        if told is not None and len(self._late) < _MOST_LATE:
            self._late.add((end.scope, end.name))

    def _account(self, end: SpanEnd, candidate: _Candidate) -> dict[str, AttributeValue] | None:
        """Book the call that a span tells of: what to tell the span; None where it is no call."""
        call = read(end.attributes, end.scope, end.name)
        if call is None:
            return None
        view = SeenCall.of(call, end.scope, end.start_ns, end.end_ns, failed=end.failed)
        if names.ACCOUNTED in end.attributes:
            told: dict[str, AttributeValue] = {}
        elif candidate.is_told_by_another(view.family) or self._is_seen(view):
            candidate.cover_outer(view.family)
            return {names.ACCOUNTED: True}
        else:
            charge, attribution = book(call, end, candidate.started_in)
            if not charge.id:
                return {}  # the open gate: nobody books
            told = charge_attributes(charge, attribution, end.attributes)
        if call.usage.units or not told:
            # What states no usage does not stand for a span inside it that ends later and does.
            candidate.booked = view.family
        candidate.cover_outer(view.family)
        self._seen.add(view)
        return told

    def _is_seen(self, view: SeenCall) -> bool:
        with self._noting:
            while self._own:
                own = self._own.popleft()
                end = SpanEnd.of(own, own.attributes or {}, own.end_time or 0)
                call = read(end.attributes, end.scope, end.name)
                if call is not None:
                    times = (end.start_ns, end.end_ns)
                    self._seen.add(SeenCall.of(call, end.scope, *times, failed=end.failed))
        return self._seen.claim(view)


def _kind_of(span: ReadableSpan) -> int:
    scope = span.instrumentation_scope
    return _OTHER if scope is None else _kind(scope.name)


def _scope_name(span: ReadableSpan) -> str:
    scope = span.instrumentation_scope
    return scope.name if scope is not None else ""


def _span_id(span: ReadableSpan) -> int:
    where = span.context
    return where.span_id if where is not None else 0


def _attributes(span: ReadableSpan) -> Mapping[str, AttributeValue]:
    """A span's attributes; where possible not through `span.attributes`, which takes 1.3 us."""
    held: dict[str, AttributeValue] | None
    held = getattr(getattr(span, "_attributes", None), "_dict", None)
    return (span.attributes or {}) if held is None else held
