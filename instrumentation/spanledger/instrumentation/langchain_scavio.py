"""The `langchain-scavio` tools, which call Scavio's API without Scavio's SDK.

Sources: langchain-scavio 4.4's `_utilities`; the credits of endpoints from scavio 0.28's
`_spec.ENDPOINTS`. `credits_used` and `credits_remaining` at the top level of an answer are exact.
Errors are texts that tell no more than the HTTP status: a 404, some of which are billed, is booked
as an estimate. Provider and operations are named as with the SDK, so that one price, one budget and
one report are for both.
"""

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from spanledger.api.values import Usage, decimal_amount
from spanledger.instrumentation.functions import FunctionEngine
from spanledger.instrumentation.hosts import address_of
from spanledger.instrumentation.request import Reading, Request
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.instrumentation.stainless import get, text

PROVIDER: Final = "scavio"
_PATH: Final = re.compile(r"^.*?/api/v\d+/")
_STATUS: Final = re.compile(r"Error (\d{3}): |Rate limit exceeded: ")
# What the SDK calls otherwise than its path.
_PLATFORMS: Final = {
    "appstore": "app_store",
    "companieshouse": "companies_house",
    "googleads": "google_ads",
    "googleplay": "google_play",
    "homedepot": "home_depot",
}
_OPERATIONS: Final = {
    "google.shopping_product_stores": "google.shopping_stores",
    "kuaishou.video_sub_comments": "kuaishou.comment_replies",
    "zillow.reviews": "zillow.agent_reviews",
}
# Credits of an operation, or of all others of its platform; 1 where neither is here.
_FLOORS: Final = {
    name: Decimal(credits)
    for credits, names in {
        1: "instagram.profile instagram.user_reels instagram.user_tagged",
        2: "capterra google_play heb home_depot indeed instagram kroger kuaishou.video threads "
        "tripadvisor yelp youtube.search youtube.shorts",
        3: "youtube.streams",
        5: "g2 youtube.transcript",
        10: "kuaishou.profile kuaishou.search kuaishou.search_live kuaishou.search_users "
        "kuaishou.search_videos linkedin.company_posts linkedin.person_posts "
        "linkedin.post_comments linkedin.search_jobs",
        30: "linkedin.job",
        40: "kuaishou.videos_batch",
    }.items()
    for name in names.split()
}


class _Calls:
    """`_post(url, body)`: every endpoint that answers at once."""

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        url, body = (*args, *(kwargs[n] for n in ("url", "body")[len(args) :]))
        path = _PATH.sub("", url)
        operation = _operation(path)
        floor = _FLOORS.get(operation) or _FLOORS.get(operation.partition(".")[0]) or Decimal(1)
        return _request(url, operation, floor)._replace(content={"url": url, "body": body})

    def read(self, result: Any, request: Request) -> Reading:
        usage = _usage(result) or (request.known or Usage())._replace(estimated=True)
        return Reading(usage, credits_remaining=decimal_amount(get(result, "credits_remaining")))

    def read_error(self, error: BaseException, request: Request) -> Reading | None:
        status = _status(error)
        refused = status is not None and 400 <= status < 500 and status != 404
        # aiohttp's way to say that there was no connection to send it on.
        unsent = any(kind.__name__ == "ClientConnectorError" for kind in type(error).__mro__)
        return Reading(Usage(credits=Decimal(0))) if refused or unsent else None

    def error_detail(self, error: BaseException) -> object:
        status = _status(error)
        return {"status": status, "text": str(error)} if status else None

    def error_from(self, detail: object) -> BaseException | None:
        said = text(detail, "text")
        return ValueError(said) if said else None

    def api_key(self, client: Any) -> str | None:
        key: str = client.scavio_api_key.get_secret_value()
        return key


class _Jobs(_Calls):
    """`_send(method, url, ...)`: crawl and batch jobs, created by POST, polled by GET."""

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        method, url = (*args, *(kwargs[n] for n in ("method", "url")[len(args) :]))[:2]
        kind, _, job = _PATH.sub("", url).removeprefix("extract/").partition("/")
        request = _request(url, f"extract.{kind}", Decimal(0))
        return request if method == "POST" else request._replace(spends=False, shape=job)

    def read(self, result: Any, request: Request) -> Reading:
        data = get(result, "data")
        usage = _usage(result) or _usage(data) or Usage(credits=Decimal(0))
        return (
            super()
            .read(result, request)
            ._replace(usage=usage, job=request.shape or text(data, "id"))
        )


def _operation(path: str) -> str:
    """`tiktok/search/videos` -> `tiktok.search_videos`."""
    platform, _, rest = path.replace("-", "_").partition("/")
    platform, method = _PLATFORMS.get(platform, platform), rest.replace("/", "_")
    if platform == "extract":
        return f"extract.{method}" if method else platform
    if method.endswith("comments_replies"):
        method = "comment_replies"
    operation = f"{platform}.{method or 'search'}"
    return _OPERATIONS.get(operation, operation)


def _request(url: str, operation: str, floor: Decimal) -> Request:
    address, port = address_of(url)
    return Request(PROVIDER, operation, None, address, port, known=Usage(credits=floor))


def _usage(answer: Any) -> Usage | None:
    used = decimal_amount(get(answer, "credits_used"))
    return None if used is None else Usage(credits=used)


def _status(error: BaseException) -> int | None:
    match = _STATUS.match(str(error)) if type(error) is ValueError else None
    return None if match is None else int(match[1] or 429)


# -- switching it on
# ---------------------------------------------------------------------------------------

_engine: Final = FunctionEngine("langchain-scavio >= 4.4, < 5")


class LangchainScavioInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Meters every call of the `langchain-scavio` package's tools."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return (_engine.requirement,)

    def _instrument(self, **kwargs: Any) -> None:
        if (provider := kwargs.get("tracer_provider")) is not None:
            use_tracer_provider(provider)
        for sdk, function in (
            (_Calls(), "ScavioBaseAPIWrapper._post"),
            (_Jobs(), "_ScavioExtractJobAPIWrapper._send"),
        ):
            module = "langchain_scavio._utilities"
            _engine.patch(module, function, sdk)
            _engine.patch(module, f"{function}_async", sdk, is_async=True)

    def _uninstrument(self, **kwargs: Any) -> None:
        _engine.unpatch()
