"""A charge as span attributes, for both halves."""

from opentelemetry.util.types import AttributeValue

from spanledger.api import names
from spanledger.api.values import LONGEST, Charge


def add_charge(attributes: dict[str, AttributeValue], charge: Charge) -> None:
    """Add what a charge says to span attributes; an unknown cost adds no cost."""
    if charge.nano_usd is not None:
        usd = charge.nano_usd / 1e9
        attributes[names.COST_AMOUNT] = usd
        attributes[names.COST_CURRENCY] = "USD"
        attributes[names.COST_USD] = usd
    if charge.source is not None:
        attributes[names.COST_SOURCE] = charge.source
    if charge.price_version is not None:
        attributes[names.PRICE_VERSION] = charge.price_version[:LONGEST]
    if charge.reason is not None:
        attributes[names.UNPRICED_REASON] = charge.reason[:LONGEST]
    if charge.credits is not None:
        attributes[names.CREDITS] = float(charge.credits)
    if charge.tier is not None:
        attributes[names.BUDGET_TIER] = charge.tier
