"""Tiers: when they are entered and left, and that they do not flap."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.budget.tiers import CRITICAL, HARD, OK, WARNING, Standing, Thresholds, Tiers

THRESHOLDS = Thresholds.of(1000, Tiers())


def standing() -> Standing:
    return Standing(THRESHOLDS)


def test_thresholds() -> None:
    assert tuple(THRESHOLDS) == (700, 900, 1100, 1200, 1000, 50)
    assert Thresholds.of(15, Tiers(*[Decimal("0.1")] * 4)).hard == 2  # 1.5: half to even


@pytest.mark.parametrize(
    ("spent", "tier"),
    [(0, OK), (699, OK), (700, WARNING), (899, WARNING), (900, CRITICAL), (1099, CRITICAL), (1100, HARD), (5000, HARD)],
)  # fmt: skip
def test_money_spent_counts_at_once(spent: int, tier: int) -> None:
    stand = standing()
    assert stand.evaluate(spent, 0, None) == (tier > OK)
    assert stand.tier == tier


def test_what_is_held_must_be_seen_twice() -> None:
    stand = standing()
    assert not stand.evaluate(600, 300, None)
    assert stand.tier == OK
    assert stand.evaluate(600, 300, None)
    assert (stand.tier, stand.cause) == (CRITICAL, "held")


def test_held_for_a_moment_is_nothing() -> None:
    stand = standing()
    for _ in range(10):
        stand.evaluate(600, 600, None)
        stand.evaluate(600, 0, None)
    assert stand.tier == OK


def test_what_is_held_does_not_warn() -> None:
    stand = standing()
    for _ in range(3):
        stand.evaluate(300, 500, None)
    assert stand.tier == OK


def test_a_projection_must_be_seen_twice() -> None:
    stand = standing()
    assert not stand.evaluate(100, 0, 1001)
    assert stand.evaluate(100, 0, 1001)
    assert (stand.tier, stand.cause) == (WARNING, "projected")
    # It stays a warning until the projection is five points below the limit, twice.
    for projected in (1001, 999, 951, 950, 951, 950):
        stand.evaluate(100, 0, projected)
        assert stand.tier == WARNING
    stand.evaluate(100, 0, 950)
    assert stand.tier == OK


def test_projected_to_just_reach_the_limit_is_no_warning() -> None:
    stand = standing()
    for _ in range(3):
        stand.evaluate(100, 0, 1000)
    assert stand.tier == OK


def test_a_tier_is_left_five_points_below_and_twice() -> None:
    stand = standing()
    stand.evaluate(850, 50, None)
    stand.evaluate(850, 50, None)
    assert stand.tier == CRITICAL
    for held in (0, 0, 1, 0):  # 850 is 5 points below 900, and still in
        stand.evaluate(850, held, None)
        assert stand.tier == CRITICAL
    stand.evaluate(849, 0, None)
    assert stand.tier == CRITICAL
    stand.evaluate(849, 0, None)
    assert stand.tier == WARNING


def test_a_lower_limit_met_once_does_not_count() -> None:
    stand = standing()
    stand.evaluate(900, 0, None)
    for _ in range(10):
        stand.evaluate(700, 0, None)
        stand.evaluate(900, 0, None)
    assert stand.tier == CRITICAL


def test_up_and_down_do_not_make_two() -> None:
    stand = standing()
    stand.evaluate(700, 0, None)
    for _ in range(5):
        stand.evaluate(700, 200, None)  # one for critical
        stand.evaluate(600, 0, None)  # one for ok
    assert stand.tier == WARNING


def test_nothing_may_be_spent() -> None:
    stand = Standing(Thresholds.of(0, Tiers()))
    stand.evaluate(0, 0, None)
    assert stand.tier == HARD


def test_a_refusal_is_the_hard_tier_until_such_a_call_fits() -> None:
    stand = standing()
    assert stand.refused(1000, 20, 100)
    assert not stand.refused(1000, 20, 100)
    assert stand.tier == HARD
    for held in (20, 1, 1, 1):
        stand.evaluate(1000, held, None)
        assert stand.tier == HARD
    stand.evaluate(1000, 0, None)
    stand.evaluate(1000, 0, None)
    assert stand.tier == CRITICAL


def test_a_refusal_of_a_small_call_is_left_by_five_points() -> None:
    stand = standing()
    stand.refused(1095, 0, 6)
    for _ in range(3):
        stand.evaluate(1050, 0, None)
    assert stand.tier == HARD
    stand.evaluate(1049, 0, None)
    stand.evaluate(1049, 0, None)
    assert stand.tier == CRITICAL


def test_a_call_larger_than_the_budget_says_nothing() -> None:
    stand = standing()
    assert not stand.refused(899, 0, 5000)
    assert stand.tier == OK


def test_a_refusal_where_hard_begins_with_critical() -> None:
    stand = Standing(Thresholds.of(1000, Tiers(*map(Decimal, ("0.7", "1", "1", "1")))))
    assert not stand.refused(949, 0, 60)
    assert stand.refused(950, 0, 60)


amounts = st.integers(0, 1300)


@given(st.lists(st.tuples(amounts, amounts, st.none() | st.integers(0, 3000))))
def test_any_order_of_amounts(evaluations: list[tuple[int, int, int | None]]) -> None:
    stand = standing()
    for spent, held, projected in evaluations:
        before = stand.tier
        rose = stand.evaluate(spent, held, projected)
        assert rose == (stand.tier > before)
        # Never below what is spent for certain, never above what there is any sign of.
        assert stand.tier >= THRESHOLDS.reached(spent, 0, None)
        assert stand.tier <= max(before, THRESHOLDS.reached(spent, held, projected))


@given(st.integers(0, 1050), st.lists(st.integers(0, 40), min_size=1, max_size=40))
def test_noise_below_five_points_never_flaps(base: int, noise: list[int]) -> None:
    """Amounts that swing by less than the slack change the tier upwards only."""
    stand = standing()
    tiers = []
    for extra in noise:
        stand.evaluate(base, extra, None)
        tiers.append(stand.tier)
    assert tiers == sorted(tiers)
