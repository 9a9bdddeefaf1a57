"""Periods: calendar days, weeks and months in a time zone, as stretches between two instants of
UTC.
"""

from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

PeriodKind = Literal["day", "week", "month"]
KINDS: Final[tuple[PeriodKind, ...]] = ("day", "week", "month")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Period(NamedTuple):
    """One period. Its start belongs to it, its end to the next one; Unix nanoseconds.

    key: `2026-11-03`, `2026-W45` or `2026-11`.
    """

    kind: PeriodKind
    key: str
    start_ns: int
    end_ns: int

    @property
    def resets_at(self) -> datetime:
        """Its end, in UTC."""
        return _EPOCH + timedelta(microseconds=self.end_ns // 1000)

    @property
    def length_s(self) -> float:
        """How long it is: a day with a change of clocks is no 86,400 s."""
        return (self.end_ns - self.start_ns) / 1e9


def load_zone(name: str) -> tzinfo:
    """The time zone of that name. Raises ValueError, which says what to do."""
    if name == "UTC":
        return UTC  # no database is needed for it
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    if not available_timezones():
        raise ValueError("This machine has no time zone database: pip install tzdata, or use UTC.")
    raise ValueError('Use a name of the IANA database, such as "UTC" or "Europe/Berlin".')


def period_at(kind: PeriodKind, zone: tzinfo, ns: int) -> Period:
    """The period that the instant `ns` falls into."""
    first = _first_day(kind, (_EPOCH + timedelta(microseconds=ns // 1000)).astimezone(zone).date())
    period = _period(kind, zone, first)
    # Where clocks go back over midnight, some instants bear the date of a day that is over:
    # instants decide, not dates.
    while ns >= period.end_ns:
        first = _next_first_day(kind, first)
        period = _period(kind, zone, first)
    return period


def period_before(period: Period, zone: tzinfo) -> Period:
    """The period that ended when `period` started."""
    return period_at(period.kind, zone, period.start_ns - 1000)


def _first_day(kind: PeriodKind, day: date) -> date:
    if kind == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if kind == "week" else day


def _next_first_day(kind: PeriodKind, first: date) -> date:
    if kind == "month":
        return _first_day(kind, first + timedelta(days=31))
    return first + timedelta(days=7 if kind == "week" else 1)


@lru_cache(maxsize=512)
def _period(kind: PeriodKind, zone: tzinfo, first: date) -> Period:
    return Period(
        kind,
        _key(kind, first),
        _start_of(first, zone),
        _start_of(_next_first_day(kind, first), zone),
    )


def _key(kind: PeriodKind, first: date) -> str:
    if kind == "month":
        return f"{first.year:04}-{first.month:02}"
    if kind == "week":
        year, week, _ = first.isocalendar()
        return f"{year:04}-W{week:02}"
    return first.isoformat()


def _start_of(day: date, zone: tzinfo) -> int:
    # A midnight that clocks skip is, with the offset from before the change, the instant of the
    # change: the day's first.
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return (midnight.astimezone(UTC) - _EPOCH) // _MICROSECOND * 1000
