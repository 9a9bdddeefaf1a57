"""OpenAI's SDK where it is unusual: other namespaces, other streams, other clients, other ends."""

import asyncio
import copy
import gzip
import io
import json
import pickle
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from anthropic_endpoint import CALL, AnthropicEndpoint
from anthropic_endpoint import NANO_USD as MESSAGE_NANO_USD
from books import Books
from openai_endpoint import (
    CHAT_NANO_USD,
    CHAT_USAGE,
    MESSAGES,
    RESPONSE_USAGE,
    Endpoint,
    Pieces,
    answering,
    chat,
    chunks,
    response,
    sse,
    streaming,
)
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.api import attribute, guard
from spanledger.instrumentation import openai as provider_file
from spanledger.instrumentation.openai import OpenAIInstrumentor
from spanledger.instrumentation.spans import use_tracer_provider

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
STREAM = {**CHAT, "stream": True}
ASKED = {**STREAM, "stream_options": {"include_usage": True}}
RESPONSE_NANO_USD = 300 * 1250 + 100 * 125 + 90 * 10000  # gpt-5: 1.25, 0.125 cached, 10.00
EVENTS = {"content-type": "text/event-stream"}


def broken_off(tokens: int) -> int:
    """What is booked of a chat stream without usage: 40 bytes asked, and a token a chunk."""
    return 10 * 150 + tokens * 600


def serving(pieces: list[bytes], **headers: str) -> Endpoint:
    """A body that arrives in pieces."""
    told = {**EVENTS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Endpoint(lambda _: httpx2.Response(200, headers=told, stream=Pieces(pieces)))


def numbered(*events: dict[str, Any]) -> list[bytes]:
    return sse([{**e, "sequence_number": n} for n, e in enumerate(events)], named=True)


# -- other namespaces and other ways to the same endpoint ------------------------------------------

WAYS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "beta responses": (
        lambda c: c.beta.responses.create(input="x", model="gpt-5"),
        RESPONSE_NANO_USD,
    ),
    "compact": (lambda c: c.responses.compact(input="x", model="gpt-5"), RESPONSE_NANO_USD),
    "beta compact": (
        lambda c: c.beta.responses.compact(input="x", model="gpt-5"),
        RESPONSE_NANO_USD,
    ),
    "a path without its slash": (
        lambda c: c.post("responses", body={"input": "x", "model": "gpt-5"}, cast_to=object),
        RESPONSE_NANO_USD,
    ),
    "a path with a query": (
        lambda c: c.post(
            "/responses?trace=1", body={"input": "x", "model": "gpt-5"}, cast_to=object
        ),
        RESPONSE_NANO_USD,
    ),
    "the whole URL": (
        lambda c: c.post(
            "https://api.openai.com/v1/responses?trace=1",
            body={"input": "x", "model": "gpt-5"},
            cast_to=object,
        ),
        RESPONSE_NANO_USD,
    ),
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_every_way_is_one_charge(books: Books, way: str, asynchronous: bool) -> None:
    do, nano_usd = WAYS[way]
    body = response("gpt-5", RESPONSE_USAGE)
    if asynchronous:
        await do(answering(body).client(openai.AsyncOpenAI))
    else:
        do(answering(body).client())
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.operation) == (nano_usd, "exact", "chat")
    books.span()


def test_a_decision_is_a_paid_call(books: Books) -> None:
    body = {"answers": [], "model": "gpt-5", "usage": RESPONSE_USAGE}
    question: Any = {"type": "predicate", "question": "Is it fish?"}
    answering(body).client().decisions.create(input="x", model="gpt-5", questions=[question])
    row = books.row()
    assert (row.operation, row.nano_usd) == ("decision", RESPONSE_NANO_USD)


@pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")
def test_an_assistants_stream_is_not_in_the_way(books: Books) -> None:
    """Its usage belongs to a run, which outlives its requests: it is not booked (yet), nor harmed."""
    run = {"id": "run_1", "object": "thread.run", "status": "completed", "usage": CHAT_USAGE}
    part = {"index": 0, "type": "text", "text": {"value": "fish"}}
    told = [
        ("thread.run.created", run),
        ("thread.message.created", {"id": "msg_1", "object": "thread.message", "content": []}),
        ("thread.message.delta", {"id": "msg_1", "delta": {"content": [part]}}),
        ("done", "[DONE]"),
    ]
    pieces = [
        f"event: {event}\ndata: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
        for event, data in told
    ]
    client = serving(pieces).client()
    events = client.beta.threads.runs.create(thread_id="t", assistant_id="a", stream=True)
    assert [event.event for event in events] == [event for event, _ in told[:-1]]
    with client.beta.threads.runs.stream(thread_id="t", assistant_id="a") as stream:
        assert "".join(stream.text_deltas) == "fish"
    assert not books.rows()
    assert not books.spans()


# -- tools -----------------------------------------------------------------------------------------


def with_tools(*kinds: str, **more: Any) -> dict[str, Any]:
    items = [{"type": kind, "id": f"i{n}", "status": "completed"} for n, kind in enumerate(kinds)]
    return {**response("gpt-5", RESPONSE_USAGE, **more), "output": items}


def test_searches_are_charged_and_other_billed_tools_make_it_partial(books: Books) -> None:
    search = 10_000_000  # 10 USD a thousand
    for body in (
        with_tools("function_call", "reasoning"),
        with_tools("web_search_call", "web_search_call"),
        with_tools(
            "web_search_call",
            "web_search_call",
            tool_usage={"web_search": {"num_requests": 1}, "image_gen": {"input_tokens": 0}},
        ),
        with_tools("file_search_call", "code_interpreter_call", "file_search_call"),
        with_tools("image_generation_call"),
    ):
        answering(body).client().responses.create(input="x", model="gpt-5")
    assert [(row.nano_usd, row.cost_status, row.unpriced_reason) for row in books.rows()] == [
        (RESPONSE_NANO_USD, "exact", None),
        (RESPONSE_NANO_USD + 2 * search, "exact", None),
        (RESPONSE_NANO_USD + search, "exact", None),
        (
            RESPONSE_NANO_USD,
            "partial",
            "unpriced:code_interpreter_call,unpriced:file_search_call",
        ),
        (RESPONSE_NANO_USD, "partial", "unpriced:image_generation_call"),
    ]


SEARCH_NANO_USD = 100 * 2500 + 10 * 10_000  # gpt-4o-search-preview: 2.50 in, 10.00 out
SEARCH_USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


@pytest.mark.parametrize(
    ("model", "arguments", "nano_usd", "status"),
    [
        ("gpt-4o-search-preview", {}, SEARCH_NANO_USD, "partial"),
        (
            "gpt-4o-search-preview-2025-03-11",
            {"web_search_options": {}},
            SEARCH_NANO_USD,
            "partial",
        ),
        ("gpt-5-search-api", {}, 100 * 1250 + 10 * 10_000, "partial"),
        # Whatever else is let search: the list has a price of its searches, 10 USD a thousand.
        ("gpt-5", {"web_search_options": {}}, 100 * 1250 + 10 * 10_000 + 10_000_000, "exact"),
        ("gpt-4o", {}, SEARCH_NANO_USD, "exact"),
    ],
)
def test_a_chat_that_searches_is_not_its_tokens_alone(
    books: Books, model: str, arguments: dict[str, Any], nano_usd: int, status: str
) -> None:
    client = answering(chat(SEARCH_USAGE, model=model)).client()
    client.chat.completions.create(messages=MESSAGES, model=model, **arguments)
    row = books.row()
    assert (row.nano_usd, row.cost_status) == (nano_usd, status)
    assert row.unpriced_reason == ("unpriced:web_searches" if status == "partial" else None)


def test_an_override_prices_the_search_of_a_chat(make_books: Callable[..., Books]) -> None:
    prices = {"web_searches_kcount": 25}
    override = {"provider": "openai", "model": "gpt-4o-search-preview", "prices": prices}
    books = make_books({"prices": {"override": [override]}})
    client = answering(chat(SEARCH_USAGE, model="gpt-4o-search-preview")).client()
    client.chat.completions.create(messages=MESSAGES, model="gpt-4o-search-preview")
    row = books.row()
    assert (row.nano_usd, row.cost_status) == (SEARCH_NANO_USD + 25_000_000, "exact")


