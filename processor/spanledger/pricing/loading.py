"""Getting the price list without making a caller wait, once, safe over fork; refreshing it."""

import gc
import os
import threading
import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from spanledger.api.guard import swallow
from spanledger.pricing.config import PriceConfig
from spanledger.pricing.quotes import Quotes

PATIENCE_S: Final = 0.1
"""Seconds that all callers of a loader together wait for a list that is not there yet."""

_REFRESH_EVERY_S: Final = 6 * 3600.0
_FORK_PATIENCE_S: Final = 1.0
_COLLECT_AFTER: Final = 100_000  # objects; the list makes 20,000


class Loader:
    """Holds the quotes from the price list in use.

    quotes: None until the list is loaded; replaced as a whole by a refresh.
    """

    def __init__(self, config: PriceConfig) -> None:
        self._config: Final = config
        self._patience_s = PATIENCE_S
        self._loading: threading.Thread | None = None
        self._refreshing: threading.Thread | None = None
        self._closed = threading.Event()
        self.quotes: Quotes | None = None
        _loaders.add(self)

    def warm(self) -> None:
        """Load the list, once, and begin to refresh it where that is configured. Thread safe.

        Raises ImportError where genai-prices cannot be imported.
        """
        with _lock:
            if self.quotes is None:
                with _collecting_seldom():
                    from spanledger.pricing.price_list import load  # noqa: PLC0415 - not at import

                    self.quotes = Quotes(load(), self._config)
            if self._config.refresh and self._refreshing is None:
                self._start_refreshing()

    def wait(self) -> Quotes | None:
        """The quotes; None where they cannot be there before the caller has waited long enough."""
        if self.quotes is not None or self._patience_s <= 0:
            return self.quotes
        began = time.monotonic()
        thread = self._loading
        if thread is None or not thread.is_alive():
            thread = threading.Thread(target=self._load, name="spanledger-prices", daemon=True)
            self._loading = thread
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down
                self._patience_s = 0.0
                return None
        thread.join(self._patience_s)
        self._patience_s -= time.monotonic() - began
        return self.quotes

    def close(self) -> None:
        """Stop refreshing."""
        self._closed.set()

    def _load(self) -> None:
        with swallow("loading prices"):
            self.warm()
        if self.quotes is None:
            self._patience_s = 0.0  # a second attempt would fail as this one did

    def _start_refreshing(self) -> None:
        self._refreshing = threading.Thread(
            target=self._refresh, name="spanledger-price-refresh", daemon=True
        )
        self._refreshing.start()

    def _refresh(self) -> None:
        from spanledger.pricing.price_list import fetch  # noqa: PLC0415 - not at import

        while not self._closed.is_set():
            with swallow("refreshing prices"):
                newer = fetch(self._config.refresh_url)
                if newer is not None:
                    self.quotes = Quotes(newer, self._config)
            self._closed.wait(_REFRESH_EVERY_S)

    def after_fork(self) -> None:
        """A child process has none of its parent's threads."""
        self._loading = None
        if self._refreshing is not None and not self._closed.is_set():
            self._closed = threading.Event()
            self._start_refreshing()


@contextmanager
def _collecting_seldom() -> Generator[None]:
    """Loading makes many objects, and all of them stay: a collector that comes every 700 objects
    would look at them, and at all of the application's, for two thirds of the time it takes.
    """
    before = gc.get_threshold()
    seldom = (max(before[0], _COLLECT_AFTER), *before[1:]) if before[0] else before
    gc.set_threshold(*seldom)
    try:
        yield
    finally:
        if gc.get_threshold() == seldom:  # else the application has set its own meanwhile
            gc.set_threshold(*before)


# Loading is importing, which is the whole process's; a fork in the midst of it would leave the
# child a module that is never ready. So a fork waits for it, though not for ever: a thread that
# imports may itself wait for the forking one.
_lock = threading.Lock()
_held_for_fork = False
_loaders: Final[weakref.WeakSet[Loader]] = weakref.WeakSet()


def _before_fork() -> None:
    global _held_for_fork  # noqa: PLW0603 - handed from before the fork to after it
    _held_for_fork = _lock.acquire(timeout=_FORK_PATIENCE_S)


def _after_fork_in_parent() -> None:
    if _held_for_fork:
        _lock.release()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.Lock()
    with swallow("fork"):
        for loader in list(_loaders):
            loader.after_fork()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
