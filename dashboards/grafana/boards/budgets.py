"""Budgets: what is used against the limit and against the clock, and what the tiers do about it."""

from typing import Final

from grafana_foundation_sdk.models import dashboard as models

from boards.board import Row, alerts, board, choose, choose_calls, series_links
from boards.look import (
    ANY_IS_BAD,
    COUNT,
    DAYS,
    ORANGE,
    PERCENT,
    RED,
    USD,
    USED_STEPS,
    YELLOW,
    Column,
)
from boards.panels import Panel, bars, grid, lines, number, ranking, timeline
from boards.queries import (
    CALLS,
    CREDITS_HELD,
    CREDITS_LIMIT,
    CREDITS_PROJECTED,
    CREDITS_SPENT,
    HELD,
    LIMIT,
    PROJECTED,
    SAVED,
    SPENT,
    TIER,
    Selection,
    days_left_by_period,
    elapsed_by_period,
)

_SEEN = Selection(("scope", "period"))
_TIERED = Selection(("scope",))
_CALLERS = Selection(("tenant", "feature"))

TIERS: Final = {
    0: ("ok", "green"),
    1: ("warning", YELLOW),
    2: ("critical", ORANGE),
    3: ("hard", RED),
}

_LEGEND = "{{scope}} ({{period}}{{unit}})"


class _Amounts:
    """What the budgets in one unit have."""

    def __init__(self, limit: str, spent: str, held: str, projected: str) -> None:
        self.limit, self.spent = _SEEN.highest(limit), _SEEN.highest(spent)
        self.held, self.projected = _SEEN.highest(held), _SEEN.highest(projected)
        self.used = f"({self.spent} + {self.held}) / ({self.limit} > 0)"
        gone = f"(({elapsed_by_period()}) > 0.05)"
        self.pace = f"{self.used} / on (period) group_left () {gone}"


_USD = _Amounts(LIMIT, SPENT, HELD, PROJECTED)
_CREDITS = _Amounts(CREDITS_LIMIT, CREDITS_SPENT, CREDITS_HELD, CREDITS_PROJECTED)


def _both(usd: str, credits_: str) -> str:
    """Budgets in USD and in credits; the latter say so in the label `unit`."""
    return f'{usd} or label_replace({credits_}, "unit", ", credits", "", "")'


def make() -> models.Dashboard:
    """The board."""
    return board(
        "budgets",
        "Budgets",
        "Budgets and their pace: used, held, projected, tier, and the calls that were throttled, "
        "degraded or blocked.",
        [
            choose("scope", metric=TIER),
            choose("period", metric=f'{{__name__=~"{LIMIT}|{CREDITS_LIMIT}"}}'),
            *choose_calls("tenant", "feature"),
        ],
        [_now(), _over_time(), _stopped(), ("Alerts", [alerts("budget")])],
        start="now-7d",
    )


def _now() -> Row:
    tier = _TIERED.highest(TIER, by="scope")
    outcomes = {
        "Throttled calls": (
            "throttled",
            "Calls refused at the critical tier: they would have waited too long.",
        ),
        "Degraded calls": (
            "degraded",
            "Calls answered by a cheaper model or a stale result at the hard tier.",
        ),
        "Blocked calls": ("blocked", "Calls refused at the hard tier with BudgetExceeded."),
    }
    steps = {1: ((1, YELLOW),), 2: ((1, ORANGE),), 3: ((1, RED),)}
    return "Now", [
        *(
            number(
                f"At {TIERS[value][0]}",
                f"count({tier} == {value}) or vector(0)",
                f"Scopes whose tier is {TIERS[value][0]}.",
                unit=COUNT,
                steps=steps[value],
            )
            for value in (1, 2, 3)
        ),
        *(
            number(
                title,
                _CALLERS.total(CALLS, f'outcome="{outcome}"'),
                f"{text} In the time range.",
                unit=COUNT,
                decimals=0,
                steps=ANY_IS_BAD if outcome == "blocked" else ((1, YELLOW),),
            )
            for title, (outcome, text) in outcomes.items()
        ),
        _table("Budgets in USD", _USD, USD, height=10),
        _table("Budgets in credits", _CREDITS, COUNT, height=6),
    ]


