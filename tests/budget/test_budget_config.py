"""The configuration of budgets: what it says, and what it says about mistakes."""

import tomllib
import zoneinfo
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import Section, load_settings
from spanledger.api.values import ModelSwap
from spanledger.budget.config import (
    DEFAULTS,
    Budget,
    BudgetConfig,
    Options,
    Slot,
    read_budget_config,
)
from spanledger.budget.scopes import Scope
from spanledger.budget.tiers import Tiers

USD = 10**9


def read(toml: str) -> BudgetConfig:
    return read_budget_config(Section(tomllib.loads(toml), "spanledger.toml"))


def test_nothing() -> None:
    assert read("") == BudgetConfig()
    assert read("[budget_defaults]\n[models.cheaper]") == BudgetConfig()


def test_the_issues_example() -> None:
    config = read(
        """
        [[budgets]]
        scope = "tenant:*"
        monthly_usd = 200
        timezone = "Europe/Berlin"
        [[budgets]]
        scope = "tenant:acme"
        monthly_usd = 1500
        tiers = { warning = 0.7, critical = 0.9, hard = 1.1, ceiling = 1.2 }
        [[budgets]]
        scope = "feature:competitive-analysis"
        daily_usd = 40
        degrade = ["stale_cache", "cheaper_model"]
        exhausted = "raise"
        [[budgets]]
        scope = "global"
        monthly_usd = 20000
        [models.cheaper]
        "openai/gpt-5" = { model = "gpt-5-mini", unset = ["temperature"] }
        """
    )
    assert config.budgets == (
        Budget(
            Scope(tenant="*"), "month", "usd", 200 * USD, Options(zone=ZoneInfo("Europe/Berlin"))
        ),
        Budget(Scope(tenant="acme"), "month", "usd", 1500 * USD),
        Budget(
            Scope(feature="competitive-analysis"),
            "day",
            "usd",
            40 * USD,
            Options(degrade=("stale_cache", "cheaper_model")),
        ),
        Budget(Scope(), "month", "usd", 20_000 * USD),
    )
    assert config.cheaper == {"openai/gpt-5": ModelSwap("gpt-5-mini", {}, ("temperature",))}


def test_every_option() -> None:
    config = read(
        """
        [budget_defaults]
        timezone = "Asia/Kathmandu"
        max_wait = "250ms"
        [[budgets]]
        scope = "user:*+feature:search"
        daily_usd = "0.000000001"
        weekly_usd = 2.5
        monthly_usd = 0
        daily_credits = 1
        weekly_credits = 2.25
        monthly_credits = 3
        tiers = { hard = 1.0, ceiling = 1.0 }
        degrade = []
        exhausted = "allow"
        max_wait = 0
        unknown = "block"
        unknown_usd = 0.5
        on_outage = "closed"
        outage_allowance = 0.25
        [models.cheaper]
        "azure.ai.openai/prod" = { model = "prod-mini", set = { reasoning_effort = "low" } }
        """
    )
    (first, *_) = config.budgets
    assert first.options == Options(
        zone=ZoneInfo("Asia/Kathmandu"),
        tiers=Tiers(hard=Decimal("1.0"), ceiling=Decimal("1.0")),
        degrade=(),
        exhausted="allow",
        max_wait_s=0.0,
        unknown="block",
        unknown_nano=USD // 2,
        on_outage="closed",
        outage_part=Decimal("0.25"),
    )
    assert [(b.period, b.unit, b.limit) for b in config.budgets] == [
        ("day", "usd", 1),
        ("week", "usd", 2_500_000_000),
        ("month", "usd", 0),
        ("day", "credits", USD),
        ("week", "credits", 2_250_000_000),
        ("month", "credits", 3 * USD),
    ]
    assert all(b.options is first.options for b in config.budgets)
    assert (config.defaults.max_wait_s, config.defaults.zone) == (0.25, ZoneInfo("Asia/Kathmandu"))
    assert config.cheaper["azure.ai.openai/prod"].set == {"reasoning_effort": "low"}


def test_only_the_hard_tier_is_raised() -> None:
    (budget,) = read('[[budgets]]\nscope = "global"\ndaily_usd = 1\ntiers = {hard = 2}').budgets
    assert budget.options.tiers[2:] == (2, 2)


