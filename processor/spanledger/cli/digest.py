"""`spanledger digest`: yesterday's spend beside the week before, told to people once a day."""

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import load_settings
from spanledger.cli.arguments import Subparsers, add_period, add_place, open_to_read, period

if TYPE_CHECKING:  # the rest is imported where it is needed: other commands do not pay for it
    from spanledger.budget.windows import BudgetReading
    from spanledger.cli.digest_figures import Digest

_TOP: Final = 10
_SMTP: Final = "localhost:25"
_FORMATS: Final = ("slack", "teams", "json")


def add(subparsers: Subparsers) -> None:
    """Register `spanledger digest`."""
    parser = subparsers.add_parser(
        "digest",
        help="tell people what was spent yesterday: printed, to a chat, or by mail",
        description="Yesterday's spend by provider, feature and tenant, what changed against the "
        "same day of the week before, budgets and their projection, calls without a price.",
    )
    add_period(parser, start="yesterday", end="yesterday")
    add_place(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--webhook", metavar="URL", help="post it there, in the form of --format")
    way.add_argument(
        "--mail", metavar="TO", type=_address, action="append", help="send it to this address"
    )
    parser.add_argument("--format", choices=_FORMATS, help="what the webhook takes")
    parser.add_argument(
        "--smtp",
        metavar="HOST:PORT",
        type=_relay,
        default=_SMTP,
        help=f"the relay that takes the mail; default: {_SMTP}",
    )
    parser.add_argument("--mail-from", metavar="FROM", type=_address, help="the mail's sender")
    parser.add_argument(
        "--top",
        type=int,
        default=_TOP,
        metavar="N",
        help=f"rows of each table, 0 for all; default: {_TOP}",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent")
    parser.set_defaults(func=run)


def _address(text: str) -> str:
    name, at, host = text.rpartition("@")
    if not (name and at and host) or not text.isprintable() or any(c in text for c in " ,<>"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mail address")
    return text


def _relay(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def run(arguments: argparse.Namespace) -> int:
    """Make the digest and bring it where it is wanted; the exit code is 1 where there is no journal
    yet. Raises SpanledgerError where it could not be sent.
    """
    if arguments.webhook is not None and arguments.format is None:
        raise _error(
            "--format", "is missing", f"Say what the webhook takes: {', '.join(_FORMATS)}."
        )
    since, until = period(arguments)
    if since is None:
        raise _error("--since", "all has no week before", "Give a day, such as yesterday.")
    digest = _digest(arguments, since, until)
    if digest is None:
        return 1
    if arguments.mail:
        _mail(arguments, digest)
    elif arguments.webhook is not None or arguments.format is not None:
        _post(arguments, digest)
    else:
        _print(digest, arguments.top)
    return 0


def _error(key: str, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(problem, source="command line", key=key, remedy=remedy)


def _digest(arguments: argparse.Namespace, since: datetime, until: datetime) -> "Digest | None":
    from spanledger.cli.digest_figures import JournalBooks, make_digest  # noqa: PLC0415

    now = datetime.now(UTC).astimezone()
    if arguments.prometheus is not None:
        from spanledger.cli.prometheus import Prometheus  # noqa: PLC0415 - not for every digest
        from spanledger.cli.report_prometheus import Fleet  # noqa: PLC0415

        fleet = Fleet(Prometheus(arguments.prometheus))
        return make_digest(fleet, since, until, now, fleet=True)
    journal = open_to_read(arguments)
    if journal is None:
        return None
    with closing(journal):
        books = JournalBooks(journal, partial(_budgets, arguments))
        return make_digest(books, since, until, now, fleet=False)


def _budgets(arguments: argparse.Namespace, now_ns: int) -> "Iterable[BudgetReading]":
    from spanledger.cli.budgets_figures import config_of, figures, source_of  # noqa: PLC0415

    settings = load_settings()
    config = config_of(settings)
    if not config.budgets:
        return []
    with closing(source_of(settings, partial(open_to_read, arguments))) as source:
        return [window.reading() for window in figures(config, source, now_ns).windows]


def _mail(arguments: argparse.Namespace, digest: "Digest") -> None:
    from spanledger.cli.digest_delivery import mail, send  # noqa: PLC0415

    message = mail(digest, arguments.mail, arguments.mail_from, top=arguments.top)
    if not arguments.dry_run:
        send(message, arguments.smtp)
        return
    for name in ("From", "To", "Subject"):
        print(f"{name}: {message[name]}")
    text = message.get_body(("plain",))
    assert text is not None
    print(f"\n{text.get_content()}")


def _post(arguments: argparse.Namespace, digest: "Digest") -> None:
    from spanledger.cli.digest_messages import message  # noqa: PLC0415

    content = message(digest, arguments.format, top=arguments.top)
    if arguments.webhook is None or arguments.dry_run:
        json.dump(content, sys.stdout, indent=2)
        print()
        return
    from spanledger.cli.digest_delivery import post  # noqa: PLC0415

    post(arguments.webhook, content)


def _print(digest: "Digest", top: int) -> None:
    from rich.console import Console  # noqa: PLC0415 - rich takes its time

    from spanledger.cli.digest_text import drawn  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(drawn(digest, console, top=top), crop=False)
