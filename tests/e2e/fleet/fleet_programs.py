"""Processes of a fleet, as a user starts them, and what their journal says in the end."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stack_programs import DASHBOARDS

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


def environment(directory: Path, **more: str) -> dict[str, str]:
    known = {
        k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SPANLEDGER_", "COV_"))
    }
    return {
        **known,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "SPANLEDGER_JOURNAL": books(directory),
        "PYTHONPATH": str(HERE),
        "PYTHONWARNINGS": "ignore",
        **more,
    }


@contextlib.contextmanager
def launched(directory: Path, *command: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The command under OpenTelemetry's launcher. It must end well by itself, or on SIGTERM."""
    log = directory / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(BIN / "opentelemetry-instrument"), *command],
            env=environment(directory, **env),
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)
            assert process.stdin is not None
            process.stdin.close()
    assert process.returncode in (0, -15), log.read_text()


def job(directory: Path, *arguments: str, **env: str) -> None:
    """Run the job to its end."""
    with launched(
        directory, sys.executable, str(HERE / "fleet_app.py"), *arguments, **env
    ) as process:
        process.wait(30)


def ask(url: str, times: int = 1, seconds: float = 60) -> list[int]:
    """Ask the application so often, eight at a time; the process ids of who answered."""

    def once(_: int) -> int:
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return int(answer.read())
            except urllib.error.HTTPError as refused:
                if refused.code != 402:
                    raise
                return int(refused.read())
            except OSError:  # a worker that is being replaced: ask again
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(once, range(times)))


def books(directory: Path) -> str:
    """The URL of the journal of what runs in this directory."""
    return f"sqlite:///{directory / 'journal.db'}"


def journal(directory: Path) -> dict[str, Any]:
    """The totals of `spanledger report --json`."""
    done = subprocess.run(
        [str(BIN / "spanledger"), "report", "--json", "--journal", books(directory)],
        capture_output=True,
        text=True,
        check=True,
    )
    total: dict[str, Any] = json.loads(done.stdout)["total"]
    return total


def prometheus_config(directory: Path, rules: str, **hosts: str) -> Path:
    """The compose file's configuration of Prometheus, with these hosts and rules, and faster."""
    text = (DASHBOARDS / "prometheus" / "prometheus.yml").read_text()
    for host, url in hosts.items():
        text = text.replace(host.replace("_", ":"), url.removeprefix("http://"))
    text = text.replace("15s", "500ms").replace("[rules/*.yml]", rules)
    config = directory / "prometheus.yml"
    config.write_text(text)
    return config
