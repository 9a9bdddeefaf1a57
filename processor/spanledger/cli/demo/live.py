"""A handful of cheap calls of the real providers, of those whose key is set.

`python -m spanledger.cli.demo.live` runs them: a few hundred tokens and two Scavio credits in all.
"""

import os

from anthropic import Anthropic, AnthropicError
from openai import OpenAI, OpenAIError
from scavio import ScavioClient, ScavioError

from spanledger.api import attribute, feature

TENANTS = ("acme", "globex")


@feature("support-chat")
def ask_openai(question: str) -> str:
    """Two calls: one as a whole, one as a stream."""
    with OpenAI() as client:
        whole = client.responses.create(
            model="gpt-5.4-nano", input=question, max_output_tokens=64, reasoning={"effort": "none"}
        )
        stream = client.chat.completions.create(
            model="gpt-4.1-mini",
            messages=[{"role": "user", "content": question}],
            max_completion_tokens=32,
            stream=True,
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    return whole.output_text or "".join(pieces)


@feature("document-search")
def ask_anthropic(question: str) -> str:
    """One call."""
    with Anthropic() as client:
        message = client.messages.create(
            model="claude-haiku-4-5",
            max_tokens=32,
            messages=[{"role": "user", "content": question}],
        )
    return "".join(block.text for block in message.content if block.type == "text")


@feature("competitive-analysis")
def ask_scavio(query: str) -> str:
    """One search: one credit."""
    with ScavioClient() as client:
        results = client.google.search(query).get("organic_results") or []
    return str(results[0]["title"]) if results else "nothing found"


def main() -> None:
    """Call each provider whose key is set, once for each tenant."""
    calls = {
        "OPENAI_API_KEY": ask_openai,
        "ANTHROPIC_API_KEY": ask_anthropic,
        "SCAVIO_API_KEY": ask_scavio,
    }
    for tenant in TENANTS:
        for key, call in calls.items():
            if not os.environ.get(key):
                continue
            with attribute(tenant=tenant, user=f"{tenant}-user"):
                try:
                    print(f"{tenant}: {call('In one short sentence: what is a ledger?')}")
                except (OpenAIError, AnthropicError, ScavioError) as error:
                    print(f"{tenant}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
