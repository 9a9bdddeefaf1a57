"""SQLite connections that threads share, that no fork carries over, and that follow their file.

SQLite keeps, per process, which locks it holds on a file. A child that inherits an open connection
believes in locks that it does not have, and opening the file a second time does not cure it: such a
child can destroy the file. So every connection is closed before a fork, and opened again, on both
sides, when it is next used.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from spanledger.api.guard import swallow

BUSY_S: Final = 0.25
"""Seconds that one statement waits for another process; whoever has time tries again."""


class Busy(Exception):
    """Another thread of this process is using the connection."""


class FileId(NamedTuple):
    """Which file a path leads to."""

    device: int
    inode: int


def file_id(path: Path) -> FileId | None:
    """The file that `path` leads to now; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - half the price of Path.stat, once a batch
    except OSError:
        return None
    return FileId(status.st_dev, status.st_ino)


class Connection:
    """One SQLite connection, opened when it is first used; one thread uses it at a time.

    path: the file that `connect` opens; None for a database in memory, which lives as long as this
        object and is empty in a forked child.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Path | None) -> None:
        self._connect = connect
        self._path = path
        self._lock = threading.RLock()
        self._open: sqlite3.Connection | None = None
        self.file: FileId | None = None
        with _fork_lock:
            _connections.add(self)

    @contextmanager
    def use(self, timeout_s: float = -1) -> Generator[sqlite3.Connection, None, None]:
        """The open connection, for this thread alone. Raises Busy after `timeout_s` seconds."""
        lock = self._lock
        if not lock.acquire(timeout=timeout_s):
            raise Busy
        try:
            if self._path is not None and self._open is not None and self.file != self._file_now():
                self.close()  # moved or deleted: what we would write there, nobody would read
            if self._open is None:
                # Before as well as after: what cannot be opened must be known too, to set it aside.
                self.file = self._file_now()
                self._open = self._connect()
                self.file = self._file_now()
            yield self._open
        finally:
            lock.release()

    def _file_now(self) -> FileId | None:
        return None if self._path is None else file_id(self._path)

    def close(self) -> None:
        """Close until it is next used. A database in memory is emptied by that."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def before_fork(self) -> None:
        self._lock.acquire()
        if self._path is not None:
            with swallow("journal.fork"):
                self.close()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        self._open = None  # in memory, where it is not None: the parent's


_connections: Final[weakref.WeakSet[Connection]] = weakref.WeakSet()
_forking: list[Connection] = []
_fork_lock = threading.RLock()


def _before_fork() -> None:
    _fork_lock.acquire()
    _forking.extend(_connections)
    for connection in _forking:
        connection.before_fork()


def _after_fork_in_parent() -> None:
    for connection in _forking:
        connection.after_fork_in_parent()
    _forking.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    global _fork_lock  # noqa: PLW0603 - the one that was inherited belongs to a thread of the parent
    _fork_lock = threading.RLock()
    for connection in _forking:
        connection.after_fork_in_child()
    _forking.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
