"""Usage that is negative, huge, boolean, not a number or not there: never 0, and never exact."""

from typing import Any

import httpx2
import openai
import pytest
from anthropic_endpoint import CALL, AnthropicEndpoint, events, message
from books import Books
from openai_endpoint import MESSAGES, Pieces, answering, chat, chunks, response, sse
from openai_endpoint import Endpoint as OpenAIEndpoint

CHAT: dict[str, Any] = {"messages": MESSAGES, "model": "gpt-4o-mini"}
EVENTS = {"content-type": "text/event-stream"}
Booked = tuple[str, int | None, str | None]
BAD = [-1, 10**20, "many", 1.5, [], {}]  # in details the SDK itself makes 1 of True


def booked(books: Books) -> Booked:
    row = books.row()
    return row.cost_status, row.nano_usd, row.unpriced_reason


# -- OpenAI (gpt-4o-mini: 150 in, 75 cached, 600 out, in nano-USD) -----------------------------------


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    ("stated", "nano_usd", "unit"),
    [
        ({"prompt_tokens": ..., "completion_tokens": 5}, 5 * 600, "input_tokens"),
        ({"prompt_tokens": 10, "completion_tokens": ...}, 10 * 150, "output_tokens"),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": ..., "audio_tokens": None},
            },
            10 * 150 + 5 * 600,
            "cache_read_tokens",
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": ...},
            },
            10 * 150 + 5 * 600,
            "output_reasoning_tokens",
        ),
    ],
)
def test_a_count_that_is_no_amount_makes_a_chat_partial(
    books: Books, stated: dict[str, Any], bad: object, nano_usd: int, unit: str
) -> None:
    usage = {
        name: {part: bad if n is ... else n for part, n in value.items()}
        if isinstance(value, dict)
        else (bad if value is ... else value)
        for name, value in stated.items()
    }
    answering(chat(usage)).client().chat.completions.create(**CHAT)
    assert booked(books) == ("partial", nano_usd, f"invalid:{unit}")
    span = books.span()
    assert span.attributes is not None
    assert span.attributes["spanledger.cost.unpriced_reason"] == f"invalid:{unit}"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"prompt_tokens": 10}, ("partial", 10 * 150, "missing:output_tokens")),
        ({"completion_tokens": 5}, ("partial", 5 * 600, "missing:input_tokens")),
        (
            {"prompt_tokens": True, "completion_tokens": 5},
            ("partial", 5 * 600, "invalid:input_tokens"),
        ),
        (
            {"prompt_tokens": False, "completion_tokens": 5},
            ("partial", 5 * 600, "invalid:input_tokens"),
        ),
        (
            {"prompt_tokens": -1, "prompt_tokens_details": {"cached_tokens": 9}},
            ("estimated", 10 * 150 + 1024 * 600, None),  # nothing to go by but the request
        ),
        ({"prompt_tokens": "many"}, ("estimated", 10 * 150 + 1024 * 600, None)),
        ({}, ("estimated", 10 * 150 + 1024 * 600, None)),
        # 99 cached of 10: the 99 at the cache's price, and no remainder.
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 99},
            },
            ("partial", 99 * 75 + 5 * 600, "inconsistent:input_tokens"),
        ),
        ({"prompt_tokens": 0, "completion_tokens": -5}, ("unknown", None, "invalid:output_tokens")),
        ({"prompt_tokens": 10, "completion_tokens": 0}, ("exact", 10 * 150, None)),
    ],
)
def test_what_a_chat_does_not_state(books: Books, stated: dict[str, Any], expected: Booked) -> None:
    answering(chat(stated)).client().chat.completions.create(**CHAT)
    assert booked(books) == expected


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_chat_stream_with_a_bad_count_is_partial(books: Books, asynchronous: bool) -> None:
    pieces = sse(chunks(3, usage={"prompt_tokens": 10, "completion_tokens": -5}))
    endpoint = OpenAIEndpoint(lambda _: httpx2.Response(200, headers=EVENTS, stream=Pieces(pieces)))
    if asynchronous:
        create = endpoint.client(openai.AsyncOpenAI).chat.completions.create
        assert len([chunk async for chunk in await create(**CHAT, stream=True)]) == 3
    else:
        assert len(list(endpoint.client().chat.completions.create(**CHAT, stream=True))) == 3
    assert booked(books) == ("partial", 10 * 150, "invalid:output_tokens")


