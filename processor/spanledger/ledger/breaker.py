"""A breaker: while the store is down nobody waits for it but one prober, the thread that syncs."""

from typing import Final

_SHORTEST_S: Final = 0.05
_LONGEST_S: Final = 1.0


class Breaker:
    """Whether the store is taken to be down. All but `suspect` are for the prober alone."""

    __slots__ = ("_delay_s", "_probe_at", "open")

    def __init__(self) -> None:
        self.open = False
        self._delay_s = 0.0
        self._probe_at = 0.0

    def suspect(self) -> None:
        """Somebody waited too long: nobody else shall, until the next answer of the store."""
        self.open = True

    def failed(self, now: float) -> None:
        """The store gave no answer: probe again in 50 ms, then ever later, at most a second."""
        self.open = True
        self._delay_s = min(max(2 * self._delay_s, _SHORTEST_S), _LONGEST_S)
        self._probe_at = now + self._delay_s

    def succeeded(self) -> None:
        """The store answered."""
        self.open = False
        self._delay_s = 0.0
        self._probe_at = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until the store may be asked (again)."""
        return max(0.0, self._probe_at - now) if self.open else 0.0
