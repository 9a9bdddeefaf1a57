"""The recorder: every entry reaches the sinks and the journal, and the caller never notices."""

import contextlib
import logging
import sqlite3
import threading
import time

import pytest

from spanledger.api import guard
from spanledger.api.errors import JournalError
from spanledger.ledger.journal import open_journal
from spanledger.ledger.recorder import Recorder


@pytest.fixture
def record(journal):
    """Make a recorder; all are closed at the end."""
    made = []

    def make(*sinks, **options):
        made.append(Recorder(journal, sinks, **{"interval_s": 0.01, **options}))
        return made[-1]

    yield make
    for recorder in made:
        recorder.close()


@contextlib.contextmanager
def held(path):
    """The journal held by somebody else."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ids(rows):
    return [row.charge_id for row in rows]


def test_entries_reach_the_journal_without_anybody_asking(record, journal, entry):
    recorder = record()
    entries = [entry() for _ in range(5)]
    for one in entries:
        recorder.record(one)
    wait_for(lambda: len(list(journal.rows())) == 5)
    assert ids(journal.rows()) == [e.charge.id for e in entries]


def test_a_recorder_that_fell_asleep_wakes(record, journal, entry):
    recorder = record()
    for expected in range(1, 6):
        recorder.record(entry())
        wait_for(lambda: recorder._asleep)
        assert len(list(journal.rows())) == expected


def test_many_threads_record_and_nothing_is_lost(record, journal, entry):
    recorder = record()
    entries = [entry() for _ in range(2_000)]

    def run(part):
        for one in part:
            recorder.record(one)

    threads = [threading.Thread(target=run, args=(entries[i::8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.flush()
    assert set(ids(journal.rows())) == {e.charge.id for e in entries}


def test_sinks_see_each_entry_once_also_while_the_journal_fails(record, journal, entry, path):
    seen = []
    recorder = record(seen.extend)
    entries = [entry() for _ in range(10)]
    with held(path):
        for one in entries:
            recorder.record(one)
        assert not recorder.flush(0.4)
        assert seen == entries
    assert recorder.flush()
    assert seen == entries
    assert ids(journal.rows()) == [e.charge.id for e in entries]


def test_entries_are_written_in_their_order_also_after_a_failure(entry):
    class FullAtFirst:
        def __init__(self):
            self.written = []
            self.failures = 3

        def append(self, entries):
            if self.written and self.failures:
                self.failures -= 1
                raise JournalError("full")
            self.written += entries

        def close(self):
            pass

    journal = FullAtFirst()
    recorder = Recorder(journal)
    entries = [entry() for _ in range(2_500)]
    for one in entries:
        recorder.record(one)
    assert recorder.flush()
    assert (journal.written, journal.failures) == (entries, 0)
    recorder.close()


def test_a_sink_that_fails_harms_neither_the_others_nor_the_journal(record, journal, entry):
    guard.reraise_internal_errors(False)

    def fail(_):
        raise RuntimeError("a sink")

    seen = []
    recorder = record(fail, seen.extend)
    recorder.record(entry())
    assert recorder.flush()
    assert len(seen) == len(list(journal.rows())) == 1
    assert guard.internal_errors["recorder.sink"] == 1


def test_what_finds_no_room_while_the_journal_fails_is_counted_and_said_once(
    record, journal, entry, path, caplog
):
    recorder = record(most_waiting=10)
    with caplog.at_level(logging.WARNING, "spanledger"), held(path):
        for _ in range(8):
            recorder.record(entry())
        recorder.flush(0.3)
        for _ in range(8):
            recorder.record(entry())
    assert recorder.flush()
    assert recorder.dropped == guard.internal_errors["journal.dropped"] == 6
    assert len(list(journal.rows())) == 10
    assert len([r for r in caplog.records if "missing in the journal" in r.getMessage()]) == 1


def test_a_journal_that_is_busy_for_a_moment_is_nothing_to_say(record, entry, path, caplog):
    recorder = record()
    with caplog.at_level(logging.WARNING, "spanledger"), held(path):
        recorder.record(entry())
        assert not recorder.flush(0.4)
    assert recorder.flush()
    assert not caplog.records


def test_a_journal_that_is_busy_for_long_is_said_once(record, entry, path, caplog, monkeypatch):
    monkeypatch.setattr("spanledger.ledger.recorder._BUSY_SAID_AFTER_S", 0.1)
    recorder = record()
    with caplog.at_level(logging.WARNING, "spanledger"), held(path):
        recorder.record(entry())
        assert not recorder.flush(1)
    assert recorder.flush()
    assert len(caplog.records) == 1
    assert "fuser" in caplog.records[0].getMessage()


def test_a_defect_of_ours_costs_its_batch_and_not_the_recorder(entry, caplog):
    class Defective:
        def __init__(self):
            self.written = []

        def append(self, entries):
            if not self.written:
                self.written = [None]
                raise ZeroDivisionError
            self.written += entries

        def close(self):
            pass

    guard.reraise_internal_errors(False)
    journal = Defective()
    recorder = Recorder(journal, interval_s=0.01)
    recorder.record(entry())
    recorder.flush(0.2)
    after = entry()
    recorder.record(after)
    assert recorder.flush()
    assert journal.written == [None, after]
    assert recorder.dropped == 1
    recorder.close()


def test_where_no_thread_can_be_started_the_caller_writes(record, journal, entry, monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    recorder = record()
    recorder.record(entry())
    assert len(list(journal.rows())) == 1


def test_what_is_recorded_after_the_end_is_written_at_once(record, journal, entry, path):
    seen = []
    recorder = record(seen.extend)
    recorder.record(entry())
    recorder.close()
    assert len(list(journal.rows())) == 1
    journal.close()
    recorder.record(entry())
    assert len(list(journal.rows())) == len(seen) == 2
    recorder.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_cannot_be_written_at_the_end_is_said(journal, entry, path, caplog, monkeypatch):
    monkeypatch.setattr("spanledger.ledger.recorder._EXIT_S", 0.3)
    recorder = Recorder(journal)
    with caplog.at_level(logging.WARNING, "spanledger"), held(path):
        recorder.record(entry())
        recorder.close()
    assert recorder.dropped == 1
    assert any("missing in the journal" in r.getMessage() for r in caplog.records)


def test_a_sink_may_flush(record, entry, journal):
    recorder = record()
    recorder._sinks = (lambda _: recorder.flush(1),)
    recorder.record(entry())
    assert recorder.flush()
    assert len(list(journal.rows())) == 1


def test_two_recorders_write_one_journal(url, journal, record, entry):
    other = open_journal(url, service="other")
    recorders = [record(), Recorder(other, interval_s=0.01)]
    for number in range(400):
        recorders[number % 2].record(entry())
    for recorder in recorders:
        recorder.close()
    assert journal.totals()[0].calls == 400
    assert {t.key: t.calls for t in journal.totals(("service",))} == {
        ("shop",): 200,
        ("other",): 200,
    }
