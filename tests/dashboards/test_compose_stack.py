"""`make stack`, as a person starts it: everything runs, spend is in Prometheus, and all of it ends."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from collector_program import collector_program
from stack_programs import DASHBOARDS, answers, get, program, wait_for

COST = "sum by (job) (spanledger_cost_USD_total)"


def needed() -> None:
    for name in ("prometheus", "prometheus-alertmanager", "redis-server"):
        program(name)


@pytest.fixture
def stack_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("spanledger_stack", DASHBOARDS / "stack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def started(data: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`python dashboards/stack.py`, and what it prints."""
    said = data.with_suffix(".out")
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-u", str(DASHBOARDS / "stack.py"), "--data", str(data)],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process, said
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # as Ctrl-C does
            process.wait(60)


def urls(said: Path) -> dict[str, str]:
    return dict(re.findall(r"^ *(\w+) +(http://[\d.:]+)", said.read_text(), re.MULTILINE))


def alive(directory: Path) -> list[str]:
    """The command lines of the processes that run in this directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if directory in (process / "cwd").readlink().parents:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended meanwhile
            continue
    return found


def targets(prometheus: str) -> list[tuple[str, str]]:
    """Job and health of each target."""
    found = get(f"{prometheus}/api/v1/targets")["activeTargets"]
    return sorted((target["labels"]["job"], target["health"]) for target in found)


def spent(prometheus: str) -> dict[str, float]:
    """USD by job, as Prometheus knows it."""
    answer: Any = get(f"{prometheus}/api/v1/query", query=COST)
    return {row["metric"]["job"]: float(row["value"][1]) for row in answer["result"]}


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_the_stack_runs_and_ends(tmp_path: Path) -> None:
    needed()
    collector_program()
    data = tmp_path / "data"
    with started(data) as (process, said):
        wait_for(lambda: "Ctrl-C" in said.read_text(), "the stack", said.read_text, 60)
        found = urls(said)
        assert {"Alertmanager", "Collector", "Prometheus"} <= found.keys()
        assert all(answers(found[name]) for name in ("Alertmanager", "Prometheus"))
        wait_for(
            lambda: spent(found["Prometheus"]).get("scout", 0) > 0,
            "spend in Prometheus",
            lambda: (spent(found["Prometheus"]), process.poll()),
            60,
        )
        jobs = ("alertmanager", "collector", "prometheus", "spanledger", "spanledger")
        wait_for(
            lambda: targets(found["Prometheus"]) == [(job, "up") for job in jobs],
            "all targets",
            lambda: targets(found["Prometheus"]),
        )
        assert len(alive(data)) == 5
    assert process.returncode == 0, said.read_text()
    assert "Everything has ended." in said.read_text()
    assert alive(data) == []
    assert not any(answers(url) for url in found.values())


def quick(stack_module: ModuleType) -> Any:
    """The stack, with what takes long in Prometheus and Alertmanager shortened."""

    class Quick(stack_module.Stack):  # type: ignore[misc, name-defined]
        def _written(self, source: Path, changes: dict[str, str]) -> Path:
            short = {"_interval: 15s": "_interval: 1s", "group_wait: 10s": "group_wait: 0s"}
            path: Path = super()._written(source, {**changes, **short})
            return path

    return Quick


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_without_a_collector_an_alert_reaches_its_receiver(
    stack_module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Prometheus asks the application itself; a budget is used up, and demo/alerts.py prints what webhook.yml sends it."""
    needed()
    monkeypatch.setattr(stack_module, "collector_program", lambda: None)
    monkeypatch.setenv("DEMO_BETWEEN_DAYS_S", "0")
    said = ""

    def printed() -> str:
        nonlocal said
        said += capsys.readouterr().out
        return said

    with ExitStack() as running:
        stack = quick(stack_module)(running, tmp_path)
        stack.start()
        url = stack.urls["Prometheus"]
        wait_for(lambda: spent(url).get("spanledger", 0) > 0, "spend", lambda: spent(url), 60)
        jobs = [job for job, _ in targets(url)]
        assert jobs == ["alertmanager", "prometheus", "spanledger"]
        wait_for(
            lambda: get(f"{url}/api/v1/alertmanagers")["activeAlertmanagers"],
            "Prometheus to find Alertmanager",
            lambda: get(f"{url}/api/v1/alertmanagers"),
        )
        lower_the_budget(stack.processes["redis"].args, "tenant:globex")
        alert = r"(?m)^(WARNING|CRITICAL|HARD): tenant:globex is at its \1 tier"
        wait_for(lambda: re.search(alert, printed(), re.IGNORECASE), "the alert", printed, 45)
    assert alive(tmp_path) == []


def lower_the_budget(redis: list[str], scope: str) -> None:
    """To what was spent within seconds."""
    ledger = f"redis://127.0.0.1:{redis[redis.index('--port') + 1]}/0"
    spanledger = str(Path(sys.executable).with_name("spanledger"))
    subprocess.run(
        [spanledger, "budgets", "set", scope, "--daily-usd", "0.01"],
        env={
            **os.environ,
            "SPANLEDGER_LEDGER": ledger,
            "SPANLEDGER_CONFIG": str(DASHBOARDS / "demo" / "spanledger.toml"),
        },
        check=True,
        capture_output=True,
    )


def test_a_part_that_does_not_start_is_said(stack_module: ModuleType, tmp_path: Path) -> None:
    since = time.monotonic()
    with (
        pytest.raises(stack_module.StackError, match="(?s)redis did not start:.*no such port"),
        stack_module.running(
            (sys.executable, "-c", "raise SystemExit('no such port')"),
            tmp_path / "redis",
            "127.0.0.1:9",
            {},
        ),
    ):
        pytest.fail("it is running")
    assert time.monotonic() - since < stack_module.READY_S


def test_a_missing_program_is_said(
    stack_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(stack_module.StackError, match="apt-get install redis-server"):
        stack_module.program("redis-server")
