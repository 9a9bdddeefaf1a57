"""`spanledger budgets`: how budgets stand, limits set at run time, and where the money went."""

import argparse
import json
import sys
import time
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from spanledger.api.errors import ConfigurationError, SpanledgerError
from spanledger.api.settings import load_settings
from spanledger.cli.arguments import Subparsers, add_journal, open_to_read

if TYPE_CHECKING:  # the rest is imported where it is needed: other commands do not pay for it
    from rich.console import Console, RenderableType

    from spanledger.budget.config import Slot
    from spanledger.budget.shared import SharedBudgets
    from spanledger.cli.budgets_figures import Figures, Reader

_TOP: Final = 50
_SPENDERS: Final = 5
_EVERY_S: Final = 1.0
_SCOPE: Final = (
    "global, tenant:acme, user:u-17, feature:search, provider:openai, or tenant:acme+feature:search"
)
# As `budget.config.AMOUNTS`, which would cost every command the import of all that budgets are.
_PERIODS: Final = {"daily": "day", "weekly": "week", "monthly": "month"}


def add(subparsers: Subparsers) -> None:
    """Register `spanledger budgets`."""
    parser = subparsers.add_parser(
        "budgets",
        help="show how the budgets stand; set limits; explain where the money went",
        description="Show every budget: limit, spent, held (estimates of calls in flight), "
        "projected at the period's end, tier, and how long the period still is.",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all of it as JSON, amounts exact")
    form.add_argument("--watch", action="store_true", help="show it anew each second")
    _add_top(parser, _TOP, "budgets in the table, 0 for all")
    add_journal(parser)
    parser.set_defaults(func=_show)
    commands = parser.add_subparsers(metavar="set | reset | explain")
    _add_set(commands)
    _add_reset(commands)
    _add_explain(commands)


def _add_set(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "set",
        help="set a scope's limits in all processes, within a second",
        description="Set a scope's limits in all processes that share the ledger, within a second; "
        "they go before the configuration file's until `reset`.",
    )
    parser.add_argument("scope", metavar="SCOPE", help=f"{_SCOPE}; a * stands for each")
    for unit, name in (("usd", "USD"), ("credits", "credits")):
        for how_often, period in _PERIODS.items():
            parser.add_argument(
                f"--{how_often}-{unit}", type=_amount, metavar="N", help=f"{name} in a {period}"
            )
    parser.set_defaults(func=_set)


def _add_reset(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "reset",
        help="take back what was set: the configuration file counts again",
        description="Take back the limits that `set` gave a scope. What was spent stays spent.",
    )
    parser.add_argument("scope", metavar="SCOPE", help=_SCOPE)
    parser.set_defaults(func=_reset)


def _add_explain(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "explain",
        help="show which tenants, users, features, models and calls brought a budget here",
        description="Show what a budget's period consists of so far, from the journal.",
    )
    parser.add_argument("scope", metavar="SCOPE", help=_SCOPE)
    _add_top(parser, _SPENDERS, "lines of each kind")
    add_journal(parser)
    parser.set_defaults(func=_explain)


def _add_top(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    parser.add_argument(
        "--top", type=_count, default=default, metavar="N", help=f"{what}; default: {default}"
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _amount(text: str) -> int:
    from spanledger.budget.shared import limit_of  # noqa: PLC0415

    try:
        return limit_of(Decimal(text))
    except ArithmeticError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# -- the table -------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace) -> int:
    """Show the budgets; the exit code is 1 where there are none. Raises ConfigurationError."""
    from spanledger.cli.budgets_figures import Reader  # noqa: PLC0415

    with closing(Reader(partial(open_to_read, arguments))) as reader:
        found = reader.read(time.time_ns())
        if not found.budgets:
            print(_NO_BUDGETS, file=sys.stderr)
            return 1
        if arguments.json:
            print(json.dumps(_record(found), indent=2))
        elif arguments.watch:
            _watch(reader, found, top=arguments.top)
        else:
            console = _console()
            console.print(_drawn(found, console, top=arguments.top))
    return 0


_NO_BUDGETS: Final = """No budgets yet. Put one into spanledger.toml (or set SPANLEDGER_CONFIG):

    [[budgets]]
    scope = "tenant:*"
    monthly_usd = 200
"""


def _watch(reader: "Reader", found: "Figures", *, top: int) -> None:
    from rich.console import Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console, trouble = _console(), ""
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                table = _drawn(found, console, top=top)
                live.update(Group(table, Text(trouble)) if trouble else table, refresh=True)
                time.sleep(_EVERY_S)
                try:
                    found, trouble = reader.read(time.time_ns()), ""
                except SpanledgerError as error:  # a mistake saved into the file, say
                    trouble = f"Not up to date: {error}"
        except KeyboardInterrupt:
            return


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False)


def _drawn(found: "Figures", console: "Console", *, top: int) -> "RenderableType":
    from spanledger.cli.budgets_table import drawn  # noqa: PLC0415

    return drawn(found, time.time_ns(), console, top=top)


def _record(figures: "Figures") -> dict[str, Any]:
    from spanledger.budget.status import status_of  # noqa: PLC0415

    def exact(value: object) -> object:
        if isinstance(value, Decimal):
            return format(value, "f")
        return value.isoformat() if isinstance(value, datetime) else value

    return {
        "source": figures.source,
        "budgets": [
            {name: exact(value) for name, value in status_of(window)._asdict().items()}
            for window in figures.windows
        ],
    }


# -- limits set at run time ------------------------------------------------------------------------


def _set(arguments: argparse.Namespace) -> int:
    from spanledger.budget.config import AMOUNTS, Slot  # noqa: PLC0415

    scope = _scope(arguments.scope)
    given = {key: getattr(arguments, key) for key in AMOUNTS}
    limits = {
        Slot(scope, *AMOUNTS[key]): limit for key, limit in given.items() if limit is not None
    }
    if not limits:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in AMOUNTS)
        raise _error("", "no amount is given", f"Give one of {options}.")
    _write(limits)
    for slot, limit in limits.items():
        print(f"{slot.scope}: {_text(limit, slot)}, in force within a second")
    return 0


def _reset(arguments: argparse.Namespace) -> int:
    from spanledger.budget.config import AMOUNTS, Slot  # noqa: PLC0415

    scope = _scope(arguments.scope)
    _write({Slot(scope, *amount): None for amount in AMOUNTS.values()})
    print(f"{scope}: as the configuration file says, within a second")
    return 0


def _write(limits: "dict[Slot, int] | dict[Slot, None]") -> None:
    shared = _shared()
    try:
        for slot, limit in limits.items():
            shared.set_limit(slot, limit)
    except OSError as error:
        raise SpanledgerError(f"nothing was set: {error}") from error


def _shared() -> "SharedBudgets":
    from spanledger.cli.budgets_figures import shared_of  # noqa: PLC0415

    settings = load_settings()
    shared = shared_of(settings)
    if shared is None:
        raise settings.origin("ledger").error(
            "is memory://, which no other process can reach",
            "Set it, here and in the application, to sqlite:///ledger.db or redis://host.",
        )
    return shared


def _text(limit: int, slot: "Slot") -> str:
    from spanledger.budget.amounts import from_nano  # noqa: PLC0415

    return f"{from_nano(limit):,f} {'USD' if slot.unit == 'usd' else slot.unit} in a {slot.period}"


# -- explain ---------------------------------------------------------------------------------------


def _explain(arguments: argparse.Namespace) -> int:
    """Explain a scope's budgets; the exit code is 1 where it has none or nothing is recorded."""
    from rich.console import Console  # noqa: PLC0415

    from spanledger.budget.plans import Book  # noqa: PLC0415
    from spanledger.cli.budgets_explain import explain  # noqa: PLC0415
    from spanledger.cli.budgets_figures import config_of, fill, source_of  # noqa: PLC0415

    scope = _scope(arguments.scope)
    if scope.is_template:
        raise _error("", f"{scope} stands for many", "Name one of them, such as tenant:acme.")
    settings = load_settings()
    now_ns = time.time_ns()
    found = Book(config_of(settings), now_ns).of_call(scope, now_ns)
    windows = [window for window in found if window.scope == str(scope)]
    if not windows:
        print(f"{scope} has no budget: `spanledger budgets` lists those there are", file=sys.stderr)
        return 1
    journal = open_to_read(arguments)
    source = source_of(settings, lambda: journal)
    try:
        fill(windows, source, now_ns)
        explain(windows, journal, now_ns, Console(highlight=False), top=arguments.top)
    finally:
        source.close()
        if journal is not None:
            journal.close()
    return 0 if journal is not None else 1


def _scope(text: str) -> Any:
    from spanledger.budget.scopes import Scope  # noqa: PLC0415

    try:
        return Scope.parse(text)
    except ValueError as error:
        raise _error("SCOPE", str(error), f"Write one of {_SCOPE}.") from error


def _error(key: str, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(problem, source="command line", key=key or "SCOPE", remedy=remedy)
