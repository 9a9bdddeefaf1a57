"""Budgets in the path of real calls: cheaper model, stale result, refusal, and what the books say."""

import asyncio
import json
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
import scavio
from anthropic_endpoint import CALL, AnthropicEndpoint
from books import Books
from loopback import Loopback
from openai_endpoint import CHAT_NANO_USD, MESSAGES, Endpoint, chat, chunks, sse, streaming

from spanledger.api import BudgetExceeded, BudgetThrottled, attribute
from spanledger.api.settings import Section
from spanledger.cache import cache_control
from spanledger.cache.config import read_cache_config
from spanledger.cache.layer import DataLayer
from spanledger.cache.store import open_store
from spanledger.instrumentation.shared import use_data_layer

Make = Callable[[str], Books]
# 4,000 bytes are taken for 1,000 tokens: the estimate is what the calls cost.
GPT5 = {"messages": [{"role": "user", "content": "x" * 4000}], "model": "gpt-5"}
# gpt-5: 1.25 in, 10 out; gpt-5-mini: 0.25 in, 2 out (USD per million).
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
DEAR, CHEAP = 1000 * 1250 + 100 * 10_000, 1000 * 250 + 100 * 2000


@pytest.fixture
def budgeted(make_books: Callable[..., Books]) -> Make:
    def make(toml: str) -> Books:
        books = make_books(tomllib.loads(toml), scavio="0.005")
        books.engine.watcher.look()
        return books

    return make


def echoing(**more: Any) -> Endpoint:
    """Answers with whatever model was asked, as a provider does."""
    return Endpoint(
        lambda request: httpx2.Response(
            200, json=chat(USAGE, model=json.loads(request.content)["model"], **more)
        )
    )


TIGHT = """
[[budgets]]
scope = "tenant:*"
monthly_usd = 0.005
tiers = { warning = 0.5, critical = 1.0, hard = 1.0, ceiling = 1.4 }
degrade = ["stale_cache", "cheaper_model"]
[models.cheaper]
"openai/gpt-5" = { model = "gpt-5-mini", unset = ["temperature"] }
"""


@pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
def test_at_the_limit_the_cheaper_model_and_then_refusal(budgeted: Make, kind: type) -> None:
    books, endpoint = budgeted(TIGHT), echoing()
    client = endpoint.client(kind)

    def ask() -> Any:
        with attribute(tenant="acme"):
            result = client.chat.completions.create(**GPT5, max_tokens=100, temperature=0.3)
            return asyncio.run(_wait(result)) if kind is openai.AsyncOpenAI else result

    async def _wait(result: Any) -> Any:
        return await result

    served = []
    with pytest.raises(BudgetExceeded) as caught:
        for _ in range(20):
            served.append(ask().model)
    assert served[0] == "gpt-5"
    assert "gpt-5-mini" in served
    assert served == sorted(served)
    body = endpoint.body
    assert (body["model"], "temperature" in body) == ("gpt-5-mini", False)
    assert caught.value.scope == "tenant:acme"
    rows = books.rows()
    assert [row.outcome for row in rows][-1] == "blocked"
    cheap = [row for row in rows if row.outcome == "degraded"]
    assert {
        (row.model_requested, row.model, row.nano_usd, row.saved_nano_usd) for row in cheap
    } == {("gpt-5", "gpt-5-mini", CHEAP, DEAR - CHEAP)}
    assert books.engine.journal.saved() == {"cheaper_model": len(cheap) * (DEAR - CHEAP)}
    assert sum(row.nano_usd or 0 for row in rows) <= 1.4 * 0.005 * 10**9
    span = next(
        s for s in books.spans() if s.attributes and s.attributes.get("spanledger.degraded")
    )
    assert span.attributes is not None
    assert span.attributes["spanledger.degraded"] == "cheaper_model"
    assert (span.attributes["gen_ai.request.model"], span.attributes["gen_ai.response.model"]) == (
        "gpt-5",
        "gpt-5-mini",
    )
    with attribute(tenant="globex"):  # a budget of its own
        result = client.chat.completions.create(**GPT5, max_tokens=100)
        if kind is openai.AsyncOpenAI:
            asyncio.run(_wait(result))


def test_a_cheaper_model_that_is_rejected_is_the_budgets_error(budgeted: Make) -> None:
    budgeted(TIGHT)

    def answer(request: httpx2.Request) -> httpx2.Response:
        model = json.loads(request.content)["model"]
        if model == "gpt-5-mini":
            return httpx2.Response(400, json={"error": {"message": "unsupported"}})
        return httpx2.Response(200, json=chat(USAGE, model=model))

    endpoint = Endpoint(answer)
    client = endpoint.client()
    with attribute(tenant="acme"), pytest.raises(BudgetExceeded) as caught:
        for _ in range(20):
            client.chat.completions.create(**GPT5, max_tokens=100)
    assert isinstance(caught.value.__context__, openai.BadRequestError)
    asked = [json.loads(request.content)["model"] for request in endpoint.requests]
    assert asked.count("gpt-5-mini") == 1
    assert asked[-1] == "gpt-5-mini"