def test_what_is_tried_before_a_refusal() -> None:
    assert Budget(Scope(), "day", "usd", 1).degrade == ("stale_cache", "cheaper_model")
    observed = Budget(Scope(), "day", "usd", 1, Options(exhausted="allow"))
    assert observed.degrade == ()
    assert Budget(Scope(), "day", "usd", 1, Options(degrade=("stale_cache",))).degrade == (
        "stale_cache",
    )


G = '[[budgets]]\nscope = "global"\n'


@pytest.mark.parametrize(
    ("toml", "key", "problem", "remedy"),
    [
        ("[[budgets]]\nmonthly_usd = 1", "budgets[0].scope", "is missing", "Set it to a text."),
        ('[[budgets]]\nscope = "tenants:a"\nmonthly_usd = 1', "budgets[0].scope", "'tenants:a' is not global", 'Write "global"'),
        (G, "budgets[0]", "has no amount", "Set one of daily_usd, weekly_usd, monthly_usd"),
        (G + "monthly_usd = -1", "budgets[0].monthly_usd", "is -1", "Set it to a number from 0"),
        (G + 'monthly_usd = "lots"', "budgets[0].monthly_usd", "is 'lots'", "Set it to a number from 0"),
        (G + "monthly_usd = 8_000_000", "budgets[0].monthly_usd", "counts up to 7,505,999", "Split it into budgets"),
        (G + "monthly_usd = 1\ntiers = {ceiling = 9_000_000_000}", "budgets[0].tiers.ceiling", "is 9000000000", "Set it to a number from 0 to 100"),
        (G + "monthy_usd = 1", "budgets[0].monthy_usd", "is not a setting", 'Did you mean "monthly_usd"?'),
        (G + "daily_usd = 1\n" + G + "daily_usd = 2", "budgets[1].scope", "has a day's budget in usd already: global", "Put both into one table"),
        (G + 'daily_usd = 1\ntimezone = "Mars/Olympus"', "budgets[0].timezone", "is 'Mars/Olympus'", "name of the IANA database"),
        (G + "daily_usd = 1\ntimezone = 1", "budgets[0].timezone", "is 1", "Set it to a text."),
        (G + "daily_usd = 1\ntiers = {warning = 0.95}", "budgets[0].tiers.warning", "is 0.95, above critical = 0.9", "Let warning <= critical"),
        (G + "daily_usd = 1\ntiers = {harder = 2}", "budgets[0].tiers.harder", "is not a setting", 'Did you mean "hard"?'),
        (G + "daily_usd = 1\ntiers = 2", "budgets[0].tiers", "is 2", "Make it a table: [budgets[0].tiers]."),
        (G + 'daily_usd = 1\ndegrade = ["stale"]', "budgets[0].degrade", "has 'stale'", "Use stale_cache and cheaper_model, or []."),
        (G + 'daily_usd = 1\ndegrade = "no"', "budgets[0].degrade", "is 'no'", "Set it to a list of texts"),
        (G + 'daily_usd = 1\nexhausted = "stop"', "budgets[0].exhausted", "is 'stop'", 'Set it to one of "raise", "allow".'),
        (G + 'daily_usd = 1\nunknown = "zero"', "budgets[0].unknown", "is 'zero'", 'Set it to one of "ceiling", "block", "ignore".'),
        (G + "daily_usd = 1\nunknown_usd = true", "budgets[0].unknown_usd", "is True", "Set it to a number"),
        (G + 'daily_usd = 1\non_outage = "retry"', "budgets[0].on_outage", "is 'retry'", 'Set it to one of "local", "open", "closed".'),
        (G + "daily_usd = 1\noutage_allowance = 5", "budgets[0].outage_allowance", "is 5", "Set it to a number from 0 to 1."),
        (G + 'daily_usd = 1\nmax_wait = "long"', "budgets[0].max_wait", "is 'long'", "Set it to a duration"),
        ("budgets = 1", "budgets", "is 1", "Make it a list of tables: [[budgets]]."),
        ("[budget_defaults]\nmonthly_usd = 1", "budget_defaults.monthly_usd", "is not a setting", "Remove it"),
        ('[budget_defaults]\ntimezone = "x"', "budget_defaults.timezone", "is 'x'", "name of the IANA database"),
        ("[models]\ncheap = 1", "models.cheap", "is not a setting", 'Did you mean "cheaper"?'),
        ('[models.cheaper]\ngpt-5 = {model = "m"}', "models.cheaper.gpt-5", "names no provider", 'Write "provider/model"'),
        ('[models.cheaper]\n"o/m" = {}', "models.cheaper.o/m.model", "is missing", "Set it to a text."),
        ('[models.cheaper]\n"o/m" = {model = "m"}', "models.cheaper.o/m.model", "is the model itself", "Name a cheaper one."),
        ('[models.cheaper]\n"o/m" = {model = "n", unset = "t"}', "models.cheaper.o/m.unset", "is 't'", "Set it to a list of texts"),
        ('[models.cheaper]\n"o/m" = {model = "n", set = 1}', "models.cheaper.o/m.set", "is 1", "Make it a table"),
        ('[models.cheaper]\n"o/m" = {model = "n", sets = {}}', "models.cheaper.o/m.sets", "is not a setting", 'Did you mean "set"?'),
    ],
)  # fmt: skip
def test_mistakes(toml: str, key: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(toml)
    error = caught.value
    assert (error.source, error.key) == ("spanledger.toml", key)
    assert problem in str(error)
    assert error.remedy.startswith(remedy) or remedy in error.remedy
    assert str(error).startswith(f"spanledger.toml: {key}: ")
    assert str(error).endswith(error.remedy)


def test_no_time_zone_database(monkeypatch: pytest.MonkeyPatch) -> None:
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=())
    ZoneInfo.clear_cache()
    try:
        with pytest.raises(ConfigurationError, match="pip install tzdata, or use UTC") as caught:
            read(G + 'daily_usd = 1\ntimezone = "Europe/Berlin"')
        assert caught.value.key == "budgets[0].timezone"
        (budget,) = read(G + 'daily_usd = 1\ntimezone = "UTC"').budgets
        assert budget.options.zone is UTC
    finally:
        zoneinfo.reset_tzpath(to=before)
        ZoneInfo.clear_cache()