def _table(title: str, of: _Amounts, unit: str, *, height: int) -> Panel:
    tier = _TIERED.highest(TIER, by="scope")
    days_left = f"0 * {of.limit} + on (period) group_left () ({days_left_by_period()})"
    return grid(
        title,
        ["scope", "period"],
        {
            "Tier": Column(f"0 * {of.limit} + on (scope) group_left () {tier}", mapping=TIERS),
            "Used": Column(of.used, PERCENT, steps=USED_STEPS),
            "Against pace": Column(of.pace, PERCENT, steps=((1.0, YELLOW), (1.5, RED))),
            "Spent": Column(of.spent, unit),
            "Held": Column(of.held, unit),
            "Limit": Column(of.limit, unit),
            "Projected": Column(f"{of.projected} / ({of.limit} > 0)", PERCENT, steps=((1.0, RED),)),
            "Days left": Column(days_left, DAYS, decimals=1),
        },
        "Used is spent and held (estimates of calls in flight). Against pace: the part used "
        "over the part of the period gone by, from 5 % of the period on; above 100 % it is "
        "ahead. Periods are counted in UTC here, whatever zone the budget has. A scope's tier is "
        "the worst of its budgets'.",
        sort="Used",
        height=height,
    )


def _over_time() -> Row:
    return "Over time", [
        ranking(
            "Used of the limit",
            f"topk(20, {_both(_USD.used, _CREDITS.used)})",
            _LEGEND,
            "Warning from 70 %, critical from 90 %, hard from 110 %, unless a budget sets its "
            "tiers itself.",
            unit=PERCENT,
            steps=USED_STEPS,
            width=12,
        ),
        timeline(
            "Tiers",
            _TIERED.highest(TIER, by="scope"),
            "{{scope}}",
            "The tier of each scope, as the gate has it.",
            TIERS,
        ),
        lines(
            "Spent and projected",
            {f"{_LEGEND} spent": _USD.spent, f"{_LEGEND} projected": _USD.projected},
            "What budgets in USD spent in the period, and what it will have been at its end at the "
            "present pace.",
        ),
        lines(
            "Against pace",
            {_LEGEND: _both(_USD.pace, _CREDITS.pace)},
            "The part of the budget used over the part of the period gone by. Above 100 % the "
            "budget ends early.",
            unit=PERCENT,
            steps=((1.0, YELLOW), (1.5, RED)),
        ),
    ]


def _stopped() -> Row:
    stopped = 'outcome=~"throttled|degraded|blocked"'
    burned = f"{_USD.spent} - min_over_time({_USD.spent}[1h:1m])"
    return "Held back", [
        bars(
            "Throttled, degraded and blocked",
            _CALLERS.total(CALLS, stopped, by="outcome", window="1h", offset="-1h"),
            "{{outcome}}",
            "Calls that a budget touched, hour by hour.",
            unit=COUNT,
            interval="1h",
        ),
        bars(
            "Whose calls",
            _CALLERS.total(CALLS, stopped, by="tenant, feature", window="1h", offset="-1h"),
            "{{tenant}} {{feature}}",
            "The same by tenant and feature.",
            unit=COUNT,
            interval="1h",
            links=series_links("tenant", "tenant"),
        ),
        lines(
            "Burned within an hour",
            {_LEGEND: burned},
            "USD spent in the hour before each point: what the burn-rate alerts look at.",
        ),
        bars(
            "Saved by degrading",
            _CALLERS.daily(SAVED, 'reason="degrade"', by="feature"),
            "{{feature}}",
            "What cheaper models saved at the hard tier, day by day.",
        ),
    ]
