"""Opening the journal's SQLite file, and putting a damaged one aside."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from spanledger.api.errors import JournalError
from spanledger.ledger.journal_connection import BUSY_S, FileId, file_id
from spanledger.ledger.journal_schema import format_of, migrate
from spanledger.ledger.journal_totals import ExactSum

_OPENING_S: Final = 2.0  # several processes start at once, and one of them makes the tables
_NO_WAL: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class NoJournal(JournalError):
    """Nothing was recorded at this place yet."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the journal at `path`; unless `read_only`, make it or bring it to this format.

    Raises NoJournal, JournalError, sqlite3.Error.
    """
    return _connect_to_read(path) if read_only else _open(path.as_uri(), partial(_prepare, path))


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    format_of(connection, path)  # before anything is changed in what may be somebody else's file
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    migrate(connection, path)
    connection.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")


def _connect_to_read(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise NoJournal(f"journal {path}: nothing was recorded there yet")
    # Whoever may write the file opens it so: of its companions, -wal and -shm, a reader that may
    # not would leave some behind that belong to the wrong user.
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    prepare = partial(_prepare_to_read, path)
    try:
        return _open(f"{path.as_uri()}?mode={mode}", prepare)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _NO_WAL or Path(f"{path}-wal").exists():
            raise
        # A file in WAL mode on a read-only disk, and nobody can be writing it.
        return _open(f"{path.as_uri()}?immutable=1", prepare)


def _prepare_to_read(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = 1")
    if not format_of(connection, path):
        raise NoJournal(f"journal {path}: nothing was recorded there yet")


def connect_memory() -> sqlite3.Connection:
    """A journal in memory. It forgets its oldest rows, so that nothing keeps them."""
    return _open("file::memory:", _prepare_memory)


def _prepare_memory(connection: sqlite3.Connection) -> None:
    migrate(connection, None)
    connection.execute("DROP TRIGGER charges_keep")


def _open(uri: str, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=_OPENING_S, isolation_level=None, check_same_thread=False
    )
    try:
        # typeshed asks for an aggregate over numbers; SQLite has them over texts as well.
        connection.create_aggregate("exact_sum", 1, ExactSum)  # type: ignore[arg-type]
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for a lock here. Where the file system cannot do WAL, the mode stays as
    # it was, which is slower and as safe.
    deadline = time.monotonic() + _OPENING_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def is_damage(error: sqlite3.Error) -> bool:
    """Whether `error` says that the file is not a sound SQLite file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def set_aside(path: Path, damaged: FileId | None) -> Path | None:
    """Rename the file at `path` if it still is the `damaged` one; None where it no longer is."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if damaged is None or file_id(path) != damaged:
            return None
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{damaged.inode}")
        path.rename(aside)
        log = Path(f"{path}-wal")
        if log.exists():
            log.rename(f"{aside}-wal")
        Path(f"{path}-shm").unlink(missing_ok=True)
        return aside
    finally:
        os.close(directory)
