"""Baggage from the network where a context has some already, and where it meets calls in calls."""

from collections.abc import Callable

import pytest
from books import Books
from openai_endpoint import MESSAGES, answering, chat
from opentelemetry import context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from spanledger.api import attribute, current_attribution
from spanledger.api.contexts import attached
from spanledger.instrumentation.metered import metered
from spanledger.processor.propagation import MarkingPropagator

INCOMING = {"baggage": "tenant.id=evil,user.id=evil,color=red"}
CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}

PROPAGATORS = {
    "baggage": lambda: MarkingPropagator(W3CBaggagePropagator()),
    "default": lambda: MarkingPropagator(
        CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    ),
}
EVERY = pytest.mark.parametrize("make", PROPAGATORS.values(), ids=PROPAGATORS)


@EVERY
def test_what_this_process_set_is_believed_after_an_extraction_into_its_context(
    make: Callable[[], MarkingPropagator],
) -> None:
    propagator = make()
    with attribute(tenant="acme"):
        for carrier in ({}, {"baggage": "color=red"}):
            ctx = propagator.extract(carrier, context=context.get_current())
            assert current_attribution(ctx).tenant == "acme"
        ctx = propagator.extract({"baggage": "user.id=evil"}, context=context.get_current())
        assert current_attribution(ctx)[:2] == ("acme", None)
        ctx = propagator.extract(INCOMING, context=context.get_current())
        assert current_attribution(ctx)[:2] == (None, None)  # it was overwritten


@EVERY
def test_what_came_in_is_not_believed_for_being_extracted_again(
    make: Callable[[], MarkingPropagator],
) -> None:
    propagator = make()
    with attached(propagator.extract(INCOMING)):
        for carrier in ({}, {"baggage": "color=blue"}, INCOMING):
            ctx = propagator.extract(carrier, context=context.get_current())
            assert current_attribution(ctx).tenant is None
            with attached(ctx):
                assert current_attribution().tenant is None


def test_what_came_in_is_not_believed_by_calls_inside_a_call(books: Books) -> None:
    """Also not where a metered function has taken it out of the baggage."""

    @metered(provider="research", operation="report", cost="0.01")
    def report() -> None:
        answering(chat()).client().chat.completions.create(**CHAT)

    with attached(MarkingPropagator(W3CBaggagePropagator()).extract(INCOMING)):
        report()
        with attribute(user="u-1"):
            report()
    assert {(row.tenant_id, row.user_id) for row in books.rows()} == {(None, None), (None, "u-1")}
    assert len(books.rows()) == 4