def test_embeddings_have_no_output(books: Books) -> None:
    body = {"object": "list", "model": "text-embedding-3-small", "data": []}
    answering({**body, "usage": {"prompt_tokens": 700}}).client().embeddings.create(
        input="fish", model="text-embedding-3-small", encoding_format="float"
    )
    assert booked(books) == ("exact", 700 * 20, None)


# gpt-5: 1.25 USD in, 0.125 cached, 10.00 out; 10 USD for a thousand searches.
@pytest.mark.parametrize(
    ("usage", "more", "expected"),
    [
        ({"input_tokens": 40}, {}, ("partial", 40 * 1250, "missing:output_tokens")),
        (
            {"input_tokens": True, "output_tokens": 9},
            {},
            ("partial", 9 * 10_000, "invalid:input_tokens"),
        ),
        (
            {
                "input_tokens": 40,
                "output_tokens": 9,
                "input_tokens_details": {"cached_tokens": -40},
                "output_tokens_details": {"reasoning_tokens": 10**20},
            },
            {},
            (
                "partial",
                40 * 1250 + 9 * 10_000,
                "invalid:cache_read_tokens,invalid:output_reasoning_tokens",
            ),
        ),
        (
            {"input_tokens": 40, "output_tokens": 9},
            {"tool_usage": {"web_search": {"num_requests": -3}}},
            ("partial", 40 * 1250 + 9 * 10_000, "invalid:web_searches"),
        ),
    ],
)
def test_a_response_with_a_bad_count_is_partial(
    books: Books, usage: dict[str, Any], more: dict[str, Any], expected: Booked
) -> None:
    answering(response("gpt-5", usage, **more)).client().responses.create(input="x", model="gpt-5")
    assert booked(books) == expected


def test_a_picture_with_a_bad_count_is_partial(books: Books) -> None:
    usage = {"input_tokens": -1, "output_tokens": 1000, "total_tokens": 1000}
    body = {"created": 1, "data": [{"b64_json": ""}], "usage": usage}
    answering(body).client().images.generate(prompt="a fish", model="gpt-image-1")
    assert booked(books) == ("partial", 1000 * 40_000, "invalid:input_tokens")


def test_a_transcription_with_a_bad_count_is_partial(books: Books) -> None:
    usage = {"type": "tokens", "input_tokens": 140, "output_tokens": 10**20}
    client = answering({"text": "fish", "usage": usage}).client()
    client.audio.transcriptions.create(file=("a.wav", b"RIFF"), model="gpt-4o-transcribe")
    assert booked(books) == ("partial", 140 * 2500, "invalid:output_tokens")


