"""The rules of pricing: who wins, what is partial, what is unknown, and when."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.api.values import Usage
from spanledger.pricing.book import Price, PriceBook
from spanledger.pricing.config import PriceConfig

MakeBook = Callable[[str], PriceBook]
NOW = 1_795_000_000 * 10**9  # 2026-11-18
TOKENS = {"input_tokens": 1000, "output_tokens": 100}
AT_LIST_PRICE = 210_000  # of TOKENS with gpt-4o-mini: 1,000 x 150 + 100 x 600 nano-USD


def _mini(book: PriceBook, usage: Usage, when_ns: int = NOW, tenant: str | None = None) -> Price:
    return book.price("openai", "gpt-4o-mini", usage, when_ns, tenant)


# -- who wins ----------------------------------------------------------------------------------------------


def test_what_the_provider_reports_wins_over_everything(make_book: MakeBook) -> None:
    book = make_book(
        'usd_per_credit.openai = 1\n[[override]]\nprovider = "openai"\nprices = {input_mtok = 1}'
    )
    usage = Usage(TOKENS, credits=Decimal(3), reported_cost=Decimal("0.0012345675"))
    assert _mini(book, usage) == Price(1_234_568, "exact", "provider", None, None)


@pytest.mark.parametrize(
    ("reported", "nano_usd"),
    [
        ("0", 0),
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.0000000025", 2),
        ("12.5", 12_500_000_000),
    ],
)
def test_a_reported_cost_is_rounded_half_even(
    book: PriceBook, reported: str, nano_usd: int
) -> None:
    assert _mini(book, Usage(reported_cost=Decimal(reported))).nano_usd == nano_usd


@pytest.mark.parametrize("reported", ["-1", "NaN", "Infinity"])
def test_an_absurd_reported_cost_is_not_believed(book: PriceBook, reported: str) -> None:
    price = _mini(book, Usage(TOKENS, reported_cost=Decimal(reported)))
    assert (price.nano_usd, price.source) == (AT_LIST_PRICE, "price_list")


def test_a_cost_that_the_caller_estimates_is_estimated(book: PriceBook) -> None:
    price = _mini(book, Usage(reported_cost=Decimal(1), estimated=True))
    assert (price.status, price.source) == ("estimated", "provider")


def test_credits_come_before_units(make_book: MakeBook) -> None:
    book = make_book("usd_per_credit.openai = 0.5")
    price = _mini(book, Usage(TOKENS, credits=Decimal(2)))
    assert price == Price(10**9, "exact", "override", "usd_per_credit openai", None)


def test_credits_without_a_price_leave_the_units_to_be_priced(book: PriceBook) -> None:
    assert _mini(book, Usage(TOKENS, credits=Decimal(2))).nano_usd == AT_LIST_PRICE


def test_no_credits_cost_nothing_whatever_one_costs(book: PriceBook) -> None:
    price = book.price("scavio", None, Usage(credits=Decimal(0)), NOW)
    assert (price.nano_usd, price.status) == (0, "exact")


# -- unknown is not zero -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "usage", "reason"),
    [
        ("openai", "gpt-99", Usage(TOKENS), "unknown_model"),
        ("openai", None, Usage(TOKENS), "unknown_model"),
        ("acme-openai-gateway", "gpt-4o-mini", Usage(TOKENS), "unknown_provider"),
        ("scavio", None, Usage(credits=Decimal(2)), "usd_per_credit"),
        ("scavio", None, Usage(), "no_usage"),
        ("openai", "gpt-4o-mini", Usage(), "no_usage"),
        ("openai", "gpt-4o-mini", Usage(estimated=True), "no_usage"),
        ("openai", "gpt-4o-mini", Usage(unpriced=("deferred",)), "unpriced:deferred"),
        ("openai", "gpt-4o-mini", Usage({"input_tokens": 0}, unpriced=("x",)), "unpriced:x"),
        ("openai", "gpt-4o-mini", Usage({"images": 1}), "unpriced:images"),
        ("openai", "gpt-4o-mini", Usage({"input_tokens": -1}), "invalid:input_tokens"),
        ("openai", "text-embedding-3-small", Usage({"output_tokens": 5}), "unpriced:output_tokens"),
    ],
)
def test_what_has_no_price_is_unknown(
    book: PriceBook, provider: str, model: str | None, usage: Usage, reason: str
) -> None:
    assert book.price(provider, model, usage, NOW) == Price(None, "unknown", None, None, reason)


def test_nothing_consumed_costs_exactly_nothing(book: PriceBook) -> None:
    price = _mini(book, Usage({"input_tokens": 0, "output_tokens": 0, "images": 0}))
    assert (price.nano_usd, price.status, price.reason) == (0, "exact", None)


# -- what is less than exact -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "nano_usd", "status", "reason"),
    [
        (Usage({**TOKENS, "images": 2}), 210_000, "partial", "unpriced:images"),
        (Usage({**TOKENS, "input_characters": 9}), 210_000, "partial", "unpriced:input_characters"),
        (Usage(TOKENS, unpriced=("video",)), 210_000, "partial", "unpriced:video"),
        (
            Usage({"input_tokens": 1000}, unpriced=("invalid:output_tokens", "video")),
            150_000,
            "partial",
            "invalid:output_tokens,unpriced:video",
        ),
        (Usage(TOKENS, estimated=True), 210_000, "estimated", None),
        (
            Usage(TOKENS, estimated=True, unpriced=("video",)),
            210_000,
            "estimated",
            "unpriced:video",
        ),
        # 1,200 cached of 1,000: all that is said to be cached at 75, and no remainder. 1,200 x 75 + 100 x 600.
        (
            Usage({**TOKENS, "cache_read_tokens": 1200}),
            150_000,
            "partial",
            "inconsistent:input_tokens",
        ),
        # Output is not stated, but there were 40 reasoning tokens of it. 1,000 x 150 + 40 x 600.
        (
            Usage({"input_tokens": 1000, "output_reasoning_tokens": 40}),
            174_000,
            "partial",
            "missing:output_tokens",
        ),
        (Usage({"cache_read_tokens": 400}), 30_000, "partial", "missing:input_tokens"),
        (Usage({**TOKENS, "output_tokens": True}), 150_000, "partial", "invalid:output_tokens"),
        (Usage({**TOKENS, "output_tokens": 10**13}), 150_000, "partial", "invalid:output_tokens"),
        (Usage({**TOKENS, "requests": 2}), 210_000, "partial", "unpriced:requests"),
    ],
)
def test_doubts_are_said(
    book: PriceBook, usage: Usage, nano_usd: int, status: str, reason: str | None
) -> None:
    price = _mini(book, usage)
    assert (price.nano_usd, price.status, price.reason) == (nano_usd, status, reason)
    assert (price.source, price.version) == ("price_list", book.info().version)


def test_parts_of_what_has_a_price_are_not_unpriced(book: PriceBook) -> None:
    units = {
        **TOKENS,
        "input_text_tokens": 600,
        "cache_read_tokens": 400,
        "cache_text_read_tokens": 300,
        "output_reasoning_tokens": 50,
    }
    # 600 x 150 + 400 x 75 + 100 x 600
    price = _mini(book, Usage(units))
    assert (price.nano_usd, price.status) == (180_000, "exact")


GEMINI: dict[str, int | Decimal] = {"input_tokens": 1000, "output_tokens": 0}


@pytest.mark.parametrize(
    ("cached", "audio", "nano_usd", "status"),
    [
        # 600 cached and 500 audio of 1,000: at least 100 are both.
        # 0 text x 300 + 500 cached x 30 + 400 audio x 1,000 + 100 cached audio x 100
        (600, 500, 425_000, "estimated"),
        # They fit side by side. 500 text x 300 + 200 x 30 + 300 x 1,000
        (200, 300, 456_000, "estimated"),
        # Everything is cached, so all of the audio is. 500 x 30 + 500 x 100
        (1000, 500, 65_000, "exact"),
        (600, 0, 138_000, "exact"),
    ],
)
def test_cached_audio_that_nobody_states(
    book: PriceBook, cached: int, audio: int, nano_usd: int, status: str
) -> None:
    usage = Usage({**GEMINI, "cache_read_tokens": cached, "input_audio_tokens": audio})
    price = book.price("gcp.gemini", "gemini-2.5-flash", usage, NOW)
    assert (price.nano_usd, price.status) == (nano_usd, status)
    assert price.reason == ("missing:cache_audio_read_tokens" if status == "estimated" else None)


@pytest.mark.parametrize("tier", ["auto", "default", "standard", "On_Demand", "standard_only", ""])
def test_every_word_for_the_standard_tier_means_it(book: PriceBook, tier: str) -> None:
    price = _mini(book, Usage(TOKENS, price_context={"service_tier": tier, "speed": "standard"}))
    assert (price.nano_usd, price.status) == (AT_LIST_PRICE, "exact")


@pytest.mark.parametrize(
    ("provider", "context", "reason"),
    [
        ("openai", {"service_tier": "scale"}, "unpriced:service_tier=scale"),
        ("openai", {"service_tier": "flex"}, "unpriced:service_tier=flex"),
        # Azure's entry is OpenAI's, and OpenAI's tiers are not Azure's.
        ("azure.ai.openai", {"service_tier": "priority"}, "unpriced:service_tier=priority"),
        ("openai", {"speed": "fast"}, "unpriced:speed=fast"),
    ],
)
def test_a_tier_that_the_list_does_not_price_is_an_estimate(
    book: PriceBook, provider: str, context: dict[str, str], reason: str
) -> None:
    price = book.price(provider, "gpt-4o-mini", Usage(TOKENS, price_context=context), NOW)
    assert (price.nano_usd, price.status, price.reason) == (AT_LIST_PRICE, "estimated", reason)


def test_groqs_flex_tier_costs_what_the_standard_one_does(book: PriceBook) -> None:
    prices = [
        book.price("groq", "llama-3.3-70b-versatile", Usage(TOKENS, price_context=context), NOW)
        for context in ({}, {"service_tier": "flex"})
    ]
    assert prices[0] == prices[1]
    assert prices[0].status == "exact"


def test_a_served_model_that_nobody_knows_is_estimated_by_the_one_asked_for(
    book: PriceBook,
) -> None:
    price = _mini(book, Usage(TOKENS, model="gpt-4o-mini-2099-01-01-x"))
    assert (price.nano_usd, price.status, price.reason) == (
        AT_LIST_PRICE,
        "estimated",
        "unknown_model",
    )


def test_the_served_model_comes_before_the_one_asked_for(book: PriceBook) -> None:
    assert (
        book.price("openai", "gpt-5", Usage(TOKENS, model="gpt-4o-mini"), NOW).nano_usd
        == AT_LIST_PRICE
    )


# -- calls in parts ----------------------------------------------------------------------------------------


def test_parts_are_priced_each_at_its_model_and_rounded_together(make_book: MakeBook) -> None:
    book = make_book(
        '[[override]]\nprovider = "p"\nmodel = "half"\nprices = {input_mtok = "0.0005"}'
    )
    half = Usage({"input_tokens": 1}, model="half")  # half a nano-dollar
    assert book.price("p", "half", half, NOW).nano_usd == 0
    assert (
        book.price("p", "half", Usage({"input_tokens": 2}, parts=(half, half)), NOW).nano_usd == 1
    )


def test_parts_of_several_models(book: PriceBook) -> None:
    parts = (
        Usage(
            {"input_tokens": 1000, "output_tokens": 100}, model="claude-sonnet-4-5"
        ),  # 3,000,000 + 1,500,000
        Usage(
            {"input_tokens": 1000, "output_tokens": 100}, model="claude-haiku-4-5"
        ),  # 1,000,000 + 500,000
    )
    usage = Usage({"input_tokens": 2000, "output_tokens": 200}, parts=parts)
    price = book.price("anthropic", "claude-sonnet-4-5", usage, NOW)
    assert (price.nano_usd, price.status, price.version) == (
        6_000_000,
        "exact",
        book.info().version,
    )


def test_parts_take_over_what_the_whole_says(book: PriceBook) -> None:
    parts = (Usage({"input_tokens": 1000}, model="claude-sonnet-4-5"),)
    usage = Usage(parts=parts, price_context={"processing": "batch"}, unpriced=("x",))
    price = book.price("anthropic", None, usage, NOW)
    assert (price.nano_usd, price.status, price.reason) == (1_500_000, "partial", "unpriced:x")


def test_a_part_without_a_price_makes_the_whole_partial(book: PriceBook) -> None:
    parts = (Usage(TOKENS, model="gpt-4o-mini"), Usage(TOKENS, model="gpt-99"))
    price = book.price("openai", None, Usage(parts=parts), NOW)
    assert (price.nano_usd, price.status, price.reason) == (
        AT_LIST_PRICE,
        "partial",
        "unknown_model",
    )
    price = book.price("openai", None, Usage(parts=parts[1:]), NOW)
    assert (price.nano_usd, price.status, price.reason) == (None, "unknown", "unknown_model")


def test_an_estimated_part_makes_the_whole_estimated(book: PriceBook) -> None:
    parts = (Usage(TOKENS), Usage(TOKENS, estimated=True))
    assert _mini(book, Usage(parts=parts)).status == "estimated"


# -- overrides and multipliers -----------------------------------------------------------------------------

OVERRIDES = """
[[override]]
provider = "openai"
model = "gpt-4o-mini"
prices = {input_mtok = "0.1"}

