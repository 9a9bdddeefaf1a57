"""The benchmark's load, without its clock: what the cache saves is real, and within what is possible."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "cache.py"


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cache_benchmark", BENCHMARK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_popular_searches_are_mostly_hits(benchmark_module: ModuleType) -> None:
    searches = benchmark_module.zipf_searches()
    assert len(searches) == 20_000
    small, large = (benchmark_module.simulate(searches, entries) for entries in (300, 10_000))
    assert large.hits == large.best_hits == large.unbounded_hits
    assert 0.75 * small.best_hits < small.hits < small.best_hits < large.hits
    assert small.saved_nano_usd == small.hits * benchmark_module.PRICE_NANO_USD
    assert large.hits > 0.5 * len(searches)


def test_the_best_possible_is_what_trying_everything_finds(benchmark_module: ModuleType) -> None:
    import itertools

    searches = [0, 1, 2, 0, 3, 1, 0, 2, 3, 0]

    def best(position: int, kept: frozenset[int]) -> int:
        if position == len(searches):
            return 0
        query = searches[position]
        choices = [
            frozenset(some)
            for size in range(3)
            for some in itertools.combinations(kept | {query}, size)
        ]
        return (query in kept) + max(best(position + 1, choice) for choice in choices)

    assert benchmark_module.best_possible(searches, 2) == best(0, frozenset())