def test_a_provider_whose_searches_are_in_its_price_for_each_call(books: Books) -> None:
    # Perplexity's sonar: 1.00 in and out, and 12 USD for a thousand calls.
    client = answering(chat(SEARCH_USAGE, model="sonar")).client(
        base_url="https://api.perplexity.ai"
    )
    client.chat.completions.create(messages=MESSAGES, model="sonar", web_search_options={})
    row = books.row()
    assert (row.nano_usd, row.cost_status) == (110 * 1000 + 12_000_000, "exact")


@pytest.mark.parametrize("read", [1, 3])
def test_a_stream_that_searches_is_not_its_tokens_alone(books: Books, read: int) -> None:
    endpoint = streaming(model="gpt-4o-search-preview")
    arguments: Any = {**STREAM, "model": "gpt-4o-search-preview"}
    stream = endpoint.client().chat.completions.create(**arguments)
    assert [next(stream) for _ in range(read)]
    list(stream) if read == 3 else stream.close()
    row = books.row()
    # Broken off: 50 bytes asked are 12 tokens, and a chunk is one.
    whole = 1000 * 2500 + 200 * 2500 + 150 * 10_000
    assert (row.nano_usd, row.cost_status) == (
        (whole, "partial") if read == 3 else (12 * 2500 + 10_000, "estimated")
    )
    assert row.unpriced_reason == "unpriced:web_searches"


@pytest.mark.parametrize(
    "kind",
    [
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.mcp_call_arguments.delta",
        "response.code_interpreter_call_code.delta",
    ],
)
def test_whatever_a_broken_off_response_said_is_in_its_estimate(books: Books, kind: str) -> None:
    created = response("gpt-5", None, status="in_progress", output=[])
    where = {"item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []}
    pieces = numbered(
        {"type": "response.created", "response": created},
        *({"type": kind, **where, "delta": "fish"} for _ in range(9)),
    )
    stream = serving(pieces).client().responses.create(input="x", model="gpt-5", stream=True)
    for _ in range(5):
        next(stream)
    stream.close()
    row = books.row()
    # 9 bytes asked are 2 tokens, and a delta is one.
    assert (row.cost_status, row.nano_usd) == ("estimated", 2 * 1250 + 4 * 10_000)


# -- sound and pictures ----------------------------------------------------------------------------

SPEECH: Any = {"model": "tts-1", "voice": "alloy", "input": "How much is the fish?"}
SPEECH_NANO_USD = 21 * 15_000  # 15 USD a million characters
SOUND = [b"RIFF", b"\x00" * 5000, b"\x01" * 5000]


def speaking() -> Endpoint:
    headers = {"content-type": "audio/mpeg"}
    return Endpoint(lambda _: httpx2.Response(200, headers=headers, stream=Pieces(list(SOUND))))


def test_a_speech_read_piece_by_piece(books: Books, tmp_path: Path) -> None:
    client = speaking().client()
    with client.audio.speech.with_streaming_response.create(**SPEECH) as answer:
        assert b"".join(answer.iter_bytes()) == b"".join(SOUND)
    with client.audio.speech.with_streaming_response.create(**SPEECH) as answer:
        answer.stream_to_file(tmp_path / "speech.mp3")
    assert (tmp_path / "speech.mp3").read_bytes() == b"".join(SOUND)
    client.audio.speech.create(**SPEECH).write_to_file(tmp_path / "again.mp3")
    rows = books.rows()
    assert [(row.nano_usd, row.cost_status) for row in rows] == [(SPEECH_NANO_USD, "exact")] * 3
    assert [row.first_chunk_ms is not None for row in rows] == [True, True, False]


async def test_a_speech_read_piece_by_piece_async(books: Books) -> None:
    client = speaking().client(openai.AsyncOpenAI)
    async with client.audio.speech.with_streaming_response.create(**SPEECH) as answer:
        assert b"".join([piece async for piece in answer.iter_bytes()]) == b"".join(SOUND)
    assert books.row().nano_usd == SPEECH_NANO_USD


def test_a_speech_nobody_listened_to_costs_the_same(books: Books) -> None:
    with speaking().client().audio.speech.with_streaming_response.create(**SPEECH):
        pass
    assert (books.row().nano_usd, books.row().cost_status) == (SPEECH_NANO_USD, "exact")


IMAGE_USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"image_tokens": 20, "text_tokens": 30},
    "output_tokens": 1000,
    "total_tokens": 1050,
}
PICTURE = {
    "b64_json": "aGk=",
    "background": "opaque",
    "created_at": 1,
    "output_format": "png",
    "quality": "low",
    "size": "1024x1024",
}


