"""The background of budgets: sees changes of the configuration and of limits, and tells what is
new.
"""

import os
import threading
import weakref
from functools import cache
from pathlib import Path
from typing import Final

from spanledger.api.errors import ConfigurationError
from spanledger.api.guard import log, say_once, swallow
from spanledger.api.settings import load_settings
from spanledger.budget.budgets import Budgets
from spanledger.budget.config import read_budget_config
from spanledger.budget.replay import Replay

INTERVAL_S: Final = 0.4
"""A change is in force within a second, everywhere."""

Signature = tuple[int, int, int]


class Watcher:
    """A thread that keeps `budgets` up to date, and one that tells what is new, while there is
    something: what an application does with an event must not hold up a changed limit.

    path: where the configuration file is watched for: its budgets are in force as soon as it is
        there. A new version that is wrong is said once, and the former one stays in force.
    replay: what else is to be done in the background.
    """

    def __init__(
        self, budgets: Budgets, path: Path | None = None, replay: Replay | None = None
    ) -> None:
        self._budgets = budgets
        self._path = path
        self._steps = (
            *((replay.look,) if replay else ()),  # first: it notes that this process spends
            self._look_at_file,
            budgets.refresh,
            budgets.catch_up,
        )
        self._seen = _signature(path)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._teller: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; also in every child of this process."""
        self._run()
        _running.add(self)
        _renew_in_children()

    def close(self) -> None:
        """Tell what there is to tell, and stop; waits for a second at most."""
        _running.discard(self)
        thread, self._thread = self._thread, None
        self._stop.set()
        self._budgets.woken.set()
        if thread is not None:
            thread.join(1.0)

    def look(self) -> None:
        """One round, and what is new is told. Raises nothing."""
        self._look()
        self._tell()

    def _look(self) -> None:
        for step in self._steps:
            with swallow("budgets"):
                try:
                    step()
                except OSError as error:
                    say_once(
                        "budgets", "shared", "what budgets share is out of reach for now: %s", error
                    )

    def _run(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._rounds, args=(self._stop,), name="spanledger-budgets", daemon=True
        )
        self._thread.start()

    def _rounds(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._look()
            self._have_told()
            self._budgets.woken.wait(INTERVAL_S)
        self._look()
        if self._teller is not None:
            self._teller.join()  # whoever closes us waits no longer than he likes
        self._tell()

    def _have_told(self) -> None:
        teller = self._teller
        if not self._budgets.has_news or (teller is not None and teller.is_alive()):
            return
        teller = threading.Thread(target=self._tell, name="spanledger-events", daemon=True)
        try:
            teller.start()
        except RuntimeError:  # the interpreter ends
            self._tell()
        else:
            self._teller = teller

    def _tell(self) -> None:
        with swallow("budgets"):
            self._budgets.tell()

    def _look_at_file(self) -> None:
        signature = _signature(self._path)
        if self._path is None or signature == self._seen:
            return
        self._seen = signature
        try:
            # Only the file: the environment was read at start.
            config = read_budget_config(load_settings({"SPANLEDGER_CONFIG": str(self._path)}).root)
        except ConfigurationError as error:
            say_once("budgets", signature, "the former budgets stay in force: %s", error)
            return
        self._budgets.reload(config)
        log.info("spanledger: the budgets of %s are in force", self._path)

    def after_fork(self) -> None:
        """In a child: a thread of its own."""
        self._teller = None
        self._budgets.after_fork()
        self._run()


def _signature(path: Path | None) -> Signature | None:
    """What tells one version of the file from another; None where there is no file."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


_running: weakref.WeakSet[Watcher] = weakref.WeakSet()


@cache
def _renew_in_children() -> None:
    """Not when this module is imported: a child's hooks run in the order in which they came, and
    its new thread must find the ledger's and the journal's locks renewed.
    """
    os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    with swallow("budgets"):
        for watcher in tuple(_running):
            watcher.after_fork()
