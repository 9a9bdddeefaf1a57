"""A small application for the launcher's tests: it makes a fixed set of calls and knows nothing of spanledger but its API."""

import asyncio
import os
import sys

import anthropic
import openai
from anthropic_endpoint import CALL, AnthropicEndpoint
from openai_endpoint import MESSAGES, answering, chat, streaming

from spanledger.api import attribute, feature
from spanledger.instrumentation.metered import metered

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}


@metered(provider="geocoder", operation="geocode", cost="0.005")
def geocode(address: str) -> str:
    return address.upper()


async def asynchronous() -> None:
    await answering(chat()).client(openai.AsyncOpenAI).chat.completions.create(**CHAT)
    await AnthropicEndpoint().client(anthropic.AsyncAnthropic).messages.create(**CALL)
    stream = (
        await streaming().client(openai.AsyncOpenAI).chat.completions.create(**CHAT, stream=True)
    )
    assert len([chunk async for chunk in stream]) == 3


def main() -> None:
    for tenant in ("acme", "globex"):
        with attribute(tenant=tenant, user="u-1"), feature("prices"):
            answering(chat()).client().chat.completions.create(**CHAT)
            assert len(list(streaming().client().chat.completions.create(**CHAT, stream=True))) == 3
            AnthropicEndpoint().client().messages.create(**CALL)
            geocode("main street")
            asyncio.run(asynchronous())


def forked() -> None:
    """A prefork server: the parent has made calls, its children make theirs."""
    main()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            main()
            os._exit(0) if "hard" in sys.argv else sys.exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    forked() if "fork" in sys.argv else main()
    if "open" in sys.argv:  # a stream that is still open when the process ends
        stream = streaming(n=20).client().chat.completions.create(**CHAT, stream=True)
        next(stream)
    if "die" in sys.argv:
        raise SystemExit(3)
