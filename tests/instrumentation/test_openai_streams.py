"""OpenAI streams: however they end, they end in exactly one charge."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai
import pytest
from books import Books
from openai_endpoint import (
    CHAT_NANO_USD,
    MESSAGES,
    RESPONSE_USAGE,
    Endpoint,
    Pieces,
    chunks,
    response,
    sse,
    streaming,
)

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
STREAM = {**CHAT, "stream": True}
ASKED = {**STREAM, "stream_options": {"include_usage": True}}
RESPONSE_NANO_USD = 300 * 1250 + 100 * 125 + 90 * 10000  # gpt-5: 1.25 in, 0.125 cached, 10.00 out


def broken_off(tokens: int) -> int:
    """What is booked of a chat stream that ended early: 40 bytes asked, and a token a chunk."""
    return 10 * 150 + tokens * 600


def responses_stream() -> Endpoint:
    """The events of the Responses API that matter here."""
    created = response("gpt-5", None, status="in_progress", output=[])
    item = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    part = {"type": "output_text", "text": "", "annotations": []}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": created},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **where, "part": part},
        *(
            {"type": "response.output_text.delta", **where, "delta": "fish", "logprobs": []}
            for _ in range(3)
        ),
        {"type": "response.completed", "response": response("gpt-5", RESPONSE_USAGE)},
    ]
    events = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    pieces = sse(events, named=True)
    headers = {"content-type": "text/event-stream"}
    return Endpoint(lambda _: httpx2.Response(200, headers=headers, stream=Pieces(pieces)))


# -- read to the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "seen"), [(STREAM, 3), (ASKED, 4)], ids=["unasked", "asked"])
def test_usage_is_asked_for_and_only_its_asker_sees_it(
    books: Books, arguments: dict[str, Any], seen: int
) -> None:
    endpoint = streaming()
    got = list(endpoint.client().chat.completions.create(**arguments))
    assert len(got) == seen
    assert endpoint.body["stream_options"] == {"include_usage": True}
    row = books.row()
    assert (row.nano_usd, row.cost_status) == (CHAT_NANO_USD, "exact")
    assert row.first_chunk_ms is not None
    assert row.latency_ms is not None
    assert row.first_chunk_ms <= row.latency_ms
    span = books.span()
    assert span.attributes is not None
    assert "gen_ai.response.time_to_first_chunk" in span.attributes


@pytest.mark.parametrize(("arguments", "seen"), [(STREAM, 3), (ASKED, 4)], ids=["unasked", "asked"])
async def test_the_same_async(books: Books, arguments: dict[str, Any], seen: int) -> None:
    client = streaming().client(openai.AsyncOpenAI)
    got = [chunk async for chunk in await client.chat.completions.create(**arguments)]
    assert len(got) == seen
    assert books.row().nano_usd == CHAT_NANO_USD


def test_other_stream_options_of_the_user_stay(books: Books) -> None:
    endpoint = streaming()
    options = {"include_usage": False, "include_obfuscation": False}
    assert (
        len(list(endpoint.client().chat.completions.create(**STREAM, stream_options=options))) == 3
    )
    assert endpoint.body["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert options == {"include_usage": False, "include_obfuscation": False}
    assert books.row().nano_usd == CHAT_NANO_USD


def test_a_provider_that_states_usage_unasked_is_not_asked(books: Books) -> None:
    endpoint = streaming(model="mistral-small-latest")
    client = endpoint.client(base_url="https://api.mistral.ai/v1")
    list(client.chat.completions.create(**{**STREAM, "model": "mistral-small-latest"}))
    assert "stream_options" not in endpoint.body
    assert (books.row().provider, books.row().cost_status) == ("mistral_ai", "estimated")


def test_stream_helper(books: Books) -> None:
    with streaming().client().chat.completions.stream(**CHAT) as stream:
        events = list(stream)
        assert stream.get_final_completion().choices[0].message.content == "word0 word1 "
    assert events
    assert books.row().nano_usd == CHAT_NANO_USD


async def test_stream_helper_async(books: Books) -> None:
    client = streaming().client(openai.AsyncOpenAI)
    async with client.chat.completions.stream(**CHAT) as stream:
        assert [event async for event in stream]
    assert books.row().nano_usd == CHAT_NANO_USD


def test_raw_response_parsed_into_a_stream(books: Books) -> None:
    raw = streaming().client().chat.completions.with_raw_response.create(**STREAM)
    assert len(list(raw.parse())) == 3
    assert books.row().nano_usd == CHAT_NANO_USD


def test_lines_read_past_the_sdk_are_not_added_to(books: Books) -> None:
    endpoint = streaming()
    with endpoint.client().chat.completions.with_streaming_response.create(**STREAM) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert len(lines) == 4  # three chunks and [DONE]
    assert "stream_options" not in endpoint.body
    assert (books.row().cost_status, books.row().nano_usd) == ("estimated", broken_off(3))


def test_lines_read_past_the_sdk_state_usage_where_it_was_asked_for(books: Books) -> None:
    with streaming().client().chat.completions.with_streaming_response.create(**ASKED) as answer:
        list(answer.iter_lines())
    assert books.row().nano_usd == CHAT_NANO_USD


async def test_lines_read_past_the_sdk_async(books: Books) -> None:
    client = streaming().client(openai.AsyncOpenAI)
    async with client.chat.completions.with_streaming_response.create(**ASKED) as answer:
        assert [line async for line in answer.iter_lines()]
    assert books.row().nano_usd == CHAT_NANO_USD


@pytest.mark.parametrize(
    ("arguments", "status"), [(STREAM, "estimated"), (ASKED, "exact")], ids=["unasked", "asked"]
)
def test_a_stream_parsed_from_a_streaming_response(
    books: Books, arguments: dict[str, Any], status: str
) -> None:
    client = streaming().client()
    with client.chat.completions.with_streaming_response.create(**arguments) as answer:
        assert list(answer.parse())
    assert books.row().cost_status == status


def test_responses_stream(books: Books) -> None:
    events = list(
        responses_stream().client().responses.create(input="x", model="gpt-5", stream=True)
    )
    assert events[-1].type == "response.completed"
    assert books.row().nano_usd == RESPONSE_NANO_USD


def test_responses_stream_helper(books: Books) -> None:
    with responses_stream().client().responses.stream(input="x", model="gpt-5") as stream:
        assert list(stream)
    assert books.row().nano_usd == RESPONSE_NANO_USD


async def test_responses_stream_async(books: Books) -> None:
    client = responses_stream().client(openai.AsyncOpenAI)
    stream = await client.responses.create(input="x", model="gpt-5", stream=True)
    assert [event.type async for event in stream][-1] == "response.completed"
    assert (books.row().nano_usd, books.row().cost_status) == (RESPONSE_NANO_USD, "exact")
    books.span()


async def test_responses_stream_helper_async(books: Books) -> None:
    client = responses_stream().client(openai.AsyncOpenAI)
    async with client.responses.stream(input="x", model="gpt-5") as stream:
        assert [event async for event in stream]
        assert (await stream.get_final_response()).id == "resp_1"
    assert (books.row().nano_usd, books.row().cost_status) == (RESPONSE_NANO_USD, "exact")
    books.span()


@pytest.mark.parametrize("helper", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_responses_stream_left_early_is_one_estimated_charge(
    books: Books, helper: bool, asynchronous: bool
) -> None:
    client = responses_stream().client(openai.AsyncOpenAI if asynchronous else openai.OpenAI)
    arguments: Any = {"input": "x" * 38, "model": "gpt-5"}  # 46 bytes with `stream`: 11 tokens

    def said(event: Any) -> bool:
        return event.type == "response.output_text.delta"

    if asynchronous:
        if helper:
            async with client.responses.stream(**arguments) as stream:
                async for event in stream:
                    if said(event):
                        break
        else:
            async with await client.responses.create(**arguments, stream=True) as stream:
                async for event in stream:
                    if said(event):
                        break
    elif helper:
        with client.responses.stream(**arguments) as stream:
            assert next(event for event in stream if said(event))
    else:
        with client.responses.create(**arguments, stream=True) as stream:
            assert next(event for event in stream if said(event))
    row = books.row()
    assert (row.cost_status, row.nano_usd) == ("estimated", 11 * 1250 + 10_000)
    books.span()


# -- ended early ---------------------------------------------------------------------------------------------


def close(stream: Any) -> None:
    next(stream)
    stream.close()


def leave(stream: Any) -> None:
    with stream:
        for _ in stream:
            break


def drop(stream: Any) -> None:
    next(stream)


def drop_unread(stream: Any) -> None:
    assert stream


@pytest.mark.parametrize("end", [close, leave, drop])
def test_a_stream_ended_early_is_one_estimated_charge(
    books: Books, end: Callable[[Any], None]
) -> None:
    end(streaming(n=20).client().chat.completions.create(**STREAM))
    books.collect()
    row = books.row()
    assert (row.cost_status, row.outcome, row.output_tokens) == ("estimated", "ok", 1)
    assert row.nano_usd == broken_off(1)
    books.span()


def growing(choices: int = 1, breaks_after: int | None = None) -> Endpoint:
    """A provider that repeats what was used by now on every chunk, and adds no chunk at the end."""
    said = chunks(10, usage=None)
    told = [
        {
            **chunk,
            "choices": [{**chunk["choices"][0], "index": index}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 1 + number * choices + index},
        }
        for number, chunk in enumerate(said)
        for index in range(choices)
    ]
    headers = {"content-type": "text/event-stream"}
    return Endpoint(
        lambda _: httpx2.Response(200, headers=headers, stream=Pieces(sse(told), breaks_after))
    )


@pytest.mark.parametrize(
    ("choices", "read", "status"),
    [
        (1, 2, "estimated"),
        (1, 9, "estimated"),
        (1, 10, "exact"),
        (2, 19, "estimated"),
        (2, 20, "exact"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_usage_that_grows_is_exact_when_every_choice_is_over(
    books: Books, choices: int, read: int, status: str, asynchronous: bool
) -> None:
    if asynchronous:
        client = growing(choices).client(openai.AsyncOpenAI)
        stream = await client.chat.completions.create(**STREAM, n=choices)
        for _ in range(read):
            await anext(stream)
        await stream.close()
    else:
        stream = growing(choices).client().chat.completions.create(**STREAM, n=choices)
        for _ in range(read):
            next(stream)
        stream.close()
    row = books.row()
    assert (row.cost_status, row.nano_usd) == (status, 100 * 150 + read * 600)
    assert row.output_tokens == read


def test_usage_that_grows_is_exact_at_the_streams_end(books: Books) -> None:
    assert len(list(growing().client().chat.completions.create(**STREAM))) == 10
    assert (books.row().cost_status, books.row().nano_usd) == ("exact", 100 * 150 + 10 * 600)


def test_usage_that_grows_is_estimated_where_the_stream_breaks(books: Books) -> None:
    with pytest.raises(openai.APIConnectionError):
        list(growing(breaks_after=4).client().chat.completions.create(**STREAM))
    row = books.row()
    assert (row.cost_status, row.nano_usd) == ("estimated", 100 * 150 + 4 * 600)


def test_a_dropped_unread_stream_is_one_estimated_charge(books: Books) -> None:
    drop_unread(streaming().client().chat.completions.create(**STREAM))
    books.collect()
    row = books.row()
    assert (row.cost_status, row.nano_usd) == ("estimated", broken_off(1024))  # all it may say


@pytest.mark.parametrize("how", ["close", "aclose", "drop"])
async def test_an_async_stream_ended_early_is_one_estimated_charge(books: Books, how: str) -> None:
    client = streaming(n=20).client(openai.AsyncOpenAI)
    stream = await client.chat.completions.create(**STREAM)
    await anext(stream)
    if how == "drop":
        del stream
        books.collect()
        await asyncio.sleep(0.05)
    else:
        await getattr(stream, how)()
    books.collect()
    assert (books.row().cost_status, books.row().nano_usd) == ("estimated", broken_off(1))
    books.span()


def test_a_whole_body_from_a_transport_that_streams_nothing(books: Books) -> None:
    """A cache or a mock hands over everything at once: the response is closed from the start."""
    content = b"".join(sse(chunks(5, usage=None)))
    headers = {"content-type": "text/event-stream"}
    endpoint = Endpoint(lambda _: httpx2.Response(200, headers=headers, content=content))
    stream = endpoint.client().chat.completions.create(**STREAM)
    next(stream)
    stream.close()
    assert (books.row().cost_status, books.row().nano_usd) == ("estimated", broken_off(1))


def test_a_raw_response_can_still_be_pickled(books: Books) -> None:
    content = b"".join(sse(chunks(5, usage=None)))
    headers = {"content-type": "text/event-stream"}
    endpoint = Endpoint(lambda _: httpx2.Response(200, headers=headers, content=content))
    raw = endpoint.client().chat.completions.with_raw_response.create(**STREAM)
    assert pickle.loads(pickle.dumps(raw.http_response)).content == content
    list(raw.parse())
    assert (books.row().cost_status, books.row().nano_usd) == ("estimated", broken_off(5))


def test_a_stream_that_breaks_is_one_estimated_charge_and_the_users_error(books: Books) -> None:
    stream = streaming(n=20, breaks_after=5).client().chat.completions.create(**STREAM)
    with pytest.raises(openai.APIConnectionError):
        list(stream)
    row = books.row()
    assert (row.cost_status, row.outcome, row.nano_usd) == ("estimated", "error", broken_off(5))
    assert row.error_type == "APIConnectionError"


async def test_an_async_stream_that_breaks_is_the_same(books: Books) -> None:
    client = streaming(n=20, breaks_after=5).client(openai.AsyncOpenAI)
    stream = await client.chat.completions.create(**STREAM)
    with pytest.raises(openai.APIConnectionError):
        assert [chunk async for chunk in stream]
    row = books.row()
    assert (row.cost_status, row.outcome, row.nano_usd) == ("estimated", "error", broken_off(5))
    books.span()


async def test_a_cancelled_stream_is_one_estimated_charge(books: Books) -> None:
    class Slow(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in sse(chunks(9, usage=None))[:3]:
                yield piece
            await asyncio.sleep(10)

    headers = {"content-type": "text/event-stream"}
    client = Endpoint(lambda _: httpx2.Response(200, headers=headers, stream=Slow())).client(
        openai.AsyncOpenAI
    )

    async def read() -> None:
        async for _ in await client.chat.completions.create(**STREAM):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    row = books.row()
    assert (row.cost_status, row.outcome, row.error_type) == (
        "estimated",
        "error",
        "CancelledError",
    )
    assert row.nano_usd == broken_off(3)


def test_the_consumers_exception_is_not_the_streams(books: Books) -> None:
    stream = streaming(n=20).client().chat.completions.create(**STREAM)
    with pytest.raises(ZeroDivisionError), stream:
        for _ in stream:
            raise ZeroDivisionError
    row = books.row()
    assert (row.cost_status, row.outcome, row.nano_usd) == ("estimated", "ok", broken_off(1))


def test_uninstrumented_while_a_stream_is_open(books: Books) -> None:
    from spanledger.instrumentation.openai import OpenAIInstrumentor

    stream = streaming().client().chat.completions.create(**STREAM)
    next(stream)
    instrumentor = OpenAIInstrumentor()
    instrumentor.uninstrument()
    try:
        assert len(list(stream)) == 2
        streaming().client().chat.completions.create(**STREAM).close()
    finally:
        instrumentor.instrument(skip_dep_check=True)
    assert books.row().nano_usd == CHAT_NANO_USD


def test_instrumented_twice_counts_once(books: Books) -> None:
    from spanledger.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().uninstrument()
    OpenAIInstrumentor().instrument(skip_dep_check=True)
    assert len(list(streaming().client().chat.completions.create(**STREAM))) == 3
    assert books.row().nano_usd == CHAT_NANO_USD
    books.span()


def test_a_fault_of_ours_in_a_stream_reaches_nobody(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spanledger.api import guard
    from spanledger.instrumentation import openai as provider

    def broken(self: Any, chunk: Any) -> bool:
        raise RuntimeError("ours")

    guard.reraise_internal_errors(False)
    monkeypatch.setattr(provider._ChatStream, "observe", broken)
    assert len(list(streaming().client().chat.completions.create(**STREAM))) == 4
    assert guard.internal_errors["stream chunk"] == 4
    books.row()
