"""The processes that spend under limits, as the journal knows them: what one of them wrote is found
again where it was killed before it could tell the ledger.

Each says now and then that it lives. Neither process ids nor host names would do: containers share
the one, and a new container has another of the other.
"""

import sqlite3
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from spanledger.ledger.protocol import CHARGE_PREFIX

SILENT_S: Final = 15.0
"""Who has not said for so long that it lives is taken for dead, until it says so again."""

_BETWEEN_TRIES_S: Final = 3.0
_MOST_TRIES: Final = 10
_KEEP_S: Final = 40 * 86_400.0  # the longest period of a budget, and a while


class Spent(NamedTuple):
    """Charges that count in the same budgets: they began in the same quarter of an hour (which no
    time zone splits), and each has these `credits`.

    nano_usd: of all; None where they have no known price.
    """

    tenant: str | None
    user: str | None
    feature: str | None
    provider: str
    started_ns: int
    calls: int
    nano_usd: int | None
    credits: Decimal | None


def say_alive(connection: sqlite3.Connection, name: str, ledger: str) -> None:
    """`name` lives, and spends from `ledger`."""
    connection.execute(
        "INSERT INTO producers (name, ledger, seen_s, tried_s, tries) VALUES (?, ?, ?, 0, 0)"
        " ON CONFLICT (name) DO UPDATE SET seen_s = excluded.seen_s, tries = 0",
        (name, ledger, time.time()),
    )


def claim_silent(connection: sqlite3.Connection, ledger: str) -> list[str]:
    """Those of `ledger` that seem dead, each given to one process at a time, and not for ever."""
    now = time.time()
    connection.execute("DELETE FROM producers WHERE seen_s < ?", (now - _KEEP_S,))
    found = connection.execute(
        "UPDATE producers SET tries = tries + 1, tried_s = ?"
        " WHERE ledger = ? AND seen_s < ? AND tried_s < ? AND tries < ? RETURNING name",
        (now, ledger, now - SILENT_S, now - _BETWEEN_TRIES_S, _MOST_TRIES),
    )
    return [name for (name,) in found.fetchall()]


def forget(connection: sqlite3.Connection, name: str) -> None:
    """`name` has told the ledger everything."""
    connection.execute("DELETE FROM producers WHERE name = ?", (name,))


def spent_by(connection: sqlite3.Connection, producer: str, since_ns: int) -> Sequence[Spent]:
    """What `producer` spent in calls that began at `since_ns` (Unix nanoseconds) or later."""
    prefix = producer[:CHARGE_PREFIX]
    found = connection.execute(
        "SELECT tenant_id, user_id, feature, provider, min(timestamp_ns), count(*),"
        " sum(nano_usd), credits FROM charges"
        " WHERE charge_id >= ? AND charge_id < ? AND timestamp_ns >= ?"
        " GROUP BY tenant_id, user_id, feature, provider, timestamp_ns / 900000000000,"
        " nano_usd IS NULL, credits",
        (prefix, f"{prefix}g", since_ns),  # g: after all hexadecimal digits
    )
    return [
        Spent(*line)._replace(credits=None if line[-1] is None else Decimal(line[-1]))
        for line in found.fetchall()
    ]
