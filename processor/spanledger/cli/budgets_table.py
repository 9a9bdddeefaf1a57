"""Budgets as a table with bars in a terminal."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from spanledger.budget.amounts import Unit, from_nano
from spanledger.budget.periods import PeriodKind
from spanledger.budget.tiers import NAMES
from spanledger.budget.windows import Window
from spanledger.cli.budgets_figures import Figures, used_part

BAR_CELLS: Final = 8
_SHORT_BAR_CELLS: Final = 5
_WIDE: Final = 100  # columns from which on there is room for longer bars and words
_SHORT_PERIODS: Final[Mapping[PeriodKind, str]] = {"day": "day", "week": "wk", "month": "mo"}
_NARROWEST_NAME: Final = 12
_GAP: Final = 2  # between two columns
STYLES: Final = ("green", "yellow", "bold yellow", "bold red")
"""By tier."""

_UNITS: Final[Mapping[Unit, str]] = {"usd": "USD", "credits": "credits"}
_EIGHTHS: Final = "▏▎▍▌▋▊▉█"
_PLAIN_RULES: Final = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def can_draw(console: Console) -> bool:
    """The terminal's encoding has what bars and rules are drawn with."""
    try:
        f"{_EIGHTHS}─…".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def amount(nano: int | None, *, places: int = 2) -> str:
    """An amount for people; what is more than nothing does not look like nothing."""
    if nano is None:
        return "-"
    value = Decimal(nano).scaleb(-9)
    least = Decimal(1).scaleb(-places)
    if 0 < value < least / 2:
        return f"<{least:f}"
    return f"{value:,.{places}f}"


def bar(part: float, *, fine: bool, cells: int = BAR_CELLS) -> str:
    """A bar of `part` of the cells, and the part in percent."""
    eighths = max(round(min(part, 1.0) * cells * 8), 1 if part > 0 else 0)
    full, rest = divmod(eighths, 8)
    if fine:
        drawn = _EIGHTHS[-1] * full + (_EIGHTHS[rest - 1] if rest else "")
    else:
        drawn = "#" * (full + (rest >= 4))
    percent = f"{part:.0%}" if part < 100 else ">99x"
    return f"{drawn:<{cells}} {percent:>4}"


def remaining(seconds: float) -> str:
    """How long a period still is: days, or hours on its last day."""
    if seconds >= 86_400:
        return f"{seconds / 86_400:.1f} d"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def drawn(figures: Figures, now_ns: int, console: Console, *, top: int) -> RenderableType:
    """The table; of the lines the first `top`, 0 for all."""
    fine = can_draw(console)
    windows = figures.windows[:top] if top else figures.windows
    parts: list[RenderableType] = [_table(windows, now_ns, console.width, fine=fine)]
    if len(windows) < len(figures.windows):
        parts.append(Text(f"{len(figures.windows) - len(windows)} more: --top 0 shows all"))
    if any(window.unverified for window in windows):
        parts.append(Text("The ledger cannot be reached or recovers: more may have been spent."))
    parts.append(Text(f"from {figures.source}", style="dim"))
    return Group(*parts)


def _table(windows: Sequence[Window], now_ns: int, width: int, *, fine: bool) -> Table:
    columns = _columns(windows, now_ns, fine=fine, wide=width >= _WIDE)
    taken = sum(_GAP + max(len(text) for text in (name, *texts)) for name, _, texts in columns)
    table = Table(box=box.SIMPLE if fine else _PLAIN_RULES, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(
        "budget",
        no_wrap=True,
        overflow="ellipsis" if fine else "crop",
        max_width=max(width - taken - _GAP, _NARROWEST_NAME),
    )
    for name, justify, texts in columns:
        widest = max(len(text) for text in (name, *texts))
        table.add_column(name, justify=justify, no_wrap=True, min_width=widest)
    for number, window in enumerate(windows):
        style = STYLES[window.standing.tier]
        cells = [
            Text(texts[number], style=style if name in ("used", "tier") else "")
            for name, _, texts in columns
        ]
        table.add_row(Text(printable(window.scope)), *cells)
    return table


def _columns(
    windows: Sequence[Window], now_ns: int, *, fine: bool, wide: bool
) -> list[tuple[str, Literal["left", "right"], list[str]]]:
    """The columns after the name: their own names, sides and cells."""
    held = [amount(window.held) if window.held else "" for window in windows]
    ends = [remaining((window.period.end_ns - now_ns) / 1e9) for window in windows]
    cells = BAR_CELLS if wide else _SHORT_BAR_CELLS
    bars = [bar(used_part(window), fine=fine, cells=cells) for window in windows]
    columns: list[tuple[str, Literal["left", "right"], list[str]]] = [
        ("limit", "right", [_limit(window, wide=wide) for window in windows]),
        ("spent", "right", [amount(window.spent) for window in windows]),
        ("held", "right", held),
        ("projected", "right", [amount(window.projected) for window in windows]),
        ("used", "left", bars),
        ("tier", "left", [NAMES[window.standing.tier] for window in windows]),
        ("left", "right", ends),
    ]
    return [column for column in columns if column[0] != "held" or any(held)]


def _limit(window: Window, *, wide: bool) -> str:
    limit, unit = from_nano(window.budget.limit), "" if window.budget.unit == "usd" else " cr"
    text = f"{limit:,f}" if limit == limit.to_integral_value() else amount(window.budget.limit)
    kind = window.period.kind
    return f"{text}{unit}/{kind if wide else _SHORT_PERIODS[kind]}"


def printable(text: str) -> str:
    """`text` without what would disturb a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def unit_name(unit: Unit) -> str:
    """The unit, for people."""
    return _UNITS[unit]
