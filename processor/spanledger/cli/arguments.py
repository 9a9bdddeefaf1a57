"""Options that several commands have."""

import argparse
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from spanledger.api.errors import ConfigurationError, JournalError
from spanledger.api.settings import Origin, load_settings
from spanledger.ledger.journal import Journal, open_journal
from spanledger.ledger.journal_files import NoJournal

_AGO: Final = re.compile(r"(\d{1,6})([mhdw])")
_AGO_UNIT: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MONTH: Final = re.compile(r"(\d{4})-(\d{2})")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")

EPOCH: Final = datetime.fromtimestamp(0, UTC)
_FORMS: Final = (
    "a date (2026-08-01), a month (2026-08), a time (2026-08-01T09:30), "
    "today, yesterday, month, 24h, 7d, 4w or all"
)
_JOURNAL: Final = (
    "sqlite:///path; default: SPANLEDGER_JOURNAL, the configuration file, or the user's state "
    "directory"
)


class Subparsers(Protocol):
    """What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""

    def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser:  # noqa: A002 - argparse's name
        """Register a subcommand."""
        ...


def add_period(parser: argparse.ArgumentParser, *, start: str = "month", end: str = "now") -> None:
    """Add --since and --until, with these defaults."""
    parser.add_argument(
        "--since",
        type=_argument(since),
        default=start,
        metavar="WHEN",
        help=f"{_FORMS}; default: {start}, in this machine's time zone",
    )
    parser.add_argument(
        "--until",
        type=_argument(until),
        default=end,
        metavar="WHEN",
        help=f"the same forms; a date or month is included; default: {end}",
    )


def add_journal(parser: argparse.ArgumentParser) -> None:
    """Add --journal."""
    parser.add_argument("--journal", metavar="URL", help=_JOURNAL)


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add --journal and --prometheus, of which one may be given."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--journal", metavar="URL", help=_JOURNAL)
    place.add_argument(
        "--prometheus",
        metavar="URL",
        help="read a whole fleet's Prometheus instead, such as http://localhost:9090",
    )


def period(arguments: argparse.Namespace) -> tuple[datetime | None, datetime]:
    """What --since and --until say. Raises ConfigurationError where they are no period."""
    start: datetime | None = arguments.since
    end: datetime = arguments.until
    if start is not None and end <= start:
        raise ConfigurationError(
            f"{end:%Y-%m-%d %H:%M} is not after {start:%Y-%m-%d %H:%M}, where --since starts",
            source="command line",
            key="--until",
            remedy="Give a later one.",
        )
    return start, end


def open_to_read(arguments: argparse.Namespace) -> Journal | None:
    """The journal that --journal or the settings name.

    Where nothing was recorded yet it says so, and how to start, and returns None.
    Raises ConfigurationError and JournalError.
    """
    url: str | None = arguments.journal
    origin = Origin("command line", "--journal")
    if url is None:
        settings = load_settings()
        url, origin = settings.journal, settings.origin("journal")
    if url == "memory://":
        raise JournalError(
            "journal memory:// lives in the application and cannot be read from outside. "
            "Set SPANLEDGER_JOURNAL=sqlite:///journal.db there and here"
        )
    try:
        return open_journal(url, service="", create=False, origin=origin)
    except NoJournal as nothing:
        print(
            f"{nothing}.\n"
            "Start your application with `spanledger run app.py` (or opentelemetry-instrument):\n"
            "its paid calls are then listed here. `spanledger doctor` says if all is in place.",
            file=sys.stderr,
        )
        return None


def nanoseconds(moment: datetime | None) -> int | None:
    """`moment` as Unix time in nanoseconds."""
    return None if moment is None else (moment - EPOCH) // timedelta(microseconds=1) * 1000


def since(text: str, now: datetime) -> datetime | None:
    """The start of a period; None is the beginning of all. Raises ValueError.

    now: the current time, in the time zone of whoever asks.
    """
    if text == "all":
        return None
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_AGO_UNIT[ago[2]]: int(ago[1])})
    if month := _MONTH.fullmatch(text):
        return _local(datetime(int(month[1]), int(month[2]), 1))  # noqa: DTZ001 - local
    named = {
        "today": midnight(now),
        "yesterday": midnight(now - timedelta(days=1)),
        "month": midnight(now.replace(day=1)),
    }
    return named.get(text) or _local(datetime.fromisoformat(text))


def until(text: str, now: datetime) -> datetime | None:
    """The end of a period, itself excluded; a day or month is included. Raises ValueError."""
    if text in ("now", "all"):
        return now
    start = since(text, now)
    assert start is not None
    if text in ("today", "yesterday") or _DAY.fullmatch(text):
        return midnight(start + timedelta(days=1))
    if text == "month" or _MONTH.fullmatch(text):
        return midnight((start + timedelta(days=31)).replace(day=1))
    return start


def _local(moment: datetime) -> datetime:
    """`moment`; where it names no zone it is this machine's."""
    return moment if moment.tzinfo else moment.astimezone()


def midnight(moment: datetime) -> datetime:
    """The start of that day, by the calendar: some local days have 23 or 25 hours."""
    return _local(datetime(moment.year, moment.month, moment.day))  # noqa: DTZ001 - local


def _argument(parse: Callable[[str, datetime], datetime | None]) -> Callable[[str], Any]:
    def convert(text: str) -> datetime | None:
        try:
            return parse(text, datetime.now(UTC).astimezone())
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{text!r} is not {_FORMS}") from None

    return convert
