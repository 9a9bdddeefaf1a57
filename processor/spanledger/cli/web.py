"""Addresses on the command line, and the logins that belong to them."""

import netrc
from base64 import b64encode
from http.client import HTTPException
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import Request

from spanledger.api.errors import ConfigurationError

UNREACHED: Final = (OSError, HTTPException, UnicodeError)
"""What is raised where a server cannot be reached, or speaks something else."""


def request_to(url: str, *, option: str) -> Request:
    """A request to `url`, with the login that stands in it or in the user's ~/.netrc.

    Raises ConfigurationError, naming `option`, where that is no address of the web.
    """
    parts, host, port = _split(url)
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            "is not an address of the web",
            source="command line",
            key=option,
            remedy="Write it as https://host/path.",
        )
    name = f"[{host}]" if ":" in host else host
    bare = parts._replace(netloc=name if port is None else f"{name}:{port}", fragment="")
    request = Request(urlunsplit(bare))  # noqa: S310 - http or https, see above
    login = (
        (unquote(parts.username), unquote(parts.password or ""))
        if parts.username
        else login_at(host)
    )
    if login is not None:
        # Not for whoever the address may be redirected to.
        request.add_unredirected_header("Authorization", f"Basic {_encoded(*login)}")
    return request


def _split(url: str) -> tuple[SplitResult, str | None, int | None]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return urlsplit(""), None, None
    return parts, host, port


def login_at(host: str) -> tuple[str, str] | None:
    """User and password for `host` in the user's ~/.netrc; None where it names none.

    Raises ConfigurationError where that file cannot be read.
    """
    try:
        found = netrc.netrc().hosts.get(host)
    except FileNotFoundError:
        return None
    except (netrc.NetrcParseError, OSError) as error:
        raise ConfigurationError(
            f"cannot be read: {error}", source="~/.netrc", key=host, remedy="Correct the file."
        ) from error
    return (found[0], found[2]) if found else None


def reason_of(error: Exception) -> str:
    """What went wrong on the way to a server, in plain words."""
    cause = getattr(error, "reason", error)
    return str(getattr(cause, "strerror", None) or cause or "no answer")


def _encoded(user: str, password: str) -> str:
    return b64encode(f"{user}:{password}".encode()).decode()
