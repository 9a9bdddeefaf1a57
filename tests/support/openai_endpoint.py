"""OpenAI's API behind the client's own transport: bodies after OpenAI's API reference.

https://platform.openai.com/docs/api-reference (chat, responses, embeddings, images, audio).
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import openai

MESSAGES = [{"role": "user", "content": "How much is the fish?"}]
CHAT_USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 150,
    "total_tokens": 1350,
    "prompt_tokens_details": {"cached_tokens": 200, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
# gpt-4o-mini: 0.15, 0.075 cached, 0.60 USD per million:
# 1,000 x 0.15 + 200 x 0.075 + 150 x 0.60 = 150 + 15 + 90 = 255 micro-USD
CHAT_NANO_USD = 255_000


def chat(
    usage: dict[str, Any] | None = None, *, model: str = "gpt-4o-mini", **more: Any
) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Three pounds fifty.", "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1760000000,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": CHAT_USAGE if usage is None else usage,
        **more,
    }


def chunks(
    n: int = 3, *, usage: dict[str, Any] | None, model: str = "gpt-4o-mini"
) -> list[dict[str, Any]]:
    def chunk(choices: list[dict[str, Any]], stated: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1760000000,
            "model": model,
            "choices": choices,
            "usage": stated,
        }

    said = [
        chunk([{"index": 0, "delta": {"content": f"word{i} "}, "finish_reason": None}], None)
        for i in range(n - 1)
    ]
    last = chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}], None)
    return [*said, last, *([chunk([], usage)] if usage else [])]


def response(model: str, stated: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    text = {"type": "output_text", "text": '{"price": 3.5}', "annotations": []}
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1760000000,
        "model": model,
        "status": "completed",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": stated,
        **more,
    }


RESPONSE_USAGE = {
    "input_tokens": 400,
    "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
    "output_tokens": 90,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 490,
}


def sse(events: list[dict[str, Any]], *, named: bool = False) -> list[bytes]:
    lines = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    return [line.encode() for line in lines] + ([] if named else [b"data: [DONE]\n\n"])


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that arrives in pieces, as from a socket; breaks after `breaks_after` of them."""

    def __init__(self, pieces: list[bytes], breaks_after: int | None = None) -> None:
        self.pieces = pieces
        self.breaks_after = breaks_after

    def __iter__(self) -> Iterator[bytes]:
        for number, piece in enumerate(self.pieces):
            if number == self.breaks_after:
                raise httpx2.RemoteProtocolError("peer closed connection")
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class Endpoint:
    """Answers with what the test says, and keeps what arrived."""

    def __init__(self, answer: Callable[[httpx2.Request], httpx2.Response]) -> None:
        self.answer = answer
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self.answer(request)

    async def asynchronous(self, request: httpx2.Request) -> httpx2.Response:
        return self(request)

    @property
    def body(self) -> Any:
        return json.loads(self.requests[-1].content)

    def client(self, kind: type = openai.OpenAI, **options: Any) -> Any:
        is_async = issubclass(kind, openai.AsyncOpenAI)
        transport = httpx2.MockTransport(self.asynchronous if is_async else self)
        http = (
            httpx2.AsyncClient(transport=transport)
            if is_async
            else httpx2.Client(transport=transport)
        )
        return kind(**{"api_key": "sk-secret", "http_client": http, "max_retries": 0, **options})


def answering(body: Any, status: int = 200, **headers: str) -> Endpoint:
    return Endpoint(lambda _: httpx2.Response(status, json=body, headers=headers))


def streaming(
    *, model: str = "gpt-4o-mini", breaks_after: int | None = None, n: int = 3
) -> Endpoint:
    """Chat chunks; the usage chunk only where it was asked for."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked = (json.loads(request.content).get("stream_options") or {}).get("include_usage")
        pieces = sse(chunks(n, usage=CHAT_USAGE if asked else None, model=model))
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=Pieces(pieces, breaks_after))

    return Endpoint(answer)
