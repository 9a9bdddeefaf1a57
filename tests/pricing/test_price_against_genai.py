"""Our arithmetic against genai-prices' own, over all its models, prices, tiers, variants and dates."""

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

import genai_prices
from genai_prices.data_snapshot import get_snapshot
from genai_prices.data_units import unit_data
from genai_prices.types import ModelInfo, StartDateConstraint
from genai_prices.units import UnitRegistry
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from spanledger.api.values import Usage
from spanledger.pricing.book import PriceBook

REGISTRY = UnitRegistry(unit_data)
UNITS = [key for key in REGISTRY.units if key != "requests"]
PROVIDERS = get_snapshot().providers
# Models whose pricing has something to it, so that they are not drowned by the thousand simple ones.
INTRICATE = [
    (provider.id, model)
    for provider in PROVIDERS
    for model in provider.models
    if isinstance(model.prices, list)
    or model.price_variants
    or any(not isinstance(price, Decimal) for price in model.prices.__dict__.values())
    or len(model.prices.__dict__) > 3
]
ALL = [(provider.id, model) for provider in PROVIDERS for model in provider.models]
BOTH = [*INTRICATE, *ALL]
FREE = [(provider, model) for provider, model in ALL if model.id.endswith(":free")]


def _price_keys(model: ModelInfo) -> set[str]:
    entries = (
        [entry.prices for entry in model.prices]
        if isinstance(model.prices, list)
        else [model.prices]
    )
    return {key for entry in entries for key, price in entry.__dict__.items() if price is not None}


def _edges(model: ModelInfo) -> list[datetime]:
    """Moments about which the model's price may change."""
    edges = [datetime(2024, 3, 1, tzinfo=UTC), datetime(2026, 11, 20, 12, tzinfo=UTC)]
    entries = model.prices if isinstance(model.prices, list) else []
    for constraint in [entry.constraint for entry in (*entries, *(model.price_variants or ()))]:
        if isinstance(constraint, StartDateConstraint):
            edges.append(datetime.combine(constraint.start_date, time(), UTC))
        elif constraint is not None:
            edges += [
                datetime.combine(datetime(2026, 5, 5, tzinfo=UTC), edge).astimezone(UTC)
                for edge in (constraint.start_time, constraint.end_time)
            ]
    return edges


def _references(clause: object) -> list[str]:
    """Names by which a model is meant."""
    found = [value for value in vars(clause).values() if isinstance(value, str)]
    for inner in (*getattr(clause, "or_", ()), *getattr(clause, "and_", ())):
        found += _references(inner)
    return found


@st.composite
def _usages(draw: st.DrawFn, model: ModelInfo) -> dict[str, int | Decimal]:
    """Usage mostly of what the model prices and of parts of it, mostly adding up."""
    priced = [key for key in UNITS if REGISTRY.units[key].price_key in _price_keys(model)]
    near = [key for key in UNITS if REGISTRY.ancestor_usage_keys(key) & {*priced}]
    chosen = set(draw(st.lists(st.sampled_from(priced or UNITS), max_size=6)))
    chosen |= set(draw(st.lists(st.sampled_from(near or UNITS), max_size=2)))
    chosen |= set(draw(st.lists(st.sampled_from(UNITS), max_size=1)))
    if draw(st.integers(0, 4)):
        chosen |= {whole for key in chosen for whole in REGISTRY.ancestor_usage_keys(key)} - {
            "requests"
        }
    usage: dict[str, int | Decimal] = {}
    for key in sorted(chosen):
        most = [10**9, 400_000, 400_000, 50_000, 10_000, 2_000][len(REGISTRY.units[key].dimensions)]
        if REGISTRY.units[key].per == 3600 and draw(st.booleans()):
            usage[key] = draw(st.decimals(0, 5000, places=draw(st.integers(0, 6))))
        else:
            usage[key] = draw(st.integers(0, most) | st.sampled_from([0, 1, 200_000, 200_001]))
    return usage


def _contexts(model: ModelInfo) -> st.SearchStrategy[Mapping[str, str]]:
    selected = [variant.when for variant in model.price_variants or ()]
    merged = [{**one, **other} for one in selected for other in selected]
    return st.sampled_from([{}, {"service_tier": "default"}, *selected, *merged])


@given(data=st.data())
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_amount_is_genai_prices_own(data: st.DataObject, book: PriceBook) -> None:
    index = data.draw(
        st.integers(0, len(INTRICATE) - 1) | st.integers(len(INTRICATE), len(BOTH) - 1)
    )
    provider, model = BOTH[index]
    name = data.draw(st.sampled_from([model.id, *_references(model.match)]), label=provider)
    usage = data.draw(_usages(model), label="usage")
    context = data.draw(_contexts(model), label="context")
    when = data.draw(st.sampled_from(_edges(model)), label="edge") + timedelta(
        seconds=data.draw(st.sampled_from([-86_400, -1, 0, 1, 3600, 86_400]), label="beside")
    )
    ours = book.price(
        provider, name, Usage(usage, price_context=context), int(when.timestamp()) * 10**9
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            theirs = genai_prices.calc_price(
                genai_prices.Usage(**usage),
                name,
                provider_id=provider,
                genai_request_timestamp=when,
                price_context=context,
            )
    except ValueError:  # amounts that do not add up, or that do not say enough
        event("genai-prices refuses")
        assert ours.status != "exact" or ours.reason is None
        return
    except LookupError:
        assert (ours.nano_usd, ours.reason) == (None, "unknown_model" if usage else "no_usage")
        return
    model = theirs.model
    event(f"ours: {ours.status}")
    if provider in ("openai", "azure") and any("audio" in key for key in usage):
        return  # audio that is listed without a price is guessed, and that is said: `quotes`
    prices = theirs.model_price.__dict__
    priced = {
        unit.usage_key for unit in REGISTRY.units.values() if prices.get(unit.price_key) is not None
    }
    consumed = [key for key, amount in usage.items() if amount]
    bare = [key for key in consumed if not ({key} | REGISTRY.ancestor_usage_keys(key)) & priced]
    if not priced and not model.id.endswith(":free"):
        assert (ours.nano_usd, ours.status) == (None, "unknown")
    elif not usage and "requests" not in priced:
        assert (ours.nano_usd, ours.reason) == (None, "no_usage")
    elif not priced:  # free, in tokens
        assert ours.nano_usd in (0, None)
    elif ours.nano_usd is None:  # nothing of what was consumed has a price
        assert ours.status == "unknown"
        assert bare
        assert theirs.total_price == 0
        assert "requests" not in priced
    else:
        assert ours.nano_usd == round(Fraction(theirs.total_price) * 10**9)
        wrong_tier = "=" in (ours.reason or "")  # as in unpriced:service_tier=flex
        assert ours.status == ("estimated" if wrong_tier else "partial" if bare else "exact")
    for key in bare:
        if priced:
            assert f"unpriced:{key}" in (ours.reason or "")


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_free_models_cost_nothing(data: st.DataObject, book: PriceBook) -> None:
    provider, model = data.draw(st.sampled_from(FREE))
    tokens = data.draw(st.integers(0, 10**6))
    price = book.price(provider, model.id, Usage({"input_tokens": tokens}), 1_790_000_000 * 10**9)
    assert (price.nano_usd, price.status) == (0, "exact")
