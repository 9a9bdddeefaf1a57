"""Every kind of Tavily call, with the real SDK: one charge each, here at 0.008 USD a credit."""

import asyncio
import inspect
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
import tavily
from books import Books
from loopback import Answer, Arrived, Loopback
from opentelemetry import baggage, context
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor

from spanledger.api import attribute, feature
from spanledger.api.settings import Section
from spanledger.cache.config import read_cache_config
from spanledger.cache.layer import DataLayer
from spanledger.cache.store import open_store
from spanledger.instrumentation import tavily as ours
from spanledger.instrumentation.shared import use_data_layer
from spanledger.ledger.journal_rows import Row

NANO_A_CREDIT = 8_000_000
Do = Callable[[Any], Any]
BOTH = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def _instrumented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    ours.TavilyInstrumentor().instrument(skip_dep_check=True)
    yield
    ours.TavilyInstrumentor().uninstrument()


@pytest.fixture
def books(make_books: Callable[..., Books]) -> Books:
    return make_books(tavily="0.008")


def exercise(server: Loopback, do: Do, *, asynchronous: bool, **options: Any) -> Any:
    """`do` with a client of either kind."""
    options = {"api_key": "tvly-secret", "api_base_url": server.url, **options}
    if not asynchronous:
        with ExitStack() as stack:
            return do(stack.enter_context(tavily.TavilyClient(**options)))

    async def main() -> Any:
        async with AsyncExitStack() as stack:
            result = do(await stack.enter_async_context(tavily.AsyncTavilyClient(**options)))
            return await result if inspect.isawaitable(result) else result

    return asyncio.run(main())


def saying(**body: Any) -> Callable[[Arrived], Answer]:
    return lambda _: (200, {"request_id": "r-1", "results": [], "response_time": 0.1, **body})


def pages(number: int) -> list[dict[str, str]]:
    return [{"url": f"https://fish.example/{n}", "raw_content": "fish"} for n in range(number)]


def money(row: Row) -> tuple[Any, ...]:
    return (row.credits, row.nano_usd, row.cost_status, row.outcome)


@BOTH
@pytest.mark.parametrize(
    ("do", "operation"),
    [
        (lambda c: c.search("fish", include_usage=True), "search"),
        (lambda c: c.extract("https://fish.example", include_usage=True), "extract"),
        (lambda c: c.map("fish.example", include_usage=True), "map"),
        (lambda c: c.crawl("fish.example", include_usage=True), "crawl"),
    ],
    ids=["search", "extract", "map", "crawl"],
)
def test_credits_that_tavily_states_are_exact(
    books: Books, do: Do, operation: str, asynchronous: bool
) -> None:
    with (
        Loopback(saying(usage={"credits": 7})) as server,
        attribute(tenant="acme", user="u-1"),
        feature("prices"),
    ):
        assert exercise(server, do, asynchronous=asynchronous)["usage"] == {"credits": 7}
    row = books.row()
    assert money(row) == (7, 7 * NANO_A_CREDIT, "exact", "ok")
    assert (row.provider, row.operation, row.tenant_id, row.user_id, row.feature) == (
        "tavily",
        operation,
        "acme",
        "u-1",
        "prices",
    )
    span = books.span()
    assert span.attributes is not None
    assert span.attributes["spanledger.credits"] == 7
    assert span.attributes["gen_ai.response.id"] == "r-1"
    assert span.attributes["server.address"] == "127.0.0.1"


@BOTH
@pytest.mark.parametrize(
    ("do", "answer", "credits"),
    [
        (lambda c: c.search("fish"), {}, "1"),
        (lambda c: c.search("fish", search_depth="ultra-fast"), {}, "1"),
        (lambda c: c.search("fish", search_depth="advanced"), {}, "2"),
        (lambda c: c.search("fish", "advanced"), {}, "2"),
        (lambda c: c.search("fish", auto_parameters=True), {}, "2"),
        (
            lambda c: c.search("fish", auto_parameters=True),
            {"auto_parameters": {"search_depth": "basic"}},
            "1",
        ),
        (
            lambda c: c.search("fish", search_depth="basic", auto_parameters=True),
            {"auto_parameters": {"search_depth": "advanced"}},
            "1",
        ),
        (
            lambda c: c.extract(["a.example"] * 5),
            {"results": pages(3), "failed_results": pages(2)},
            "0.6",
        ),
        (lambda c: c.extract("a.example", None, "advanced"), {"results": pages(1)}, "0.4"),
        (lambda c: c.extract("a.example"), {"results": []}, "0"),
        (lambda c: c.map("a.example"), {"results": ["a", "b", "c"]}, "0.3"),
        (lambda c: c.map("a.example", instructions="fish"), {"results": ["a"] * 20}, "4"),
        # The two examples of Tavily's documentation.
        (lambda c: c.crawl("a.example"), {"results": pages(10)}, "3"),
        (lambda c: c.crawl("a.example", extract_depth="advanced"), {"results": pages(10)}, "5"),
    ],
)
def test_what_tavily_does_not_state_is_estimated_by_its_documented_price(
    books: Books, do: Do, answer: dict[str, Any], credits: str, asynchronous: bool
) -> None:
    with Loopback(saying(**answer)) as server:
        exercise(server, do, asynchronous=asynchronous)
    used = Decimal(credits)
    assert money(books.row()) == (used, int(used * NANO_A_CREDIT), "estimated", "ok")


