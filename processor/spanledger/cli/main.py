"""The command `spanledger`.

A command is a module with `add(subparsers)`, which registers its parser and sets `func`: a function
from the parsed arguments to the exit code. What is heavy is imported inside of that function, so
that no command pays for another.

Exit codes: 0 done; 1 not done, or something is wrong; 2 the command line or the configuration is
wrong.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final, TextIO

from spanledger.api.errors import ConfigurationError, SpanledgerError
from spanledger.cli import budgets, collector, digest, doctor, export, prices, report, run
from spanledger.cli.demo import command as demo

_COMMANDS: Final = (demo, run, report, digest, export, budgets, prices, doctor, collector)
_BROKEN_PIPE: Final = 141  # what a shell says of a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the process's arguments) names; the exit code."""
    _write_what_cannot_be_shown()
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.func(arguments)
        sys.stdout.flush()
    except ConfigurationError as error:
        print(f"spanledger: {error}", file=sys.stderr)
        return 2
    except SpanledgerError as error:
        print(f"spanledger: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `| head` has seen enough. What Python still has to write at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code


def _write_what_cannot_be_shown() -> None:
    """A tenant's name that the terminal has no letters for must not end the report."""
    out: TextIO = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spanledger",
        description="Which tenant, user and feature spent what on AI and data APIs.",
    )
    parser.add_argument(
        "--version", action="version", version=f"spanledger {version('spanledger')}"
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(subparsers)
    return parser
