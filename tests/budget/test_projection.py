"""Projection: early in a month it is nearer to the truth than a plain run rate."""

import math
import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.budget.periods import Period, period_at
from spanledger.budget.projection import project, verdict

DAYS = 30
HOURS = DAYS * 24


def month(seed: int, mean: float) -> list[float]:
    """Spend by hour: office hours, quiet weekends, days that differ, bursts; 1,000 USD or so times `mean`."""
    chance = random.Random(seed)
    first_weekday = chance.randrange(7)
    hours = []
    for day in range(DAYS):
        weekend = (first_weekday + day) % 7 >= 5
        level = chance.lognormvariate(0, 0.4) * (0.3 if weekend else 1.0)
        for hour in range(24):
            daylight = 0.15 + max(0.0, math.sin((hour - 6) / 12 * math.pi))
            burst = 8.0 if chance.random() < 0.02 else 1.0
            hours.append(mean * level * daylight * burst * chance.lognormvariate(0, 0.5))
    return hours


def errors(at_hour: int) -> tuple[float, float]:
    """The mean error of our projection and of the plain run rate, in parts of the truth."""
    ours = plain = 0.0
    tenants = 200
    for tenant in range(tenants):
        growth = random.Random(-tenant).uniform(0.8, 1.3)
        last = round(sum(month(2 * tenant, 1e9)))
        hours = month(2 * tenant + 1, 1e9 * growth)
        truth, spent = sum(hours), sum(hours[:at_hour])
        elapsed = at_hour / HOURS
        ours += abs(project(round(spent), last, elapsed) - truth) / truth
        plain += abs(spent / elapsed - truth) / truth
    return ours / tenants, plain / tenants


@pytest.mark.parametrize("at_hour", [2, 24, 7 * 24])
def test_its_error_is_below_a_plain_run_rates(at_hour: int) -> None:
    ours, plain = errors(at_hour)
    assert ours < plain
    assert ours < 0.25


def test_at_the_end_it_is_what_was_spent() -> None:
    assert project(777, 10**9, 1.0) == 777


amounts = st.integers(0, 10**15)


@given(amounts, amounts, st.floats(0.0, 1.0))
def test_it_lies_between_the_prior_and_the_run_rate(spent: int, prior: int, elapsed: float) -> None:
    found = project(spent, prior, elapsed)
    assert found >= spent
    ends = [spent + prior * (1 - elapsed), spent / elapsed if elapsed else math.inf]
    assert min(ends) * (1 - 1e-9) - 1 <= found
    assert found <= max(ends) * (1 + 1e-9) + 1


@given(st.integers(10**6, 10**15), st.floats(0.0, 1.0))
def test_a_budget_in_step_is_projected_to_be_used_up(limit: int, elapsed: float) -> None:
    assert project(round(limit * elapsed), limit, elapsed) == pytest.approx(limit, abs=10, rel=1e-9)


def _november() -> Period:
    at = int(datetime(2026, 11, 10, tzinfo=UTC).timestamp()) * 10**9
    return period_at("month", UTC, at)


def _at(part: float) -> int:
    november = _november()
    return round(november.start_ns + part * (november.end_ns - november.start_ns))


@pytest.mark.parametrize(
    ("spent", "part", "told"),
    [(500, 0.049, False), (500, 0.051, True), (49, 0.5, False), (50, 0.5, True), (0, 0.9, False)],
)
def test_no_verdict_before_five_percent(spent: int, part: float, told: bool) -> None:
    found = verdict(spent, 1000, 0.0, _november(), _at(part))
    assert (found is not None) == told


def test_without_a_last_period_the_budgets_own_rate_counts() -> None:
    now = _at(0.2)
    assert verdict(200, 1000, 0.0, _november(), now) == 1000
    assert verdict(200, 1000, 500.0, _november(), now) == pytest.approx(867, abs=1)
    later = [verdict(200, 1000, last, _november(), now) for last in (1.0, 100.0, 5000.0)]
    assert all(one is not None and two is not None and one < two for one, two in pairwise(later))


def test_after_the_end() -> None:
    assert verdict(300, 1000, 0.0, _november(), _at(1.2)) == 300
