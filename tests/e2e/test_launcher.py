"""The launcher, as a user starts it: whatever the tracing is, the books are the same."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from anthropic_endpoint import NANO_USD as MESSAGE_NANO_USD
from openai_endpoint import CHAT_NANO_USD

from spanledger.api.values import NANO

HERE = Path(__file__).parent
# Four chats, two messages and a geocoding for each of two tenants.
TENANT_NANO_USD = 4 * CHAT_NANO_USD + 2 * MESSAGE_NANO_USD + 5_000_000
CALLS = 7
QUIET = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}


def launch(
    directory: Path,
    *arguments: str,
    launcher: tuple[str, ...] = (),
    disable: str = "openai,anthropic",
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Run the application. Other instrumentations are disabled unless a test wants them."""
    known = {
        k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SPANLEDGER_", "COV_"))
    }
    return subprocess.run(
        [
            *(launcher or (str(Path(sys.executable).with_name("opentelemetry-instrument")),)),
            sys.executable,
            str(HERE / "application.py"),
            *arguments,
        ],
        env={
            **known,
            **QUIET,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disable,
            "SPANLEDGER_JOURNAL": f"sqlite:///{directory / 'journal.db'}",
            "PYTHONPATH": str(HERE.parent / "support"),
            "PYTHONWARNINGS": "error::RuntimeWarning",
            **env,
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def report(directory: Path, *arguments: str, journal: str = "journal.db") -> dict[str, Any]:
    """`spanledger report --json`."""
    command = [str(Path(sys.executable).with_name("spanledger")), "report", "--json", "--journal"]
    done = subprocess.run(
        [*command, f"sqlite:///{directory / journal}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def exact(nano_usd: int) -> str:
    return f"{nano_usd // NANO}.{nano_usd % NANO:09d}".rstrip("0")


def same(one: str, other: str) -> bool:
    return one.rstrip("0") == other


WAYS: dict[str, dict[str, str]] = {
    "everything sampled": {},
    "a tenth sampled": {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
    "nothing sampled": {"OTEL_TRACES_SAMPLER": "always_off"},
    "SDK disabled": {"OTEL_SDK_DISABLED": "true"},
    "exporter down": {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    },
    "the official instrumentations beside ours": {"disable": ""},
    "the official ones, nothing sampled": {"disable": "", "OTEL_TRACES_SAMPLER": "always_off"},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_books_are_the_same(tmp_path: Path, way: str) -> None:
    done = launch(tmp_path, **WAYS[way])
    assert done.returncode == 0, done.stderr
    found = report(tmp_path, "--by", "tenant")
    assert {row["tenant"]: row["calls"] for row in found["rows"]} == {
        "acme": CALLS,
        "globex": CALLS,
    }
    for row in found["rows"]:
        assert same(row["cost_usd"], exact(TENANT_NANO_USD)), way
    assert found["total"]["unpriced_calls"] == found["total"]["estimated_calls"] == 0


def test_spanledger_run_is_quiet_and_says_where_the_books_are(tmp_path: Path) -> None:
    spanledger = str(Path(sys.executable).with_name("spanledger"))
    done = launch(tmp_path, launcher=(spanledger, "run", "--"))
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / "journal.db") in line
    assert report(tmp_path)["total"]["calls"] == 2 * CALLS


def test_exit_codes_and_an_open_stream_at_exit(tmp_path: Path) -> None:
    assert launch(tmp_path, "open", "die").returncode == 3
    total = report(tmp_path)["total"]
    assert (total["calls"], total["estimated_calls"]) == (2 * CALLS + 1, 1)


def test_forked_workers_are_booked_once_each(tmp_path: Path) -> None:
    done = launch(tmp_path, "fork")
    assert done.returncode == 0, done.stderr
    total = report(tmp_path)["total"]
    assert total["calls"] == 3 * 2 * CALLS
    assert same(total["cost_usd"], exact(3 * 2 * TENANT_NANO_USD))


def test_a_bad_configuration_is_said_at_start_and_the_application_runs(tmp_path: Path) -> None:
    (tmp_path / "spanledger.toml").write_text('[attribution]\ntrust_incomming = "always"\n')
    done = launch(tmp_path)
    assert done.returncode == 0
    assert "attribution.trust_incomming" in done.stderr
    assert 'Did you mean "trust_incoming"?' in done.stderr
    assert done.stderr.count("trust_incomming") == 1
    assert report(tmp_path)["total"]["calls"] == 2 * CALLS
    spanledger = str(Path(sys.executable).with_name("spanledger"))
    assert launch(tmp_path, launcher=(spanledger, "run", "--")).returncode == 2


def test_a_bad_variable_is_said_at_start_and_the_application_is_booked(tmp_path: Path) -> None:
    done = launch(tmp_path, SPANLEDGER_USD_PER_CREDIT="scavio=cheap")
    assert done.returncode == 0
    assert "SPANLEDGER_USD_PER_CREDIT" in done.stderr
    assert report(tmp_path)["total"]["calls"] == 2 * CALLS


def test_mistakes_are_said_one_by_one_and_only_they_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "spanledger.toml").write_text(f'journal = "sqlite:///{tmp_path}/other.db"\n')
    wrong = {
        "SPANLEDGER_USD_PER_CREDIT": "scavio=cheap",
        "SPANLEDGER_TRUST_INCOMING": "sometimes",
        "SPANLEDGER_CACHE": "foo://",
        "SPANLEDGER_JOURNAL": "",
    }
    done = launch(tmp_path, **wrong)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 3
    for name in ("USD_PER_CREDIT.scavio", "TRUST_INCOMING", "CACHE"):
        assert f"environment: SPANLEDGER_{name}: " in done.stderr
    assert report(tmp_path, journal="other.db")["total"]["calls"] == 2 * CALLS  # the file's


def test_a_file_that_is_not_there_is_not_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / "spanledger.toml").write_text('[attribution]\ntrust_incomming = "always"\n')
    done = launch(tmp_path, SPANLEDGER_CONFIG="/none.toml", SPANLEDGER_USD_PER_CREDIT="scavio=x")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert "environment: SPANLEDGER_CONFIG: names /none.toml" in done.stderr
    assert report(tmp_path)["total"]["calls"] == 2 * CALLS


def test_an_sdk_of_another_release_is_said_once_and_its_calls_go_through(tmp_path: Path) -> None:
    wrong = {"openai": "4.0.0", "anthropic": "0.34.2"}
    for name, version in wrong.items():
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    done = launch(
        tmp_path, PYTHONPATH=os.pathsep.join((str(tmp_path), str(HERE.parent / "support")))
    )
    assert done.returncode == 0, done.stderr
    for name, version in wrong.items():
        assert done.stderr.count(f"spanledger does not meter {name} {version}") == 1
    assert "Traceback" not in done.stderr
    # Anthropic's own spans are there and are booked as anybody's; openai makes none.
    rows = report(tmp_path, "--by", "provider")["rows"]
    assert {row["provider"]: row["calls"] for row in rows} == {"anthropic": 4, "geocoder": 2}


def test_an_unusable_journal_is_said_once_and_the_application_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = launch(tmp_path, SPANLEDGER_JOURNAL=f"sqlite:///{tmp_path / 'file' / 'journal.db'}")
    assert done.returncode == 0
    assert "memory" in done.stderr


def test_switched_off(tmp_path: Path) -> None:
    assert launch(tmp_path, SPANLEDGER_DISABLED="true").returncode == 0
    assert not (tmp_path / "journal.db").exists()


def test_exactly_one_genai_span_a_call(tmp_path: Path) -> None:
    """With the official instrumentations of the same SDKs switched on beside ours."""
    done = launch(tmp_path, disable="", OTEL_TRACES_EXPORTER="console")
    assert done.returncode == 0, done.stderr
    decoder, text, spans = json.JSONDecoder(), done.stdout.strip(), []
    while text:
        span, end = decoder.raw_decode(text)
        spans.append(span)
        text = text[end:].lstrip()
    genai = Counter(
        s["attributes"].get("gen_ai.operation.name")
        for s in spans
        if "gen_ai.operation.name" in s["attributes"]
    )
    assert genai == {"chat": 12, "geocode": 2}
    for span in spans:
        assert "spanledger.cost.usd" in span["attributes"], span
        assert span["attributes"]["tenant.id"] in ("acme", "globex")
