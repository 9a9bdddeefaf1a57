"""The pipeline against a gate that makes it wait, refuses, asks for a thread, or is broken itself."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
import scavio
from anthropic_endpoint import CALL, AnthropicEndpoint
from loopback import Loopback
from openai_endpoint import MESSAGES, Endpoint, answering, chat, streaming
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.api import BudgetError, BudgetExceeded, BudgetThrottled, attribute, guard
from spanledger.api.attribution import current_attribution
from spanledger.api.gate import Decision, Permit, Wait, install_gate
from spanledger.api.values import Charge, Ending, ModelSwap, PaidCall, Tier, Usage
from spanledger.instrumentation import pipeline
from spanledger.instrumentation.metered import metered
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.streams import flush_streams

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
THROTTLED = BudgetThrottled(scope="tenant:acme", retry_after=3.0)
EXCEEDED = BudgetExceeded(
    scope="tenant:acme",
    limit=Decimal(1),
    spent=Decimal("1.1"),
    resets_at=datetime(2026, 2, 1, tzinfo=UTC),
)


class Asked(NamedTuple):
    call: PaidCall
    waited: Wait | None
    nowait: bool
    thread: int


class ScriptedPermit:
    decision: Decision = "proceed"
    swap: ModelSwap | None = None
    tier: Tier | None = None

    def __init__(self, gate: "ScriptedGate", call: PaidCall) -> None:
        self._gate = gate
        self._call = call

    def settle(self, usage: Usage | None, ending: Ending) -> Charge:
        self._gate.ended.append(("settle", ending))
        self._gate.may_break("settle")
        return Charge("c", 1, None, "exact")

    def release(self, ending: Ending) -> Charge:
        self._gate.ended.append(("release", ending))
        self._gate.may_break("release")
        return Charge("c", 0, None, "exact")


class ScriptedGate:
    """A double, because no real gate can be told to wait twice and then refuse, or to be broken.

    answers: what `admit` does, one after the other: a `Wait`, an error to raise, None, a number of
        seconds to block for, "permit"; then it gives permits.
    broken: methods that raise.
    """

    def __init__(self, *answers: object, broken: tuple[str, ...] = ()) -> None:
        self._answers: Iterator[object] = iter(answers)
        self._broken = broken
        self.asked: list[Asked] = []
        self.ended: list[tuple[str, Ending]] = []

    def may_break(self, method: str) -> None:
        if method in self._broken:
            raise RuntimeError(f"{method} is broken")

    def admit(
        self, call: PaidCall, waited: Wait | None = None, *, nowait: bool = False
    ) -> Permit | Wait | None:
        self.asked.append(Asked(call, waited, nowait, threading.get_ident()))
        self.may_break("admit")
        answer = next(self._answers, "permit")
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, float):
            time.sleep(answer)
        elif answer is None or isinstance(answer, Wait):
            return answer
        return ScriptedPermit(self, call)

    def record(
        self, call: PaidCall, usage: Usage, ending: Ending, key: str | None = None
    ) -> Charge:
        self.ended.append(("record", ending))
        self.may_break("record")
        return Charge("c", 0, None, "exact")

    def credits_remaining(self, provider: str, credits: Decimal) -> None:
        self.may_break("credits_remaining")


# -- ways to make a paid call ----------------------------------------------------------------------

meter = metered(provider="geocoder", operation="geocode", cost="0.01")


@meter
def _function() -> str:
    return "fish"


@meter
async def _coroutine() -> str:
    return "fish"


@meter
def _generator() -> Generator[str, None, None]:
    yield "fish"


@meter
async def _async_generator() -> AsyncGenerator[str, None]:
    yield "fish"


class Sent:
    """Counts what reaches a provider."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.servers: list[Loopback] = []

    def chat(self, *, stream: bool = False, kind: type = openai.OpenAI) -> Any:
        endpoint = streaming() if stream else answering(chat())
        self.endpoints.append(endpoint)
        return endpoint.client(kind).chat.completions

    def messages(self, kind: type = anthropic.Anthropic) -> Any:
        endpoint = AnthropicEndpoint()
        self.endpoints.append(endpoint)
        return endpoint.client(kind).messages

    def server(self) -> Loopback:
        self.servers.append(Loopback(lambda _: (200, {"credits_used": 1, "credits_remaining": 5})))
        return self.servers[-1]

    def count(self) -> int:
        return sum(len(e.requests) for e in (*self.endpoints, *self.servers))


