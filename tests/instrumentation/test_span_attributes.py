"""The attributes of a call's span: as the SDK would have set them, whatever limits it has."""

import pytest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.trace import INVALID_SPAN, Span

from spanledger.instrumentation.spans import set_attributes

TOLD = {
    "gen_ai.response.id": "chatcmpl-1",
    "spanledger.cost.usd": 0.5,
    "gen_ai.usage.input_tokens": 7,
}


def started(limits: SpanLimits | None = None) -> Span:
    provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    return provider.get_tracer("test").start_span("chat", attributes={"first": 1})


@pytest.mark.parametrize(
    "limits",
    [
        None,
        SpanLimits(max_span_attributes=SpanLimits.UNSET),
        SpanLimits(max_span_attributes=2),
        SpanLimits(max_span_attributes=4),
        SpanLimits(max_span_attributes=0),
        SpanLimits(max_span_attribute_length=4),
    ],
)
def test_a_span_holds_what_it_would_hold_without_the_short_way(limits: SpanLimits | None) -> None:
    ours, theirs = started(limits), started(limits)
    set_attributes(ours, dict(TOLD))
    theirs.set_attributes(TOLD)
    ours.end()
    theirs.end()
    assert dict(ours.attributes) == dict(theirs.attributes)  # type: ignore[attr-defined]
    assert ours.dropped_attributes == theirs.dropped_attributes  # type: ignore[attr-defined]


def test_a_span_that_has_ended_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    span = started()
    span.end()
    set_attributes(span, dict(TOLD))
    assert dict(span.attributes) == {"first": 1}  # type: ignore[attr-defined]
    assert "ended" in caplog.text


def test_a_span_of_another_kind_is_asked_its_own_way() -> None:
    class Other(type(INVALID_SPAN)):  # type: ignore[misc]
        told: dict[str, object] | None = None

        def set_attributes(self, attributes: dict[str, object]) -> None:
            self.told = attributes

    span = Other(INVALID_SPAN.get_span_context())
    set_attributes(span, dict(TOLD))
    assert span.told == TOLD
