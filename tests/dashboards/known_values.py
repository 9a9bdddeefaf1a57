"""What each query of each board should say of the synthetic days, without any PromQL: `KNOWN`, by board and title."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from board_answers import DAY, USERS
from synthetic_days import KINDS, MONTH, START, STEP, Days

Values: TypeAlias = dict[str, float]
"""By the values of the labels, in the order of the labels' names."""
Known: TypeAlias = Callable[[Days, int, int], Values]
"""What a query says: of the days, from when on the panel looks, and when."""

HOUR: Final = 3600
COST, CALLS, SAVED = (f"spanledger_{name}_total" for name in ("cost_USD", "calls", "saved_USD"))
ESTIMATED, UNPRICED, USES, TOKENS, CREDITS, ERRORS = (
    f"spanledger_{name}_total"
    for name in (
        *("estimated_cost_USD", "unpriced_calls", "feature_uses"),
        *("tokens", "credits", "internal_errors"),
    )
)
SERVED: Final = ("ok", "cached", "deduplicated", "degraded")
PAYING: Final = {kind.tenant for kind in KINDS} - {"", "other"}
PROVIDERS: Final = {kind.provider for kind in KINDS}
LIMITS: Final = {"month global": 60, "month tenant:acme": 20, "day feature:search": 5}
HELD: Final = 0.25
LIMITS_IN_CREDITS: Final = {"month provider:scavio": 1000}
HELD_IN_CREDITS: Final = 2


def grew(metric: str, by: str = "", *, window: int = 0, **labels: str | tuple[str, ...]) -> Known:
    """A counter's growth, within `window` before each point or since the panel looks."""
    return lambda days, since, at: days.total(
        metric, at - window if window else since, at, by, **labels
    )


def bars(metric: str, by: str = "", *, window: int = DAY, **labels: str | tuple[str, ...]) -> Known:
    """A counter's growth in the `window` that each bar stands for."""
    return lambda days, _, at: days.total(metric, at, at + window, by, **labels)


def over(part: Known, whole: Known, factor: float = 1) -> Known:
    """Each value of `part`, divided by that of `whole` with the same labels or else by its only one."""

    def known(days: Days, since: int, at: int) -> Values:
        divisors = whole(days, since, at)
        return {
            key: factor * value / divisors.get(key, divisors.get("", 0))
            for key, value in part(days, since, at).items()
        }

    return known


def each(function: Callable[..., float], *known: Known) -> Known:
    """The function of the values with the same labels."""

    def applied(days: Days, since: int, at: int) -> Values:
        first, *others = (one(days, since, at) for one in known)
        return {key: function(value, *(o[key] for o in others)) for key, value in first.items()}

    return applied


def same(value: float, *keys: str) -> Known:
    return lambda *_: dict.fromkeys(keys or [""], value)


def month_end(**labels: str) -> Known:
    """So far, and the rest of the month at the average of the last seven days' hours."""

    def known(days: Days, since: int, at: int) -> Values:
        hours = [
            days.total(COST, hour - HOUR, hour, **labels).get("", 0)
            for hour in range(at - 7 * DAY, at + 1, HOUR)
        ]
        rest = (30 * DAY - (at - since)) / HOUR
        return {"": days.total(COST, since, at, **labels)[""] + rest * sum(hours) / len(hours)}

    return known


def spent(days: Days, _: int, at: int) -> Values:
    """Of each budget in USD, since its month or day began."""
    month, day = MONTH if at >= MONTH else START, at // DAY * DAY
    found = {
        "month global": days.total(COST, month, at),
        "month tenant:acme": days.total(COST, month, at, tenant="acme"),
        "day feature:search": days.total(COST, day, at, feature="search"),
    }
    return {budget: amount.get("", 0) for budget, amount in found.items()}


def spent_in_credits(days: Days, _: int, at: int) -> Values:
    return {"month provider:scavio": days.total(CREDITS, MONTH if at >= MONTH else START, at)[""]}


