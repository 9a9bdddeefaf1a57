"""A process that spends. What it really spent it writes down beside, so that a test can compare the books with it.

    ledger_worker.py threads|tasks|killed URL RUN TRUTH COUNT LIMIT ESTIMATE ACTUAL SCOPES   until the limit denies
    ledger_worker.py forks URL RUN TRUTH CHILDREN                                     a parent and its children spend
    ledger_worker.py closes URL RUN TRUTH                                             ends in order under load

ESTIMATE is in nano-USD; ACTUAL a factor or `random`: the estimate is 0.7 to 1.6 of the actual. Prints one line of JSON at its end.
With `killed` its leases last one second, and a call takes 20 ms instead of half of one.
"""

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from spanledger.ledger import redis, scope, sqlite
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.protocol import Denied, LimitedScope, Reservation, open_ledger

PATIENCE_S = 20.0
LARGE = 10**15


class Truth:
    """What was really spent, written before it is settled: a process that is killed leaves it behind."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def spend(self, actual: int) -> None:
        os.write(self.file, b"%d\n" % actual)


def scopes(run: str, limit: int, count: int) -> list[LimitedScope]:
    return [
        LimitedScope(f"scope{i}|{run}", limit, time.time() + 86400, "closed") for i in range(count)
    ]


class Spender:
    """Calls until the limit denies for good: not for what others hold, not because nobody could tell."""

    def __init__(
        self, ledger: LeasedLedger, run: str, truth: Truth, limit: int, words: list[str]
    ) -> None:
        self.ledger, self.truth, self.limit = ledger, truth, limit
        self.estimate = int(words[0])
        self.factor = None if words[1] == "random" else float(words[1])
        self.scopes = scopes(run, limit, int(words[2]))
        self.call_s = 0.0005
        self.calls = 0
        self.longest_s = 0.0

    def actual(self) -> int:
        return int(self.estimate * (self.factor or 1 / random.uniform(0.7, 1.6)))

    def over(self, denied: Denied, since: float) -> bool:
        full = denied.spent + denied.held + self.estimate > self.limit
        return (not denied.unverified and full) or time.monotonic() - since > PATIENCE_S

    def end(self, call: Reservation) -> None:
        actual = self.actual()
        self.truth.spend(actual)
        call.settle(actual)
        self.calls += 1

    def reserve(self) -> Reservation | Denied:
        before = time.monotonic()
        answer = self.ledger.reserve(self.scopes, self.estimate)
        self.longest_s = max(self.longest_s, time.monotonic() - before)
        return answer

    def spend(self) -> None:
        since = time.monotonic()
        while True:
            answer = self.reserve()
            if not isinstance(answer, Denied):
                time.sleep(self.call_s)
                self.end(answer)
                since = time.monotonic()
            elif self.over(answer, since):
                return
            else:
                time.sleep(0.01)

    async def spend_async(self) -> None:
        since = time.monotonic()
        while True:
            answer = self.ledger.reserve_nowait(self.scopes, self.estimate)
            if answer is None:
                answer = await asyncio.to_thread(self.reserve)
            if not isinstance(answer, Denied):
                await asyncio.sleep(self.call_s)
                self.end(answer)
                since = time.monotonic()
            elif self.over(answer, since):
                return
            else:
                await asyncio.sleep(0.01)


def in_threads(count: int, target: Callable[[], None]) -> None:
    threads = [threading.Thread(target=target) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def until_denied(kind: str, url: str, run: str, truth: Truth, words: list[str]) -> None:
    ledger = open_ledger(url)
    assert isinstance(ledger, LeasedLedger)
    spender = Spender(ledger, run, truth, int(words[1]), words[2:])
    if kind == "killed":
        spender.call_s = 0.02
    print("ready", ledger.producer, flush=True)
    sys.stdin.readline()  # all begin together
    if kind != "tasks":
        in_threads(int(words[0]), spender.spend)
    else:

        async def tasks() -> None:
            await asyncio.gather(*(spender.spend_async() for _ in range(int(words[0]))))

        asyncio.run(tasks())
    ledger.close()
    print(json.dumps({"calls": spender.calls, "longest_s": spender.longest_s}))


def spend_a_little(ledger: LeasedLedger, run: str, truth: Truth, calls: int, actual: int) -> None:
    limited = scopes(run, LARGE, 2)
    for _ in range(calls):
        answer = ledger.reserve(limited, actual)
        while isinstance(answer, Denied):
            assert answer.unverified
            time.sleep(0.01)
            answer = ledger.reserve(limited, actual)
        truth.spend(actual)
        answer.settle(actual)


def hold(ledger: LeasedLedger, locked: threading.Event) -> None:
    """Another thread is in the ledger when this process forks."""
    with ledger._producer.lock:
        locked.set()
        time.sleep(0.05)


def forks(url: str, run: str, truth: Truth, words: list[str]) -> None:
    ledger = open_ledger(url)
    assert isinstance(ledger, LeasedLedger)
    spend_a_little(ledger, run, truth, 20, 100)
    # A lease, a call in flight and work in other threads, when it forks.
    inherited = ledger.reserve(scopes(run, LARGE, 2), 50)
    assert not isinstance(inherited, Denied)
    busy = threading.Thread(target=spend_a_little, args=(ledger, run, truth, 3000, 1))
    busy.start()
    names = [ledger.producer]
    for i in range(int(words[0])):
        time.sleep(0.02)
        reading, writing = os.pipe()
        locked = threading.Event()
        threading.Thread(target=hold, args=(ledger, locked)).start()
        locked.wait()
        if os.fork() == 0:
            # SQLite's files must not be open in both: closing one would drop the other's locks.
            assert not any(
                "ledger.db" in os.path.realpath(f"/proc/self/fd/{n}") for n in range(100)
            )
            inherited.settle(10**9)
            spend_a_little(ledger, run, truth, 20, 1000 * (i + 1))
            ledger.close()
            os.write(writing, ledger.producer.encode())
            os._exit(0)
        os.close(writing)
        names.append(os.read(reading, 100).decode())
    for _ in names[1:]:
        assert os.wait()[1] == 0
    busy.join()
    truth.spend(30)
    inherited.settle(30)
    spend_a_little(ledger, run, truth, 20, 100)
    ledger.close()
    print(json.dumps({"names": names}))


def closes(url: str, run: str, truth: Truth) -> None:
    ledger = open_ledger(url)
    assert isinstance(ledger, LeasedLedger)
    limited = scopes(run, LARGE, 5)
    stop = threading.Event()

    def spend() -> None:
        while not stop.is_set():
            answer = ledger.reserve(limited, 1000)
            if not isinstance(answer, Denied):
                truth.spend(1000)
                answer.settle(1000)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    ledger.close()
    print("{}")


def main() -> None:
    kind, url, run, truth, *words = sys.argv[1:]
    sys.setswitchinterval(0.001)
    if kind == "killed":
        redis._LEASE_MS = sqlite._LEASE_MS = 1000  # type: ignore[misc]
        scope.USABLE_S, scope.RENEW_S = 0.8, 0.3  # type: ignore[misc]
    if kind == "forks":
        forks(url, run, Truth(truth), words)
    elif kind == "closes":
        closes(url, run, Truth(truth))
    else:
        until_denied(kind, url, run, Truth(truth), words)


def spent(path: Path) -> int:
    """What a truth file says."""
    return sum(map(int, path.read_text().split()))


if __name__ == "__main__":
    main()