def drawing() -> Endpoint:
    partial = {"type": "image_generation.partial_image", "partial_image_index": 0, **PICTURE}
    completed = {"type": "image_generation.completed", "usage": IMAGE_USAGE, **PICTURE}
    return serving(numbered(partial, completed))


def test_a_stream_of_pictures(books: Books) -> None:
    images = drawing().client().images
    arguments: Any = {"prompt": "a fish", "model": "gpt-image-1", "stream": True}
    assert len(list(images.generate(**arguments, partial_images=1))) == 2
    stream = images.generate(**arguments, partial_images=1)
    next(stream)
    stream.close()
    whole, broken_off = books.rows()
    # gpt-image-1: 5.00 text in, 10.00 image in, 40.00 image out
    assert whole.nano_usd == 30 * 5000 + 20 * 10_000 + 1000 * 40_000
    assert whole.cost_status == "exact"
    assert (broken_off.nano_usd, broken_off.cost_status) == (None, "unknown")


def test_a_stream_of_a_transcription(books: Books) -> None:
    usage = {
        "type": "tokens",
        "input_tokens": 100,
        "input_token_details": {"audio_tokens": 90, "text_tokens": 10},
        "output_tokens": 20,
        "total_tokens": 120,
    }
    pieces = numbered(
        {"type": "transcript.text.delta", "delta": "fish"},
        {"type": "transcript.text.done", "text": "fish", "usage": usage},
    )
    stream = (
        serving(pieces)
        .client()
        .audio.transcriptions.create(
            file=("fish.wav", io.BytesIO(b"RIFF"), "audio/wav"),
            model="gpt-4o-mini-transcribe",
            stream=True,
        )
    )
    assert [event.type for event in stream] == ["transcript.text.delta", "transcript.text.done"]
    # gpt-4o-mini-transcribe: 1.25 text in, 3.00 audio in, 5.00 out
    assert books.row().nano_usd == 10 * 1250 + 90 * 3000 + 20 * 5000
    assert books.row().cost_status == "exact"


# -- bytes past the SDK's decoding -----------------------------------------------------------------


def squeezed(data: bytes, coding: str) -> list[bytes]:
    whole = gzip.compress(data) if coding == "gzip" else zlib.compress(data)
    return [whole[:20], whole[20:]]


@pytest.mark.parametrize("coding", ["gzip", "deflate", None])
@pytest.mark.parametrize("read", ["read", "json", "parse", "iter_bytes", "iter_lines", "iter_raw"])
def test_a_streaming_response_of_a_whole_result(
    books: Books, coding: str | None, read: str
) -> None:
    data = json.dumps(chat()).encode()
    if coding is None:
        endpoint = serving([data[:50], data[50:]], content_type="application/json")
    else:
        endpoint = serving(
            squeezed(data, coding), content_type="application/json", content_encoding=coding
        )
    with endpoint.client().chat.completions.with_streaming_response.create(**CHAT) as answer:
        if read == "iter_raw":
            assert b"".join(answer.http_response.iter_raw()) == b"".join(
                squeezed(data, coding) if coding else [data]
            )
        else:
            got = getattr(answer, read)()
            assert list(got) if read.startswith("iter") else got
    row = books.row()
    assert (row.nano_usd, row.cost_status) == (CHAT_NANO_USD, "exact")


