"""Claude's streams on Bedrock: AWS's binary event frames instead of lines.

The SDK leaves the frames to botocore, which nothing else here needs. The frames are made by hand
(https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html), and where botocore is not
installed, a decoder of a few lines stands in for it; all around it is the SDK's own.
"""

import base64
import importlib.util
import json
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic._streaming import ServerSentEvent
from anthropic.lib.bedrock import _client, _stream_decoder
from anthropic_endpoint import CALL, AnthropicEndpoint, events
from books import Books
from openai_endpoint import Pieces

from spanledger.api import attribute

ARGUMENTS: dict[str, Any] = {**CALL, "model": "anthropic.claude-sonnet-4-6-20250929-v1:0"}
KINDS = pytest.mark.parametrize(
    "kind", [anthropic.AnthropicBedrock, anthropic.AsyncAnthropicBedrock]
)
# 3.00 in and 15.00 out, and 10 % more at the endpoint of a region.
NANO_USD = (100 * 3000 + 50 * 15000) * 11 // 10


def broken_off(words: int) -> int:
    """What is booked of a stream that ended early: 8 bytes a word are 2 tokens."""
    return (100 * 3000 + 2 * words * 15000) * 11 // 10


# -- frames ----------------------------------------------------------------------------------------


def frame(payload: Any, **headers: str) -> bytes:
    told = b"".join(
        struct.pack(f">B{len(name)}sBH{len(value)}s", len(name), name, 7, len(value), value)
        for name, value in (
            (f":{n}".replace("_", "-").encode(), v.encode()) for n, v in headers.items()
        )
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(told) + len(body), len(told))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + told + body
    return message + struct.pack(">I", zlib.crc32(message))


def chunk(event: dict[str, Any]) -> bytes:
    payload = {"bytes": base64.b64encode(json.dumps(event).encode()).decode()}
    kind = {"event_type": "chunk", "content_type": "application/json", "message_type": "event"}
    return frame(payload, **kind)


def frames(words: int = 3) -> list[bytes]:
    said = events(words)
    said[0]["message"]["usage"] = {"input_tokens": 100, "output_tokens": 1}
    said[-1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 100}
    return [chunk(event) for event in said]


THROTTLED = frame(
    {"message": "Too many tokens, please wait"},
    exception_type="throttlingException",
    content_type="application/json",
    message_type="exception",
)


def answering(pieces: list[bytes], breaks_after: int | None = None) -> AnthropicEndpoint:
    endpoint = AnthropicEndpoint()
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    endpoint.answer = lambda _: httpx2.Response(
        200, headers=headers, stream=Pieces(pieces, breaks_after)
    )
    return endpoint


def client_of(kind: type, endpoint: AnthropicEndpoint) -> Any:
    return endpoint.client(kind, api_key="aws-bearer", aws_region="us-east-1")


