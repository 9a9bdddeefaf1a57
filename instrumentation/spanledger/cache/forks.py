"""What a forked child process must forget: the threads, locks and connections of its parent."""

import os
import weakref
from typing import Final, Protocol


class Forgetful(Protocol):
    def after_fork(self) -> None:
        """Start anew: nothing of the parent's threads, locks and connections is the child's."""
        ...


_known: Final[weakref.WeakSet[Forgetful]] = weakref.WeakSet()


def forget_at_fork(thing: Forgetful) -> None:
    """Call `thing.after_fork()` in each child process for as long as it lives."""
    _known.add(thing)


def _in_child() -> None:
    for thing in list(_known):
        thing.after_fork()


os.register_at_fork(after_in_child=_in_child)
