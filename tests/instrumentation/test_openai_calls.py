"""Every kind of OpenAI call that is no stream: one charge each, to the nano-dollar."""

import asyncio
import inspect
import io
from collections.abc import Callable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx2
import openai
import pytest
from books import Books
from openai_endpoint import (
    CHAT_NANO_USD,
    CHAT_USAGE,
    MESSAGES,
    RESPONSE_USAGE,
    Endpoint,
    answering,
    chat,
    response,
)
from pydantic import BaseModel

from spanledger.api import attribute, feature

Model = {"model": "gpt-4o-mini"}
CHAT = {"messages": MESSAGES, **Model}


class Answer(BaseModel):
    price: float


class Case(NamedTuple):
    """A call and what it costs. nano_usd: None where no price is known."""

    name: str
    method: str
    arguments: dict[str, Any]
    body: Any
    nano_usd: int | None
    status: str = "exact"
    row: Mapping[str, Any] = MappingProxyType({})


def usage(prompt: int, completion: int, **details: dict[str, int]) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
    }


IMAGE_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"image_tokens": 20, "text_tokens": 30},
    "output_tokens": 1000,
    "total_tokens": 1050,
}
JSON_ANSWER = chat()
JSON_ANSWER["choices"][0]["message"]["content"] = '{"price": 3.5}'
AUDIO = {"file": ("speech.wav", io.BytesIO(b"RIFF"), "audio/wav")}

CASES = [
    Case(
        "chat",
        "chat.completions.create",
        CHAT,
        chat(),
        CHAT_NANO_USD,
        row={"input_tokens": 1200, "cache_read_tokens": 200},
    ),
    Case(
        "parse",
        "chat.completions.parse",
        {**CHAT, "response_format": Answer},
        JSON_ANSWER,
        CHAT_NANO_USD,
    ),
    Case(
        "n=3",
        "chat.completions.create",
        {**CHAT, "n": 3},
        chat(usage(10, 300)),
        10 * 150 + 300 * 600,
    ),
    # o4-mini: 1.10 in, 4.40 out; reasoning is part of the output and costs no more.
    Case(
        "reasoning",
        "chat.completions.create",
        {"messages": MESSAGES, "model": "o4-mini"},
        chat(usage(100, 500, completion_tokens_details={"reasoning_tokens": 448}), model="o4-mini"),
        100 * 1100 + 500 * 4400,
        row={"reasoning_tokens": 448},
    ),
    # gpt-5 at flex: 0.625 in, 0.0625 cached, 5.00 out.
    Case(
        "flex",
        "chat.completions.create",
        {"messages": MESSAGES, "model": "gpt-5", "service_tier": "flex"},
        chat(CHAT_USAGE, model="gpt-5", service_tier="flex"),
        1000 * 625 + (200 * 625) // 10 + 150 * 5000,
    ),
    # The list has no price for this model's audio tokens: its text price is a guess, and said to be one.
    Case(
        "audio",
        "chat.completions.create",
        {"messages": MESSAGES, "model": "gpt-4o-audio-preview"},
        chat(
            usage(100, 20, prompt_tokens_details={"audio_tokens": 60}), model="gpt-4o-audio-preview"
        ),
        100 * 2500 + 20 * 10000,
        "estimated",
    ),
    # gpt-5: 1.25 in, 0.125 cached, 10.00 out.
    Case(
        "responses",
        "responses.create",
        {"input": "How much?", "model": "gpt-5"},
        response("gpt-5", RESPONSE_USAGE),
        300 * 1250 + 100 * 125 + 90 * 10000,
        row={"reasoning_tokens": 64, "model": "gpt-5"},
    ),
    Case(
        "responses parse",
        "responses.parse",
        {"input": "How much?", "model": "gpt-5", "text_format": Answer},
        response("gpt-5", RESPONSE_USAGE),
        300 * 1250 + 100 * 125 + 90 * 10000,
    ),
    # 10 USD for a thousand searches.
    Case(
        "web search",
        "responses.create",
        {"input": "How much?", "model": "gpt-5", "tools": [{"type": "web_search"}]},
        response("gpt-5", RESPONSE_USAGE, tool_usage={"web_search": {"num_requests": 3}}),
        300 * 1250 + 100 * 125 + 90 * 10000 + 3 * 10_000_000,
    ),
    Case(
        "background response",
        "responses.create",
        {"input": "How much?", "model": "gpt-5", "background": True},
        response("gpt-5", None, status="queued"),
        None,
        "unknown",
    ),
    Case(
        "embeddings",
        "embeddings.create",
        {"input": "fish", "model": "text-embedding-3-small"},
        {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
            "usage": {"prompt_tokens": 700, "total_tokens": 700},
        },
        700 * 20,
    ),
    # gpt-image-1: 5 text in, 10 image in, 40 image out.
    Case(
        "image",
        "images.generate",
        {"prompt": "a fish", "model": "gpt-image-1"},
        {"created": 1, "data": [{"b64_json": ""}], "usage": IMAGE_USAGE},
        30 * 5000 + 20 * 10000 + 1000 * 40000,
    ),
    Case(
        "dall-e",
        "images.generate",
        {"prompt": "a fish", "model": "dall-e-3"},
        {"created": 1, "data": [{"url": "u"}]},
        None,
        "unknown",
    ),
    # gpt-4o-transcribe: 2.50 text in, 6.00 audio in, 10.00 out.
    Case(
        "transcription by tokens",
        "audio.transcriptions.create",
        {**AUDIO, "model": "gpt-4o-transcribe"},
        {
            "text": "fish",
            "usage": {
                "type": "tokens",
                "input_tokens": 140,
                "input_token_details": {"text_tokens": 40, "audio_tokens": 100},
                "output_tokens": 10,
                "total_tokens": 150,
            },
        },
        40 * 2500 + 100 * 6000 + 10 * 10000,
    ),
    # whisper-1: 0.36 USD an hour, 0.0001 a second.
    Case(
        "transcription by seconds",
        "audio.transcriptions.create",
        {**AUDIO, "model": "whisper-1"},
        {"text": "fish", "usage": {"type": "duration", "seconds": 90}},
        90 * 100_000,
    ),
    # tts-1: 15 USD a million characters; the answer is sound and states nothing.
    Case(
        "speech",
        "audio.speech.create",
        {"input": "fish" * 25, "model": "tts-1", "voice": "alloy"},
        b"ID3",
        100 * 15_000,
    ),
    Case(
        "completion",
        "completions.create",
        {"prompt": "fish", "model": "gpt-3.5-turbo-instruct"},
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": "gpt-3.5-turbo-instruct",
            "choices": [],
            "usage": usage(100, 10),
        },
        100 * 1500 + 10 * 2000,
    ),
]


