"""The one place that swallows our own errors: whatever breaks in spanledger, the user's call goes
on.

    with swallow("settle"):
        ...

An error is logged once per place and kind, and counted always (metric
`spanledger.internal.errors`).
"""

import logging
from collections import Counter
from types import TracebackType
from typing import Final

from spanledger.api.errors import BudgetError

log: Final = logging.getLogger("spanledger")

internal_errors: Final[Counter[str]] = Counter()
"""How many errors were swallowed, by place."""

_said: set[tuple[str, object]] = set()
_reraise = False


def reraise_internal_errors(on: bool) -> None:  # noqa: FBT001 - a switch
    """Let our own errors out instead; for tests, where a swallowed error would hide a defect."""
    global _reraise  # noqa: PLW0603 - a switch of the test suite
    _reraise = on


class swallow:  # noqa: N801 - reads as a statement
    """Context manager that keeps an error of ours from the user; budget errors and exits pass."""

    __slots__ = ("place",)

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        if not isinstance(error, Exception) or isinstance(error, BudgetError):
            return False
        internal_errors[self.place] += 1
        if _reraise:
            return False
        say_once(
            self.place,
            kind,
            "spanledger failed in %s; the application goes on",
            self.place,
            error=error,
        )
        return True


def say_once(
    place: str,
    kind: object,
    message: str,
    *args: object,
    error: BaseException | None = None,
    level: int = logging.WARNING,
) -> None:
    """Log `message` the first time that this place has this kind of trouble."""
    if (place, kind) not in _said:
        _said.add((place, kind))
        log.log(level, message, *args, exc_info=error)


def forget_said() -> None:
    """Let everything be said again; for tests."""
    _said.clear()
