"""Every kind of Scavio call: one charge each, in credits and in USD (here 0.005 USD a credit)."""

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from decimal import Decimal
from typing import Any

import pytest
import scavio
from books import Books
from loopback import Answer, Arrived, Loopback
from opentelemetry import baggage, context

from spanledger.api import attribute, feature
from spanledger.ledger.journal_rows import Row

NANO_A_CREDIT = 5_000_000
Do = Callable[[Any], Any]


def exercise(server: Loopback, do: Do, *, asynchronous: bool, **options: Any) -> Any:
    """`do` with a client of either kind."""
    options = {
        "api_key": "sk-secret",
        "base_url": server.url,
        "max_requests_per_second": 50,
        "max_retries": 0,
        **options,
    }
    if not asynchronous:
        with ExitStack() as stack:
            return do(stack.enter_context(scavio.ScavioClient(**options)))

    async def main() -> Any:
        async with AsyncExitStack() as stack:
            result = do(await stack.enter_async_context(scavio.AsyncScavioClient(**options)))
            return await result if inspect.isawaitable(result) else result

    return asyncio.run(main())


def costing(credits_used: float, **body: Any) -> Callable[[Arrived], Answer]:
    return lambda _: (
        200,
        {"organic_results": [], "credits_used": credits_used, "credits_remaining": 100, **body},
    )


def money(row: Row) -> tuple[Any, ...]:
    return (row.credits, row.nano_usd, row.cost_status, row.outcome)


BOTH = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@BOTH
@pytest.mark.parametrize(
    ("do", "credits_used", "operation"),
    [
        (lambda c: c.search("fish"), 1, "google.search"),
        (lambda c: c.google.search("fish"), 1, "google.search"),
        (lambda c: c.linkedin.search_jobs("fish"), 10, "linkedin.search_jobs"),
        (
            lambda c: c.walmart.search("fish"),
            3,
            "walmart.search",
        ),  # priced by its body: 1 is only the floor
        (lambda c: c.extract("https://fish.example", mode="ultra"), 2, "extract"),
        (lambda c: c.extract.map("https://fish.example"), 1, "extract.map"),
    ],
    ids=["shortcut", "one credit", "ten credits", "body-priced", "extract", "map"],
)
def test_credits_used_are_exact(
    books: Books, do: Do, credits_used: int, operation: str, asynchronous: bool
) -> None:
    with (
        Loopback(costing(credits_used)) as server,
        attribute(tenant="acme", user="u-1"),
        feature("prices"),
    ):
        assert exercise(server, do, asynchronous=asynchronous)["credits_used"] == credits_used
    row = books.row()
    assert money(row) == (credits_used, credits_used * NANO_A_CREDIT, "exact", "ok")
    assert (row.provider, row.operation, row.tenant_id, row.feature) == (
        "scavio",
        operation,
        "acme",
        "prices",
    )
    span = books.span()
    assert span.attributes is not None
    assert span.attributes["spanledger.credits"] == credits_used


@BOTH
def test_a_billed_404(books: Books, asynchronous: bool) -> None:
    with Loopback(lambda _: (404, {"error": "no such user", "credits_used": 2})) as server:
        with pytest.raises(scavio.NotFoundError, match="no such user"):
            exercise(server, lambda c: c.google.search("fish"), asynchronous=asynchronous)
    assert money(books.row()) == (2, 2 * NANO_A_CREDIT, "exact", "error")


@BOTH
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, scavio.InsufficientCreditsError),
        (429, scavio.RateLimitError),
        (404, scavio.NotFoundError),
    ],
)
def test_what_is_not_billed(
    books: Books, status: int, error: type[Exception], asynchronous: bool
) -> None:
    with Loopback(lambda _: (status, {"error": "no"})) as server, pytest.raises(error):
        exercise(server, lambda c: c.google.search("fish"), asynchronous=asynchronous)
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome, row.error_type) == (
        0,
        "exact",
        "error",
        error.__name__,
    )


