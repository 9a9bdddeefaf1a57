"""`spanledger run`: OpenTelemetry's launcher with defaults that suit a machine without a collector.

It becomes `opentelemetry-instrument`, which becomes the application: the process stays the same, so
that signals and the exit code are the application's own.
"""

import argparse
import importlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from spanledger.api.errors import JournalError
from spanledger.api.settings import Settings
from spanledger.cli.arguments import Subparsers
from spanledger.cli.configuration import check_configuration
from spanledger.ledger.journal import Journal
from spanledger.ledger.journal_place import TemporaryJournalError, locate, prepare
from spanledger.ledger.protocol import open_ledger

_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
_NOT_FOUND: Final = 127  # what a shell answers


def add(subparsers: Subparsers) -> None:
    """Register `spanledger run`."""
    parser = subparsers.add_parser(
        "run",
        help="start an application with every paid call metered",
        description=(
            "Start COMMAND (or a .py file, with this Python) under opentelemetry-instrument. Where "
            "the environment names no OTLP endpoint and no exporter, none is used, and nothing "
            "complains about a missing collector."
        ),
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="[--] COMMAND ...")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Become the application; returns only where it cannot. Raises ConfigurationError."""
    given: list[str] = arguments.command
    command = command_line(given[1:] if given[:1] == ["--"] else given)
    if not command:
        print("spanledger run: name what to start, as in: spanledger run app.py", file=sys.stderr)
        return 2
    settings = check_configuration().settings
    check_ledger_file(settings)
    os.environ.update(local_defaults(os.environ))
    os.environ["PATH"] = path_of_this_environment(os.environ.get("PATH", os.defpath))
    if shutil.which(command[0]) is None:
        print(f"spanledger run: {command[0]}: command not found", file=sys.stderr)
        return _NOT_FOUND
    print(announcement(settings), file=sys.stderr, flush=True)
    _become(command)
    return 0


def check_ledger_file(settings: Settings) -> None:
    """Raise ConfigurationError where the file that was named for the ledger cannot be used.

    A default place that cannot be used is no mistake of the configuration's; and what a Redis does
    now says nothing about later.
    """
    url = settings.ledger
    if url is not None and url.startswith("sqlite:") and not settings.disabled:
        open_ledger(url, settings.origin("ledger")).close()


def _become(command: Sequence[str]) -> None:
    # Its console script is this function; looked up here, it needs no PATH.
    launcher = importlib.import_module("opentelemetry.instrumentation.auto_instrumentation")
    # After "--" it takes none of the application's options for its own.
    sys.argv = ["opentelemetry-instrument", "--", *command]
    sys.stdout.flush()
    launcher.run()


def command_line(given: Sequence[str]) -> list[str]:
    """What to start for what the user gave: a Python file is started with this Python."""
    if given and given[0].endswith(".py") and Path(given[0]).is_file():
        return [sys.executable, *given]
    return list(given)


def local_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep OpenTelemetry from sending to a collector that nobody configured."""
    if environ.get("OTEL_CONFIG_FILE") or environ.get("OTEL_EXPERIMENTAL_CONFIG_FILE"):
        return {}
    if environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return {}
    return {
        f"OTEL_{signal}_EXPORTER": "none"
        for signal in _SIGNALS
        if not environ.get(f"OTEL_{signal}_EXPORTER")
        and not environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    }


def path_of_this_environment(path: str) -> str:
    """`path` with this virtual environment active: `python` is the one that has spanledger."""
    if sys.prefix == sys.base_prefix:
        return path
    own = str(Path(sys.prefix) / "bin")
    return path if own in path.split(os.pathsep) else f"{own}{os.pathsep}{path}"


def announcement(settings: Settings) -> str:
    """The one line that says where the books are."""
    if settings.disabled:
        return "spanledger: switched off by SPANLEDGER_DISABLED"
    path = journal_path(settings)
    if path is None:
        return "spanledger: paid calls are booked in memory, until the application ends"
    return f"spanledger: paid calls are booked in {path}; see: spanledger report"


def journal_path(settings: Settings) -> Path | None:
    """Where the application will find that it can write its journal; None for in memory, and where
    it cannot: the application itself says why.
    """
    try:
        place = locate(settings.journal, settings.origin("journal"))
        prepare(place)
        with suppress(TemporaryJournalError), closing(Journal(place, "")) as journal:
            journal.check()
    except JournalError:
        return None
    return place.path
