"""Spend: how much, on what, by whom, and whether that is more than before."""

from grafana_foundation_sdk.models import dashboard as models

from boards.board import Row, board, cell_links, choose_calls, series_links, to_board
from boards.look import ANY_IS_BAD, COUNT, ORANGE, PERCENT, RED, SECONDS, USD, YELLOW, Column
from boards.panels import bars, grid, lines, number, ranking, share
from boards.queries import (
    CALL_LABELS,
    CALLS,
    COST,
    DURATION,
    RANGE,
    RATE,
    SAVED,
    UNPRICED,
    Selection,
    month_end,
    pace,
)

_SEEN = Selection(CALL_LABELS)
_MORE_THAN_BEFORE = ((0.2, YELLOW), (0.5, ORANGE), (1.0, RED))


def make() -> models.Dashboard:
    """The board."""
    return board(
        "spend",
        "Spend",
        "What AI and data APIs cost: by provider, model, tenant and feature, and how that changes.",
        choose_calls(),
        [_now(), _by_day(), _by_whom(), _at_this_moment()],
    )


def _now() -> Row:
    week = _SEEN.total(COST, window="7d")
    week_before = _SEEN.total(COST, window="7d", offset="7d")
    return "Now", [
        number("Today", _SEEN.total(COST), "Spend since midnight.", since="now/d"),
        number("This month", _SEEN.total(COST), "Spend since the month began.", since="now/M"),
        number(
            "Projected month end",
            month_end(_SEEN.total(COST), pace(_SEEN)),
            "This month's spend so far, and the rest of the month at the pace of the last seven "
            "days.",
            since="now/M",
        ),
        number(
            "Week on week",
            f"{week} / {week_before} - 1",
            "The last seven days against the seven before them.",
            unit=PERCENT,
            steps=_MORE_THAN_BEFORE,
        ),
        number(
            "Saved",
            _SEEN.total(SAVED),
            "What cache hits, calls shared in flight and cheaper models avoided spending.",
            links=[to_board("Where it was saved", "data-layer")],
        ),
        number(
            "Unpriced calls",
            _SEEN.total(UNPRICED),
            "Calls whose price is not known: they are missing from every amount on this page.",
            unit=COUNT,
            steps=ANY_IS_BAD,
            links=[to_board("Which, and why", "books")],
        ),
    ]


def _by_day() -> Row:
    def by(label: str) -> str:
        return _SEEN.daily(COST, by=label)

    return "Day by day", [
        bars(
            f"Daily spend by {label}",
            by(label),
            f"{{{{{label}}}}}",
            f"Each bar is a day's spend, by {label}. Today's is still growing.",
            links=series_links(label, uid),
        )
        for label, uid in (
            ("provider", "data-layer"),
            ("feature", "unit-economics"),
            ("tenant", "tenant"),
            ("model", "spend"),
        )
    ]


def _by_whom() -> Row:
    by_tenant = _SEEN.total(COST, by="tenant")
    before = _SEEN.total(COST, by="tenant", offset=RANGE)
    return "By whom, and on what", [
        ranking(
            "Top tenants",
            f"topk(15, {by_tenant})",
            "{{tenant}}",
            "The tenants that spent most. `other` stands for all beyond the configured number of "
            "tenants.",
            links=series_links("tenant", "tenant"),
        ),
        share(
            "Share by provider",
            _SEEN.total(COST, by="provider"),
            "{{provider}}",
            "Who was paid.",
            links=series_links("provider", "data-layer"),
        ),
        share(
            "Share by feature",
            _SEEN.total(COST, by="feature"),
            "{{feature}}",
            "What it was spent for. Without a name: calls outside of any feature.",
            links=series_links("feature", "unit-economics"),
        ),
        grid(
            "Tenants",
            ["tenant"],
            {
                "Spend": Column(by_tenant, USD),
                "Share": Column(f"{by_tenant} / scalar({_SEEN.total(COST)})", PERCENT),
                "Before": Column(before, USD),
                "Change": Column(
                    f"{by_tenant} / ({before} > 0) - 1", PERCENT, steps=_MORE_THAN_BEFORE
                ),
                "Calls": Column(_SEEN.total(CALLS, by="tenant"), COUNT),
                "Saved": Column(_SEEN.total(SAVED, by="tenant"), USD),
            },
            "Each tenant's spend in the time range, and in a range of the same length before it.",
            sort="Spend",
            links={"tenant": cell_links("tenant", "tenant")},
        ),
    ]


def _at_this_moment() -> Row:
    per_hour = f"sum by (provider) (rate({_SEEN.of(COST)}[{RATE}])) * 3600"
    slow = f"histogram_quantile(0.95, sum by (le, provider) (rate({_SEEN.of(DURATION)}[{RATE}])))"
    return "At this moment", [
        lines(
            "Spend an hour",
            {"{{provider}}": per_hour},
            "The rate of spending. The dots are exemplars: each leads to the trace of one call.",
            exemplars=True,
            links=series_links("provider", "data-layer"),
        ),
        lines(
            "Call duration (p95)",
            {"{{provider}}": slow},
            "One call in twenty takes longer than this. The dots are exemplars.",
            unit=SECONDS,
            exemplars=True,
            links=series_links("provider", "data-layer"),
        ),
    ]
