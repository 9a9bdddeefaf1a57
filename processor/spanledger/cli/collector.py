"""`spanledger collector-config`: how a collector prices GenAI spans from other services.

The collector then books what no process of ours has: services in other languages, and other
instrumentations. See docs/collector.md.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Final

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import load_settings
from spanledger.cli.arguments import Subparsers

PROCESSOR: Final = "transform/spanledger"
_COMMAND: Final = "spanledger collector-config"
_BLOCK: Final = re.compile(
    rf"^( *)# >>> {_COMMAND}(?P<options>.*)\n(?:.*\n)*?\1# <<< {_COMMAND}\n", re.MULTILINE
)
_DEFAULT_MODELS: Final = {
    "openai": """
        gpt-4o gpt-4o-mini gpt-4.1 gpt-4.1-mini gpt-4.1-nano gpt-5 gpt-5-mini gpt-5-nano gpt-5.1
        gpt-5.2 gpt-5.4 gpt-5.4-mini gpt-5.4-nano gpt-5.5 gpt-5.6-luna gpt-5.6-sol gpt-5.6-terra
        gpt-6-luna gpt-6-sol gpt-6.1-sol gpt-6.1-terra o3 o4-mini
        text-embedding-3-large text-embedding-3-small""",
    "anthropic": """
        claude-haiku-4-5 claude-haiku-5-5 claude-opus-4-5 claude-opus-4-6 claude-opus-4-7
        claude-opus-4-8 claude-opus-5 claude-opus-5-5 claude-sonnet-4-0 claude-sonnet-4-5
        claude-sonnet-4-6 claude-sonnet-5 claude-sonnet-5-5""",
    "gcp.gemini": """
        gemini-2.5-flash gemini-2.5-flash-lite gemini-2.5-pro gemini-3-flash-preview
        gemini-3.1-pro-preview gemini-3.5-flash gemini-3.5-flash-lite gemini-3.6-flash
        gemini-3.8-flash gemini-embedding-001""",
}


def add(subparsers: Subparsers) -> None:
    """Register `spanledger collector-config`."""
    parser = subparsers.add_parser(
        "collector-config",
        help="write the prices that an OpenTelemetry Collector needs",
        description="Write the collector's configuration by which it prices GenAI spans of other "
        "services, from the price list and your own prices: a file to start the collector with, "
        "after otel-collector-config.yaml.",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="PROVIDER/MODEL",
        help="the models in use, such as openai/gpt-4o azure.ai.openai/gpt-4o; default: current "
        "ones of OpenAI, Anthropic and Google",
    )
    parser.add_argument(
        "--date",
        type=_day,
        metavar="DAY",
        help="write the prices that hold from this day on; default: today",
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FILE",
        help="put them into this copy of otel-collector-config.yaml, in the place of the old ones",
    )
    parser.set_defaults(func=run)


def _day(text: str) -> datetime:
    try:
        return datetime.combine(datetime.fromisoformat(text).date(), time(), UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-08-01") from None


def run(arguments: argparse.Namespace) -> int:
    """Write the configuration; the exit code is 1 where a model has no price.

    Raises ConfigurationError.
    """
    moment: datetime = arguments.date or datetime.combine(datetime.now(UTC).date(), time(), UTC)
    named: list[str] | None = arguments.models
    models = named or [f"{p}/{model}" for p, m in _DEFAULT_MODELS.items() for model in m.split()]
    lines, problems = _processor(models, moment)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("Say what they cost in an [[prices.override]], or leave them out.", file=sys.stderr)
        return 1
    options = f"--date {moment:%Y-%m-%d}"
    if named:
        options += f" --models {shlex.join(named)}"
    into: Path | None = arguments.into
    if into is None:
        print(f"# Written by `{_COMMAND} {options}`.", "processors:", *lines, sep="\n")
    else:
        _replace(into, options, lines)
    return 0


def _processor(models: Sequence[str], moment: datetime) -> tuple[list[str], list[str]]:
    """The processor in YAML, and what could not be done."""
    from spanledger.cli import collector_cost as cost  # noqa: PLC0415 - with the prices
    from spanledger.cli.collector_ottl import to_yaml  # noqa: PLC0415
    from spanledger.cli.collector_prices import price_groups  # noqa: PLC0415 - loads the list
    from spanledger.cli.collector_reading import reading_groups  # noqa: PLC0415
    from spanledger.pricing.config import read_price_config  # noqa: PLC0415

    for name in models:
        if not all(name.partition("/")):
            raise ConfigurationError(
                f"{name!r} is not a provider and a model",
                source="command line",
                key="--models",
                remedy="Name both, such as openai/gpt-4o.",
            )
    settings = load_settings()
    config = read_price_config(settings.root.section("prices"), settings.usd_per_credit)
    groups, version, problems = price_groups(models, config, moment)
    repeated = [group._replace(repeat=group.label, label=None) for group in groups]
    everything = [
        *reading_groups(),
        *cost.twice_groups(),
        cost.name_group(),
        *groups,
        cost.asked_name_group(),
        *repeated,
        *cost.cost_groups(version),
    ]
    head = [f"  {PROCESSOR}:", "    error_mode: ignore", "    trace_statements:"]
    return [*head, *to_yaml(everything, " " * 6)], problems


def _replace(file: Path, options: str, lines: Sequence[str]) -> None:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise _unusable(file, f"cannot be read: {error.strerror}") from error
    if not _BLOCK.search(text):
        raise _unusable(file, f"has no lines `# >>> {_COMMAND}` and `# <<< {_COMMAND}`")
    block = "\n".join((f"  # >>> {_COMMAND} {options}", *lines, f"  # <<< {_COMMAND}", ""))
    file.write_text(_BLOCK.sub(lambda _: block, text, count=1), encoding="utf-8")


def _unusable(file: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        problem,
        source=str(file),
        key="--into",
        remedy="Name a copy of otel-collector-config.yaml.",
    )