def _block() -> str:
    with meter as call:
        call.result = "fish"
    return "fish"


def _scavio(sent: Sent) -> Any:
    options: Any = {"api_key": "k", "max_requests_per_second": 50, "max_retries": 0}
    with sent.server() as server, scavio.ScavioClient(base_url=server.url, **options) as client:
        return client.google.search("fish")["credits_used"]


SYNC: dict[str, Callable[[Sent], Any]] = {
    "openai": lambda sent: sent.chat().create(**CHAT).id,
    "openai stream": lambda s: len(list(s.chat(stream=True).create(**CHAT, stream=True))),
    "anthropic": lambda sent: sent.messages().create(**CALL).id,
    "scavio": _scavio,
    "function": lambda _: _function(),
    "generator": lambda _: list(_generator()),
    "block": lambda _: _block(),
}


async def _openai_async(sent: Sent) -> Any:
    return (await sent.chat(kind=openai.AsyncOpenAI).create(**CHAT)).id


async def _openai_stream_async(sent: Sent) -> Any:
    chats = sent.chat(stream=True, kind=openai.AsyncOpenAI)
    return len([chunk async for chunk in await chats.create(**CHAT, stream=True)])


async def _anthropic_async(sent: Sent) -> Any:
    return (await sent.messages(anthropic.AsyncAnthropic).create(**CALL)).id


async def _scavio_async(sent: Sent) -> Any:
    options: Any = {"api_key": "k", "max_requests_per_second": 50, "max_retries": 0}
    with sent.server() as server:
        async with scavio.AsyncScavioClient(base_url=server.url, **options) as client:
            return (await client.google.search("fish"))["credits_used"]


async def _generator_async(_: Sent) -> Any:
    return [item async for item in _async_generator()]


async def _block_async(_: Sent) -> Any:
    async with meter:
        return "fish"


ASYNC: dict[str, Callable[[Sent], Any]] = {
    "openai": _openai_async,
    "openai stream": _openai_stream_async,
    "anthropic": _anthropic_async,
    "scavio": _scavio_async,
    "coroutine": lambda _: _coroutine(),
    "async generator": _generator_async,
    "async block": _block_async,
}
RESULTS: dict[str, Any] = {
    "openai": "chatcmpl-1",
    "openai stream": 3,
    "anthropic": "msg_1",
    "scavio": 1,
    "function": "fish",
    "coroutine": "fish",
    "generator": ["fish"],
    "async generator": ["fish"],
    "block": "fish",
    "async block": "fish",
}
ALL = [*((way, False) for way in SYNC), *((way, True) for way in ASYNC)]
EVERY_WAY = pytest.mark.parametrize(("way", "asynchronous"), ALL)
EVERY_ASYNC_WAY = pytest.mark.parametrize("way", ASYNC)
REACHES = {"openai", "openai stream", "anthropic", "scavio"}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use_tracer_provider(provider)
    yield exporter
    use_tracer_provider(None)


async def do(way: str, sent: Sent, *, asynchronous: bool) -> Any:
    with attribute(tenant="acme"):
        result = await ASYNC[way](sent) if asynchronous else SYNC[way](sent)
    assert flush_streams()
    return result


def gated(*answers: object, broken: tuple[str, ...] = ()) -> ScriptedGate:
    gate = ScriptedGate(*answers, broken=broken)
    install_gate(gate)
    return gate


