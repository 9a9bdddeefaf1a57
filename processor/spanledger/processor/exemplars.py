"""Exemplars: beside what is counted, the trace of one call. Only of traces that are exported; one
that is not would lead nowhere.
"""

from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from spanledger.api.values import Ending
from spanledger.processor.series import Key

_NOWHERE: Final = Context()
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


def trace_of(ending: Ending | None) -> Context:
    """The context to measure in: the call's span, where its trace is exported."""
    if ending is None or not ending.sampled:
        return _NOWHERE
    span = SpanContext(ending.trace_id, ending.span_id, is_remote=False, trace_flags=_SAMPLED)
    return set_span_in_context(NonRecordingSpan(span), _NOWHERE)


class Dearest:
    """By label set, the dearest call since the last look."""

    def __init__(self) -> None:
        self._calls: dict[Key, tuple[int, Ending]] = {}

    def note(self, key: Key, nano_usd: int, ending: Ending) -> None:
        """Note a call that cost so much."""
        if ending.sampled and (key not in self._calls or nano_usd > self._calls[key][0]):
            self._calls[key] = nano_usd, ending

    def take(self) -> dict[Key, Context]:
        """The contexts of the calls noted, and begin anew."""
        calls, self._calls = self._calls, {}
        return {key: trace_of(ending) for key, (_, ending) in calls.items()}
