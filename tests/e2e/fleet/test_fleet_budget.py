"""gunicorn's workers hold one budget together, forked from a master that knows it or not; and those that replace them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_programs import BIN, ask, books, launched
from redis_server import redis_server
from stack_programs import free_port

from spanledger.ledger.journal import open_journal

# 400 calls of 0.005 USD, with no pacing before the limit, and no allowance where a busy Redis answers late.
BUDGET = """
[[budgets]]
scope = "tenant:acme"
monthly_usd = 2
tiers = { critical = 1.0, hard = 1.0, ceiling = 1.0 }
on_outage = "closed"
"""


@pytest.fixture
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    with redis_server() as server:
        yield server.url


def paid(directory: Path) -> list[int | None]:
    """What the calls cost that were made, nano-USD."""
    rows = open_journal(books(directory), service="", create=False).rows()
    return [row.nano_usd for row in rows if row.outcome == "ok"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ledger", "options"), [("redis", ("--preload",)), ("sqlite", ())], indirect=["ledger"]
)
def test_four_workers_share_a_budget(tmp_path: Path, ledger: str, options: tuple[str, ...]) -> None:
    config = tmp_path / "spanledger.toml"
    config.write_text(BUDGET)
    port = free_port()
    server = ("--workers", "4", "--bind", f"127.0.0.1:{port}", "--no-control-socket")
    command = (str(BIN / "gunicorn"), *server, *options, "fleet_app:application")
    env = {
        "OTEL_METRICS_EXPORTER": "none",
        "SPANLEDGER_CONFIG": str(config),
        "SPANLEDGER_LEDGER": ledger,
    }
    url = f"http://127.0.0.1:{port}/"
    with launched(tmp_path, *command, **env) as process:
        first = set(ask(url, 200))
        process.send_signal(signal.SIGHUP)  # the limit comes while they are replaced
        later = set(ask(url, 300))
        # What a worker held for itself comes back when others need it.
        while len(paid(tmp_path)) < 400 or not later - first:
            later |= set(ask(url, 40))
        later |= set(ask(url, 40))
        process.terminate()
        process.wait(60)
    assert len(first) > 1
    assert later - first
    assert paid(tmp_path) == [5_000_000] * 400
