"""Tenant: one tenant's page, to send to the customer. It names features, no provider or model."""

from grafana_foundation_sdk.models import dashboard as models

from boards.board import Row, board, choose
from boards.look import COUNT, PERCENT, USD, USED_STEPS, Column
from boards.panels import bars, grid, lines, note, number, share
from boards.queries import (
    CALLS,
    COST,
    HELD,
    LIMIT,
    PROJECTED,
    SAVED,
    SERVED,
    SPENT,
    USES,
    Selection,
    month_end,
    pace,
)

# Exactly this tenant: as a pattern, a name with a dot would show a neighbour's spend to a customer.
_SEEN = Selection((), ('tenant="$tenant"',))
_BUDGET = Selection((), ('scope="tenant:$tenant"', 'period="month"'))
_SPENT = _BUDGET.highest(SPENT)
_LIMIT = _BUDGET.highest(LIMIT)


def make() -> models.Dashboard:
    """The board."""
    return board(
        "tenant",
        "Tenant usage",
        "One tenant's usage, to send to the customer: as a snapshot or a PDF (a live link lets "
        "its reader choose another tenant).",
        [choose("tenant", multi=False)],
        [_month(), _by_feature(), _budget()],
        linked=False,
    )


def _month() -> Row:
    return "$tenant", [
        number(
            "This month",
            _SEEN.total(COST),
            "Cost of AI and data since the month began.",
            since="now/M",
        ),
        number(
            "Expected at the month's end",
            month_end(_SEEN.total(COST), pace(_SEEN)),
            "This month so far, and the rest at the pace of the last seven days.",
            since="now/M",
        ),
        number(
            "Uses this month",
            _SEEN.total(USES),
            "How many times features were used.",
            unit=COUNT,
            since="now/M",
        ),
        number(
            "Requests this month",
            _SEEN.total(CALLS, SERVED),
            "Requests to AI and data services that were answered.",
            unit=COUNT,
            since="now/M",
        ),
        number(
            "Saved this month",
            _SEEN.total(SAVED),
            "Cost that was avoided by reusing results.",
            since="now/M",
        ),
        number(
            "Used of the month's budget",
            f"({_SPENT} + {_BUDGET.highest(HELD)}) / ({_LIMIT} > 0)",
            "Where a monthly budget is agreed.",
            unit=PERCENT,
            steps=USED_STEPS,
        ),
    ]


def _by_feature() -> Row:
    cost = _SEEN.total(COST, by="feature")
    uses = f"({_SEEN.total(USES, by='feature')} > 0)"
    return "By feature", [
        bars(
            "Cost a day",
            _SEEN.daily(COST, by="feature"),
            "{{feature}}",
            "Each bar is one day; today's is still growing.",
            width=16,
        ),
        share("Share by feature", cost, "{{feature}}", "What the cost was for, in the time range."),
        grid(
            "Features",
            ["feature"],
            {
                "Uses": Column(_SEEN.total(USES, by="feature"), COUNT),
                "Cost of a use": Column(f"{cost} / {uses}", USD, decimals=4),
                "Cost": Column(cost, USD),
            },
            "In the time range.",
            sort="Cost",
            width=12,
        ),
        bars(
            "Uses a day",
            _SEEN.daily(USES, by="feature"),
            "{{feature}}",
            "How many times each feature was used.",
            unit=COUNT,
        ),
    ]


def _budget() -> Row:
    return "Budget", [
        lines(
            "This month against the budget",
            {
                "spent": _SPENT,
                "expected": _BUDGET.highest(PROJECTED),
                "budget": _LIMIT,
            },
            "Cost since the month began, what it is expected to be at its end, and the agreed "
            "budget.",
            width=24,
        ),
        note(
            "About these figures",
            "Amounts are in US dollars and are what the providers of AI and data services charge "
            "for the requests made on your behalf. Results that were reused cost nothing and are "
            "shown as saved. Today's figures are still growing.",
        ),
    ]
