"""The real openai SDK against the demo's server: what the wire carries is what the SDK's types say."""

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from spanledger.cli.demo.server import ProviderServer

SYSTEM = {"role": "system", "content": "Be short."}
QUESTION = [SYSTEM, {"role": "user", "content": "What is a ledger?"}]


class Answer(BaseModel):
    headline: str
    points: list[str]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ProviderServer() as running:
        yield running


@pytest.fixture
def client(server):
    with OpenAI(base_url=f"{server.url}/v1", api_key="any") as made:
        yield made


@pytest.fixture
async def async_client(server):
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any") as made:
        yield made


def valid(result):
    """`result`, checked: the SDK itself constructs without a look at the types."""
    return type(result).model_validate(result.to_dict(mode="json"))


def test_chat(client):
    answer = valid(client.chat.completions.create(model="gpt-5-mini", messages=QUESTION, n=2))
    again = client.chat.completions.create(model="gpt-5-mini", messages=QUESTION, n=2)
    usage = answer.usage
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.model == "gpt-5-mini-2025-08-07"
    assert answer.service_tier == "default"
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens % 128 == 0
    assert again.usage == usage
    assert again.id != answer.id


def test_cached_tokens_come_with_a_system_message(client):
    def cached(messages):
        answer = client.chat.completions.create(model="gpt-4.1-mini", messages=messages)
        return answer.usage.prompt_tokens_details.cached_tokens

    users = [{"role": "user", "content": f"Question {n}"} for n in range(4)]
    assert not any(cached([user]) for user in users)
    assert any(cached([SYSTEM, user]) for user in users)


def test_the_callers_limit_holds(client):
    answer = client.chat.completions.create(
        model="gpt-4.1-mini", messages=QUESTION, max_completion_tokens=20, service_tier="flex"
    )
    assert answer.usage.completion_tokens == 20
    assert answer.choices[0].finish_reason == "length"
    assert answer.service_tier == "flex"


def test_parse(client):
    answer = client.chat.completions.parse(
        model="gpt-5.4", messages=QUESTION, response_format=Answer
    )
    assert isinstance(answer.choices[0].message.parsed, Answer)
    response = client.responses.parse(model="gpt-5.4", input="Hello", text_format=Answer)
    assert isinstance(response.output_parsed, Answer)


@pytest.mark.parametrize("asked", [True, False])
def test_chat_stream_has_usage_only_where_it_was_asked_for(client, asked):
    whole = client.chat.completions.create(model="gpt-4.1-mini", messages=QUESTION)
    options = {"stream_options": {"include_usage": True}} if asked else {}
    chunks = [
        valid(chunk)
        for chunk in client.chat.completions.create(
            model="gpt-4.1-mini", messages=QUESTION, stream=True, **options
        )
    ]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert usages == ([whole.usage] if asked else [])
    assert bool(chunks[-1].choices) is not asked
    assert text == whole.choices[0].message.content


def test_chat_stream_helper(client):
    with client.chat.completions.stream(model="gpt-4.1-mini", messages=QUESTION) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_can_be_broken_off_and_the_client_goes_on(client, server):
    with client.chat.completions.create(
        model="gpt-4.1-mini", messages=QUESTION, stream=True
    ) as stream:
        next(iter(stream))
    assert client.embeddings.create(model="text-embedding-3-small", input="x").data
    assert len(server.requests) == 2


async def test_async_chat_and_stream(async_client):
    whole = await async_client.chat.completions.create(model="gpt-4.1-mini", messages=QUESTION)
    stream = await async_client.chat.completions.create(
        model="gpt-4.1-mini", messages=QUESTION, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content


def test_responses_with_web_search(client):
    response = valid(
        client.responses.create(
            model="gpt-5-mini", input="What is new?", tools=[{"type": "web_search"}]
        )
    )
    searches = [item for item in response.output if item.type == "web_search_call"]
    assert response.tool_usage.web_search.num_requests == len(searches) > 0
    assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert response.output_text
    without = client.responses.create(model="gpt-5-mini", input="What is new?")
    assert without.tool_usage.web_search.num_requests == 0


async def test_responses_stream(client, async_client):
    request = {
        "model": "gpt-5-mini",
        "input": "What is new?",
        "tools": [{"type": "web_search"}],
        "stream": True,
    }
    events = list(client.responses.create(**request))
    adapter = TypeAdapter(ResponseStreamEvent)
    for event in events:
        adapter.validate_python(event.to_dict(mode="json"))
    kinds = [event.type async for event in await async_client.responses.create(**request)]
    assert kinds == [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.response.usage for event in events[:2]] == [None, None]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert (kinds[-1], text) == ("response.completed", events[-1].response.output_text)


def test_responses_stream_helper_and_limit(client):
    with client.responses.stream(model="gpt-5-mini", input="Hi", max_output_tokens=16) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.incomplete"


@pytest.mark.parametrize("given", ["one", ["one", "two"], [1, 2, 3], [[1, 2], [3]]])
def test_embeddings(client, given):
    answer = valid(client.embeddings.create(model="text-embedding-3-small", input=given))
    floats = client.embeddings.create(
        model="text-embedding-3-small", input=given, encoding_format="float", dimensions=8
    )
    texts = 1 if given in ("one", [1, 2, 3]) else 2
    assert [item.index for item in answer.data] == list(range(texts))
    assert answer.data[0].embedding[:8] == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert len(floats.data[0].embedding) == 8
    assert answer.usage == floats.usage


def test_errors_and_retries(client, server):
    with pytest.raises(openai.NotFoundError) as gone:
        client.chat.completions.create(model="gpt-4-32k", messages=QUESTION)
    assert gone.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="gpt-5-mini", input="provoke-400")
    assert len(server.requests) == 2
    assert client.embeddings.create(model="m", input="provoke-flaky").data
    assert [r.headers["x-stainless-retry-count"] for r in server.requests[2:]] == ["0", "1"]
    with pytest.raises(openai.RateLimitError):
        client.embeddings.create(model="m", input="provoke-429")
    assert len(server.requests) == 2 + 2 + 3


def test_a_stream_that_is_cut_off_fails_in_the_middle(client):
    with pytest.raises(openai.APIError) as cut:
        for _ in client.responses.create(model="gpt-5-mini", input="provoke-cut", stream=True):
            pass
    assert not isinstance(cut.value, openai.APIStatusError)
