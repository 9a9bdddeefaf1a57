"""`spanledger export`: the rows, by these names."""

import csv
import io
import json
import os
import subprocess
import sys
from decimal import Decimal

import pytest

from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.ledger.entry import Entry

NAMES = [
    "timestamp",
    "service",
    "tenant_id",
    "user_id",
    "feature",
    "provider",
    "operation",
    "model_requested",
    "model",
    "outcome",
    "error_type",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "credits",
    "cost_usd",
    "cost_status",
    "cost_source",
    "price_version",
    "saved_usd",
    "latency_ms",
    "time_to_first_chunk_ms",
    "trace_id",
    "span_id",
    "charge_id",
    "use_id",
    "unpriced_reason",
    "saved_credits",
    "budget_tier",
    "job_key",
    "units",
    "attributes",
]
FULL = Entry(
    PaidCall(
        "anthropic",
        "chat",
        "asked",
        Attribution("acme, inc.", "ü", 'say "hi"', "use", {"plan": "pro"}),
        1_785_576_600_123_456_789,
    ),
    Usage(
        {
            "input_tokens": 100,
            "output_tokens": 20,
            "cache_read_tokens": 30,
            "cache_write_tokens": 40,
            "output_reasoning_tokens": 5,
            "web_searches": 2,
            "audio_seconds": Decimal("1.25"),
        },
        Decimal("0.50"),
        model="served",
    ),
    Ending("error", 1.5, 0.125, "APITimeoutError", 0xABC, 0xDEF, 10_000_000, Decimal("3.5")),
    Charge("c" * 32, 12_345_678_901, None, "partial", "price_list", "list 1", "why", "critical"),
    "job",
)
JSON = {
    "timestamp": "2026-08-01T09:30:00.123456Z",
    "service": "shop",
    "tenant_id": "acme, inc.",
    "user_id": "ü",
    "feature": 'say "hi"',
    "provider": "anthropic",
    "operation": "chat",
    "model_requested": "asked",
    "model": "served",
    "outcome": "error",
    "error_type": "APITimeoutError",
    "input_tokens": 100,
    "output_tokens": 20,
    "cache_read_tokens": 30,
    "cache_write_tokens": 40,
    "reasoning_tokens": 5,
    "credits": "0.5",
    "cost_usd": "12.345678901",
    "cost_status": "partial",
    "cost_source": "price_list",
    "price_version": "list 1",
    "saved_usd": "0.01",
    "latency_ms": 1500.0,
    "time_to_first_chunk_ms": 125.0,
    "trace_id": "00000000000000000000000000000abc",
    "span_id": "0000000000000def",
    "charge_id": "c" * 32,
    "use_id": "use",
    "unpriced_reason": "why",
    "saved_credits": "3.5",
    "budget_tier": "critical",
    "job_key": "job",
    "units": {"web_searches": 2, "audio_seconds": "1.25"},
    "attributes": {"plan": "pro"},
}
ALL = ("--since", "all")


def test_json_lines_have_these_names_and_values(spanledger, books, entry):
    books([FULL, entry(nano_usd=None, tenant=None, started="2026-08-02T00:00:00+00:00")])
    code, out, errors = spanledger("export", *ALL)
    assert (code, errors) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert first == JSON
    assert list(first) == list(second) == NAMES
    assert (second["cost_usd"], second["tenant_id"], second["trace_id"]) == (None, None, None)
    assert (second["credits"], second["units"], second["saved_usd"]) == (None, {}, "0")


def test_csv_has_the_same(spanledger, books, entry):
    books([FULL, entry(nano_usd=None, started="2026-08-02T00:00:00+00:00")])
    code, out, _ = spanledger("export", "--format", "csv", *ALL)
    assert code == 0
    first, second = csv.DictReader(io.StringIO(out))
    assert list(first) == NAMES
    for name, value in JSON.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        assert first[name] == text
    assert (second["cost_usd"], second["units"]) == ("", "")


def test_an_export_of_nothing_is_a_head_line_or_nothing(spanledger, books):
    books([])
    assert spanledger("export", *ALL) == (0, "", "")
    assert spanledger("export", "--format", "csv", *ALL) == (0, ",".join(NAMES) + "\n", "")


def test_the_period_bounds_the_rows(spanledger, august):
    _, out, _ = spanledger("export", "--since", "2026-08-03", "--until", "2026-08-03")
    assert {line[:27] for line in out.splitlines()} == {'{"timestamp": "2026-08-03T1'}


@pytest.mark.parametrize("command", [("export", *ALL), ("report", "--json", *ALL)])
def test_a_reader_that_has_seen_enough_is_no_error(august, path, command):
    code = "import sys; from spanledger.cli.main import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
