"""Scout: what a small SaaS company might run. It watches its customers' competitors.

It says on whose account its work is done (`attribute`, `feature`) and what a call of an API without
an SDK costs (`metered`); it knows nothing else of spanledger.

`python -m spanledger.cli.demo.app` runs it; DEMO_BASE_URL says where the providers are.
"""

import asyncio
import json
import os
import sys
from collections.abc import Generator
from decimal import Decimal
from typing import Final, NamedTuple
from urllib.parse import quote
from urllib.request import urlopen

from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import TextBlockParam
from openai import AsyncOpenAI, NotFoundError, OpenAI
from pydantic import BaseModel
from scavio import AsyncScavioClient, ScavioClient
from scavio import NotFoundError as NothingFound

from spanledger.api import attribute, feature
from spanledger.instrumentation.metered import metered

BASE_URL: Final = os.environ["DEMO_BASE_URL"]
HANDBOOK: Final = (
    "You write for sales teams: short, sober, and with a source for every number. " * 40
)
SEARCHES_PER_S: Final = 50

openai = OpenAI(base_url=f"{BASE_URL}/v1")
openai_async = AsyncOpenAI(base_url=f"{BASE_URL}/v1")
anthropic = Anthropic(base_url=BASE_URL)
anthropic_async = AsyncAnthropic(base_url=BASE_URL)
scavio = ScavioClient(base_url=BASE_URL, max_requests_per_second=SEARCHES_PER_S)


class Customer(NamedTuple):
    """A tenant of Scout: who works there, whom they compete with, what they ask."""

    name: str
    users: tuple[str, ...]
    rivals: tuple[str, ...]
    questions: tuple[str, ...]
    leads: tuple[str, ...]


CUSTOMERS: Final = (
    Customer(
        "acme",
        ("u-ada", "u-grace", "u-alan"),
        ("wile", "coyote-works", "roadrunner"),
        ("How do I reset my password?", "Where are my invoices?", "Can I export a report?"),
        ("stark", "wayne", "umbrella", "unknown-startup"),
    ),
    Customer(
        "globex",
        ("u-hank", "u-homer"),
        ("shelbyville-power", "monorail"),
        ("Why is the digest late?", "Who can see my data?"),
        ("tyrell", "cyberdyne"),
    ),
    Customer("initech", ("u-peter",), ("initrode",), ("What is a TPS report?",), ("hooli",)),
)


class Digest(BaseModel):
    headline: str
    points: list[str]


@feature("competitive-analysis")
def competitive_analysis(customer: Customer) -> str:
    """Search the web and the shops for each rival, then let a model compare."""
    facts: list[str] = []
    for rival in customer.rivals:
        pages = scavio.google.search(f"{rival} pricing")["organic_results"]
        offers = scavio.walmart.search(rival, domain="com.mx")["data"]["products"]
        facts += [item["title"] for item in (*pages, *offers)]
        news = openai.responses.create(
            model="gpt-5-mini",
            input=f"What did {rival} announce lately?",
            tools=[{"type": "web_search"}],
        )
        facts.append(news.output_text)
    answer = anthropic.messages.create(
        model="claude-sonnet-4-6",
        max_tokens=1000,
        system=[{"type": "text", "text": HANDBOOK, "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": f"Compare {customer.name} with: {'; '.join(facts)}"}],
    )
    return "".join(block.text for block in answer.content if block.type == "text")


@feature("support-chat")
def support_chat(question: str) -> Generator[str, None, None]:
    """Answer while the model is still writing."""
    with openai.chat.completions.create(
        model="gpt-4.1-mini",
        messages=[
            {"role": "system", "content": "You are Scout's support."},
            {"role": "user", "content": question},
        ],
        stream=True,
    ) as stream:
        for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield text


@feature("document-search")
async def document_search(customer: Customer, question: str) -> str:
    """Find passages by their embeddings and let a model answer from them."""
    documents = [f"{customer.name}, document {number}" for number in range(1, 9)]
    await asyncio.gather(
        openai_async.embeddings.create(model="text-embedding-3-small", input=documents),
        openai_async.embeddings.create(model="text-embedding-3-small", input=question),
    )
    async with anthropic_async.messages.stream(
        model="claude-haiku-4-5",
        max_tokens=600,
        messages=[{"role": "user", "content": f"{question} Answer from: {'; '.join(documents)}"}],
    ) as stream:
        return await stream.get_final_text()


