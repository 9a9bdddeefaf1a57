"""`spanledger doctor`: plain words, and an exit code."""

import os
import socket
import subprocess
import sys

import pytest

from spanledger.cli.doctor_network import Endpoint, endpoint_of, otlp_endpoints, redis_endpoint


@pytest.fixture(autouse=True)
def _no_exporters(monkeypatch):
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def doctor(spanledger):
    """Its lines by their first word, and the exit code."""

    def run():
        code, out, errors = spanledger("doctor")
        assert errors == ""
        return code, out

    return run


def line(out, words):
    (found,) = [text for text in out.splitlines() if words in text]
    return found


def test_what_is_in_place_is_ticked(doctor, august):
    code, out = doctor()
    assert line(out, "configuration:").startswith("✓")
    assert line(out, "writable; 287 paid calls, the last on 2026-08-28 12:00").startswith("✓")
    for sdk in ("openai 3.", "anthropic 2.", "scavio 0.28"):
        assert line(out, sdk).startswith("✓")
    assert line(out, "prices: genai-prices").startswith("✓")
    assert line(out, "is not believed").startswith("✓")
    assert line(out, "launcher:")
    assert code == ("✗" in out)
    assert line(out, "To mend" if code else "All is in place.")


def test_a_journal_that_is_not_there_yet_can_be_made(doctor, path):
    _, out = doctor()
    assert line(out, "it will be made").startswith("✓")
    assert not path.exists()


def test_a_place_for_the_journal_that_cannot_be_written_is_crossed(doctor, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPANLEDGER_JOURNAL", f"sqlite:///{tmp_path}/file/journal.db")
    code, out = doctor()
    assert line(out, "cannot be made").startswith("✗")
    assert code == 1


def test_a_damaged_journal_is_crossed_and_left_alone(doctor, path):
    path.write_bytes(b"garbage" * 500)
    code, out = doctor()
    assert line(out, ".recover").startswith("✗")
    assert code == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_wrong_configuration_is_all_that_is_said(doctor, path, tmp_path):
    (tmp_path / "spanledger.toml").write_text('[[budgets]]\nscope = "tenant"\n')
    code, out = doctor()
    assert code == 1
    assert out.startswith("✗ configuration: ")
    assert "budgets[0]" in out
    assert "journal" not in out


def test_sdks_that_are_switched_off_or_not_supported_are_crossed(
    doctor, path, tmp_path, monkeypatch
):
    old = tmp_path / "site" / "openai-0.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: openai\nVersion: 0.1\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "requests, spanledger_scavio")
    code, out = doctor()
    assert line(out, "openai 0.1: its calls are NOT metered").startswith("✗")
    assert line(out, "spanledger_scavio: switched off").startswith("✗")
    assert line(out, "anthropic").startswith("✓")
    assert code == 1


def test_what_is_switched_off_is_crossed(doctor, path, monkeypatch):
    monkeypatch.setenv("SPANLEDGER_DISABLED", "1")
    code, out = doctor()
    assert line(out, "SPANLEDGER_DISABLED").startswith("✗")
    assert code == 1


def test_baggage_that_is_believed_is_said(doctor, path, monkeypatch):
    monkeypatch.setenv("SPANLEDGER_TRUST_INCOMING", "always")
    _, out = doctor()
    assert "your gateway must set it" in line(out, "is believed")


def test_the_exporter_is_asked_whether_it_answers(doctor, path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://u:secret@127.0.0.1:{port}/v1")
        _, out = doctor()
    assert line(out, f"OTLP at 127.0.0.1:{port} answers").startswith("✓")
    assert "secret" not in out
    code, out = doctor()
    assert line(out, "does not answer").startswith("✗")
    assert code == 1


def test_without_an_exporter_it_says_what_the_launcher_would_do(doctor, path):
    _, out = doctor()
    assert line(out, "exporter: none is configured").startswith("·")
    assert "localhost:4317" in out


def test_where_budgets_are_held_is_said(doctor, path, tmp_path, monkeypatch):
    assert "no budgets are configured" in line(doctor()[1], "ledger:")
    (tmp_path / "spanledger.toml").write_text('[[budgets]]\nscope = "global"\nmonthly_usd = 5\n')
    (tmp_path / "file").touch()
    default, named = f"sqlite:///{path.with_name('ledger.db')}", "sqlite:////named/ledger.db"
    for journal, ledger, held in (
        (f"sqlite:///{path}", "", default),
        (f"sqlite:///{path}", named, named),
        (f"sqlite:///{path}", "unix://u:secret@/r.sock", "Redis, over a Unix socket"),
        (f"sqlite:///{path}", "memory://", "memory, in each process by itself"),
        ("memory://", "", "memory, in each process by itself"),
        (f"sqlite:///{tmp_path}/file/journal.db", "", "memory, in each process by itself"),
    ):
        monkeypatch.setenv("SPANLEDGER_JOURNAL", journal)
        monkeypatch.setenv("SPANLEDGER_LEDGER", ledger)
        assert f"1 budget, held in {held}" in line(doctor()[1], "ledger:")


def test_the_ledger_in_redis_is_asked_whether_it_answers(doctor, path, tmp_path, monkeypatch):
    (tmp_path / "spanledger.toml").write_text('[[budgets]]\nscope = "global"\nmonthly_usd = 5\n')
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("SPANLEDGER_LEDGER", f"redis://:secret@127.0.0.1:{port}/0")
        _, out = doctor()
    assert line(out, f"held in Redis at 127.0.0.1:{port} answers").startswith("✓")
    assert "secret" not in out


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, [Endpoint("localhost", 4317)]),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            [Endpoint("localhost", 4318)],
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c"}, [Endpoint("c", 443)]),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "https://c",
                "OTEL_TRACES_EXPORTER": "console",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            },
            [],
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://d:2",
                "OTEL_LOGS_EXPORTER": "none",
            },
            [Endpoint("d", 2), Endpoint("c", 1)],
        ),
    ],
)
def test_where_otlp_goes(environ, expected):
    assert otlp_endpoints(environ) == expected


