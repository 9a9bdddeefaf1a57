"""What killed processes spent comes from their journal into the ledger."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from spanledger.api.settings import load_settings
from spanledger.budget import replay
from spanledger.ledger import journal_producers
from spanledger.ledger.journal import open_journal
from spanledger.processor.startup import Engine

HERE = Path(__file__).parent
BUDGETS = """
[[budgets]]
scope = "tenant:*"
monthly_usd = 1e6
on_outage = "open"
[[budgets]]
scope = "global"
daily_usd = 1e6
on_outage = "open"
"""


class Application:
    """A directory with a configuration and a journal, and the processes that ran there."""

    def __init__(self, directory: Path, ledger: str, server: Any = None) -> None:
        self.server = server
        self.path = directory / "journal.db"
        config = directory / "spanledger.toml"
        config.write_text(BUDGETS)
        self.environ = {
            "SPANLEDGER_CONFIG": str(config),
            "SPANLEDGER_JOURNAL": f"sqlite:///{self.path}",
            "SPANLEDGER_LEDGER": ledger,
        }

    @contextmanager
    def process(self, *words: str, code: int = 0) -> "Iterator[subprocess.Popen[str]]":
        """The application; it must end as its words say."""
        with subprocess.Popen(
            [sys.executable, str(HERE / "replay_app.py"), *words],
            env={**os.environ, **self.environ},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            try:
                yield process
            finally:
                process.communicate(timeout=60)
        assert process.returncode == code

    def run(self, *words: str) -> None:
        with self.process(*words, code=-9 if words[0] == "killed" else 0):
            pass

    def engine(self) -> Engine:
        return Engine(load_settings(self.environ), service="shop")

    def booked(self, tenant: str | None = None) -> int:
        """Nano-USD in the journal."""
        rows = open_journal(self.environ["SPANLEDGER_JOURNAL"], service="", create=False).rows()
        return sum(row.nano_usd or 0 for row in rows if tenant in (None, row.tenant_id))

    def producers(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as journal:
            return [name for (name,) in journal.execute("SELECT name FROM producers")]


def said(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def spent(engine: Engine) -> tuple[int, int]:
    """Nano-USD by the ledger: of tenant acme, of all."""
    tenant, everybody = engine.budgets.status(tenant="acme"), engine.budgets.status()
    assert tenant.spent is not None
    assert everybody.spent is not None
    return round(tenant.spent * 10**9), round(everybody.spent * 10**9)


@pytest.fixture(params=["sqlite", "redis"])
def application(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Application:
    """Whoever is silent for a second is taken for dead, and asked for each half second."""
    monkeypatch.setattr(journal_producers, "SILENT_S", 1.0)
    monkeypatch.setattr(journal_producers, "_BETWEEN_TRIES_S", 0.5)
    monkeypatch.setattr(journal_producers, "_MOST_TRIES", 60)
    monkeypatch.setattr(replay, "_INTERVAL_S", 0.2)
    if request.param == "sqlite":
        return Application(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}")
    server = request.getfixturevalue("new_redis")()
    return Application(tmp_path, server.url, server)


@pytest.fixture
def engines(application: Application) -> Iterator[Callable[[], Engine]]:
    opened: list[Engine] = []

    def make() -> Engine:
        opened.append(application.engine())
        opened[-1].watcher.start()
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def test_what_killed_processes_spent_is_replayed(
    application: Application, engines: Callable[[], Engine]
) -> None:
    """Two that the system started, and a child of another; beside one that lives."""
    with application.process("leaves") as living:
        said(living, "spent")
        application.run("killed")
        application.run("killed", "other")
        application.run("forked")
        assert application.booked() == (1 + 3 * 51) * 5_000_000
        survivor = engines()
        assert spent(survivor)[1] < application.booked()
        eventually(lambda: spent(survivor) == (application.booked("acme"), application.booked()))
        other = Decimal("0.25")
        eventually(lambda: survivor.budgets.status(tenant="other").spent == other)
        time.sleep(1.5)  # it goes on looking, and so does another one
        another = engines()
        eventually(lambda: spent(another) == (application.booked("acme"), application.booked()))


def test_who_left_in_order_is_not_asked_for(
    application: Application, engines: Callable[[], Engine]
) -> None:
    application.run("leaves")
    assert application.producers() == []
    engine = engines()
    assert spent(engine) == (5_000_000, 5_000_000)
    eventually(lambda: len(application.producers()) == 1)
    engine.close()
    assert application.producers() == []


@pytest.mark.parametrize("how", ["exit", "sigterm"])
def test_an_end_in_the_midst_of_calls(
    application: Application, engines: Callable[[], Engine], how: str
) -> None:
    """Nothing is missing; what each thread had in flight may count without a row."""
    with application.process("busy", code=-15 if how == "sigterm" else 0) as process:
        said(process, "spent")
        if how == "sigterm":
            process.terminate()
            process.wait(20)
    booked = application.booked()
    assert booked > 0
    survivor = engines()
    eventually(lambda: 0 <= spent(survivor)[0] - booked <= 4 * 5_000_000)
    assert survivor.budgets.status(tenant="acme").held == 0


@pytest.mark.parametrize("application", ["redis"], indirect=True)
def test_who_ended_without_the_ledger_is_asked_for(
    application: Application, engines: Callable[[], Engine]
) -> None:
    server = application.server
    assert server is not None
    with application.process("leaves") as process:
        said(process, "spent")
        server.send(signal.SIGSTOP)
        assert process.stdin is not None
        process.stdin.write("\n")
    server.send(signal.SIGCONT)
    assert len(application.producers()) == 1
    survivor = engines()
    eventually(lambda: spent(survivor) == (51 * 5_000_000, 51 * 5_000_000))


def test_who_spent_from_another_ledger_is_left_alone(application: Application) -> None:
    application.run("killed")
    journal = open_journal(application.environ["SPANLEDGER_JOURNAL"], service="shop")
    time.sleep(1.1)
    assert journal.claim_silent("another ledger") == []
    journal.close()