@pytest.mark.parametrize("coding", ["gzip", None])
async def test_a_streaming_response_of_a_stream_async(books: Books, coding: str | None) -> None:
    data = b"".join(sse(chunks(5, usage=CHAT_USAGE)))
    endpoint = (
        serving(squeezed(data, coding), content_encoding=coding) if coding else serving([data])
    )
    create = endpoint.client(openai.AsyncOpenAI).chat.completions.with_streaming_response.create
    async with create(**ASKED) as answer:
        assert len([line async for line in answer.iter_lines() if line]) == 7
    async with create(**ASKED) as answer:
        assert len([chunk async for chunk in await answer.parse()]) == 6
    assert [row.nano_usd for row in books.rows()] == [CHAT_NANO_USD] * 2


def test_lines_broken_off_in_the_middle_of_one(books: Books) -> None:
    pieces = sse(chunks(9, usage=None))
    half = len(pieces[3]) // 2
    endpoint = serving([*pieces[:3], pieces[3][:half], pieces[3][half:], *pieces[4:]])
    with endpoint.client().chat.completions.with_streaming_response.create(**STREAM) as answer:
        for number, _ in enumerate(answer.iter_bytes()):
            if number == 3:
                break
    row = books.row()
    assert (row.cost_status, row.nano_usd) == ("estimated", broken_off(3))


def test_a_stream_asked_for_in_the_body_alone_gets_no_chunk_that_nobody_strips(
    books: Books,
) -> None:
    endpoint = streaming()
    answer = endpoint.client().post("/chat/completions", body=STREAM, cast_to=httpx2.Response)
    assert answer.text.count("data: {") == 3
    assert "stream_options" not in endpoint.body
    assert (books.row().cost_status, books.row().nano_usd) == ("estimated", broken_off(3))
    books.span()


