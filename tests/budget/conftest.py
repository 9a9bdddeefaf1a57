"""What the tests of budgets share: a clock to turn, a ledger in memory, budgets from TOML."""

import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from spanledger.api.settings import Section
from spanledger.api.values import Attribution, PaidCall, Usage
from spanledger.budget.budgets import Budgets
from spanledger.budget.config import BudgetConfig, read_budget_config
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.memory import MemoryStore

USD = 10**9
START = int(datetime(2026, 11, 10, 12, tzinfo=UTC).timestamp()) * 10**9
"""A Tuesday noon; the month is about a third gone."""


class Clock:
    """Unix nanoseconds, as somebody sets them."""

    def __init__(self, ns: int = START) -> None:
        self.ns = ns

    def __call__(self) -> int:
        return self.ns

    def forward(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)

    def set(self, iso: str) -> None:
        self.ns = int(datetime.fromisoformat(iso).replace(tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger() -> Iterator[LeasedLedger]:
    ledger = LeasedLedger(MemoryStore())
    yield ledger
    ledger.close()


def config_of(toml: str) -> BudgetConfig:
    return read_budget_config(Section(tomllib.loads(toml), "spanledger.toml"))


MakeBudgets = Callable[..., Budgets]


@pytest.fixture
def make(clock: Clock, ledger: LeasedLedger) -> MakeBudgets:
    """Budgets with this configuration."""

    def make(toml: str, **more: Any) -> Budgets:
        return Budgets(config_of(toml), ledger, clock=clock, **more)

    return make


MakeCall = Callable[..., PaidCall]


@pytest.fixture
def call(clock: Clock) -> MakeCall:
    """A paid call that starts now."""

    def call(
        tenant: str | None = "acme",
        *,
        user: str | None = None,
        feature: str | None = None,
        provider: str = "openai",
        model: str | None = "gpt-5",
        credits: str | None = None,
        **more: Any,
    ) -> PaidCall:
        return PaidCall(
            provider,
            "chat",
            model,
            Attribution(tenant, user, feature),
            clock(),
            known=None if credits is None else Usage(credits=Decimal(credits)),
            **more,
        )

    return call


@pytest.fixture
def spend(make: MakeBudgets, call: MakeCall) -> Callable[..., None]:
    """Have a call spend so many USD, whatever the budget says."""

    def spend(budgets: Budgets, usd: float, **more: Any) -> None:
        budgets.record(call(**more), round(usd * USD))

    return spend