@BOTH
def test_credits_of_zero_that_tavily_states_are_exact_too(books: Books, asynchronous: bool) -> None:
    with Loopback(saying(results=pages(3), usage={"credits": 0})) as server:
        exercise(
            server,
            lambda c: c.extract(["a.example"] * 3, include_usage=True),
            asynchronous=asynchronous,
        )
    assert money(books.row()) == (0, 0, "exact", "ok")


@BOTH
def test_other_ways_to_search_are_one_call_for_each_that_is_sent(
    books: Books, asynchronous: bool, recwarn: pytest.WarningsRecorder
) -> None:
    with Loopback(saying(answer="fish")) as server:
        assert exercise(server, lambda c: c.qna_search("fish"), asynchronous=asynchronous) == "fish"
    assert money(books.row()) == (2, 2 * NANO_A_CREDIT, "estimated", "ok")


def test_company_info_is_three_searches(books: Books) -> None:
    with Loopback(saying()) as server, attribute(tenant="acme"):
        exercise(server, lambda c: c.get_company_info("fish"), asynchronous=True)
    assert [(row.credits, row.tenant_id) for row in books.rows()] == [(2, "acme")] * 3


# -- what is free ----------------------------------------------------------------------------------


@BOTH
def test_without_a_key_calls_are_free(books: Books, asynchronous: bool) -> None:
    with Loopback(saying()) as server:
        exercise(server, lambda c: c.search("fish"), asynchronous=asynchronous, api_key=None)
        with pytest.raises(tavily.KeylessUnsupportedEndpointError):
            exercise(server, lambda c: c.research("fish"), asynchronous=asynchronous, api_key=None)
    assert len(server.requests) == 1
    assert not books.rows()
    assert not books.spans()


@BOTH
def test_feedback_is_free(books: Books, asynchronous: bool) -> None:
    with Loopback(lambda _: (200, {"success": True})) as server:
        do: Do = lambda c: c.feedback(request_id="r-1", agent_score=1)  # noqa: E731
        assert exercise(server, do, asynchronous=asynchronous) == {"success": True}
    assert not books.rows()


@pytest.mark.parametrize("client", [tavily.TavilyClient, tavily.AsyncTavilyClient])
def test_every_method_that_sends_something_is_patched(client: type) -> None:
    """The SDK has no one place that all calls pass: a release may add a method that sends."""
    sends = re.compile(r"(session|_client)\.(get|post|put|patch|delete|request|send|stream)\(")
    sending = {
        name
        for name, function in inspect.getmembers(client, inspect.isfunction)
        if sends.search(inspect.getsource(inspect.unwrap(function)))
    }
    patched = {sdk.method for sdk in ours._PATCHES}
    assert sending - {"_research"} == patched - {"research"}  # `research` is all that calls it


def test_both_clients_take_the_same_parameters() -> None:
    for sdk in ours._PATCHES:
        first, second = (
            list(inspect.signature(getattr(client, sdk.method)).parameters)
            for client in (tavily.TavilyClient, tavily.AsyncTavilyClient)
        )
        assert first == second


# -- errors ----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "BadRequestError"),
        (401, "InvalidAPIKeyError"),
        (403, "ForbiddenError"),
        (432, "ForbiddenError"),
        (429, "UsageLimitExceededError"),
        (404, None),
    ],
)
def test_what_is_not_billed(
    books: Books, status: int, error: str | None, asynchronous: bool
) -> None:
    if error is None:
        error = "HTTPStatusError" if asynchronous else "HTTPError"
    with (
        Loopback(lambda _: (status, {"detail": {"error": "no"}})) as server,
        pytest.raises(Exception) as raised,
    ):
        exercise(server, lambda c: c.search("fish"), asynchronous=asynchronous)
    assert type(raised.value).__name__ == error
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome, row.error_type) == (
        0,
        "exact",
        "error",
        error,
    )


