"""The tests of `dashboards/` import the generator of the boards from there, and what they share from here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parents[1] / "dashboards" / "grafana")]

from stack_programs import prometheus_with  # noqa: E402 - found by the line before
from synthetic_days import Days  # noqa: E402


@pytest.fixture(scope="session")
def days() -> Days:
    return Days()


@pytest.fixture(scope="session")
def days_url(days: Days, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that holds them."""
    with prometheus_with(days.openmetrics(), tmp_path_factory.mktemp("prometheus")) as address:
        yield address
