"""The demo's server against the faults it can be asked for, and against its own clean-up."""

import threading

import httpx
import pytest

from spanledger.cli.demo.server import ProviderServer
from spanledger.cli.demo.wire import draw, example


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ProviderServer() as running:
        yield running


def test_requests_are_kept_as_they_arrived(server):
    with httpx.Client(base_url=server.url, headers={"X-Mine": "yes"}) as client:
        client.post("/v1/embeddings?a=b", json={"model": "m", "input": "hello"})
        client.get("/api/v1/usage")

    first, second = server.requests
    assert (first.method, first.path, first.query) == ("POST", "/v1/embeddings", {"a": "b"})
    assert first.headers["x-mine"] == "yes"
    assert first.body == {"model": "m", "input": "hello"}
    assert (second.method, second.path, second.body) == ("GET", "/api/v1/usage", {})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "{}"}]}),
        ("/v1/messages", {"model": "m", "messages": [{"role": "user", "content": "{}"}]}),
        ("/api/v2/google", {"query": "{}"}),
    ],
)
def test_faults_are_provoked(server, path, body):
    def post(marker):
        content = httpx.Request("POST", server.url, json=body).read()
        return client.post(path, content=content.replace(b"{}", marker.encode()))

    with httpx.Client(base_url=server.url) as client:
        assert post("no fault").status_code == 200
        assert [post("provoke-flaky").status_code for _ in range(4)] == [429, 200, 429, 200]
        assert [post("provoke-503").status_code for _ in range(2)] == [503, 503]
        assert float(post("provoke-429").headers["retry-after"]) == 0.02
        assert "error" in post("provoke-400").json()
        page = post("provoke-html")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html")
        with pytest.raises(httpx.RemoteProtocolError):
            post("provoke-cut")


def test_what_nobody_serves_is_not_found(server):
    assert httpx.get(f"{server.url}/elsewhere").status_code == 404


def test_a_geocoder_answers_the_same_for_the_same_place(server):
    first, again, other = (
        httpx.get(f"{server.url}/geocode", params={"q": place}).json()
        for place in ("stark", "stark", "wayne")
    )
    assert first == again != other


def test_nothing_outlives_the_server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    before = set(threading.enumerate())
    with httpx.Client() as idle, ProviderServer() as server:
        idle.get(f"{server.url}/api/v1/usage")  # its connection is kept alive
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before


def test_drawn_amounts_depend_on_the_request_alone():
    # A published demo shows these figures: another hash would change them all.
    assert draw("hello", "input", 900, 7000) == draw("hello", "input", 900, 7000)
    assert draw("hello", "input", 900, 7000) != draw("hello", "output", 900, 7000)
    drawn = {draw(seed, "x", 1, 3) for seed in range(50)}
    assert drawn == {1, 2, 3}


def test_an_example_follows_its_schema():
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "size": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}},
        },
        "$defs": {"Tag": {"enum": ["red", "blue"]}},
    }
    made = example(schema)
    assert made["size"] == 3
    assert made["tags"] == ["red"]
    assert isinstance(made["name"], str)
