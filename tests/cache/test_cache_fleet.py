"""Several processes and one Redis: one call for all, whoever dies."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from spanledger.cache.config import CacheConfig, Rule
from spanledger.cache.flight import Follow, Hit, Lead
from spanledger.cache.layer import DataLayer
from spanledger.cache.redis_store import PREFIX, RedisStore
from spanledger.cache.store import Ask, Failure

MEMBER = Path(__file__).with_name("fleet_member.py")
RULE = Rule(fresh_s=60, stale_s=60)


class Process:
    def __init__(self, mode: str, url: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, str(MEMBER), mode, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> dict:
        assert self.popen.stdout
        return json.loads(self.popen.stdout.readline())

    def tell(self) -> None:
        assert self.popen.stdin
        self.popen.stdin.write("go\n")
        self.popen.stdin.flush()

    def close(self) -> None:
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def start(server) -> Iterator[Callable[[str], Process]]:
    with ExitStack() as stack:

        def make(mode: str) -> Process:
            process = Process(mode, server.url)
            stack.callback(process.close)
            return process

        yield make


def test_8_processes_of_8_threads_or_80_tasks_make_one_call_for_each_key(
    client: "redis.Redis", start: Callable[[str], Process]
) -> None:
    members = [start("crowd") for _ in range(8)]
    assert all(member.hear()["ready"] for member in members)
    for kind in ("thread", "task"):
        for member in members:
            member.tell()
        results = [result for member in members for result in member.hear()["results"]]
        assert len(results) == 640
        calls = {key: int(client.get(key)) for key in client.scan_iter(f"calls:{kind}-*")}
        assert len(calls) == 10
        assert sum(calls.values()) == 10
        by_key: dict[str, list] = {}
        for result in results:
            by_key.setdefault(result["key"], []).append(result)
        for same in by_key.values():
            assert len(same) == 64
            assert all(result == same[0] for result in same)


class Survivors:
    """Threads and tasks of this process that ask for what the doomed leader is fetching."""

    def __init__(self, url: str, client: "redis.Redis") -> None:
        self.layer = DataLayer(CacheConfig(wait_s=30), RedisStore(url, timeout_s=2.0))
        self.client = client
        self.values: list[object] = []
        self.following = 0

    def settle(self, answer: object) -> Lead | None:
        if isinstance(answer, Hit):
            self.values.append(answer.value)
            return None
        assert isinstance(answer, Lead)
        assert not answer.alone
        self.client.incr("calls:one")
        return answer

    def thread(self) -> None:
        answer = self.layer.begin("one", RULE)
        assert isinstance(answer, Follow)
        self.following += 1
        if lead := self.settle(answer.wait()):
            time.sleep(0.1)
            lead.store({"from": "a survivor"}, 1)
            self.values.append({"from": "a survivor"})

    async def task(self) -> None:
        answer = await self.layer.async_begin("one", RULE)
        assert isinstance(answer, Follow)
        self.following += 1
        if lead := self.settle(await answer.async_wait()):
            await asyncio.sleep(0.1)
            await lead.async_store({"from": "a survivor"}, 1)
            self.values.append({"from": "a survivor"})

    def run(self) -> list[threading.Thread]:
        async def tasks() -> None:
            await asyncio.gather(*(self.task() for _ in range(4)))

        threads = [threading.Thread(target=self.thread) for _ in range(4)]
        threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
        for thread in threads:
            thread.start()
        while self.following < 8:
            time.sleep(0.005)
        return threads


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
def test_when_the_leader_dies_or_hangs_the_others_are_served(
    harm: signal.Signals, server, client: "redis.Redis", start: Callable[[str], Process]
) -> None:
    leader = start("lead")
    assert leader.hear()["leading"]
    survivors = Survivors(server.url, client)
    threads = survivors.run()
    time.sleep(0.7)  # the leader has renewed its lease meanwhile
    leader.popen.send_signal(harm)
    started = time.monotonic()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - started < 2.0
    assert survivors.values == [{"from": "a survivor"}] * 8
    assert client.get("calls:one") == b"2"

    if harm is signal.SIGSTOP:
        before = client.hgetall(PREFIX + "one")
        leader.popen.send_signal(signal.SIGCONT)
        leader.tell()
        heard = leader.hear()
        assert heard["found"] == {"from": "a survivor"} != heard["late"]
        assert client.hgetall(PREFIX + "one") == before


def test_a_forked_child_starts_anew(client: "redis.Redis", start: Callable[[str], Process]) -> None:
    process = start("fork")
    assert process.hear() == {
        "shared": "Follow",
        "private": "Lead",
        "shared later": "Follow",
        "child's": ["Lead", "Follow"],
    }
    assert process.hear() == {"hits": ["Hit", "Hit"]}


def test_a_long_flight_and_its_end_are_not_forgotten(server, client: "redis.Redis") -> None:
    store = RedisStore(server.url, timeout_s=2.0)
    reply = store.ask("long", Ask())
    client.pexpire(PREFIX + "long", 200)  # as after some seconds of flight
    assert store._check([("long", reply.token, True)]) == [True]
    assert client.pttl(PREFIX + "long") > 500
    assert store.fail("long", reply.token, Failure("rejected", b"{}"))
    assert client.pttl(PREFIX + "long") > 3000
    store.close()


def test_nothing_of_keys_or_queries_is_in_redis(server, client: "redis.Redis") -> None:
    layer = DataLayer(CacheConfig(), RedisStore(server.url, timeout_s=2.0))
    secrets = ["sk_live_4242", "who is the lawyer of acme", "acme-tenant"]
    rule = Rule(60, 60)
    for page in range(3):
        key = layer.key(
            rule,
            provider="scavio",
            operation="google.search",
            request={"query": secrets[1], "page": page},
            tenant=secrets[2],
        )
        assert key
        answer = layer.begin(key, rule)
        assert isinstance(answer, Lead)
        if page == 0:
            answer.store({"results": [1, 2, 3]}, 5)
        elif page == 1:
            answer.fail("unavailable", ValueError(secrets[0]), {"status": 503})
    keys = list(client.scan_iter("*"))
    assert len(keys) == 3
    everything = b" ".join(
        [*keys, *(b" ".join([*h, *h.values()]) for h in map(client.hgetall, keys))]
    )
    assert b"results" in everything
    for secret in secrets:
        for part in (secret, *secret.split()):
            if len(part) > 3:
                assert part.encode() not in everything
    assert all(0 < client.pttl(key) <= 60_000 for key in keys)
