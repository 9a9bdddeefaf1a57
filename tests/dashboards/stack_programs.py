"""Prometheus and Alertmanager as plain processes on loopback ports, for the tests of `dashboards/`."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

DASHBOARDS = Path(__file__).parents[2] / "dashboards"


def program(*names: str) -> str:
    """The path of the first of these programs that is there. Otherwise the test is skipped, or fails where CI is set."""
    for name in names:
        if path := shutil.which(name):
            return path
    missing = f"{names[0]} is not installed: apt-get install prometheus prometheus-alertmanager"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(f"NOT TESTED: {missing}")


def run(*command: str, cwd: Path | None = None) -> str:
    """What the program says. A failure of it is one of the test, with all that it said."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], ready_url: str, log: Path) -> Iterator[None]:
    """The program, from when it answers at `ready_url`."""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            wait_for(
                lambda: answers(ready_url) or process.poll() is not None,
                log.name,
                log.read_text,
            )
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def prometheus(
    config: Path, data: Path, *flags: str, log: Path
) -> contextlib.AbstractContextManager[str]:
    """A Prometheus on a port of its own; gives its address."""

    @contextlib.contextmanager
    def start() -> Iterator[str]:
        url = f"http://127.0.0.1:{free_port()}"
        command = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address={url.removeprefix('http://')}",
            *flags,
        ]
        with running(command, f"{url}/-/ready", log):
            yield url

    return start()


@contextlib.contextmanager
def prometheus_with(openmetrics: str, folder: Path) -> Iterator[str]:
    """A Prometheus that holds these samples, and scrapes nothing."""
    program("prometheus")
    (folder / "days.txt").write_text(openmetrics)
    # Blocks of the usual two hours would have the whole file read a hundred times.
    long_blocks = "--max-block-duration=500h"
    run(
        program("promtool"),
        *("tsdb", "create-blocks-from", "openmetrics", long_blocks, "-q"),
        *(str(folder / "days.txt"), str(folder / "data")),
    )
    (folder / "prometheus.yml").write_text("{}")
    with prometheus(
        folder / "prometheus.yml",
        folder / "data",
        "--storage.tsdb.retention.time=100y",
        log=folder / "log",
    ) as address:
        yield address


def alertmanager(config: Path, data: Path, *, log: Path) -> contextlib.AbstractContextManager[str]:
    """An Alertmanager on a port of its own; gives its address."""

    @contextlib.contextmanager
    def start() -> Iterator[str]:
        url = f"http://127.0.0.1:{free_port()}"
        command = [
            program("prometheus-alertmanager", "alertmanager"),
            f"--config.file={config}",
            f"--storage.path={data}",
            f"--web.listen-address={url.removeprefix('http://')}",
            "--cluster.listen-address=",
        ]
        with running(command, f"{url}/-/ready", log):
            yield url

    return start()


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
        return True
    return False


def get(url: str, **parameters: str) -> Any:
    """The `data` of an answer of Prometheus' API."""
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(f"{url}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def wait_for(
    condition: Callable[[], object], what: str, state: Callable[[], object], seconds: float = 20
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}: {state()}"
        time.sleep(0.05)
