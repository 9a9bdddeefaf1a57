"""Who spends: read from baggage, set by helpers, kept from providers, and not believed from outside."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from spanledger.api import attribute, current_attribution, feature
from spanledger.api.attribution import (
    LONGEST_VALUE,
    configure_attribution,
    without_attribution,
)
from spanledger.api.contexts import attached
from spanledger.processor.propagation import MarkingPropagator


def who() -> tuple[str | None, str | None, str | None]:
    found = current_attribution()
    return found.tenant, found.user, found.feature


# -- reading -------------------------------------------------------------------------------------------------


def test_nobody_is_nobody() -> None:
    assert who() == (None, None, None)
    assert current_attribution().use_id is None


@pytest.mark.parametrize(
    "keys", [("tenant.id", "user.id", "feature.name"), ("tenant", "user", "feature")]
)
def test_plain_opentelemetry_baggage_is_read(keys: tuple[str, str, str]) -> None:
    ctx = context.get_current()
    for key, value in zip(keys, ("acme", "u-1", "search"), strict=True):
        ctx = baggage.set_baggage(key, value, ctx)
    with attached(ctx):
        assert who() == ("acme", "u-1", "search")


def test_the_full_name_comes_before_its_alias() -> None:
    ctx = baggage.set_baggage("tenant", "alias", baggage.set_baggage("tenant.id", "name"))
    assert current_attribution(ctx).tenant == "name"


def test_further_keys_are_read_where_the_settings_name_them() -> None:
    with attribute(tenant="acme", plan="pro"):
        assert not current_attribution().extra
        configure_attribution(extra=("plan",))
        assert current_attribution().extra == {"plan": "pro"}


def test_absurd_values_become_bounded_labels_on_one_line() -> None:
    one, other = "x" * 10_000 + "1", "x" * 10_000 + "2"
    with attribute(tenant=one):
        first = current_attribution().tenant
    with attribute(tenant=other, user="line\nbreak\ttab"):
        second, user, _ = who()
    assert first is not None
    assert second is not None
    assert len(first) == len(second) == LONGEST_VALUE
    assert first != second
    assert user == "line break tab"
    with attached(baggage.set_baggage("tenant.id", 17)):
        assert current_attribution().tenant == "17"


@given(st.text(max_size=600))
def test_any_value_is_a_label_or_nothing(value: str) -> None:
    label = current_attribution(baggage.set_baggage("tenant.id", value)).tenant
    assert label is None or (label.isprintable() and 0 < len(label) <= LONGEST_VALUE)


# -- setting -------------------------------------------------------------------------------------------------


def test_attribute_nests_and_ends() -> None:
    with attribute(tenant="acme"):
        with attribute(user="u-1"):
            assert who() == ("acme", "u-1", None)
        assert who() == ("acme", None, None)
    assert who() == (None, None, None)


async def test_attribute_in_async_code() -> None:
    async def task(tenant: str) -> str | None:
        async with attribute(tenant=tenant):
            await asyncio.sleep(0.001)
            return current_attribution().tenant

    assert await asyncio.gather(*(task(f"t{n}") for n in range(20))) == [f"t{n}" for n in range(20)]


def test_decorated_functions_of_every_kind() -> None:
    @attribute(tenant="acme")
    @feature("search")
    def plain() -> tuple[str | None, ...]:
        return who()

    @feature("search")
    async def coroutine() -> str | None:
        await asyncio.sleep(0)
        return current_attribution().feature

    assert plain() == ("acme", None, "search")
    assert asyncio.run(coroutine()) == "search"
    assert who() == (None, None, None)
    assert plain.__name__ == "plain"


def test_a_decorated_generator_keeps_its_context_and_its_consumer_keeps_his() -> None:
    @feature("export")
    def steps() -> Generator[str | None, str, str]:
        got = yield current_attribution().feature
        try:
            yield f"{got} {current_attribution().feature}"
        except ValueError:
            yield "thrown"
        return "done"

    with attribute(tenant="acme"):
        generator = steps()
    assert next(generator) == "export"
    assert who() == (None, None, None)
    assert generator.send("sent") == "sent export"
    assert generator.throw(ValueError()) == "thrown"
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "done"


async def test_a_decorated_async_generator() -> None:
    ended: list[str | None] = []

    @feature("export")
    async def steps() -> AsyncGenerator[str | None, None]:
        try:
            while True:
                yield current_attribution().feature
        finally:
            ended.append(current_attribution().feature)

    generator = steps()
    assert await anext(generator) == "export"
    assert who() == (None, None, None)
    await generator.aclose()
    assert ended == ["export"]


# -- uses ----------------------------------------------------------------------------------------------------


def test_a_feature_block_is_one_use_and_the_next_one_another() -> None:
    uses = []
    for _ in range(2):
        with feature("search"):
            first = current_attribution().use_id
            with feature("search"):  # recursion is the same use
                assert current_attribution().use_id == first
            with feature("rerank"):
                assert current_attribution().use_id != first
        uses.append(first)
    assert None not in uses
    assert uses[0] != uses[1]


def test_without_a_block_a_trace_is_one_use() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("request") as span, attribute(feature="search"):
        with tracer.start_as_current_span("step"):
            assert current_attribution().use_id == f"{span.get_span_context().trace_id:032x}"


# -- threads -------------------------------------------------------------------------------------------------


async def test_attribution_survives_to_thread_and_tasks() -> None:
    with attribute(tenant="acme"):
        assert await asyncio.to_thread(lambda: current_attribution().tenant) == "acme"
        assert (
            await asyncio.create_task(asyncio.to_thread(lambda: current_attribution().tenant))
            == "acme"
        )


def test_plain_threads_lose_it_unless_the_threading_instrumentation_is_on() -> None:
    seen: list[str | None] = []

    def look() -> None:
        seen.append(current_attribution().tenant)

    def start() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(look).result()

    with attribute(tenant="acme"):
        start()
        ThreadingInstrumentor().instrument()
        try:
            start()
        finally:
            ThreadingInstrumentor().uninstrument()
    assert seen == [None, None, "acme", "acme"]


def test_a_copied_context_carries_it() -> None:
    with attribute(tenant="acme"):
        ctx = contextvars.copy_context()
    assert ctx.run(current_attribution).tenant == "acme"


# -- outside -------------------------------------------------------------------------------------------------


def test_only_attribution_is_taken_out_of_the_baggage() -> None:
    configure_attribution(extra=("plan",))
    ctx = baggage.set_baggage("request.priority", "high")
    for key in ("tenant.id", "tenant", "user.id", "user", "feature.name", "feature", "plan"):
        ctx = baggage.set_baggage(key, "x", ctx)
    assert dict(baggage.get_all(without_attribution(ctx))) == {"request.priority": "high"}
    assert trace.get_current_span(without_attribution(ctx)) is trace.get_current_span(ctx)


def test_what_attribute_sets_is_taken_out_without_any_setting() -> None:
    with attached(baggage.set_baggage("request.priority", "high")):
        with attribute(tenant="acme", plan="pro"), attribute(email="bob@x.example", team=None):  # type: ignore[arg-type]
            outside = without_attribution(context.get_current())
            with attached(baggage.set_baggage("plan", "other")):  # whoever sets it again
                again = without_attribution(context.get_current())
            with attached(outside), feature("search"), attribute(email="ann@x.example"):
                within = without_attribution(context.get_current())  # of a metered function
        after = without_attribution(baggage.set_baggage("plan", "pro"))
    for ctx in (outside, again, within):
        assert dict(baggage.get_all(ctx)) == {"request.priority": "high"}
    assert baggage.get_baggage("plan", after) == "pro"  # not ours there


def test_a_key_that_nobody_reads_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    configure_attribution(extra=("plan",))
    with caplog.at_level(logging.WARNING, "spanledger"):
        for _ in range(3):
            with attribute(tennant="acme", plan="pro"):
                without_attribution(context.get_current())
    (record,) = caplog.records
    assert "attribute(tennant=...)" in record.getMessage()
    assert "extra_keys" in record.getMessage()
    assert "acme" not in record.getMessage()


INCOMING = {"baggage": "tenant.id=acme,user.id=u-1,color=red"}


@pytest.fixture
def propagator() -> MarkingPropagator:
    return MarkingPropagator(W3CBaggagePropagator())


def test_baggage_from_the_network_is_not_believed_and_that_is_said_once(
    propagator: MarkingPropagator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "spanledger"), attached(propagator.extract(INCOMING)):
        assert baggage.get_baggage("tenant.id") == "acme"  # it is there, for others
        for _ in range(3):
            assert who() == (None, None, None)
    (record,) = caplog.records
    assert "tenant.id" in record.getMessage()
    assert "trust_incoming" in record.getMessage()
    assert "acme" not in record.getMessage()


def test_it_is_believed_where_the_settings_say_so(propagator: MarkingPropagator) -> None:
    configure_attribution(trust_incoming=True)
    with attached(propagator.extract(INCOMING)):
        assert who() == ("acme", "u-1", None)


def test_what_this_process_sets_is_believed_even_where_it_repeats_what_came_in(
    propagator: MarkingPropagator,
) -> None:
    with attached(propagator.extract(INCOMING)):
        came_in = str(baggage.get_baggage("tenant.id"))
        with attribute(tenant=came_in):
            assert who() == ("acme", None, None)
        with attached(baggage.set_baggage("user.id", "u-2")):
            assert who() == (None, "u-2", None)


def test_the_global_propagator_is_marked_also_when_it_is_set_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from spanledger.processor.propagation import mark_incoming_baggage

    before = propagate.get_global_textmap()
    monkeypatch.setattr(propagate, "set_global_textmap", propagate.set_global_textmap)
    try:
        mark_incoming_baggage()
        mark_incoming_baggage()
        with attached(propagate.extract(INCOMING)):
            assert who() == (None, None, None)
        propagate.set_global_textmap(W3CBaggagePropagator())
        with attached(propagate.extract(INCOMING)):
            assert who() == (None, None, None)
        carrier: dict[str, str] = {}
        with attribute(tenant="ours"):
            propagate.inject(carrier)
        assert carrier == {"baggage": "tenant.id=ours"}
    finally:
        propagate._HTTP_TEXT_FORMAT = before  # type: ignore[attr-defined]
