"""Every kind of call of the langchain-scavio tools: one charge each, here at 0.005 USD a credit."""

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import langchain_scavio as tools
import pytest
import requests
import scavio
from books import Books
from langchain_core.tools import BaseTool, ToolException
from langchain_scavio import _utilities as wrappers
from loopback import Answer, Arrived, Loopback
from opentelemetry import baggage, context, propagate
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scavio._spec import ENDPOINTS

from spanledger.api import BudgetExceeded, attribute, feature
from spanledger.api.settings import Section
from spanledger.cache import cache_control
from spanledger.cache.config import read_cache_config
from spanledger.cache.layer import DataLayer
from spanledger.cache.store import open_store
from spanledger.instrumentation import langchain_scavio as ours
from spanledger.instrumentation.shared import use_data_layer
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.ledger.journal_rows import Row
from spanledger.processor.span_processor import LedgerSpanProcessor

NANO_A_CREDIT = 5_000_000
BOTH = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def _instrumented() -> Iterator[None]:
    ours.LangchainScavioInstrumentor().instrument(skip_dep_check=True)
    yield
    ours.LangchainScavioInstrumentor().uninstrument()


def made(server: Loopback, kind: Any, **options: Any) -> Any:
    return kind(
        scavio_api_key="sk-secret", api_base_url=server.url, max_requests_per_second=50, **options
    )


def invoke(tool: BaseTool, *, asynchronous: bool, **asked: Any) -> Any:
    """As an agent uses a tool."""
    return asyncio.run(tool.ainvoke(asked)) if asynchronous else tool.invoke(asked)


def fetch(wrapper: Any, *, asynchronous: bool, **asked: Any) -> Any:
    """As a tool does, whose own methods make a text of every error."""
    if asynchronous:
        return asyncio.run(wrapper.raw_results_async(**asked))
    return wrapper.raw_results(**asked)


def costing(credits_used: int, **body: Any) -> Callable[[Arrived], Answer]:
    return lambda _: (
        200,
        {"data": {"products": [1]}, "credits_used": credits_used, "credits_remaining": 9, **body},
    )


def money(row: Row) -> tuple[Any, ...]:
    return (row.credits, row.nano_usd, row.cost_status, row.outcome)


@BOTH
@pytest.mark.parametrize(
    ("kind", "asked", "answer", "operation"),
    [
        (tools.ScavioAmazonSearch, {"query": "fish"}, {}, "amazon.search"),
        (tools.ScavioSearch, {"query": "fish"}, {"organic_results": [{}]}, "google.search"),
        (
            tools.ScavioSearch,
            {"query": "fish", "search_type": "news"},
            {"news_results": [{}]},
            "google.news",
        ),
        (tools.ScavioExtract, {"url": "https://fish.example"}, {}, "extract"),
    ],
    ids=["amazon", "google", "news", "extract"],
)
def test_credits_used_are_exact(
    books: Books,
    kind: type[BaseTool],
    asked: dict[str, str],
    answer: dict[str, Any],
    operation: str,
    asynchronous: bool,
) -> None:
    with (
        Loopback(costing(3, **answer)) as server,
        attribute(tenant="acme", user="u-1"),
        feature("prices"),
    ):
        result = invoke(made(server, kind), asynchronous=asynchronous, **asked)
    assert result["credits_used"] == 3
    row = books.row()
    assert money(row) == (3, 3 * NANO_A_CREDIT, "exact", "ok")
    assert (row.provider, row.operation, row.tenant_id, row.user_id, row.feature) == (
        "scavio",
        operation,
        "acme",
        "u-1",
        "prices",
    )
    span = books.span()
    assert span.attributes is not None
    assert span.attributes["spanledger.credits"] == 3
    assert span.attributes["server.address"] == "127.0.0.1"


def test_the_balance_is_noted(books: Books) -> None:
    seen: list[tuple[str, Any]] = []
    books.engine.gate._on_credits = lambda provider, balance: seen.append((provider, balance))
    with Loopback(costing(1)) as server:
        invoke(made(server, tools.ScavioAmazonSearch), asynchronous=False, query="fish")
    assert seen == [("scavio", 9)]


def _urls() -> Iterator[str]:
    """Of every endpoint that the package calls."""
    base = wrappers.ScavioBaseAPIWrapper
    for _, kind in inspect.getmembers(wrappers, inspect.isclass):
        if issubclass(kind, base) and kind is not base:
            wrapper = kind(scavio_api_key="sk-secret", api_base_url="https://gateway.example/s")
            if issubclass(kind, wrappers.ScavioSearchAPIWrapper):
                yield from map(wrapper._build_url, wrappers._V2_GOOGLE_PATHS)
            elif not issubclass(kind, wrappers._ScavioExtractJobAPIWrapper):
                yield wrapper._build_url()