@BOTH
def test_a_server_error_may_be_billed(books: Books, asynchronous: bool) -> None:
    with (
        Loopback(lambda _: (500, {})) as server,
        pytest.raises((requests.HTTPError, httpx.HTTPStatusError)),
    ):
        exercise(server, lambda c: c.extract(["a.example"] * 10), asynchronous=asynchronous)
    assert money(books.row()) == (2, 2 * NANO_A_CREDIT, "estimated", "error")


@BOTH
@pytest.mark.parametrize(
    ("do", "credits"),
    [
        (lambda c: c.search("fish", timeout=0.05), "1"),
        (lambda c: c.crawl("a.example", limit=20, timeout=0.05), "6"),
        (lambda c: c.map("a.example", timeout=0.05), "5"),
    ],
    ids=["search", "crawl", "map"],
)
def test_a_timeout_may_be_billed_at_the_most_that_it_can_cost(
    books: Books, do: Do, credits: str, asynchronous: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes what is sent, and says nothing
        server: Any = SimpleNamespace(url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(Exception, match="timed out after 0.05"):
            exercise(server, do, asynchronous=asynchronous)
    used = Decimal(credits)
    assert money(books.row()) == (used, int(used * NANO_A_CREDIT), "estimated", "error")


@BOTH
def test_a_refused_connection_is_not_billed(books: Books, asynchronous: bool) -> None:
    with Loopback(saying()) as server:
        pass  # closed: nobody listens there now
    with pytest.raises((requests.ConnectionError, httpx.ConnectError)):
        exercise(server, lambda c: c.search("fish"), asynchronous=asynchronous)
    assert (books.row().nano_usd, books.row().cost_status) == (0, "exact")


class _Unreachable(requests.adapters.HTTPAdapter):
    """In place of a host that drops packets, which a test machine does not have."""

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        raise requests.ConnectTimeout


def test_a_connection_that_times_out_is_not_billed(books: Books) -> None:
    session = requests.Session()
    session.mount("http://", _Unreachable())
    with pytest.raises(Exception, match="timed out"):
        tavily.TavilyClient("tvly-secret", api_base_url="http://a", session=session).search("fish")

    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("dropped")

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(unreachable)) as http:
            client = tavily.AsyncTavilyClient("tvly-secret", api_base_url="http://a", client=http)
            await client.search("fish")

    with pytest.raises(Exception, match="timed out"):
        asyncio.run(main())
    assert [(row.nano_usd, row.cost_status) for row in books.rows()] == [(0, "exact")] * 2


@BOTH
@pytest.mark.parametrize("status", [400, 401, 403, 429, 503])
def test_an_error_can_be_told_to_another_process(
    books: Books, status: int, asynchronous: bool
) -> None:
    with (
        Loopback(lambda _: (status, {"detail": {"error": "no fish"}})) as server,
        pytest.raises(Exception) as raised,
    ):
        exercise(server, lambda c: c.search("fish"), asynchronous=asynchronous)
    sdk = ours._PATCHES[0]
    told = sdk.error_from(json.loads(json.dumps(sdk.error_detail(raised.value))))
    assert type(told) is type(raised.value)
    assert str(told) == str(raised.value)
    if status == 503:
        assert told.response.status_code == 503  # type: ignore[union-attr]
    assert sdk.error_from(sdk.error_detail(ValueError("of the user's own"))) is None


# -- research --------------------------------------------------------------------------------------


def researching(arrived: Arrived) -> Answer:
    """A research that is done when it is asked for; it states its credits to whom asks."""
    if arrived.method == "POST":
        return 200, {"request_id": "job-1", "status": "pending", "model": "mini"}
    usage = {"usage": {"credits": 37}} if "include_usage=true" in arrived.path else {}
    return 200, {"request_id": "job-1", "status": "completed", "content": "fish", **usage}


@BOTH
def test_a_research_is_one_call_whose_credits_arrive_with_its_result(
    books: Books, asynchronous: bool
) -> None:
    with Loopback(researching) as server:
        with attribute(tenant="acme"):
            exercise(server, lambda c: c.research("fish", "mini"), asynchronous=asynchronous)
        with attribute(tenant="operations"):
            for usage in (None, True, True):
                exercise(
                    server,
                    lambda c, usage=usage: c.get_research("job-1", include_usage=usage),
                    asynchronous=asynchronous,
                )
    assert [(row.tenant_id, *money(row)) for row in books.rows()] == [
        ("acme", 4, 4 * NANO_A_CREDIT, "estimated", "ok"),
        ("acme", 33, 33 * NANO_A_CREDIT, "exact", "ok"),
    ]
    (total,) = books.engine.journal.totals(())
    assert (total.calls, total.nano_usd) == (1, 37 * NANO_A_CREDIT)
    assert len(books.spans()) == 2


def streaming(_: Arrived) -> Answer:
    return 200, b"data: fi\n\ndata: sh\n\n"


async def _read(client: Any) -> bytes:
    return b"".join([chunk async for chunk in await client.research("x", model="pro", stream=True)])


@BOTH
def test_a_streamed_research_arrives_and_is_estimated(books: Books, asynchronous: bool) -> None:
    do: Do = _read if asynchronous else lambda c: b"".join(c.research("x", "pro", None, True))
    with Loopback(streaming) as server:
        assert exercise(server, do, asynchronous=asynchronous) == b"data: fi\n\ndata: sh\n\n"
    assert money(books.row()) == (15, 15 * NANO_A_CREDIT, "estimated", "ok")


# -- what travels, and what is shared --------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "do",
    [
        lambda c: c.search("secret-query"),
        lambda c: c.feedback(request_id="r-1"),
        lambda c: c.get_research("r-1"),
        lambda c: c.research("secret-query"),
        "stream",
    ],
    ids=["search", "feedback", "get_research", "research", "stream"],
)
def test_attribution_stays_off_the_wire(books: Books, do: Any, asynchronous: bool) -> None:
    if do == "stream":
        do = _read if asynchronous else lambda c: list(c.research("x", stream=True))
    clients = (RequestsInstrumentor(), HTTPXClientInstrumentor())  # they send the baggage along
    for client in clients:
        client.instrument()
    ctx = baggage.set_baggage("experiment", "b", baggage.set_baggage("tenant.id", "acme-corp"))
    token = context.attach(ctx)
    try:
        with Loopback(saying()) as server:
            exercise(server, do, asynchronous=asynchronous)
    finally:
        context.detach(token)
        for client in clients:
            client.uninstrument()
    (request,) = server.requests
    assert request.headers["baggage"] == "experiment=b"
    assert "acme-corp" not in str(request)


