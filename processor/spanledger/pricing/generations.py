"""A bounded mapping without a lock."""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Generations(Generic[K, V]):
    """Keeps the last `size` keys that were put or found at least, and at most twice as many.

    Two dictionaries, young and old: when the young one is full it becomes the old one, and the old
    one is dropped. Threads need no lock (and a fork finds none held): at worst two of them drop an
    entry too many.
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size: Final = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value of `key`, or None."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Set the value of `key`."""
        young = self._young
        if len(young) >= self._size and key not in young:
            self._old = young
            self._young = young = {}
        young[key] = value

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())
