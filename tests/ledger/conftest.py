"""Real Redis servers on loopback ports, and ledgers over every kind of store."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from spanledger.api import guard
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.memory import MemoryStore
from spanledger.ledger.protocol import LimitedScope, open_ledger


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class RedisServer:
    """A redis-server of Debian's on a loopback port; `start` after `kill` brings it back, empty, on the same port."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.port, self.bus_port = _free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def admin(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5, protocol=2)

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "these tests need redis-server (Debian: apt-get install redis-server)"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self.options]
        if "--cluster-enabled" in options:
            options += ["--cluster-port", str(self.bus_port)]
        self.process = subprocess.Popen(
            [program, *options],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail("redis-server did not start")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with self.admin as admin:
                return bool(admin.ping())
        except redis.ConnectionError:
            return False

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def command(self, *words: object) -> object:
        with self.admin as admin:
            return admin.execute_command(*words)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that no test harms."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def new_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Makes servers that a test may harm."""
    servers: list[RedisServer] = []

    def make(*options: str) -> RedisServer:
        directory = tmp_path / f"redis-{len(servers)}"
        directory.mkdir()
        servers.append(RedisServer(directory, *options))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


NewRedis = Callable[..., RedisServer]


def _cluster(make: NewRedis, more: Callable[[], tuple[str, ...]] = lambda: ()) -> list[RedisServer]:
    """Three servers that share the slots among them; each has what `more` says for options, too."""
    clustered = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    nodes = [make(*clustered, *more()) for _ in range(3)]
    bounds = (0, 5461, 10923, 16384)
    for i, node in enumerate(nodes):
        node.command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
        node.command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        node.command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus_port)
    deadline = time.monotonic() + 20
    while not all(_in_order(node) for node in nodes):
        assert time.monotonic() < deadline, "the cluster does not come together"
        time.sleep(0.02)
    return nodes


def _in_order(node: RedisServer) -> bool:
    """The node knows all slots and nodes; right after they met, a state of "ok" may be its own alone."""
    info = node.command("CLUSTER INFO")
    assert isinstance(info, dict)
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


def cluster_url(nodes: list[RedisServer]) -> str:
    return nodes[0].url.replace("redis://", "redis+cluster://")


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a cluster of three nodes that no test harms."""
    with contextlib.ExitStack() as stack:

        def make(*options: str) -> RedisServer:
            server = RedisServer(tmp_path_factory.mktemp("redis"), *options)
            stack.callback(server.kill)
            return server

        yield cluster_url(_cluster(make))


@pytest.fixture
def new_cluster(new_redis: NewRedis) -> Callable[..., tuple[str, list[RedisServer]]]:
    """Makes clusters of three nodes that a test may harm: URL and nodes."""

    def make(more: Callable[[], tuple[str, ...]] = lambda: ()) -> tuple[str, list[RedisServer]]:
        nodes = _cluster(new_redis, more)
        return cluster_url(nodes), nodes

    return make


@pytest.fixture
def strict_guard() -> Iterator[None]:
    """An error that would be swallowed fails the test."""
    guard.forget_said()
    guard.reraise_internal_errors(True)
    yield
    guard.reraise_internal_errors(False)
    guard.forget_said()


NewLedger = Callable[[], LeasedLedger]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def new_ledger(
    request: pytest.FixtureRequest, tmp_path: Path, strict_guard: None
) -> Iterator[NewLedger]:
    """Makes ledgers that share one store, each a producer of its own."""
    ledgers: list[LeasedLedger] = []
    url = ""
    memory = MemoryStore()
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
    elif request.param == "redis":
        url = request.getfixturevalue("shared_redis").url

    def make() -> LeasedLedger:
        ledger = open_ledger(url) if url else LeasedLedger(memory)
        assert isinstance(ledger, LeasedLedger)
        ledgers.append(ledger)
        return ledger

    yield make
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def limited() -> Callable[..., LimitedScope]:
    """Makes scopes whose keys no other test has."""
    run = uuid.uuid4().hex

    def make(name: str, limit: int, **more: object) -> LimitedScope:
        more.setdefault("on_outage", "closed")
        return LimitedScope(f"{name}|{run}", limit, time.time() + 86400, **more)  # type: ignore[arg-type]

    return make


Worker = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Starts processes that spend (ledger_worker.py); what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    script = Path(__file__).with_name("ledger_worker.py")

    def start(*words: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
