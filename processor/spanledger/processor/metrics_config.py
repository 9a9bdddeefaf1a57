"""The table [metrics] of the configuration."""

from decimal import Decimal
from typing import NamedTuple

from spanledger.api.settings import Section


class MetricsConfig(NamedTuple):
    """How the metrics are bounded: see `metrics.Metrics`."""

    max_series: int
    max_tenants: int
    zero_first: bool


def read_metrics_config(section: Section) -> MetricsConfig:
    """Read the table [metrics]. Raises ConfigurationError."""
    config = MetricsConfig(
        int(section.number("max_series", Decimal(2000), least="1", most="1e6")),
        int(section.number("max_tenants", Decimal(200), least="1", most="1e5")),
        section.flag("zero_first", True),
    )
    section.finish()
    return config
