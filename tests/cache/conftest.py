"""A Redis of our own on a loopback port, and the data layer over each store."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import redis
from redis_server import RedisServer, redis_server

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