def old_fashioned() -> Endpoint:
    """A server that knows no `stream_options`, as older ones and some gateways."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if "stream_options" in json.loads(request.content):
            said = "Unrecognized request argument supplied: stream_options"
            return httpx2.Response(400, json={"error": {"message": said}})
        pieces = sse(chunks(3, usage=None))
        return httpx2.Response(200, headers=EVENTS, stream=Pieces(pieces))

    return Endpoint(answer)


def test_a_server_that_refuses_to_be_asked_for_usage_serves_as_without_us(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = old_fashioned()
    client = endpoint.client(base_url="https://old.example/v1")
    for _ in range(3):
        assert len(list(client.chat.completions.create(**STREAM))) == 3
    assert len(endpoint.requests) == 4  # it is asked once
    rows = books.rows()
    assert [(row.cost_status, row.nano_usd) for row in rows] == [("estimated", broken_off(3))] * 3
    assert len(books.spans()) == 3
    (record,) = caplog.records
    assert "old.example" in record.getMessage()
    assert "ask_usage = false" in record.getMessage()


async def test_a_server_that_refuses_to_be_asked_for_usage_async(books: Books) -> None:
    endpoint = old_fashioned()
    client = endpoint.client(openai.AsyncOpenAI, base_url="https://old.example/v1")
    for _ in range(2):
        stream = await client.chat.completions.create(**STREAM)
        assert len([chunk async for chunk in stream]) == 3
    assert len(endpoint.requests) == 3
    rows = books.rows()
    assert [(row.cost_status, row.nano_usd) for row in rows] == [("estimated", broken_off(3))] * 2


def test_what_the_user_asked_for_himself_is_his_error(books: Books) -> None:
    endpoint = old_fashioned()
    with pytest.raises(openai.BadRequestError, match="stream_options"):
        endpoint.client().chat.completions.create(**ASKED)
    endpoint = answering({"error": {"message": "no such model"}}, 400)
    with pytest.raises(openai.BadRequestError, match="no such model"):
        endpoint.client().chat.completions.create(**STREAM)
    assert len(endpoint.requests) == 1
    assert [row.nano_usd for row in books.rows()] == [0, 0]


def test_a_raw_stream_that_is_never_parsed(books: Books) -> None:
    raw = streaming().client().chat.completions.with_raw_response.create(**STREAM)
    raw.http_response.close()
    row = books.row()
    assert (row.cost_status, row.nano_usd) == ("estimated", broken_off(1024))  # all it may say


# -- other clients ---------------------------------------------------------------------------------


def legacy(endpoint: Endpoint, kind: type = openai.OpenAI) -> Any:
    """A client over httpx, as the SDK had it before httpx2."""

    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __init__(self, answer: httpx2.Response) -> None:
            self._stream = answer.stream

        def __iter__(self) -> Iterator[bytes]:
            yield from self._stream  # type: ignore[misc]

        async def __aiter__(self) -> Any:
            for piece in self:
                yield piece

    def answer(request: httpx.Request) -> httpx.Response:
        given = endpoint(httpx2.Request("POST", str(request.url), content=request.content))
        return httpx.Response(given.status_code, headers=dict(given.headers), stream=Body(given))

    async def answer_async(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return answer(request)

    http: Any = (
        httpx.AsyncClient(transport=httpx.MockTransport(answer_async))
        if kind is openai.AsyncOpenAI
        else httpx.Client(transport=httpx.MockTransport(answer))
    )
    return kind(api_key="sk-secret", http_client=http, max_retries=0)


def test_a_legacy_httpx_client(books: Books) -> None:
    client = legacy(streaming())
    assert len(list(client.chat.completions.create(**STREAM))) == 3
    next(client.chat.completions.create(**STREAM))
    books.collect()
    with client.chat.completions.with_streaming_response.create(**ASKED) as answer:
        list(answer.iter_lines())
    legacy(answering(chat())).chat.completions.create(**CHAT)
    assert [(row.nano_usd, row.cost_status) for row in books.rows()] == [
        (CHAT_NANO_USD, "exact"),
        (broken_off(1), "estimated"),
        (CHAT_NANO_USD, "exact"),
        (CHAT_NANO_USD, "exact"),
    ]


async def test_a_legacy_httpx_client_async(books: Books) -> None:
    client = legacy(streaming(), openai.AsyncOpenAI)
    stream = await client.chat.completions.create(**STREAM)
    assert len([chunk async for chunk in stream]) == 3
    stream = await client.chat.completions.create(**STREAM)
    await anext(stream)
    await stream.close()
    assert [(row.nano_usd, row.cost_status) for row in books.rows()] == [
        (CHAT_NANO_USD, "exact"),
        (broken_off(1), "estimated"),
    ]


def test_a_client_made_before_it_was_patched(books: Books) -> None:
    OpenAIInstrumentor().uninstrument()
    try:
        client = streaming().client()
        create = client.chat.completions.create
    finally:
        OpenAIInstrumentor().instrument(skip_dep_check=True)
    assert len(list(create(**STREAM))) == 3
    assert books.row().nano_usd == CHAT_NANO_USD


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://us-central1-aiplatform.googleapis.com/v1/endpoints/openapi", "gcp.vertex_ai"),
        ("https://aiplatform.googleapis.com/v1/endpoints/openapi", "gcp.vertex_ai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gcp.gemini"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "aws.bedrock"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://api.openai.com.gateway.example/v1", "openai"),  # a gateway
        ("http://localhost:8000/v1", "openai"),
    ],
)
def test_the_provider_is_found_from_the_url(books: Books, base_url: str, provider: str) -> None:
    answering(chat()).client(base_url=base_url).chat.completions.create(**CHAT)
    assert books.row().provider == provider


def test_openai_on_bedrock(books: Books) -> None:
    client = answering(chat()).client(openai.BedrockOpenAI, aws_region="us-west-2")
    client.chat.completions.create(**CHAT)
    assert books.row().provider == "aws.bedrock"


def test_two_sdks_at_once(books: Books) -> None:
    with attribute(tenant="one"):
        one = streaming().client().chat.completions.create(**STREAM)
    with attribute(tenant="two"):
        two = AnthropicEndpoint().client(anthropic.Anthropic).messages.create(**CALL, stream=True)
    with attribute(tenant="three"):
        three = streaming().client().chat.completions.create(**STREAM)
        for _ in range(2):
            assert all(next(stream) for stream in (one, two, three))
        assert [len(list(stream)) for stream in (three, two, one)] == [1, 6, 1]
    assert {(row.tenant_id, row.nano_usd) for row in books.rows()} == {
        ("one", CHAT_NANO_USD),
        ("two", MESSAGE_NANO_USD),
        ("three", CHAT_NANO_USD),
    }
    assert len(books.rows()) == len(books.spans()) == 3


# -- results are the user's ------------------------------------------------------------------------


def test_results_are_copied_and_pickled_as_ever(books: Books) -> None:
    result = answering(chat()).client().chat.completions.create(**CHAT)
    assert pickle.loads(pickle.dumps(result)) == copy.deepcopy(result) == result
    got = list(streaming().client().chat.completions.create(**STREAM))
    assert pickle.loads(pickle.dumps(got)) == copy.deepcopy(got) == got
    raw = answering(chat()).client().chat.completions.with_raw_response.create(**CHAT)
    assert copy.deepcopy(raw.http_response.content) == raw.content
    assert len(books.rows()) == 3


def test_a_copied_stream_reads_on(books: Books) -> None:
    stream = streaming().client().chat.completions.create(**STREAM)
    assert len(list(copy.copy(stream))) == 3
    assert books.row().nano_usd == CHAT_NANO_USD


def test_a_stream_read_in_three_threads(books: Books) -> None:
    stream = streaming(n=9).client().chat.completions.create(**STREAM)
    got: list[Any] = [next(stream)]

    def read(many: int) -> None:
        got.extend(chunk for chunk, _ in zip(stream, range(many), strict=False))

    for many in (4, 100):
        thread = threading.Thread(target=read, args=(many,))
        thread.start()
        thread.join()
    assert len(got) >= 8
    assert (books.row().nano_usd, books.row().outcome) == (CHAT_NANO_USD, "ok")


async def test_a_stream_begun_in_one_task_and_finished_in_another(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    client = streaming(n=9).client(openai.AsyncOpenAI)

    async def begin() -> Any:
        with attribute(tenant="acme"):
            stream = await client.chat.completions.create(**STREAM)
            await anext(stream)
            return stream

    async def go_on(stream: Any) -> int:
        with attribute(tenant="other"):
            return len([chunk async for chunk in stream])

    stream = await asyncio.create_task(begin())
    assert await asyncio.create_task(go_on(stream)) == 8
    assert (books.row().nano_usd, books.row().tenant_id) == (CHAT_NANO_USD, "acme")
    assert not caplog.records


def test_a_stream_made_in_one_loop_and_dropped_after_it(books: Books) -> None:
    kept: list[Any] = []

    async def main() -> None:
        client = streaming(n=9).client(openai.AsyncOpenAI)
        stream = await client.chat.completions.create(**STREAM)
        await anext(stream)
        kept.append(stream)

    asyncio.run(main())
    kept.clear()
    books.collect()
    assert (books.row().cost_status, books.row().nano_usd) == ("estimated", broken_off(1))


@pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.Anthropic])
def test_what_the_garbage_collector_ends_is_booked_by_a_thread_of_its_own(
    books: Books, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    """It comes in the middle of anything, with any lock held, and in 3.11 even inside a context variable."""
    threads: list[str] = []
    settle = books.engine.gate.settle

    def settling(*args: Any) -> Any:
        threads.append(threading.current_thread().name)
        return settle(*args)

    monkeypatch.setattr(books.engine.gate, "settle", settling)

    def streams() -> list[Any]:
        if kind is openai.OpenAI:
            create = streaming(n=20).client().chat.completions.create
            return [create(**STREAM) for _ in range(3)]
        messages = AnthropicEndpoint(words=20).client().messages
        return [messages.create(**CALL, stream=True) for _ in range(3)]

    dropped = streams()
    next(dropped[0])  # the second is dropped unread
    iterator = iter(dropped[2])
    next(iterator)
    cycle: list[Any] = [dropped]
    cycle.append(cycle)
    del dropped, iterator, cycle
    books.collect()
    rows = books.rows()
    assert [row.cost_status for row in rows] == ["estimated"] * 3
    if kind is openai.OpenAI:  # a chunk, none, a chunk
        assert [row.nano_usd for row in rows] == [broken_off(1), broken_off(1024), broken_off(1)]
    assert threads == ["spanledger-streams"] * 3


# -- our own faults --------------------------------------------------------------------------------


def _broken(*_: object, **__: object) -> Any:
    raise RuntimeError("ours")


@pytest.mark.parametrize("what", ["read", "stream_reader", "describe", "prepare"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_in_reading_loses_no_call_and_harms_none(
    books: Books, monkeypatch: pytest.MonkeyPatch, what: str, stream: bool
) -> None:
    guard.reraise_internal_errors(False)
    monkeypatch.setattr(provider_file._OpenAI, what, _broken)
    arguments = STREAM if stream else CHAT
    result = streaming().client() if stream else answering(chat()).client()
    got = result.chat.completions.create(**arguments)
    # Without a reader there is nobody to take out the chunk that was asked for.
    assert len(list(got)) in (3, 4) if stream else got.id == "chatcmpl-1"
    client = (streaming() if stream else answering(chat())).client(openai.AsyncOpenAI)
    got = await client.chat.completions.create(**arguments)
    assert len([c async for c in got]) in (3, 4) if stream else got.id == "chatcmpl-1"
    if what in ("read", "stream_reader") and (what == "stream_reader") == stream:
        rows = books.rows()
        assert [row.cost_status for row in rows] == ["estimated", "estimated"]
        assert len(books.spans()) == 2


@pytest.mark.parametrize("where", ["observe", "reading"])
def test_a_fault_in_the_middle_of_a_stream_loses_no_call(
    books: Books, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    guard.reraise_internal_errors(False)
    monkeypatch.setattr(provider_file._ChatStream, where, _broken)
    for end in (list, lambda stream: stream.close(), next):
        end(streaming().client().chat.completions.create(**STREAM))
    books.collect()
    rows = books.rows()
    assert [row.cost_status for row in rows] == ["estimated"] * 3
    assert len(books.spans()) == 3


@pytest.mark.parametrize("where", ["on_start", "on_end"])
def test_a_span_processor_of_the_users_that_raises(
    books: Books, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Money does not depend on spans."""
    guard.reraise_internal_errors(False)

    class Raising(SpanProcessor):
        pass

    setattr(Raising, where, _broken)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Raising())
    use_tracer_provider(provider)
    assert answering(chat()).client().chat.completions.create(**CHAT).id == "chatcmpl-1"
    assert len(list(streaming().client().chat.completions.create(**STREAM))) == 3
    assert [row.nano_usd for row in books.rows()] == [CHAT_NANO_USD] * 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("model", ["gpt-4o-mini", "m" * 9999])
