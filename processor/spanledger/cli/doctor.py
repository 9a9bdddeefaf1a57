"""`spanledger doctor`: is everything in place, in plain words."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Final, NamedTuple

from spanledger.api.errors import ConfigurationError, JournalError
from spanledger.api.settings import Settings
from spanledger.cli.arguments import Subparsers
from spanledger.cli.configuration import check_configuration
from spanledger.cli.doctor_network import Endpoint, answers, otlp_endpoints, redis_endpoint
from spanledger.ledger.journal import open_journal
from spanledger.ledger.journal_files import NoJournal
from spanledger.ledger.journal_place import Place, locate, passing
from spanledger.ledger.place import MEMORY, ledger_url
from spanledger.pricing.book import PriceBook
from spanledger.pricing.config import PriceConfig

_HOOKS: Final = "opentelemetry_pre_instrument"
_INSTRUMENTORS: Final = "opentelemetry_instrumentor"
_OLD_DAYS: Final = 90


class Finding(NamedTuple):
    """What was looked at. good: None where it is neither right nor wrong."""

    good: bool | None
    text: str


def add(subparsers: Subparsers) -> None:
    """Register `spanledger doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="check that everything is in place",
        description="Check the configuration, the launcher's hook, the SDKs, the journal, the "
        "prices, the ledger, and whether the exporter's endpoint answers.",
    )
    parser.set_defaults(func=run)


def run(_: argparse.Namespace) -> int:
    """Print what was found; the exit code is 1 where something is wrong."""
    marks = {True: "✓", False: "✗", None: "·"}
    try:
        "✓✗·".encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        marks = {True: "ok ", False: "BAD", None: "   "}
    wrong = 0
    for finding in findings(os.environ):
        print(f"{marks[finding.good]} {finding.text}")
        wrong += finding.good is False
    print(f"\nTo mend: {wrong}." if wrong else "\nAll is in place.")
    return 1 if wrong else 0


def findings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """All there is to say; where the configuration cannot be read, that alone."""
    try:
        settings, prices, budgets = check_configuration(environ)
    except ConfigurationError as error:
        yield Finding(False, f"configuration: {error}")
        return
    yield Finding(True, f"configuration: {settings.path or 'no file, the defaults'}; it is valid")
    if settings.disabled:
        yield Finding(False, "SPANLEDGER_DISABLED is set: nothing is metered")
    yield from _launcher()
    yield from _sdks(environ)
    journal = list(_journal(settings))
    yield from journal
    yield from _prices(prices)
    if any(finding.good is False for finding in journal):
        settings = replace(settings, journal="memory://")  # as the application then does
    yield _ledger(settings, budgets)
    yield _baggage(settings)
    yield from _exporter(environ)


def _own(group: str) -> list[EntryPoint]:
    """Our entry points in `group`, as the launcher finds them."""
    return [e for e in entry_points(group=group) if e.dist and e.dist.name == "spanledger"]


def _launcher() -> Iterator[Finding]:
    hooks = _own(_HOOKS)
    if not hooks:
        yield Finding(
            False,
            "launcher: opentelemetry-instrument does not find spanledger in this environment. "
            f"Install it with {sys.executable} -m pip install spanledger",
        )
    for hook in hooks:
        try:
            hook.load()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the user must know
            yield Finding(False, f"launcher: its hook cannot be loaded: {error!r}")
        else:
            launcher = version("opentelemetry-instrumentation")
            yield Finding(True, f"launcher: opentelemetry-instrument {launcher} starts spanledger")


def _sdks(environ: Mapping[str, str]) -> Iterator[Finding]:
    off = environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    switched_off = {name.strip() for name in off.split(",")}
    for entry_point in sorted(_own(_INSTRUMENTORS), key=lambda e: e.name):
        if switched_off & {entry_point.name, "*"}:
            yield Finding(
                False,
                f"{entry_point.name}: switched off by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
            )
            continue
        try:
            yield _sdk(entry_point)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the user must know
            yield Finding(False, f"{entry_point.name}: cannot be loaded: {error!r}")


def _sdk(entry_point: EntryPoint) -> Finding:
    from opentelemetry.instrumentation.dependencies import (  # noqa: PLC0415 - heavy
        get_dependency_conflicts,
    )

    wanted = entry_point.load()().instrumentation_dependencies()
    name = next(iter(wanted)).split(" ")[0]
    conflict = get_dependency_conflicts(wanted)
    if conflict is None:
        return Finding(True, f"{name} {version(name)}: its calls are metered")
    if conflict.found is None:
        return Finding(None, f"{name}: not installed")
    return Finding(
        False,
        f"{conflict.found}: its calls are NOT metered, since {conflict.required} is supported. "
        f"Install such a version, or use @metered",
    )


def _journal(settings: Settings) -> Iterator[Finding]:
    try:
        place = locate(settings.journal, settings.origin("journal"))
        yield _writable(place)
    except JournalError as error:
        yield Finding(False, str(error))
        return
    kind = place.path and passing(place.path)
    if kind:
        yield Finding(
            None,
            f"journal: it is on {kind}. To keep the books, mount a volume and set "
            "SPANLEDGER_JOURNAL=sqlite:////that/volume/journal.db",
        )


def _writable(place: Place) -> Finding:
    if place.path is None:
        return Finding(None, "journal: in memory; no report can be made of it from outside")
    try:
        journal = open_journal(place.url, service="", create=False)
    except NoJournal:
        return _creatable(place.path)
    with closing(journal):
        count, _, last = journal.extent()
        journal.check()
    when = ""
    if last is not None:
        when = (
            f", the last on {datetime.fromtimestamp(last / 1e9, UTC).astimezone():%Y-%m-%d %H:%M}"
        )
    return Finding(True, f"journal: {place.path}, writable; {count:,} paid calls{when}")


def _creatable(path: Path) -> Finding:
    parent = next(p for p in path.parents if p.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return Finding(True, f"journal: {path}; nothing was recorded yet, it will be made")
    return Finding(
        False,
        f"journal: {path} cannot be made: {parent} is not a directory that this user can write. "
        "Set SPANLEDGER_JOURNAL=sqlite:////path/journal.db",
    )


def _prices(config: PriceConfig) -> Iterator[Finding]:
    book = PriceBook(config)
    try:
        book.warm()
    except ImportError as error:
        yield Finding(False, f"prices: genai-prices cannot be loaded: {error}")
        return
    finally:
        book.close()
    info = book.info()
    days = 0
    if info.data_date is not None:
        days = max((datetime.now(UTC).date() - info.data_date).days, 0)
    text = f"prices: {info.version}, last changed {days} days ago"
    if info.overrides or info.multipliers:
        text += f"; {info.overrides} overrides, {info.multipliers} multipliers of yours"
    yield Finding(True, text)
    if days > _OLD_DAYS and not config.refresh:
        yield Finding(
            None,
            "prices: newer models may be missing. Upgrade genai-prices, or set refresh = true "
            "under [prices]",
        )
    credits_of = ", ".join(info.credit_providers)
    yield Finding(
        None,
        f"prices: a credit has a price for {credits_of}"
        if credits_of
        else "prices: no credit has a price. Providers that bill in credits need "
        "SPANLEDGER_USD_PER_CREDIT=scavio=0.005 (what yours costs)",
    )


def _ledger(settings: Settings, budgets: int) -> Finding:
    if not budgets:
        return Finding(None, "ledger: no budgets are configured; it holds nothing")
    url = ledger_url(settings)
    held = f"ledger: {budgets} {'budget' if budgets == 1 else 'budgets'}, held in"
    if url == MEMORY:
        return Finding(None, f"{held} memory, in each process by itself")
    endpoint = redis_endpoint(url)
    if endpoint is None:
        place = url if url.startswith("sqlite:") else "Redis, over a Unix socket"
        return Finding(None, f"{held} {place}, shared by this machine's processes")
    return _reached(f"{held} Redis at", endpoint, "Start it")


def _baggage(settings: Settings) -> Finding:
    if settings.trust_incoming:
        return Finding(
            None,
            "attribution: baggage from the network is believed; your gateway must set it, and "
            "strip what comes from outside",
        )
    return Finding(
        True, "attribution: baggage from the network is not believed, only what this process sets"
    )


def _exporter(environ: Mapping[str, str]) -> Iterator[Finding]:
    endpoints = otlp_endpoints(environ)
    if not endpoints:
        yield Finding(
            None,
            "exporter: none is configured; the books need none. Plain opentelemetry-instrument "
            "tries localhost:4317 unless\n"
            "  OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER are none; "
            "`spanledger run` sees to that",
        )
    for endpoint in endpoints:
        yield _reached("exporter: OTLP at", endpoint, "Start the collector, or correct it")


def _reached(what: str, endpoint: Endpoint, remedy: str) -> Finding:
    problem = answers(endpoint)
    if problem is None:
        return Finding(True, f"{what} {endpoint} answers")
    return Finding(False, f"{what} {endpoint} does not answer ({problem}). {remedy}")
