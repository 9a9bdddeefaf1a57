"""Redis on loopback ports, alone and as a cluster of three, for as long as a benchmark runs."""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator

from redis import Redis


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def redis_server(*options: str) -> Generator[int]:
    """A redis-server on a free port, which it gives."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("this benchmark needs redis-server (Debian: apt-get install redis-server)")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options],
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.5)
            yield port
        finally:
            server.kill()
            server.wait()


@contextlib.contextmanager
def redis_cluster() -> Generator[str]:
    """Three servers that share the slots; their URL."""
    buses = free_ports(3)
    bounds = (0, 5461, 10923, 16384)
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(
                redis_server("--cluster-enabled", "yes", "--cluster-port", str(bus))
            )
            for bus in buses
        ]
        nodes = [stack.enter_context(Redis(port=port, protocol=2)) for port in ports]
        for i, node in enumerate(nodes):
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
            node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], buses[0])
        time.sleep(3)
        yield f"redis+cluster://127.0.0.1:{ports[0]}/0"


@contextlib.contextmanager
def stores() -> Generator[dict[str, str]]:
    """The URLs of what processes can share."""
    with redis_server() as port, redis_cluster() as cluster, tempfile.TemporaryDirectory() as here:
        yield {
            "Redis": f"redis://127.0.0.1:{port}/0",
            "SQLite": f"sqlite:///{here}/ledger.db",
            "Redis cluster of three": cluster,
        }
