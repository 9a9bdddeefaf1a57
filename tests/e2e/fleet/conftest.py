"""What the tests of a fleet share with those of `dashboards/`: the programs of the stack."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parents[1] / "dashboards")]

from otlp_sink import Sink  # noqa: E402 - found by the line before


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink
