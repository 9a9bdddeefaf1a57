"""The throttle of the critical tier: what is left is spread over the rest of the period, call by
call, by their cost.

A cost-weighted GCRA (generic cell rate algorithm): each call moves the time when the budget is back
in step by the time that its cost takes to become due; who comes while that time is too far ahead
waits.
"""

from typing import Final

BURST: Final = 0.01
"""How far ahead of the pace calls may run, in parts of the period: a person's few calls are not
held up, a loop is.
"""


class Pacer:
    """The pace of one budget in one period, for this process. All processes read the same `left`,
    so that one which spends slows down the others.

    It has no lock: two threads that pass at the same time let one call through too early, and the
        ledger holds the limit; a lock that is held while the process forks stops the child for
        good.
    """

    __slots__ = ("_burst_ns", "_due_ns", "_end_ns")

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self._burst_ns = round((end_ns - start_ns) * BURST)
        self._end_ns = end_ns
        self._due_ns = 0  # when the calls let through are in step with the pace

    def wait_s(self, now_ns: int) -> float:
        """Seconds until the next call may go, 0 for now."""
        ahead = min(self._due_ns - self._burst_ns, self._end_ns) - now_ns
        return ahead / 1e9 if ahead > 0 else 0.0

    def passed(self, now_ns: int, cost: int, left: int) -> None:
        """Note a call of `cost` let through while `left` is to last until the period's end
        (nano-units).
        """
        remaining_ns = self._end_ns - now_ns
        if cost > 0 and left > 0 and remaining_ns > 0:
            self._due_ns = max(self._due_ns, now_ns) + cost * remaining_ns // left