def endpoint_for(body: Any) -> Endpoint:
    if isinstance(body, bytes):
        return Endpoint(
            lambda _: httpx2.Response(200, content=body, headers={"content-type": "audio/mpeg"})
        )
    return answering(body)


def outcome(result: Any) -> Any:
    """The end of a call of a synchronous or an asynchronous client."""
    if not inspect.isawaitable(result):
        return result

    async def wait() -> Any:
        return await result

    return asyncio.run(wait())


def call(client: Any, method: str, arguments: dict[str, Any]) -> Any:
    """Call a method of a synchronous or an asynchronous client."""
    return outcome(attrgetter(method)(client)(**arguments))


KINDS = pytest.mark.parametrize("kind", [openai.OpenAI, openai.AsyncOpenAI])
AZURE = pytest.mark.parametrize("kind", [openai.AzureOpenAI, openai.AsyncAzureOpenAI])


@KINDS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call_is_one_charge_to_the_nano_dollar(books: Books, case: Case, kind: type) -> None:
    client = endpoint_for(case.body).client(kind)
    with attribute(tenant="acme", user="u-1"), feature("prices"):
        call(client, case.method, case.arguments)
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome) == (case.nano_usd, case.status, "ok")
    assert (row.tenant_id, row.user_id, row.feature, row.provider) == (
        "acme",
        "u-1",
        "prices",
        "openai",
    )
    assert row.model_requested == case.arguments["model"]
    assert {name: getattr(row, name) for name in case.row} == case.row
    span = books.span()
    assert span.attributes is not None
    assert span.attributes["spanledger.cost.status"] == case.status
    assert ("spanledger.cost.usd" in span.attributes) is (case.nano_usd is not None)
    assert row.span_id == f"{span.context.span_id:016x}"


WAYS: dict[str, Callable[[Any], Any]] = {
    "raw": lambda c: c.chat.completions.with_raw_response.create(**CHAT),
    "post": lambda c: c.post("/chat/completions", body=CHAT, cast_to=httpx2.Response),
    "post to a model": lambda c: c.post("/chat/completions", body=CHAT, cast_to=object),
    "with_options": lambda c: c.with_options(timeout=3).chat.completions.create(**CHAT),
    "copy": lambda c: c.copy().chat.completions.create(**CHAT),
    "extra body": lambda c: c.chat.completions.create(
        messages=MESSAGES, model="x", extra_body=Model
    ),
}