@metered(provider="geocoder", operation="geocode", cost=Decimal("0.005"))
def geocode(place: str) -> tuple[float, float]:
    """A paid API without an SDK."""
    with urlopen(f"{BASE_URL}/geocode?q={quote(place)}") as answer:  # noqa: S310 - our own URL
        found = json.load(answer)
    return found["lat"], found["lon"]


@feature("lead-enrichment")
async def enrich_leads(leads: tuple[str, ...]) -> int:
    """Look up companies in several places at once. Returns how many were found."""

    async def enrich(lead: str) -> bool:
        try:
            await search.indeed.company(lead)
        except NothingFound:  # the provider bills this answer all the same
            return False
        await asyncio.gather(
            search.google.search(f"{lead} head office"),
            search.linkedin.search_jobs(lead),
            asyncio.to_thread(geocode, lead),
        )
        await openai_async.chat.completions.create(
            model="gpt-5.4-mini",
            messages=[{"role": "user", "content": f"Summarise the company {lead}"}],
            max_completion_tokens=400,
        )
        return True

    async with AsyncScavioClient(
        base_url=BASE_URL, max_requests_per_second=SEARCHES_PER_S
    ) as search:
        return sum(await asyncio.gather(*(enrich(lead) for lead in leads)))


@feature("weekly-digest")
def weekly_digest(customer: Customer) -> str:
    """Crawl the rivals' blogs, read the news, and write it up."""
    pages = 0
    for rival in customer.rivals:
        crawl = scavio.extract.crawl(
            f"https://{rival}.example/blog", max_pages=8, wait=True, poll_interval=0.1
        )
        pages += crawl["data"]["pages"]["succeeded"]
    # The demo's server turns away a "provoke-flaky" request once; the SDK tries again.
    scavio.google.news(query=f"{customer.rivals[0]} provoke-flaky")
    # One conversation: its beginning is kept in the provider's cache for an hour.
    handbook: TextBlockParam = {
        "type": "text",
        "text": HANDBOOK + customer.name,
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
    for section in ("pricing", "hiring", "product"):
        anthropic.messages.create(
            model="claude-sonnet-4-6",
            max_tokens=800,
            system=[handbook],
            messages=[{"role": "user", "content": f"{section} news from {pages} pages"}],
        )
    digest = openai.chat.completions.parse(
        model="gpt-5.4",
        messages=[{"role": "user", "content": f"The digest of {customer.name}"}],
        response_format=Digest,
        service_tier="flex",
    )
    parsed = digest.choices[0].message.parsed
    return parsed.headline if parsed else ""


@feature("weekly-digest")
def old_digest() -> None:
    """A forgotten job that asks for a model which is gone."""
    try:
        openai.chat.completions.create(
            model="gpt-4-32k", messages=[{"role": "user", "content": "The digest"}]
        )
    except NotFoundError as error:
        print(f"the old digest failed: {error.code}")


async def day(customer: Customer) -> None:
    """One day of one customer."""
    for user in customer.users:
        with attribute(tenant=customer.name, user=user):
            for question in customer.questions:
                await document_search(customer, question)
                for _ in support_chat(question):
                    pass
    with attribute(tenant=customer.name, user=customer.users[0]):
        competitive_analysis(customer)
        found = await enrich_leads(customer.leads)
        chat = support_chat("And how do I cancel?")
        next(chat)
        chat.close()  # the user has closed the window
    with attribute(tenant=customer.name):  # a nightly job: no user
        headline = weekly_digest(customer)
    print(f"{customer.name}: {found} of {len(customer.leads)} leads found; digest: {headline}")


async def main() -> None:
    """One day of Scout."""
    async with openai_async, anthropic_async:
        for customer in CUSTOMERS:
            await day(customer)
    with attribute(tenant="initech"):
        old_digest()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