def test_names_and_floors_are_the_sdks() -> None:
    endpoints: dict[str, dict[str, int]] = {}
    for endpoint in ENDPOINTS.values():
        if endpoint.namespace.startswith("_"):
            name = endpoint.key.replace("_", ".", 1)
        else:
            name = f"{endpoint.namespace}.{endpoint.method}"
        endpoints.setdefault(endpoint.path, {})[name] = endpoint.credits
    urls = set(_urls())
    assert len(urls) > 150
    for url in urls:
        request = ours._Calls().describe(None, (url, {}), {})
        assert request is not None
        assert request.known is not None
        same = endpoints[url.removeprefix("https://gateway.example/s")]
        assert request.operation in same
        assert request.known.credits == same[request.operation]


@BOTH
def test_an_answer_that_states_no_credits_is_estimated_at_the_floor(
    books: Books, asynchronous: bool
) -> None:
    with Loopback(lambda _: (200, {"data": {}})) as server:
        wrapper = made(server, wrappers.ScavioG2SearchAPIWrapper)
        assert fetch(wrapper, asynchronous=asynchronous, query="fish") == {"data": {}}
    assert money(books.row()) == (5, 5 * NANO_A_CREDIT, "estimated", "ok")


# -- errors ----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("status", [400, 401, 402, 422, 429])
def test_what_is_not_billed(books: Books, status: int, asynchronous: bool) -> None:
    with (
        Loopback(lambda _: (status, {"error": "no"})) as server,
        pytest.raises(ValueError, match="no"),
    ):
        wrapper = made(server, tools.ScavioAmazonSearch).api_wrapper
        fetch(wrapper, asynchronous=asynchronous, query="fish")
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome, row.error_type) == (
        0,
        "exact",
        "error",
        "ValueError",
    )


@BOTH
@pytest.mark.parametrize("status", [404, 500, 503])
def test_what_may_be_billed(books: Books, status: int, asynchronous: bool) -> None:
    with (
        Loopback(lambda _: (status, {"error": {"message": "no"}})) as server,
        pytest.raises(ValueError, match=f"^Error {status}: no$"),
    ):
        wrapper = made(server, wrappers.ScavioG2SearchAPIWrapper)
        fetch(wrapper, asynchronous=asynchronous, query="fish")
    assert money(books.row()) == (5, 5 * NANO_A_CREDIT, "estimated", "error")


@BOTH
def test_a_refused_connection_is_not_billed(books: Books, asynchronous: bool) -> None:
    with Loopback(costing(1)) as server:
        wrapper = made(server, wrappers.ScavioG2SearchAPIWrapper)  # closed: nobody listens there
    with pytest.raises((requests.ConnectionError, aiohttp.ClientConnectorError)):
        fetch(wrapper, asynchronous=asynchronous, query="fish")
    assert (books.row().nano_usd, books.row().cost_status) == (0, "exact")


@BOTH
def test_a_tool_that_makes_a_text_of_its_error_is_booked_all_the_same(
    books: Books, asynchronous: bool
) -> None:
    with Loopback(lambda _: (503, {"error": "down"})) as server:
        tool = made(server, tools.ScavioAmazonSearch)
        assert invoke(tool, asynchronous=asynchronous, query="fish") == {"error": "Error 503: down"}
    assert money(books.row()) == (1, NANO_A_CREDIT, "estimated", "error")


def test_a_tool_that_finds_nothing_has_paid_for_it(books: Books) -> None:
    with Loopback(costing(1, data={})) as server:
        tool = made(server, tools.ScavioAmazonSearch, handle_tool_error=False)
        with pytest.raises(ToolException, match="No Amazon results"):
            invoke(tool, asynchronous=False, query="fish")
    assert money(books.row()) == (1, NANO_A_CREDIT, "exact", "ok")


@pytest.mark.parametrize("status", [404, 429, 503])
def test_an_error_can_be_told_to_another_process(books: Books, status: int) -> None:
    with (
        Loopback(lambda _: (status, {"error": "no"})) as server,
        pytest.raises(ValueError, match="no") as raised,
    ):
        fetch(made(server, wrappers.ScavioG2SearchAPIWrapper), asynchronous=False, query="fish")
    detail = ours._Calls().error_detail(raised.value)
    assert detail == {"status": status, "text": str(raised.value)}
    told = ours._Calls().error_from(json.loads(json.dumps(detail)))
    assert type(told) is ValueError
    assert str(told) == str(raised.value)


