"""A process of the fleet, started by the tests: `fleet_member.py MODE URL`. It speaks JSON lines.

crowd: 8 threads, then 80 tasks, get 10 keys each through the cache; the "provider" counts its calls in Redis.
lead:  leads the flight of one key, says so, and stores its result when told to, however late.
fork:  forks in the middle of things.
"""

import asyncio
import json
import os
import random
import sys
import threading
import time

import redis

from spanledger.cache.config import CacheConfig, Rule
from spanledger.cache.flight import Follow, Hit, Lead
from spanledger.cache.layer import DataLayer
from spanledger.cache.memory import MemoryStore
from spanledger.cache.redis_store import RedisStore

RULE = Rule(fresh_s=60, stale_s=60)
KEYS = 10


def say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def hear() -> str:
    return sys.stdin.readline().strip()


class Member:
    def __init__(self, url: str) -> None:
        # Patient, so that a busy machine does not pass for a Redis that is down.
        self.layer = DataLayer(CacheConfig(wait_s=30), RedisStore(url, timeout_s=2.0))
        self.provider = redis.Redis.from_url(url)
        self.kinds: list[str] = []

    def fetch(self, key: str) -> dict[str, object]:
        self.provider.incr(f"calls:{key}")
        return {"key": key, "pid": os.getpid(), "text": "otter " * 50}

    def get(self, key: str) -> object:
        answer: object = self.layer.begin(key, RULE)
        if isinstance(answer, Follow):
            answer = answer.wait()
        if isinstance(answer, Hit):
            return answer.value
        assert isinstance(answer, Lead)
        result = self.fetch(key)
        time.sleep(0.1)
        answer.store(result, 5_000_000)
        return result

    async def async_get(self, key: str) -> object:
        answer: object = await self.layer.async_begin(key, RULE)
        if isinstance(answer, Follow):
            answer = await answer.async_wait()
        if isinstance(answer, Hit):
            return answer.value
        assert isinstance(answer, Lead)
        result = self.fetch(key)
        await asyncio.sleep(0.1)
        await answer.async_store(result, 5_000_000)
        return result


def crowd(url: str) -> None:
    member = Member(url)
    results: list[object] = []

    def thread() -> None:
        keys = [f"thread-{number}" for number in range(KEYS)]
        random.shuffle(keys)
        results.extend(member.get(key) for key in keys)

    threads = [threading.Thread(target=thread) for _ in range(8)]
    say(ready=True)
    hear()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    say(results=results)

    async def tasks() -> list[object]:
        keys = [f"task-{number % KEYS}" for number in range(8 * KEYS)]
        random.shuffle(keys)
        return await asyncio.gather(*map(member.async_get, keys))

    hear()
    say(results=asyncio.run(tasks()))


def lead(url: str) -> None:
    member = Member(url)
    answer = member.layer.begin("one", RULE)
    assert isinstance(answer, Lead)
    result = member.fetch("one")
    say(leading=True)
    hear()
    answer.store(result, 1)
    found = member.layer.begin("one", RULE)
    assert isinstance(found, Hit)
    say(late=result, found=found.value)


def fork(url: str) -> None:
    shared = DataLayer(CacheConfig(wait_s=5), RedisStore(url, timeout_s=2.0))
    private = DataLayer(CacheConfig(wait_s=5), MemoryStore())
    leads = [layer.begin("forked", RULE) for layer in (shared, private)]
    private._store._lock.acquire()  # type: ignore[attr-defined]  # another thread is in there
    child = os.fork()
    if child == 0:
        answers = [layer.begin("forked", RULE) for layer in (shared, private)]
        says = {"shared": type(answers[0]).__name__, "private": type(answers[1]).__name__}
        own = shared.begin("child's", RULE)
        time.sleep(1.5)  # longer than a lease: the parent keeps its own, and the child too
        says["shared later"] = type(shared.begin("forked", RULE)).__name__
        says["child's"] = [type(own).__name__, type(shared.begin("child's", RULE)).__name__]
        say(**says)
        os._exit(0)
    private._store._lock.release()  # type: ignore[attr-defined]
    os.waitpid(child, 0)
    for answer in leads:
        assert isinstance(answer, Lead)
        answer.store({"from": "parent"}, 1)
    say(hits=[type(layer.begin("forked", RULE)).__name__ for layer in (shared, private)])


if __name__ == "__main__":
    {"crowd": crowd, "lead": lead, "fork": fork}[sys.argv[1]](sys.argv[2])