def test_long_words_of_a_provider_do_not_make_long_attributes(books: Books, model: str) -> None:
    body = chat(model=model, id="i" * 9999, service_tier="s" * 9999)
    body["choices"][0]["finish_reason"] = "f" * 9999
    answering(body).client().chat.completions.create(messages=MESSAGES, model="r" * 9999)
    span = books.span()
    assert len(span.name) < 300
    assert span.attributes is not None
    for name, value in span.attributes.items():
        assert len(str(value)) < 300, name


# -- spans of others -------------------------------------------------------------------------------


def test_two_streams_at_once_inside_one_foreign_span(books: Books) -> None:
    """The first one's charge rides on it, the second one has a span of its own; both come to an end."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("somebody else")
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
    with tracer.start_as_current_span("chat foreign", attributes=attributes):
        one = streaming().client().chat.completions.create(**STREAM)
        two = streaming().client().chat.completions.create(**STREAM)
        list(one)
        list(two)
    (foreign,) = exporter.get_finished_spans()
    (ours,) = books.spans()
    assert foreign.attributes is not None
    assert ours.attributes is not None
    assert foreign.attributes["spanledger.cost.usd"] == ours.attributes["spanledger.cost.usd"]
    assert [row.nano_usd for row in books.rows()] == [CHAT_NANO_USD] * 2
