"""Which calls are in the books, for spans that tell of one call without one being in the other.

Callbacks (LangChain, LiteLLM) and instrumentations that do not make their span the current one
(OpenLLMetry) leave spans beside each other, even in traces of their own. What such spans share is
the provider's response id, or else time, model and token counts.
"""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Self

from spanledger.processor.dialects import ForeignCall

_MOST: Final = 4096
_SLACK_NS: Final = 1_000_000  # LiteLLM's times are in microseconds, and rounded

# A call of one family does not stand for one of another: an embedding made to look into a semantic
# cache is not the chat around it. What is not here is a call of a data API, or none of a model.
_FAMILIES: Final = {
    "chat": "text",
    "text_completion": "text",
    "generate_content": "text",
    "embeddings": "embeddings",
    "image_generation": "image_generation",
    "transcription": "transcription",
    "translation": "transcription",
    "speech": "speech",
}


def family(operation: object) -> str | None:
    """What kind of model call this is; only spans of one kind can be views of the same call."""
    return _FAMILIES.get(str(operation))


_Key = tuple[str | None, str] | tuple[str | None, int | None, int | None]


@dataclass(slots=True, eq=False)
class SeenCall:
    """One view of a call.

    scope: the instrumentation that saw it.
    ids_count: its response id is the provider's own.
    claimed_by: the scopes of further views that were found to be of the same call.
    """

    scope: str
    family: str | None
    start_ns: int
    end_ns: int
    models: frozenset[str]
    input_tokens: int | None
    output_tokens: int | None
    failed: bool
    response_id: str | None = None
    ids_count: bool = True
    claimed_by: set[str] = field(default_factory=set[str])

    @classmethod
    def of(cls, call: ForeignCall, scope: str, start_ns: int, end_ns: int, *, failed: bool) -> Self:
        """The view that `scope` has of `call`."""
        units = call.usage.units
        return cls(
            scope,
            family(call.operation),
            start_ns,
            end_ns,
            frozenset(model for model in (call.model, call.usage.model) if model),
            _whole(units.get("input_tokens")),
            _whole(units.get("output_tokens")),
            failed,
            call.response_id,
            call.dialect != "litellm",
        )

    def found_by(self) -> Iterator[_Key]:
        """The keys that its other views share, or may share."""
        if self.response_id is not None:
            yield self.family, self.response_id
        if self.input_tokens is not None or self.output_tokens is not None or self.failed:
            yield self.family, self.input_tokens, self.output_tokens

    def is_also(self, other: "SeenCall") -> bool:
        """Whether `other`, which ended before, is a view of the same call from further inside."""
        if self.scope == other.scope or self.scope in other.claimed_by:
            return False
        if self.start_ns > other.end_ns or other.start_ns > self.end_ns:
            return False
        if self.response_id is not None and self.response_id == other.response_id:
            return True
        if self.ids_count and other.ids_count and self.response_id and other.response_id:
            return False
        return (
            self.start_ns <= other.start_ns + _SLACK_NS
            and self.end_ns >= other.end_ns - _SLACK_NS
            and self.failed == other.failed
            and not self.models.isdisjoint(other.models)
            and self.input_tokens == other.input_tokens
            and self.output_tokens == other.output_tokens
        )


def _whole(amount: int | Decimal | None) -> int | None:
    return None if amount is None else int(amount)


class SeenCalls:
    """The last calls that went into the books."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._calls: deque[SeenCall] = deque()
        self._by_key: dict[_Key, list[SeenCall]] = {}
        self._lock = threading.Lock()

    def add(self, call: SeenCall) -> None:
        """`call` is in the books."""
        with self._lock:
            self._calls.append(call)
            for key in call.found_by():
                self._by_key.setdefault(key, []).append(call)
            if len(self._calls) > self._most:
                self._forget(self._calls.popleft())

    def _forget(self, call: SeenCall) -> None:
        for key in call.found_by():
            views = self._by_key[key]
            views.remove(call)
            if not views:
                del self._by_key[key]

    def claim(self, view: SeenCall) -> bool:
        """Whether `view` is of a call in the books. Each such call has one view a scope."""
        with self._lock:
            for key in view.found_by():
                for call in self._by_key.get(key, ()):
                    if view.is_also(call):
                        call.claimed_by.add(view.scope)
                        return True
        return False