def test_the_error_names_the_real_file(tmp_path: Path) -> None:
    path = tmp_path / "money.toml"
    path.write_text(G + "daily_eur = 1")
    with pytest.raises(ConfigurationError) as caught:
        read_budget_config(load_settings({"SPANLEDGER_CONFIG": str(path)}).root)
    assert caught.value.source == str(path)
    assert caught.value.remedy == 'Did you mean "daily_usd"?'


# -- limits set at run time --------------------------------------------------------------------------------

BERLIN = Options(zone=ZoneInfo("Europe/Berlin"), max_wait_s=9)


def config() -> BudgetConfig:
    return BudgetConfig(
        (
            Budget(Scope(tenant="*"), "month", "usd", 100, BERLIN),
            Budget(Scope(tenant="*"), "day", "usd", 10),
            Budget(Scope(tenant="acme"), "month", "usd", 1000, Options(max_wait_s=1)),
        ),
        defaults=Options(max_wait_s=7),
    )


@pytest.mark.parametrize(
    ("scope", "period", "options"),
    [
        ("tenant:acme", "month", Options(max_wait_s=1)),  # its own
        ("tenant:acme", "day", DEFAULTS),  # the day's of tenant:*
        ("tenant:acme", "week", Options(max_wait_s=1)),  # none for the week: the nearest scope
        ("tenant:other", "month", BERLIN),
        ("tenant:*", "month", BERLIN),
        ("global", "month", Options(max_wait_s=7)),
        ("tenant:acme+feature:x", "month", Options(max_wait_s=7)),
    ],
)
def test_a_limit_set_at_run_time_keeps_the_options(
    scope: str, period: str, options: Options
) -> None:
    slot = Slot(Scope.parse(scope), period, "usd")  # type: ignore[arg-type]
    changed = config().with_limits({slot: 5})
    (budget,) = [b for b in changed.budgets if b.slot == slot]
    assert (budget.limit, budget.options) == (5, options)
    others = [b for b in config().budgets if b.slot != slot]
    assert [b for b in changed.budgets if b.slot != slot] == others


def test_slots_as_text() -> None:
    slot = Slot(Scope.of(tenant="a|b", feature="c"), "week", "credits")
    assert str(slot) == "tenant:a%7Cb+feature:c|week|credits"
    assert Slot.parse(str(slot)) == slot
    for text in ("", "global", "global|day", "global|year|usd", "global|day|eur", "x|day|usd"):
        with pytest.raises(ValueError):
            Slot.parse(text)
