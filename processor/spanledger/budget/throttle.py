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
    """The pace of one budget in one period, for this process: its part of what all processes that
    spend have `left`, with its part of the burst.

    It has no lock: two threads that pass at the same time let one call through too early, and the
        ledger holds the limit; a lock that is held while the process forks stops the child for
        good.
    """

    __slots__ = ("_burst_ns", "_due_ns", "_end_ns", "_recount_ns", "_sharers")

    def __init__(self, start_ns: int, end_ns: int) -> None:
        self._burst_ns = round((end_ns - start_ns) * BURST)
        self._end_ns = end_ns
        self._due_ns = 0  # when the calls let through are in step with the pace
        self._sharers = 1
        self._recount_ns = 0

    def wait_s(self, now_ns: int) -> float:
        """Seconds until the next call may go, 0 for now."""
        ahead = min(self._due_ns - self._burst_ns, self._end_ns) - now_ns
        return ahead / 1e9 if ahead > 0 else 0.0

    def passed(self, now_ns: int, cost: int, left: int, sharers: int = 1) -> None:
        """Note a call of `cost` let through while `left` is to last until the period's end
        (nano-units), for the `sharers` processes that spend now.
        """
        # Who is held back does not spend for the time, and is not counted: the most of late.
        if sharers >= self._sharers or now_ns >= self._recount_ns:
            self._sharers = sharers
            self._recount_ns = now_ns + self._burst_ns
        remaining_ns = self._end_ns - now_ns
        if cost > 0 and left > 0 and remaining_ns > 0:
            ahead_ns = cost * self._sharers * remaining_ns // left
            self._due_ns = max(self._due_ns, now_ns) + ahead_ns
