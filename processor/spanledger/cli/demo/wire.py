"""What the wire protocols of the demo's server share: requests, replies, amounts, faults.

Amounts (tokens, searches, pages) are drawn from a hash of what was asked, so that the same
application costs the same on every run. A word of this kind anywhere in a request (a model's name,
a prompt, a query) provokes a fault:

    provoke-<status>      this status, always: provoke-400, provoke-429, provoke-500, ...
    provoke-flaky         429 the first time, an answer the second time (and so on, in turns)
    provoke-html          status 200 with a page of HTML
    provoke-cut           the connection breaks in the middle of the answer
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Protocol, cast

Json = dict[str, Any]

_PROVOKED: Final = re.compile(rb"provoke-(\d{3}|flaky|html|cut)\b")
_TEXT: Final = (
    "the market leader raised prices while two rivals cut theirs and customers noticed "
    "a longer trial clearer billing faster support and one new plan with fair limits"
)
_WORDS: Final = _TEXT.split()
_PLAIN: Final[Json] = {"integer": 3, "number": 3, "boolean": True, "null": None}
_serial = count(1)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as it arrived.

    path: without the query.
    headers: by lower-case name.
    body: the JSON object of the content; empty where it is none.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content: bytes
    body: Json = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            body: object = json.loads(self.content)
        except ValueError:
            body = None
        object.__setattr__(self, "body", body if isinstance(body, dict) else {})

    @property
    def provoked(self) -> str | None:
        """The fault that the request asks for."""
        found = _PROVOKED.search(self.content) or _PROVOKED.search(self.path.encode())
        return found[1].decode() if found else None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer: a JSON object, or a stream of server-sent events."""

    body: Json = field(default_factory=dict[str, Any])
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    events: Iterable[str] | None = None


class Wire(Protocol):
    """The wire protocol of one provider."""

    def serves(self, request: Request) -> bool:
        """Whether the request is meant for this provider."""
        ...

    def answer(self, request: Request) -> Reply:
        """The answer of a provider in good health."""
        ...

    def error(self, status: int, message: str) -> Json:
        """An error's body, as this provider words it."""
        ...


def sse(data: Json | str, event: str | None = None) -> str:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"event: {event}\ndata: {text}\n\n" if event else f"data: {text}\n\n"


def draw(seed: object, what: str, low: int, high: int) -> int:
    """A number from `low` to `high` that depends on nothing but `seed` and `what`."""
    text = json.dumps([what, seed], sort_keys=True)
    digest = hashlib.sha256(text.encode()).digest()
    return low + int.from_bytes(digest[:8]) % (high - low + 1)


def prose(seed: object, words: int) -> list[str]:
    """`words` pieces of text that join to a sentence."""
    first = draw(seed, "prose", 0, len(_WORDS) - 1)
    chosen = [_WORDS[(first + i) % len(_WORDS)] for i in range(words)]
    return [word if i == 0 else f" {word}" for i, word in enumerate(chosen)]


def new_id(prefix: str) -> str:
    """An id that no other answer has."""
    return f"{prefix}{next(_serial):024x}"


def example(schema: Json, root: Json | None = None) -> Any:
    """A value that a JSON schema describes, for structured output."""
    root = schema if root is None else root
    if reference := schema.get("$ref"):
        return example(root["$defs"][str(reference).rpartition("/")[2]], root)
    if choices := schema.get("enum") or schema.get("anyOf"):
        return choices[0] if "enum" in schema else example(choices[0], root)
    kind = schema.get("type")
    if kind == "object":
        properties = cast("dict[str, Json]", schema.get("properties", {}))
        return {name: example(value, root) for name, value in properties.items()}
    if kind == "array":
        return [example(schema["items"], root)]
    return _PLAIN[kind] if kind in _PLAIN else "".join(prose(schema, 5))
