"""Amounts: one half-even rounding in, exact out."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.budget.amounts import from_nano, portion, to_nano

nano = st.integers(-(2**60), 2**60)


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.0000000025", 2),
        ("0.00000000251", 3),
        ("1", 10**9),
    ],
)
def test_rounds_half_to_even(amount: str, rounded: int) -> None:
    assert to_nano(Decimal(amount)) == rounded


@given(nano)
def test_there_and_back(amount: int) -> None:
    assert to_nano(from_nano(amount)) == amount


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (10 * 10**9, "10"),
        (10**11, "100"),
        (1, "1E-9"),
        (1_500_000_000, "1.5"),
        (-(10**9), "-1"),
    ],
)
def test_reads_well(amount: int, text: str) -> None:
    assert str(from_nano(amount)) == text


@given(st.integers(0, 2**53), st.decimals(0, 2, places=4))
def test_a_portion_is_the_nearest_integer(amount: int, part: Decimal) -> None:
    exact = amount * Fraction(part)
    found = portion(amount, part)
    assert abs(found - exact) <= Fraction(1, 2)
    if abs(found - exact) == Fraction(1, 2):
        assert found % 2 == 0
