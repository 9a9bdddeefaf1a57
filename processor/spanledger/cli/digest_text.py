"""A digest in words and tables: what every form of it for people shows."""

import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from spanledger.budget.tiers import NAMES as TIERS
from spanledger.budget.windows import BudgetReading
from spanledger.cli.amounts import places_for, rounded_usd
from spanledger.cli.budgets_table import STYLES, amount, can_draw, printable
from spanledger.cli.digest_figures import DIMENSIONS, Digest, Spend, used_part
from spanledger.ledger.journal_totals import Unpriced

MAIL_WIDTH: Final = 76
_NARROWEST_NAME: Final = 12
_GAP: Final = 2  # between two columns
_TIMES: Final = 10  # from which on a growth is told in times, not in percent
_PLAIN: Final = str.maketrans({"≥": ">", "…": "..."})


class Row(NamedTuple):
    """One row of a table. fact: what it says in one line, after its first cell."""

    cells: tuple[str, ...]
    fact: str
    style: str = ""


class Section(NamedTuple):
    """A table of a digest. `header` has as many cells as each row, of which the first is a name."""

    title: str
    header: tuple[str, ...]
    rows: list[Row]


def headline(digest: Digest) -> str:
    """The digest in one line, without what may be long."""
    text = f"Spend on {period_text(digest.since, digest.until)}: {_total(digest, digest.total)}"
    changed = change(digest.total) if digest.compared else ""
    return f"{text} ({changed})" if changed else text


def summary(digest: Digest) -> list[str]:
    """The lines below the headline."""
    calls, total = digest.total.calls, digest.total
    lines = [f"{calls:,} paid call{'' if calls == 1 else 's'}."]
    since, until = digest.earlier()
    weeks = "the week before" if digest.weeks == 1 else f"{digest.weeks} weeks before"
    if digest.compared:
        before = _usd(digest, total.before_nano_usd)
        lines[0] += f" In {weeks}, on {period_text(since, until)}: {before}."
    else:
        lines[0] += f" There was none in {weeks} to compare with."
    if digest.moves:
        moves = (
            f"{move.dimension} {_name(move.dimension, move.spend)} "
            f"{_signed(digest, move.spend.moved)} ({change(move.spend)})"
            for move in digest.moves
        )
        lines.append(f"What changed most: {', '.join(moves)}.")
    if digest.saved_nano_usd:
        lines.append(
            f"Saved: {_usd(digest, digest.saved_nano_usd)}, by cached and shared results and "
            "cheaper models."
        )
    if total.unpriced_calls:
        has = "1 call has" if total.unpriced_calls == 1 else f"{total.unpriced_calls:,} calls have"
        lines.append(
            f"{has} no price, or not a whole one: the true cost is higher. What to configure: "
            "spanledger report."
        )
    return lines


def notes(digest: Digest) -> list[str]:
    """The lines at the foot."""
    # Not "From": a mail program would put a > before a line that starts so.
    lines = [f"Source: {digest.place}"]
    if digest.budgets_error:
        lines.insert(0, f"The budgets could not be read: {digest.budgets_error}")
    if any(budget.unverified for budget in digest.budgets):
        lines.insert(0, "The ledger cannot be reached or recovers: more may have been spent.")
    return [printable(line) for line in lines]


def sections(digest: Digest, *, top: int) -> list[Section]:
    """The tables, of each the first `top` rows, 0 for all."""
    found = [
        _spend_section(digest, name, top) for name in DIMENSIONS if _tells(digest.groups[name])
    ]
    if digest.budgets:
        found.append(_budget_section(digest.budgets, top))
    if digest.unpriced:
        found.append(_unpriced_section(digest.unpriced, top))
    return found


def _tells(spends: Sequence[Spend]) -> bool:
    """It is not just the total again, under no name."""
    return any(spend.name is not None for spend in spends)


