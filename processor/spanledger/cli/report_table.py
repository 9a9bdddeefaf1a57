"""A report as a table in a terminal, at 80 columns and more."""

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal, NamedTuple, TypeAlias

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spanledger.cli.amounts import places_for, rounded_usd, short_number
from spanledger.cli.report import Group, Report
from spanledger.cli.report_hints import hints
from spanledger.ledger.journal_totals import Total

_BAR_CELLS: Final = 8
_WIDE: Final = 110  # columns from which on tokens find room
_NARROWEST_NAME: Final = 12
_NAME: Final = 22  # what a name is given before there is a trend
_LONGEST_LINE: Final = 100  # of prose, in however wide a terminal
_GAP: Final = 2  # between two columns


_Column: TypeAlias = tuple[str, list[str]]


class Glyphs(NamedTuple):
    """What the table is drawn with.

    eighths: of a bar's cell, from one to eight; levels: of a trend, from little to most.
    """

    eighths: str
    levels: str
    at_least: str
    more: str
    rules: box.Box


_PLAIN_RULES: Final = box.Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)
_FINE: Final = Glyphs("▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "≥", "…", box.SIMPLE)
_PLAIN: Final = Glyphs("    ####", "...:::||", ">", "...", _PLAIN_RULES)


class _Line(NamedTuple):
    """One line of the table. depth: 0 for the groups by the first name."""

    name: str
    depth: int
    total: Total
    trend: Sequence[float] = ()
    uses: bool = True


def show(report: Report, *, top: int, console: Console | None = None) -> None:
    """Print `report`; of each group's lines the first `top`, 0 for all."""
    console = console or Console(highlight=False)
    glyphs = _FINE if _can_draw(console.encoding) else _PLAIN
    console.print(_heading(report), soft_wrap=True)
    if report.total.calls:
        console.print()
        console.print(_table(report, top, glyphs, console.width))
    for hint in hints(report):
        console.print()
        for line in textwrap.wrap(hint.text, min(console.width, _LONGEST_LINE)):
            console.print(Text(line), soft_wrap=True)
        for line in hint.lines:
            # A line to copy stays one line.
            console.print(Text(f"    {line}" if line else ""), soft_wrap=True)


def _can_draw(encoding: str) -> bool:
    try:
        "▏▁≥…─".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _heading(report: Report) -> Text:
    start = "the first call" if report.since is None else _moment(report.since)
    text = Text(f"Spent from {start} to {_moment(report.until)}", style="bold")
    return text.append(f"\n{report.place}", style="not bold dim")


def _moment(moment: datetime) -> str:
    day = f"{moment.day} {moment:%b %Y}"
    return day if moment.hour == moment.minute == 0 else f"{day} {moment:%H:%M}"


def _table(report: Report, top: int, glyphs: Glyphs, width: int) -> Table:
    lines = [*_lines(report.groups, report, top, glyphs), _Line("total", 0, report.total)]
    columns = _columns(report, lines, glyphs, wide=width >= _WIDE)
    longest = max(cell_len(_indented(line)) for line in lines)
    if report.trends and width - _taken(columns) < min(longest, _NAME):
        columns.pop()
    taken = _taken(columns)
    table = Table(
        box=glyphs.rules, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, show_footer=True
    )
    table.add_column(
        " / ".join(report.by),
        Text(lines[-1].name),
        no_wrap=True,
        overflow="crop" if glyphs is _PLAIN else "ellipsis",
        max_width=max(width - taken, _NARROWEST_NAME),
    )
    for name, cells in columns:
        side: Literal["left", "right"] = "left" if name in ("share", "trend") else "right"
        table.add_column(name, Text(cells[-1]), no_wrap=True, justify=side)
    for number, line in enumerate(lines[:-1]):
        head = line.depth == 0 and len(report.by) > 1
        table.add_row(
            Text(_indented(line)),
            *(Text(cells[number]) for _, cells in columns),
            style="bold" if head else None,
        )
    return table


def _taken(columns: Sequence[_Column]) -> int:
    """How much of the width they need."""
    return sum(_GAP + max(cell_len(cell) for cell in (name, *cells)) for name, cells in columns)


def _lines(
    groups: Sequence[Group], report: Report, top: int, glyphs: Glyphs, depth: int = 0
) -> Iterator[_Line]:
    shown = groups[:top] if 0 < top < len(groups) else groups
    for group in shown:
        name = group.total.key[-1]
        yield _Line(
            f"(no {report.by[depth]})" if name is None else _printable(name),
            depth,
            group.total,
            report.trends.get(group.total.key, ()),
        )
        yield from _lines(group.groups, report, top, glyphs, depth + 1)
    rest = groups[len(shown) :]
    if rest:
        # Two groups may share a use, so that their uses do not add up.
        yield _Line(f"{glyphs.more} {len(rest)} more", depth, _sum(rest), uses=False)


def _sum(groups: Sequence[Group]) -> Total:
    totals = [group.total for group in groups]
    priced = [total.nano_usd for total in totals if total.nano_usd is not None]
    return Total(
        (),
        sum(priced) if priced else None,
        sum(total.calls for total in totals),
        0,
        sum(total.input_tokens for total in totals),
        sum(total.output_tokens for total in totals),
        sum(total.cache_read_tokens for total in totals),
        sum(total.cache_write_tokens for total in totals),
        sum((total.credits for total in totals), Decimal(0)),
        sum(total.unpriced_calls for total in totals),
        sum(total.partial_calls for total in totals),
        sum(total.estimated_calls for total in totals),
        sum(total.saved_nano_usd for total in totals),
    )


def _columns(
    report: Report, lines: Sequence[_Line], glyphs: Glyphs, *, wide: bool
) -> list[_Column]:
    """The columns after the name, each with its cells; the trend, where there is one, last."""
    totals = [line.total for line in lines]
    whole = report.total.nano_usd or 0
    places = places_for(whole)
    columns: list[_Column] = [
        ("cost USD", [_cost(total, glyphs, places) for total in totals]),
        ("share", [_share(total.nano_usd, whole, glyphs) for total in totals]),
    ]
    if report.total.saved_nano_usd:
        columns.append(("saved", [_saved(total, places) for total in totals]))
    if report.total.credits:
        columns.append(("credits", [_some(total.credits) for total in totals]))
    if wide:
        columns.append(("tokens in", [_some(total.input_tokens) for total in totals]))
        columns.append(("out", [_some(total.output_tokens) for total in totals]))
    columns.append(("calls", [short_number(total.calls) for total in totals]))
    if "uses" not in report.unknown:
        uses = [_some(line.total.uses) if line.uses else "" for line in lines]
        columns.append(("uses", uses))
    if report.trends:
        columns.append(("trend", [_trend(line.trend, glyphs) for line in lines]))
    return columns


def _indented(line: _Line) -> str:
    return "  " * line.depth + line.name


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _cost(total: Total, glyphs: Glyphs, places: int) -> str:
    if total.nano_usd is None:
        return "no price"
    text = rounded_usd(total.nano_usd, places)
    if total.unpriced_calls or total.partial_calls:
        return glyphs.at_least + text.removeprefix("<")
    return text


def _saved(total: Total, places: int) -> str:
    return rounded_usd(total.saved_nano_usd, places) if total.saved_nano_usd else ""


def _some(amount: int | Decimal) -> str:
    return short_number(amount) if amount else ""


def _share(part: int | None, whole: int, glyphs: Glyphs) -> str:
    if part is None or whole <= 0:
        return ""
    eighths = max(round(part * _BAR_CELLS * 8 / whole), 1 if part > 0 else 0)
    full, rest = divmod(eighths, 8)
    bar = glyphs.eighths[-1] * full + (glyphs.eighths[rest - 1] if rest else "")
    percent = "<1%" if 0 < part < whole / 200 else f"{part / whole:.0%}"
    return f"{bar:<{_BAR_CELLS}} {percent:>4}"


def _trend(values: Sequence[float], glyphs: Glyphs) -> str:
    most = max(values, default=0)
    if most <= 0:
        return ""
    last = len(glyphs.levels) - 1
    return "".join(
        glyphs.levels[round(value / most * last)] if value > 0 else " " for value in values
    )
