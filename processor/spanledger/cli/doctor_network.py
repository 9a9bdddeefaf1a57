"""Where the environment sends to, and whether somebody listens there."""

import socket
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_CONNECT_S: Final = 1.0
_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
_SCHEME_PORTS: Final = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
_GRPC_PORT: Final = 4317
_HTTP_PORT: Final = 4318


class Endpoint(NamedTuple):
    """Host and port; never the rest of a URL, which may hold a password."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def otlp_endpoints(environ: Mapping[str, str]) -> list[Endpoint]:
    """Where traces, metrics and logs go by OTLP, as far as the environment says so."""
    found: dict[Endpoint, None] = {}
    for signal in _SIGNALS:
        exporters = environ.get(f"OTEL_{signal}_EXPORTER", "")
        url = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get(
            "OTEL_EXPORTER_OTLP_ENDPOINT"
        )
        if url and (not exporters or "otlp" in exporters):
            found[endpoint_of(url)] = None
        elif "otlp" in exporters:
            # Asked for by name, and sent where OTLP is sent by default.
            found[Endpoint("localhost", _default_port(environ, exporters))] = None
    return list(found)


def _default_port(environ: Mapping[str, str], exporters: str) -> int:
    protocol = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    return _HTTP_PORT if "http" in protocol or "proto_http" in exporters else _GRPC_PORT


def endpoint_of(url: str) -> Endpoint:
    """The host and port of `url`; gRPC allows it to have no scheme."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    port = parts.port or _SCHEME_PORTS.get(parts.scheme, _GRPC_PORT)
    return Endpoint(parts.hostname or "localhost", port)


def redis_endpoint(url: str) -> Endpoint | None:
    """The host and port of a Redis; None where `url` is none that is reached over the network."""
    parts = urlsplit(url)
    scheme = parts.scheme.removesuffix("+cluster")
    if scheme not in ("redis", "rediss"):
        return None
    return Endpoint(parts.hostname or "localhost", parts.port or _SCHEME_PORTS[scheme])


def answers(endpoint: Endpoint) -> str | None:
    """None where somebody accepts a connection within a second, else what went wrong."""
    try:
        socket.create_connection(endpoint, timeout=_CONNECT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
