"""Estimates: what a call of this kind costs before anybody knows."""

import threading
from collections.abc import Callable
from decimal import Decimal

import pytest

from spanledger.api.values import NOBODY, Attribution, PaidCall, Usage
from spanledger.pricing.book import PriceBook
from spanledger.pricing.estimates import Estimates, fallback_usage, upper_bound
from spanledger.pricing.generations import Generations

NOW = 1_795_000_000 * 10**9
CHAT = PaidCall("openai", "chat", "gpt-4o-mini", NOBODY, NOW)
FALLBACK_OUTPUT = 1024 * 600
"""Nano-USD of the output that gpt-4o-mini is taken to make."""


def _size(size: int) -> Callable[[], int]:
    return lambda: size


@pytest.fixture
def estimates(book: PriceBook) -> Estimates:
    return Estimates(book)


@pytest.mark.parametrize(
    ("call", "probably", "at_most"),
    [
        (
            CHAT._replace(input_bytes=_size(4001)),
            {"input_tokens": 1001, "output_tokens": 1024},
            {"input_tokens": 4001, "output_tokens": 131_072},
        ),
        (
            CHAT._replace(input_bytes=_size(400), max_output_tokens=50),
            {"input_tokens": 100, "output_tokens": 50},
            {"input_tokens": 400, "output_tokens": 50},
        ),
        (
            CHAT._replace(max_output_tokens=0),
            {"input_tokens": 0, "output_tokens": 0},
            {"input_tokens": 0, "output_tokens": 0},
        ),
        (
            CHAT._replace(operation="embeddings", input_bytes=_size(400)),
            {"input_tokens": 100},
            {"input_tokens": 400},
        ),
        (
            CHAT._replace(model="tts-1", known=Usage({"input_characters": 400})),
            {"input_characters": 400},
            {"input_characters": 400},
        ),
        (PaidCall("scavio", "google.search", None, NOBODY, NOW), {}, {}),
    ],
)
def test_what_a_call_may_use(
    call: PaidCall, probably: dict[str, int], at_most: dict[str, int]
) -> None:
    assert fallback_usage(call) == Usage(probably, estimated=True)
    assert upper_bound(call) == Usage(at_most, estimated=True)


def test_a_data_call_uses_the_credits_that_its_specification_states() -> None:
    call = PaidCall("scavio", "google.search", None, NOBODY, NOW, known=Usage(credits=Decimal(2)))
    assert fallback_usage(call) == upper_bound(call) == Usage(credits=Decimal(2), estimated=True)


def test_a_cold_start_goes_by_the_size(estimates: Estimates) -> None:
    call = CHAT._replace(input_bytes=_size(4000))
    assert estimates.estimate(call) == 1000 * 150 + FALLBACK_OUTPUT
    assert estimates.estimate(call, strict=True) == 4000 * 150 + 131_072 * 600


def test_what_has_no_price_has_no_estimate(estimates: Estimates) -> None:
    assert estimates.estimate(CHAT._replace(model="gpt-99")) is None
    assert estimates.estimate(PaidCall("scavio", "google.search", None, NOBODY, NOW)) is None


def test_what_spends_nothing_is_estimated_at_nothing(estimates: Estimates) -> None:
    assert estimates.estimate(CHAT._replace(model="gpt-99", spends=False)) == 0


def test_a_few_samples_do_not_lower_the_estimate(estimates: Estimates) -> None:
    for _ in range(7):
        estimates.observe(CHAT, 1000)
    assert estimates.estimate(CHAT) == FALLBACK_OUTPUT
    estimates.observe(CHAT, 1000)
    assert estimates.estimate(CHAT) == 1000


def test_a_few_samples_raise_the_estimate(estimates: Estimates) -> None:
    estimates.observe(CHAT, 10**9)
    estimates.observe(CHAT, 5)
    assert estimates.estimate(CHAT) == 10**9


def test_a_high_quantile_of_the_last_64(estimates: Estimates) -> None:
    for cost in [10**12, *range(1, 65)]:
        estimates.observe(CHAT, cost)
    assert estimates.estimate(CHAT) == 61  # the 61st of 64: 0.95 x 63 = 59.85 above the lowest


