"""`spanledger prices`: what a model or a credit costs, by the price list and the configuration."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Final

from spanledger.api.settings import load_settings
from spanledger.api.values import Usage
from spanledger.cli.amounts import decimal_text, usd_text
from spanledger.cli.arguments import Subparsers, nanoseconds
from spanledger.pricing.book import Price, PriceBook
from spanledger.pricing.config import read_price_config

_MILLION: Final = 1_000_000
_SMALL: Final = 10_000
"""Tokens of a call below every threshold at which a model becomes dearer."""
_LARGE: Final = 900_000

_TOKENS: Final[tuple[tuple[str, int, tuple[str, ...]], ...]] = (
    ("input", _SMALL, ("input_tokens",)),
    ("input, 900,000 at once", _LARGE, ("input_tokens",)),
    ("input from the cache", _SMALL, ("input_tokens", "cache_read_tokens")),
    ("input into the cache", _SMALL, ("input_tokens", "cache_write_tokens")),
    ("output", _SMALL, ("output_tokens",)),
)


def add(subparsers: Subparsers) -> None:
    """Register `spanledger prices`."""
    parser = subparsers.add_parser(
        "prices",
        help="show what a model or a credit costs",
        description="Show what a call that starts now, or on a day, is charged: the dated price "
        "list, and the prices of your configuration before it.",
    )
    parser.add_argument("provider", help="such as openai, anthropic or scavio")
    parser.add_argument("model", nargs="?", help="such as gpt-4o; none for a provider of credits")
    parser.add_argument("--tenant", help="with the prices that are configured for this tenant")
    parser.add_argument("--date", type=_day, metavar="DAY", help="such as 2026-08-01; default: now")
    parser.set_defaults(func=run)


def _day(text: str) -> datetime:
    try:
        return datetime.combine(datetime.fromisoformat(text).date(), time(), UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-08-01") from None


def run(arguments: argparse.Namespace) -> int:
    """Print the prices; the exit code is 1 where none is known. Raises ConfigurationError."""
    settings = load_settings()
    book = PriceBook(read_price_config(settings.root.section("prices"), settings.usd_per_credit))
    book.warm()
    moment: datetime = arguments.date or datetime.now(UTC)
    when_ns = nanoseconds(moment) or 0

    def price(usage: Usage) -> Price:
        return book.price(
            arguments.provider, arguments.model, usage, when_ns, tenant=arguments.tenant
        )

    lines = _token_lines(price) if arguments.model else _credit_line(price)
    what = " ".join(filter(None, (arguments.provider, arguments.model)))
    if not lines:
        print(f"No price is known for {what}. {_remedy(arguments)}", file=sys.stderr)
        return 1
    print(f"{what}, {'now' if arguments.date is None else f'{moment:%Y-%m-%d}'}")
    for name, usd, version in lines:
        print(f"  {name:<42} {usd:>12}  USD   ({version})")
    return 0


def _remedy(arguments: argparse.Namespace) -> str:
    if arguments.model is None:
        return (
            "Name a model, or say what a credit costs: "
            f"SPANLEDGER_USD_PER_CREDIT={arguments.provider}=0.005"
        )
    return "Say what it costs in an [[prices.override]]: see docs/prices.md"


def _credit_line(price: Callable[[Usage], Price]) -> list[tuple[str, str, str | None]]:
    credit = price(Usage(credits=Decimal(1)))
    if credit.nano_usd is None:
        return []
    return [("a credit", usd_text(credit.nano_usd) or "", credit.version)]


def _token_lines(price: Callable[[Usage], Price]) -> list[tuple[str, str, str | None]]:
    lines: dict[str, tuple[Decimal, str | None]] = {}
    for name, tokens, units in _TOKENS:
        found = price(Usage(dict.fromkeys(units, tokens)))
        if found.nano_usd is None or found.status != "exact":
            continue
        usd = Decimal(found.nano_usd).scaleb(-9) * _MILLION / tokens
        plain = lines.get("input")
        if plain is None or usd != plain[0]:
            lines[name] = (usd, found.version)
    return [
        (f"a million tokens of {name}", decimal_text(usd), version)
        for name, (usd, version) in lines.items()
    ]
