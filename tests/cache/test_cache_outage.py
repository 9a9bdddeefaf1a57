"""A Redis that is down, slow or refuses: the calls go to the provider, hardly late, and the fault is said once."""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import redis

from spanledger.api.guard import internal_errors
from spanledger.cache import keeper, redis_link, steps
from spanledger.cache.config import CacheConfig, Rule
from spanledger.cache.flight import Follow, Hit, Lead
from spanledger.cache.layer import DataLayer
from spanledger.cache.redis_store import RedisStore

RULE = Rule(fresh_s=60, stale_s=60)

LATE_S = 0.05
SLACK_S = 0.2
"""What a busy machine may add to the 50 ms."""


@contextmanager
def over(url: str, timeout_s: float = LATE_S) -> Iterator[DataLayer]:
    store = RedisStore(url, timeout_s=timeout_s)
    try:
        yield DataLayer(CacheConfig(wait_s=10), store)
    finally:
        store.close()


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does `answer` with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        server.shutdown(socket.SHUT_RDWR)


def silent(connection: socket.socket) -> None:
    with connection:
        while connection.recv(4096):
            pass


def slow_proxy(port: int, delay_s: float) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        with connection, socket.create_connection(("127.0.0.1", port)) as upstream:
            while request := connection.recv(65536):
                upstream.sendall(request)
                reply = upstream.recv(65536)
                time.sleep(delay_s)
                connection.sendall(reply)

    return answer


def refusing(connection: socket.socket) -> None:
    with connection:
        while request := connection.recv(65536):
            connection.sendall(b"+PONG\r\n" if b"PING" in request else b"-OOM no memory\r\n")


def call(layer: DataLayer, key: str) -> tuple[float, object]:
    started = time.monotonic()
    answer = layer.begin(key, RULE)
    return time.monotonic() - started, answer


async def async_call(layer: DataLayer, key: str) -> tuple[float, object]:
    started = time.monotonic()
    answer = await layer.async_begin(key, RULE)
    return time.monotonic() - started, answer


def assert_goes_ahead(results: list[tuple[float, object]]) -> None:
    for took, answer in results:
        assert isinstance(answer, Lead)
        assert answer.alone
        assert took < LATE_S + SLACK_S
    assert min(took for took, _ in results) < LATE_S / 5  # once it is known, nobody waits


def assert_said_once(caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 2
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.005)  # it is said by a thread of its own
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "Redis does not answer in time, or refuses" in said[0].getMessage()
    assert internal_errors["cache.redis"] >= 1


