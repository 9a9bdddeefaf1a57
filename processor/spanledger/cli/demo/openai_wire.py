"""OpenAI's wire protocol: chat completions, responses, embeddings; as JSON and as events."""

import base64
import json
import struct
import time
from collections.abc import Iterator
from typing import Any, Final, cast

from spanledger.cli.demo.wire import Json, Reply, Request, draw, example, new_id, prose, sse

# The provider answers in the name of a dated snapshot where one was asked for by its short name.
_SNAPSHOTS: Final = {
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5.4": "gpt-5.4-2026-03-05",
    "gpt-5.4-mini": "gpt-5.4-mini-2026-03-17",
}
_SHUT_DOWN: Final = ("gpt-4-32k", "gpt-3.5-turbo-16k")
_REASONS: Final = ("gpt-5", "gpt-6", "o1", "o3", "o4")
_CACHE_STEP: Final = 128
_DIMENSIONS: Final = 256


class OpenAIWire:
    """Answers below any prefix, as OpenAI, Azure and the compatible providers do."""

    def serves(self, request: Request) -> bool:
        return request.path.endswith(("/chat/completions", "/responses", "/embeddings"))

    def answer(self, request: Request) -> Reply:
        body = request.body
        model = body.get("model")
        if model in _SHUT_DOWN:
            return Reply(self.error(404, f"The model `{model}` has been shut down"), 404)
        headers = {"x-request-id": new_id("req_")}
        if request.path.endswith("/embeddings"):
            return Reply(_embeddings(body), headers=headers)
        if request.path.endswith("/responses"):
            response = _response(body)
            if body.get("stream"):
                return Reply(headers=headers, events=_response_events(response))
            return Reply(response, headers=headers)
        if body.get("stream"):
            return Reply(headers=headers, events=_chat_events(body))
        return Reply(_chat(body), headers=headers)

    def error(self, status: int, message: str) -> Json:
        kind = "invalid_request_error" if status < 429 else "server_error"
        code = {404: "model_not_found", 429: "rate_limit_exceeded"}.get(status)
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _served(body: Json) -> str:
    asked = str(body.get("model", "gpt-5-mini"))
    return _SNAPSHOTS.get(asked, asked)


def _tier(body: Json) -> str:
    tier = str(body.get("service_tier") or "default")
    return "default" if tier == "auto" else tier


class _Amounts:
    """Tokens of one call, drawn from its prompt."""

    def __init__(self, body: Json, prompt: object) -> None:
        limit = body.get("max_completion_tokens") or body.get("max_output_tokens")
        self.limit = int(limit or body.get("max_tokens") or 10**6)
        self.input = draw(prompt, "input", 900, 7000)
        # A prompt with a system message begins like earlier ones: part of it is in the cache.
        shares = draw(prompt, "cached", 0, 3) if _has_system(body) else 0
        self.cached = self.input * shares // 4 // _CACHE_STEP * _CACHE_STEP
        drawn = draw(prompt, "output", 80, 900)
        self.cut_short = drawn > self.limit
        self.output = min(drawn, self.limit) * int(body.get("n") or 1)
        self.reasoning = self.output // 3 if _served(body).startswith(_REASONS) else 0


def _has_system(body: Json) -> bool:
    messages: list[Json] = body.get("messages", [])
    return bool(body.get("instructions")) or any(
        message.get("role") in ("system", "developer") for message in messages
    )


def _pieces(prompt: object, output_format: Json) -> list[str]:
    if output_format.get("type") == "json_schema":
        # Chat completions nest the schema one level deeper than responses do.
        return [json.dumps(example(output_format.get("json_schema", output_format)["schema"]))]
    return prose(prompt, draw(prompt, "words", 12, 30))


# -- chat completions ------------------------------------------------------------------------------


def _chat_usage(amounts: _Amounts) -> Json:
    return {
        "prompt_tokens": amounts.input,
        "completion_tokens": amounts.output,
        "total_tokens": amounts.input + amounts.output,
        "prompt_tokens_details": {"cached_tokens": amounts.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": amounts.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _chat_head(body: Json, kind: str) -> Json:
    return {
        "id": new_id("chatcmpl-"),
        "object": kind,
        "created": int(time.time()),
        "model": _served(body),
        "service_tier": _tier(body),
    }


def _chat(body: Json) -> Json:
    prompt = body.get("messages")
    amounts = _Amounts(body, prompt)
    text = "".join(_pieces(prompt, body.get("response_format") or {}))
    choices: list[Json] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "length" if amounts.cut_short else "stop",
        }
        for index in range(int(body.get("n") or 1))
    ]
    return {
        **_chat_head(body, "chat.completion"),
        "choices": choices,
        "usage": _chat_usage(amounts),
    }


