"""A Redis of our own on a loopback port, and the data layer over each store."""

import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest
import redis

from spanledger.api.guard import forget_said, internal_errors, reraise_internal_errors
from spanledger.cache.config import CacheConfig
from spanledger.cache.layer import DataLayer
from spanledger.cache.memory import MemoryStore
from spanledger.cache.redis_store import RedisStore
from spanledger.cache.store import Store


@pytest.fixture(autouse=True)
def _no_swallowing() -> Iterator[None]:
    forget_said()
    internal_errors.clear()
    reraise_internal_errors(True)
    yield
    reraise_internal_errors(False)
    forget_said()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RedisServer:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def redis_server(port: int | None = None) -> Iterator[RedisServer]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    port = port or free_port()
    command = [
        binary,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, socket_timeout=1) as client:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    break
                except redis.RedisError:
                    assert time.monotonic() < deadline, "redis-server does not start"
                    time.sleep(0.02)
        yield RedisServer(port, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def server() -> Iterator[RedisServer]:
    with redis_server() as started:
        yield started


@pytest.fixture
def client(server: RedisServer) -> Iterator["redis.Redis"]:
    with redis.Redis(port=server.port, socket_timeout=5) as made:
        made.flushall()
        yield made


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each store; with time to answer, since other tests keep the machine busy."""
    if request.param == "memory":
        yield MemoryStore()
        return
    server = request.getfixturevalue("server")
    made = RedisStore(server.url, timeout_s=2.0)
    yield made
    made.close()


@pytest.fixture
def layer(store: Store) -> DataLayer:
    return DataLayer(CacheConfig(wait_s=10.0), store)


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def start_server() -> Callable[..., AbstractContextManager[RedisServer]]:
    """Starts a Redis of the test's own, to be harmed."""
    return redis_server
