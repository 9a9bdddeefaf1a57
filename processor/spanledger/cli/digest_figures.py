"""What a digest says, before it takes a form: a day's spend beside that of the week before."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from spanledger.api.errors import ConfigurationError, SpanledgerError
from spanledger.budget.tiers import NAMES as TIERS
from spanledger.budget.windows import BudgetReading
from spanledger.cli.arguments import nanoseconds
from spanledger.ledger.journal import Journal
from spanledger.ledger.journal_totals import Total, Unpriced

DIMENSIONS: Final = ("provider", "feature", "tenant")
_MOST_MOVES: Final = 3
_LEAST_MOVE: Final = 0.05  # in parts of the larger of the two totals


class Books(Protocol):
    """Where the figures come from: a journal, or a fleet's Prometheus. Raises SpanledgerError."""

    place: str

    def totals(self, by: Sequence[str], since: datetime, until: datetime) -> list[Total]: ...
    def unpriced(self, since: datetime, until: datetime) -> list[Unpriced]: ...
    def budgets(self, now: datetime) -> list[BudgetReading]: ...


class JournalBooks:
    """The figures of this machine's journal. `read_budgets`: the budgets as they stand at a time in
    Unix nanoseconds.
    """

    def __init__(
        self, journal: Journal, read_budgets: Callable[[int], Iterable[BudgetReading]]
    ) -> None:
        self.place = journal.url
        self._journal = journal
        self._read_budgets = read_budgets

    def totals(self, by: Sequence[str], since: datetime, until: datetime) -> list[Total]:
        return self._journal.totals(by, nanoseconds(since), nanoseconds(until))

    def unpriced(self, since: datetime, until: datetime) -> list[Unpriced]:
        found = self._journal.unpriced(nanoseconds(since), nanoseconds(until))
        return [line for line in found if line.cost_status == "unknown"]

    def budgets(self, now: datetime) -> list[BudgetReading]:
        return list(self._read_budgets(nanoseconds(now) or 0))


class Spend(NamedTuple):
    """What was spent under one name, and in the week before.

    name: None for calls that name none.
    nano_usd: None where calls were made and none of them has a price.
    before_nano_usd: None likewise.
    unpriced_calls: of `calls`, those that are missing in `nano_usd`, in whole or in part.
    """

    name: str | None
    nano_usd: int | None
    before_nano_usd: int | None
    calls: int
    unpriced_calls: int

    @property
    def moved(self) -> int:
        """By how much it is more than before, nano-USD."""
        return (self.nano_usd or 0) - (self.before_nano_usd or 0)


class Move(NamedTuple):
    """Where a change of the total comes from."""

    dimension: str
    spend: Spend


class Digest(NamedTuple):
    """What a digest says.

    weeks: how many weeks before `since` what it is compared with began.
    compared: there were calls then.
    groups: by name of the dimension; the dearest first, what spends nothing any more at the end.
    budgets: the worst first, as they stood `now`.
    budgets_error: why there are none; None where there may be none.
    fleet: the figures are those of a fleet's Prometheus, and rounded.
    """

    place: str
    since: datetime
    until: datetime
    now: datetime
    weeks: int
    compared: bool
    total: Spend
    saved_nano_usd: int
    groups: dict[str, list[Spend]]
    moves: list[Move]
    budgets: list[BudgetReading]
    budgets_error: str | None
    unpriced: list[Unpriced]
    fleet: bool

    def earlier(self) -> tuple[datetime, datetime]:
        """The period that it is compared with."""
        return weeks_before(self.since, self.weeks), weeks_before(self.until, self.weeks)


def make_digest(
    books: Books, since: datetime, until: datetime, now: datetime, *, fleet: bool
) -> Digest:
    """The digest of the time from `since` to before `until`. Raises SpanledgerError."""
    weeks = max(-(-(until - since) // timedelta(weeks=1, hours=1)), 1)
    earlier = weeks_before(since, weeks), weeks_before(until, weeks)
    (total,), (before,) = books.totals((), since, until), books.totals((), *earlier)
    groups = {
        name: _beside(books.totals((name,), since, until), books.totals((name,), *earlier))
        for name in DIMENSIONS
    }
    compared = before.calls > 0
    budgets, error = _budgets(books, now)
    return Digest(
        books.place,
        since,
        until,
        now,
        weeks,
        compared,
        _spend(None, total, before),
        total.saved_nano_usd,
        groups,
        _moves(groups, max(total.nano_usd or 0, before.nano_usd or 0)) if compared else [],
        budgets,
        error,
        books.unpriced(since, until),
        fleet,
    )


def weeks_before(moment: datetime, weeks: int) -> datetime:
    """The same weekday and time of day, by the calendar: where clocks were changed in between it is
    an hour more or less.
    """
    local = moment.astimezone().replace(tzinfo=None)
    return (local - timedelta(weeks=weeks)).astimezone()


def used_part(budget: BudgetReading) -> float:
    """The part of the limit that is spent or held."""
    used = budget.spent + budget.held
    return used / budget.limit if budget.limit else float("inf") if used else 0.0


def _budgets(books: Books, now: datetime) -> tuple[list[BudgetReading], str | None]:
    """The budgets; the rest of a digest does not depend on the ledger."""
    try:
        found = books.budgets(now)
    except ConfigurationError:
        raise
    except (SpanledgerError, OSError) as error:
        return [], str(error)
    return sorted(found, key=lambda b: (-TIERS.index(b.tier), -used_part(b), b.scope)), None


def _beside(now: Sequence[Total], before: Sequence[Total]) -> list[Spend]:
    was = {total.key: total for total in before}
    here = [_spend(total.key[0], total, was.pop(total.key, None)) for total in now]
    gone = [_spend(total.key[0], None, total) for total in was.values() if total.nano_usd]
    return here + gone


def _spend(name: str | None, now: Total | None, before: Total | None) -> Spend:
    return Spend(
        name,
        now.nano_usd if now else 0,
        before.nano_usd if before else 0,
        now.calls if now else 0,
        now.unpriced_calls + now.partial_calls if now else 0,
    )


def _moves(groups: dict[str, list[Spend]], whole: int) -> list[Move]:
    """Where most of a change comes from."""
    moves = [
        Move(name, spend)
        for name, spends in groups.items()
        for spend in spends
        if abs(spend.moved) > whole * _LEAST_MOVE
    ]
    return sorted(moves, key=lambda move: -abs(move.spend.moved))[:_MOST_MOVES]
