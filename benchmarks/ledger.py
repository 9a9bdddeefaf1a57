"""What the ledger costs, and what it holds: `python benchmarks/ledger.py [--quick]`.

Starts a redis-server of its own on a loopback port. Each figure stands beside that of a usual way,
measured in the same run, for machines differ: what counts are the ratios.
"""

import argparse
import contextlib
import multiprocessing
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from random import uniform
from typing import Any, Final, NamedTuple

from redis import Redis
from rich.console import Console
from rich.table import Table

from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.protocol import Denied, LimitedScope, open_ledger
from spanledger.ledger.redis import RedisStore

USD: Final = 10**9
LIMIT: Final = 10 * USD
PRICE: Final = USD // 40
PROCESSES: Final = 8
THREADS: Final = 8
SCOPES: Final = 5
CALL_S: Final = 0.02
"""How long a call to the provider takes here: between the check and the addition."""

console: Final = Console(width=110)

Spawn: Final = multiprocessing.get_context("spawn")


@contextlib.contextmanager
def redis_server() -> Generator[str]:
    """A redis-server on a free port; its URL."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("this benchmark needs redis-server (Debian: apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.5)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


def scopes(run: str, limit: int, count: int = SCOPES) -> list[LimitedScope]:
    return [
        LimitedScope(f"scope{i}|{run}", limit, time.time() + 86400, "closed") for i in range(count)
    ]


# -- latency ---------------------------------------------------------------------------------------


class CountingStore(RedisStore):
    """Counts the round trips."""

    trips = 0

    def sync(self, reports: Any) -> Any:
        self.trips += 1
        return super().sync(reports)


@dataclass
class Speed:
    """Seconds a call, sorted, and round trips in all."""

    seconds: list[float]
    trips: int

    def micros(self, quantile: float) -> float:
        return 1e6 * self.seconds[int(quantile * (len(self.seconds) - 1))]


def measure(calls: int, call: Callable[[], object], trips: Callable[[], int]) -> Speed:
    seconds: list[float] = []
    clock = time.perf_counter
    for _ in range(calls):
        before = clock()
        call()
        seconds.append(clock() - before)
    return Speed(sorted(seconds), trips())


def leased(url: str, calls: int) -> Speed:
    store = CountingStore(url)
    ledger = LeasedLedger(store)
    limited = scopes(f"speed{os.getpid()}", 10**6 * USD)

    def call() -> None:
        answer = ledger.reserve(limited, PRICE)
        if not isinstance(answer, Denied):
            answer.settle(PRICE)

    for _ in range(100):
        call()
    store.trips = 0
    speed = measure(calls, call, lambda: store.trips)
    ledger.close()
    return speed


def first(url: str, calls: int) -> Speed:
    """Scopes that nobody used before: there is no lease yet."""
    store = CountingStore(url)
    ledger = LeasedLedger(store)
    fresh = iter([scopes(f"first{i}", LIMIT) for i in range(calls)])

    def call() -> None:
        answer = ledger.reserve(next(fresh), PRICE)
        if not isinstance(answer, Denied):
            answer.settle(PRICE)

    speed = measure(calls, call, lambda: store.trips)
    ledger.close()
    return speed


STRICT: Final = """
for i = 1, #KEYS do
    local spent = tonumber(redis.call('GET', KEYS[i]) or '0')
    if spent + ARGV[1] > tonumber(ARGV[2]) then return 0 end
