"""Threads of ours that wait for the network in the place of an event loop.

Not the loop's default executor, where an application's own work may stand in the way for seconds.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from spanledger.cache.forks import forget_at_fork

T = TypeVar("T")


class Workers:
    """At most `most` threads, each started when it is needed first; a forked child has its own."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self.after_fork()
        forget_at_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[[], T]) -> "Future[T]":
        """Run `function` in one of the threads. Raises RuntimeError: the process is about to
        end.
        """
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
        return self._pool.submit(function)
