"""Which budgets are exported: one for many scopes makes one for each tenant, and series cost."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, Protocol

from spanledger.api.values import Tier

TIERS: Final[dict[Tier, int]] = {"ok": 0, "warning": 1, "critical": 2, "hard": 3}

Series = Literal["always", "bounded", "never"]

_CHANGES: Final = 10
"""So many times `most` scopes have series at some time: what a process once showed stays in the
SDK's memory.
"""

_Rank = tuple[int, float]


class BudgetReading(Protocol):
    """How a budget stands, in nano-`unit`."""

    @property
    def scope(self) -> str: ...
    @property
    def period(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def tier(self) -> Tier: ...
    @property
    def limit(self) -> int: ...
    @property
    def spent(self) -> int: ...
    @property
    def held(self) -> int: ...
    @property
    def projected(self) -> int | None: ...
    @property
    def unverified(self) -> bool: ...
    @property
    def known(self) -> bool: ...
    @property
    def series(self) -> Series: ...


class Shown:
    """Chooses: all budgets that have series `always`, and `most` scopes of the `bounded` ones.

    Of these, the worst off at first; later one gives way only to one in a higher tier, lest series
    come and go.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._named: set[str] = set()
        self._ever: set[str] = set()

    def choose(self, readings: Iterable[BudgetReading]) -> tuple[BudgetReading, ...]:
        """Those of `readings` to export."""
        # A budget that is new here begins with what was spent elsewhere, and not with 0.
        known = [r for r in readings if r.known and r.series != "never"]
        always = {r.scope for r in known if r.series == "always"}
        ranks: dict[str, _Rank] = {}
        for reading in known:
            if reading.scope not in always:
                used = (reading.spent + reading.held) / (reading.limit or 1)
                rank = TIERS[reading.tier], used
                ranks[reading.scope] = max(rank, ranks.get(reading.scope, rank))
        self._name(ranks)
        return tuple(r for r in known if r.scope in always or r.scope in self._named)

    def _name(self, ranks: Mapping[str, _Rank]) -> None:
        named = sorted((s for s in self._named if s in ranks), key=ranks.__getitem__)
        others = sorted(
            (scope for scope in ranks if scope not in self._named),
            key=ranks.__getitem__,
            reverse=True,
        )
        unshown = [scope for scope in others if scope not in self._ever]
        barred = set(unshown[max(0, _CHANGES * self._most - len(self._ever)) :])
        others = [scope for scope in others if scope not in barred]
        room = self._most - len(named)
        self._named = {*named, *others[:room]}
        for scope, least in zip(others[room:], named, strict=False):
            if ranks[scope][0] <= ranks[least][0]:
                break
            self._named.remove(least)
            self._named.add(scope)
        self._ever |= self._named
