"""What the data layer costs and what it saves: `python benchmarks/cache.py`.

1. A hit and a miss, in memory and in Redis, for search results of several sizes; beside them what
   decoding and encoding the same result takes, a bare round trip, and a hit as a whole, through
   Scavio's SDK with its admission, its span and its row.
2. 20,000 searches in 15 simulated minutes, with popularity by Zipf's law: the hit rate and what is
   saved with caches of several sizes, beside the best that any cache of that size could do (it
   would have to know the future).
"""

import bisect
import heapq
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final, NamedTuple

import redis
import scavio
from opentelemetry.sdk.trace import TracerProvider

from spanledger.api import attribute
from spanledger.api.gate import install_gate
from spanledger.api.settings import Section, Settings
from spanledger.cache.codec import pack
from spanledger.cache.config import CacheConfig, Rule
from spanledger.cache.flight import Hit, Lead
from spanledger.cache.layer import DataLayer
from spanledger.cache.memory import ENTRY_OVERHEAD, MemoryStore
from spanledger.cache.redis_store import RedisStore
from spanledger.cache.store import Store
from spanledger.instrumentation.scavio import ScavioInstrumentor
from spanledger.instrumentation.shared import use_data_layer
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.processor.startup import Engine

RULE: Final = Rule(fresh_s=900, stale_s=900)
CONFIG: Final = CacheConfig(rules=(("scavio/*", RULE),))

SEARCHES: Final = 20_000
SECONDS: Final = 900.0
QUERIES: Final = 10_000
EXPONENT: Final = 1.0
PRICE_NANO_USD: Final = 5_000_000
"""An assumed price of a search, 0.005 USD; the rates do not depend on it."""


def search_result(results: int) -> dict[str, object]:
    """A search result of the usual shape: about 350 bytes of JSON for each of its results."""
    words = [
        "otter",
        "river",
        "stone",
        "moss",
        "tide",
        "delta",
        "salmon",
        "heron",
        "willow",
        "reed",
    ]
    chosen = random.Random(results)

    def text(count: int) -> str:
        return " ".join(chosen.choices(words, k=count))

    organic = [
        {
            "position": position,
            "title": text(8),
            "link": f"https://example.com/{chosen.random()}",
            "snippet": text(30),
            "rating": chosen.random(),
            "sitelinks": None,
        }
        for position in range(1, results + 1)
    ]
    return {"search_metadata": {"status": "ok"}, "organic_results": organic, "credits_used": 2}


# -- what it costs --------------------------------------------------------------------------------


def microseconds(call: Callable[[], object], number: int = 200, repeat: int = 25) -> float:
    """The mean time of a call in the fastest block: other work on the machine only adds."""
    blocks: list[float] = []
    for _ in range(repeat):
        started = time.perf_counter()
        for _ in range(number):
            call()
        blocks.append((time.perf_counter() - started) / number * 1e6)
    return min(blocks)


def begin(layer: DataLayer, query: str) -> object:
    """What the pipeline does before a call: rule, key, look."""
    rule = layer.rule("scavio", "google.search")
    assert rule
    request = {"query": query, "country": "us", "language": "en", "page": 1}
    key = layer.key(
        rule, provider="scavio", operation="google.search", request=request, tenant="acme"
    )
    assert key
    return layer.begin(key, rule)


def hit_and_miss(store: Store, value: object) -> tuple[float, float]:
    """Microseconds that a hit takes, and that a miss adds to its call."""
    layer = DataLayer(CONFIG, store)
    run = os.urandom(4).hex()
    numbers = itertools.count()

    def miss() -> None:
        lead = begin(layer, f"{run} {next(numbers)}")
        assert isinstance(lead, Lead)
        lead.store(value, PRICE_NANO_USD, Decimal(2))

    def hit() -> None:
        assert isinstance(begin(layer, f"{run} 0"), Hit)

    missing = microseconds(miss)
    return microseconds(hit), missing


def show_costs(redis_url: str | None) -> None:
    """Print the table of costs."""
    print(f"{'us':>28} {'hit':>8} {'miss':>8} {'decode':>8} {'encode':>8}")
    for results in (1, 3, 10, 30):
        value = search_result(results)
        text = json.dumps(value)
        size = len(pack(value, 10**7))
        decode = microseconds(lambda text=text: json.loads(text))
        encode = microseconds(lambda value=value: json.dumps(value))
        stores: list[tuple[str, Store]] = [("memory", MemoryStore())]
        if redis_url:
            stores.append(("redis", RedisStore(redis_url, timeout_s=1.0)))
        for name, store in stores:
            hit, miss = hit_and_miss(store, value)
            label = f"{name}, {results} results, {size} B"
            print(f"{label:>28} {hit:8.1f} {miss:8.1f} {decode:8.1f} {encode:8.1f}")
            store.close()
    print(f"{'through scavio, 10 results':>28} {whole_hit():8.1f}")
    if redis_url:
        with redis.Redis.from_url(redis_url) as client:
            client.set("value", pack(search_result(10), 10**7))
            print(
                f"{'a bare GET by redis-py':>28} {microseconds(lambda: client.get('value')):8.1f}"
            )
        print(f"{'round trips for a hit':>28} {round_trips(redis_url):8.1f}")


