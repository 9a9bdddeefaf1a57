"""The real anthropic SDK against the demo's server."""

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from spanledger.cli.demo.server import ProviderServer

QUESTION = [{"role": "user", "content": "What is a ledger?"}]
SEARCH = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ProviderServer() as running:
        yield running


@pytest.fixture
def client(server):
    with Anthropic(base_url=server.url, api_key="any") as made:
        yield made


def ask(client, **more):
    return client.messages.create(
        **{"model": "claude-haiku-4-5", "max_tokens": 1000, "messages": QUESTION, **more}
    )


def valid(result):
    return type(result).model_validate(result.to_dict(mode="json"))


def test_message(client):
    answer, again = valid(ask(client)), ask(client)
    assert answer.model == "claude-haiku-4-5-20251001"
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens <= 1000
    assert answer.usage.server_tool_use is None
    assert (again.usage, again.id != answer.id) == (answer.usage, True)


def test_the_callers_limit_holds(client):
    answer = ask(client, max_tokens=10)
    assert (answer.usage.output_tokens, answer.stop_reason) == (10, "max_tokens")


def test_the_cache_is_written_once_and_read_afterwards(client):
    def mark(text, ttl):
        return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}}

    rules = mark("the rules", "1h")
    first = ask(client, system=[rules, mark("the handbook", "5m")]).usage
    second = ask(client, system=[rules, mark("the handbook", "5m")]).usage
    third = ask(client, system=[rules, mark("another handbook", "5m")]).usage

    hour = first.cache_creation.ephemeral_1h_input_tokens
    minutes = first.cache_creation.ephemeral_5m_input_tokens
    assert hour > 0 < minutes
    assert (first.cache_read_input_tokens, first.cache_creation_input_tokens) == (0, hour + minutes)
    assert second.cache_read_input_tokens == hour + minutes
    assert second.cache_creation_input_tokens == 0
    assert third.cache_read_input_tokens == hour
    assert third.cache_creation.ephemeral_1h_input_tokens == 0
    assert third.cache_creation.ephemeral_5m_input_tokens > 0
    # Cached tokens are not part of the input tokens: those are the same in all three.
    assert first.input_tokens == second.input_tokens == third.input_tokens


def test_web_search(client):
    answer = valid(ask(client, tools=SEARCH))
    kinds = [block.type for block in answer.content]
    searches = answer.usage.server_tool_use.web_search_requests
    assert 1 <= searches <= 2
    assert kinds == ["server_tool_use", "web_search_tool_result"] * searches + ["text"]


def test_stream_events(client):
    whole = ask(client, tools=SEARCH)
    events = list(ask(client, tools=SEARCH, stream=True))
    adapter = TypeAdapter(RawMessageStreamEvent)
    for event in events:
        adapter.validate_python(event.to_dict(mode="json"))
    assert events[0].message.usage.output_tokens == 1
    assert events[-2].usage.output_tokens == whole.usage.output_tokens
    assert events[-2].usage.server_tool_use == whole.usage.server_tool_use


def test_stream_helper_gathers_what_a_plain_call_returns(client):
    whole = ask(client, tools=SEARCH)
    with client.messages.stream(
        model="claude-haiku-4-5", max_tokens=1000, messages=QUESTION, tools=SEARCH
    ) as stream:
        message = stream.get_final_message()
    assert message.content[-1].text == whole.content[-1].text
    assert message.content[0].input == whole.content[0].input
    assert message.usage.output_tokens == whole.usage.output_tokens


async def test_async(server):
    async with AsyncAnthropic(base_url=server.url, api_key="any") as client:
        answer = await ask(client)
        events = [event async for event in await ask(client, stream=True)]
        async with client.messages.stream(
            model="claude-haiku-4-5", max_tokens=1000, messages=QUESTION
        ) as stream:
            text = await stream.get_final_text()
    assert answer.content[0].text == text
    assert events[-1].type == "message_stop"


def test_beta_and_count_tokens(client):
    beta = client.beta.messages.create(model="claude-haiku-4-5", max_tokens=1000, messages=QUESTION)
    count = client.messages.count_tokens(model="claude-haiku-4-5", messages=QUESTION)
    assert beta.usage.input_tokens == count.input_tokens


def test_a_stream_can_be_broken_off_and_the_client_goes_on(client):
    with ask(client, stream=True) as stream:
        next(iter(stream))
    assert ask(client).content


def test_errors_and_retries(client, server):
    with pytest.raises(anthropic.BadRequestError) as bad:
        ask(client, model="provoke-400")
    assert bad.value.type == "invalid_request_error"
    ask(client, model="provoke-flaky")
    assert [r.headers["x-stainless-retry-count"] for r in server.requests] == ["0", "0", "1"]
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        ask(client, model="provoke-529")
    assert (overloaded.value.status_code, overloaded.value.type) == (529, "overloaded_error")
    assert len(server.requests) == 3 + 3


def test_a_stream_that_is_cut_off_fails_in_the_middle(client):
    events = []
    with pytest.raises(Exception, match="incomplete chunked read"):
        events.extend(ask(client, model="provoke-cut", stream=True))
    assert not any(event.type == "message_stop" for event in events)
