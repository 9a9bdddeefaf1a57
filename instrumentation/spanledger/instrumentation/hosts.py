"""Which provider answers at a base URL: OpenAI's SDK is the way to many of them.

Names are the semantic conventions' well-known values of `gen_ai.provider.name` where they have one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from spanledger.api.settings import Section

# Domain (with its subdomains) -> provider. A host that is not here is taken for a gateway to
# OpenAI.
_DOMAINS: Final[Mapping[str, str]] = {
    "openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.openai",
    "azure-api.net": "azure.ai.openai",
    "openrouter.ai": "openrouter",
    "groq.com": "groq",
    "deepseek.com": "deepseek",
    "mistral.ai": "mistral_ai",
    "x.ai": "x_ai",
    "perplexity.ai": "perplexity",
    "together.xyz": "together",
    "together.ai": "together",
    "fireworks.ai": "fireworks",
    "cerebras.ai": "cerebras",
    "cohere.ai": "cohere",
    "cohere.com": "cohere",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "googleapis.com": "gcp.vertex_ai",  # us-central1-aiplatform.googleapis.com
    "amazonaws.com": "aws.bedrock",
    "amazonaws.com.cn": "aws.bedrock",
    "api.aws": "aws.bedrock",
    "moonshot.ai": "moonshot_ai",
    "anthropic.com": "anthropic",
}
# They state usage in every stream unasked, and refuse or ignore `stream_options`.
_STATE_USAGE_UNASKED: Final = frozenset({"mistral_ai", "perplexity", "cohere"})
_DEPLOYMENT: Final = re.compile(r"/deployments/([^/]+)")


class Host(NamedTuple):
    """Where a client sends its calls.

    deployment: Azure's deployment, where the base URL names it.
    ask_usage: whether the provider understands `stream_options.include_usage`.
    """

    provider: str
    address: str
    port: int | None
    deployment: str | None = None
    ask_usage: bool = True


class _Named(NamedTuple):
    provider: str
    ask_usage: bool


_named: dict[str, _Named] = {}
# By the identity of a client's URL object, since its hash and text take microseconds. The bound is
# for applications that make clients up by the thousand.
_known: dict[int, tuple[Any, Host]] = {}
_MOST_KNOWN: Final = 1000


def configure_hosts(section: Section) -> None:
    """Read `[providers]`: host name -> provider, or {name = provider, ask_usage = false}."""
    named: dict[str, _Named] = {}
    for host in section.keys():  # noqa: SIM118 - reading a name counts
        if isinstance(section.values[host], str):
            named[host.lower()] = _Named(section.text(host), ask_usage=True)
        else:
            table = section.section(host)
            named[host.lower()] = _Named(table.text("name"), table.flag("ask_usage", True))
            table.finish()
    _named.clear()
    _named.update(named)
    _known.clear()


def host_of(client: Any) -> Host:
    """The host of an SDK client."""
    url = _url_of(client)
    known = _known.get(id(url))
    if known is not None and known[0] is url:
        return known[1]
    host = _host(url.host, url.port or (443 if url.scheme == "https" else 80), url.path)
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[id(url)] = url, host
    return host


def _url_of(client: Any) -> Any:
    # The property of openai's own clients has an import in it, which takes as long as all the rest.
    if type(client).__module__.partition(".")[0] == "openai":
        return getattr(client, "_base_url", None) or client.base_url
    return client.base_url


def path_of(client: Any, url: str) -> str:
    """The path of a request below the base URL of its client: a bare `client.post` may name the
    whole URL.
    """
    if "://" in url:
        url = url.removeprefix(str(client.base_url))
    return f"/{url.partition('?')[0].strip('/')}"


def ask_no_more(client: Any) -> str:
    """Ask the host of an SDK client for the usage of streams no more. Its address."""
    host = host_of(client)
    url = _url_of(client)
    _known[id(url)] = url, host._replace(ask_usage=False)
    return host.address


def provider_at(address: str) -> str:
    """The provider whose API answers at the host name `address`."""
    name = address.lower()
    while name:
        if name in _DOMAINS:
            return _DOMAINS[name]
        name = name.partition(".")[2]
    return "openai"


def address_of(url: str) -> tuple[str | None, int | None]:
    """Host name and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _host(address: str, port: int, path: str) -> Host:
    named = _named.get(address.lower())
    provider = named.provider if named else provider_at(address)
    deployment = _DEPLOYMENT.search(path)
    return Host(
        provider,
        address,
        port,
        deployment[1] if deployment else None,
        named.ask_usage if named else provider not in _STATE_USAGE_UNASKED,
    )