def limits(*_: object) -> Values:
    return dict(LIMITS)


def limits_in_credits(*_: object) -> Values:
    return dict(LIMITS_IN_CREDITS)


def elapsed(_days: Days, _since: int, at: int) -> Values:
    """The part of each budget's month or day that is gone by."""
    month, length = (MONTH, 30) if at >= MONTH else (MONTH - 31 * DAY, 31)
    part = {"month": (at - month) / DAY / length, "day": at % DAY / DAY}
    return {budget: part[budget.split()[0]] for budget in (*LIMITS, *LIMITS_IN_CREDITS)}


def days_left(of: Known) -> Known:
    """To each budget of these, in November."""

    def left(*at: Any) -> Values:
        parts = elapsed(*at)
        return {key: (30 if key.startswith("month") else 1) * (1 - parts[key]) for key in of(*at)}

    return left


def pace(of: Known) -> Known:
    """Of the parts used, from the twentieth of the month or day on."""

    def paced(*at: Any) -> Values:
        parts = elapsed(*at)
        return {key: part / parts[key] for key, part in of(*at).items() if parts[key] > 0.05}

    return paced


def both(usd: Known, in_credits: Known) -> Known:
    """Of the budgets in USD, and of those in credits, which have a label that says so."""
    return lambda *at: {
        **usd(*at),
        **{f"{key} , credits": value for key, value in in_credits(*at).items()},
    }


def burned(days: Days, since: int, at: int) -> Values:
    before, now = spent(days, since, at - HOUR), spent(days, since, at)
    return {budget: now[budget] - min(now[budget], before[budget]) for budget in now}


def scope_tiers(*at: Any) -> Values:
    """By the scopes of budgets alone, in either unit."""
    found = {**tiers(*at), **tiers_in_credits(*at)}
    return {key.split()[1]: tier for key, tier in found.items()}


def of_acme(known: Known) -> Known:
    return lambda *at: {"month tenant:acme": known(*at)["month tenant:acme"]}


def at_tier(tier: float) -> Known:
    return lambda *at: {"": sum(value == tier for value in scope_tiers(*at).values())}


def margin_of_all(days: Days, since: int, at: int) -> Values:
    return {"": 1 - days.total(COST, since, at)[""] / sum(revenue(days, since, at).values())}


def credits_left(_days: Days, _since: int, at: int) -> Values:
    return {"scavio": 100_000 - (at - START) / 60}


def age_of_prices(_days: Days, _since: int, at: int) -> Values:
    return {"": at - START + 3 * DAY}


def revenue(_days: Days, since: int, at: int) -> Values:
    """At 99 USD a month, for a month of a twelfth of a year."""
    return dict.fromkeys(PAYING, 99 * (at - since) / 2_629_800)


used = each(lambda usd, limit: (usd + HELD) / limit, spent, limits)
used_in_credits = each(
    lambda number, limit: (number + HELD_IN_CREDITS) / limit, spent_in_credits, limits_in_credits
)
tiers = each(lambda usd, limit: min(3, int(4 * usd / limit)), spent, limits)
tiers_in_credits = same(1, *LIMITS_IN_CREDITS)
runway = over(credits_left, grew(CREDITS, "provider", window=7 * DAY), 7)
saved_part = over(grew(SAVED), lambda *at: {"": grew(SAVED)(*at)[""] + grew(COST)(*at)[""]})
by_tenant, by_feature = grew(COST, "tenant"), grew(COST, "feature")


def alerts(name: str) -> Known:
    return same(1, f"Spanledger{name} tenant:acme warning")


def hourly(**labels: str | tuple[str, ...]) -> dict[str, Any]:
    return {"window": HOUR, **labels}