def test_keys_and_queries_stay_off_the_spans(books: Books) -> None:
    with Loopback(saying()) as server, attribute(tenant="acme-corp"):
        exercise(server, lambda c: c.search("secret-query"), asynchronous=False)
    span = books.span().to_json()
    assert "tvly-secret" not in span
    assert "secret-query" not in span
    assert "acme-corp" in span


@pytest.fixture
def _cached() -> Iterator[None]:
    rules = {"secret": "0123456789abcdef0123456789abcdef", "tavily/*": {"fresh": "15m"}}
    layer = DataLayer(read_cache_config(Section(rules, "test", "cache")), open_store(None))
    use_data_layer(layer)
    yield
    use_data_layer(None)
    layer.close()


@BOTH
@pytest.mark.usefixtures("_cached")
def test_the_same_question_is_asked_once(books: Books, asynchronous: bool) -> None:
    with Loopback(saying(results=pages(1), usage={"credits": 1})) as server:
        for do in (
            lambda c: c.search("fish", max_results=3, project_id="a"),
            lambda c: c.search(query="fish", max_results=3, topic=None, session_id="s-1"),
            lambda c: c.search("fish", "advanced", max_results=3),  # another one
            lambda c: c.extract("fish"),  # and another
            lambda c: c.research("fish"),  # a job each time
            lambda c: c.research("fish"),
        ):
            exercise(server, do, asynchronous=asynchronous)
    assert [(row.operation, row.outcome, row.saved_nano_usd) for row in books.rows()] == [
        ("search", "ok", 0),
        ("search", "cached", NANO_A_CREDIT),
        ("search", "ok", 0),
        ("extract", "ok", 0),
        ("research", "ok", 0),
        ("research", "ok", 0),
    ]


def test_without_the_instrumentation_nothing_is_booked(books: Books) -> None:
    ours.TavilyInstrumentor().uninstrument()

    async def whose(client: Any) -> str:
        stream = await client.research("x", stream=True)
        await anext(stream)
        await stream.aclose()
        return str(stream.ag_code.co_filename)

    with Loopback(streaming) as server:
        exercise(server, lambda c: list(c.research("x", stream=True)), asynchronous=False)
        assert exercise(server, whose, asynchronous=True).endswith("async_tavily.py")
    assert not books.rows()
