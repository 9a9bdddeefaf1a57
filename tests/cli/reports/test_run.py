"""`spanledger run`: it becomes the application."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from spanledger.cli.run import local_defaults, path_of_this_environment
from spanledger.ledger.journal_schema import APPLICATION_ID

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from spanledger.cli.main import main; sys.exit(main())",
)
APP = """\
import json, os, sys
names = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")
print(json.dumps({
    "argv": sys.argv,
    "pid": os.getpid(),
    "python": sys.executable,
    "exporters": [os.environ.get(name) for name in names],
    "launched": any("auto_instrumentation" in p for p in os.environ["PYTHONPATH"].split(":")),
}))
sys.stdout.flush()
if "wait" in sys.argv:
    sys.stdin.read()
sys.exit(7)
"""


@pytest.fixture
def environ(path):
    """The environment without anything of OpenTelemetry's, and without this environment's PATH."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    # Loading every instrumentor takes seconds and is not looked at here.
    return {**kept, "PATH": "/usr/bin:/bin", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return "app.py"


def run(environ, *arguments):
    return subprocess.run(
        [*COMMAND, "run", *arguments], env=environ, capture_output=True, text=True, check=False
    )


def test_a_python_file_runs_with_this_python_and_its_exit_code_is_the_commands(environ, app, path):
    done = run(environ, app, "--traces", "--", "-x")
    said = json.loads(done.stdout)
    assert done.returncode == 7
    assert said["argv"] == ["app.py", "--traces", "--", "-x"]
    assert said["python"] == sys.executable
    assert said["launched"]
    assert said["exporters"] == ["none"] * 3
    announced = [line for line in done.stderr.splitlines() if line.startswith("spanledger: ")]
    assert announced == [f"spanledger: paid calls are booked in {path}; see: spanledger report"]


def test_python_is_the_one_of_this_environment(environ, app):
    said = json.loads(run(environ, "--", "python", app, "--help").stdout)
    assert os.path.realpath(said["python"]) == os.path.realpath(sys.executable)
    assert said["argv"] == ["app.py", "--help"]


def test_signals_reach_the_application_since_the_process_is_the_same(environ, app):
    with subprocess.Popen(
        [*COMMAND, "run", app, "wait"],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == -signal.SIGTERM


def test_a_wrong_configuration_is_said_and_nothing_started(environ, app, tmp_path):
    (tmp_path / "spanledger.toml").write_text("[prices]\nrefesh = true\n")
    done = run(environ, app)
    assert (done.returncode, done.stdout) == (2, "")
    assert "spanledger.toml: prices.refesh" in done.stderr
    assert 'Did you mean "refresh"?' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "name what to start"),
        (("--",), 2, "name what to start"),
        (("no-such-program", "x"), 127, "no-such-program: command not found"),
        (("none.py",), 127, "none.py: command not found"),
    ],
)
def test_what_cannot_be_started_is_said(environ, arguments, code, words):
    done = run(environ, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    ("journal", "words"),
    [("memory://", "in memory, until the application ends"), ("x.db", "sqlite:///")],
)
def test_the_journal_is_announced_or_refused(environ, app, journal, words):
    assert words in run({**environ, "SPANLEDGER_JOURNAL": journal}, app).stderr


def test_a_journal_that_will_not_be_used_is_not_announced(environ, app, path):
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("CREATE TABLE charges (seq)")
        newer.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        newer.execute("PRAGMA user_version = 99")
    done = run(environ, app)
    assert done.returncode == 7
    first, second = (line for line in done.stderr.splitlines() if line.startswith("spanledger: "))
    assert first == "spanledger: paid calls are booked in memory, until the application ends"
    assert "charges are kept in memory only" in second
    assert "format 99" in second


def test_a_default_place_that_cannot_be_written_is_not_announced(environ, app, tmp_path):
    (tmp_path / "file").touch()
    del environ["SPANLEDGER_JOURNAL"]
    done = run({**environ, "XDG_STATE_HOME": str(tmp_path / "file")}, app)
    assert done.returncode == 7
    assert "booked in memory" in done.stderr
    assert "see: spanledger report" not in done.stderr


def test_a_damaged_journal_is_put_aside_and_the_new_one_announced(environ, app, path):
    path.write_bytes(b"garbage" * 500)
    done = run(environ, app)
    assert done.returncode == 7
    assert f"booked in {path}; see" in done.stderr
    assert done.stderr.count("was set aside") == 1


def test_a_file_for_the_ledger_that_cannot_be_opened_is_refused(environ, app, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "spanledger.toml").write_text(f'ledger = "sqlite:///{tmp_path}/file/ledger.db"\n')
    done = run(environ, app)
    assert (done.returncode, done.stdout) == (2, "")
    assert "spanledger.toml: ledger: the ledger " in done.stderr


def test_that_it_is_switched_off_is_announced(environ, app):
    done = run({**environ, "SPANLEDGER_DISABLED": "true"}, app)
    assert "switched off by SPANLEDGER_DISABLED" in done.stderr
    assert done.returncode == 7


NONE = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, NONE),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, {}),
        ({"OTEL_CONFIG_FILE": "otel.yaml"}, {}),
        (
            {"OTEL_TRACES_EXPORTER": "console"},
            {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
        ),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"},
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"},
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_LOGS_EXPORTER": ""}, NONE),
    ],
)
def test_only_what_nobody_configured_is_switched_off(given, expected):
    assert local_defaults(given) == expected


def test_the_environments_programs_come_first_once():
    first = path_of_this_environment("/usr/bin")
    assert first in ("/usr/bin", f"{sys.prefix}/bin:/usr/bin")
    assert path_of_this_environment(first) == first