def _spend_section(digest: Digest, dimension: str, top: int) -> Section:
    spends = digest.groups[dimension]
    shown = spends[:top] if 0 < top < len(spends) else spends
    header = (dimension, "cost USD", "share", "before", "change")
    lines = [(_name(dimension, spend), spend) for spend in shown]
    if rest := spends[len(shown) :]:
        lines.append((f"… {len(rest)} more", _sum(rest)))
    rows = [_spend_row(digest, name, spend) for name, spend in lines]
    width = len(header) if digest.compared else 3
    return Section(
        f"By {dimension}",
        header[:width],
        [row._replace(cells=row.cells[:width]) for row in rows],
    )


def _spend_row(digest: Digest, name: str, spend: Spend) -> Row:
    places, whole = _places(digest), digest.total.nano_usd
    cost = _cost(spend, places)
    share = f"{spend.nano_usd / whole:.0%}" if whole and spend.nano_usd is not None else ""
    before = "?" if spend.before_nano_usd is None else _rounded(spend.before_nano_usd, places)
    changed = change(spend)
    fact = cost if spend.nano_usd is None else f"{cost} USD"
    if share:
        fact += f" ({share})"
    if digest.compared and changed:
        link = {"new": "", "gone": f", was {before}"}.get(changed, f" on {before}")
        fact += f", {changed}{link}"
    return Row((name, cost, share, before, changed), fact)


def _sum(spends: Sequence[Spend]) -> Spend:
    return Spend(
        None,
        sum(spend.nano_usd or 0 for spend in spends),
        sum(spend.before_nano_usd or 0 for spend in spends),
        sum(spend.calls for spend in spends),
        sum(spend.unpriced_calls for spend in spends),
    )


def _budget_section(budgets: Sequence[BudgetReading], top: int) -> Section:
    shown = budgets[:top] if top else budgets
    rows = [_budget_row(budget) for budget in shown]
    if len(shown) < len(budgets):
        rest = f"… {len(budgets) - len(shown)} more"
        rows.append(Row((rest, "", "", "", "", ""), "less used"))
    header = ("budget", "limit", "spent", "used", "projected", "tier")
    return Section("Budgets, as they stand now", header, rows)


def _budget_row(budget: BudgetReading) -> Row:
    unit = "" if budget.unit == "usd" else " cr"
    limit = f"{amount(budget.limit)}{unit}/{budget.period}"
    spent, projected = amount(budget.spent), amount(budget.projected)
    used = f"{part:.0%}" if (part := used_part(budget)) < 100 else ">99x"
    ahead = "" if budget.projected is None else f", projected {projected}"
    return Row(
        (printable(budget.scope), limit, spent, used, projected, budget.tier),
        f"{budget.tier}: {spent} of {limit} ({used}){ahead}",
        STYLES[TIERS.index(budget.tier)],
    )


def _unpriced_section(lines: Sequence[Unpriced], top: int) -> Section:
    shown = lines[:top] if top else lines
    rows = [
        Row(
            (
                printable(" ".join(filter(None, (line.provider, line.model)))),
                printable(line.reason or "no reason given"),
                f"{line.calls:,}",
            ),
            printable(f"{line.calls:,} calls: {line.reason or 'no reason given'}"),
        )
        for line in shown
    ]
    if rest := sum(line.calls for line in lines[len(shown) :]):
        more = f"… {len(lines) - len(shown)} more"
        rows.append(Row((more, "", f"{rest:,}"), f"{rest:,} calls"))
    return Section("Calls without a price", ("call", "why", "calls"), rows)


# -- amounts ---------------------------------------------------------------------------------------


def change(spend: Spend) -> str:
    """How much more or less it is than in the week before; empty where nobody knows."""
    now, before = spend.nano_usd, spend.before_nano_usd
    if now is None or before is None or not (now or before):
        return ""
    if not before:
        return "new"
    if not now:
        return "gone"
    if now >= _TIMES * before:
        return f"x{now / before:,.0f}"
    text = f"{now / before - 1:+.0%}"
    return "0%" if text in ("+0%", "-0%") else text


