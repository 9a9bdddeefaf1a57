"""The real scavio SDK against the demo's server."""

import pytest
import scavio
from scavio import AsyncScavioClient, ScavioClient
from scavio._spec import ENDPOINTS

from spanledger.cli.demo.scavio_wire import (
    BY_PATH,
    BY_PLATFORM,
    CREDITS_AT_START,
    credits_for,
)
from spanledger.cli.demo.server import ProviderServer


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ProviderServer() as running:
        yield running


@pytest.fixture
def client(server):
    return ScavioClient(api_key="any", base_url=server.url, max_requests_per_second=50)


def test_search_uses_credits(client):
    first = client.google.search("ledgers")
    second = client.linkedin.search_jobs("accountant")
    assert first["organic_results"][0]["title"] == "ledgers, result 1"
    assert (first["credits_used"], second["credits_used"]) == (1, 10)
    assert first["credits_remaining"] == CREDITS_AT_START - 1
    assert second["credits_remaining"] == CREDITS_AT_START - 11
    assert client.get_usage()["credit_balance"] == CREDITS_AT_START - 11
    assert client.google.news(query="ledgers")["news_results"]


def test_prices_are_those_the_sdk_describes():
    by_path = {e.path.removeprefix("/api/v1/"): e.credits for e in ENDPOINTS.values()}
    platforms = [path for path in by_path if path.split("/")[0] in BY_PLATFORM]
    assert {path: by_path[path] for path in BY_PATH} == BY_PATH
    assert {p: by_path[p] for p in platforms} == {p: credits_for(p, {}) for p in platforms}


@pytest.mark.parametrize(
    ("call", "price"),
    [
        (lambda c: c.walmart.search("milk"), 1),
        (lambda c: c.walmart.search("milk", domain="com.mx"), 2),
        (lambda c: c.walmart.search("milk", delivery_zip="10025", store_id="7"), 2),
        (lambda c: c.threads.profile(user_id="1"), 2),
        (lambda c: c.threads.profile(username="zuck"), 4),
        (lambda c: c.extract("https://a.example"), 1),
        (lambda c: c.extract("https://a.example", mode="ultra"), 2),
        (lambda c: c.extract.map("https://a.example", mode="ultra"), 10),
    ],
)
def test_the_body_prices_a_call(client, call, price):
    assert call(client)["credits_used"] == price


def test_some_misses_are_billed(client):
    with pytest.raises(scavio.NotFoundError) as billed:
        client.indeed.company("unknown-startup")
    with pytest.raises(scavio.NotFoundError) as free:
        client.tiktok.user_region("unknown-startup")
    assert billed.value.response_body["credits_used"] == 2
    assert free.value.response_body["credits_used"] == 0
    assert free.value.response_body["credits_remaining"] == CREDITS_AT_START - 2


def test_errors_and_retries(client, server):
    with pytest.raises(scavio.InsufficientCreditsError):
        client.google.search("provoke-402")
    assert client.google.search("provoke-flaky")["credits_used"] == 1
    with pytest.raises(scavio.RateLimitError):
        client.google.search("provoke-429")
    assert len(server.requests) == 1 + 2 + 3


def test_a_crawls_credits_arrive_while_polling(client):
    created = client.extract.crawl("https://a.example", max_pages=6)
    job = created["data"]["id"]
    reports = [client.extract.crawl_status(job)["data"] for _ in range(3)]
    used = [report["credits_used"] for report in reports]
    assert created["credits_used"] == 0
    assert [report["status"] for report in reports] == ["running", "completed", "completed"]
    assert 0 < used[0] < used[1] == used[2] == reports[2]["pages"]["succeeded"]
    assert client.get_usage()["credit_balance"] == CREDITS_AT_START - used[2]
    with pytest.raises(scavio.ScavioAPIError) as finished:
        client.extract.cancel_crawl(job)
    assert finished.value.status_code == 409
    with pytest.raises(scavio.NotFoundError):
        client.extract.crawl_status("crawl_of_somebody_else")


def test_a_cancelled_crawl_uses_no_more(client):
    job = client.extract.crawl("https://a.example")["data"]["id"]
    used = client.extract.crawl_status(job)["data"]["credits_used"]
    client.extract.cancel_crawl(job)
    after = client.extract.crawl_status(job)["data"]
    assert (after["status"], after["credits_used"]) == ("cancelled", used)


def test_waiting_for_jobs(client, server):
    pages = [f"https://a.example/{n}" for n in range(5)]
    batch = client.extract.batch(pages, mode="ultra", wait=True, poll_interval=0.01)["data"]
    assert [result["url"] for result in batch["results"]] == pages
    assert batch["credits_used"] == 2 * batch["pages"]["succeeded"]
    assert batch["pages"]["succeeded"] + batch["pages"]["failed"] == 5
    job = client.extract.crawl("https://b.example", max_pages=5)["data"]["id"]
    for _ in range(2):
        client.extract.crawl_status(job)
    page = client.extract.crawl_status(job, limit=2, include_content=False)["data"]
    rest = client.extract.crawl_status(job, cursor=page["next_cursor"])["data"]
    assert [len(page["results"]), "content" in page["results"][0]] == [2, False]
    assert page["results"][1]["url"] != rest["results"][0]["url"]
    assert rest["next_cursor"] is None


def test_the_same_key_is_the_same_job(client):
    first, again, other = (
        client.extract.crawl("https://a.example", idempotency_key=key)["data"]["id"]
        for key in ("k", "k", "l")
    )
    assert first == again != other


async def test_async(server):
    async with AsyncScavioClient(
        api_key="any", base_url=server.url, max_requests_per_second=50
    ) as client:
        found = await client.google.search("ledgers provoke-flaky")
        crawl = await client.extract.crawl("https://a.example", wait=True, poll_interval=0.01)
        with pytest.raises(scavio.NotFoundError):
            await client.indeed.job("unknown-job")
    assert found["credits_used"] == 1
    assert crawl["data"]["status"] == "completed"
