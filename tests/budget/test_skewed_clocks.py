"""Processes whose clocks are two minutes apart, where a month ends: each has its periods, and the limits hold in both."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis_server import redis_server

from spanledger.ledger.protocol import open_ledger

USD = 10**9
PRICE = USD // 40
# A day of 25 hours is the month's last in Berlin: both end at 23:00 UTC, an hour later than the summer's days.
EDGE_NS = int(datetime(2027, 10, 31, 23, tzinfo=UTC).timestamp()) * 10**9
BUDGETS = """
[budget_defaults]
timezone = "Europe/Berlin"
tiers = { critical = 1.0, hard = 1.0, ceiling = 1.0 }
on_outage = "closed"
[[budgets]]
scope = "tenant:*"
monthly_usd = 2
[[budgets]]
scope = "global"
daily_usd = 2
"""
KEYS = (
    ("tenant:acme|month|2027-10", "global|day|2027-10-31"),
    ("tenant:acme|month|2027-11", "global|day|2027-11-01"),
)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    with redis_server() as server:
        yield server.url


def test_a_month_ends_at_other_times_in_other_processes(url: str) -> None:
    script = str(Path(__file__).with_name("skewed_worker.py"))
    begins_s = time.monotonic() + 2  # all have started by then, or begin a little later
    workers = [
        subprocess.Popen(
            [sys.executable, script, BUDGETS, url, str(skew_s), str(EDGE_NS), str(begins_s)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for skew_s in (-60, -20, 20, 60)
    ]
    said = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    ledger = open_ledger(url)
    for which in (0, 1):
        calls = sum(one["made"][which] for one in said)
        assert 0.95 * 80 <= calls <= 80
        assert sum(one["refused"][which] for one in said) > 0
        deadline = time.monotonic() + 10
        while set(ledger.state(KEYS[which]).values()) != {(calls * PRICE, 0, False)}:
            assert time.monotonic() < deadline, ledger.state(KEYS[which])
            time.sleep(0.05)
    ledger.close()
