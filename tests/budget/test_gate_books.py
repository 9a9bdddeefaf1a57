"""What the gate books, when something of ours breaks or is not ready yet."""

import time
from collections.abc import Iterator
from functools import partial

import pytest

from spanledger.api import guard
from spanledger.api.settings import Section
from spanledger.api.values import NOBODY, Ending, PaidCall, Usage
from spanledger.budget import Budgets, read_budget_config
from spanledger.budget.gate import LedgerGate, priced_late
from spanledger.ledger.journal import Journal, open_journal
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.memory import MemoryStore
from spanledger.ledger.recorder import Recorder
from spanledger.pricing.book import PriceBook
from spanledger.pricing.config import read_price_config
from spanledger.pricing.estimates import Estimates

USAGE = Usage({"input_tokens": 1000, "output_tokens": 100}, model="gpt-4o-mini")
NANO_USD = 1000 * 150 + 100 * 600


class Stand:
    """A gate with a budget, over real books."""

    def __init__(self) -> None:
        self.book = PriceBook(read_price_config(Section({}, "test"), {}))
        self.journal: Journal = open_journal("memory://", service="test")
        self.recorder = Recorder(self.journal, complete=partial(priced_late, self.book))
        self.ledger = LeasedLedger(MemoryStore())
        tables = {"budgets": [{"scope": "global", "monthly_usd": 10}]}
        self.budgets = Budgets(read_budget_config(Section(tables, "test")), self.ledger)
        self.gate = LedgerGate(
            self.book,
            Estimates(self.book),
            self.recorder,
            self.budgets,
            job_difference=self.journal.job_difference,
        )

    def call(self) -> None:
        paid = PaidCall("openai", "chat", "gpt-4o-mini", NOBODY, time.time_ns())
        permit = self.gate.admit(paid)
        assert permit is not None
        permit.settle(USAGE, Ending("ok", 0.1))  # type: ignore[union-attr]

    def close(self) -> None:
        self.ledger.close()
        self.recorder.close()


@pytest.fixture
def stand() -> Iterator[Stand]:
    stand = Stand()
    yield stand
    stand.close()


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("ours")


def test_a_call_that_cannot_be_priced_is_booked_as_unknown(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.reraise_internal_errors(False)
    stand.book.warm()
    monkeypatch.setattr(stand.book, "price", broken)
    paid = PaidCall("openai", "chat", "gpt-4o-mini", NOBODY, time.time_ns())
    stand.gate.record(paid, USAGE, Ending("ok", 0.1))
    assert stand.recorder.flush()
    (row,) = stand.journal.rows()
    assert (row.nano_usd, row.cost_status, row.unpriced_reason) == (
        None,
        "unknown",
        "pricing_failed",
    )
    assert guard.internal_errors["pricing"] == 1


def test_a_hold_that_cannot_be_settled_costs_no_row(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.reraise_internal_errors(False)
    stand.book.warm()
    monkeypatch.setattr("spanledger.budget.holds.Hold.settle", broken)
    stand.call()
    assert stand.recorder.flush()
    (row,) = stand.journal.rows()
    assert (row.nano_usd, row.cost_status) == (NANO_USD, "exact")
    assert guard.internal_errors["budgets"] == 1


def test_a_call_that_ended_before_the_prices_were_there_is_priced_by_the_writer(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as cold:
        cold.setattr(stand.book._loader, "wait", lambda: None)  # it takes longer than we wait
        paid = PaidCall("openai", "chat", "gpt-4o-mini", NOBODY, time.time_ns())
        charge = stand.gate.record(paid, USAGE, Ending("ok", 0.1))
        assert (charge.nano_usd, charge.reason) == (None, "no_price_list")
    assert stand.recorder.flush(30)
    (row,) = stand.journal.rows()
    assert (row.nano_usd, row.cost_status, row.charge_id) == (NANO_USD, "exact", charge.id)
