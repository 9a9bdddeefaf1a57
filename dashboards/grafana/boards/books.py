"""Quality of the books: what is missing from the amounts or estimated, and do the counts agree."""

from grafana_foundation_sdk.models import dashboard as models

from boards.board import Row, alerts, board, choose_calls, series_links, to_board
from boards.look import ANY_IS_BAD, COUNT, ORANGE, PERCENT, RED, SECONDS, YELLOW, Column
from boards.panels import bars, grid, lines, number, numbers
from boards.queries import (
    CALL_LABELS,
    CALLS,
    COST,
    ESTIMATED,
    INTERNAL_ERRORS,
    PRICES,
    SPENT,
    UNPRICED,
    UNVERIFIED,
    Selection,
)
from spanledger.api import names

_SEEN = Selection(CALL_LABELS)
_ALL = Selection(())
_DAY = 86_400
_NAMELESS = ((0.05, YELLOW), (0.5, ORANGE))
_ERRORS = ((1, YELLOW), (100, RED))
_OLD = ((30 * _DAY, YELLOW), (45 * _DAY, RED))


def make() -> models.Dashboard:
    """The board."""
    return board(
        "books",
        "Quality of the books",
        "How far the amounts can be believed: unpriced and estimated calls, ledger against "
        "Prometheus, prices, errors.",
        choose_calls(),
        [_now(), _missing(), _agree(), ("Alerts", [alerts("books|spend")])],
        start="now-7d",
    )


def _part(metric: str, *matchers: str) -> str:
    return f"{_SEEN.total(metric, *matchers)} / ({_SEEN.total(COST)} > 0)"


def _now() -> Row:
    return "Now", [
        number(
            "Unpriced calls",
            _SEEN.total(UNPRICED),
            "Calls whose price is not known. They are in no amount: the true spend is higher.",
            unit=COUNT,
            steps=ANY_IS_BAD,
        ),
        number(
            "Estimated",
            _part(ESTIMATED),
            "Part of the spend for which the provider stated no usage, so that the books hold our "
            "estimate.",
            unit=PERCENT,
            steps=((0.05, YELLOW), (0.2, RED)),
        ),
        number(
            "Ledger out of reach",
            f"max({_ALL.of(UNVERIFIED)})",
            "Processes that cannot reach the shared ledger hold budgets on their own meanwhile. "
            "0: all reach it.",
            unit=COUNT,
            steps=ANY_IS_BAD,
        ),
        number(
            "Internal errors",
            _ALL.total(INTERNAL_ERRORS),
            "Errors of spanledger's own, swallowed so that calls go on. Each is logged once.",
            unit=COUNT,
            steps=_ERRORS,
        ),
        number(
            "Age of prices",
            f"time() - min({_ALL.of(PRICES)})",
            "Of the oldest price list that a process uses.",
            unit=SECONDS,
            steps=_OLD,
        ),
        number(
            "Without a tenant",
            _part(COST, 'tenant=""'),
            "Part of the spend that no tenant is named for: attribution is missing somewhere.",
            unit=PERCENT,
            steps=_NAMELESS,
        ),
    ]


def _missing() -> Row:
    by = "provider, model, operation, reason"
    estimated, cost = (_SEEN.total(m, by="provider", window="6h") for m in (ESTIMATED, COST))
    overflow = _part(COST, f'tenant="{names.OVERFLOW}"')
    return "What is missing or estimated", [
        grid(
            "Unpriced calls",
            by.split(", "),
            {"Calls": Column(f"{_SEEN.total(UNPRICED, by=by)} > 0", COUNT, steps=ANY_IS_BAD)},
            "What has no price, and why. docs/alerts.md#spanledgerunpricedcalls says what to "
            "configure.",
            sort="Calls",
            width=12,
        ),
        bars(
            "Unpriced calls over time",
            _SEEN.total(UNPRICED, by="provider, reason", window="1h", offset="-1h"),
            "{{provider}} {{reason}}",
            "Hour by hour.",
            unit=COUNT,
            interval="1h",
            links=series_links("provider", "books"),
        ),
        lines(
            "Estimated part of the spend",
            {"{{provider}}": f"{estimated} / ({cost} > 0)"},
            "Over the six hours before each point.",
            unit=PERCENT,
            steps=((0.2, RED),),
            links=series_links("provider", "books"),
        ),
        lines(
            "Without a name of its own",
            {
                "no tenant": _part(COST, 'tenant=""'),
                "no feature": _part(COST, 'feature=""'),
                f"tenant {names.OVERFLOW}": overflow,
            },
            "Parts of the spend that no tenant or feature is named for, and of tenants past the "
            "configured number of labels. The ledger and the journal have them all by name.",
            unit=PERCENT,
            steps=_NAMELESS,
            interval="1h",
        ),
    ]


def _agree() -> Row:
    ledger = f'max({SPENT}{{scope="global", period="month"}})'
    prometheus = _ALL.total(COST)
    return "Do the counts agree", [
        numbers(
            "Ledger against Prometheus, this month",
            {"Ledger": ledger, "Prometheus": prometheus, "Difference": f"{ledger} - {prometheus}"},
            "The ledger's spend of the budget `global` (month), and the sum of the cost counters. "
            "Needs that budget, in the time zone that you look in. Prometheus misses what a "
            "process spent between its last scrape and its end; budgets are held by the ledger.",
            since="now/M",
        ),
        lines(
            "Services that send data",
            {"{{job}}": f"count by (job) (count by (job, instance) ({_ALL.of(CALLS)}))"},
            "How many processes of each service send data.",
            unit=COUNT,
        ),
        lines(
            "Age of prices",
            {"{{job}}": f"time() - min by (job) ({_ALL.of(PRICES)})"},
            "Of the oldest price list of each service.",
            unit=SECONDS,
            steps=_OLD,
        ),
        lines(
            "Internal errors",
            {"{{reason}}": _ALL.total(INTERNAL_ERRORS, by="reason", window="1h")},
            "By the place that swallowed them, in the hour before each point.",
            unit=COUNT,
            steps=_ERRORS,
            links=[to_board("Spend", "spend")],
        ),
    ]
