"""The HTTP interface of Prometheus, and of what speaks as it does (Mimir, Thanos, VictoriaMetrics).

Values are read as decimals from the text in which they come.
"""

import json
import math
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from spanledger.api.errors import SpanledgerError
from spanledger.cli.web import UNREACHED, reason_of, request_to

_PATIENCE_S: Final = 150  # Prometheus itself gives up after 120


class Sample(NamedTuple):
    """One series of an answer: its labels, and its values by the Unix time in seconds."""

    labels: Mapping[str, str]
    values: dict[float, Decimal]

    @property
    def value(self) -> Decimal:
        """The only value, or the last."""
        return list(self.values.values())[-1]


class Prometheus:
    """A Prometheus to ask. `name` is its address, without a password."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError where `url` is no address."""
        request = request_to(url.rstrip("/"), option="--prometheus")
        self.name = request.full_url
        self._headers = dict(request.unredirected_hdrs)

    def query(self, expression: str, at: datetime) -> list[Sample]:
        """What `expression` is `at` that time. Raises SpanledgerError."""
        return self._ask("query", {"query": expression, "time": _text(at.timestamp())})

    def query_range(
        self, expression: str, since: datetime, until: datetime, step_s: float
    ) -> list[Sample]:
        """What `expression` is from `since` to `until`, both included. Raises SpanledgerError."""
        return self._ask(
            "query_range",
            {
                "query": expression,
                "start": _text(since.timestamp()),
                "end": _text(until.timestamp()),
                "step": _text(step_s),
            },
        )

    def _ask(self, what: str, parameters: Mapping[str, str]) -> list[Sample]:
        url = f"{self.name}/api/v1/{what}?{urlencode(parameters)}"
        request = request_to(url, option="--prometheus")
        for name, value in self._headers.items():
            request.add_unredirected_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:  # noqa: S310
                said = answer.read()
        except urllib.error.HTTPError as error:
            raise self._error(f"answered {error.code}{_why(error.read())}") from error
        except UNREACHED as error:
            raise self._error(f"cannot be reached: {reason_of(error)}") from error
        try:
            return [_sample(row) for row in json.loads(said)["data"]["result"]]
        except (ValueError, KeyError, TypeError) as error:
            raise self._error(
                "does not answer as Prometheus does. The address is the one that you see it under "
                "in a browser, such as http://localhost:9090"
            ) from error

    def _error(self, what: str) -> SpanledgerError:
        return SpanledgerError(f"Prometheus at {self.name} {what}")


def _text(seconds: float) -> str:
    return f"{seconds:.3f}"


def _why(body: bytes) -> str:
    try:
        said = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {said}"


def _sample(row: Mapping[str, Any]) -> Sample:
    values = row["values"] if "values" in row else [row["value"]]
    return Sample(
        row["metric"],
        {float(at): Decimal(text) for at, text in values if math.isfinite(float(text))},
    )
