"""The stack without containers, on this machine's loopback, with the demo's application under load.

    python dashboards/stack.py [--data DIRECTORY]

Collector, Prometheus, Alertmanager and Redis run as plain processes, on their usual ports where
these are free. Ctrl-C ends all of them. The programs are Debian's packages prometheus,
prometheus-alertmanager and redis-server, and the collector that `.ci/collector` builds (or
otelcol-contrib on the PATH); without a collector, Prometheus asks the application itself.
Grafana is not in Debian: compose.yaml has it.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Final

HERE: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "demo"))

import alerts  # noqa: E402 - found by the line before

CONFIG: Final = HERE.parent / "otel-collector-config.yaml"
BUILT: Final = HERE.parent / ".cache" / "collector" / "otelcol-spanledger"
READY_S: Final = 30.0
END_S: Final = 15.0


class StackError(Exception):
    """Something that the stack needs is not here, or does not run; the message says what to do."""


# -- programs, ports, processes
# ----------------------------------------------------------------------------------------


def program(name: str) -> str:
    """The path of a program, whose Debian package has the same name. Raises StackError."""
    path = shutil.which(name)
    if path is None:
        raise StackError(f"{name} is not here: apt-get install {name}")
    return path


def collector_program() -> str | None:
    """The path of a collector, None where there is none."""
    return str(BUILT) if BUILT.is_file() else shutil.which("otelcol-contrib")


def port(usual: int) -> int:
    """The usual port, or another one where it is taken."""
    for number in (usual, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", number))
            return int(probe.getsockname()[1])
    raise StackError("no port is free on 127.0.0.1")


@contextlib.contextmanager
def running(
    command: Sequence[str], directory: Path, ready: str | None, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once it answers at `ready` (a URL, or host and port). Raises StackError."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
            command,
            env={**os.environ, **environ},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, who end the processes one by one
        )
    try:
        deadline = time.monotonic() + READY_S
        while ready is not None and not answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:]
                raise StackError(f"{directory.name} did not start:\n{said}")
            time.sleep(0.05)
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and end it."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(ready: str) -> bool:
    """Whether something answers there."""
    with contextlib.suppress(OSError):
        if ready.startswith("http"):
            with urllib.request.urlopen(ready, timeout=2):  # noqa: S310 - our own URL
                return True
        host, _, number = ready.rpartition(":")
        with socket.create_connection((host, int(number)), timeout=2):
            return True
    return False


# -- the parts
# ----------------------------------------------------------------------------------------


class Stack:
    """The parts of the stack. They live in `data`, and end with `stack`.

    urls: what a person may want to look at.
    processes: by name, in the order they were started.
    """

    def __init__(self, stack: ExitStack, data: Path) -> None:
        self._stack = stack
        self._data = data
        self.urls: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all parts, each with what the ones before it offer. Raises StackError."""
        notified = self._alerts()
        ledger = self._redis()
        alertmanager = self._alertmanager(notified)
        environ = self._with_collector(alertmanager) or self._without_collector(alertmanager)
        self._application(ledger, environ)

    def _run(self, name: str, command: Sequence[str], ready: str | None, **environ: str) -> None:
        context = running(command, self._data / name, ready, environ)
        self.processes[name] = self._stack.enter_context(context)

    def _alerts(self) -> str:
        """Print what Alertmanager sends; where it has to send it."""
        server = self._stack.enter_context(alerts.server(f"127.0.0.1:{port(9095)}"))
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)
        return f"127.0.0.1:{server.server_port}"

    def _redis(self) -> str:
        number = port(6379)
        options = ("--port", str(number), "--bind", "127.0.0.1", "--appendonly", "yes")
        self._run("redis", (program("redis-server"), *options), f"127.0.0.1:{number}")
        return f"redis://127.0.0.1:{number}/0"

    def _alertmanager(self, notified: str) -> str:
        address = f"127.0.0.1:{port(9093)}"
        folder = HERE / "alertmanager"
        config = self._written(
            folder / "webhook.yml",
            {"localhost:9095": notified, "templates/": f"{folder / 'templates'}/"},
        )
        command = (
            program("prometheus-alertmanager"),
            f"--config.file={config}",
            f"--storage.path={self._data / 'alertmanager' / 'data'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
        )
        self._run("alertmanager", command, f"http://{address}/-/ready")
        self.urls["Alertmanager"] = f"http://{address}"
        return address

    def _with_collector(self, alertmanager: str) -> dict[str, str] | None:
        """What the application needs to send to a collector, which Prometheus asks."""
        path = collector_program()
        if path is None:
            print(
                "No collector: `.ci/collector` builds one. Prometheus asks the application itself."
            )
            return None
        usual = {
            "GRPC": 4317,
            "HTTP": 4318,
            "METRICS": 8889,
            "COUNTED": 8890,
            "HEALTH": 13133,
            "OWN_METRICS": 8888,
        }
        at = {name: f"127.0.0.1:{port(number)}" for name, number in usual.items()}
        ports = {
            f"SPANLEDGER_COLLECTOR_{name}_PORT": address.rpartition(":")[2]
            for name, address in at.items()
        }
        self._run(
            "collector",
            (path, f"--config={CONFIG}"),
            f"http://{at['HEALTH']}",
            SPANLEDGER_COLLECTOR_LISTEN="127.0.0.1",
            SPANLEDGER_COLLECTOR_STORAGE=str(self._data / "collector" / "queue"),
            **ports,
        )
        self.urls["Collector"] = f"http://{at['HTTP']} takes OTLP, http://{at['GRPC']} over gRPC"
        targets = {
            "collector:8889": at["METRICS"],
            "collector:8890": at["COUNTED"],
            "collector:8888": at["OWN_METRICS"],
        }
        self._prometheus(targets, alertmanager)
        return {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{at['HTTP']}",
            "OTEL_METRIC_EXPORT_INTERVAL": "5000",  # milliseconds, as often as Prometheus asks
        }

    def _without_collector(self, alertmanager: str) -> dict[str, str]:
        """What the application needs to be asked by Prometheus itself."""
        number = port(9464)
        collector = "collector:8889, collector:8890"
        self._prometheus({collector: f"127.0.0.1:{number}"}, alertmanager)
        return {
            "OTEL_METRICS_EXPORTER": "prometheus",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1",
            "OTEL_EXPORTER_PROMETHEUS_PORT": str(number),
        }

    def _prometheus(self, targets: Mapping[str, str], alertmanager: str) -> None:
        address = f"127.0.0.1:{port(9090)}"
        folder = HERE / "prometheus"
        changes = {
            **targets,
            "alertmanager:9093": alertmanager,
            "localhost:9090": address,
            "rules/": f"{folder / 'rules'}/",
            "_interval: 15s": "_interval: 5s",
        }
        config = self._written(folder / "prometheus.yml", changes)
        if "collector:8888" not in targets:
            job = re.compile(r"  - job_name: collector\n(?:    .*\n)+")
            config.write_text(job.sub("", config.read_text()))
        command = (
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self._data / 'prometheus' / 'data'}",
            f"--web.listen-address={address}",
            "--enable-feature=exemplar-storage",
        )
        self._run("prometheus", command, f"http://{address}/-/ready")
        self.urls["Prometheus"] = f"http://{address}"
        self.urls["  alerts"] = f"http://{address}/alerts"
        self.urls["  spend"] = (
            f"http://{address}/graph?g0.tab=0&g0.range_input=15m&g0.stacked=1&g0.expr="
            "sum%20by(tenant)(increase(spanledger_cost_USD_total%5B5m%5D))"
        )

    def _application(self, ledger: str, environ: Mapping[str, str]) -> None:
        launcher = Path(sys.executable).with_name("opentelemetry-instrument")
        if not launcher.is_file():
            raise StackError(
                f"spanledger is not installed for {sys.executable}: make stack does it"
            )
        directory = self._data / "application"
        journal = f"sqlite:///{directory / 'journal.db'}"
        settings = {
            "OTEL_SERVICE_NAME": "scout",
            "OTEL_LOGS_EXPORTER": "none",
            "SPANLEDGER_CONFIG": str(HERE / "demo" / "spanledger.toml"),
            "SPANLEDGER_JOURNAL": journal,
            "SPANLEDGER_LEDGER": ledger,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **environ,
        }
        command = (str(launcher), sys.executable, str(HERE / "demo" / "load.py"))
        self._run("application", command, None, **settings)
        self.urls["Books"] = f"spanledger report --journal {journal}"

    def _written(self, source: Path, changes: Mapping[str, str]) -> Path:
        """The shipped configuration, with what is different here."""
        text = source.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        path = self._data / source.name
        path.write_text(text)
        return path


def watch(processes: Mapping[str, subprocess.Popen[bytes]], data: Path) -> None:
    """Wait until one of them ends by itself. Raises StackError then."""
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                said = (data / name / "log").read_text(errors="replace")[-2000:]
                raise StackError(f"{name} has ended (exit code {process.returncode}):\n{said}")
        time.sleep(0.5)


def run(data: Path) -> int:
    """Run the stack until Ctrl-C. Returns the exit code."""
    try:
        with ExitStack() as stack:
            parts = Stack(stack, data)
            parts.start()
            for name, url in parts.urls.items():
                print(f"{name:14}{url}")
            print("Alerts are printed below as they reach their receiver. Ctrl-C ends everything.")
            sys.stdout.flush()
            watch(parts.processes, data)
    except KeyboardInterrupt:
        print("\nEverything has ended.")
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the stack as the command line says. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="keep data and logs here; default: until the end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    if arguments.data is not None:
        arguments.data.mkdir(parents=True, exist_ok=True)
        return run(arguments.data.resolve())
    with tempfile.TemporaryDirectory(prefix="spanledger-stack-") as data:
        return run(Path(data))


if __name__ == "__main__":
    sys.exit(main())
