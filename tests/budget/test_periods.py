"""Periods: their edges in zones whose clocks change, and that they follow each other without a gap."""

import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.budget.periods import (
    KINDS,
    Period,
    PeriodKind,
    load_zone,
    period_at,
    period_before,
)

HOUR = 3600 * 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ns(iso: str) -> int:
    return int(datetime.fromisoformat(iso).replace(tzinfo=UTC).timestamp()) * 10**9


def edges(period: Period) -> tuple[str, str]:
    start, end = (EPOCH + timedelta(seconds=t // 10**9) for t in (period.start_ns, period.end_ns))
    return f"{start:%Y-%m-%d %H:%M}", f"{end:%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("kind", "zone", "at", "key", "start", "end", "hours"),
    [
        ("month", "UTC", "2026-02-10", "2026-02", "2026-02-01 00:00", "2026-03-01 00:00", 672),
        ("month", "UTC", "2028-02-29T23:59", "2028-02", "2028-02-01 00:00", "2028-03-01 00:00", 696),
        # Berlin: clocks forward on 29 March, back on 25 October.
        ("month", "Europe/Berlin", "2026-02-28T23:00", "2026-03", "2026-02-28 23:00", "2026-03-31 22:00", 743),
        ("month", "Europe/Berlin", "2026-10-31T22:59", "2026-10", "2026-09-30 22:00", "2026-10-31 23:00", 745),
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29", "2026-03-28 23:00", "2026-03-29 22:00", 23),
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25", "2026-10-24 22:00", "2026-10-25 23:00", 25),
        # New York: clocks forward on 8 March, back on 1 November.
        ("month", "America/New_York", "2026-03-01T05:00", "2026-03", "2026-03-01 05:00", "2026-04-01 04:00", 743),
        ("month", "America/New_York", "2026-11-01T03:59", "2026-10", "2026-10-01 04:00", "2026-11-01 04:00", 744),
        ("day", "America/New_York", "2026-11-01T12:00", "2026-11-01", "2026-11-01 04:00", "2026-11-02 05:00", 25),
        ("week", "America/New_York", "2026-11-01T12:00", "2026-W44", "2026-10-26 04:00", "2026-11-02 05:00", 169),
        # Kathmandu: UTC+5:45, no change of clocks.
        ("month", "Asia/Kathmandu", "2026-01-31T18:15", "2026-02", "2026-01-31 18:15", "2026-02-28 18:15", 672),
        ("month", "Asia/Kathmandu", "2026-01-31T18:14", "2026-01", "2025-12-31 18:15", "2026-01-31 18:15", 744),
        # Weeks start on Monday, and belong to the year of their Thursday.
        ("week", "UTC", "2027-01-03T23:59", "2026-W53", "2026-12-28 00:00", "2027-01-04 00:00", 168),
        # Clocks forward over midnight: 6 September 2026 begins at 01:00 in Santiago.
        ("day", "America/Santiago", "2026-09-06T04:30", "2026-09-06", "2026-09-06 04:00", "2026-09-07 03:00", 23),
    ],
)  # fmt: skip
def test_edges(
    kind: PeriodKind, zone: str, at: str, key: str, start: str, end: str, hours: int
) -> None:
    period = period_at(kind, ZoneInfo(zone), ns(at))
    assert (period.key, *edges(period)) == (key, start, end)
    assert period.length_s == hours * 3600
    assert f"{period.resets_at:%Y-%m-%d %H:%M %Z}" == f"{end} UTC"


def test_an_instant_with_the_date_of_a_day_that_is_over() -> None:
    # At 00:01 of 7 November 2010 Goose Bay's clocks went back to 23:01: by date the 6th began anew.
    zone = ZoneInfo("America/Goose_Bay")
    day = period_at("day", zone, ns("2010-11-07T12:00"))
    again = day.start_ns + HOUR // 2
    assert (EPOCH + timedelta(microseconds=again // 1000)).astimezone(zone).day == 6
    assert period_at("day", zone, again) == day


def test_a_day_that_never_was() -> None:
    # Samoa had no 30 December 2011.
    zone = ZoneInfo("Pacific/Apia")
    after = period_at("day", zone, ns("2011-12-30T12:00"))
    assert after.key == "2011-12-31"
    assert period_before(after, zone).key == "2011-12-29"


zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/Goose_Bay",
     "Pacific/Apia", "America/Santiago", "Africa/Cairo", "Australia/Lord_Howe", "America/Havana"]
).map(load_zone)  # fmt: skip
instants = st.integers(0, ns("2040-01-01"))


@given(st.sampled_from(KINDS), zones, instants)
def test_every_instant_has_one_period(kind: PeriodKind, zone: tzinfo, at: int) -> None:
    period = period_at(kind, zone, at)
    assert period.start_ns <= at < period.end_ns
    assert period_at(kind, zone, period.start_ns) == period
    assert period_at(kind, zone, period.end_ns - 1) == period
    following = period_at(kind, zone, period.end_ns)
    assert following.start_ns == period.end_ns
    assert following.key > period.key
    assert period_before(following, zone) == period


@given(zones, instants)
def test_days_make_up_months_and_weeks(zone: tzinfo, at: int) -> None:
    for kind in ("week", "month"):
        whole = period_at(kind, zone, at)
        assert period_at("day", zone, whole.start_ns).start_ns == whole.start_ns
        assert period_at("day", zone, whole.end_ns - 1).end_ns == whole.end_ns


def test_an_unknown_zone() -> None:
    for name in ("Europe/Bärlin", "../etc/passwd", "", "Europe", "\0"):
        with pytest.raises(ValueError, match="name of the IANA database"):
            load_zone(name)


@pytest.fixture
def without_tzdata() -> Callable[[], None]:
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=())
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(to=before)
    ZoneInfo.clear_cache()


def test_no_database(without_tzdata: None) -> None:
    with pytest.raises(ValueError, match="pip install tzdata, or use UTC"):
        load_zone("Europe/Berlin")
    assert period_at("day", load_zone("UTC"), ns("2026-11-03")).key == "2026-11-03"