STOPPED: Final = ("throttled", "degraded", "blocked")
KNOWN: Final[Mapping[str, Mapping[str, tuple[Known, ...]]]] = {
    "spend": {
        "Today": (grew(COST),),
        "This month": (grew(COST),),
        "Projected month end": (month_end(),),
        "Week on week": (
            lambda days, _, at: {
                "": days.total(COST, at - 7 * DAY, at)[""]
                / days.total(COST, START, at - 7 * DAY)[""]
                - 1
            },
        ),
        "Saved": (grew(SAVED),),
        "Unpriced calls": (grew(UNPRICED),),
        **{
            f"Daily spend by {label}": (bars(COST, label),)
            for label in ("provider", "feature", "tenant", "model")
        },
        "Top tenants": (by_tenant,),
        "Share by provider": (grew(COST, "provider"),),
        "Share by feature": (by_feature,),
        "Tenants": (
            by_tenant,
            over(by_tenant, grew(COST)),
            lambda days, since, at: days.total(COST, 2 * since - at, since, "tenant"),
            lambda days, since, at: {
                tenant: days.total(COST, since, at, tenant=tenant)[""] / before - 1
                for tenant, before in days.total(COST, 2 * since - at, since, "tenant").items()
            },
            grew(CALLS, "tenant"),
            grew(SAVED, "tenant"),
        ),
        "Spend an hour": (over(grew(COST, "provider", window=4 * STEP), same(4 * STEP), HOUR),),
        "Call duration (p95)": (same(5, *PROVIDERS),),
    },
    "unit-economics": {
        "Features": (
            over(by_feature, grew(USES, "feature")),
            grew(USES, "feature"),
            over(grew(CALLS, "feature", outcome=SERVED), grew(USES, "feature")),
            by_feature,
        ),
        "Cost of a use": (
            over(grew(COST, "feature", window=DAY), grew(USES, "feature", window=DAY)),
        ),
        "Cost of a tenant a day": (grew(COST, "tenant", window=DAY),),
        "Cost of an active user a day": (over(grew(COST, window=DAY), same(USERS)),),
        "Margin by tenant": (
            revenue,
            by_tenant,
            each(lambda paid, cost: paid - cost, revenue, by_tenant),
            each(lambda paid, cost: 1 - cost / paid, revenue, by_tenant),
        ),
        "Margin of all": (margin_of_all,),
        "Spend": (grew(COST),),
        "Cost of 1,000 calls": (
            over(
                grew(COST, "provider, model, operation"),
                grew(CALLS, "provider, model, operation", outcome=SERVED),
                1000,
            ),
        ),
        "Cost of a million tokens": (
            over(
                lambda *at: {k: v for k, v in grew(COST, "model")(*at).items() if k},
                grew(TOKENS, "model"),
                1e6,
            ),
        ),
    },
    "budgets": {
        "At warning": (at_tier(1),),
        "At critical": (at_tier(2),),
        "At hard": (at_tier(3),),
        **{f"{outcome.capitalize()} calls": (grew(CALLS, outcome=outcome),) for outcome in STOPPED},
        "Budgets in USD": (
            tiers,
            used,
            pace(used),
            spent,
            same(HELD, *LIMITS),
            limits,
            each(lambda usd, limit: 2 * usd / limit, spent, limits),
            days_left(limits),
        ),
        "Budgets in credits": (
            tiers_in_credits,
            used_in_credits,
            pace(used_in_credits),
            spent_in_credits,
            same(HELD_IN_CREDITS, *LIMITS_IN_CREDITS),
            limits_in_credits,
            each(lambda number, limit: 2 * number / limit, spent_in_credits, limits_in_credits),
            days_left(limits_in_credits),
        ),
        "Used of the limit": (both(used, used_in_credits),),
        "Tiers": (scope_tiers,),
        "Spent and projected": (spent, each(lambda usd: 2 * usd, spent)),
        "Against pace": (both(pace(used), pace(used_in_credits)),),
        "Throttled, degraded and blocked": (bars(CALLS, "outcome", **hourly(outcome=STOPPED)),),
        "Whose calls": (bars(CALLS, "tenant, feature", **hourly(outcome=STOPPED)),),
        "Burned within an hour": (burned,),
        "Saved by degrading": (bars(SAVED, "feature", reason="degrade"),),
        "Alerts that fire now": (alerts("BudgetWarning"),),
    },
    "data-layer": {
        "Answered by the cache": (
            over(grew(CALLS, outcome="cached"), grew(CALLS, outcome=SERVED)),
        ),
        "Shared in flight": (
            over(grew(CALLS, outcome="deduplicated"), grew(CALLS, outcome=SERVED)),
        ),
        "Saved by the cache": (grew(SAVED, reason="cache"),),
        "Saved by single flight": (grew(SAVED, reason="single_flight"),),
        "Saved of all": (saved_part,),
        "Credits last": (lambda *at: {"": runway(*at)["scavio"]},),
        "Hit rate": (
            over(
                grew(CALLS, "provider, operation", **hourly(outcome=("cached", "deduplicated"))),
                grew(CALLS, "provider, operation", **hourly(outcome=SERVED)),
            ),
        ),
        "Calls by outcome": (bars(CALLS, "outcome", window=HOUR),),
        "Saved a day": (bars(SAVED, "reason"),),
        "Saved by feature": (grew(SAVED, "feature"),),
        "Saved by tenant": (grew(SAVED, "tenant"),),
        "Credits a day": (bars(CREDITS, "provider, operation"),),
        "Credits remaining": (credits_left,),
        "Runway": (runway,),
        "Call duration": (same(0.8, *PROVIDERS), same(5, *PROVIDERS)),
        "Alerts that fire now": (alerts("CacheHitRateCollapsed"),),
    },
    "books": {
        "Estimated": (over(grew(ESTIMATED), grew(COST)),),
        "Ledger out of reach": (same(0),),
        "Age of prices": (
            age_of_prices,
            lambda *at: {"api": age_of_prices(*at)[""]},
        ),
        "Without a tenant": (over(grew(COST, tenant=""), grew(COST)),),
        "Unpriced calls": (
            grew(UNPRICED),
            grew(UNPRICED, "provider, model, operation, reason"),
        ),
        "Internal errors": (grew(ERRORS), grew(ERRORS, "reason", window=HOUR)),
        "Unpriced calls over time": (bars(UNPRICED, "provider, reason", window=HOUR),),
        "Estimated part of the spend": (
            over(
                grew(ESTIMATED, "provider", window=6 * HOUR),
                grew(COST, "provider", window=6 * HOUR),
            ),
        ),
        "Without a name of its own": tuple(
            over(grew(COST, window=3 * DAY, **nameless), grew(COST, window=3 * DAY))
            for nameless in ({"tenant": ""}, {"feature": ""}, {"tenant": "other"})
        ),
        "Ledger against Prometheus, this month": (grew(COST), grew(COST), same(0)),
        "Services that send data": (same(2, "api"),),
        "Alerts that fire now": (alerts("NoData"),),
    },
    "tenant": {
        "This month": (grew(COST, tenant="acme"),),
        "Expected at the month's end": (month_end(tenant="acme"),),
        "Uses this month": (grew(USES, tenant="acme"),),
        "Requests this month": (grew(CALLS, tenant="acme", outcome=SERVED),),
        "Saved this month": (grew(SAVED, tenant="acme"),),
        "Used of the month's budget": (of_acme(used),),
        "Cost a day": (bars(COST, "feature", tenant="acme"),),
        "Share by feature": (grew(COST, "feature", tenant="acme"),),
        "Features": (
            grew(USES, "feature", tenant="acme"),
            over(grew(COST, "feature", tenant="acme"), grew(USES, "feature", tenant="acme")),
            grew(COST, "feature", tenant="acme"),
        ),
        "Uses a day": (bars(USES, "feature", tenant="acme"),),
        "This month against the budget": (
            of_acme(spent),
            of_acme(each(lambda usd: 2 * usd, spent)),
            of_acme(limits),
        ),
    },
}