def _chat_events(body: Json) -> Iterator[str]:
    prompt = body.get("messages")
    amounts = _Amounts(body, prompt)
    head = _chat_head(body, "chat.completion.chunk")
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    if asked:
        head["usage"] = None

    def chunk(index: int, delta: Json, finish: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**head, "choices": [choice]})

    choices = range(int(body.get("n") or 1))
    for index in choices:
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
    for piece in _pieces(prompt, body.get("response_format") or {}):
        for index in choices:
            yield chunk(index, {"content": piece})
    for index in choices:
        yield chunk(index, {}, "length" if amounts.cut_short else "stop")
    if asked:
        yield sse({**head, "choices": [], "usage": _chat_usage(amounts)})
    yield sse("[DONE]")


# -- responses -------------------------------------------------------------------------------------


def _searches(body: Json) -> int:
    tools: list[Json] = body.get("tools") or []
    offered = any(str(tool.get("type")).startswith("web_search") for tool in tools)
    return draw(body.get("input"), "searches", 1, 3) if offered else 0


def _response(body: Json) -> Json:
    prompt = body.get("input")
    amounts = _Amounts(body, prompt)
    searches = _searches(body)
    text = "".join(_pieces(prompt, (body.get("text") or {}).get("format") or {}))
    output: list[Json] = [
        {
            "type": "web_search_call",
            "id": new_id("ws_"),
            "status": "completed",
            "action": {"type": "search", "query": f"query {number}"},
        }
        for number in range(1, searches + 1)
    ]
    content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    output.append(
        {
            "type": "message",
            "id": new_id("msg_"),
            "status": "completed",
            "role": "assistant",
            "content": [content],
        }
    )
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if amounts.cut_short else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if amounts.cut_short else None,
        "error": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": _served(body),
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "service_tier": _tier(body),
        "tool_usage": {"image_gen": _no_images(), "web_search": {"num_requests": searches}},
        "usage": {
            "input_tokens": amounts.input,
            "input_tokens_details": {"cached_tokens": amounts.cached, "cache_write_tokens": 0},
            "output_tokens": amounts.output,
            "output_tokens_details": {"reasoning_tokens": amounts.reasoning},
            "total_tokens": amounts.input + amounts.output,
        },
    }


def _no_images() -> Json:
    none = {"image_tokens": 0, "text_tokens": 0}
    return {
        "input_tokens": 0,
        "input_tokens_details": none,
        "output_tokens": 0,
        "output_tokens_details": none,
        "total_tokens": 0,
    }


def _response_events(response: Json) -> Iterator[str]:
    number = -1

    def event(kind: str, **data: Any) -> str:
        nonlocal number
        number += 1
        return sse({"type": kind, "sequence_number": number, **data}, kind)

    unfinished: Json = {
        "status": "in_progress",
        "output": [],
        "usage": None,
        "incomplete_details": None,
    }
    for kind in ("response.created", "response.in_progress"):
        yield event(kind, response={**response, **unfinished})
    for index, item in enumerate(response["output"]):
        started = {**item, "status": "in_progress"}
        if item["type"] == "message":
            started["content"] = []
        yield event("response.output_item.added", output_index=index, item=started)
        if item["type"] == "message":
            place = {"item_id": item["id"], "output_index": index, "content_index": 0}
            part = item["content"][0]
            empty = {**part, "text": ""}
            yield event("response.content_part.added", **place, part=empty)
            for piece in _split(part["text"]):
                yield event("response.output_text.delta", **place, delta=piece, logprobs=[])
            yield event("response.output_text.done", **place, text=part["text"], logprobs=[])
            yield event("response.content_part.done", **place, part=part)
        yield event("response.output_item.done", output_index=index, item=item)
    yield event(f"response.{response['status']}", response=response)


def _split(text: str) -> list[str]:
    words = text.split(" ")
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)]


# -- embeddings ------------------------------------------------------------------------------------


def _embeddings(body: Json) -> Json:
    texts = _inputs(body.get("input"))
    size = int(body.get("dimensions") or _DIMENSIONS)
    data: list[Json] = []
    for index, text in enumerate(texts):
        vector = [draw(text, f"dimension {i}", -1000, 1000) / 1000 for i in range(min(size, 8))]
        vector += [0.0] * (size - len(vector))
        packed = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
        value = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = sum(draw(text, "input", 200, 1500) for text in texts)
    return {
        "object": "list",
        "data": data,
        "model": body.get("model"),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _inputs(given: object) -> list[object]:
    """The texts to embed: one, or several; each a string or a list of token numbers."""
    if not isinstance(given, list):
        return [given]
    several = cast("list[object]", given)
    return [several] if several and isinstance(several[0], int) else several
