"""Unit economics: what one use, one user and one tenant cost, and what is left of what they pay."""

from grafana_foundation_sdk.models import dashboard as models

from boards.board import Row, ask, board, cell_links, choose_calls, series_links
from boards.look import COUNT, ORANGE, PERCENT, RED, USD, YELLOW, Column
from boards.panels import grid, lines, number, ranking
from boards.queries import CALL_LABELS, CALLS, COST, GIVEN_AND_MADE, SERVED, TOKENS, USES, Selection
from spanledger.api import names

_SEEN = Selection(CALL_LABELS)
_USED = Selection(("tenant", "feature"))  # a use is of no provider, model or operation
_MONTH_SECONDS = 2_629_800  # a year's twelfth
_REVENUE = f"(${{price:raw}}) * $__range_s / {_MONTH_SECONDS}"
_PAYING = f'tenant!~"|{names.OVERFLOW}"'  # the price is a tenant's, and these are none
_MARGIN_STEPS = ((-1e9, RED), (0.0, ORANGE), (0.5, YELLOW), (0.7, "green"))


def make() -> models.Dashboard:
    """The board."""
    return board(
        "unit-economics",
        "Unit economics",
        "Cost of one use of a feature, of a user, of a tenant; and the margin.",
        [
            *choose_calls(),
            ask(
                "price",
                "Price per tenant",
                "99",
                "What a tenant pays a month, in USD: a number, or PromQL that gives one by "
                "`tenant`.",
            ),
            ask(
                "active_users",
                "Active users",
                "0",
                "How many users are active: a number, or PromQL that gives one, such as "
                "sum(myapp_active_users). spanledger's own metrics never carry users.",
            ),
        ],
        [_per_use(), _per_tenant(), _margin(), _per_call()],
    )


def _per_use() -> Row:
    cost = _SEEN.total(COST, by="feature")
    uses = f"({_USED.total(USES, by='feature')} > 0)"
    day_cost = _SEEN.total(COST, by="feature", window="1d")
    day_uses = f"({_USED.total(USES, by='feature', window='1d')} > 0)"
    calls = _SEEN.total(CALLS, SERVED, by="feature")
    return "Per use of a feature", [
        grid(
            "Features",
            ["feature"],
            {
                "Cost of a use": Column(f"{cost} / {uses}", USD, decimals=4),
                "Uses": Column(_USED.total(USES, by="feature"), COUNT),
                "Calls a use": Column(f"{calls} / {uses}", COUNT, decimals=1),
                "Spend": Column(cost, USD),
            },
            "One use is one time that a person used the feature, however many paid calls that "
            "took.",
            sort="Spend",
            links={"feature": cell_links("feature", "spend")},
            width=12,
        ),
        lines(
            "Cost of a use",
            {"{{feature}}": f"{day_cost} / {day_uses}"},
            "Over the day before each point.",
            interval="1h",
            links=series_links("feature", "spend"),
        ),
    ]


def _per_tenant() -> Row:
    day_by_tenant = _SEEN.total(COST, by="tenant", window="1d")
    users = "(vector(0) + (${active_users:raw}) > 0)"  # a vector: numbers cannot be filtered
    return "Per tenant and user", [
        lines(
            "Cost of a tenant a day",
            {"{{tenant}}": day_by_tenant},
            "Spend of each tenant over the day before each point.",
            interval="1h",
            links=series_links("tenant", "tenant"),
        ),
        lines(
            "Cost of an active user a day",
            {"cost of a user": f"{_SEEN.total(COST, window='1d')} / {users}"},
            "All spend of a day over the number of active users. Empty until that is set at the "
            "top of the page.",
            interval="1h",
        ),
    ]


def _margin() -> Row:
    cost = _SEEN.total(COST, by="tenant")
    revenue = f"({_REVENUE} + 0 * {_SEEN.total(COST, _PAYING, by='tenant')})"
    total_revenue = f"sum({revenue})"
    return "Margin", [
        grid(
            "Margin by tenant",
            ["tenant"],
            {
                "Revenue": Column(revenue, USD),
                "Spend": Column(cost, USD),
                "Margin": Column(f"{revenue} - {cost}", USD),
                "Margin %": Column(f"1 - {cost} / {revenue}", PERCENT, steps=_MARGIN_STEPS),
            },
            "The price per tenant, for the length of the time range, less what was spent on AI "
            "and data APIs. Only tenants that spent; calls without one, and `other`, bring no "
            "revenue.",
            sort="Spend",
            links={"tenant": cell_links("tenant", "tenant")},
            width=16,
        ),
        number(
            "Margin of all",
            f"1 - {_SEEN.total(COST)} / {total_revenue}",
            "What all spend leaves of the revenue of the tenants that are named. Past the "
            "configured number of tenants, the revenue of `other` is missing.",
            unit=PERCENT,
            steps=_MARGIN_STEPS,
            width=4,
            height=8,
        ),
        number(
            "Spend",
            _SEEN.total(COST),
            "Of all tenants, in the time range.",
            width=4,
            height=8,
        ),
    ]


def _per_call() -> Row:
    served = f"({_SEEN.total(CALLS, SERVED, by='provider, model, operation')} > 0)"
    tokens = f"({_SEEN.total(TOKENS, GIVEN_AND_MADE, by='model')} > 0)"
    return "Per call and token", [
        ranking(
            "Cost of 1,000 calls",
            f"topk(15, 1000 * {_SEEN.total(COST, by='provider, model, operation')} / {served})",
            "{{provider}} {{model}} {{operation}}",
            "By what was called; calls that a cache answered count, and cost nothing.",
            links=series_links("provider", "data-layer"),
            width=12,
        ),
        ranking(
            "Cost of a million tokens",
            f"topk(15, 1e6 * {_SEEN.total(COST, by='model')} / {tokens})",
            "{{model}}",
            "By model, over all kinds of tokens: what a mix of input, cached input and output "
            "really costs.",
            links=series_links("model", "spend"),
            width=12,
        ),
    ]