@BOTH
def test_a_refused_connection(books: Books, asynchronous: bool) -> None:
    with Loopback(costing(1)) as server:
        pass  # closed: nobody listens there now
    with pytest.raises(scavio.ScavioConnectionError):
        exercise(server, lambda c: c.google.search("fish"), asynchronous=asynchronous)
    assert (books.row().nano_usd, books.row().cost_status) == (0, "exact")


@BOTH
def test_a_server_error_may_be_billed(books: Books, asynchronous: bool) -> None:
    with (
        Loopback(lambda _: (500, {"error": "oops"})) as server,
        pytest.raises(scavio.ScavioAPIError),
    ):
        exercise(server, lambda c: c.google.search("fish"), asynchronous=asynchronous)
    assert money(books.row()) == (1, NANO_A_CREDIT, "estimated", "error")


@BOTH
def test_html_with_a_200_is_estimated_at_the_floor(books: Books, asynchronous: bool) -> None:
    with Loopback(lambda _: (200, b"<h1>gateway</h1>")) as server:
        assert (
            exercise(server, lambda c: c.linkedin.search_jobs("fish"), asynchronous=asynchronous)
            == {}
        )
    assert money(books.row()) == (10, 10 * NANO_A_CREDIT, "estimated", "ok")


@BOTH
def test_a_retried_call_is_one(
    books: Books, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scavio._retry.RetryConfig.backoff", lambda *_: 0.0)
    answers = iter([(503, {}), (429, {}), (200, {"credits_used": 1})])
    with Loopback(lambda _: next(answers)) as server:
        exercise(
            server, lambda c: c.google.search("fish"), asynchronous=asynchronous, max_retries=2
        )
    assert len(server.requests) == 3
    assert money(books.row()) == (1, NANO_A_CREDIT, "exact", "ok")


@BOTH
def test_get_usage_is_free_and_states_the_balance(books: Books, asynchronous: bool) -> None:
    seen: list[tuple[str, Decimal]] = []
    books.engine.gate._on_credits = lambda provider, balance: seen.append((provider, balance))
    with Loopback(lambda _: (200, {"plan": "pro", "credit_balance": 4711})) as server:
        assert (
            exercise(server, lambda c: c.get_usage(), asynchronous=asynchronous)["credit_balance"]
            == 4711
        )
        exercise(server, lambda c: c.get_usage(), asynchronous=asynchronous)
    assert not books.rows()
    assert not books.spans()
    assert seen == [("scavio", Decimal(4711))] * 2


JOBS: dict[str, tuple[Do, Do, Do, Do]] = {
    "crawl": (
        lambda c: c.extract.crawl("https://fish.example"),
        lambda c: c.extract.crawl("https://fish.example", wait=True, poll_interval=0.01),
        lambda c: c.extract.crawl_status("job_1"),
        lambda c: c.extract.cancel_crawl("job_1"),
    ),
    "batch": (
        lambda c: c.extract.batch(["https://fish.example", "https://chips.example"]),
        lambda c: c.extract.batch(["https://fish.example"], wait=True, poll_interval=0.01),
        lambda c: c.extract.batch_status("job_1"),
        lambda c: c.extract.cancel_batch("job_1"),
    ),
}


def working() -> Callable[[Arrived], Answer]:
    """A job whose credits arrive over three polls; the last two state the same."""
    used = iter([3, 7, 7, 7, 7])

    def answer(arrived: Arrived) -> Answer:
        if arrived.method == "POST":
            return 202, {"data": {"id": "job_1", "status": "queued"}, "credits_used": 0}
        now = next(used)
        status = "completed" if now == 7 else "running"
        return 200, {
            "data": {
                "id": "job_1",
                "status": "cancelled" if arrived.method == "DELETE" else status,
                "credits_used": now,
                "results": [],
                "next_cursor": None,
            }
        }

    return answer


@BOTH
@pytest.mark.parametrize("kind", JOBS)
def test_a_job_is_one_call_whose_credits_arrive_while_polling(
    books: Books, kind: str, asynchronous: bool
) -> None:
    _, make_and_wait, _, _ = JOBS[kind]
    with Loopback(working()) as server, attribute(tenant="acme"):
        exercise(server, make_and_wait, asynchronous=asynchronous)
    assert server.requests[0].path.endswith(f"/extract/{kind}")
    assert [(*money(row)[:3], row.operation, row.tenant_id) for row in books.rows()] == [
        (0, 0, "exact", f"extract.{kind}", "acme"),
        (3, 3 * NANO_A_CREDIT, "exact", f"extract.{kind}", "acme"),
        (4, 4 * NANO_A_CREDIT, "exact", f"extract.{kind}", "acme"),
    ]
    (total,) = books.engine.journal.totals(())
    assert (total.calls, total.nano_usd) == (1, 7 * NANO_A_CREDIT)
    assert len(books.spans()) == 3


@BOTH
@pytest.mark.parametrize("kind", JOBS)
def test_a_job_is_on_the_account_of_whoever_created_it(
    books: Books, kind: str, asynchronous: bool
) -> None:
    make, _, ask, _ = JOBS[kind]
    with Loopback(working()) as server:
        with attribute(tenant="acme", user="u-1"):
            exercise(server, make, asynchronous=asynchronous)
        with attribute(tenant="operations"):
            for _ in range(3):
                exercise(server, ask, asynchronous=asynchronous)
    assert {row.tenant_id for row in books.rows()} == {"acme"}
    assert sum(row.nano_usd or 0 for row in books.rows()) == 7 * NANO_A_CREDIT
    assert sum(row.credits or 0 for row in books.rows()) == 7


@BOTH
@pytest.mark.parametrize("kind", JOBS)
def test_a_job_that_is_cancelled_has_cost_what_it_used(
    books: Books, kind: str, asynchronous: bool
) -> None:
    make, _, _, cancel = JOBS[kind]
    with Loopback(working()) as server:
        for do in (make, cancel):
            exercise(server, do, asynchronous=asynchronous)
    assert [row.nano_usd for row in books.rows()] == [0, 3 * NANO_A_CREDIT]
    (total,) = books.engine.journal.totals(())
    assert (total.calls, total.nano_usd) == (1, 3 * NANO_A_CREDIT)


@BOTH
@pytest.mark.parametrize("kind", JOBS)
def test_a_job_that_is_refused_costs_nothing(books: Books, kind: str, asynchronous: bool) -> None:
    make, _, _, _ = JOBS[kind]
    with (
        Loopback(lambda _: (402, {"error": "no credits left"})) as server,
        pytest.raises(scavio.InsufficientCreditsError),
    ):
        exercise(server, make, asynchronous=asynchronous)
    assert money(books.row()) == (None, 0, "exact", "error")


def test_attribution_and_key_stay_off_the_wire_and_the_spans(books: Books) -> None:
    token = context.attach(baggage.set_baggage("tenant.id", "acme-corp"))
    try:
        with Loopback(costing(1)) as server:
            exercise(server, lambda c: c.google.search("secret-query"), asynchronous=False)
    finally:
        context.detach(token)
    (request,) = server.requests
    assert "acme-corp" not in str(request.headers)
    span = books.span().to_json()
    assert "sk-secret" not in span
    assert "secret-query" not in span
    assert "acme-corp" in span


def test_credits_without_a_price_are_credits_and_no_cost(make_books: Callable[..., Books]) -> None:
    books = make_books()
    with Loopback(costing(3)) as server:
        exercise(server, lambda c: c.google.search("fish"), asynchronous=False)
    row = books.row()
    assert money(row) == (3, None, "unknown", "ok")
    assert row.unpriced_reason == "usd_per_credit"
