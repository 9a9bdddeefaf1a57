"""A limit that many processes share."""

import json
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.protocol import LimitedScope, open_ledger

USD = 10**9
LIMIT = 10 * USD
Worker = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "cluster":
        return str(request.getfixturevalue("shared_cluster"))
    return str(request.getfixturevalue("shared_redis").url)


@pytest.fixture
def run() -> str:
    return uuid.uuid4().hex


def truth(directory: Path) -> int:
    """What the workers really spent."""
    return sum(int(line) for path in directory.glob("truth-*") for line in path.read_text().split())


def ready(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    word, name = worker.stdout.readline().split()
    assert word == "ready"
    return name


def all_spend(workers: "list[subprocess.Popen[str]]") -> list[dict[str, float]]:
    for worker in workers:
        ready(worker)
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]


def start_spenders(
    worker: Worker, url: str, run: str, directory: Path, kind: str, count: int, actual: str
) -> "list[subprocess.Popen[str]]":
    return [
        worker(kind, url, run, directory / f"truth-{i}", count, LIMIT, USD // 40, actual, 5)
        for i in range(8)
    ]


@pytest.mark.parametrize(("kind", "count"), [("threads", 8), ("tasks", 64)])
def test_eight_processes_use_the_limit_and_pass_it_not(
    worker: Worker, url: str, run: str, tmp_path: Path, kind: str, count: int
) -> None:
    """Estimates are upper bounds: 10 USD, 0.025 USD a call, five scopes."""
    all_spend(start_spenders(worker, url, run, tmp_path, kind, count, "1"))
    spent = truth(tmp_path)
    assert 9.5 * USD <= spent <= LIMIT
    ledger = open_ledger(url)
    assert ledger.state([f"scope{i}|{run}" for i in range(5)]) == {
        f"scope{i}|{run}": (spent, 0, False) for i in range(5)
    }
    ledger.close()


def test_wrong_estimates_pass_it_by_little(
    worker: Worker, shared_redis: object, run: str, tmp_path: Path
) -> None:
    """Estimates from 0.7 to 1.6 of the actual costs: at most what is in flight when the limit comes."""
    url = shared_redis.url  # type: ignore[attr-defined]
    all_spend(start_spenders(worker, url, run, tmp_path, "threads", 2, "random"))
    in_flight = 8 * 2 * int((1 / 0.7 - 1) * USD / 40)
    assert 9.5 * USD <= truth(tmp_path) <= LIMIT + in_flight


def test_killed_workers_are_counted_and_replayed(
    worker: Worker, shared_redis: object, run: str, tmp_path: Path
) -> None:
    url = shared_redis.url  # type: ignore[attr-defined]
    killed = [
        worker("killed", url, run, tmp_path / f"truth-{i}", 4, 10**6 * USD, 1000, "1", 2)
        for i in range(4)
    ]
    names = [ready(one) for one in killed]
    for one in killed:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    time.sleep(0.6)
    for one in killed:
        one.kill()
        one.wait()
    ledger = open_ledger(url)
    assert isinstance(ledger, LeasedLedger)
    key = f"scope0|{run}"
    true = {
        name: sum(map(int, (tmp_path / f"truth-{i}").read_text().split()))
        for i, name in enumerate(names)
    }
    deadline = time.monotonic() + 20
    open_names = dict(true)
    while open_names:  # until the store has them as dead
        assert time.monotonic() < deadline
        ledger.add([LimitedScope(key, 10**6 * USD, time.time() + 86400, "closed")], 0)
        time.sleep(0.2)
        if ledger.state([key])[key].held == 0:
            for name, cum in true.items():
                if key in ledger.replay(name, {key: cum}):
                    open_names.pop(name, None)
    assert ledger.state([key])[key].spent == truth(tmp_path)
    ledger.close()


def test_forks(worker: Worker, url: str, run: str, tmp_path: Path) -> None:
    process = worker("forks", url, run, tmp_path / "truth-0", 3)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    names = json.loads(output)["names"]
    assert len(set(names)) == 4
    ledger = open_ledger(url)
    for i in range(2):
        key = f"scope{i}|{run}"
        assert ledger.state([key])[key] == (truth(tmp_path), 0, False)
    ledger.close()


def test_the_end_under_load(worker: Worker, url: str, run: str, tmp_path: Path) -> None:
    processes = [worker("closes", url, run, tmp_path / f"truth-{i}") for i in range(3)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    ledger = open_ledger(url)
    key = f"scope4|{run}"
    assert ledger.state([key])[key] == (truth(tmp_path), 0, False)
    ledger.close()
