"""The throttle: what is left is spread over the rest of the period."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.budget.throttle import BURST, Pacer

DAY_S = 86_400
DAY = DAY_S * 10**9
BURST_S = BURST * DAY_S


def test_the_first_call_goes_at_once() -> None:
    assert Pacer(0, DAY).wait_s(0) == 0.0


def test_calls_wait_by_their_cost() -> None:
    pacer = Pacer(0, DAY)
    now = DAY // 2  # half a day is left, and 100: one of 432 s each
    pacer.passed(now, 4, 100)
    assert pacer.wait_s(now) == pytest.approx(4 * 432 - BURST_S)
    pacer.passed(now, 1, 100)
    assert pacer.wait_s(now) == pytest.approx(5 * 432 - BURST_S)
    assert pacer.wait_s(now + 2 * 432 * 10**9) == pytest.approx(3 * 432 - BURST_S)
    assert pacer.wait_s(now + 5 * 432 * 10**9) == 0.0


def test_a_few_small_calls_are_not_held_up() -> None:
    pacer = Pacer(0, DAY)
    passed = 0
    while pacer.wait_s(0) == 0.0:
        pacer.passed(0, 1, 10_000)
        passed += 1
    assert passed == pytest.approx(10_000 * BURST, abs=2)


def test_nobody_waits_beyond_the_period() -> None:
    pacer = Pacer(0, DAY)
    pacer.passed(0, 50, 1)
    assert pacer.wait_s(0) == DAY_S
    assert pacer.wait_s(DAY - 10**9) == 1.0


def test_where_nothing_is_left_it_has_no_say() -> None:
    pacer = Pacer(0, DAY)
    pacer.passed(0, 5, 0)
    pacer.passed(0, 5, -3)
    pacer.passed(DAY, 5, 3)
    assert pacer.wait_s(0) == 0.0


def test_processes_share_the_pace_and_the_burst() -> None:
    pacers = [Pacer(0, DAY) for _ in range(4)]

    def ask_all(now: int) -> int:
        passed = 0
        for pacer in pacers:
            while pacer.wait_s(now) == 0.0:
                pacer.passed(now, 1, 10_000, len(pacers))
                passed += 1
        return passed

    assert ask_all(0) == pytest.approx(10_000 * BURST, abs=4)
    later = round(BURST * DAY)
    assert ask_all(later) == pytest.approx(10_000 * BURST, abs=6)


def test_who_is_held_back_keeps_his_part_for_a_while() -> None:
    pacer = Pacer(0, DAY)
    pacer.passed(0, 500, 10_000, 4)
    before = pacer.wait_s(0)
    pacer.passed(0, 500, 10_000, 1)  # the others wait, so nobody counts them
    assert pacer.wait_s(0) - before == pytest.approx(4 * DAY_S / 20)
    pacer.passed(DAY // 2, 500, 10_000, 1)
    assert pacer.wait_s(DAY // 2) == pytest.approx(DAY_S / 40 - BURST_S)


@given(st.integers(1, 50), st.integers(0, 9))
def test_who_asks_at_every_chance_spends_to_the_end(cost: int, tenths: int) -> None:
    """With calls always at hand, what was left is spent by the end, and not long before it."""
    start = now = DAY * tenths // 10
    pacer, left = Pacer(0, DAY), 1000
    half = start + (DAY - start) // 2
    left_at_half = None
    while now < DAY and left >= cost:
        if now >= half and left_at_half is None:
            left_at_half = left
        wait_s = pacer.wait_s(now)
        if wait_s:
            now += round(wait_s * 1e9) + 1
            continue
        pacer.passed(now, cost, left)
        left -= cost
    assert left < 1000 * (BURST + 0.3)
    if tenths <= 5:
        assert left_at_half is not None
        assert left_at_half == pytest.approx(500, abs=60 + 2 * cost)
