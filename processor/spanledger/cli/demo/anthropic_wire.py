"""Anthropic's wire protocol: messages as JSON and as server-sent events, and the token count.

A prompt cache is kept: the first request with a marked prefix writes it, later ones read it. The
two lifetimes (five minutes, an hour) differ in how they are reported only.
"""

import json
import threading
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final, cast

from spanledger.cli.demo.wire import Json, Reply, Request, draw, new_id, prose, sse

_SNAPSHOTS: Final = {"claude-haiku-4-5": "claude-haiku-4-5-20251001"}
_ERRORS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicWire:
    def __init__(self) -> None:
        self._cached: set[str] = set()
        self._lock = threading.Lock()

    def serves(self, request: Request) -> bool:
        return request.path.endswith(("/messages", "/messages/count_tokens"))

    def answer(self, request: Request) -> Reply:
        body = request.body
        headers = {"request-id": new_id("req_")}
        if request.path.endswith("/count_tokens"):
            tokens = draw(body.get("messages"), "input", 200, 2500)
            return Reply({"input_tokens": tokens}, headers=headers)
        message = self._message(body)
        if body.get("stream"):
            return Reply(headers=headers, events=_events(message))
        return Reply(message, headers=headers)

    def error(self, status: int, message: str) -> Json:
        kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        error = {"type": kind, "message": message}
        return {"type": "error", "error": error, "request_id": new_id("req_")}

    def _message(self, body: Json) -> Json:
        prompt = body.get("messages")
        asked = str(body.get("model", "claude-haiku-4-5"))
        limit = int(body.get("max_tokens") or 10**6)
        drawn = draw(prompt, "output", 80, 900)
        searches = _searches(body)
        usage: Json = {
            "input_tokens": draw(prompt, "input", 200, 2500),
            **self._cache_usage(body),
            "output_tokens": min(drawn, limit),
            "server_tool_use": {"web_search_requests": searches, "web_fetch_requests": 0}
            if searches
            else None,
            "service_tier": "standard",
        }
        text = {"type": "text", "text": "".join(prose(prompt, draw(prompt, "words", 12, 30)))}
        return {
            "id": new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": _SNAPSHOTS.get(asked, asked),
            "content": [*chain.from_iterable(_search(n) for n in range(searches)), text],
            "stop_reason": "max_tokens" if drawn > limit else "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }

    def _cache_usage(self, body: Json) -> Json:
        """Tokens read from and written to the cache, by the marks in the request."""
        read = 0
        written = {"5m": 0, "1h": 0}
        prefix = str(body.get("model"))
        for block in _blocks(body):
            mark: Json | None = block.get("cache_control")
            prefix = f"{prefix}\n{json.dumps({**block, 'cache_control': None}, sort_keys=True)}"
            if mark is None:
                continue
            tokens = draw(prefix, "prefix", 1500, 6000)
            with self._lock:
                known = prefix in self._cached
                self._cached.add(prefix)
            if known:
                read += tokens
            else:
                written[mark.get("ttl") or "5m"] += tokens
        return {
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": sum(written.values()),
            "cache_creation": {
                "ephemeral_5m_input_tokens": written["5m"],
                "ephemeral_1h_input_tokens": written["1h"],
            },
        }


def _blocks(body: Json) -> Iterator[Json]:
    """The blocks of a prompt in the order in which they make up a cached prefix."""
    yield from body.get("tools") or []
    messages: list[Json] = body.get("messages") or []
    for content in (body.get("system"), *(message.get("content") for message in messages)):
        if isinstance(content, list):
            yield from cast("list[Json]", content)
        elif content:
            yield {"type": "text", "text": content}


def _searches(body: Json) -> int:
    tools: list[Json] = body.get("tools") or []
    for tool in tools:
        if str(tool.get("type")).startswith("web_search"):
            return min(int(tool.get("max_uses") or 3), draw(body.get("messages"), "searches", 1, 3))
    return 0


def _search(number: int) -> tuple[Json, Json]:
    use = new_id("srvtoolu_")
    result = {
        "type": "web_search_result",
        "url": f"https://news.example/{number}",
        "title": f"Result {number}",
        "encrypted_content": "b3BhcXVl",
        "page_age": None,
    }
    asked = {
        "type": "server_tool_use",
        "id": use,
        "name": "web_search",
        "input": {"query": f"query {number}"},
    }
    return asked, {"type": "web_search_tool_result", "tool_use_id": use, "content": [result]}


def _events(message: Json) -> Iterator[str]:
    def event(kind: str, **data: Any) -> str:
        return sse({"type": kind, **data}, kind)

    usage = message["usage"]
    early = {**usage, "output_tokens": 1, "server_tool_use": None}
    started = {**message, "content": [], "stop_reason": None, "usage": early}
    yield event("message_start", message=started)
    yield event("ping")
    for index, block in enumerate(message["content"]):
        empty, deltas = _deltas(block)
        yield event("content_block_start", index=index, content_block=empty)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    keys = (
        "input_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "output_tokens",
        "server_tool_use",
    )
    yield event(
        "message_delta",
        delta={"stop_reason": message["stop_reason"], "stop_sequence": None},
        usage={key: usage[key] for key in keys},
    )
    yield event("message_stop")


def _deltas(block: Json) -> tuple[Json, list[Json]]:
    """A content block as it starts in a stream, and the deltas that complete it."""
    if block["type"] == "text":
        words = str(block["text"]).split(" ")
        pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
        return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
    if block["type"] == "server_tool_use":
        text = json.dumps(block["input"])
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
    return block, []
