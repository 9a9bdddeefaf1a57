"""Tasks that are cancelled at any moment, twice at times, over a real Redis: nothing stays held, and what is booked counts."""

import asyncio
import random
import time
from collections.abc import Iterator

import pytest
from redis_server import redis_server

from spanledger.api import attribute
from spanledger.api.gate import install_gate
from spanledger.api.settings import Section, Settings
from spanledger.instrumentation.metered import metered
from spanledger.processor.startup import Engine

CALLS, TENANTS, AT_ONCE = 2000, 100, 200
PRICE = 5_000_000
BUDGETS = [
    {"scope": "tenant:*", "monthly_usd": 1e6, "on_outage": "closed"},
    {"scope": "global", "daily_usd": 1e6, "on_outage": "open"},
]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with redis_server() as server:
        root = Section({"budgets": BUDGETS}, "test")
        engine = Engine(Settings(root=root, journal="memory://", ledger=server.url), service="test")
        engine.book.warm()
        install_gate(engine.gate)
        yield engine
        engine.close()


@metered(provider="geocoder", operation="geocode", cost="0.005")
async def geocode(chance: random.Random) -> None:
    await asyncio.sleep(chance.random() * 0.01)


async def one(number: int, chance: random.Random, room: asyncio.Semaphore) -> str:
    async with room:
        with attribute(tenant=f"tenant-{number % TENANTS}"):
            task = asyncio.create_task(geocode(chance))
        await asyncio.sleep(chance.choice((0, 0.001, 0.01)) * chance.random())
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            task.cancel()
            await asyncio.sleep(0)
        (result,) = await asyncio.gather(task, return_exceptions=True)
        return type(result).__name__


async def test_a_storm_of_cancellations(engine: Engine) -> None:
    chance = random.Random(14)
    room = asyncio.Semaphore(AT_ONCE)
    ends = await asyncio.gather(*(one(number, chance, room) for number in range(CALLS)))
    assert ends.count("CancelledError") > CALLS // 4
    assert ends.count("NoneType") > CALLS // 10
    assert engine.flush()
    rows = list(engine.journal.rows())
    assert len({row.charge_id for row in rows}) == len(rows)
    # One that was cancelled before its first step never came to us.
    assert ends.count("NoneType") < len(rows) <= CALLS
    booked = sum(row.nano_usd or 0 for row in rows)
    keys = [key for key, _ in engine.ledger.counters()]
    deadline = time.monotonic() + 5
    while any(state.held for state in engine.ledger.state(keys).values()):
        assert time.monotonic() < deadline, "something stays held"
        await asyncio.sleep(0.05)
    spent = {key: state.spent for key, state in engine.ledger.state(keys).items()}
    of_tenants = sum(spent[key] for key in keys if key.startswith("tenant:"))
    assert of_tenants == booked
    assert spent[next(key for key in keys if key.startswith("global"))] == booked
