"""Anthropic's API behind the client's own transport: bodies after Anthropic's API reference.

https://docs.anthropic.com/en/api/messages (messages, streaming events, usage).
"""

import json
from typing import Any

import anthropic
import httpx2
from openai_endpoint import Endpoint, Pieces, sse

MODEL = "claude-sonnet-4-6"
CALL = {
    "model": MODEL,
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "How much is the fish?"}],
}
USAGE = {
    "input_tokens": 100,
    "output_tokens": 50,
    "cache_read_input_tokens": 400,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
    "service_tier": "standard",
}
# claude-sonnet-4-6: 3.00 in, 0.30 cache read, 3.75 and 6.00 cache writes of 5 m and 1 h, 15.00 out
# USD per million; 10 USD for a thousand searches. In nano-USD:
STATED_NANO_USD = 100 * 3000 + 400 * 300 + 10 * 3750 + 20 * 6000 + 2 * 10_000_000
"""What the start of a stream states, without the output."""
NANO_USD = STATED_NANO_USD + 50 * 15000


def message(usage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "Three pounds fifty."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE if usage is None else usage,
        **more,
    }


def events(words: int = 3) -> list[dict[str, Any]]:
    start = message({**USAGE, "output_tokens": 1}, content=[], stop_reason=None)
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "12345678"},
            }
            for _ in range(words)
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 50},
        },
        {"type": "message_stop"},
    ]


class AnthropicEndpoint(Endpoint):
    """Messages, whole or streamed, and token counts."""

    def __init__(
        self,
        body: dict[str, Any] | None = None,
        *,
        words: int = 3,
        said: list[dict[str, Any]] | None = None,
        breaks_after: int | None = None,
    ) -> None:
        super().__init__(self._answer)
        self._body = message() if body is None else body
        self._said = events(words) if said is None else said
        self._breaks_after = breaks_after

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("count_tokens"):
            return httpx2.Response(200, json={"input_tokens": 5})
        if json.loads(request.content).get("stream") or request.url.path.endswith("-stream"):
            pieces = sse(self._said, named=True)
            headers = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=headers, stream=Pieces(pieces, self._breaks_after))
        return httpx2.Response(200, json=self._body)

    def client(self, kind: type = anthropic.Anthropic, **options: Any) -> Any:
        is_async = "Async" in kind.__name__
        transport = httpx2.MockTransport(self.asynchronous if is_async else self)
        http = (
            httpx2.AsyncClient(transport=transport)
            if is_async
            else httpx2.Client(transport=transport)
        )
        key = {} if "access_token" in options else {"api_key": "sk-secret"}
        return kind(**{**key, "http_client": http, "max_retries": 0, **options})
