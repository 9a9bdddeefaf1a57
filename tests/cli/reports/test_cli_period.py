"""What --since and --until understand."""

import time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from spanledger.cli.arguments import nanoseconds, since, until

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 3, 30, 10, 30, 15, tzinfo=BERLIN)  # the day after the clocks were set forward


@pytest.fixture(autouse=True)
def _berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def moment(*parts):
    return datetime(*parts, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("today", moment(2026, 3, 30)),
        ("yesterday", moment(2026, 3, 29)),
        ("month", moment(2026, 3, 1)),
        ("2026-02", moment(2026, 2, 1)),
        ("2026-03-29", moment(2026, 3, 29)),
        ("2026-03-29T09:30", moment(2026, 3, 29, 9, 30)),
        ("2026-03-29T09:30:00Z", moment(2026, 3, 29, 11, 30)),
        ("90m", moment(2026, 3, 30, 9, 0, 15)),
    ],
)
def test_since(text, expected):
    assert since(text, NOW) == expected


@pytest.mark.parametrize(("text", "hours"), [("24h", 24), ("7d", 168), ("2w", 336)])
def test_since_by_hours_goes_by_the_clock_also_where_the_clocks_are_set(text, hours):
    now = NOW.astimezone(timezone(timedelta(hours=2)))  # as the command line has it
    assert nanoseconds(now) - nanoseconds(since(text, now)) == hours * 3_600 * 10**9
    assert since("all", NOW) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("all", NOW),
        ("today", moment(2026, 3, 31)),
        ("yesterday", moment(2026, 3, 30)),
        ("month", moment(2026, 4, 1)),
        ("2025-12", moment(2026, 1, 1)),
        ("2026-03-29", moment(2026, 3, 30)),
        ("2026-03-29T09:30", moment(2026, 3, 29, 9, 30)),
    ],
)
def test_until_includes_the_day_and_the_month_that_it_names(text, expected):
    assert until(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "2026-13", "2026-02-30", "7", "7y", "999999w", "-1d"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises((ValueError, OverflowError)):
        since(text, NOW)


def test_nanoseconds_are_exact():
    instant = datetime.fromisoformat("2026-08-01T09:30:00.123457+00:00")
    assert nanoseconds(instant) == 1_785_576_600_123_457_000
    assert nanoseconds(None) is None
