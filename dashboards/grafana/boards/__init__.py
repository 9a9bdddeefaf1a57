"""Grafana's dashboards for spanledger, as code: a module each, over a few panels and queries."""

from collections.abc import Callable, Mapping
from typing import Final

from grafana_foundation_sdk.models import dashboard as models

from boards import books, budgets, data_layer, spend, tenant, unit_economics

BOARDS: Final[Mapping[str, Callable[[], models.Dashboard]]] = {
    "spend": spend.make,
    "unit-economics": unit_economics.make,
    "budgets": budgets.make,
    "data-layer": data_layer.make,
    "books": books.make,
    "tenant": tenant.make,
}