class StandIn:
    """`AWSEventStreamDecoder` for whole frames of the two kinds above."""

    def __init__(self) -> None:
        self._rest = b""

    def iter_bytes(self, iterator: Iterator[bytes]) -> Iterator[ServerSentEvent]:
        for piece in iterator:
            yield from self._decoded(piece)

    async def aiter_bytes(self, iterator: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
        async for piece in iterator:
            for event in self._decoded(piece):
                yield event

    def _decoded(self, piece: bytes) -> Iterator[ServerSentEvent]:
        self._rest += piece
        while len(self._rest) >= 8:
            size, headers = struct.unpack_from(">II", self._rest)
            if len(self._rest) < size:
                return
            payload = json.loads(self._rest[12 + headers : size - 4])
            self._rest = self._rest[size:]
            if "bytes" in payload:
                event = _stream_decoder._chunk_bytes_to_sse(base64.b64decode(payload["bytes"]))
                assert event is not None
                yield event
            else:
                error = {"type": "error", "error": {"type": "throttling", **payload}}
                yield ServerSentEvent(data=json.dumps(error), event="error")


@pytest.fixture(autouse=True)
def _decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("botocore") is None:
        monkeypatch.setattr(_client, "AWSEventStreamDecoder", StandIn)


# -- calls -----------------------------------------------------------------------------------------


async def read(result: Any, most: int | None = None) -> list[Any]:
    """The first events of a stream of either kind, or all."""
    got: list[Any] = []
    if hasattr(result, "__await__"):
        stream = await result
        async for event in stream:
            got.append(event)
            if len(got) == most:
                break
        await stream.close()
    else:
        for event in result:
            got.append(event)
            if len(got) == most:
                break
        result.close()
    return got


@KINDS
@pytest.mark.parametrize("beta", [False, True])
async def test_a_stream_is_one_exact_charge(books: Books, kind: type, beta: bool) -> None:
    whole = b"".join(frames())
    pieces = [whole[start : start + 100] for start in range(0, len(whole), 100)]
    client = client_of(kind, endpoint := answering(pieces))
    messages = client.beta.messages if beta else client.messages
    with attribute(tenant="acme"):
        got = await read(messages.create(**ARGUMENTS, stream=True))
    assert [event.type for event in got] == [event["type"] for event in events()]
    assert endpoint.requests[0].url.path.endswith("/invoke-with-response-stream")
    row = books.row()
    assert (row.provider, row.model_requested, row.tenant_id) == (
        "aws.bedrock",
        ARGUMENTS["model"],
        "acme",
    )
    assert (row.nano_usd, row.cost_status, row.outcome) == (NANO_USD, "exact", "ok")
    assert row.first_chunk_ms is not None
    books.span()


@KINDS
async def test_the_helper_is_one_exact_charge(books: Books, kind: type) -> None:
    manager = client_of(kind, answering(frames())).messages.stream(**ARGUMENTS)
    if kind is anthropic.AnthropicBedrock:
        with manager as stream:
            assert stream.get_final_text() == "12345678" * 3
    else:
        async with manager as stream:
            assert await stream.get_final_text() == "12345678" * 3
    assert (books.row().nano_usd, books.row().cost_status) == (NANO_USD, "exact")
    books.span()


@KINDS
async def test_a_stream_closed_early_is_one_estimated_charge(books: Books, kind: type) -> None:
    client = client_of(kind, answering(frames(9)))
    assert len(await read(client.messages.create(**ARGUMENTS, stream=True), 4)) == 4
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome) == (broken_off(2), "estimated", "ok")
    books.span()


def test_a_dropped_stream_is_one_estimated_charge(books: Books) -> None:
    client = client_of(anthropic.AnthropicBedrock, answering(frames(9)))
    stream = client.messages.create(**ARGUMENTS, stream=True)
    for _ in range(5):
        next(stream)
    del stream
    books.collect()
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome) == (broken_off(3), "estimated", "ok")
    books.span()


@KINDS
async def test_a_stream_that_breaks_is_the_users_error_and_estimated(
    books: Books, kind: type
) -> None:
    client = client_of(kind, answering(frames(9), breaks_after=6))
    with pytest.raises(httpx2.RemoteProtocolError):
        await read(client.messages.create(**ARGUMENTS, stream=True))
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome) == (broken_off(4), "estimated", "error")
    books.span()


@KINDS
async def test_an_exception_frame_is_the_users_error_and_estimated(
    books: Books, kind: type
) -> None:
    client = client_of(kind, answering([*frames(9)[:4], THROTTLED]))
    with pytest.raises(anthropic.APIError, match="Too many tokens"):
        await read(client.messages.create(**ARGUMENTS, stream=True))
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome) == (broken_off(2), "estimated", "error")
    books.span()


def test_frames_read_past_the_sdk_state_nothing(books: Books) -> None:
    client = client_of(anthropic.AnthropicBedrock, answering(frames()))
    create = client.messages.with_streaming_response.create
    with create(**ARGUMENTS, stream=True) as answer:
        assert b"".join(answer.iter_bytes()) == b"".join(frames())
    row = books.row()
    # 71 bytes asked are 18 tokens, and all the output that it allows.
    assert (row.nano_usd, row.cost_status) == ((18 * 3000 + 100 * 15000) * 11 // 10, "estimated")
    books.span()