def test_kinds_are_kept_apart(estimates: Estimates) -> None:
    for _ in range(10):
        estimates.observe(CHAT, 7)
    assert estimates.estimate(CHAT._replace(attribution=Attribution(tenant="acme"))) == 7
    others = [
        CHAT._replace(attribution=Attribution(feature="search")),
        CHAT._replace(operation="text_completion"),
        CHAT._replace(model="gpt-4o-mini-2024-07-18"),
    ]
    assert [estimates.estimate(other) for other in others] == [FALLBACK_OUTPUT] * 3


def test_the_upper_bound_caps(estimates: Estimates) -> None:
    for _ in range(10):
        estimates.observe(CHAT, 10**9)
    small = CHAT._replace(max_output_tokens=10, input_bytes=_size(100))
    assert estimates.estimate(small) == 100 * 150 + 10 * 600


def test_the_input_is_not_measured_where_the_output_alone_allows_the_cost(
    estimates: Estimates,
) -> None:
    def measure() -> int:
        raise AssertionError

    for _ in range(10):
        estimates.observe(CHAT, 10**6)
    assert estimates.estimate(CHAT._replace(max_output_tokens=2000, input_bytes=measure)) == 10**6


def test_a_strict_estimate_is_the_bound_whatever_was_seen(estimates: Estimates) -> None:
    for _ in range(10):
        estimates.observe(CHAT, 7)
    call = CHAT._replace(max_output_tokens=10, input_bytes=_size(100))
    assert estimates.estimate(call, strict=True) == 21_000


def test_a_data_call_has_no_bound_but_what_was_seen(make_book: Callable[[str], PriceBook]) -> None:
    estimates = Estimates(make_book("usd_per_credit.scavio = 0.002"))
    call = PaidCall("scavio", "google.search", None, NOBODY, NOW, known=Usage(credits=Decimal(1)))
    assert estimates.estimate(call) == estimates.estimate(call, strict=True) == 2_000_000
    for _ in range(10):
        estimates.observe(call, 20_000_000)
    assert estimates.estimate(call) == estimates.estimate(call, strict=True) == 20_000_000
    unpriced = call._replace(provider="other")
    estimates.observe(unpriced, 5)
    assert estimates.estimate(unpriced) == 5


def test_credits_are_learnt_apart_from_money(estimates: Estimates) -> None:
    call = PaidCall("serp", "search", None, NOBODY, NOW)
    assert estimates.credits(call) is None
    estimates.observe_credits(call, 5)
    estimates.observe_credits(call, 2)
    assert estimates.credits(call) == 5  # of a few, the most
    assert estimates.estimate(call) is None
    estimates.observe(call, 7)
    for _ in range(64):
        estimates.observe_credits(call, 2)
    assert estimates.credits(call) == 2
    assert estimates.credits(call._replace(operation="news")) is None


def test_the_tenants_own_prices_count(make_book: Callable[[str], PriceBook]) -> None:
    estimates = Estimates(make_book('[[multiplier]]\ntenant = "acme"\nfactor = 2'))
    call = CHAT._replace(attribution=Attribution(tenant="acme"))
    assert estimates.estimate(call) == 2 * FALLBACK_OUTPUT


def test_memory_is_bounded(estimates: Estimates) -> None:
    for number in range(10_000):
        estimates.observe(CHAT._replace(model=f"made-up-{number}"), 1)
    assert len(estimates._seen) <= 4096


def test_threads_at_once(estimates: Estimates) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(500):
                estimates.observe(CHAT._replace(operation=f"op-{number % 7}"), number)
                assert estimates.estimate(CHAT._replace(operation=f"op-{number % 7}")) is not None
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_generations_keep_what_was_used_last() -> None:
    kept: Generations[int, str] = Generations(3)
    for key in range(3):
        kept.put(key, str(key))
    assert kept.get(0) == "0"
    kept.put(3, "3")
    assert len(kept) == 4
    assert kept.get(0) == "0"  # found, and so young again
    kept.put(4, "4")
    kept.put(5, "5")
    assert [kept.get(key) for key in (0, 1, 2, 3, 4, 5, 6)] == [
        "0",
        None,
        None,
        "3",
        "4",
        "5",
        None,
    ]
    assert len(kept) <= 6
