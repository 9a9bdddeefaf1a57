"""The ends of a process that `atexit` does not see, and on which the SDK's last export depends.

- A child of `multiprocessing` runs its finalizers and no more.
- SIGTERM, where nobody handles it, ends a process at once: a job that is stopped, and each worker
  of uvicorn, which handles it, gives the handler back in the end, and raises it again.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

from spanledger.api.guard import swallow

_LONGEST_S: Final = 3.0  # whoever stops a process waits ten seconds or more before killing it


def at_child_exit(callback: Callable[[], object]) -> None:
    """Where this process is a child of `multiprocessing`, call back when it ends, after the
    journal is written.
    """
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, callback, exitpriority=-1)


class AtSigterm:
    """Where SIGTERM would end this process at once, it calls back first, for 3 s at most.

    It does nothing outside of the main thread, and where the application handles the signal.
    """

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):
            signal.signal(signal.SIGTERM, self)

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Handle the signal, and end the process by it."""
        # In a thread: the main thread may hold a lock that the callback needs.
        thread = threading.Thread(target=self._run, name="spanledger-end", daemon=True)
        with swallow("sigterm"):
            thread.start()
            thread.join(_LONGEST_S)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def _run(self) -> None:
        with swallow("sigterm"):
            self._callback()

    def undo(self) -> None:
        """Let SIGTERM be what it was."""
        if signal.getsignal(signal.SIGTERM) is self:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def logger_provider() -> object | None:
    """The application's logger provider; None where nobody has imported what logs are sent by."""
    logs = sys.modules.get("opentelemetry._logs")
    return None if logs is None else logs.get_logger_provider()


def flush_providers(providers: Iterable[object]) -> None:
    """Let the providers send what they have; the API has no word for it, the SDK has."""
    for provider in dict.fromkeys(providers):
        force_flush = getattr(provider, "force_flush", None)
        if force_flush is not None:
            with swallow("exit"):
                force_flush()
