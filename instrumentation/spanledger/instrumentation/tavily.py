"""Tavily's SDK: search, extraction, maps, crawls and research, billed in credits.

Sources: tavily-python 0.8.5; docs.tavily.com/documentation/api-credits, and the reference of each
endpoint. `usage.credits` of an answer is exact, but is stated only where the caller asks for it
(`include_usage=True`); else the documented price of what came back is booked, as an estimate. Pages
are billed by fives and tens that are counted across calls: a call may state 0, and an estimate is
in fractions of a credit. Without an API key calls are free.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any, Final

from opentelemetry import context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from spanledger.api.contexts import async_steps
from spanledger.api.values import EMPTY, Usage, count, decimal_amount
from spanledger.instrumentation.functions import FunctionEngine
from spanledger.instrumentation.hosts import address_of
from spanledger.instrumentation.patching import lay, when_supported
from spanledger.instrumentation.pipeline import status_of, unbilled
from spanledger.instrumentation.request import Reading, Request
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.stainless import get, text

PROVIDER: Final = "tavily"
_USUAL_LIMIT: Final = 50  # pages of a map or crawl that sets none
# Parameters that travel as headers: who asks, not what.
_HEADERS: Final = frozenset({"project_id", "session_id", "human_id", "client_name"})
# Errors that have lost the HTTP status they were made of. The last stands for 432 and 433 too.
_REFUSALS: Final = {
    "BadRequestError": 400,
    "InvalidAPIKeyError": 401,
    "UsageLimitExceededError": 429,
    "ForbiddenError": 403,
}


class _Calls:
    """`_search`, `_extract`, `_map`, `_crawl`: they answer at once."""

    def __init__(self, method: str) -> None:
        self.method = method

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        if client._keyless:  # noqa: SLF001 - there is no public name for it
            return None
        asked = {**dict(zip(_parameters(self.method), args, strict=False)), **kwargs}
        asked = {k: v for k, v in asked.items() if v is not None and k not in _HEADERS}
        operation = self.method.strip("_")
        known = Usage(credits=_price(operation, asked, None))
        return _request(client, operation)._replace(known=known, content=asked)

    def read(self, result: Any, request: Request) -> Reading:
        usage = _usage(result)
        if usage is None:
            price = _price(request.operation, request.content or EMPTY, result)
            usage = Usage(credits=price, estimated=True)
        return Reading(usage, response_id=text(result, "request_id"))

    def read_error(self, error: BaseException, request: Request) -> Reading | None:
        kind, cause = type(error).__name__, error.__context__
        unsent = kind == "TimeoutError" and cause is not None and unbilled(cause)
        return Reading(Usage(credits=Decimal(0))) if unsent or kind in _REFUSALS else None

    def error_detail(self, error: BaseException) -> object:
        kind = type(error).__name__
        status = status_of(error) or _REFUSALS.get(kind)
        return {"status": status, "kind": kind, "text": str(error)} if status else None

    def error_from(self, detail: object) -> BaseException | None:
        kind, said = text(detail, "kind"), text(detail, "text") or ""
        if kind in _REFUSALS:
            refusal: BaseException = getattr(sys.modules["tavily.errors"], kind)(said)
            return refusal
        return _http_error(kind, count(get(detail, "status")) or 0, said)

    def api_key(self, client: Any) -> str | None:
        # The HTTP client's, also where the user has made it.
        http = getattr(client, "session", None) or client._client  # noqa: SLF001 - the async one
        return str(http.headers.get("Authorization", "")).removeprefix("Bearer ")


class _Research(_Calls):
    """`research`: creates a job. Its least price is booked now, what it states beyond it later."""

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        request = super().describe(client, args, kwargs)
        return request and request._replace(content=None)

    def read(self, result: Any, request: Request) -> Reading:
        least = (request.known or Usage())._replace(estimated=True)
        return Reading(_usage(result) or least, job=text(result, "request_id"))


class _Results(_Calls):
    """`get_research`: free, and states what the job has used where the caller asks for it."""

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        job = str((*args, kwargs.get("request_id"))[0])
        return _request(client, "research")._replace(spends=False, shape=job)

    def read(self, result: Any, request: Request) -> Reading:
        return Reading(_usage(result), job=request.shape)


class _Free(_Calls):
    """`_feedback`: patched to keep attribution off the wire."""

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        return None


@functools.cache
def _parameters(method: str) -> tuple[str, ...]:
    client = sys.modules["tavily.tavily"].TavilyClient  # the other client has the same
    return tuple(inspect.signature(getattr(client, method)).parameters)[1:]


def _request(client: Any, operation: str) -> Request:
    url = getattr(client, "base_url", None) or client._client.base_url  # noqa: SLF001 - the async one
    address, port = address_of(str(url))
    return Request(PROVIDER, operation, None, address, port)


def _usage(answer: Any) -> Usage | None:
    used = decimal_amount(get(get(answer, "usage"), "credits"))
    return None if used is None else Usage(credits=used)


def _http_error(kind: str | None, status: int, said: str) -> BaseException | None:
    """What `raise_for_status` of the HTTP client of either SDK client raises."""
    import httpx  # noqa: PLC0415 - loaded by the SDK, as requests is
    import requests  # noqa: PLC0415

    if kind == "HTTPError":
        answer = requests.Response()
        answer.status_code = status
        return requests.HTTPError(said, response=answer)
    if kind == "HTTPStatusError":
        asked = httpx.Request("POST", "")
        return httpx.HTTPStatusError(said, request=asked, response=httpx.Response(status))
    return None


def _price(operation: str, asked: Mapping[str, Any], answer: Any) -> Decimal:
    """The documented price in credits: of an answer, or without one the most that it can be (of a
    research: the least).
    """
    if operation == "research":
        return Decimal(15 if asked.get("model") == "pro" else 4)
    if operation == "search":
        chosen = get(get(answer, "auto_parameters"), "search_depth") or "advanced"
        depth = asked.get("search_depth") or (asked.get("auto_parameters") and chosen)
        return Decimal(2 if depth == "advanced" else 1)
    extracting = Decimal(2 if asked.get("extract_depth") == "advanced" else 1) / 5
    mapping = Decimal(2 if asked.get("instructions") else 1) / 10
    page = {"extract": extracting, "map": mapping, "crawl": extracting + mapping}[operation]
    return page * _pages(asked, answer)


def _pages(asked: Mapping[str, Any], answer: Any) -> int:
    pages = get(answer, "results")
    if not isinstance(pages, list):
        pages = asked.get("urls")
    if pages is None:
        return count(asked.get("limit")) or _USUAL_LIMIT
    return 1 if isinstance(pages, str) else len(pages)


# -- switching it on
# ---------------------------------------------------------------------------------------

_engine: Final = FunctionEngine("tavily-python >= 0.8.5, < 1")
_PATCHES: Final = (
    *(_Calls(method) for method in ("_search", "_extract", "_map", "_crawl")),
    _Research("research"),
    _Results("get_research"),
    _Free("_feedback"),
)


def _follow(wrapped: Callable[..., Any], _: Any, args: Any, kwargs: Any) -> Any:
    """`AsyncTavilyClient._research`, whose stream is not sent before its first step: in the context
    of the call then, not of its consumer.
    """
    made = wrapped(*args, **kwargs)
    if _engine.active and inspect.isasyncgen(made):
        return async_steps(made, context.get_current())
    return made


@functools.cache
def _patch_streams() -> None:
    when_supported(
        _engine.requirement,
        "tavily.async_tavily",
        lambda imported: lay(
            imported, {"AsyncTavilyClient._research": _follow}, "its streams carry the attribution"
        ),
    )


class TavilyInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Meters every call of the `tavily` package."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return (_engine.requirement,)

    def _instrument(self, **kwargs: Any) -> None:
        if (provider := kwargs.get("tracer_provider")) is not None:
            use_tracer_provider(provider)
        for sdk in _PATCHES:
            _engine.patch("tavily.tavily", f"TavilyClient.{sdk.method}", sdk)
            _engine.patch(
                "tavily.async_tavily", f"AsyncTavilyClient.{sdk.method}", sdk, is_async=True
            )
        _patch_streams()

    def _uninstrument(self, **kwargs: Any) -> None:
        _engine.unpatch()
