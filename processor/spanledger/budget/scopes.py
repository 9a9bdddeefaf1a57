"""Scopes: what a budget is for. `global`, `tenant:acme`, `feature:search`, or several at once,
joined by `+`.

In a scope, names are escaped: what a name may contain (`+`, `|`, a lone `*`, `%`) stands as `%2B`,
    `%7C`, `%2A`, `%25`. They come from applications, and one that contains a joint must not pass
    for a combination, nor one called `*` for all.
"""

import re
from typing import Final, NamedTuple, Self

DIMENSIONS: Final = ("tenant", "user", "feature", "provider")
ANY: Final = "*"
"""As a name: each tenant (user, ...) gets a budget of its own."""

_JOINT: Final = re.compile(rf"\+(?=(?:{'|'.join(DIMENSIONS)}):)")
_SPECIAL: Final = re.compile(r"[%+*|]")
_ESCAPED: Final = re.compile(r"%(25|2B|2A|7C)")


def escape(name: str) -> str:
    """A name as it stands in a scope."""
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", name)


def unescape(name: str) -> str:
    """The name that `escape` was given."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)


class Scope(NamedTuple):
    """A scope. Names are escaped, `*` (ANY) stands for each, None for "does not matter"; all None
    is the global scope.
    """

    tenant: str | None = None
    user: str | None = None
    feature: str | None = None
    provider: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The scope that `text` stands for. Raises ValueError, which says what is wrong with it."""
        if text == "global":
            return cls()
        names: dict[str, str] = {}
        for part in _JOINT.split(text):
            dimension, colon, name = part.partition(":")
            if dimension not in DIMENSIONS or not colon or not name:
                known = ", ".join(f"{dimension}:NAME" for dimension in DIMENSIONS)
                raise ValueError(f"{part!r} is not global or one of {known}")
            if dimension in names:
                raise ValueError(f"{text!r} names {dimension} twice")
            names[dimension] = name if name == ANY else escape(unescape(name))
        return cls(**names)

    @classmethod
    def of(
        cls,
        tenant: str | None = None,
        user: str | None = None,
        feature: str | None = None,
        provider: str | None = None,
    ) -> Self:
        """The scope of these names, as applications have them."""
        return cls(*(name and escape(name) for name in (tenant, user, feature, provider)))

    def __str__(self) -> str:
        parts = [f"{d}:{name}" for d, name in zip(DIMENSIONS, self, strict=True) if name]
        return "+".join(parts) or "global"

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The places of the dimensions that it names."""
        return tuple(place for place, name in enumerate(self) if name)

    @property
    def is_template(self) -> bool:
        """It stands for many scopes: one for each tenant, user, ..."""
        return ANY in self

    def within(self, dimensions: tuple[int, ...]) -> "Scope":
        """This scope with only the dimensions at these places."""
        return Scope(*(name if place in dimensions else None for place, name in enumerate(self)))

    def covers(self, other: "Scope") -> bool:
        """`other` is this scope or, this being a template, one of those it stands for."""
        return all(
            mine == its or (mine == ANY and its is not None)
            for mine, its in zip(self, other, strict=True)
        )
