"""The whole configuration, checked as the application will check it when it starts."""

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from spanledger.api.errors import JournalError
from spanledger.api.settings import Settings, load_settings
from spanledger.ledger.journal_place import locate
from spanledger.ledger.place import ledger_url
from spanledger.pricing.config import PriceConfig, read_price_config


class Configuration(NamedTuple):
    """What the environment and the file say. budgets: how many there are."""

    settings: Settings
    prices: PriceConfig
    budgets: int


def check_configuration(environ: Mapping[str, str] | None = None) -> Configuration:
    """Read every part of it; nothing is made, nobody is called. Raises ConfigurationError."""
    from spanledger.budget.config import read_budget_config  # noqa: PLC0415 - not for every command
    from spanledger.cache.config import read_cache_config  # noqa: PLC0415
    from spanledger.cache.store import open_store  # noqa: PLC0415
    from spanledger.instrumentation.hosts import configure_hosts  # noqa: PLC0415
    from spanledger.processor.events import read_charge_events  # noqa: PLC0415
    from spanledger.processor.metrics_config import read_metrics_config  # noqa: PLC0415

    settings = load_settings(environ)
    configure_hosts(settings.root.section("providers"))
    read_cache_config(settings.root.section("cache"))
    open_store(settings.cache_store, origin=settings.origin("cache_store")).close()
    read_charge_events(settings.root.section("events"), "")
    read_metrics_config(settings.root.section("metrics"))
    with suppress(JournalError):  # a place that is not there is no mistake of the configuration
        ledger_url(settings)
        locate(settings.journal, settings.origin("journal"))
    return Configuration(
        settings,
        read_price_config(settings.root.section("prices"), settings.usd_per_credit),
        len(read_budget_config(settings.root).budgets),
    )
