"""What goes wrong with files and disks."""

import contextlib
import logging
import os
import shutil
import sqlite3
import subprocess

import pytest

from spanledger.api.errors import JournalError
from spanledger.ledger.journal import open_journal
from spanledger.ledger.journal_place import TemporaryJournalError
from spanledger.ledger.journal_schema import APPLICATION_ID, STEPS
from spanledger.ledger.recorder import Recorder


def aside(path):
    return sorted(f for f in path.parent.iterdir() if ".damaged-" in f.name)


def test_garbage_is_set_aside_and_a_new_journal_begun(url, path, entry, caplog):
    path.write_bytes(b"this is no database at all, but somebody may want it back" * 100)
    with caplog.at_level(logging.WARNING, "spanledger"):
        journal = open_journal(url, service="shop")
        journal.append([entry()])
    assert len(list(journal.rows())) == 1
    (kept,) = aside(path)
    assert kept.read_bytes().startswith(b"this is no database")
    (said,) = caplog.records
    assert str(kept) in said.getMessage()
    assert ".recover" in said.getMessage()
    journal.close()


def test_damage_that_shows_while_writing_is_set_aside_too(url, path, entry, caplog):
    first = open_journal(url, service="shop")
    first.append([entry() for _ in range(200)])
    first.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)  # the first page still says what it is
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "spanledger"):
        journal = open_journal(url, service="shop")
        written = entry()
        journal.append([written])
    assert [row.charge_id for row in journal.rows()] == [written.charge.id]
    assert len(aside(path)) == 1
    assert len(caplog.records) == 1
    journal.close()


def test_two_who_find_the_same_damage_set_one_file_aside(url, path, entry):
    path.write_bytes(b"garbage" * 1000)
    journals = [open_journal(url, service="shop") for _ in range(2)]
    for journal in journals:
        journal.append([entry()])
    assert [len(list(journal.rows())) for journal in journals] == [2, 2]
    assert len(aside(path)) == 1
    for journal in journals:
        journal.close()


def test_a_report_on_a_damaged_journal_says_so_and_leaves_it_alone(url, path):
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(JournalError, match="damaged"):
        open_journal(url, service="", create=False)
    assert path.exists()
    assert not aside(path)


def test_a_journal_of_a_newer_spanledger_is_refused_and_left_alone(url, path):
    open_journal(url, service="shop").close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(JournalError, match="newer spanledger.*Upgrade"):
            open_journal(url, service="shop", create=create)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(url, path):
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE users (name TEXT)")
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(JournalError, match="another program's"):
            open_journal(url, service="shop", create=create)
    assert path.read_bytes() == before


def test_a_journal_of_an_older_format_is_brought_to_this_one(url, path, journal, entry):
    journal.append([entry(), entry()])
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE jobs")
        other.execute("DROP TABLE producers")
        other.execute("PRAGMA user_version = 1")
    journal = open_journal(url, service="shop")
    assert len(list(journal.rows())) == 2
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
        assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert other.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    journal.close()


def test_a_step_to_a_new_format_that_fails_changes_nothing(url, path, monkeypatch):
    broken = (*STEPS, "CREATE TABLE more (a);\nCREATE TABLE charges (a);")
    open_journal(url, service="shop").close()
    monkeypatch.setattr("spanledger.ledger.journal_schema.STEPS", broken)
    with pytest.raises(JournalError, match="already exists"):
        open_journal(url, service="shop")
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
        assert not other.execute("SELECT 1 FROM sqlite_master WHERE name = 'more'").fetchall()


def test_a_journal_that_is_moved_away_is_begun_anew(journal, path, entry):
    journal.append([entry()])
    path.rename(path.with_name("moved.db"))
    written = entry()
    journal.append([written])
    assert [row.charge_id for row in journal.rows()] == [written.charge.id]


def test_a_full_journal_writes_nothing_of_a_batch_and_later_all_of_it(journal, entry):
    journal.append([entry()])
    with journal._writer.use() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    batch = [entry() for _ in range(500)]
    with pytest.raises(TemporaryJournalError, match="full.*Free some room") as caught:
        journal.append(batch)
    assert not caught.value.busy
    assert len(list(journal.rows())) == 1
    with journal._writer.use() as connection:
        connection.execute("PRAGMA max_page_count = 100000")
    journal.append(batch)
    assert len(list(journal.rows())) == 501


def test_a_journal_that_another_process_holds_is_busy_for_now(journal, url, path, entry):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TemporaryJournalError, match="locked") as caught:
            journal.append([entry()])
        assert caught.value.busy
        assert list(journal.rows()) == []  # reading goes on
        open_journal(url, service="shop").close()  # as does an application that starts
        other.execute("ROLLBACK")
    journal.append([entry()])
    assert len(list(journal.rows())) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small disk")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr!r}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_on_a_full_disk_entries_wait_until_there_is_room(small_disk, entry, caplog):
    recorder = Recorder(open_journal(f"sqlite:///{small_disk}/j.db", service="shop"))
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(1024))
            file.flush()
    with caplog.at_level(logging.WARNING, "spanledger"):
        for _ in range(100):
            recorder.record(entry())
        assert not recorder.flush(0.3)
        assert not recorder.flush(0.3)
    assert len([r for r in caplog.records if "Free some room" in r.getMessage()]) == 1
    ballast.unlink()
    assert recorder.flush()
    assert recorder.dropped == 0
    recorder.close()
    journal = open_journal(f"sqlite:///{small_disk}/j.db", service="", create=False)
    assert len(list(journal.rows())) == 100
    journal.close()


def test_a_journal_on_a_read_only_disk_can_be_read(small_disk, entry):
    url = f"sqlite:///{small_disk}/j.db"
    journal = open_journal(url, service="shop")
    journal.append([entry()])
    journal.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(JournalError, match="writable"):
        open_journal(url, service="shop")
    reading = open_journal(url, service="", create=False)
    assert len(list(reading.rows())) == 1
    reading.close()
