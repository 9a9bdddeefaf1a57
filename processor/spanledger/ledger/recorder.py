"""The recorder: takes entries from paid calls in half a microsecond, and one thread writes them.

What was recorded is in the journal at most 200 ms later, and then survives kill -9. An interpreter
that exits writes what is pending first. A forked child begins with nothing pending: what its parent
recorded, its parent writes.
"""

import atexit
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from opentelemetry import context
from opentelemetry.context import Context

from spanledger.api.errors import JournalError
from spanledger.api.guard import internal_errors, say_once, swallow
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal_place import TemporaryJournalError

Sink = Callable[[Sequence[Entry]], None]

_MOST_WAITING: Final = 100_000  # entries, 1 to 2 KB each
_BATCH: Final = 500  # entries in one transaction: other processes wait for it, a few ms
_LONGEST_PAUSE_S: Final = 5.0
_RETRY_S: Final = 0.05
_BUSY_SAID_AFTER_S: Final = 2.0  # a checkpoint on a slow disk may hold the file that long
_EXIT_S: Final = 5.0


class Appendable(Protocol):
    """What the recorder needs of a journal."""

    def append(self, entries: Sequence[Entry]) -> None: ...
    def close(self) -> None: ...


class Recorder:
    """Writes entries to `journal`, and gives them to the `sinks`, in a daemon thread of its own.

    sinks: called once with each entry, in batches, whether or not the journal can be written.
    complete: what an entry still lacks, added in the writer's thread before anybody sees it.
    interval_s: seconds between two batches.
    most_waiting: entries kept while the journal fails; more are dropped, counted and said.
    """

    def __init__(
        self,
        journal: Appendable,
        sinks: Sequence[Sink] = (),
        interval_s: float = 0.1,
        most_waiting: int = _MOST_WAITING,
        complete: Callable[[Entry], Entry] | None = None,
    ) -> None:
        self._journal = journal
        self._sinks = tuple(sinks)
        self._interval_s = interval_s
        self._most_waiting = most_waiting
        self._complete = complete
        self._pending: deque[Entry] = deque()  # recorded, and seen by nobody yet
        self._unwritten: deque[Entry] = deque()  # seen by the sinks, and not in the journal yet
        self._stop = threading.Event()
        self.begin()
        _recorders.add(self)
        atexit.register(self.close)

    def begin(self) -> None:
        """Begin anew; in a forked child without thread, locks and entries of the parent."""
        closed = self._stop.is_set()
        self._stop = threading.Event()
        if closed:
            self._stop.set()
        self._pending.clear()
        self._unwritten.clear()
        self._room = self._most_waiting
        self._failing_since: float | None = None
        self._working = threading.RLock()  # held by whoever writes
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._asleep = False
        self.dropped = 0
        """Entries that this process could not write and does not keep."""

    def record(self, entry: Entry) -> None:
        """Put `entry` in the books. Returns at once and raises nothing."""
        pending = self._pending
        if len(pending) >= self._room:
            self._lose(1)
            return
        pending.append(entry)
        if self._thread is None:
            with swallow("recorder"):
                self._start()
        elif self._asleep:
            self._asleep = False
            self._wake.set()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Write what was recorded before this call; False where that failed or took too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            with swallow("recorder"):
                if self._step(max(left, 0)):
                    return True
            if left <= 0:
                return False
            time.sleep(min(_RETRY_S, left))

    def close(self) -> None:
        """Write what is pending, end the thread and close the journal.

        What is recorded later, while the interpreter exits, is written at once by its own thread.
        """
        atexit.unregister(self.close)
        self._stop.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_EXIT_S)
        self._thread = None
        if not self.flush(_EXIT_S):
            self._lose(len(self._pending) + len(self._unwritten))
        with swallow("recorder"):
            self._journal.close()

    # -- the writer --------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stop.is_set():
                thread = threading.Thread(target=self._run, name="spanledger-journal", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no thread to be had
                    say_once(
                        "recorder", "thread", "charges are written by their callers: %s", error
                    )
                else:
                    self._thread = thread
                    _flush_at_child_exit(self)
        if self._thread is None:
            self._step()
            self._journal.close()

    def _run(self) -> None:
        context.attach(Context())  # what the sinks do belongs to no request
        pause = self._interval_s
        while not self._stop.is_set():
            if not self._pending and not self._unwritten:
                self._sleep()
            self._stop.wait(pause)
            written = False
            with swallow("recorder"):
                written = self._step()
            pause = self._interval_s if written else min(2 * pause, _LONGEST_PAUSE_S)

    def _sleep(self) -> None:
        """Wait for an entry; an idle application is not woken ten times a second."""
        self._wake.clear()
        self._asleep = True
        # Looked at again: `record` may have come before it could see that we sleep.
        if not self._pending and not self._stop.is_set():
            self._wake.wait()
        self._asleep = False

    def _step(self, timeout_s: float = -1) -> bool:
        """Hand what is pending to the sinks and the journal; whether all of it is written."""
        if not self._working.acquire(timeout=timeout_s):
            return False
        try:
            taken = [self._pending.popleft() for _ in range(len(self._pending))]
            if taken and self._complete is not None:
                with swallow("recorder.complete"):
                    taken = [self._complete(entry) for entry in taken]
            if taken:
                self._unwritten.extend(taken)
                for sink in self._sinks:
                    with swallow("recorder.sink"):
                        sink(taken)
            return self._write()
        finally:
            self._room = self._most_waiting - len(self._unwritten)
            self._working.release()

    def _write(self) -> bool:
        waiting = self._unwritten
        while waiting:
            batch = [waiting.popleft() for _ in range(min(len(waiting), _BATCH))]
            lost = len(batch)
            try:
                self._journal.append(batch)
                lost = 0
            except JournalError as error:
                waiting.extendleft(reversed(batch))
                lost = 0
                self._say(error)
                return False
            finally:
                if lost:  # a defect of ours: with these entries it would fail for ever
                    self._lose(lost)
        self._failing_since = None
        return True

    def _say(self, error: JournalError) -> None:
        internal_errors["journal"] += 1
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        busy = isinstance(error, TemporaryJournalError) and error.busy
        if not busy or now - self._failing_since >= _BUSY_SAID_AFTER_S:
            say_once(
                "journal",
                str(error),
                "%s. Up to %d charges wait in memory; it is tried again every few seconds",
                error,
                self._most_waiting,
            )

    def _lose(self, entries: int) -> None:
        with swallow("recorder"), self._starting:
            self.dropped += entries
            internal_errors["journal.dropped"] += entries
        say_once(
            "journal",
            "dropped",
            "charges are missing in the journal, because it could not be written; "
            "spanledger.internal.errors counts them under journal.dropped",
        )


def _flush_at_child_exit(recorder: Recorder) -> None:
    """A child of `multiprocessing` ends without `atexit`; it has finalizers of its own."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, recorder.close, exitpriority=0)


_recorders: Final[weakref.WeakSet[Recorder]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in _recorders:
        recorder.begin()


os.register_at_fork(after_in_child=_after_fork_in_child)
