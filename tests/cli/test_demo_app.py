"""The demo's application under the real launcher: what arrives at the providers, and what is booked.

What the providers charged is worked out from the requests that arrived: the server's amounts depend on
them alone.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from spanledger.cli.demo.command import KEYS, environment, find_launcher, journal_url
from spanledger.cli.demo.scavio_wire import CREDITS_AT_START
from spanledger.cli.demo.server import ProviderServer
from spanledger.cli.demo.wire import Request
from spanledger.cli.main import main

BROKEN_OFF = b"And how do I cancel?"


@dataclasses.dataclass(frozen=True)
class Day:
    """One run of the application: its process, the requests that arrived, the credits that are left."""

    process: subprocess.CompletedProcess[str]
    requests: list[Request]
    credits_left: int
    journal: str


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    with ProviderServer() as server:
        done = subprocess.run(
            [find_launcher(), sys.executable, "-m", "spanledger.cli.demo.app"],
            env={
                **environment(os.environ, directory),
                **dict.fromkeys(KEYS, "key"),
                "DEMO_BASE_URL": server.url,
                "NO_PROXY": "127.0.0.1",
            },
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        arrived = list(server.requests)
        usage = server.answer(Request("GET", "/api/v1/usage", {}, {}, b""))
    return Day(done, arrived, usage.body["credit_balance"], journal_url(directory))


@pytest.fixture
def rows(day, capsys):
    """The journal's rows."""
    assert main(["export", "--format", "jsonl", "--journal", day.journal]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_it_ends_well_and_says_little(day):
    done = day.process
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "acme",
        "globex",
        "initech",
        "the old digest failed",
    ]
    assert done.stderr == ""


def test_its_calls_arrive(day):
    requests = day.requests
    polls = [r for r in requests if r.path.startswith("/api/v1/extract/crawl/")]
    arrived = Counter(r.path for r in requests if r not in polls)
    streams = Counter(r.path for r in requests if r.body.get("stream"))
    assert arrived == {
        "/v1/embeddings": 28,
        "/v1/chat/completions": 27,
        "/v1/messages": 26,
        "/v1/responses": 6,
        "/api/v2/google": 12,
        "/api/v2/google/news": 6,
        "/api/v1/walmart/search": 6,
        "/api/v1/indeed/company": 7,
        "/api/v1/linkedin/search/jobs": 6,
        "/api/v1/extract/crawl": 6,
        "/geocode": 6,
    }
    assert streams == {"/v1/chat/completions": 17, "/v1/messages": 14}
    assert len(polls) == 3 * 6


def test_nothing_of_the_attribution_is_on_the_wire(day):
    for request in day.requests:
        assert "baggage" not in request.headers
        assert "u-ada" not in str(request.headers)
        assert b"u-ada" not in request.content


def test_the_books_say_what_the_providers_charged(day, rows):
    charged = Counter()
    with ProviderServer() as again:
        for request in day.requests:
            if BROKEN_OFF in request.content:
                continue
            whole = json.dumps({**request.body, "stream": False}).encode()
            body = again.answer(dataclasses.replace(request, content=whole)).body
            charged += tokens(body.get("usage") or {}, body.get("type") == "message")

    exact = [row for row in rows if row["cost_status"] == "exact"]
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    assert {name: sum(row[name] or 0 for row in exact) for name in names} == charged
    credits_used = sum(int(row["credits"]) for row in rows if row["provider"] == "scavio")
    assert credits_used == CREDITS_AT_START - day.credits_left
    assert [row["cost_usd"] for row in rows if row["provider"] == "geocoder"] == ["0.005"] * 6


def tokens(usage, anthropic):
    """What `usage` says, in the words of the books: input includes what the cache served."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    read = usage.get("cache_read_input_tokens", details.get("cached_tokens", 0))
    written = usage.get("cache_creation_input_tokens", 0)
    given = usage.get("input_tokens", usage.get("prompt_tokens", 0))
    return Counter(
        input_tokens=given + read + written if anthropic else given,
        output_tokens=usage.get("output_tokens", usage.get("completion_tokens", 0)),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def test_every_call_is_booked_once_and_to_its_account(rows):
    # A crawl has a row for its start, and one for each of the two polls that found new credits.
    assert Counter(row["provider"] for row in rows if row["operation"] != "extract.crawl") == {
        "openai": 28 + 27 + 6,
        "anthropic": 26,
        "scavio": 12 + 3 + 6 + 7 + 6,
        "geocoder": 6,
    }
    assert {row["tenant_id"] for row in rows} == {"acme", "globex", "initech"}
    assert {row["feature"] for row in rows} == {
        "competitive-analysis",
        "document-search",
        "lead-enrichment",
        "support-chat",
        "weekly-digest",
    }
    assert {row["feature"] for row in rows if row["user_id"] is None} == {"weekly-digest"}
    assert Counter(row["cost_status"] for row in rows if row["cost_status"] != "exact") == {
        "estimated": 3
    }
    assert Counter(row["operation"] for row in rows if row["outcome"] == "error") == {
        "indeed.company": 1,
        "chat": 1,
    }
