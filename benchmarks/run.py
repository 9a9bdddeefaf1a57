"""`make bench`: what a metered call costs, beside the bare SDK and a bare span, in one run.

The real openai client on an in-process transport; spans go to a batch processor whose exporter
drops them, the journal to a SQLite file. Bare and metered blocks alternate in one process, so that
ratios hold where the machine's speed does not. Figures are CPU time of the process, all threads.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

import httpx2
import openai
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from spanledger.api import attribute, feature
from spanledger.api.gate import gate
from spanledger.api.settings import Section, Settings
from spanledger.api.values import NOBODY, Charge, Ending, PaidCall, Usage
from spanledger.instrumentation.openai import OpenAIInstrumentor
from spanledger.ledger.entry import Entry
from spanledger.processor.startup import Engine, start

CHUNKS: Final = 50
CONCURRENCY: Final = 100
USAGE: Final = {
    "prompt_tokens": 1200,
    "completion_tokens": 150,
    "total_tokens": 1350,
    "prompt_tokens_details": {"cached_tokens": 200, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
CALL: Final[dict[str, Any]] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Explain how a token bucket limits requests. " * 8}],
    "temperature": 0.2,
    "max_tokens": 200,
}
STREAM: Final = {**CALL, "stream": True, "stream_options": {"include_usage": True}}
HEAD: Final = {"id": "chatcmpl-1", "created": 1760000000, "model": "gpt-4o-mini-2024-07-18"}


def _body() -> bytes:
    message = {"role": "assistant", "content": "A bucket of tokens. " * 20}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return json.dumps(
        {**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    ).encode()


def _events() -> list[bytes]:
    def event(choices: list[Any], usage: Any) -> bytes:
        chunk = {**HEAD, "object": "chat.completion.chunk", "choices": choices, "usage": usage}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    said = [{"index": 0, "delta": {"content": " token"}, "logprobs": None, "finish_reason": None}]
    return [*(event(said, None) for _ in range(CHUNKS - 1)), event([], USAGE), b"data: [DONE]\n\n"]


BODY: Final = _body()
EVENTS: Final = _events()


class _Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        return iter(EVENTS)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in EVENTS:
            await asyncio.sleep(0)
            yield event


def _answer(request: httpx2.Request) -> httpx2.Response:
    if b'"stream":true' in request.content:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Pieces())
    return httpx2.Response(200, headers={"content-type": "application/json"}, content=BODY)


async def _answer_async(request: httpx2.Request) -> httpx2.Response:
    await asyncio.sleep(0)
    return _answer(request)


class _Drop(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Bench:
    """One process, with the calls to measure."""

    def __init__(self, directory: str) -> None:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(_Drop()))
        trace.set_tracer_provider(provider)
        metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
        settings = Settings(
            root=Section({}, "benchmark"), journal=f"sqlite:///{directory}/journal.db"
        )
        self.engine: Engine = start(settings, service="benchmark")
        self.engine.book.warm()
        self.tracer = provider.get_tracer("benchmark")
        options: dict[str, Any] = {"api_key": "sk-bench", "max_retries": 0}
        transport = httpx2.MockTransport(_answer)
        self.client = openai.OpenAI(http_client=httpx2.Client(transport=transport), **options)
        transport = httpx2.MockTransport(_answer_async)
        self.aclient = openai.AsyncOpenAI(
            http_client=httpx2.AsyncClient(transport=transport), **options
        )
        self.loop = asyncio.new_event_loop()

    def sync(self, n: int) -> None:
        for _ in range(n):
            self.client.chat.completions.create(**CALL)

    def stream(self, n: int) -> None:
        for _ in range(n):
            for _ in self.client.chat.completions.create(**STREAM):
                pass

    def asynchronous(self, n: int) -> None:
        async def main() -> None:
            for _ in range(0, n, CONCURRENCY):
                calls = (self.aclient.chat.completions.create(**CALL) for _ in range(CONCURRENCY))
                await asyncio.gather(*calls)

        self.loop.run_until_complete(main())

    def span(self, n: int) -> None:
        attributes = {f"attribute.number.{i}": f"value {i}" for i in range(15)}
        for _ in range(n):
            self.tracer.start_span("chat gpt-4o-mini", attributes=attributes).end()


def cpu_us(block: Callable[[int], None], n: int, settle: Callable[[], object]) -> float:
    """CPU microseconds a call, all threads, with what the block left to be written."""
    started = time.process_time()
    block(n)
    settle()
    return (time.process_time() - started) / n * 1e6


def added(bench: Bench, block: Callable[[int], None], n: int, rounds: int) -> tuple[float, float]:
    """(bare, metered) CPU microseconds a call: medians over alternating blocks."""
    instrumentor, bare, metered = OpenAIInstrumentor(), [], []
    for number in range(rounds + 1):
        instrumentor.uninstrument()
        first = cpu_us(block, n, lambda: None)
        instrumentor.instrument(skip_dep_check=True)
        with attribute(tenant="acme", user="u-17"), feature("chat"):
            second = cpu_us(block, n, bench.engine.flush)
        if number:  # the first pass warms up
            bare.append(first)
            metered.append(second)
    differences = [b - a for a, b in zip(bare, metered, strict=True)]
    base = statistics.median(bare)
    return base, base + statistics.median(differences)


def rows_a_second(bench: Bench, n: int = 20_000) -> float:
    """Rows that one process gets into the journal."""
    call = PaidCall("openai", "chat", "gpt-4o-mini", NOBODY, time.time_ns())
    usage = Usage({"input_tokens": 1200, "output_tokens": 150}, model="gpt-4o-mini")
    entries = [
        Entry(call, usage, Ending("ok", 0.1), Charge(f"bench{i}", 255_000, status="exact"))
        for i in range(n)
    ]
    started = time.perf_counter()
    for entry in entries:
        bench.engine.recorder.record(entry)
    bench.engine.flush(60)
    return n / (time.perf_counter() - started)


def live_objects(bench: Bench, n: int) -> int:
    """How many more objects live after `n` metered calls."""
    bench.sync(2000)
    bench.engine.flush(60)
    gc.collect()
    before = len(gc.get_objects())
    bench.sync(n)
    bench.engine.flush(60)
    gc.collect()
    return len(gc.get_objects()) - before


def startup() -> tuple[float, float]:
    """(CPU ms, MiB) that importing, starting and loading the prices adds to openai and the SDK.

    Everything is compiled by then, as an installed package is.
    """
    base = (
        "import openai, opentelemetry.sdk.trace, opentelemetry.sdk.metrics\n"
        "import opentelemetry.instrumentation.instrumentor\n"
        "openai.resources.chat\n"  # which comes with the first call
    )
    ours = (
        "from spanledger.processor.startup import start\n"
        "from spanledger.api.settings import Section, Settings\n"
        "from spanledger.instrumentation.openai import OpenAIInstrumentor\n"
        "engine = start(Settings(root=Section({}, 'b'), journal='memory://'), service='b')\n"
        "OpenAIInstrumentor().instrument(skip_dep_check=True)\n"
        "engine.book.warm()\n"
    )
    # Not `ru_maxrss`: a child begins with that of the process that made it.
    tell = (
        "import os, time\n"
        "pages = int(open('/proc/self/statm').read().split()[1])\n"
        "print(time.process_time(), pages * os.sysconf('SC_PAGE_SIZE'), flush=True)\n"
        "os._exit(0)\n"
    )

    with tempfile.TemporaryDirectory() as compiled:
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}

        def run(code: str) -> tuple[float, float]:
            command = [sys.executable, "-c", code + tell]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
            cpu, rss = done.stdout.split()
            return float(cpu), float(rss)

        pairs = [(run(base), run(base + ours)) for _ in range(8)][1:]
    cpu = statistics.median(b[0] - a[0] for a, b in pairs)
    rss = statistics.median(b[1] - a[1] for a, b in pairs)
    return cpu * 1e3, rss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="pairs of blocks")
    parser.add_argument("--calls", type=int, default=20_000, help="calls of the memory test")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(directory)
        span = statistics.median(
            cpu_us(bench.span, 2000, lambda: None) for _ in range(options.rounds)
        )
        print(f"a bare span with 15 attributes      {span:8.1f} us")
        print(f"{'':36}    bare us  metered us  added us    ratio  spans' worth")
        blocks = (
            ("sync", bench.sync, 300),
            ("async, 100 at once", bench.asynchronous, 400),
            ("stream of 50 chunks", bench.stream, 60),
        )
        for name, block, n in blocks:
            bare, metered = added(bench, block, n, options.rounds)
            more = metered - bare
            print(
                f"{name:36}{bare:10.1f}{metered:12.1f}{more:10.1f}"
                f"{metered / bare:9.3f}{more / span:14.1f}"
            )
        usage = Usage(
            {"input_tokens": 1200, "output_tokens": 150, "cache_read_tokens": 200},
            model="gpt-4o-mini-2024-07-18",
        )
        now = time.time_ns()

        def price(n: int) -> None:
            for _ in range(n):
                bench.engine.book.price("openai", "gpt-4o-mini", usage, now)

        print(f"pricing a call                      {cpu_us(price, 20_000, lambda: None):8.2f} us")
        print(f"journal                             {rows_a_second(bench):8.0f} rows/s")
        objects = live_objects(bench, options.calls)
        print(f"live objects after {options.calls} calls      {objects:8d} more")
        cpu_ms, mib = startup()
        print(f"start-up over openai and the SDK    {cpu_ms:8.1f} ms of CPU, {mib:.1f} MiB")
        assert gate() is bench.engine.gate


if __name__ == "__main__":
    main()
