"""Values, axes and colours as Grafana shows them, in its light theme."""

import math
from collections.abc import Mapping
from typing import Any, Final

COLOURS: Final[Mapping[str, str]] = {
    "green": "#56A64B",
    "yellow": "#E0B400",
    "orange": "#FF780A",
    "red": "#E02F44",
    "blue": "#3274D9",
}
"""Grafana's names for them; the yellow is its darker one, which can be read on white."""
PALETTE: Final = (
    *("#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#1F78C1", "#BA43A9"),
    *("#705DA0", "#508642", "#E24D42", "#CCA300", "#447EBC", "#C15C17"),
)
"""The first of Grafana's classic colours for series."""

_THOUSANDS: Final = ((1e9, "B"), (1e6, "M"), (1e3, "K"), (0, ""))
_SECONDS: Final = (
    *((604_800, " weeks"), (86_400, " days"), (3_600, " hours"), (60, " mins"), (1, " s")),
    *((1e-3, " ms"), (0, " s")),
)
_DAYS: Final = ((7, " weeks"), (0, " days"))
_SCALES: Final = {"currencyUSD": _THOUSANDS, "s": _SECONDS, "d": _DAYS}


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """The value with its unit."""
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{_digits(value * 100, decimals)}%"
    if unit == "locale":
        text = f"{value:,.{decimals or 0}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if unit == "prefix:$":
        return f"${_digits(value, decimals)}"
    scale, suffix = next(pair for pair in _SCALES[unit] if abs(value) >= pair[0])
    sign = "-" if value < 0 else ""
    dollar = "$" if unit == "currencyUSD" else ""
    return f"{sign}{dollar}{_digits(abs(value) / (scale or 1), decimals)}{suffix}"


def _digits(value: float, decimals: int | None) -> str:
    """The number; three digits of it, unless `decimals` says otherwise."""
    if decimals is None:
        whole = abs(value - round(value)) < 1e-9
        decimals = 0 if whole else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # and not -0.00


def ticks(lowest: float, highest: float, unit: str) -> list[float]:
    """Some five round values from the lowest to the highest, for an axis."""
    scales = {"s": _SECONDS, "d": _DAYS}.get(unit, ())
    base = next((scale for scale, _ in scales if highest >= scale), 1) or 1
    rough = (highest - lowest) / base / 4 or 1
    power = 10.0 ** math.floor(math.log10(rough))
    step = base * power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = (math.floor(end / step + 1e-9) for end in (lowest, highest))
    values = [number * step for number in range(first, last + 1)]
    return [value for value in values if unit != "locale" or value.is_integer()]


def threshold_colour(value: float, thresholds: Mapping[str, Any]) -> str:
    """The colour of the last step that the value has reached."""
    reached = [s for s in thresholds["steps"] if s.get("value") is None or value >= s["value"]]
    return COLOURS[reached[-1]["color"]]
