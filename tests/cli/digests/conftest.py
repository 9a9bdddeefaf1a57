"""A journal and a real Prometheus with known days, read in UTC, and the command line on them."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal import open_journal

TESTS = Path(__file__).parents[2]


def _of_dashboards(name: str) -> ModuleType:
    """What the tests of `dashboards/` share, which starts programs and knows nine days of metrics."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / "dashboards" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


stack = _of_dashboards("stack_programs")
synthetic = _of_dashboards("synthetic_days")


@pytest.fixture(autouse=True)
def _somewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """In UTC, in a directory and with a home of its own, 80 columns wide."""
    for name in ("SPANLEDGER_CONFIG", "SPANLEDGER_USD_PER_CREDIT", "SPANLEDGER_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPANLEDGER_JOURNAL", f"sqlite:///{tmp_path}/journal.db")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def make_entry(day: str, nano_usd: int | None, **given: Any) -> Entry:
    """A call at noon (UTC) of a day; what is not given is that of a small chat call."""
    started = round(datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp()) * 10**9
    return Entry(
        PaidCall(
            given.get("provider", "openai"),
            "chat",
            given.get("model", "gpt-4o"),
            Attribution(given.get("tenant", "acme"), "u-1", given.get("feature", "search")),
            started,
        ),
        Usage({"input_tokens": 10}),
        Ending("ok", 0.25, saved_nano_usd=given.get("saved", 0)),
        Charge(
            "",
            nano_usd,
            None,
            "unknown" if nano_usd is None else "exact",
            reason=given.get("reason"),
        ),
    )


def friday() -> list[Entry]:
    """28 August 2026 and the same day of the week before, with everything that there is to say."""
    now, before = "2026-08-28", "2026-08-21"
    return [
        *(make_entry(now, 1_000_000_000) for _ in range(6)),
        make_entry(now, 3_000_000_000, tenant="newcomer", provider="anthropic", model="claude"),
        make_entry(now, 500_000_000, tenant="globex", feature="summarise"),
        make_entry(now, 250_000_000, tenant=None, feature=None),
        make_entry(now, 0, saved=400_000_000),
        make_entry(now, None, model="gpt-99", reason="unknown_model"),
        make_entry(
            now, None, tenant="initech", provider="scavio", model=None, reason="usd_per_credit"
        ),
        *(make_entry(before, 1_000_000_000) for _ in range(4)),
        make_entry(before, 500_000_000, tenant="globex", feature="summarise"),
        make_entry(before, 2_000_000_000, tenant="leaver", provider="anthropic", feature="search"),
        make_entry("2026-08-27", 77_000_000_000),
        make_entry("2026-08-29", 88_000_000_000),
    ]


@pytest.fixture
def entry() -> Callable[..., Entry]:
    return make_entry


@pytest.fixture
def week(books: Callable[..., None]) -> None:
    """The journal holds what `friday` says."""
    books(*friday())


@pytest.fixture
def books(tmp_path: Path) -> Callable[..., None]:
    """Put entries into the journal."""

    def write(*entries: Entry) -> None:
        journal = open_journal(f"sqlite:///{tmp_path}/journal.db", service="shop")
        journal.append(entries)
        journal.close()

    return write


@pytest.fixture(scope="session")
def days() -> Any:
    """Nine days of metrics, known to the cent: a restart and a new tenant in them."""
    return synthetic.Days()


@pytest.fixture(scope="session")
def prometheus(days: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that holds the nine days."""
    folder = tmp_path_factory.mktemp("prometheus")
    with stack.prometheus_with(days.openmetrics(), folder) as address:
        yield address
