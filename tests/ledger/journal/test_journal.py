"""The journal's file: what goes in comes out, once, and stays."""

import sqlite3
from decimal import Decimal

import pytest

from spanledger.api import guard
from spanledger.api.errors import JournalError
from spanledger.ledger import journal as module
from spanledger.ledger.journal import open_journal
from spanledger.ledger.journal_rows import Row


def test_all_of_an_entry_comes_back(journal, full_entry):
    journal.append([full_entry])
    assert list(journal.rows()) == [
        Row(
            charge_id="c" * 32,
            timestamp_ns=full_entry.call.started_ns,
            service="shop",
            tenant_id="acme",
            user_id="ü-17",
            feature="search",
            use_id="ab" * 16,
            provider="anthropic",
            operation="chat",
            model_requested="claude-asked",
            model="claude-served",
            outcome="degraded",
            error_type="RateLimitError",
            input_tokens=100,
            output_tokens=20,
            cache_read_tokens=30,
            cache_write_tokens=40,
            reasoning_tokens=5,
            units={"web_searches": 2, "audio_seconds": Decimal("1.250")},
            credits=Decimal("0.10"),
            nano_usd=123_456_789_012,
            cost_status="partial",
            cost_source="price_list",
            price_version="genai-prices 0",
            unpriced_reason="unpriced:fetches",
            saved_nano_usd=77,
            saved_credits=Decimal("3.5"),
            latency_ms=1500.0,
            first_chunk_ms=125.0,
            trace_id=f"{0xABC:032x}",
            span_id=f"{0xDEF:016x}",
            job_key="job-1",
            attributes={"plan": "pro"},
            budget_tier="warning",
        )
    ]


def test_what_is_unknown_stays_unknown(journal, entry):
    journal.append([entry(tenant=None, units={}, nano_usd=None, status="unknown")])
    (row,) = journal.rows()
    assert (row.tenant_id, row.nano_usd, row.credits, row.input_tokens) == (None,) * 4
    assert (row.trace_id, row.span_id, row.first_chunk_ms) == (None, None, None)
    assert (row.units, row.attributes) == ({}, {})


def test_a_charge_is_in_the_journal_once(journal, entry):
    one, other = entry(), entry()
    journal.append([one])
    journal.append([one, other, other])
    assert [row.charge_id for row in journal.rows()] == [one.charge.id, other.charge.id]


@pytest.mark.parametrize("statement", ["UPDATE charges SET nano_usd = 0", "DELETE FROM charges"])
def test_rows_can_be_neither_changed_nor_deleted(journal, entry, path, statement):
    journal.append([entry()])
    with sqlite3.connect(path) as other, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(statement)
    other.close()
    assert [row.nano_usd for row in journal.rows()] == [1_500]


def test_rows_come_in_the_order_of_their_start_over_many_pages(journal, entry, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 10)
    entries = [entry(started_ns=1_000 + number // 3) for number in range(95)]
    journal.append(entries[50:])
    journal.append(entries[:50])
    rows = list(journal.rows())
    assert len(rows) == 95
    assert [row.timestamp_ns for row in rows] == sorted(row.timestamp_ns for row in rows)
    assert len({row.charge_id for row in rows}) == 95


def test_rows_are_bounded_by_the_period_with_its_end_excluded(journal, entry):
    journal.append([entry(started_ns=number) for number in range(10)])
    assert [row.timestamp_ns for row in journal.rows(3, 6)] == [3, 4, 5]
    assert [row.timestamp_ns for row in journal.rows(since=8)] == [8, 9]
    assert [row.timestamp_ns for row in journal.rows(until=2)] == [0, 1]


def test_rows_that_are_appended_while_reading_are_left_out(journal, entry, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 2)
    journal.append([entry(started_ns=number) for number in range(4)])
    reading = journal.rows()
    first = next(reading)
    journal.append([entry(started_ns=10)])
    assert [first.timestamp_ns, *(row.timestamp_ns for row in reading)] == [0, 1, 2, 3]


def test_what_sqlite_cannot_hold_does_not_keep_the_rest_from_the_books(journal, entry):
    journal.append(
        [
            entry(tenant="before"),
            entry(tenant="\ud800broken"),
            entry(tenant="dear", nano_usd=10**21),
            entry(tenant="much", units={"input_tokens": 10**30}),
            entry(tenant="after"),
        ]
    )
    rows = {row.tenant_id: row for row in journal.rows()}
    assert list(rows) == ["before", "\\ud800broken", "dear", "much", "after"]
    assert (rows["dear"].nano_usd, rows["dear"].cost_status) == (None, "unknown")
    assert rows["dear"].unpriced_reason == "amount_out_of_range"
    assert rows["much"].input_tokens == 2**63 - 1
    assert rows["after"].nano_usd == 1_500


def test_an_entry_that_is_none_is_counted_and_left_out(journal, entry):
    guard.reraise_internal_errors(False)
    journal.append([entry(), entry(units=None), entry()])
    assert len(list(journal.rows())) == 2
    assert guard.internal_errors["journal.row"] == 1


def test_a_journal_in_memory_keeps_its_newest_rows(entry, monkeypatch):
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 3)
    journal = open_journal("memory://", service="shop")
    for number in range(5):
        journal.append([entry(units={"input_tokens": number})])
    assert [row.input_tokens for row in journal.rows()] == [2, 3, 4]
    assert journal.totals()[0].calls == 3
    journal.close()


def test_a_closed_journal_is_one_file_and_opens_again(journal, entry, path):
    journal.append([entry()])
    journal.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    journal.append([entry()])
    assert len(list(journal.rows())) == 2


def test_reading_makes_no_journal(url, path):
    with pytest.raises(JournalError, match="nothing was recorded"):
        open_journal(url, service="", create=False)
    assert not path.exists()


def test_an_empty_file_is_a_new_journal(url, path, entry):
    path.touch()
    with pytest.raises(JournalError, match="nothing was recorded"):
        open_journal(url, service="", create=False)
    journal = open_journal(url, service="shop")
    journal.append([entry()])
    assert len(list(journal.rows())) == 1
    journal.close()