[[override]]
provider = "openai"
model = "gpt-4o-mini"
start = 2026-06-01
prices = {input_mtok = "0.2"}

[[override]]
provider = "openai"
model = "gpt-4o-mini"
tenant = "acme"
prices = {input_mtok = "0.3"}

[[override]]
provider = "openai"
model = "gpt-4o-*"
prices = {input_mtok = "9"}

[[override]]
provider = "openai"
model = "gpt-4o-mini"
when = {service_tier = "priority"}
prices = {input_mtok = "0.4", output_mtok = "0.5"}
"""


@pytest.mark.parametrize(
    ("at", "tenant", "tier", "nano_usd", "version"),
    [
        ("2026-05-31T23:59:59", None, "", 100_000 + 60_000, "override openai/gpt-4o-mini"),
        ("2026-06-01", None, "", 200_000 + 60_000, "override openai/gpt-4o-mini 2026-06-01"),
        ("2026-06-01", "globex", "", 200_000 + 60_000, "override openai/gpt-4o-mini 2026-06-01"),
        ("2026-06-01", "acme", "", 300_000 + 60_000, "override openai/gpt-4o-mini acme"),
        (
            "2026-06-01",
            None,
            "priority",
            450_000,
            "override openai/gpt-4o-mini service_tier=priority",
        ),
    ],
)
def test_the_most_specific_override_counts(
    make_book: MakeBook,
    ns: Callable[[str], int],
    at: str,
    tenant: str | None,
    tier: str,
    nano_usd: int,
    version: str,
) -> None:
    book = make_book(OVERRIDES)
    usage = Usage(TOKENS, model="gpt-4o-mini-2024-07-18", price_context={"service_tier": tier})
    price = _mini(book, usage, ns(at), tenant)
    assert (price.nano_usd, price.status, price.source) == (nano_usd, "exact", "override")
    assert price.version == f"{version} over {book.info().version}"


def test_what_an_override_does_not_state_keeps_the_lists_price(make_book: MakeBook) -> None:
    book = make_book('[[override]]\nprovider = "openai"\nprices = {cache_read_mtok = "0.01"}')
    # 600 x 150 + 400 x 10 + 100 x 600
    assert _mini(book, Usage({**TOKENS, "cache_read_tokens": 400})).nano_usd == 154_000


@pytest.mark.parametrize(
    ("provider", "model", "usage", "nano_usd", "status"),
    [
        ("openai", "dall-e-3", Usage({"images": 2}), 80_000_000, "exact"),
        ("openai", "gpt-4o-mini-tts", Usage({"input_characters": 1000}), 15_000_000, "exact"),
        ("selfhosted", "llama", Usage(TOKENS), 100_000, "partial"),
        ("selfhosted", "llama-70b", Usage({"gpu_seconds": Decimal("2.5")}), 2_500_000, "exact"),
        ("serper", None, Usage(), 1_000_000, "exact"),
        ("serper", None, Usage({"requests": 3}), 3_000_000, "exact"),
        ("openai", "gpt-4o-mini", Usage(TOKENS), 210_000, "exact"),
    ],
)
def test_overrides_price_what_the_list_cannot(
    make_book: MakeBook,
    provider: str,
    model: str | None,
    usage: Usage,
    nano_usd: int,
    status: str,
) -> None:
    book = make_book("""
        override = [
            {provider = "openai", model = "dall-e-3", units.images = {usd = "0.04"}},
            {provider = "openai", model = "gpt-4o-mini-tts", prices = {input_mchars = 15}},
            {provider = "selfhosted", model = "llama", prices = {input_mtok = "0.1"}},
            {provider = "selfhosted", model = "llama-*", units.gpu_seconds = {usd = "3.6", per = 3600}},
            {provider = "serper", prices = {requests_kcount = 1}},
        ]
    """)
    price = book.price(provider, model, usage, NOW)
    assert (price.nano_usd, price.status) == (nano_usd, status)


def test_an_override_with_audio_over_a_list_without(make_book: MakeBook) -> None:
    book = make_book(
        '[[override]]\nprovider = "openai"\nmodel = "gpt-4o-mini"\nprices = {input_audio_mtok = 10}'
    )
    units = {"input_tokens": 1000, "input_audio_tokens": 400, "cache_read_tokens": 300}
    # 400 text x 150 + 300 cached x 75 + 300 audio x 10,000 + 100 cached audio, as dear as audio: x 10,000
    price = _mini(book, Usage({**units, "cache_audio_read_tokens": 100}))
    assert price.nano_usd == 400 * 150 + 200 * 75 + 400 * 10_000
    assert (price.status, price.reason) == ("estimated", "unpriced:cache_audio_read_tokens")
    price = _mini(book, Usage({**units, "cache_audio_read_tokens": 0}))
    assert (price.nano_usd, price.status) == (300 * 150 + 300 * 75 + 400 * 10_000, "exact")


def test_a_multiplier_changes_the_lists_price_and_no_override(make_book: MakeBook) -> None:
    book = make_book("""
        multiplier = [
            {provider = "openai", factor = "0.9"},
            {tenant = "acme", factor = "1.2"},
            {provider = "openai", start = 2026-10-01, factor = "0.8"},
        ]
        override = [{provider = "openai", model = "gpt-5", prices = {input_mtok = 1, output_mtok = 1}}]
    """)
    before = NOW - 90 * 86_400 * 10**9
    assert _mini(book, Usage(TOKENS), before).nano_usd == 189_000
    price = _mini(book, Usage(TOKENS))
    assert (price.nano_usd, price.source) == (168_000, "price_list")
    assert price.version == f"{book.info().version} x 0.8"
    assert _mini(book, Usage(TOKENS), tenant="acme").nano_usd == 252_000
    price = book.price("openai", "gpt-5", Usage(TOKENS), NOW)
    assert price.nano_usd == 1_100_000


@pytest.mark.parametrize(
    ("provider", "asked", "served", "nano_usd"),
    [
        ("azure.ai.openai", "gpt-5", None, 210_000),  # a deployment with a misleading name
        ("openai", "gpt-5", None, 2_250_000),
        (
            "azure.ai.openai",
            "gpt-5",
            "gpt-5-2025-08-07",
            2_250_000,
        ),  # what served it is known better
        ("azure.ai.openai", "Fine", "gpt-4o-mini.ft-0123", 210_000),
        ("openai", "fine", None, 210_000),
    ],
)
def test_deployments(
    make_book: MakeBook, provider: str, asked: str, served: str | None, nano_usd: int
) -> None:
    book = make_book('[deployments]\n"azure.ai.openai/gpt-5" = "gpt-4o-mini"\nfine = "gpt-4o-mini"')
    price = book.price(provider, asked, Usage(TOKENS, model=served), NOW)
    assert (price.nano_usd, price.status) == (nano_usd, "exact")


# -- time --------------------------------------------------------------------------------------------------


def test_a_kept_price_does_not_outlive_its_hours(book: PriceBook, ns: Callable[[str], int]) -> None:
    usage = Usage({"input_tokens": 10**6})
    for _ in range(2):
        for day in ("2025-05-05", "2025-05-06", "2025-05-04"):
            for hour, cents in (
                ("00:00:00", 135), ("00:29:59.9", 135), ("00:30:00", 270), ("16:29:59.9", 270), ("16:30:00", 135),
                ("23:59:59", 135),
            ):  # fmt: skip
                price = book.price("deepseek", "deepseek-chat", usage, ns(f"{day}T{hour}"))
                assert price.nano_usd == cents * 10**6, (day, hour)


@pytest.mark.parametrize("when_ns", [0, -1, -(10**19), 2**63, 10**30])
def test_absurd_times_are_priced_all_the_same(book: PriceBook, when_ns: int) -> None:
    assert _mini(book, Usage(TOKENS), when_ns).nano_usd == AT_LIST_PRICE


def test_many_names_do_not_fill_the_memory(make_book: MakeBook) -> None:
    book = make_book("")
    for number in range(5000):
        book.price("openai", f"made-up-{number}", Usage(TOKENS), NOW)
    assert _mini(book, Usage(TOKENS)).nano_usd == AT_LIST_PRICE
    quotes = book._loader.quotes
    assert quotes is not None
    assert len(quotes._kept) <= 4096


# -- whatever comes ----------------------------------------------------------------------------------------

ANYTHING = (
    st.integers()
    | st.booleans()
    | st.floats()
    | st.decimals()
    | st.sampled_from(["", "5", "x"])
    | st.none()
    | st.integers(0, 1000)
)
NAMES = st.sampled_from(
    [
        "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens",
        "input_audio_tokens", "cache_audio_read_tokens", "output_reasoning_tokens", "web_searches", "requests",
        "audio_seconds", "images", "",
    ]
)  # fmt: skip


@given(
    units=st.dictionaries(NAMES, ANYTHING, max_size=6),
    credits_used=st.none() | st.decimals(),
    reported=st.none() | st.decimals(),
    model=st.sampled_from(["gpt-4o-mini", "gpt-realtime", "whisper-1", "gpt-99", None]),
)
def test_no_usage_makes_it_raise_or_lie(
    book: PriceBook,
    units: Any,
    credits_used: Decimal | None,
    reported: Decimal | None,
    model: str | None,
) -> None:
    price = book.price("openai", model, Usage(units, credits_used, reported), NOW)
    assert (price.nano_usd is None) == (price.status == "unknown")
    assert price.nano_usd is None or price.nano_usd >= 0
    assert (price.reason is None) <= (price.status != "unknown")


def test_amounts_in_other_types_are_amounts(book: PriceBook) -> None:
    units: Any = {"input_tokens": 1000.0, "output_tokens": Decimal(100)}
    assert _mini(book, Usage(units)) == _mini(book, Usage(TOKENS))


def test_the_surrounding_decimal_context_does_not_matter(book: PriceBook) -> None:
    from decimal import localcontext

    usage = Usage({"audio_seconds": Decimal("1234.5678901")})
    with localcontext() as narrow:
        narrow.prec = 3
        price = book.price("openai", "whisper-1", usage, NOW)
    assert price.nano_usd == 123_456_789  # 1,234.5678901 x 100,000 = 123,456,789.01


def test_info_says_what_is_known(make_book: MakeBook) -> None:
    book = make_book('usd_per_credit = {b = 1, a = 2}\n[[multiplier]]\ntenant = "acme"\nfactor = 2')
    info = book.info()
    assert info.version is not None
    assert info.version.startswith("genai-prices 0.")
    assert info.data_date is not None
    assert (info.overrides, info.multipliers, info.refreshed) == (0, 1, False)
    assert info.credit_providers == ("a", "b")
    assert PriceBook(PriceConfig()).info().version is None