def test_urls_name_hosts_and_ports():
    assert endpoint_of("collector:4317") == Endpoint("collector", 4317)
    assert endpoint_of("collector") == Endpoint("collector", 4317)
    assert str(endpoint_of("http://[::1]:99/x")) == "[::1]:99"
    assert redis_endpoint("rediss+cluster://u:p@r:7000/0") == Endpoint("r", 7000)
    assert redis_endpoint("redis://") == Endpoint("localhost", 6379)
    assert redis_endpoint("sqlite:///x") is None


def test_a_journal_that_is_not_kept_is_said(doctor, path, tmp_path, monkeypatch):
    monkeypatch.setenv("SPANLEDGER_JOURNAL", "memory://")
    assert "no report can be made" in line(doctor()[1], "journal:")
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:21 / / rw - overlay overlay rw\n")
    monkeypatch.setattr("spanledger.ledger.journal_place.passing.__defaults__", (mounts,))
    monkeypatch.setenv("SPANLEDGER_JOURNAL", f"sqlite:///{path}")
    assert line(doctor()[1], "container's own disk").startswith("·")


def test_prices_of_ones_own_are_counted_and_old_lists_named(doctor, path, tmp_path, monkeypatch):
    (tmp_path / "spanledger.toml").write_text(
        '[prices.usd_per_credit]\nscavio = 0.005\n[[prices.multiplier]]\nprovider = "openai"\nfactor = 2\n'
    )
    monkeypatch.setattr("spanledger.cli.doctor._OLD_DAYS", -1)
    _, out = doctor()
    assert "0 overrides, 1 multipliers of yours" in out
    assert "newer models may be missing" in line(out, "refresh = true")
    assert line(out, "a credit has a price for scavio")


def test_an_installation_that_the_launcher_does_not_find_is_crossed(doctor, path, monkeypatch):
    monkeypatch.setattr("spanledger.cli.doctor.entry_points", lambda **_: [])
    code, out = doctor()
    assert line(out, "does not find spanledger").startswith("✗")
    assert code == 1


def test_what_cannot_be_loaded_is_crossed_with_the_reason(doctor, path, monkeypatch):
    class Broken:
        name = "spanledger_openai"
        dist = type("Distribution", (), {"name": "spanledger"})

        def load(self):
            raise ImportError("no such module")

    monkeypatch.setattr("spanledger.cli.doctor.entry_points", lambda **_: [Broken()])
    code, out = doctor()
    assert line(out, "launcher: its hook cannot be loaded: ImportError('no such module')")
    assert line(out, "spanledger_openai: cannot be loaded: ImportError('no such module')")
    assert code == 1


def test_a_terminal_without_ticks_gets_words(path):
    code = "import sys; from spanledger.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert "ok  configuration" in done.stdout
