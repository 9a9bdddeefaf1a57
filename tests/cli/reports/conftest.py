"""A journal with known rows, read in UTC, and the command line on it."""

import itertools
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal import open_journal

_numbers = itertools.count()


def make_entry(**given: Any) -> Entry:
    """An entry of the books; what is not given is that of a small chat call on 1 August 2026, 09:30 UTC."""
    started = given.get("started", "2026-08-01T09:30:00.123456+00:00")
    nanoseconds = round(datetime.fromisoformat(started).timestamp() * 1_000_000) * 1_000
    nano_usd = given.get("nano_usd", 1_500)
    return Entry(
        PaidCall(
            given.get("provider", "openai"),
            given.get("operation", "chat"),
            given.get("asked", "gpt-4o"),
            Attribution(
                given.get("tenant", "acme"),
                given.get("user"),
                given.get("feature", "search"),
                given.get("use_id"),
                given.get("extra", {}),
            ),
            nanoseconds,
        ),
        Usage(
            given.get("units", {"input_tokens": 10}), given.get("credits"), model=given.get("model")
        ),
        Ending(
            given.get("outcome", "ok"),
            0.25,
            given.get("first_chunk_s"),
            saved_nano_usd=given.get("saved_nano_usd", 0),
        ),
        Charge(
            given.get("charge_id", f"{next(_numbers):032x}"),
            nano_usd,
            None,
            given.get("status", "unknown" if nano_usd is None else "exact"),
            given.get("source"),
            reason=given.get("reason"),
        ),
    )


def sample() -> list[Entry]:
    """A month of three tenants, with everything that a report has to say something about."""
    entries = [
        make_entry(
            tenant=tenant,
            feature=feature,
            use_id=f"{tenant}-{day}-{number // 2}",
            nano_usd=nano_usd * day,
            started=f"2026-08-{day:02}T12:00:00+00:00",
            units={"input_tokens": 1_000, "output_tokens": 100, "cache_read_tokens": 10},
        )
        for tenant, feature, nano_usd, calls in (
            ("acme", "competitive-analysis", 123_456_789, 3),
            ("acme", "search", 20_000_001, 2),
            ("globex", "search", 45_000_000, 4),
            ("initech", "a-feature-whose-name-does-not-fit-into-its-column", 900_000, 1),
        )
        for day in range(1, 29)
        for number in range(calls)
    ]
    entries += [
        make_entry(
            provider="scavio",
            operation="google.search",
            asked=None,
            units={},
            credits=Decimal("2.5"),
            nano_usd=None,
            reason="usd_per_credit",
        )
        for _ in range(2)
    ]
    entries += [
        make_entry(asked="gpt-99", nano_usd=None, reason="unknown_model"),
        make_entry(status="partial", reason="unpriced:web_searches"),
        make_entry(status="estimated"),
        make_entry(outcome="cached", nano_usd=0, saved_nano_usd=98_765_432),
        make_entry(tenant=None, feature=None, nano_usd=250_000_000),
    ]
    return entries


@pytest.fixture
def entry() -> Callable[..., Entry]:
    return make_entry


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, utc: None) -> Path:
    """Where the journal is that the environment names."""
    for name in ("SPANLEDGER_CONFIG", "SPANLEDGER_USD_PER_CREDIT", "SPANLEDGER_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPANLEDGER_JOURNAL", f"sqlite:///{tmp_path}/journal.db")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "journal.db"


@pytest.fixture
def books(path: Path) -> Callable[[list[Entry]], None]:
    """Put entries into the journal."""

    def write(entries: list[Entry]) -> None:
        journal = open_journal(f"sqlite:///{path}", service="shop")
        journal.append(entries)
        journal.close()

    return write


@pytest.fixture
def august(books: Callable[[list[Entry]], None]) -> None:
    books(sample())


@pytest.fixture
def spanledger(
    path: Path, spanledger: Callable[..., tuple[int, str, str]]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command on the journal at `path`."""
    return spanledger