async def ticking(work: Any) -> tuple[Any, int]:
    """What `work` gives, and how often the loop came round while it ran, once a millisecond."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticker = asyncio.create_task(tick())
    try:
        return await work, ticks
    finally:
        ticker.cancel()


# -- waiting ---------------------------------------------------------------------------------------


@EVERY_WAY
async def test_waits_are_slept_and_asked_again(
    spans: InMemorySpanExporter, way: str, asynchronous: bool
) -> None:
    sent = Sent()
    gate = gated(Wait(0.01), Wait(0.02), Wait(0.0))
    assert await do(way, sent, asynchronous=asynchronous) == RESULTS[way]
    assert [asked.waited for asked in gate.asked] == [
        None,
        Wait(0.01, 0.01),
        Wait(0.02, 0.03),
        Wait(0.0, 0.03),
    ]
    assert {asked.nowait for asked in gate.asked} == {asynchronous}
    assert {asked.call.attribution.tenant for asked in gate.asked} == {"acme"}
    assert [kind for kind, _ in gate.ended] == ["settle"]
    assert gate.ended[0][1].latency_s >= 0.03
    assert len(spans.get_finished_spans()) == 1


@EVERY_ASYNC_WAY
async def test_waiting_blocks_no_event_loop(spans: InMemorySpanExporter, way: str) -> None:
    gate = gated(Wait(0.2))
    result, ticks = await ticking(do(way, Sent(), asynchronous=True))
    assert result == RESULTS[way]
    assert ticks >= 10
    assert [kind for kind, _ in gate.ended] == ["settle"]


@EVERY_ASYNC_WAY
async def test_what_may_block_is_asked_in_a_thread(spans: InMemorySpanExporter, way: str) -> None:
    gate = gated(None, 0.2)
    result, ticks = await ticking(do(way, Sent(), asynchronous=True))
    assert result == RESULTS[way]
    assert ticks >= 10
    first, second = gate.asked
    assert (first.nowait, second.nowait) == (True, False)
    assert first.thread == threading.get_ident() != second.thread
    assert [kind for kind, _ in gate.ended] == ["settle"]


async def test_a_thread_may_answer_wait_and_refuse(spans: InMemorySpanExporter) -> None:
    sent = Sent()
    gate = gated(None, Wait(0.01), None, EXCEEDED)
    with pytest.raises(BudgetExceeded):
        await do("openai", sent, asynchronous=True)
    assert [asked.nowait for asked in gate.asked] == [True, False, True, False]
    assert [asked.waited for asked in gate.asked] == [None, None, *[Wait(0.01, 0.01)] * 2]
    assert [kind for kind, _ in gate.ended] == ["record"]
    assert sent.count() == 0


@EVERY_ASYNC_WAY
async def test_cancelled_while_it_waits(spans: InMemorySpanExporter, way: str) -> None:
    sent = Sent()
    gate = gated(Wait(30.0))
    task = asyncio.create_task(do(way, sent, asynchronous=True))
    while not gate.asked:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent.count() == 0
    assert [(kind, e.outcome, e.error_type) for kind, e in gate.ended] == [
        ("record", "error", "CancelledError")
    ]
    assert len(spans.get_finished_spans()) == 1


@EVERY_ASYNC_WAY
@pytest.mark.parametrize("with_anyio", [True, False])
async def test_cancelled_while_a_thread_asks_gives_the_permit_back(
    spans: InMemorySpanExporter, way: str, with_anyio: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_anyio:
        if way not in ("coroutine", "async generator", "async block"):
            return  # the SDKs themselves need it
        monkeypatch.setitem(sys.modules, "anyio", None)
    sent = Sent()
    gate = gated(None, 0.1)
    task = asyncio.create_task(do(way, sent, asynchronous=True))
    while len(gate.asked) < 2:
        await asyncio.sleep(0.001)
    for _ in range(3):  # a scope of anyio's does so in each turn of the loop
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent.count() == 0
    assert [kind for kind, _ in gate.ended] == ["release"]
    assert len(spans.get_finished_spans()) == 1


@pytest.mark.parametrize("way", ["coroutine", "async generator", "async block"])
async def test_a_metered_function_needs_no_anyio(
    spans: InMemorySpanExporter, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anyio", None)
    gate = gated(Wait(0.01), None)
    assert await do(way, Sent(), asynchronous=True) == RESULTS[way]
    assert len(gate.asked) == 3
    assert [kind for kind, _ in gate.ended] == ["settle"]


def test_under_trio(spans: InMemorySpanExporter) -> None:
    import trio

    sent = Sent()
    gate = gated(Wait(0.01), None, 0.05)

    async def main() -> tuple[Any, Any]:
        return await _openai_async(sent), await _coroutine()

    assert trio.run(main) == (RESULTS["openai"], RESULTS["coroutine"])
    assert [asked.nowait for asked in gate.asked] == [True, True, False, True]
    assert [kind for kind, _ in gate.ended] == ["settle", "settle"]


async def test_the_applications_own_threads_are_not_in_the_way(
    spans: InMemorySpanExporter,
) -> None:
    gate, free = gated(None), threading.Event()
    busy = [asyncio.create_task(asyncio.to_thread(free.wait, 30)) for _ in range(100)]
    await asyncio.sleep(0)
    try:
        assert await asyncio.wait_for(_coroutine(), 10) == RESULTS["coroutine"]
    finally:
        free.set()
        await asyncio.gather(*busy)
    assert [asked.nowait for asked in gate.asked] == [True, False]


def test_the_applications_own_threads_are_not_in_the_way_under_trio(
    spans: InMemorySpanExporter,
) -> None:
    import trio
    import trio.testing

    gate, free = gated(None), threading.Event()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(trio.to_thread.run_sync, free.wait, 30)
            await trio.testing.wait_all_tasks_blocked()
            try:
                with trio.fail_after(10):
                    assert await _coroutine() == RESULTS["coroutine"]
            finally:
                free.set()

    trio.run(main)
    assert [asked.nowait for asked in gate.asked] == [True, False]


async def test_the_gate_is_asked_in_the_calls_context(spans: InMemorySpanExporter) -> None:
    known: list[str | None] = []

    class Curious(ScriptedGate):
        def admit(self, *arguments: Any, **more: Any) -> Permit | Wait | None:
            known.append(current_attribution().tenant)
            return super().admit(*arguments, **more)

    install_gate(Curious(None))
    with attribute(tenant="acme"):
        await _coroutine()
    assert known == ["acme", "acme"]


async def test_a_process_that_ends_has_no_threads_left(
    spans: InMemorySpanExporter,
) -> None:
    gated(None)
    await _coroutine()
    pool = pipeline._workers._pool
    assert pool is not None
    pool.shutdown()
    gate = gated(None)
    try:
        assert await _coroutine() == RESULTS["coroutine"]
    finally:
        pipeline._workers.after_fork()
    assert [asked.thread for asked in gate.asked] == [threading.get_ident()] * 2
    assert [kind for kind, _ in gate.ended] == ["settle"]


def test_a_child_asks_in_threads_of_its_own(spans: InMemorySpanExporter) -> None:
    async def ask() -> None:
        gated(None)
        await asyncio.wait_for(_coroutine(), 10)

    asyncio.run(ask())  # the parent has a thread
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            asyncio.run(ask())
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("way", SYNC)
async def test_interrupted_while_it_waits(
    spans: InMemorySpanExporter, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    sent = Sent()
    gate = gated(Wait(30.0))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("spanledger.instrumentation.pipeline.time.sleep", interrupted)
        await do(way, sent, asynchronous=False)
    assert sent.count() == 0
    assert [(kind, e.error_type) for kind, e in gate.ended] == [("record", "KeyboardInterrupt")]
    assert len(spans.get_finished_spans()) == 1


# -- refused ---------------------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize(("error", "outcome"), [(THROTTLED, "throttled"), (EXCEEDED, "blocked")])
async def test_a_refused_call_is_not_sent_and_is_booked_once(
    spans: InMemorySpanExporter, way: str, asynchronous: bool, error: BudgetError, outcome: str
) -> None:
    sent = Sent()
    gate = gated(Wait(0.0), error)
    with pytest.raises(type(error)) as raised:
        await do(way, sent, asynchronous=asynchronous)
    assert raised.value is error
    assert sent.count() == 0
    ((kind, ending),) = gate.ended
    assert (kind, ending.outcome, ending.error_type) == ("record", outcome, type(error).__name__)
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == type(error).__name__


# -- broken ----------------------------------------------------------------------------------------


@EVERY_WAY
@pytest.mark.parametrize(
    ("broken", "ends"),
    [
        (("admit",), ["record"]),
        (("settle",), ["settle"]),
        (("admit", "record"), ["record"]),
        (("settle", "release", "record", "credits_remaining"), ["settle"]),
    ],
)
async def test_a_broken_gate_harms_no_call(
    spans: InMemorySpanExporter,
    way: str,
    asynchronous: bool,
    broken: tuple[str, ...],
    ends: list[str],
) -> None:
    guard.reraise_internal_errors(False)
    sent = Sent()
    gate = gated(broken=broken)
    assert await do(way, sent, asynchronous=asynchronous) == RESULTS[way]
    assert [kind for kind, _ in gate.ended] == ends
    assert sent.count() == (way in REACHES)
    assert len(spans.get_finished_spans()) == 1


@pytest.mark.parametrize("broken", ["settle", "release", "record", "admit"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_broken_gate_leaves_the_users_error_as_it_is(
    spans: InMemorySpanExporter, broken: str, asynchronous: bool
) -> None:
    guard.reraise_internal_errors(False)
    gate = gated(broken=(broken,))
    endpoint = answering({"error": {"message": "no"}}, 400)
    client: Any = endpoint.client(openai.AsyncOpenAI if asynchronous else openai.OpenAI)
    with pytest.raises(openai.BadRequestError) as raised:
        result = client.chat.completions.create(**CHAT)
        await result
    assert raised.value.__cause__ is None
    assert [kind for kind, _ in gate.ended] == ["record" if broken == "admit" else "release"]
    assert len(spans.get_finished_spans()) == 1


async def test_a_broken_admission_in_a_thread(spans: InMemorySpanExporter) -> None:
    guard.reraise_internal_errors(False)
    gate = gated(None, RuntimeError("broken"))
    assert await do("openai", Sent(), asynchronous=True) == RESULTS["openai"]
    assert [kind for kind, _ in gate.ended] == ["record"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_refusal_that_cannot_be_booked_is_a_refusal(
    spans: InMemorySpanExporter, asynchronous: bool
) -> None:
    guard.reraise_internal_errors(False)
    sent = Sent()
    gated(EXCEEDED, broken=("record",))
    with pytest.raises(BudgetExceeded):
        await do("openai", sent, asynchronous=asynchronous)
    assert sent.count() == 0
    assert len(spans.get_finished_spans()) == 1


def test_what_spends_nothing_is_not_admitted(spans: InMemorySpanExporter) -> None:
    gate = gated(EXCEEDED, broken=("credits_remaining",))
    guard.reraise_internal_errors(False)
    options: Any = {"api_key": "k", "max_requests_per_second": 50}
    with Loopback(lambda _: (200, {"credit_balance": 5})) as server:
        with scavio.ScavioClient(base_url=server.url, **options) as client:
            assert client.get_usage()["credit_balance"] == 5
    assert gate.asked == gate.ended == []