def test_another_version_of_the_api_is_another_question() -> None:
    def content(version: int) -> object:
        url = f"https://api.scavio.dev/api/v{version}/google"
        request = ours._Calls().describe(None, (url, {"query": "fish"}), {})
        assert request is not None
        return request.content

    assert content(1) == content(1) != content(2)


def test_other_errors_are_nobody_elses() -> None:
    for error in (ValueError("of the user's own"), RuntimeError("Error 400: x"), OSError(5, "x")):
        assert ours._Calls().error_detail(error) is None
    assert ours._Calls().error_from(None) is None


@BOTH
def test_a_budgets_refusal_is_a_text_to_the_agent(
    make_books: Callable[..., Books], asynchronous: bool
) -> None:
    budget = {
        "scope": "global",
        "monthly_usd": 0.01,
        "tiers": {"warning": 0.5, "critical": 1.0, "hard": 1.0, "ceiling": 1.0},
    }
    books = make_books({"budgets": [budget]}, scavio="0.005")
    books.engine.watcher.look()
    with Loopback(costing(2)) as server:
        tool = made(server, tools.ScavioAmazonSearch)
        assert "error" not in invoke(tool, asynchronous=asynchronous, query="fish")
        assert "budget" in invoke(tool, asynchronous=asynchronous, query="fish")["error"]
        with pytest.raises(BudgetExceeded):
            fetch(tool.api_wrapper, asynchronous=asynchronous, query="fish")
    assert len(server.requests) == 1
    assert [row.outcome for row in books.rows()] == ["ok", "blocked", "blocked"]


# -- jobs ------------------------------------------------------------------------------------------


def crawling() -> Callable[[Arrived], Answer]:
    """A crawl whose credits arrive over three polls; the last two state the same."""
    used = iter([3, 7, 7])

    def answer(arrived: Arrived) -> Answer:
        if arrived.method == "POST":
            return 202, {"data": {"id": "job_1", "status": "queued"}, "credits_used": 1}
        now = next(used)
        status = "completed" if now == 7 else "running"
        return 200, {"data": {"id": "job_1", "status": status, "credits_used": now}}

    return answer


@BOTH
def test_a_crawl_is_one_call_whose_credits_arrive_while_polling(
    books: Books, asynchronous: bool
) -> None:
    with Loopback(crawling()) as server:
        wrapper = made(server, wrappers.ScavioExtractCrawlAPIWrapper)
        status = wrapper.status_async if asynchronous else wrapper.status
        start = wrapper.start_async if asynchronous else wrapper.start

        async def main() -> None:
            with attribute(tenant="acme"):
                if inspect.isawaitable(started := start(url="https://fish.example")):
                    await started
            with attribute(tenant="operations"):
                for _ in range(3):
                    if inspect.isawaitable(polled := status("job_1", limit=1)):
                        await polled

        asyncio.run(main())
    assert [(row.credits, row.operation, row.tenant_id) for row in books.rows()] == [
        (1, "extract.crawl", "acme"),
        (2, "extract.crawl", "acme"),
        (4, "extract.crawl", "acme"),
    ]
    (total,) = books.engine.journal.totals(())
    assert (total.calls, total.nano_usd) == (1, 7 * NANO_A_CREDIT)


# -- once, and only here ---------------------------------------------------------------------------


