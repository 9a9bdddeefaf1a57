"""What the tests of prices share."""

import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from spanledger.api.guard import forget_said, reraise_internal_errors
from spanledger.api.settings import Section
from spanledger.pricing.book import PriceBook
from spanledger.pricing.config import read_price_config


@pytest.fixture(autouse=True)
def _our_errors_are_not_hidden() -> Iterator[None]:
    forget_said()
    reraise_internal_errors(on=True)
    yield
    reraise_internal_errors(on=False)


@pytest.fixture(scope="session")
def make_book() -> Callable[[str], PriceBook]:
    """A loaded price book with this `[prices]` table."""

    def make(toml: str = "") -> PriceBook:
        book = PriceBook(
            read_price_config(Section(tomllib.loads(toml), "spanledger.toml", "prices"), {})
        )
        book.warm()
        return book

    return make


@pytest.fixture(scope="session")
def book(make_book: Callable[[str], PriceBook]) -> PriceBook:
    return make_book("")


@pytest.fixture(scope="session")
def ns() -> Callable[[str], int]:
    """Unix nanoseconds of an ISO date and time in UTC, to the nanosecond."""

    def to_ns(text: str) -> int:
        whole, _, fraction = text.partition(".")
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return seconds * 10**9 + int(fraction.ljust(9, "0"))

    return to_ns
