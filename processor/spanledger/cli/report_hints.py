"""What a reader of a report should know or do, with the very lines to write."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from spanledger.cli.amounts import grouped, rounded_usd
from spanledger.cli.report import Report
from spanledger.ledger.journal_totals import Unpriced

_MOST_NAMED: Final = 5
_CREDITS: Final = "usd_per_credit"  # the price book's reason for credits without a price
_UNLISTED: Final = ("unknown_model", "unknown_provider")  # its reasons where an override helps
_SAVED_BY: Final = {
    "cached": "cached results",
    "deduplicated": "calls shared while in flight",
    "stale": "stale results",
    "cheaper_model": "cheaper models",
}
_ATTRIBUTED_BY: Final = {
    "tenant": 'attribute(tenant="acme")',
    "user": 'attribute(user="u-17")',
    "feature": 'feature("competitive-analysis")',
}


class Hint(NamedTuple):
    """What to know, and the lines to write."""

    text: str
    lines: tuple[str, ...] = ()


def hints(report: Report) -> Iterator[Hint]:
    """The hints that `report` gives rise to."""
    if not report.total.calls:
        yield _nothing(report)
        return
    unknown = [line for line in report.unpriced if line.cost_status == "unknown"]
    yield from _credit_hints([line for line in unknown if line.reason == _CREDITS])
    yield from _price_hints([line for line in unknown if line.reason != _CREDITS])
    if report.total.partial_calls:
        yield _partial_hint(report)
    if report.total.estimated_calls:
        yield Hint(
            f"{_calls_are(report.total.estimated_calls)} estimated: the provider did not say what "
            "was used (streams that broke off, lost answers)."
        )
    if report.estimated_nano_usd:
        estimated = rounded_usd(report.estimated_nano_usd, 4)
        yield Hint(f"{estimated} USD of it are estimated: the provider did not say what was used.")
    if report.total.saved_nano_usd:
        yield _saved_hint(report)
    yield from _attribution_hints(report)


def _nothing(report: Report) -> Hint:
    if report.fleet:
        return Hint(
            "Prometheus knows of no paid call in that time. It has what its services sent: is it "
            "the right one, and do they export their metrics? `spanledger doctor` says so there."
        )
    count, _, last = report.recorded
    if last is None:
        return Hint("Nothing was recorded yet. Start your application:", ("spanledger run app.py",))
    moment = datetime.fromtimestamp(last / 1e9, UTC).astimezone(report.until.tzinfo)
    return Hint(
        f"No paid calls in that time. The journal has {count:,}, the last on "
        f"{moment:%Y-%m-%d %H:%M}:",
        ("spanledger report --since all",),
    )


def _credit_hints(lines: Sequence[Unpriced]) -> Iterator[Hint]:
    for provider in dict.fromkeys(line.provider for line in lines):
        own = [line for line in lines if line.provider == provider]
        calls_are = _calls_are(sum(line.calls for line in own))
        used = grouped(sum((line.credits for line in own), Decimal(0)))
        yield Hint(
            f"{calls_are} without a price: {used} credits of {provider}. Say what a credit of "
            "your plan costs (here: 0.005; it counts from the application's next start on), in "
            "spanledger.toml or in the environment:",
            (
                "[prices.usd_per_credit]",
                f"{_toml_key(provider)} = 0.005",
                "",
                f"SPANLEDGER_USD_PER_CREDIT={provider}=0.005",
            ),
        )


def _price_hints(lines: Sequence[Unpriced]) -> Iterator[Hint]:
    for line in lines[:_MOST_NAMED]:
        what = f"{line.provider} {line.model}" if line.model else line.provider
        reason = line.reason or "no reason given"
        text = f"{_calls_are(line.calls)} without a price: {what} ({reason})."
        if line.model is None or line.reason not in _UNLISTED:
            yield Hint(text)
            continue
        yield Hint(
            f"{text} Say in spanledger.toml what it costs (here: 0.15 and 0.60 USD for a million "
            "tokens in and out; it counts from the application's next start on):",
            (
                "[[prices.override]]",
                f"provider = {_toml_text(line.provider)}",
                f"model = {_toml_text(line.model)}",
                'prices = { input_mtok = "0.15", output_mtok = "0.60" }',
            ),
        )
    rest = sum(line.calls for line in lines[_MOST_NAMED:])
    if rest:
        yield Hint(f"{_calls_are(rest)} without a price for more reasons: see `spanledger export`.")


def _partial_hint(report: Report) -> Hint:
    reasons = {
        line.reason for line in report.unpriced if line.cost_status == "partial" and line.reason
    }
    why = f" ({', '.join(sorted(reasons)[:_MOST_NAMED])})" if reasons else ""
    calls_are = _calls_are(report.total.partial_calls)
    return Hint(f"{calls_are} priced in part only{why}; the true cost is higher.")


def _saved_hint(report: Report) -> Hint:
    saved = f"Saved: {rounded_usd(report.total.saved_nano_usd, 4)} USD"
    if len(report.saved) == 1:
        return Hint(f"{saved}, by {_SAVED_BY[next(iter(report.saved))]}.")
    parts = ", ".join(
        f"{rounded_usd(nano_usd, 4)} by {_SAVED_BY[why]}" for why, nano_usd in report.saved.items()
    )
    return Hint(f"{saved}: {parts}.")


def _attribution_hints(report: Report) -> Iterator[Hint]:
    for position, name in enumerate(report.by):
        if name not in _ATTRIBUTED_BY:
            continue
        calls = sum(total.calls for total in report.rows() if total.key[position] is None)
        if calls:
            helper = _ATTRIBUTED_BY[name]
            function = helper.partition("(")[0]
            yield Hint(
                f"{calls:,} of {report.total.calls:,} calls name no {name}. In your code, around "
                "the call:",
                (f"from spanledger.api import {function}", f"with {helper}: ..."),
            )
            return


def _calls_are(count: int) -> str:
    return "1 call is" if count == 1 else f"{count:,} calls are"


def _toml_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _toml_key(text: str) -> str:
    bare = text.replace("-", "").replace("_", "")
    return text if bare.isascii() and bare.isalnum() else _toml_text(text)
