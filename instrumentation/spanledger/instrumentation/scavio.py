"""Scavio's SDK: search and scraping, billed in credits.

Sources: scavio 0.28's `_spec.ENDPOINTS` and `_extract`. `credits_used` and `credits_remaining` at
the top level of an answer are exact; the credits of the specification are a floor (body-priced
endpoints cost more); some 404s are billed and say so in their body. Crawl and batch jobs answer 0
when created; their polls state what they have used by then.
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
from spanledger.instrumentation.stainless import text

PROVIDER: Final = "scavio"
_JOB_PATH: Final = re.compile(r"/api/v1/extract/(crawl|batch)(?:/([^/]+))?$")


class _Calls:
    """`_call(key, values, extra)`: every endpoint that answers at once."""

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        from scavio._spec import ENDPOINTS  # noqa: PLC0415 - loaded by the SDK before it can be called

        key, values, extra = (*args, *(kwargs[n] for n in ("key", "values", "extra")[len(args) :]))
        endpoint = ENDPOINTS[key]
        if endpoint.namespace.startswith("_"):  # the SDK's own mark for what is no platform
            operation = endpoint.key.replace("_", ".", 1)
        else:
            operation = f"{endpoint.namespace}.{endpoint.method}"
        request = _request(client, operation, Decimal(endpoint.credits))
        return request._replace(content={"path": endpoint.path, "values": values, "extra": extra})

    def read(self, result: Any, request: Request) -> Reading:
        credits_used = _credits(result)
        if credits_used is None:
            # An answer that does not say (a proxy's HTML with a 200): the specification's floor, as
            # an estimate.
            return Reading((request.known or Usage())._replace(estimated=True))
        return Reading(
            Usage(credits=credits_used), credits_remaining=_amount(result, "credits_remaining")
        )

    def read_error(self, error: BaseException, request: Request) -> Reading | None:
        body = getattr(error, "response_body", None)
        credits_used = _credits(body)
        if not credits_used:
            return None
        return Reading(
            Usage(credits=credits_used), credits_remaining=_amount(body, "credits_remaining")
        )

    def error_detail(self, error: BaseException) -> object:
        status = getattr(error, "status_code", None)
        return {"status": status, "body": getattr(error, "response_body", None)} if status else None

    def error_from(self, detail: object) -> BaseException | None:
        # How the SDK makes its errors; there is no public way.
        from scavio._http import (  # noqa: PLC0415
            _handle_error,  # pyright: ignore[reportPrivateUsage]
        )

        told = detail if isinstance(detail, Mapping) else {}
        try:
            _handle_error(int(told["status"]), told.get("body") or {})
        except Exception as error:  # noqa: BLE001 - it raises what we want
            return error
        return None

    def api_key(self, client: Any) -> str | None:
        return text(client, "_api_key")


class _Jobs(_Calls):
    """`_send(method, path, ...)`: crawl and batch jobs, created by POST, polled by GET, ended by
    DELETE.
    """

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        method, path = (*args, kwargs.get("method"), kwargs.get("path"))[:2]
        match = _JOB_PATH.search(str(path))
        if match is None:
            return None
        request = _request(client, f"extract.{match[1]}", Decimal(0))
        return request if method == "POST" else request._replace(spends=False, shape=match[2] or "")

    def read(self, result: Any, request: Request) -> Reading:
        data = result.get("data") if isinstance(result, Mapping) else None
        used = _credits(result) or _credits(data) or Decimal(0)
        job = request.shape or (data.get("id") if isinstance(data, Mapping) else None)
        return Reading(
            Usage(credits=used),
            credits_remaining=_amount(result, "credits_remaining"),
            job=str(job) if job else None,
        )


class _Balance(_Calls):
    """`get_usage()`: free, and states the balance."""

    def describe(
        self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Request | None:
        return _request(client, "usage", Decimal(0))._replace(spends=False)

    def read(self, result: Any, request: Request) -> Reading:
        return Reading(None, credits_remaining=_amount(result, "credit_balance"))


def _request(client: Any, operation: str, floor: Decimal) -> Request:
    address, port = address_of(client._base_url)  # noqa: SLF001 - there is no public name for it
    return Request(PROVIDER, operation, None, address, port, known=Usage(credits=floor))


def _credits(answer: Any) -> Decimal | None:
    return _amount(answer, "credits_used")


def _amount(answer: Any, name: str) -> Decimal | None:
    return decimal_amount(answer.get(name)) if isinstance(answer, Mapping) else None


# -- switching it on
# ---------------------------------------------------------------------------------------

_engine: Final = FunctionEngine("scavio >= 0.28, < 1")


class ScavioInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Meters every call of the `scavio` package."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return (_engine.requirement,)

    def _instrument(self, **kwargs: Any) -> None:
        if (provider := kwargs.get("tracer_provider")) is not None:
            use_tracer_provider(provider)
        for sdk, function in ((_Calls(), "_call"), (_Jobs(), "_send"), (_Balance(), "get_usage")):
            _engine.patch("scavio._client", f"ScavioClient.{function}", sdk)
            _engine.patch(
                "scavio._async_client", f"AsyncScavioClient.{function}", sdk, is_async=True
            )

    def _uninstrument(self, **kwargs: Any) -> None:
        _engine.unpatch()
