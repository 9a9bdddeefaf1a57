"""The background thread of a Redis store: signs of life of leaders, and news for followers."""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from spanledger.api.guard import swallow
from spanledger.cache.forks import forget_at_fork
from spanledger.cache.redis_link import IDLE_S
from spanledger.cache.store import Reply, StoreDownError, Waiter, tell

FIRST_LOOK_S: Final = 0.005
LAST_LOOK_S: Final = 0.05
"""A follower looks every tenth of the time that it has waited so far, within these bounds."""

Flight = tuple[str, int]
"""Key and token."""

Check = tuple[str, int, bool]
"""Key, token, and whether to renew the lease (a leader) or only to look (a follower)."""


class _Led:
    __slots__ = ("due", "holder")

    def __init__(self, holder: object, due: float) -> None:
        self.holder = weakref.ref(holder)
        self.due = due


class _Watched:
    __slots__ = ("due", "since", "waiters")

    def __init__(self, now: float) -> None:
        self.since = now
        self.due = now + FIRST_LOOK_S
        self.waiters: set[Waiter] = set()


class Keeper:
    """Renews leases while their holders are referenced, and wakes followers.

    check: ask Redis about flights, in one round trip: whether each is still its leader's and on its
        way. Raises StoreDownError.
    renew_s: seconds between two signs of life of a leader.
    """

    def __init__(self, check: Callable[[list[Check]], list[bool]], renew_s: float) -> None:
        self._check = check
        self._renew_s = renew_s
        self.after_fork()
        forget_at_fork(self)

    def after_fork(self) -> None:
        """Forget the parent's flights: they are the parent's to keep."""
        self._work = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0
        self._led: dict[Flight, _Led] = {}
        self._watched: dict[Flight, _Watched] = {}

    def hold(self, flight: Flight, holder: object) -> None:
        with self._work:
            led = self._led[flight] = _Led(holder, time.monotonic() + self._renew_s)
            self._expect(led.due)

    def watch(self, flight: Flight, waiter: Waiter) -> None:
        with self._work:
            watched = self._watched.get(flight)
            if watched is None:
                watched = self._watched[flight] = _Watched(time.monotonic())
            watched.waiters.add(waiter)
            self._expect(watched.due)

    def unwatch(self, flight: Flight, waiter: Waiter) -> None:
        with self._work:
            if watched := self._watched.get(flight):
                watched.waiters.discard(waiter)
                if not watched.waiters:
                    del self._watched[flight]

    def end(self, flight: Flight, news: Reply | None) -> None:
        """A flight of this process has an end: its followers here need not ask Redis."""
        with self._work:
            self._led.pop(flight, None)
            watched = self._watched.pop(flight, None)
        _tell_all(watched, news)

    # -- the thread --------------------------------------------------------------------------------

    def _expect(self, due: float) -> None:
        """See that the thread is awake at `due`."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="spanledger-cache-keeper", daemon=True
            )
            self._thread.start()
        elif due < self._wakes_at:
            self._work.notify()

    def _run(self) -> None:
        while True:
            with self._work:
                checks = self._due()
                if not checks:
                    rest = self._rest()
                    pause = IDLE_S if rest is None else rest
                    self._wakes_at = time.monotonic() + pause
                    woken = self._work.wait(pause)
                    self._wakes_at = 0.0
                    if not woken and rest is None and self._rest() is None:
                        self._thread = None
                        return
                    continue
            with swallow("cache.keeper"):
                self._look(checks)

    def _rest(self) -> float | None:
        """Seconds until something is due; None: nothing is."""
        dues = [led.due for led in self._led.values()]
        dues += [watched.due for watched in self._watched.values()]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _due(self) -> list[Check]:
        now = time.monotonic()
        checks: list[Check] = []
        for flight, led in list(self._led.items()):
            if led.holder() is None:
                del self._led[flight]
            elif led.due <= now:
                led.due = now + self._renew_s
                checks.append((*flight, True))
        for flight, watched in self._watched.items():
            if watched.due <= now:
                pause = (now - watched.since) / 10
                watched.due = now + min(max(pause, FIRST_LOOK_S), LAST_LOOK_S)
                checks.append((*flight, False))
        return checks

    def _look(self, checks: list[Check]) -> None:
        try:
            under_way = self._check(checks)
        except StoreDownError:
            # Followers ask for themselves, learn that Redis is down, and call. Leaders go on as
            # they are.
            under_way = [renew for _, _, renew in checks]
        for (key, token, renew), alive in zip(checks, under_way, strict=True):
            if alive:
                continue
            with self._work:
                gone = self._led if renew else self._watched
                lost = gone.pop((key, token), None)
            if isinstance(lost, _Watched):
                _tell_all(lost, None)


def _tell_all(watched: _Watched | None, news: Reply | None) -> None:
    for waiter in tuple(watched.waiters) if watched else ():
        tell(waiter, news)
