"""Entries to put into journals, and processes that write one."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal import Journal, open_journal

_numbers = itertools.count()
START_NS = 1_785_542_400_000_000_000  # 2026-08-01T00:00:00Z


def make_entry(**given: Any) -> Entry:
    """An entry of the books; what is not given is that of a small chat call."""
    number = next(_numbers)
    return Entry(
        PaidCall(
            given.get("provider", "openai"),
            given.get("operation", "chat"),
            given.get("asked", "gpt-4o"),
            Attribution(
                given.get("tenant", "acme"),
                given.get("user"),
                given.get("feature"),
                given.get("use_id"),
                given.get("extra", {}),
            ),
            given.get("started_ns", START_NS + number),
        ),
        Usage(
            given.get("units", {"input_tokens": 10}), given.get("credits"), model=given.get("model")
        ),
        Ending(given.get("outcome", "ok"), 0.25, saved_nano_usd=given.get("saved_nano_usd", 0)),
        Charge(
            given.get("charge_id", f"{number:032x}"),
            given.get("nano_usd", 1_500),
            None,
            given.get("status", "exact"),
            reason=given.get("reason"),
        ),
        given.get("key"),
    )


FULL = Entry(
    PaidCall(
        "anthropic",
        "chat",
        "claude-asked",
        Attribution("acme", "ü-17", "search", "ab" * 16, {"plan": "pro"}),
        START_NS + 123_456_789,
    ),
    Usage(
        {
            "input_tokens": 100,
            "output_tokens": 20,
            "cache_read_tokens": 30,
            "cache_write_tokens": 40,
            "output_reasoning_tokens": 5,
            "web_searches": 2,
            "audio_seconds": Decimal("1.250"),
        },
        Decimal("0.10"),
        model="claude-served",
    ),
    Ending("degraded", 1.5, 0.125, "RateLimitError", 0xABC, 0xDEF, 77, Decimal("3.5")),
    Charge(
        "c" * 32,
        123_456_789_012,
        Decimal("0.10"),
        "partial",
        "price_list",
        "genai-prices 0",
        "unpriced:fetches",
        "warning",
    ),
    "job-1",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def journal(url: str) -> Iterator[Journal]:
    opened = open_journal(url, service="shop")
    yield opened
    opened.close()


@pytest.fixture
def entry() -> Callable[..., Entry]:
    return make_entry


@pytest.fixture
def full_entry() -> Entry:
    return FULL


@pytest.fixture
def start_writer(url: str) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `writer_process.py` on the journal at `url`; what is still running at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore::DeprecationWarning",  # Python's own, about forking with threads
                str(Path(__file__).with_name("writer_process.py")),
                url,
                *map(str, arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
