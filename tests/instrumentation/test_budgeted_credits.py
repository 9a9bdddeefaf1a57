"""Budgets in credits hold calls that say only afterwards how many credits they took."""

import asyncio
import time
import tomllib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from books import Books
from openai_endpoint import MESSAGES, answering, chat

from spanledger.api import BudgetExceeded, BudgetThrottled, Usage, attribute
from spanledger.api.values import Attribution, PaidCall
from spanledger.instrumentation.metered import metered

Make = Callable[[str], Books]
TEN = """
[[budgets]]
scope = "tenant:*"
monthly_credits = 10
tiers = { critical = 1.0, hard = 1.0, ceiling = 1.0 }
"""
NAMES = {"provider": "serp", "operation": "search"}


@pytest.fixture
def budgeted(make_books: Callable[..., Books]) -> Make:
    return lambda toml: make_books(tomllib.loads(toml), serp="0.001")


def by_result() -> Callable[[int], Any]:
    return metered(**NAMES, credits=lambda used: used)(lambda used: used)


def by_usage() -> Callable[[int], Any]:
    usage = lambda used: Usage(credits=Decimal(used), estimated=True)  # noqa: E731
    return metered(**NAMES, usage=usage)(lambda used: used)


def by_model() -> Callable[[int], Any]:
    return metered(**NAMES, model="deep", credits=lambda used: used)(lambda used: used)


def in_a_block() -> Callable[[int], Any]:
    def search(used: int) -> None:
        with metered(**NAMES) as call:
            call.credits = used

    return search


def in_a_coroutine() -> Callable[[int], Any]:
    @metered(**NAMES, credits=lambda used: used)
    async def search(used: int) -> int:
        return used

    return lambda used: asyncio.run(search(used))


FORMS = [by_result, by_usage, by_model, in_a_block, in_a_coroutine]


def spent(books: Books) -> Decimal | None:
    return books.engine.budgets.status(tenant="acme").spent


def spend_elsewhere(books: Books, credits: int) -> None:
    """Have acme spend credits that this process has never seen a call take."""
    acme = Attribution(tenant="acme")
    paid = PaidCall("other", "search", None, acme, time.time_ns())
    books.engine.budgets.record(paid, None, Decimal(credits))


@pytest.mark.parametrize("form", FORMS)
def test_the_limit_holds(budgeted: Make, form: Callable[[], Callable[[int], Any]]) -> None:
    books, search = budgeted(TEN), form()
    with attribute(tenant="acme"), pytest.raises(BudgetExceeded):
        for _ in range(20):
            search(2)
    assert spent(books) == 10
    assert [row.outcome for row in books.rows()] == ["ok"] * 5 + ["blocked"]


@pytest.mark.parametrize("form", FORMS)
def test_the_first_call_of_a_process_meets_a_used_up_budget(
    budgeted: Make, form: Callable[[], Callable[[int], Any]]
) -> None:
    books, search = budgeted(TEN), form()
    spend_elsewhere(books, 10)
    with attribute(tenant="acme"), pytest.raises(BudgetExceeded):
        search(2)
    assert spent(books) == 10
    with attribute(tenant="globex"):  # a budget of its own
        search(2)


def test_what_calls_in_flight_will_take_is_held(budgeted: Make) -> None:
    books, search = budgeted(TEN), in_a_block()
    with attribute(tenant="acme"):
        search(4)
        with metered(**NAMES) as call:
            status = books.engine.budgets.status(tenant="acme")
            assert (status.spent, status.held) == (4, 4)
            with pytest.raises(BudgetExceeded):
                search(4)
            call.credits = 1
    assert spent(books) == 5


def test_calls_are_paced_by_their_credits(budgeted: Make) -> None:
    books = budgeted('[[budgets]]\nscope = "tenant:*"\nmonthly_credits = 10\nmax_wait = 0\n')
    with attribute(tenant="acme"), pytest.raises(BudgetThrottled):
        for _ in range(20):
            in_a_block()(1)
    assert 9 <= (spent(books) or 0) <= 10


def test_what_is_paid_in_dollars_does_not_meet_a_budget_in_credits(budgeted: Make) -> None:
    books = budgeted(TEN)
    spend_elsewhere(books, 10)
    with attribute(tenant="acme"):
        metered(**NAMES, cost=lambda result: result)(lambda: 0.5)()
        metered(**NAMES, cost="0.5")(lambda: None)()
        metered(**NAMES, model="gpt-4o-mini", usage=lambda _: Usage({"input_tokens": 1}))(
            lambda: None
        )()
        endpoint = answering(chat())
        endpoint.client().chat.completions.create(messages=MESSAGES, model="gpt-4o-mini")
    assert [row.outcome for row in books.rows()] == ["ok"] * 4


def test_a_call_that_takes_no_credits_after_all_counts_nothing(budgeted: Make) -> None:
    books = budgeted(TEN)
    with attribute(tenant="acme"), metered(**NAMES) as call:
        call.cost = "0.5"
    assert spent(books) == 0