@pytest.fixture(params=["closed", "silent", "refusing"])
def broken(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "closed":
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        yield f"redis://127.0.0.1:{port}/0"
        return
    with listening({"silent": silent, "refusing": refusing}[request.param]) as url:
        yield url


def test_without_redis_calls_go_ahead(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    with over(broken) as layer:
        results = [call(layer, f"k{number}") for number in range(20)]
        results.append((0.0, results[0][1]))
        answer = results[0][1]
        assert isinstance(answer, Lead)
        answer.store({"a": 1}, 1)
    assert_goes_ahead(results)
    assert_said_once(caplog)


async def test_without_redis_tasks_go_ahead(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    with over(broken) as layer:
        first = await asyncio.gather(*(async_call(layer, f"k{n}") for n in range(50)))
        second = [await async_call(layer, f"k{n}") for n in range(5)]
    assert_goes_ahead([*first, *second])
    assert_said_once(caplog)


async def test_the_event_loop_runs_on_while_redis_is_silent() -> None:
    with listening(silent) as url, over(url, 0.5) as layer:
        calling = asyncio.create_task(layer.async_begin("k", RULE))
        steps_of_the_loop = 0
        while not calling.done():
            await asyncio.sleep(0.001)
            steps_of_the_loop += 1
    assert steps_of_the_loop > 10


def test_a_slow_redis_does_not_add_up(server, caplog: pytest.LogCaptureFixture) -> None:
    """Each reply takes 40 ms, in time by itself; with a connection to make, two would not be."""
    with listening(slow_proxy(server.port, 0.04)) as url, over(url) as layer:
        results = [call(layer, f"slow{number}") for number in range(6)]
    assert all(took < LATE_S + SLACK_S for took, _ in results)


def lead_and_follow(layer: DataLayer) -> tuple[Lead, Follow]:
    """Of one flight; on a busy machine not at the first try, 50 ms being short."""
    for attempt in range(100):
        _, leader = call(layer, f"flight{attempt}")
        _, follower = call(layer, f"flight{attempt}")
        if isinstance(leader, Lead) and isinstance(follower, Follow):
            return leader, follower
        time.sleep(0.05)
    pytest.fail("Redis is never in time")


def test_a_redis_that_stalls_in_the_middle_is_left_alone_until_it_is_back(
    start_server: Callable[..., AbstractContextManager], caplog: pytest.LogCaptureFixture
) -> None:
    with start_server() as server, over(server.url) as layer:
        leader, follower = lead_and_follow(layer)
        os.kill(server.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        waited = follower.wait()  # learns of it from the background thread
        assert isinstance(waited, Lead)
        assert waited.alone
        assert time.monotonic() - started < 1.0
        leader.store({"a": 1}, 1)
        results = [call(layer, f"k{number}") for number in range(10)]
        assert_goes_ahead(results)
        os.kill(server.process.pid, signal.SIGCONT)
        wait_for_hits(layer)
    assert_said_once(caplog)


def test_a_redis_that_hangs_is_not_tried_with_one_connection_after_the_other(
    start_server: Callable[..., AbstractContextManager],
) -> None:
    with start_server() as server, over(server.url, 0.3) as layer:
        link = layer._store._link  # type: ignore[attr-defined]
        taken = [link._take(time.monotonic() + 5) for _ in range(8)]
        for connection in taken:
            link._give_back(connection)
        os.kill(server.process.pid, signal.SIGSTOP)
        took = [call(layer, f"k{number}")[0] for number in range(10)]
    assert sum(seconds > 0.2 for seconds in took) == redis_link.TIMEOUTS_TO_GO_DOWN


def test_a_deadline_that_has_passed_leaves_no_time_to_wait() -> None:
    class Connection:
        waited: float | None = None

        def can_read(self, seconds: float) -> bool:
            self.waited = seconds
            return False

        def disconnect(self) -> None:
            pass

    connection = Connection()
    with pytest.raises(redis.TimeoutError):
        redis_link._await_reply(connection, time.monotonic() - 1)
    assert connection.waited == 0


async def test_a_lead_that_comes_when_its_caller_has_gone_is_given_on_at_once(
    server, client: "redis.Redis"
) -> None:
    store = RedisStore(server.url, timeout_s=2.0, lease_s=60)
    layer = DataLayer(CacheConfig(), store)
    for number in range(30):
        task = asyncio.create_task(layer.async_begin(f"k{number}", RULE))
        await asyncio.sleep(0.0002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            continue  # it was faster
        answer: object = await layer.async_begin(f"k{number}", RULE)
        if isinstance(answer, Follow):
            answer = await answer.async_wait(5)
        assert isinstance(answer, Lead)
        assert not answer.alone
    store.close()


def wait_for_hits(layer: DataLayer) -> None:
    deadline = time.monotonic() + 5
    while True:
        _, answer = call(layer, "after")
        if isinstance(answer, Hit):
            return
        assert time.monotonic() < deadline
        if isinstance(answer, Lead):
            answer.store({"b": 2}, 1)
        time.sleep(0.02)


def test_a_redis_that_is_restarted_is_used_again(
    start_server: Callable[..., AbstractContextManager], caplog: pytest.LogCaptureFixture
) -> None:
    with start_server() as server, over(server.url) as layer:
        wait_for_hits(layer)
        port = server.port
        server.process.kill()
        server.process.wait()
        _, answer = call(layer, "after")
        assert isinstance(answer, Lead)
        assert answer.alone
        with start_server(port):
            wait_for_hits(layer)
    assert_said_once(caplog)


def test_a_flush_and_a_closed_connection_are_no_faults(
    start_server: Callable[..., AbstractContextManager],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        start_server() as server,
        over(server.url, 2.0) as layer,
        redis.Redis(port=server.port) as admin,
    ):
        _, late = call(layer, "k")
        assert isinstance(late, Lead)
        admin.flushall()
        admin.script_flush()
        _, leader = call(layer, "k")
        assert isinstance(leader, Lead)
        assert not leader.alone
        late.store({"late": 1}, 1)
        leader.store({"good": 1}, 1)
        _, answer = call(layer, "k")
        assert isinstance(answer, Hit)
        assert answer.value == {"good": 1}
        monkeypatch.setattr(redis_link, "RESTED_S", 0)
        admin.client_kill_filter(_type="normal", skipme=True)  # as the server does with who rests
        _, answer = call(layer, "k")
        assert isinstance(answer, Hit)
    assert caplog.records == []


def test_a_full_redis_that_may_not_evict_refuses_and_calls_go_ahead(
    start_server: Callable[..., AbstractContextManager], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        start_server() as server,
        over(server.url, 2.0) as layer,
        redis.Redis(port=server.port) as admin,
    ):
        wait_for_hits(layer)
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", "1mb")
        _, answer = call(layer, "k")
        assert isinstance(answer, Lead)
        assert answer.alone
    assert_said_once(caplog)


def test_one_round_trip_for_a_hit(server, client: "redis.Redis") -> None:
    store = RedisStore(server.url, timeout_s=2.0)
    layer = DataLayer(CacheConfig(), store)
    _, answer = call(layer, "k")
    assert isinstance(answer, Lead)
    answer.store({"a": 1}, 1)
    assert isinstance(call(layer, "k")[1], Hit)
    client.config_resetstat()
    for _ in range(10):
        assert isinstance(call(layer, "k")[1], Hit)
    answer.store({"b": 2}, 1)  # it has ended: there is nothing to ask
    answer.fail("own")
    answer.abandon()
    calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
    from_clients = {name for name in calls if name not in ("cmdstat_time", "cmdstat_hmget")}
    assert calls["cmdstat_evalsha"] == 10
    assert from_clients <= {"cmdstat_evalsha", "cmdstat_config|resetstat", "cmdstat_info"}
    store.close()


def test_an_interrupted_call_leaves_no_half_read_connection(
    server, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    with over(server.url, 2.0) as layer:
        wait_for_hits(layer)
        with monkeypatch.context() as patch:
            patch.setattr(redis_link, "_await_reply", interrupt)
            with pytest.raises(KeyboardInterrupt):
                call(layer, "after")
        found = call(layer, "after")[1]
    assert isinstance(found, Hit)
    assert found.value == {"b": 2}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_background_threads_end_without_work_and_start_again(
    server, client: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "IDLE_S", 0.02)
    monkeypatch.setattr(keeper, "IDLE_S", 0.02)
    with over(server.url, 2.0) as layer:
        for number in range(2):
            _, leader = call(layer, f"k{number}")
            _, follower = call(layer, f"k{number}")
            assert isinstance(leader, Lead)
            assert isinstance(follower, Follow)
            timer = threading.Timer(0.02, leader.store, ({"a": 1}, 1))
            timer.start()
            assert isinstance(follower.wait(), Hit)
            timer.join()
            deadline = time.monotonic() + 5
            while any(t.name.startswith("spanledger-cache-") for t in mine(layer)):
                assert time.monotonic() < deadline
                time.sleep(0.01)


def mine(layer: DataLayer) -> list[threading.Thread]:
    store = layer._store
    assert isinstance(store, RedisStore)
    return [thread for thread in (store._link._thread, store._keeper._thread) if thread]


def test_after_close_calls_go_ahead(server, client: "redis.Redis") -> None:
    layer = DataLayer(CacheConfig(), RedisStore(server.url, timeout_s=2.0))
    wait_for_hits(layer)
    layer.close()
    _, answer = call(layer, "after")
    assert isinstance(answer, Lead)
    assert answer.alone


async def test_at_the_end_of_the_process_calls_go_ahead(server, client: "redis.Redis") -> None:
    with over(server.url, 2.0) as layer:
        leader = await layer.async_begin("k", RULE)
        assert isinstance(leader, Lead)
        assert steps._workers._pool
        steps._workers._pool.shutdown()
        try:
            await leader.async_store({"a": 1}, 1)
            leader.abandon()
            answer = await layer.async_begin("k", RULE)
        finally:
            steps._workers.after_fork()
    assert isinstance(answer, Lead)
    assert answer.alone


def test_the_password_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    with over("redis://user:hunter2@127.0.0.1:1/0") as layer:
        call(layer, "k")
        call(layer, "k")
    assert_said_once(caplog)
    assert "hunter2" not in caplog.text


def test_a_name_that_does_not_resolve_costs_no_call_more_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang(*_: object, **__: object) -> list[object]:
        time.sleep(0.5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with over("redis://cache.invalid:6379/0") as layer:
        results = [call(layer, f"k{number}") for number in range(10)]
        assert all(took < LATE_S + SLACK_S for took, _ in results)
        time.sleep(0.5)
