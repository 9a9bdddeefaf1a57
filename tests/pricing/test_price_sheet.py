"""The arithmetic by itself."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.pricing.reckoning import reckon
from spanledger.pricing.sheet import Rate, Sheet, Units, half_even

UNITS = Units(
    {
        "all": {"family": "x"},
        "red": {"family": "x", "colour": "red"},
        "blue": {"family": "x", "colour": "blue"},
        "big": {"family": "x", "size": "big"},
        "big_red": {"family": "x", "colour": "red", "size": "big"},
    }
)


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [
        (0, 1, 0),
        (1, 2, 0),
        (3, 2, 2),
        (5, 2, 2),
        (7, 2, 4),
        (1, 3, 0),
        (2, 3, 1),
        (10, 5, 2),
        (6, 4, 2),
    ],
)
def test_half_even(numerator: int, denominator: int, rounded: int) -> None:
    assert half_even(numerator, denominator) == rounded


@given(st.integers(0, 10**30), st.integers(1, 10**12))
def test_half_even_is_pythons_round(numerator: int, denominator: int) -> None:
    assert half_even(numerator, denominator) == round(Fraction(numerator, denominator))


def test_how_units_relate() -> None:
    assert UNITS.part("big_red", "all")
    assert not UNITS.part("red", "red")
    assert not UNITS.part("all", "red")
    assert UNITS.joint("red", "big") == "big_red"
    assert UNITS.joint("big_red", "red") is None
    assert UNITS.joint("red", "blue") is None
    assert UNITS.joint("blue", "big") is None
    assert UNITS.disjoint("red", "blue")
    assert not UNITS.disjoint("red", "big")
    assert not UNITS.part("made-up", "all")
    assert UNITS.joint("made-up", "all") is None


def test_tiers_price_all_of_a_call() -> None:
    rate = Rate("input_tokens", Decimal(1), 1, ((10, Decimal(2)), (20, Decimal(3))))
    sheet = Sheet([rate], Units({"input_tokens": {"family": "tokens"}}))
    amounts = [sheet.quick({"input_tokens": tokens}) for tokens in (10, 11, 20, 21)]
    assert amounts == [10 * 10**9, 22 * 10**9, 40 * 10**9, 63 * 10**9]
    assert sheet.quick({"input_tokens": Decimal(11)}) is None
    assert reckon(sheet, {"input_tokens": Decimal("10.5")}).nano_usd == 21 * 10**9


def test_parts_that_are_apart_imply_their_sum() -> None:
    sheet = Sheet([Rate("all", Decimal(1), 10**9)], UNITS)
    assert reckon(sheet, {"red": 3, "blue": 4}).nano_usd == 7
    assert reckon(sheet, {"red": 3, "big": 4}).nano_usd == 4  # they may be the same


def test_reasons_come_in_an_order() -> None:
    sheet = Sheet([Rate("red", Decimal(1), 10**9)], UNITS)
    assert reckon(sheet, {"z": 1, "red": 1, "a": 1}).reasons == ("unpriced:a", "unpriced:z")


@given(
    st.dictionaries(st.sampled_from(["all", "red", "blue", "big", "big_red"]), st.integers(0, 50)),
    st.lists(st.sampled_from(["all", "red", "blue", "big", "big_red"]), unique=True),
)
def test_the_hot_path_and_the_careful_one_agree(usage: dict[str, int], priced: list[str]) -> None:
    sheet = Sheet([Rate(unit, Decimal(len(unit)), 7) for unit in priced], UNITS)
    quick, careful = sheet.quick(usage), reckon(sheet, usage)
    if quick is not None:
        assert careful.status == "exact"
        assert careful.nano_usd is not None
        assert quick == round(careful.nano_usd)
    elif careful.status == "exact":
        assert careful.nano_usd is not None


def test_many_shapes_are_not_kept() -> None:
    sheet = Sheet([Rate("all", Decimal(1), 10**9)], UNITS)
    for number in range(200):
        assert sheet.quick({"all": 1, f"other-{number}": 0}) == 1
    assert len(sheet._shapes) <= 64
