"""Sums by label values, in a bounded number of series, of which none begins anywhere but at 0."""

from collections.abc import Iterator, Mapping
from typing import Final

from spanledger.api import names

Key = tuple[str, ...]
"""The values of a series' labels."""

_FINE: Final = frozenset({names.LABEL_TENANT, names.LABEL_FEATURE})
_COARSE: Final = frozenset(
    {names.LABEL_PROVIDER, names.LABEL_TYPE, names.LABEL_OUTCOME, names.LABEL_REASON}
)


class Sums:
    """One counter: integer sums by label values.

    Past `most` label sets less a reserve, new ones lose their tenant and feature to `other`; then
    all but provider and what kind of thing is counted; then everything. The total is never short.
    """

    def __init__(self, labels: Key, most: int) -> None:
        self.labels = labels
        self._most = max(most, 4)
        self._sums: dict[Key, int] = {}
        self._shown: set[Key] = set()

    def add(self, key: Key, amount: int) -> Key:
        """Add to the sum of `key`; the label set that took it."""
        sums = self._sums
        before = sums.get(key)
        if before is None:
            key = self._fit(key)
            before = sums.get(key, 0)
        sums[key] = before + amount
        return key

    def _fit(self, key: Key) -> Key:
        room = self._most - len(self._sums)
        reserve = max(self._most // 10, 2)
        for still, keep in ((reserve, None), (reserve // 2, _FINE), (1, _COARSE)):
            fitted = key if keep is None else self._coarser(key, keep)
            if room > still or fitted in self._sums:
                return fitted
        return (names.OVERFLOW,) * len(key)

    def _coarser(self, key: Key, which: frozenset[str]) -> Key:
        lost = which is _FINE
        return tuple(
            names.OVERFLOW if (label in which) is lost else value
            for label, value in zip(self.labels, key, strict=True)
        )

    def read(self, *, zero_first: bool) -> Iterator[tuple[Mapping[str, str], int]]:
        """Each label set and its sum.

        zero_first: what is read for the first time is 0 now and its sum the next time: Prometheus'
            `increase()` takes what a series begins with for nothing new.
        """
        for key, amount in self._sums.items():
            new = key not in self._shown
            if new:
                self._shown.add(key)
            yield self.attributes(key), 0 if new and zero_first else amount

    def attributes(self, key: Key) -> dict[str, str]:
        """`key` as metric attributes."""
        return dict(zip(self.labels, key, strict=True))


class Tenants:
    """Which tenants have a label value of their own: the first `most`, later the bigger spenders.

    One that has spent twice what the smallest of the named has takes its place; the series of that
    one stand still from then on. Half of `most` may change so in a process's life.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._changes_left = most // 2
        self._named: dict[str, int] = {}
        self._others: dict[str, int] = {}  # spent under `other`, the longest unheard of first
        self._least = 0  # no named tenant has spent less

    def label(self, tenant: str | None, nano_usd: int) -> str:
        """The label value for a charge of this many nano-USD; empty for nobody's."""
        if tenant is None:
            return ""
        if tenant in self._named or len(self._named) < self._most:
            self._named[tenant] = self._named.get(tenant, 0) + nano_usd
            return tenant
        spent = self._others.pop(tenant, 0) + nano_usd
        if self._changes_left and self._named and spent > 2 * self._least:
            smallest = min(self._named, key=self._named.__getitem__)
            self._least = self._named[smallest]
            if spent > 2 * self._least:
                del self._named[smallest]
                self._named[tenant] = spent
                self._changes_left -= 1
                return tenant
        self._others[tenant] = spent
        if len(self._others) > 10 * self._most:
            del self._others[next(iter(self._others))]
        return names.OVERFLOW


class Recent:
    """Remembers the last `most` things, to count each once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[Key, None] = {}

    def is_new(self, thing: Key) -> bool:
        """Whether `thing` was not seen lately; it is now."""
        seen = self._seen
        new = seen.pop(thing, False) is False
        seen[thing] = None
        if len(seen) > self._most:
            del seen[next(iter(seen))]
        return new
