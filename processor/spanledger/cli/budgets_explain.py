"""`spanledger budgets explain`: who and what brought a budget to where it is."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spanledger.budget.amounts import to_nano
from spanledger.budget.scopes import DIMENSIONS, Scope, escape
from spanledger.budget.spenders import spenders
from spanledger.budget.tiers import NAMES
from spanledger.budget.windows import Window
from spanledger.cli.budgets_figures import journal_spent, used_part
from spanledger.cli.budgets_table import (
    STYLES,
    amount,
    bar,
    can_draw,
    printable,
    remaining,
    unit_name,
)
from spanledger.ledger.journal import Journal
from spanledger.ledger.journal_rows import Row

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLACES: Final = 4


def explain(
    windows: Sequence[Window], journal: Journal | None, now_ns: int, console: Console, *, top: int
) -> None:
    """Print each window: how it stands, its `top` largest spenders, its `top` dearest calls."""
    for window in windows:
        for line in _heading(window, now_ns):
            console.print(line, soft_wrap=True)
        if journal is not None:
            _explain(window, journal, console, top)
        console.print()


def _heading(window: Window, now_ns: int) -> Iterator[Text]:
    unit, tier = unit_name(window.budget.unit), window.standing.tier
    yield Text(f"{window.scope}, {window.period.kind} {window.period.key}", style="bold")
    part = used_part(window)
    line = Text(f"spent {amount(window.spent)} of {amount(window.budget.limit)} {unit}")
    if window.held:
        line.append(f", {amount(window.held)} in flight")
    line.append(f": {part:.0%}, tier " if part < 100 else ", tier ")
    yield line.append(NAMES[tier], style=STYLES[tier])
    ends = remaining((window.period.end_ns - now_ns) / 1e9)
    text = f"resets in {ends}, at {window.period.resets_at:%Y-%m-%d %H:%M} UTC"
    if window.projected is not None:
        text += f"; projected to reach {amount(window.projected)} by then"
    yield Text(text)


def _explain(window: Window, journal: Journal, console: Console, top: int) -> None:
    scope, unit = Scope.parse(window.scope), window.budget.unit
    span = (window.period.start_ns, window.period.end_ns)
    fine = can_draw(console)
    booked = journal_spent(journal, window)
    if abs(booked - window.spent) > window.spent // 100:
        text = f"this journal has {amount(booked)} of it; other hosts have journals of their own"
        console.print(Text(text), soft_wrap=True)
    for group, found in spenders(journal, scope, unit, span, most=top).items():
        if not found or [spender.name for spender in found] == ["(none)"]:
            continue
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"by {group}", title_justify="left")
        for justify in ("left", "right", "left"):
            table.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
        for name, spent in found:
            nano = to_nano(spent)
            part = nano / window.spent if window.spent else 0.0
            table.add_row(Text(printable(name)), amount(nano), bar(part, fine=fine))
        table.show_header = False
        console.print(table)
    calls = _dearest(journal.rows(*span), window, scope, top)
    if not calls:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), title="dearest calls", title_justify="left")
    table.show_header = False
    for nano, row in calls:
        table.add_row(amount(nano, places=_PLACES), *map(printable, _description(row)))
    console.print(table)


def _dearest(rows: Iterable[Row], window: Window, scope: Scope, top: int) -> list[tuple[int, Row]]:
    costs = ((_cost(row, window), row) for row in rows if _counts_in(scope, row))
    return heapq.nlargest(top, (pair for pair in costs if pair[0]), key=lambda pair: pair[0])


def _cost(row: Row, window: Window) -> int:
    if window.budget.unit == "credits":
        return 0 if row.credits is None else to_nano(row.credits)
    return window.budget.unknown_nano if row.nano_usd is None else row.nano_usd


def _counts_in(scope: Scope, row: Row) -> bool:
    names = (row.tenant_id, row.user_id, row.feature, row.provider)
    return all(
        wanted is None or (name is not None and escape(name) == wanted)
        for wanted, name in zip(scope, names, strict=True)
    )


def _description(row: Row) -> tuple[str, ...]:
    at = _EPOCH + timedelta(microseconds=row.timestamp_ns // 1000)
    what = f"{row.provider} {row.model or row.model_requested or row.operation}"
    who = (
        f"{dimension} {name}"
        for dimension, name in zip(
            DIMENSIONS, (row.tenant_id, row.user_id, row.feature), strict=False
        )
        if name
    )
    note = "no price" if row.nano_usd is None else row.outcome if row.outcome != "ok" else ""
    return f"{at:%Y-%m-%d %H:%M:%S}", what, ", ".join(who), note