def test_a_call_inside_spans_of_other_instrumentations_is_booked_once(books: Books) -> None:
    """A tool's span around it, an HTTP client's span in it, and the processor that reads both."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.add_span_processor(LedgerSpanProcessor())
    use_tracer_provider(provider)
    RequestsInstrumentor().instrument(tracer_provider=provider)
    try:
        with (
            Loopback(costing(2)) as server,
            provider.get_tracer("openinference.instrumentation.langchain").start_as_current_span(
                "scavio_amazon_search", attributes={"openinference.span.kind": "TOOL"}
            ),
        ):
            invoke(made(server, tools.ScavioAmazonSearch), asynchronous=False, query="fish")
    finally:
        RequestsInstrumentor().uninstrument()
    assert money(books.row()) == (2, 2 * NANO_A_CREDIT, "exact", "ok")
    assert [span.name for span in exporter.get_finished_spans()] == [
        "POST",
        "amazon.search",
        "scavio_amazon_search",
    ]


class BySDK(wrappers.ScavioAmazonSearchAPIWrapper):
    """A wrapper that an application sends by Scavio's SDK, which is instrumented too."""

    def _post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._client(scavio.ScavioClient) as client:
            return client.amazon.search(**body)

    async def _post_async(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._client(scavio.AsyncScavioClient) as client:
            return await client.amazon.search(**body)

    def _client(self, kind: Any) -> Any:
        return kind(self.scavio_api_key.get_secret_value(), base_url=str(self.api_base_url))


@BOTH
def test_a_call_that_goes_through_the_sdk_is_booked_once(books: Books, asynchronous: bool) -> None:
    with Loopback(costing(2)) as server:
        wrapper = made(server, BySDK)
        tool = tools.ScavioAmazonSearch(api_wrapper=wrapper)
        assert invoke(tool, asynchronous=asynchronous, query="fish")["credits_used"] == 2
    assert len(server.requests) == 1
    assert money(books.row()) == (2, 2 * NANO_A_CREDIT, "exact", "ok")
    assert len(books.spans()) == 1


class Traced(wrappers.ScavioAmazonSearchAPIWrapper):
    """Sends the baggage along, as an instrumented HTTP client does."""

    def _build_headers(self) -> dict[str, str]:
        headers = super()._build_headers()
        propagate.inject(headers)
        return headers


@BOTH
def test_attribution_and_key_stay_off_the_wire_and_the_spans(
    books: Books, asynchronous: bool
) -> None:
    ctx = baggage.set_baggage("experiment", "b", baggage.set_baggage("tenant.id", "acme-corp"))
    token = context.attach(ctx)
    try:
        with Loopback(costing(1)) as server:
            fetch(made(server, Traced), asynchronous=asynchronous, query="secret-query")
    finally:
        context.detach(token)
    (request,) = server.requests
    assert request.headers["baggage"] == "experiment=b"
    assert "acme-corp" not in str(request)
    span = books.span().to_json()
    assert "sk-secret" not in span
    assert "secret-query" not in span
    assert "acme-corp" in span


@BOTH
def test_the_same_question_is_asked_once(books: Books, asynchronous: bool) -> None:
    rules = {"secret": "0123456789abcdef0123456789abcdef", "scavio/amazon.*": {"fresh": "15m"}}
    layer = DataLayer(read_cache_config(Section(rules, "test", "cache")), open_store(None))
    use_data_layer(layer)
    try:
        with Loopback(costing(2)) as server:
            tool = made(server, tools.ScavioAmazonSearch)
            results = [
                invoke(tool, asynchronous=asynchronous, query=query)
                for query in ("fish", "fish", "otter")
            ]
    finally:
        use_data_layer(None)
        layer.close()
    assert results[0] == results[1]
    assert [(row.outcome, row.nano_usd, row.saved_nano_usd) for row in books.rows()] == [
        ("ok", 2 * NANO_A_CREDIT, 0),
        ("cached", 0, 2 * NANO_A_CREDIT),
        ("ok", 2 * NANO_A_CREDIT, 0),
    ]


def test_without_the_instrumentation_nothing_is_booked(books: Books) -> None:
    ours.LangchainScavioInstrumentor().uninstrument()
    with Loopback(costing(1)) as server:
        invoke(made(server, tools.ScavioAmazonSearch), asynchronous=False, query="fish")
    assert not books.rows()


@pytest.mark.parametrize("status", [503, 429])
def test_what_is_stale_is_served_though_the_error_has_lost_its_status(
    books: Books, status: int
) -> None:
    rules = {"secret": "0" * 32, "scavio/*": {"fresh": "15m", "stale": "24h"}}
    layer = DataLayer(read_cache_config(Section(rules, "test", "cache")), open_store(None))
    use_data_layer(layer)
    answers = [(200, {"data": {"products": [1]}, "credits_used": 1}), (status, {"error": "down"})]
    try:
        with Loopback(lambda _: answers.pop(0)) as server:
            tool = tools.ScavioAmazonSearch(
                scavio_api_key="k", api_base_url=server.url, max_requests_per_second=50
            )
            with cache_control(ttl=0.01):
                tool.invoke({"query": "fish"})
            time.sleep(0.05)
            assert tool.invoke({"query": "fish"})["data"] == {"products": [1]}
    finally:
        use_data_layer(None)
        layer.close()
    assert [row.outcome for row in books.rows()] == ["ok", "error"]
