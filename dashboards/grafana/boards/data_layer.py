"""Data layer: what caching and shared calls avoid paying, and how long credits last."""

from grafana_foundation_sdk.models import dashboard as models

from boards.board import Row, alerts, board, choose_calls, series_links
from boards.look import COUNT, DAYS, GREEN, ORANGE, PERCENT, RED, SECONDS, YELLOW
from boards.panels import bars, lines, number, ranking
from boards.queries import (
    CALL_LABELS,
    CALLS,
    COST,
    CREDITS,
    CREDITS_REMAINING,
    DURATION,
    RATE,
    SAVED,
    SERVED,
    UNPAID,
    Selection,
)

_SEEN = Selection(CALL_LABELS)
_PROVIDERS = Selection(("provider",))
_WORTH_HAVING = 0.1  # of the calls; the alert on a lost cache looks at no lower rate either


def make() -> models.Dashboard:
    """The board."""
    return board(
        "data-layer",
        "Data layer",
        "Hit rate, money saved by cache and single flight, credits and how long they last.",
        choose_calls(),
        [_now(), _hits(), _money(), _credits(), ("Alerts", [alerts("data_layer")])],
        start="now-7d",
    )


def _share_of_calls(outcome: str) -> str:
    return f"{_SEEN.total(CALLS, outcome)} / {_SEEN.total(CALLS, SERVED)}"


def _now() -> Row:
    saved = _SEEN.total(SAVED)
    return "Now", [
        number(
            "Answered by the cache",
            _share_of_calls('outcome="cached"'),
            "Part of the answered calls that a cache answered. Below a tenth it hardly pays.",
            unit=PERCENT,
            steps=((-1e9, YELLOW), (_WORTH_HAVING, GREEN)),
        ),
        number(
            "Shared in flight",
            _share_of_calls('outcome="deduplicated"'),
            "Part of the answered calls that waited for an identical one and were not sent.",
            unit=PERCENT,
        ),
        number(
            "Saved by the cache",
            _SEEN.total(SAVED, 'reason="cache"'),
            "The price of the calls that cache hits avoided.",
        ),
        number(
            "Saved by single flight",
            _SEEN.total(SAVED, 'reason="single_flight"'),
            "The price of the calls that were shared instead of sent.",
        ),
        number(
            "Saved of all",
            f"{saved} / ({saved} + {_SEEN.total(COST)})",
            "What was saved, as a part of what would have been spent without it.",
            unit=PERCENT,
        ),
        number(
            "Credits last",
            f"min({_runway()})",
            "Days until the first provider's credits run out, at the pace of the last seven days.",
            unit=DAYS,
            decimals=1,
            steps=((-1e9, RED), (3, ORANGE), (14, GREEN)),
        ),
    ]


def _hits() -> Row:
    hour = {"by": "provider, operation", "window": "1h"}
    rate = f"{_SEEN.total(CALLS, UNPAID, **hour)} / ({_SEEN.total(CALLS, SERVED, **hour)} > 0)"
    return "Hits", [
        lines(
            "Hit rate",
            {"{{provider}} {{operation}}": rate},
            "Part of the answered calls of the hour before each point that were not paid for: "
            "cache and single flight. The dashed line is a tenth, below which it hardly pays.",
            unit=PERCENT,
            steps=((_WORTH_HAVING, YELLOW),),
            links=series_links("operation", "data-layer"),
        ),
        bars(
            "Calls by outcome",
            _SEEN.total(CALLS, by="outcome", window="1h", offset="-1h"),
            "{{outcome}}",
            "All calls, hour by hour.",
            unit=COUNT,
            interval="1h",
        ),
    ]


def _money() -> Row:
    return "Money saved", [
        bars(
            "Saved a day",
            _SEEN.daily(SAVED, by="reason"),
            "{{reason}}",
            "Day by day: by cache, by single flight, by degrading at a hard budget.",
        ),
        ranking(
            "Saved by feature",
            f"topk(10, {_SEEN.total(SAVED, by='feature')})",
            "{{feature}}",
            "Which features profit.",
            links=series_links("feature", "unit-economics"),
            width=6,
        ),
        ranking(
            "Saved by tenant",
            f"topk(10, {_SEEN.total(SAVED, by='tenant')})",
            "{{tenant}}",
            "Which tenants profit.",
            links=series_links("tenant", "tenant"),
            width=6,
        ),
    ]


def _runway() -> str:
    left = f"min by (provider) ({_PROVIDERS.of(CREDITS_REMAINING)})"
    a_day = f"sum by (provider) (rate({_PROVIDERS.of(CREDITS)}[7d])) * 86400"
    return f"{left} / ({a_day} > 0)"


def _credits() -> Row:
    median, slow = (
        f"histogram_quantile({q}, sum by (le, provider) (rate({_SEEN.of(DURATION)}[{RATE}])))"
        for q in (0.5, 0.95)
    )
    return "Credits and latency", [
        bars(
            "Credits a day",
            _SEEN.daily(CREDITS, by="provider, operation"),
            "{{provider}} {{operation}}",
            "Credits that providers charged.",
            unit=COUNT,
        ),
        lines(
            "Credits remaining",
            {"{{provider}}": f"min by (provider) ({_PROVIDERS.of(CREDITS_REMAINING)})"},
            "The balance that providers reported last; the lowest over the processes, for an idle "
            "one knows an old one.",
            unit=COUNT,
            width=6,
        ),
        ranking(
            "Runway",
            _runway(),
            "{{provider}}",
            "Days that the credits last at the pace of the last seven days.",
            unit=DAYS,
            steps=((-1e9, RED), (3, ORANGE), (14, GREEN)),
            width=6,
        ),
        lines(
            "Call duration",
            {"{{provider}} p50": median, "{{provider}} p95": slow},
            "Half of the calls, and nineteen in twenty, are faster than this. The dots are "
            "exemplars: they lead to traces.",
            unit=SECONDS,
            exemplars=True,
            links=series_links("provider", "data-layer"),
            width=24,
        ),
    ]