class _Answer(BaseHTTPRequestHandler):
    """Scavio, for the one miss before the hits."""

    def do_POST(self) -> None:
        content = json.dumps(search_result(10)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return None


def whole_hit() -> float:
    """Microseconds that a hit in memory takes the application, without an exporter."""
    rules = {"cache": {"scavio/*": {"fresh": "15m"}}}
    engine = Engine(Settings(root=Section(rules, "benchmark"), journal="memory://"), service="b")
    use_data_layer(engine.layer)
    install_gate(engine.gate)
    use_tracer_provider(TracerProvider())
    instrumentor = ScavioInstrumentor()
    instrumentor.instrument()
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = scavio.ScavioClient(
        api_key="none", base_url=f"http://127.0.0.1:{server.server_port}", max_retries=0
    )
    try:
        with attribute(tenant="acme", user="u-1", feature="search"):
            client.google.search("otters")
            return microseconds(lambda: client.google.search("otters"))
    finally:
        server.shutdown()
        server.server_close()
        instrumentor.uninstrument()
        use_data_layer(None)
        engine.close()


def round_trips(redis_url: str) -> float:
    """Commands that Redis receives for one hit."""
    store = RedisStore(redis_url, timeout_s=1.0)
    layer = DataLayer(CONFIG, store)
    lead = begin(layer, "counted")
    if isinstance(lead, Lead):
        lead.store({"a": 1}, PRICE_NANO_USD)
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        for _ in range(100):
            assert isinstance(begin(layer, "counted"), Hit)
        scripts = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    store.close()
    return int(scripts) / 100


@contextmanager
def redis_server() -> Generator[str | None]:
    """A Redis of our own, where there is the program."""
    binary = shutil.which("redis-server")
    if binary is None:
        print("no redis-server: memory only")
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [binary, "--port", port, "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                with socket.create_connection(("127.0.0.1", int(port)), 1):
                    break
            except OSError:
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


# -- what it saves --------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """Of a load of searches with a cache of one size."""

    entries: int
    hits: int
    best_hits: int
    unbounded_hits: int
    saved_nano_usd: int


def zipf_searches(seed: int = 7) -> list[int]:
    """Numbers of the queries in the order of the searches: query n has a share like 1 / n."""
    chosen = random.Random(seed)
    weights = itertools.accumulate(1 / (n + 1) ** EXPONENT for n in range(QUERIES))
    cumulated = list(weights)
    return [bisect.bisect(cumulated, chosen.random() * cumulated[-1]) for _ in range(SEARCHES)]


def simulate(searches: Sequence[int], entries: int) -> Outcome:
    """Play the searches, evenly over the simulated time, through the data layer."""
    value = search_result(1)
    now = [0.0]
    size = len(pack(value, 10**7)) + ENTRY_OVERHEAD
    layer = DataLayer(CONFIG, MemoryStore(max_bytes=entries * size, clock=lambda: now[0]))
    hits = saved = 0
    for number, query in enumerate(searches):
        now[0] = number * SECONDS / len(searches)
        answer = begin(layer, f"query {query}")
        if isinstance(answer, Hit):
            hits += 1
            saved += answer.saved.nano_usd or 0
        elif isinstance(answer, Lead):
            answer.store(value, PRICE_NANO_USD, Decimal(2))
    return Outcome(
        entries, hits, best_possible(searches, entries), len(searches) - len(set(searches)), saved
    )


def best_possible(searches: Sequence[int], entries: int) -> int:
    """Hits of a cache that knows the future and drops what is needed last (Belady)."""
    never = len(searches)
    next_use = [never] * len(searches)
    later: dict[int, int] = {}
    for position in range(len(searches) - 1, -1, -1):
        next_use[position] = later.get(searches[position], never)
        later[searches[position]] = position
    kept: dict[int, int] = {}
    latest: list[tuple[int, int]] = []
    hits = 0
    for query, needed in zip(searches, next_use, strict=True):
        hits += query in kept
        kept[query] = needed
        heapq.heappush(latest, (-needed, query))
        while len(kept) > entries:
            needed_last, candidate = heapq.heappop(latest)
            if kept.get(candidate) == -needed_last:
                del kept[candidate]
    return hits


def show_savings() -> None:
    """Print the table of savings."""
    searches = zipf_searches()
    print(f"{len(searches)} searches for {len(set(searches))} of {QUERIES} queries in 15 minutes")
    print(f"{'entries':>8} {'hit rate':>9} {'best':>7} {'of best':>8} {'saved':>9} {'best':>9}")
    for entries in (100, 300, 1_000, 3_000, 10_000):
        out = simulate(searches, entries)
        best_usd = Decimal(out.best_hits * PRICE_NANO_USD).scaleb(-9)
        print(
            f"{entries:8} {out.hits / len(searches):9.1%} {out.best_hits / len(searches):7.1%}"
            f" {out.hits / out.best_hits:8.1%} {Decimal(out.saved_nano_usd).scaleb(-9):5.2f} USD"
            f" {best_usd:5.2f} USD"
        )


def main() -> None:
    """Print both tables."""
    with redis_server() as url:
        show_costs(url)
    print()
    show_savings()


if __name__ == "__main__":
    main()