end
for i = 1, #KEYS do redis.call('INCRBY', KEYS[i], ARGV[1]) end
return 1
"""


def strict(url: str, calls: int) -> Speed:
    """A Lua script for each call: exact, and a round trip each time."""
    client = Redis.from_url(url, protocol=2)
    script = client.register_script(STRICT)
    keys = [f"strict{i}" for i in range(SCOPES)]
    speed = measure(calls, lambda: script(keys, [PRICE, 10**15]), lambda: calls)
    client.close()
    return speed


def all_at_once(url: str, calls: int, ready: Any, go: Any, results: Any) -> None:
    """One of the processes that make as many calls as they can."""
    ready.release()
    go.wait()
    began = time.perf_counter()
    speed = leased(url, calls)
    results.put((time.perf_counter() - began, speed.micros(0.99)))


def spread(target: Callable[..., None], *args: object) -> list[Any]:
    """What `target` puts into its queue in each of the processes, which begin together."""
    ready, go, results = Spawn.Semaphore(0), Spawn.Event(), Spawn.Queue()
    processes = [
        Spawn.Process(target=target, args=(*args, ready, go, results)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    go.set()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return found


def speeds(url: str, calls: int) -> None:
    table = Table("", "p50 µs", "p99 µs", "round trips a call", title=f"{SCOPES} scopes a call")
    ours, theirs = leased(url, calls), strict(url, calls // 10)
    new = first(url, calls // 100)
    for name, speed, count in (
        ("leases: reserve + settle", ours, calls),
        ("leases: the first call of five scopes", new, calls // 100),
        ("a Lua script a call", theirs, calls // 10),
    ):
        table.add_row(
            name,
            f"{speed.micros(0.5):.1f}",
            f"{speed.micros(0.99):.1f}",
            f"{speed.trips / count:.5f}",
        )
    console.print(table)
    console.print(f"ratio of the p50s: {theirs.micros(0.5) / ours.micros(0.5):.0f}")
    ends = spread(all_at_once, url, calls)
    rate = PROCESSES * calls / max(took for took, _ in ends)
    console.print(
        f"{PROCESSES} processes together: {rate:,.0f} calls a second on {os.cpu_count()} cores; "
        f"worst p99 {max(p99 for _, p99 in ends):.0f} µs"
    )


# -- overshoot -------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """One way to hold a limit, tried once. wrong: estimates are 0.7 to 1.6 of the actual cost."""

    way: str
    url: str
    run: str
    wrong: bool

    def pay(self) -> int:
        """Make the call; what it cost."""
        time.sleep(CALL_S * uniform(0.5, 1.5))
        return int(PRICE / (uniform(0.7, 1.6) if self.wrong else 1))


def by_leases(trial: Trial) -> Callable[[], int | None]:
    """Reserve, make the call, settle."""
    ledger = open_ledger(trial.url)
    limited = scopes(trial.run, LIMIT)

    def call() -> int | None:
        since = time.monotonic()
        while isinstance(answer := ledger.reserve(limited, PRICE), Denied):
            full = answer.spent + answer.held + PRICE > LIMIT
            if (full and not answer.unverified) or time.monotonic() - since > 3:
                return None
            time.sleep(0.01)
        actual = trial.pay()
        answer.settle(actual)
        return actual

    return call


def by_check(trial: Trial) -> Callable[[], int | None]:
    """Look at the counter, make the call, add to the counter."""
    client = Redis.from_url(trial.url, protocol=2)

    def call() -> int | None:
        if int(client.get(trial.run) or 0) + PRICE > LIMIT:
            return None
        actual = trial.pay()
        client.incrby(trial.run, actual)
        return actual

    return call


def by_batches(trial: Trial) -> Callable[[], int | None]:
    """Count here, and add to the counter every 100 ms."""
    client = Redis.from_url(trial.url, protocol=2)
    lock = threading.Lock()
    known = pending = 0
    flushed = time.monotonic()

    def call() -> int | None:
        nonlocal known, pending, flushed
        with lock:
            if time.monotonic() - flushed > 0.1:
                known, pending, flushed = client.incrby(trial.run, pending), 0, time.monotonic()
            if known + pending + PRICE > LIMIT:
                return None
        actual = trial.pay()
        with lock:
            pending += actual
        return actual

    return call


WAYS: Final = {"leases": by_leases, "check, then add": by_check, "batched counters": by_batches}


def spend(trial: Trial, ready: Any, go: Any, results: Any) -> None:
    """One of the processes that spend until the limit is reached."""
    call = WAYS[trial.way](trial)
    amounts: list[int] = []

    def work() -> None:
        while (actual := call()) is not None:
            amounts.append(actual)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    ready.release()
    go.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(sum(amounts))


def overshoot(url: str, repeats: int) -> None:
    table = Table(
        "",
        "estimates are upper bounds",
        "estimates are 0.7 to 1.6 of the actual",
        title=f"spent of 10 USD, 0.025 USD a call, {PROCESSES} processes of {THREADS} threads",
    )
    for way in WAYS:
        cells: list[str] = []
        for wrong in (False, True):
            totals = [
                sum(spread(spend, Trial(way, url, f"{way}{wrong}{i}", wrong))) / USD
                for i in range(repeats)
            ]
            over = max(0.0, max(totals) / 10 - 1)
            cells.append(f"{min(totals):.3f} to {max(totals):.3f} ({over:.2%} over)")
        table.add_row(way, *cells)
    console.print(table)


# -- size ------------------------------------------------------------------------------------------


def resident_kib() -> int:
    with open(f"/proc/{os.getpid()}/statm", encoding="ascii") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def sizes(url: str, tenants: int) -> None:
    client = Redis.from_url(url, protocol=2, decode_responses=True)
    client.flushall()
    before_redis, before = int(client.info("memory")["used_memory"]), resident_kib()
    ledger = open_ledger(url)
    expires = time.time() + 86400
    began = time.perf_counter()
    for i in range(tenants):
        ledger.add([LimitedScope(f"tenant:{i}|month|2026-11", LIMIT, expires)], PRICE)
    last = f"tenant:{tenants - 1}|month|2026-11"
    while not client.exists(f"spanledger:{{{last}}}"):
        time.sleep(0.01)
    took = time.perf_counter() - began
    while ledger.known([last]):  # until they rest
        time.sleep(0.1)
    redis_bytes = int(client.info("memory")["used_memory"]) - before_redis
    console.print(
        f"{tenants:,} tenants: {redis_bytes / tenants:.0f} bytes a scope in Redis, "
        f"{(resident_kib() - before) * 1024 / tenants:.0f} in the process; reported in {took:.1f} s"
    )
    ledger.close()
    client.close()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    quick = parser.parse_args(argv).quick
    console.print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    )
    with redis_server() as url:
        speeds(url, 20_000 if quick else 200_000)
        overshoot(url, 1 if quick else 3)
        sizes(url, 10_000 if quick else 100_000)


if __name__ == "__main__":
    main()
