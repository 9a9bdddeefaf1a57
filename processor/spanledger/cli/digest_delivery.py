"""How a digest reaches people: posted to a webhook, or sent by mail."""

import json
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from html import escape
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from spanledger.api.errors import SpanledgerError
from spanledger.cli.digest_figures import Digest
from spanledger.cli.digest_text import Section, headline, notes, plain, sections, summary
from spanledger.cli.web import UNREACHED, login_at, reason_of, request_to

_PATIENCE_S: Final = 30
_LONGEST_ANSWER: Final = 200  # of what a webhook says, in an error
_SMTPS: Final = 465


def post(url: str, message: Mapping[str, Any]) -> None:
    """Post `message` to the webhook at `url`. Raises SpanledgerError, which does not name the rest
    of the address: whoever knows it may post there.
    """
    request = request_to(url, option="--webhook")
    request.data = json.dumps(message).encode()
    request.add_header("Content-Type", "application/json")
    request.add_header("User-Agent", "spanledger-digest")
    place = f"the webhook at {urlsplit(request.full_url).hostname}"
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:  # noqa: S310
            answer.read()
    except urllib.error.HTTPError as error:
        said = error.read(_LONGEST_ANSWER).decode(errors="replace").strip()
        why = f": {' '.join(said.split())}" if said else ""
        raise SpanledgerError(f"{place} answered {error.code}{why}") from error
    except UNREACHED as error:
        raise SpanledgerError(f"{place} cannot be reached: {reason_of(error)}") from error


# -- mail ------------------------------------------------------------------------------------------


def mail(digest: Digest, to: Sequence[str], sender: str | None, *, top: int) -> EmailMessage:
    """The digest as a mail: plain text, and the same as HTML. `sender`: None is spanledger at this
    machine.
    """
    message = EmailMessage()
    host = socket.getfqdn()
    message["Subject"] = headline(digest)
    message["From"] = sender or f"spanledger@{host}"
    message["To"] = ", ".join(to)
    message["Date"] = formatdate(digest.now.timestamp(), localtime=True)
    message["Message-ID"] = make_msgid(domain=host)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(plain(digest, top=top))
    message.add_alternative(as_html(digest, top=top), subtype="html")
    return message


def send(message: EmailMessage, relay: tuple[str, int]) -> None:
    """Hand `message` to the relay at this host and port. Raises SpanledgerError.

    The connection is encrypted where the relay offers it, but for one on this machine. It logs in
    with what the user's ~/.netrc has for that host.
    """
    host, port = relay
    place = f"the mail relay at {host}:{port}"
    login = login_at(host)
    try:
        server = _connected(host, port)
        try:
            if login is not None:
                if not _is_here(host) and not isinstance(server.sock, ssl.SSLSocket):
                    raise SpanledgerError(
                        f"{place} offers no encryption: the password is not sent to it"
                    )
                server.login(*login)
            refused = server.send_message(message)
        finally:
            # What was taken is taken, however the relay says goodbye.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
    except smtplib.SMTPRecipientsRefused as error:
        raise SpanledgerError(_refusal(place, error.recipients)) from error
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise SpanledgerError(f"{place} answered {error.smtp_code}: {text}") from error
    except smtplib.SMTPException as error:
        raise SpanledgerError(f"{place} did not take the mail: {error}") from error
    except OSError as error:
        raise SpanledgerError(f"{place} cannot be reached: {reason_of(error)}") from error
    if refused:
        raise SpanledgerError(_refusal(place, refused))


def _connected(host: str, port: int) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if port == _SMTPS:
        return smtplib.SMTP_SSL(host, port, timeout=_PATIENCE_S, context=context)
    server = smtplib.SMTP(host, port, timeout=_PATIENCE_S)
    try:
        server.ehlo()
        # A relay on this machine has a certificate for nobody's name, and nobody is in between.
        if not _is_here(host) and server.has_extn("starttls"):
            server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(place: str, refused: Mapping[str, tuple[int, bytes]]) -> str:
    reasons = (
        f"{address} ({code} {said.decode(errors='replace')})"
        for address, (code, said) in refused.items()
    )
    return f"{place} does not take mail for {', '.join(reasons)}"


def as_html(digest: Digest, *, top: int) -> str:
    """The digest as HTML that mail programs show."""
    parts = [f"<h2 style='{_FONT}'>{escape(headline(digest))}</h2>"]
    parts += [f"<p style='{_FONT}'>{escape(line)}</p>" for line in summary(digest)]
    parts += [_html_table(section) for section in sections(digest, top=top)]
    parts += [f"<p style='{_FONT};color:#777'>{escape(line)}</p>" for line in notes(digest)]
    body = "\n".join(parts)
    return f"<!doctype html>\n<html><body>\n{body}\n</body></html>\n"


_FONT: Final = "font-family:sans-serif;font-size:14px;margin:8px 0"
_CELL: Final = "padding:2px 14px 2px 0;white-space:nowrap;text-align:"
_LEFT: Final = frozenset({"tier", "why"})


def _html_table(section: Section) -> str:
    sides = [
        "right" if number and name not in _LEFT else "left"
        for number, name in enumerate(section.header)
    ]

    def line(tag: str, cells: Sequence[str], look: str) -> str:
        drawn = (
            f"<{tag} style='{_CELL}{side}{look}'>{escape(cell)}</{tag}>"
            for cell, side in zip(cells, sides, strict=True)
        )
        return f"<tr>{''.join(drawn)}</tr>"

    rows = [line("th", section.header, ";color:#777;font-weight:normal")]
    rows += [line("td", row.cells, "") for row in section.rows]
    title = f"<h3 style='{_FONT};margin-top:18px'>{escape(section.title)}</h3>"
    table = f"<table style='{_FONT};border-collapse:collapse'>"
    return "\n".join([title, table, *rows, "</table>"])
