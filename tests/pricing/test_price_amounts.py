"""Amounts worked out by hand, to the nano-dollar. The working stands beside each in price_amounts.json."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from spanledger.api.values import Usage
from spanledger.pricing.book import PriceBook

CASES = json.loads(Path(__file__).with_name("price_amounts.json").read_text())["cases"]
CONFIG = """
deployments = {prod-chat = "gpt-4o-mini"}
usd_per_credit.scavio = [
  {start = 2026-10-01, usd = "0.0015"},
  {start = 2026-01-01, usd = "0.002"},
]
"""


def _amount(value: int | str) -> int | Decimal:
    return Decimal(value) if isinstance(value, str) else value


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_amount_is_what_it_comes_to_by_hand(
    case: dict[str, Any], make_book: Callable[[str], PriceBook], ns: Callable[[str], int]
) -> None:
    usage = Usage(
        {unit: _amount(value) for unit, value in case.get("units", {}).items()},
        credits=Decimal(case["credits"]) if "credits" in case else None,
        model=case.get("served"),
        price_context=case.get("context", {}),
    )
    price = make_book(CONFIG).price(case["provider"], case.get("model"), usage, ns(case["at"]))
    expected = None if case["usd"] is None else int(Decimal(case["usd"]).scaleb(9))
    assert (price.nano_usd, price.status, price.reason) == (
        expected,
        case["status"],
        case.get("reason"),
    )
    assert price.source == (
        None if expected is None else "override" if "credits" in case else "price_list"
    )