def test_a_degraded_stream(budgeted: Make) -> None:
    books = budgeted(TIGHT)

    def answer(request: httpx2.Request) -> httpx2.Response:
        pieces = sse(chunks(3, usage=USAGE, model=json.loads(request.content)["model"]))
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, content=b"".join(pieces)
        )

    client = Endpoint(answer).client()
    with attribute(tenant="acme"), pytest.raises(BudgetExceeded):
        for _ in range(20):
            assert (
                len(list(client.chat.completions.create(**GPT5, max_tokens=100, stream=True))) == 3
            )
    assert {row.outcome for row in books.rows()} == {"ok", "degraded", "blocked"}


def test_anthropic_is_degraded_too(budgeted: Make) -> None:
    books = budgeted(
        """
        [[budgets]]
        scope = "global"
        daily_usd = 0.03
        tiers = { warning = 0.5, critical = 1.0, hard = 1.0, ceiling = 2.0 }
        degrade = ["cheaper_model"]
        [models.cheaper]
        "anthropic/claude-sonnet-4-6" = { model = "claude-haiku-4-5" }
        """
    )
    endpoint = AnthropicEndpoint()
    client = endpoint.client()
    with pytest.raises(BudgetExceeded):
        for _ in range(20):
            client.messages.create(**CALL)
    assert "claude-haiku-4-5" in {json.loads(r.content)["model"] for r in endpoint.requests}
    assert books.rows()[-1].outcome == "blocked"
    assert isinstance(client, anthropic.Anthropic)


def test_observe_only_refuses_nothing(budgeted: Make) -> None:
    books = budgeted('[[budgets]]\nscope = "global"\ndaily_usd = 0.000001\nexhausted = "allow"\n')
    client = streaming().client()
    for _ in range(3):
        list(client.chat.completions.create(messages=MESSAGES, model="gpt-4o-mini", stream=True))
    assert [row.nano_usd for row in books.rows()] == [CHAT_NANO_USD] * 3


def test_critical_paces_and_then_throttles(budgeted: Make) -> None:
    books = budgeted(
        """
        [[budgets]]
        scope = "global"
        daily_usd = 0.02
        tiers = { warning = 0.1, critical = 0.2, hard = 1.0, ceiling = 1.0 }
        max_wait = "0s"
        """
    )
    client = echoing().client()
    with pytest.raises(BudgetThrottled) as caught:
        for _ in range(20):
            client.chat.completions.create(**GPT5, max_tokens=100)
    assert caught.value.retry_after > 0
    assert (books.rows()[-1].outcome, books.rows()[-1].nano_usd) == ("throttled", 0)


@pytest.fixture
def layer() -> Iterator[DataLayer]:
    rules = {"secret": "0" * 32, "scavio/*": {"fresh": "15m", "stale": "24h"}}
    layer = DataLayer(read_cache_config(Section(rules, "test", "cache")), open_store(None))
    use_data_layer(layer)
    yield layer
    use_data_layer(None)
    layer.close()


def test_at_the_limit_a_stale_result_before_any_refusal(budgeted: Make, layer: DataLayer) -> None:
    books = budgeted(
        """
        [[budgets]]
        scope = "global"
        daily_usd = 0.011
        tiers = { warning = 0.5, critical = 1.0, hard = 1.0, ceiling = 1.0 }
        degrade = ["stale_cache"]
        """
    )
    with Loopback(lambda _: (200, {"organic_results": ["x"], "credits_used": 1})) as server:
        client = scavio.ScavioClient(
            api_key="k", base_url=server.url, max_requests_per_second=50, max_retries=0
        )
        with cache_control(ttl=0.01):
            client.google.search("fish")
        client.google.search("chips")
        time.sleep(0.05)
        assert client.google.search("fish")["organic_results"] == [
            "x"
        ]  # the third credit does not fit
        with pytest.raises(BudgetExceeded):
            client.google.search("vinegar")
        assert client.google.search("chips")  # fresh: a hit is never refused
    assert len(server.requests) == 2
    assert [(row.outcome, row.nano_usd) for row in books.rows()] == [
        ("ok", 5_000_000),
        ("ok", 5_000_000),
        ("degraded", 0),
        ("blocked", 0),
        ("cached", 0),
    ]
    assert books.rows()[2].saved_nano_usd == 5_000_000
    told = [
        span.attributes and span.attributes.get("spanledger.degraded") for span in books.spans()
    ]
    assert told == [None, None, "stale_cache", None, None]
    assert books.engine.journal.saved() == {"cached": 5_000_000, "stale": 5_000_000}


def test_many_threads_do_not_pass_the_ceiling(budgeted: Make) -> None:
    from concurrent.futures import ThreadPoolExecutor

    books = budgeted(
        '[[budgets]]\nscope = "global"\ndaily_usd = 0.05\n'
        "tiers = { warning = 0.5, critical = 1.0, hard = 1.0, ceiling = 1.0 }\n"
    )
    client = echoing().client()

    def ask(_: int) -> str:
        try:
            return str(client.chat.completions.create(**GPT5, max_tokens=100).model)
        except BudgetExceeded:
            return "refused"

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(100)))
    spent = sum(row.nano_usd or 0 for row in books.rows())
    assert 0.8 * 0.05 * 10**9 <= spent <= 0.05 * 10**9
    assert answers.count("gpt-5") * DEAR == spent
