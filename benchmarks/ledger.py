"""What the ledger costs, and what it holds: `python benchmarks/ledger.py [--quick]`.

Starts Redis servers of its own on loopback ports. Each figure stands beside that of a usual way,
measured in the same run, for machines differ: what counts are the ratios.
"""

import argparse
import asyncio
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import uniform
from typing import Any, Final, NamedTuple

from redis import Redis
from rich.console import Console
from rich.table import Table
from servers import stores

from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.protocol import Denied, LimitedScope, open_ledger
from spanledger.ledger.redis import RedisStore
from spanledger.ledger.sqlite import SqliteStore
from spanledger.ledger.store import Store

USD: Final = 10**9
LIMIT: Final = 10 * USD
PRICE: Final = USD // 40
PROCESSES: Final = 8
THREADS: Final = 8
TASKS: Final = 64
SCOPES: Final = 5
CALL_S: Final = 0.02
"""How long a call to the provider takes here: between the check and the addition."""

console: Final = Console(width=120)

Spawn: Final = multiprocessing.get_context("spawn")


def scopes(run: str, limit: int, count: int = SCOPES) -> list[LimitedScope]:
    return [
        LimitedScope(f"scope{i}|{run}", limit, time.time() + 86400, "closed") for i in range(count)
    ]


# -- latency ---------------------------------------------------------------------------------------


class Counting:
    """A store that counts the round trips."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trips = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def sync(self, reports: Any) -> Any:
        self.trips += 1
        return self._store.sync(reports)


def counting(url: str) -> Any:
    if url.startswith("sqlite"):
        return Counting(SqliteStore(Path(url.removeprefix("sqlite:///"))))
    return Counting(RedisStore(url))


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
    store = counting(url)
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
    store = counting(url)
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


def speeds(urls: Mapping[str, str], calls: int) -> None:
    table = Table("", "p50 µs", "p99 µs", "round trips a call", title=f"{SCOPES} scopes a call")
    url = urls["Redis"]
    ours = {name: leased(one, calls) for name, one in urls.items()}
    new, theirs = first(url, calls // 100), strict(url, calls // 10)
    for name, speed in (
        *((f"leases, {name}: reserve + settle", speed) for name, speed in ours.items()),
        ("leases, Redis: the first call of five scopes", new),
        ("a Lua script a call", theirs),
    ):
        table.add_row(
            name,
            f"{speed.micros(0.5):.1f}",
            f"{speed.micros(0.99):.1f}",
            f"{speed.trips / len(speed.seconds):.5f}",
        )
    console.print(table)
    console.print(f"ratio of the p50s: {theirs.micros(0.5) / ours['Redis'].micros(0.5):.0f}")
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
    tasks: bool
    run: str
    wrong: bool

    def costs(self) -> int:
        return int(PRICE / (uniform(0.7, 1.6) if self.wrong else 1))


Take = Callable[[], Callable[[int], object] | None]
"""Asks for leave to make a call: what books its cost, or None where the limit is reached."""


def by_leases(trial: Trial) -> Take:
    """Reserve, make the call, settle."""
    ledger = open_ledger(trial.url)
    limited = scopes(trial.run, LIMIT)

    def take() -> Callable[[int], object] | None:
        since = time.monotonic()
        while isinstance(answer := ledger.reserve(limited, PRICE), Denied):
            full = answer.spent + answer.held + PRICE > LIMIT
            if (full and not answer.unverified) or time.monotonic() - since > 3:
                return None
            time.sleep(0.01)
        return answer.settle

    return take


def by_check(trial: Trial) -> Take:
    """Look at the counter, make the call, add to the counter."""
    client = Redis.from_url(trial.url, protocol=2)

    def take() -> Callable[[int], object] | None:
        if int(client.get(trial.run) or 0) + PRICE > LIMIT:
            return None
        return lambda actual: client.incrby(trial.run, actual)

    return take


def by_batches(trial: Trial) -> Take:
    """Count here, and add to the counter every 100 ms."""
    client = Redis.from_url(trial.url, protocol=2)
    lock = threading.Lock()
    known = pending = 0
    flushed = time.monotonic()

    def add(actual: int) -> None:
        nonlocal pending
        with lock:
            pending += actual

    def take() -> Callable[[int], object] | None:
        nonlocal known, pending, flushed
        with lock:
            if time.monotonic() - flushed > 0.1:
                known, pending, flushed = client.incrby(trial.run, pending), 0, time.monotonic()
            return None if known + pending + PRICE > LIMIT else add

    return take


WAYS: Final = {"leases": by_leases, "check, then add": by_check, "batched counters": by_batches}


def in_threads(trial: Trial, take: Take, amounts: list[int]) -> None:
    def work() -> None:
        while (book := take()) is not None:
            time.sleep(CALL_S * uniform(0.5, 1.5))
            amounts.append(trial.costs())
            book(amounts[-1])

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def in_tasks(trial: Trial, take: Take, amounts: list[int]) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(TASKS))

    async def work() -> None:
        while (book := await asyncio.to_thread(take)) is not None:
            await asyncio.sleep(CALL_S * uniform(0.5, 1.5))
            actual = trial.costs()
            amounts.append(actual)
            await asyncio.to_thread(book, actual)

    await asyncio.gather(*(work() for _ in range(TASKS)))


def spend(trial: Trial, ready: Any, go: Any, results: Any) -> None:
    """One of the processes that spend until the limit is reached."""
    take = WAYS[trial.way](trial)
    amounts: list[int] = []
    ready.release()
    go.wait()
    if trial.tasks:
        asyncio.run(in_tasks(trial, take, amounts))
    else:
        in_threads(trial, take, amounts)
    results.put(sum(amounts))


def overshoot(urls: Mapping[str, str], repeats: int) -> None:
    table = Table(
        f"{PROCESSES} processes of",
        "",
        "estimates are upper bounds",
        "estimates are 0.7 to 1.6 of the actual",
        title="spent of 10 USD, 0.025 USD a call",
    )
    for tasks, of in ((False, f"{THREADS} threads"), (True, f"{TASKS} tasks")):
        for way, store in (
            *(("leases", store) for store in urls),
            ("check, then add", "Redis"),
            ("batched counters", "Redis"),
        ):
            cells: list[str] = []
            for wrong in (False, True):
                runs = [f"{way}{tasks}{wrong}{i}" for i in range(repeats)]
                totals = [
                    sum(spread(spend, Trial(way, urls[store], tasks, run, wrong))) / USD
                    for run in runs
                ]
                over = max(0.0, max(totals) / 10 - 1)
                cells.append(f"{min(totals):.3f} to {max(totals):.3f} ({over:.2%} over)")
            table.add_row(of, f"{way}, {store}", *cells)
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
    with stores() as urls:
        speeds(urls, 20_000 if quick else 200_000)
        overshoot(urls, 1 if quick else 3)
        sizes(urls["Redis"], 10_000 if quick else 100_000)


if __name__ == "__main__":
    main()
