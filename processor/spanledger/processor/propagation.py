"""Baggage that came in over the network, marked as such.

The global propagator's `extract` is wrapped, also that of one that the application sets later.
Tracing instrumentations and frameworks get it by `propagate.extract` or `get_global_textmap`; both
meet the wrapper.
"""

from typing import Any, cast

import wrapt
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator

from spanledger.api.attribution import mark_incoming
from spanledger.api.guard import swallow


class MarkingPropagator(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """A propagator whose extracted baggage is remembered as incoming."""

    def extract(self, *args: Any, **kwargs: Any) -> Context:
        """As the propagator does."""
        ctx: Context = self.__wrapped__.extract(*args, **kwargs)
        with swallow("extract"):
            return mark_incoming(ctx)
        return ctx


def mark_incoming_baggage() -> None:
    """Wrap the global propagator, and whichever is set later."""
    current = propagate.get_global_textmap()
    if isinstance(current, MarkingPropagator):
        return
    propagate.set_global_textmap(cast("TextMapPropagator", MarkingPropagator(current)))
    wrapt.wrap_function_wrapper(propagate, "set_global_textmap", _wrap_later)


def _wrap_later(wrapped: Any, _: Any, args: Any, kwargs: Any) -> None:
    propagator = kwargs.get("http_text_format", args[0] if args else None)
    wrapped(cast("TextMapPropagator", MarkingPropagator(propagator)))