def period_text(since: datetime, until: datetime) -> str:
    """A day by its name, or from when to when."""
    last = until - timedelta(microseconds=1)
    times = [moment for moment in (since, until) if (moment.hour, moment.minute) != (0, 0)]
    if times:
        return f"{_day(since)} {since:%H:%M} to {_day(until)} {until:%H:%M}"
    if since.date() == last.date():
        return f"{since:%A}, {_day(since)}"
    return f"{_day(since)} to {_day(last)}"


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y}"


def _places(digest: Digest) -> int:
    return places_for(max(digest.total.nano_usd or 0, digest.total.before_nano_usd or 0))


def _usd(digest: Digest, nano_usd: int | None) -> str:
    return "no price" if nano_usd is None else f"{_rounded(nano_usd, _places(digest))} USD"


def _total(digest: Digest, spend: Spend) -> str:
    cost = _cost(spend, _places(digest))
    return cost if spend.nano_usd is None else f"{cost} USD"


def _signed(digest: Digest, nano_usd: int) -> str:
    return f"{'-' if nano_usd < 0 else '+'}{_usd(digest, abs(nano_usd))}"


def _cost(spend: Spend, places: int) -> str:
    if spend.nano_usd is None:
        return "no price"
    text = _rounded(spend.nano_usd, places)
    return f"≥{text.removeprefix('<')}" if spend.unpriced_calls else text


def _rounded(nano_usd: int, places: int) -> str:
    return rounded_usd(nano_usd, places) if nano_usd else "0"


def _name(dimension: str, spend: Spend) -> str:
    return f"(no {dimension})" if spend.name is None else printable(spend.name)


# -- in a terminal, and in plain text --------------------------------------------------------------


def drawn(digest: Digest, console: Console, *, top: int) -> RenderableType:
    """The digest, for `console`."""
    fine = can_draw(console)

    def text(line: str, style: str = "") -> Text:
        return Text(line if fine else line.translate(_PLAIN), style=style)

    parts: list[RenderableType] = [text(headline(digest), "bold")]
    parts += [text(line) for line in summary(digest)]
    for section in sections(digest, top=top):
        parts += [Text(), text(section.title, "bold")]
        parts.append(_table(section, console.width, fine=fine))
    parts.append(Text())
    for line in notes(digest):
        # A place to copy stays one line.
        foot = text(line, "dim")
        foot.no_wrap, foot.overflow = True, "ignore"
        parts.append(foot)
    return Group(*parts)


def _table(section: Section, width: int, *, fine: bool) -> Table:
    columns = list(_columns(section))
    taken = sum(max(map(cell_len, column)) + _GAP for column in columns[1:])
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        table.add_column(
            column[0],
            justify="right" if number and column[0] not in ("tier", "why") else "left",
            no_wrap=True,
            overflow="ellipsis" if fine else "crop",
            max_width=None if number else max(width - taken - _GAP, _NARROWEST_NAME),
        )
    for row in section.rows:
        cells = (cell if fine else cell.translate(_PLAIN) for cell in row.cells)
        table.add_row(*(Text(cell) for cell in cells), style=row.style)
    return table


def _columns(section: Section) -> Iterator[tuple[str, ...]]:
    yield from zip(section.header, *(row.cells for row in section.rows), strict=True)


def plain_table(section: Section, width: int) -> str:
    """A table of a digest in plain text of `width` columns, for a fixed-width font."""
    return _printed(_table(section, width, fine=True), width)


def plain(digest: Digest, *, top: int, width: int = MAIL_WIDTH) -> str:
    """The digest in plain text of `width` columns."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    return _printed(drawn(digest, console, top=top), width)


def _printed(what: RenderableType, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False).print(what, crop=False)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