# -- Anthropic (claude-sonnet-4-6: 3,000 in, 300 cache read, 3,750 and 6,000 cache write, 15,000 out) ---


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (
            {"input_tokens": -5, "output_tokens": 10},
            ("partial", 10 * 15_000, "invalid:input_tokens"),
        ),
        (
            {"input_tokens": True, "output_tokens": 10},
            ("partial", 10 * 15_000, "invalid:input_tokens"),
        ),
        ({"output_tokens": 10}, ("partial", 10 * 15_000, "missing:input_tokens")),
        ({"input_tokens": 100}, ("partial", 100 * 3_000, "missing:output_tokens")),
        (
            {"input_tokens": 100, "output_tokens": 10**20},
            ("partial", 100 * 3_000, "invalid:output_tokens"),
        ),
        # What the cache was asked for has its price, whatever else is not known.
        (
            {"input_tokens": -5, "output_tokens": 10, "cache_read_input_tokens": 400},
            ("partial", 400 * 300 + 10 * 15_000, "invalid:input_tokens"),
        ),
        (
            {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": -400},
            ("partial", 100 * 3_000 + 10 * 15_000, "invalid:cache_read_tokens"),
        ),
        (
            {
                "input_tokens": 100,
                "output_tokens": 10,
                "cache_creation_input_tokens": 10,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 10,
                    "ephemeral_1h_input_tokens": "many",
                },
            },
            ("partial", 100 * 3_000 + 10 * 3_750 + 10 * 15_000, "invalid:cache_write_1h_tokens"),
        ),
        (
            {
                "input_tokens": 100,
                "output_tokens": 10,
                "server_tool_use": {"web_search_requests": -1},
            },
            ("partial", 100 * 3_000 + 10 * 15_000, "invalid:web_searches"),
        ),
        # Nothing to go by but the request: 46 bytes of texts, and 100 tokens at the most.
        (
            {"input_tokens": -5, "output_tokens": "x"},
            ("estimated", 12 * 3_000 + 100 * 15_000, None),
        ),
        ({}, ("estimated", 12 * 3_000 + 100 * 15_000, None)),
    ],
)
def test_a_message_with_a_bad_count(books: Books, stated: dict[str, Any], expected: Booked) -> None:
    AnthropicEndpoint(message(stated)).client().messages.create(**CALL)
    assert booked(books) == expected


def test_a_message_stream_with_a_bad_count_is_partial(books: Books) -> None:
    said = events()
    said[0]["message"]["usage"] = {"input_tokens": 100, "output_tokens": 1}
    said[-2]["usage"] = {"output_tokens": -50}
    endpoint = AnthropicEndpoint(said=said)
    assert len(list(endpoint.client().messages.create(**CALL, stream=True))) == 8
    assert booked(books) == ("partial", 100 * 3_000, "invalid:output_tokens")


# claude-haiku-4-5: 1,000 in, 5,000 out.
@pytest.mark.parametrize(
    ("advice", "more", "expected"),
    [
        (
            {"input_tokens": -3, "output_tokens": 20},
            {},
            ("partial", 200 * 3_000 + 40 * 15_000 + 20 * 5_000, "invalid:input_tokens"),
        ),
        (
            {"input_tokens": -3, "output_tokens": True},
            {},
            (
                "partial",
                200 * 3_000 + 40 * 15_000,
                "invalid:input_tokens,invalid:output_tokens",
            ),
        ),
        (
            {"input_tokens": 300, "output_tokens": 20},
            {"server_tool_use": {"web_search_requests": "two"}},
            (
                "partial",
                200 * 3_000 + 40 * 15_000 + 300 * 1_000 + 20 * 5_000,
                "invalid:web_searches",
            ),
        ),
    ],
)
def test_an_iteration_with_a_bad_count_makes_the_whole_partial(
    books: Books, advice: dict[str, Any], more: dict[str, Any], expected: Booked
) -> None:
    own = {"input_tokens": 200, "output_tokens": 40}
    iterations = [
        {"type": "message", **own},
        {"type": "advisor_message", "model": "claude-haiku-4-5", **advice},
    ]
    body = message({**own, "iterations": iterations, **more})
    AnthropicEndpoint(body).client().beta.messages.create(**CALL)
    assert booked(books) == expected


def test_iterations_that_state_nothing_leave_the_top_level(books: Books) -> None:
    usage = {"input_tokens": 200, "output_tokens": 40, "iterations": [{"type": "message"}]}
    AnthropicEndpoint(message(usage)).client().beta.messages.create(**CALL)
    assert booked(books) == ("exact", 200 * 3_000 + 40 * 15_000, None)
