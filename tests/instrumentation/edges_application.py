"""What the tests of processes run: one scene each, over the real SDK and a journal in a file."""

import asyncio
import gc
import multiprocessing
import os
import sys
import threading
import time
from typing import Any

import openai
from openai_endpoint import MESSAGES, answering, chat, streaming

from spanledger.api import attribute
from spanledger.instrumentation.metered import metered
from spanledger.instrumentation.openai import OpenAIInstrumentor
from spanledger.processor import startup

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
STREAM = {**CHAT, "stream": True}
kept: list[Any] = []


def call(tenant: str) -> None:
    with attribute(tenant=tenant):
        answering(chat()).client().chat.completions.create(**CHAT)


def open_stream(tenant: str) -> Any:
    with attribute(tenant=tenant):
        stream = streaming(n=20).client().chat.completions.create(**STREAM)
        next(stream)
        return stream


@metered(provider="geocoder", operation="geocode", cost="0.01")
def geocode() -> Any:
    yield from range(3)


def forked() -> None:
    """Streams and a generator are open in the parent; the child drops, closes and forgets them."""
    dropped, closed, forgotten = (open_stream("parent") for _ in range(3))
    with attribute(tenant="parent"):
        generator = geocode()
        next(generator)
    child = os.fork()
    if child == 0:
        call("child")
        mine = open_stream("child")
        del dropped, generator
        gc.collect()
        closed.close()
        list(mine)
        kept.extend((forgotten, open_stream("child")))
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for stream in (dropped, closed, forgotten, generator):
        list(stream)
    children("fork")


def in_child() -> None:
    call("child of multiprocessing")
    kept.append(open_stream("child of multiprocessing"))  # open when the child ends
    open_stream("child of multiprocessing")  # dropped


def children(method: str) -> None:
    """Children of multiprocessing end without `atexit`."""
    kept.append(open_stream(f"parent of {method}"))
    ways = multiprocessing.get_context(method)
    process = ways.Process(target=in_child)
    process.start()
    process.join()
    assert process.exitcode == 0
    list(kept.pop())


def exiting() -> None:
    """Everything that may be open when an interpreter ends."""
    late_provider()
    kept.append(open_stream("open"))
    with attribute(tenant="generator"):
        kept.append(geocode())
        next(kept[-1])

    async def asynchronous() -> None:
        client = streaming(n=20).client(openai.AsyncOpenAI)
        with attribute(tenant="async"):
            stream = await client.chat.completions.create(**STREAM)
        await anext(stream)
        kept.append(stream)

    asyncio.run(asynchronous())

    def background() -> None:
        while True:
            call("thread")
            calls.append(1)
            time.sleep(0.005)  # without a rest it would keep the interpreter's lock from its end

    calls: list[int] = []
    threading.Thread(target=background, daemon=True).start()
    while len(calls) < 3:
        time.sleep(0.01)
    for _ in range(50):
        call("pending")


def late_provider() -> None:
    """A tracer provider that is set when calls have been made already."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

    call("before")
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    call("after")
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 100,
    }
    with attribute(tenant="foreign"):
        trace.get_tracer("opentelemetry.instrumentation.other").start_span(
            "chat gpt-4o-mini", attributes=attributes
        ).end()
    assert exporter.get_finished_spans() == ()  # sampled out, and booked


if __name__ in ("__main__", "__mp_main__"):  # in a spawned child, too
    OpenAIInstrumentor().instrument(skip_dep_check=True)
    startup.start(service="edges").book.warm()

if __name__ == "__main__":
    scene, *arguments = sys.argv[1:]
    globals()[scene](*arguments)
