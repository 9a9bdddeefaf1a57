"""No prompt, no answer, no key and no URL query in a span, in a log record or in the journal's file."""

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
import requests
import scavio
from anthropic_endpoint import CALL, AnthropicEndpoint, message
from loopback import Arrived, Loopback
from openai_endpoint import (
    CHAT_USAGE,
    RESPONSE_USAGE,
    Endpoint,
    Pieces,
    answering,
    chat,
    chunks,
    response,
    sse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.api import attribute, feature
from spanledger.api.gate import install_gate
from spanledger.api.settings import Section, Settings
from spanledger.instrumentation.metered import metered
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.streams import flush_streams
from spanledger.processor.startup import Engine

PROMPT, ANSWER, KEY, QUERY = "pr0mpt-marker", "answ3r-marker", "sk-k3y-marker", "qu3ry-marker"
MARKERS = (PROMPT, ANSWER, KEY, QUERY)
CHAT: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}]}
MESSAGE: Any = {**CALL, "messages": CHAT["messages"], "system": PROMPT}


class Kept:
    """An engine with a journal in a file, and everything that leaves the process."""

    def __init__(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.path = path
        self.caplog = caplog
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        use_tracer_provider(provider)
        settings = Settings(root=Section({}, "test"), journal=f"sqlite:///{path}")
        self.engine = Engine(settings, service="test")
        self.engine.book.warm()
        install_gate(self.engine.gate)

    def check(self, calls: int) -> None:
        assert flush_streams()
        assert self.engine.flush()
        assert len(list(self.engine.journal.rows())) == calls
        assert len(self.exporter.get_finished_spans()) == calls
        self.engine.close()
        files = list(self.path.parent.glob(f"{self.path.name}*"))
        assert self.path in files
        said = {
            **{str(file.name): file.read_bytes() for file in files},
            "spans": "".join(s.to_json() for s in self.exporter.get_finished_spans()).encode(),
            "log": self.caplog.text.encode(),
        }
        assert b"acme" in said["spans"]
        assert any(b"acme" in content for name, content in said.items() if name.startswith("j"))
        for place, content in said.items():
            assert not [marker for marker in MARKERS if marker.encode() in content], place


@pytest.fixture
def kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Kept]:
    caplog.set_level(logging.DEBUG, "spanledger")
    made = Kept(tmp_path / "journal.db", caplog)
    with attribute(tenant="acme"), feature("privacy"):
        yield made
    use_tracer_provider(None)
    made.engine.close()


def _told(body: dict[str, Any]) -> dict[str, Any]:
    """`body`, saying the marker wherever it says something."""
    text = json.dumps(body).replace("Three pounds fifty.", ANSWER).replace("word0", ANSWER)
    told: dict[str, Any] = json.loads(text)
    return told


def _streaming(broken: int | None = None) -> Endpoint:
    pieces = sse([_told(chunk) for chunk in chunks(5, usage=CHAT_USAGE)])
    headers = {"content-type": "text/event-stream"}
    return Endpoint(lambda _: httpx2.Response(200, headers=headers, stream=Pieces(pieces, broken)))


def _client(endpoint: Endpoint, kind: type = openai.OpenAI) -> Any:
    return endpoint.client(
        kind, api_key=KEY, default_query={"secret": QUERY}, organization=KEY, project=KEY
    )


def _failing(status: int) -> Endpoint:
    return answering(
        {"error": {"message": f"{PROMPT} {KEY} is not allowed", "code": ANSWER}}, status
    )


def test_openai(kept: Kept) -> None:
    _client(answering(_told(chat()))).chat.completions.create(**CHAT, user=PROMPT)
    list(_client(_streaming()).chat.completions.create(**CHAT, stream=True))
    with pytest.raises(openai.APIConnectionError):
        list(_client(_streaming(broken=2)).chat.completions.create(**CHAT, stream=True))
    create = _client(_streaming()).chat.completions.with_streaming_response.create
    with create(**CHAT, stream=True) as answer:
        list(answer.iter_lines())
    body = response("gpt-5", RESPONSE_USAGE, instructions=PROMPT)
    body["output"][0]["content"][0]["text"] = ANSWER
    _client(answering(body)).responses.create(input=PROMPT, instructions=PROMPT, model="gpt-5")
    for status in (400, 401, 500):
        with pytest.raises(openai.APIStatusError):
            _client(_failing(status)).chat.completions.create(**CHAT)
    _client(Endpoint(lambda _: httpx2.Response(200, html=ANSWER))).chat.completions.create(**CHAT)
    spoken = Endpoint(lambda _: httpx2.Response(200, content=ANSWER.encode()))
    _client(spoken).audio.speech.create(input=PROMPT, model="tts-1", voice="alloy")
    _client(answering({"text": ANSWER})).audio.transcriptions.create(
        file=(f"{PROMPT}.wav", io.BytesIO(b"RIFF"), "audio/wav"), model="whisper-1", prompt=PROMPT
    )
    kept.check(11)


def test_anthropic(kept: Kept) -> None:
    body = message(content=[{"type": "text", "text": ANSWER}])
    client = AnthropicEndpoint(body).client(anthropic.Anthropic, api_key=KEY)
    client.messages.create(**MESSAGE)
    list(client.messages.create(**MESSAGE, stream=True))
    refused = AnthropicEndpoint()
    error = {"type": "error", "error": {"type": ANSWER, "message": f"{PROMPT} {KEY}"}}
    refused.answer = lambda _: httpx2.Response(400, json=error)
    with pytest.raises(anthropic.BadRequestError):
        refused.client(anthropic.Anthropic, api_key=KEY).messages.create(**MESSAGE)
    kept.check(3)


def test_scavio_and_metered(kept: Kept) -> None:
    def answer(arrived: Arrived) -> Any:
        if "raw" in arrived.path:
            return 200, {"text": ANSWER}
        if QUERY in str(arrived.body):
            return 404, {"error": f"{QUERY} {KEY}", "credits_used": 1}
        return 200, {"organic_results": [{"title": ANSWER}], "credits_used": 1}

    options: Any = {"api_key": KEY, "max_requests_per_second": 50, "max_retries": 0}
    with Loopback(answer) as server:
        with scavio.ScavioClient(base_url=server.url, **options) as client:
            client.google.search(PROMPT)
            with pytest.raises(scavio.NotFoundError):
                client.google.search(QUERY)

        @metered(provider="raw", operation="get", credits=1)
        def fetch(prompt: str, *, key: str) -> Any:
            url = f"{server.url}/raw?q={QUERY}"
            return requests.get(url, headers={"authorization": key}, timeout=5).json()

        assert fetch(PROMPT, key=KEY) == {"text": ANSWER}
    kept.check(3)


def test_our_own_faults_tell_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    from spanledger.api import guard

    guard.reraise_internal_errors(False)
    odd = chat()
    odd["usage"] = {"prompt_tokens": ANSWER, "completion_tokens": {"x": PROMPT}}
    odd["choices"] = ANSWER
    odd["service_tier"] = [ANSWER]
    odd["id"] = 7
    with contextlib.suppress(Exception):  # what the SDK makes of it is its own affair
        _client(answering(odd)).chat.completions.create(**CHAT)
    kept.check(1)


def test_an_async_call_that_is_cancelled(kept: Kept) -> None:
    async def answer(_: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(10)
        raise AssertionError

    async def main() -> None:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        client = openai.AsyncOpenAI(api_key=KEY, http_client=http, max_retries=0)
        task = asyncio.create_task(client.chat.completions.create(**CHAT))
        await asyncio.sleep(0.02)
        task.cancel(PROMPT)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    kept.check(1)
