"""Amounts as text: exact ones for machines, rounded ones for people."""

from decimal import Decimal


def usd_text(nano_usd: int | None) -> str | None:
    """USD as an exact decimal, without needless zeros: "0.0123"."""
    return None if nano_usd is None else decimal_text(Decimal(nano_usd).scaleb(-9))


def decimal_text(amount: Decimal) -> str:
    """`amount` as an exact decimal, without an exponent or needless zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def grouped(amount: Decimal) -> str:
    """`amount` as an exact decimal with its thousands set apart: "1,004.5"."""
    text = format(amount, ",f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def places_for(nano_usd: int) -> int:
    """Decimal places to show amounts up to `nano_usd` with, so that small ones are seen."""
    if nano_usd >= 1000 * 10**9:
        return 2
    return 4 if nano_usd >= 10**8 else 6


def rounded_usd(nano_usd: int, places: int) -> str:
    """USD for people. What is more than nothing does not look like nothing."""
    usd = Decimal(nano_usd).scaleb(-9)
    least = Decimal(1).scaleb(-places)
    if 0 < usd < least / 2:
        return f"<{least:f}"
    return f"{usd:,.{places}f}"


def short_number(number: int | Decimal) -> str:
    """A count in at most six characters: 999,999 then 1.0M."""
    for unit, name in ((10**9, "G"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:,.1f}{name}"
    whole = number == int(number)
    return f"{int(number):,}" if whole else f"{number:,.1f}"
