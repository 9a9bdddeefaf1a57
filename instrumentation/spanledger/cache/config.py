"""The [cache] table: which operations are cached, for how long, and how large the cache may grow.

    [cache]
    "scavio/usage" = false

    [cache."scavio/*"]
    fresh = "15m"
    stale = "24h"

A key with a slash is a rule for "provider/operation"; `*` stands for any text. The most specific
rule wins: an exact name, else the pattern with the most characters besides its stars. `false`
excludes an operation. What no rule matches is not cached.
"""

import hashlib
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from spanledger.api.settings import Section

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ENTRY_BYTES: Final = 1024 * 1024
WAIT_S: Final = 30.0
EMPTY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Rule:
    """How the responses of an operation are cached; all times are seconds of age.

    fresh_s: served without asking the provider; 0 collapses identical calls in flight and keeps
        nothing.
    stale_s: served while one caller fetches anew, when the provider fails, and at a hard budget; at
        least fresh_s.
    empty_s: as fresh_s, for an empty result, which is never served stale.
    ahead_s: in the last seconds of freshness one caller fetches anew while the others are still
        served.
    public: one entry for all tenants, instead of one for each.
    pattern: where the rule stands in the configuration.
    """

    fresh_s: float
    stale_s: float
    empty_s: float = EMPTY_S
    ahead_s: float = 0.0
    public: bool = False
    pattern: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The [cache] table.

    rules: by pattern, most specific first; None excludes.
    max_bytes: of the in-memory store, all entries together.
    max_entry_bytes: of one entry as JSON text, before compression, in any store.
    wait_s: how long a follower waits for its leader before it makes the call itself.
    secret: keys the hash of cache keys; the same in every process that shares a Redis.
    """

    rules: tuple[tuple[str, Rule | None], ...] = ()
    max_bytes: int = MAX_BYTES
    max_entry_bytes: int = MAX_ENTRY_BYTES
    wait_s: float = WAIT_S
    secret: bytes = field(default=b"", repr=False)

    def rule(self, provider: str, operation: str) -> Rule | None:
        """The rule for an operation; None where it is not cached."""
        name = f"{provider}/{operation}"
        return next((rule for pattern, rule in self.rules if _matches(pattern, name)), None)


def read_cache_config(section: Section) -> CacheConfig:
    """Read the [cache] table. Raises ConfigurationError."""
    patterns = sorted((key for key in section.values if "/" in key), key=_specific_first)
    secret = section.text("secret", None)
    config = CacheConfig(
        rules=tuple((pattern, _read_rule(section, pattern)) for pattern in patterns),
        max_bytes=_bytes(section, "max_bytes", MAX_BYTES),
        max_entry_bytes=_bytes(section, "max_entry_bytes", MAX_ENTRY_BYTES),
        wait_s=section.seconds("wait", WAIT_S),
        secret=hashlib.blake2b(secret.encode()).digest() if secret else b"",
    )
    section.finish(patterns)
    return config


def _read_rule(section: Section, pattern: str) -> Rule | None:
    if section.values[pattern] is False:
        return None
    table = section.section(pattern)
    fresh = table.seconds("fresh")
    rule = Rule(
        fresh_s=fresh,
        stale_s=table.seconds("stale", fresh),
        empty_s=min(table.seconds("empty", EMPTY_S), fresh),
        ahead_s=table.seconds("refresh_ahead", 0.0),
        public=table.flag("public", default=False),
        pattern=pattern,
    )
    if rule.stale_s < fresh:
        raise table.error(
            "stale", "is shorter than fresh", "It is an age as well: make it longer, or remove it."
        )
    if rule.ahead_s > fresh:
        raise table.error(
            "refresh_ahead", "is longer than fresh", 'Make it shorter, such as "1m" of "15m".'
        )
    table.finish()
    return rule


def _bytes(section: Section, key: str, default: int) -> int:
    return int(section.number(key, Decimal(default), least="1024"))


def _specific_first(pattern: str) -> tuple[bool, int]:
    return "*" in pattern, pattern.count("*") - len(pattern)


def _matches(pattern: str, name: str) -> bool:
    if "*" not in pattern:
        return pattern == name
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(expression, name) is not None
