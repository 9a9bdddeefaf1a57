"""The table `[prices]`: what it says, and what it says about mistakes."""

import tomllib
from decimal import Decimal

import pytest

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import Section
from spanledger.api.values import Usage
from spanledger.pricing.book import PriceBook
from spanledger.pricing.config import PriceConfig, read_price_config
from spanledger.pricing.sheet import Rate


def _read(toml: str, **usd_per_credit: str) -> PriceConfig:
    section = Section(tomllib.loads(toml), "spanledger.toml").section("prices")
    return read_price_config(
        section, {name: Decimal(price) for name, price in usd_per_credit.items()}
    )


def test_nothing_configured() -> None:
    assert _read("") == PriceConfig()
    assert _read("[prices]") == PriceConfig()


def test_everything_configured() -> None:
    config = _read(
        """
        [prices]
        refresh = true
        refresh_url = "https://prices.example/data.json"
        [prices.deployments]
        Prod-Chat = "gpt-4o-mini"
        [prices.usd_per_credit]
        scavio = 0.002
        other = [{start = 2026-02-01, usd = 2}, {usd = "1"}]
        [[prices.override]]
        provider = "OpenAI"
        model = "DALL-E-3"
        tenant = "Acme"
        start = "2026-01-31"
        when = {service_tier = "flex"}
        prices = {input_mtok = 0.15, web_searches_kcount = "10"}
        units = {images = {usd = 0.04}, pixels = {usd = 1, per = 1000000}}
        [[prices.multiplier]]
        tenant = "globex"
        factor = 0.85
        """
    )
    (override,) = config.overrides
    assert override.scope[:3] == ("openai", "dall-e-3", "Acme")
    assert override.scope.start_ns == 1_769_817_600 * 10**9
    assert str(override.scope) == "openai/dall-e-3 Acme 2026-01-31 service_tier=flex"
    assert override.rates == (
        Rate("input_tokens", Decimal("0.15"), 1_000_000),
        Rate("web_searches", Decimal(10), 1000),
        Rate("images", Decimal("0.04"), 1),
        Rate("pixels", Decimal(1), 1_000_000),
    )
    assert (config.multipliers[0].factor, config.multipliers[0].scope.tenant) == (
        Decimal("0.85"),
        "globex",
    )
    assert config.deployments == {"prod-chat": "gpt-4o-mini"}
    assert [price.usd for price in config.usd_per_credit["other"]] == [Decimal(1), Decimal(2)]
    assert config.usd_per_credit["other"][1].version == "usd_per_credit other 2026-02-01"
    assert config.usd_per_credit["scavio"][0].usd == Decimal("0.002")
    assert (config.refresh, config.refresh_url) == (True, "https://prices.example/data.json")


def test_the_environment_wins_over_the_file() -> None:
    config = _read("[prices.usd_per_credit]\nscavio = [{usd = 1}]\nother = 2", scavio="0.5")
    assert [price.usd for price in config.usd_per_credit["scavio"]] == [Decimal("0.5")]
    assert config.usd_per_credit["other"][0].usd == 2
    price = PriceBook(config).price("scavio", None, Usage(credits=Decimal(3)), 0)
    assert (price.nano_usd, price.version) == (1_500_000_000, "usd_per_credit scavio")


OPENAI = '[[prices.override]]\nprovider = "openai"\n'


@pytest.mark.parametrize(
    ("toml", "key", "said"),
    [
        ("[prices]\nrefersh = true", "prices.refersh", 'Did you mean "refresh"?'),
        ('[prices]\nrefresh = "yes"', "prices.refresh", "Set it to true or false."),
        ("[prices]\nusd_per_credit = 0.002", "prices.usd_per_credit", "Make it a table"),
        ("[prices.usd_per_credit]\nscavio = -1", "prices.usd_per_credit.scavio", "a number from 0"),
        ("[prices.usd_per_credit]\nscavio = []", "prices.usd_per_credit.scavio", "has no price"),
        (
            "[prices.usd_per_credit]\nscavio = [{usd = 1}, {usd = 2}]",
            "prices.usd_per_credit.scavio",
            "two from the same date",
        ),
        (
            '[prices.usd_per_credit]\nscavio = [{start = "soon", usd = 1}]',
            "prices.usd_per_credit.scavio[0].start",
            "a date such as 2026-01-31",
        ),
        (
            "[prices.usd_per_credit]\nscavio = [{start = 2026-01-31T10:00:00Z, usd = 1}]",
            "prices.usd_per_credit.scavio[0].start",
            "a date such as 2026-01-31",
        ),
        (
            "[prices.usd_per_credit]\nscavio = [{}]",
            "prices.usd_per_credit.scavio[0].usd",
            "is missing",
        ),
        ("[prices.deployments]\nprod = 1", "prices.deployments.prod", "Set it to a text."),
        ("[prices]\noverride = 1", "prices.override", "[[prices.override]]"),
        (OPENAI, "prices.override[0].prices", "input_mtok"),
        (
            OPENAI + "prices = {input_mtk = 1}",
            "prices.override[0].prices.input_mtk",
            '"input_mtok"?',
        ),
        (OPENAI + "prices = {images = 1}", "prices.override[0].prices.images", "go under units"),
        (OPENAI + "prices = {input_mtok = -1}", "prices.override[0].prices.input_mtok", "a number"),
        (
            OPENAI + "prices = {input_mtok = true}",
            "prices.override[0].prices.input_mtok",
            "a number",
        ),
        (OPENAI + "units = {images = 1}", "prices.override[0].units.images", "Make it a table"),
        (
            OPENAI + "units = {images = {per = 1}}",
            "prices.override[0].units.images.usd",
            "is missing",
        ),
        (
            OPENAI + "units = {images = {usd = 1, per = 1.5}}",
            "prices.override[0].units.images.per",
            "a whole number",
        ),
        (
            OPENAI + "units = {images = {usd = 1, pre = 1}}",
            "prices.override[0].units.images.pre",
            '"per"?',
        ),
        (
            OPENAI + "prices = {input_mtok = 1}\nunits = {input_tokens = {usd = 1}}",
            "prices.override[0].units",
            "input_tokens a second time",
        ),
        (
            "[[prices.override]]\nprices = {input_mtok = 1}",
            "prices.override[0]",
            "Name a provider, model or tenant.",
        ),
        (OPENAI + "modell = 'x'", "prices.override[0].modell", '"model"?'),
        ('[[prices.multiplier]]\nprovider = "openai"', "prices.multiplier[0].factor", "is missing"),
        ("[[prices.multiplier]]\nfactor = 2", "prices.multiplier[0]", "Name a provider"),
        (
            '[[prices.multiplier]]\nprovider = "p"\nfactor = "dear"',
            "prices.multiplier[0].factor",
            "a number from 0",
        ),
    ],
)
def test_a_mistake_names_file_key_and_remedy(toml: str, key: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _read(toml)
    assert caught.value.source == "spanledger.toml"
    assert caught.value.key == key
    assert said in str(caught.value)
