"""The whole configuration, checked as the application will check it when it starts."""

from collections.abc import Mapping
from typing import NamedTuple

from spanledger.api.settings import Settings, load_settings
from spanledger.pricing.config import PriceConfig, read_price_config


class Configuration(NamedTuple):
    """What the environment and the file say. budgets: how many there are."""

    settings: Settings
    prices: PriceConfig
    budgets: int


def check_configuration(environ: Mapping[str, str] | None = None) -> Configuration:
    """Read every part of it. Raises ConfigurationError."""
    from spanledger.budget.config import read_budget_config  # noqa: PLC0415 - not for every command
    from spanledger.cache.config import read_cache_config  # noqa: PLC0415
    from spanledger.instrumentation.hosts import configure_hosts  # noqa: PLC0415
    from spanledger.processor.events import read_charge_events  # noqa: PLC0415

    settings = load_settings(environ)
    configure_hosts(settings.root.section("providers"))
    read_cache_config(settings.root.section("cache"))
    read_charge_events(settings.root.section("events"), "")
    return Configuration(
        settings,
        read_price_config(settings.root.section("prices"), settings.usd_per_credit),
        len(read_budget_config(settings.root).budgets),
    )