@KINDS
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_make_a_chat_call_is_one_charge(books: Books, way: str, kind: type) -> None:
    outcome(WAYS[way](answering(chat()).client(kind)))
    assert (books.row().nano_usd, books.row().model_requested) == (CHAT_NANO_USD, "gpt-4o-mini")
    books.span()


def test_streaming_response_read_as_a_whole(books: Books) -> None:
    client = answering(chat()).client()
    with client.chat.completions.with_streaming_response.create(**CHAT) as answer:
        assert answer.parse().id == "chatcmpl-1"
    assert books.row().nano_usd == CHAT_NANO_USD


def test_module_level_client(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = answering(chat())
    monkeypatch.setattr(openai, "api_key", "sk-secret")
    monkeypatch.setattr(
        openai, "http_client", httpx2.Client(transport=httpx2.MockTransport(endpoint))
    )
    monkeypatch.setattr(openai, "_client", None)
    openai.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert books.row().nano_usd == CHAT_NANO_USD


@AZURE
def test_azure_prices_the_model_that_answered(books: Books, kind: type) -> None:
    client = answering(chat()).client(
        kind, azure_endpoint="https://acme.openai.azure.com", api_version="2024-10-21"
    )
    call(client, "chat.completions.create", {"messages": MESSAGES, "model": "our-deployment"})
    row = books.row()
    assert (row.provider, row.model_requested, row.model) == (
        "azure.ai.openai",
        "our-deployment",
        "gpt-4o-mini",
    )
    assert row.nano_usd == CHAT_NANO_USD  # Azure's list price of gpt-4o-mini is OpenAI's


@AZURE
def test_azure_deployment_in_the_base_url(books: Books, kind: type) -> None:
    client = answering(chat()).client(
        kind,
        azure_endpoint="https://acme.openai.azure.com",
        api_version="2024-10-21",
        azure_deployment="our-deployment",
    )
    call(client, "chat.completions.create", {"messages": MESSAGES, "model": "ignored"})
    row = books.row()
    assert (row.provider, row.model_requested) == ("azure.ai.openai", "our-deployment")
    assert row.nano_usd == CHAT_NANO_USD


@KINDS
def test_another_base_url_is_another_provider(books: Books, kind: type) -> None:
    # Groq: 0.59 in, 0.79 out.
    body = chat(usage(100, 10), model="llama-3.3-70b-versatile")
    client = answering(body).client(kind, base_url="https://api.groq.com/openai/v1")
    arguments = {"messages": MESSAGES, "model": "llama-3.3-70b-versatile"}
    call(client, "chat.completions.create", arguments)
    assert (books.row().provider, books.row().nano_usd) == ("groq", 100 * 590 + 10 * 790)


def test_openrouter_states_the_cost_itself(books: Books) -> None:
    body = chat({**usage(100, 10), "cost": 0.00014}, model="openai/gpt-4o-mini")
    client = answering(body).client(base_url="https://openrouter.ai/api/v1")
    client.chat.completions.create(messages=MESSAGES, model="openai/gpt-4o-mini")
    row = books.row()
    assert (row.provider, row.nano_usd, row.cost_source) == ("openrouter", 140_000, "provider")


# -- errors ------------------------------------------------------------------------------------------------


# What is known of a call without an answer: 27 bytes of messages, 12 of the model and one of each
# other argument are 10 tokens in; out is what it allows, else 1,024.
ASKED_NANO_USD = 10 * 150
AT_ONCE = {"retry-after-ms": "1"}


@KINDS
def test_two_retries_then_success_are_one_call(books: Books, kind: type) -> None:
    answers = iter(
        [
            httpx2.Response(500, headers=AT_ONCE),
            httpx2.Response(429, headers=AT_ONCE),
            httpx2.Response(200, json=chat()),
        ]
    )
    endpoint = Endpoint(lambda _: next(answers))
    call(endpoint.client(kind, max_retries=2), "chat.completions.create", CHAT)
    assert len(endpoint.requests) == 3
    assert (books.row().nano_usd, books.row().cost_status) == (CHAT_NANO_USD, "exact")
    books.span()


@KINDS
def test_429_to_the_end_costs_nothing(books: Books, kind: type) -> None:
    endpoint = answering({"error": {"message": "slow down, sk-secret"}}, 429, **AT_ONCE)
    with pytest.raises(openai.RateLimitError, match="slow down"):
        call(endpoint.client(kind, max_retries=2), "chat.completions.create", CHAT)
    assert len(endpoint.requests) == 3
    row = books.row()
    assert (row.nano_usd, row.outcome, row.error_type, row.cost_status) == (
        0,
        "error",
        "RateLimitError",
        "exact",
    )
    span = books.span()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "RateLimitError"
    assert "sk-secret" not in span.to_json()


def _raising(error: Exception) -> Endpoint:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise error

    return Endpoint(answer)


@KINDS
@pytest.mark.parametrize(("limit", "output"), [({"max_tokens": 100}, 100), ({}, 1024)])
def test_a_timeout_may_be_billed(
    books: Books, kind: type, limit: dict[str, int], output: int
) -> None:
    client = _raising(httpx2.ReadTimeout("late")).client(kind)
    with pytest.raises(openai.APITimeoutError):
        call(client, "chat.completions.create", {**CHAT, **limit})
    row = books.row()
    assert (row.outcome, row.cost_status, row.output_tokens) == ("error", "estimated", output)
    assert row.nano_usd == ASKED_NANO_USD + output * 600
    books.span()


@KINDS
def test_an_answer_that_breaks_may_be_billed(books: Books, kind: type) -> None:
    client = _raising(httpx2.RemoteProtocolError("peer closed connection")).client(kind)
    with pytest.raises(openai.APIConnectionError):
        call(client, "chat.completions.create", {**CHAT, "max_tokens": 100})
    row = books.row()
    assert (row.cost_status, row.nano_usd) == ("estimated", ASKED_NANO_USD + 100 * 600)


@KINDS
def test_a_500_to_the_end_may_be_billed(books: Books, kind: type) -> None:
    client = answering({"error": {"message": "oops"}}, 500, **AT_ONCE).client(kind, max_retries=2)
    with pytest.raises(openai.InternalServerError):
        call(client, "chat.completions.create", {**CHAT, "max_tokens": 100})
    row = books.row()
    assert (row.cost_status, row.nano_usd) == ("estimated", ASKED_NANO_USD + 100 * 600)


@KINDS
def test_a_refused_connection_costs_nothing(books: Books, kind: type) -> None:
    client = _raising(httpx2.ConnectError("refused")).client(kind)
    with pytest.raises(openai.APIConnectionError):
        call(client, "chat.completions.create", CHAT)
    assert (books.row().nano_usd, books.row().cost_status) == (0, "exact")


def test_a_cancelled_call_may_be_billed(books: Books) -> None:
    async def answer(_: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(10)
        raise AssertionError

    async def main() -> None:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        client = openai.AsyncOpenAI(api_key="sk-secret", http_client=http, max_retries=0)
        task = asyncio.create_task(client.chat.completions.create(**CHAT, max_tokens=100))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    row = books.row()
    assert (row.outcome, row.error_type, row.cost_status) == (
        "error",
        "CancelledError",
        "estimated",
    )
    assert row.nano_usd == ASKED_NANO_USD + 100 * 600
    books.span()


def test_html_with_a_200_is_estimated_and_arrives_unchanged(books: Books) -> None:
    endpoint = Endpoint(lambda _: httpx2.Response(200, html="<h1>gateway</h1>"))
    assert "gateway" in endpoint.client().chat.completions.create(**CHAT)
    row = books.row()
    assert (row.cost_status, row.nano_usd) == ("estimated", ASKED_NANO_USD + 1024 * 600)


def test_an_unknown_model_has_no_cost(books: Books) -> None:
    answering(chat(model="who-knows")).client().chat.completions.create(
        messages=MESSAGES, model="who-knows"
    )
    row, span = books.row(), books.span()
    assert (row.nano_usd, row.cost_status, row.unpriced_reason) == (
        None,
        "unknown",
        "unknown_model",
    )
    assert span.attributes is not None
    assert "gen_ai.usage.cost.amount" not in span.attributes


@pytest.mark.parametrize("path", ["models.list", "moderations.create"])
def test_what_is_free_leaves_no_row(books: Books, path: str) -> None:
    client = answering(
        {"object": "list", "data": [], "id": "m", "model": "m", "results": []}
    ).client()
    attrgetter(path)(client)(**({"input": "x"} if "moderations" in path else {}))
    assert not books.rows()
    assert not books.spans()
