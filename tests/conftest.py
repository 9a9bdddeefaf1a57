"""What every test stands on: our own errors come out, and nothing is left installed."""

import os
from collections.abc import Iterator

import pytest

from spanledger.api import attribution, guard
from spanledger.api.gate import OpenGate, install_gate


@pytest.fixture(autouse=True)
def _a_clean_spanledger() -> Iterator[None]:
    guard.reraise_internal_errors(True)
    guard.forget_said()
    install_gate(OpenGate())
    yield
    install_gate(OpenGate())
    attribution.configure_attribution()
    guard.reraise_internal_errors(False)
    guard.internal_errors.clear()
    os.environ.pop("_SPANLEDGER_INSTANCE", None)  # else the next test's processes are children
