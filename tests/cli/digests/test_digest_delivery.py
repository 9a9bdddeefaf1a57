"""Where a digest goes: real webhooks and a real mail relay on loopback, and what is said where they do not take it."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from typing import Any

import pytest
from loopback import Loopback

FRIDAY = ("--since", "2026-08-28", "--until", "2026-08-28")


@pytest.mark.parametrize("form", ["slack", "teams", "json"])
def test_what_is_posted_is_what_a_dry_run_prints(spanledger, week, form):
    with Loopback(lambda _: (200, b"ok")) as server:
        url = f"{server.url}/services/T1/secret"
        webhook = ("digest", *FRIDAY, "--webhook", url, "--format", form)
        code, printed, _ = spanledger(*webhook, "--dry-run")
        assert code == 0
        assert server.requests == []
        assert spanledger(*webhook) == (0, "", "")
        (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/services/T1/secret")
    assert request.headers["content-type"] == "application/json"
    assert request.body == json.loads(printed)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b"no_service"), "the webhook at 127.0.0.1 answered 404: no_service"),
        ((500, b""), "the webhook at 127.0.0.1 answered 500\n"),
        ((400, b"x" * 5000), "x" * 200),
    ],
)
def test_a_webhook_that_refuses(spanledger, week, answer, words):
    with Loopback(lambda _: answer) as server:
        url = f"{server.url}/services/T1/secret"
        code, out, errors = spanledger("digest", *FRIDAY, "--webhook", url, "--format", "json")
    assert (code, out) == (1, "")
    assert words in errors
    assert "secret" not in errors
    assert len(errors) < 300


def test_a_webhook_that_is_not_there(spanledger, week):
    url = "http://127.0.0.1:9/services/secret"
    code, out, errors = spanledger("digest", *FRIDAY, "--webhook", url, "--format", "slack")
    assert (code, out) == (1, "")
    assert errors == "spanledger: the webhook at 127.0.0.1 cannot be reached: Connection refused\n"


def test_what_does_not_speak_http(spanledger, week):
    with relay({"": "garbage"}) as (host, port, _):
        url = f"http://{host}:{port}/secret"
        code, _, errors = spanledger("digest", *FRIDAY, "--webhook", url, "--format", "slack")
    assert code == 1
    assert "cannot be reached" in errors
    assert "secret" not in errors


# -- mail ------------------------------------------------------------------------------------------


@contextmanager
def relay(answers: dict[str, str]) -> Iterator[tuple[str, int, list[bytes]]]:
    """A mail relay for one connection, and the lines that it got; `answers` by the command's start, where it is not
    "250 ok".
    """
    server = socket.create_server(("127.0.0.1", 0))
    lines: list[bytes] = []
    answers = {"QUIT": "221 bye", **answers}

    def serve() -> None:
        client, _ = server.accept()
        with suppress(OSError), client, client.makefile("rwb", buffering=0) as wire:
            wire.write(f"{answers.get('', '220 relay')}\r\n".encode())
            data = False
            while line := wire.readline():
                lines.append(line)
                if data:
                    data = line != b".\r\n"
                    if data:
                        continue
                command = line.decode().upper()
                said = next(
                    (a for c, a in answers.items() if c and command.startswith(c)), "250 ok"
                )
                if command.startswith("DATA") and said == "250 ok":
                    said, data = "354 go on", True
                if not said:  # it hangs up
                    return
                wire.write(f"{said}\r\n".encode())
                if command.startswith("QUIT"):
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with server:
        yield (*server.getsockname(), lines)
    thread.join(5)


def send(spanledger: Any, host: str, port: int, *more: str) -> tuple[int, str, str]:
    to = ("--mail", "finance@example.com", "--mail", "ops@example.com")
    result: tuple[int, str, str] = spanledger(
        "digest",
        *FRIDAY,
        *to,
        "--smtp",
        f"{host}:{port}",
        "--mail-from",
        "books@example.com",
        *more,
    )
    return result


def test_a_mail_arrives(spanledger, week):
    with relay({}) as (host, port, lines):
        assert send(spanledger, host, port) == (0, "", "")
    commands = [line.strip().decode() for line in lines]
    assert "mail FROM:<books@example.com>" in {command.split(" size=")[0] for command in commands}
    assert "rcpt TO:<finance@example.com>" in commands
    assert "rcpt TO:<ops@example.com>" in commands
    start = lines.index(b"data\r\n") + 1
    assert lines[-2:] == [b".\r\n", b"quit\r\n"]
    sent = [line[1:] if line.startswith(b"..") else line for line in lines[start:-2]]
    message = message_from_bytes(b"".join(sent), policy=policy.default)
    assert message["From"] == "books@example.com"
    assert message["Subject"] == "Spend on Friday, 28 Aug 2026: ≥9.7500 USD (+50%)"
    body = message.get_body(("plain",))
    assert body is not None
    text = body.get_content().replace("\r\n", "\n")
    _, printed, _ = send(spanledger, host, port, "--dry-run")
    assert printed.endswith(f"\n\n{text}\n")
    assert "newcomer" in text


def test_how_a_relay_says_goodbye_does_not_matter(spanledger, week):
    with relay({"QUIT": ""}) as (host, port, _):
        assert send(spanledger, host, port) == (0, "", "")


def test_a_mail_that_some_do_not_get_is_an_error(spanledger, week):
    with relay({"RCPT TO:<OPS": "550 no such user"}) as (host, port, _):
        code, _, errors = send(spanledger, host, port)
    assert code == 1
    assert (
        f"relay at 127.0.0.1:{port} does not take mail for ops@example.com (550 no such user)"
        in errors
    )


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"RCPT": "550 no such user"}, "finance@example.com (550 no such user), ops@example.com"),
        ({"MAIL": "530 who are you"}, "answered 530: who are you"),
        ({"DATA": "554 not now"}, "answered 554: not now"),
        ({"": "554 go away"}, "answered 554: go away"),
    ],
)
def test_a_relay_that_refuses(spanledger, week, answers, words):
    with relay(answers) as (host, port, _):
        code, out, errors = send(spanledger, host, port)
    assert (code, out) == (1, "")
    assert words in errors


def test_a_relay_that_is_not_there(spanledger, week):
    code, out, errors = send(spanledger, "127.0.0.1", 9)
    assert (code, out) == (1, "")
    assert (
        errors
        == "spanledger: the mail relay at 127.0.0.1:9 cannot be reached: Connection refused\n"
    )


def test_a_relay_that_wants_a_login(spanledger, week, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login books password p@ss\n")
    (tmp_path / ".netrc").chmod(0o600)
    with relay({"EHLO": "250-relay\r\n250 AUTH PLAIN", "AUTH": "235 welcome"}) as (
        host,
        port,
        lines,
    ):
        assert send(spanledger, host, port) == (0, "", "")
    assert b"AUTH PLAIN AGJvb2tzAHBAc3M=\r\n" in lines


def test_a_password_does_not_go_out_in_the_clear(monkeypatch):
    """To a relay elsewhere that offers no encryption."""
    from email.message import EmailMessage

    from spanledger.api.errors import SpanledgerError
    from spanledger.cli import digest_delivery

    monkeypatch.setattr(digest_delivery, "login_at", lambda _: ("books", "p@ss"))
    monkeypatch.setattr(digest_delivery, "_is_here", lambda _: False)
    with relay({"EHLO": "250-relay\r\n250 AUTH PLAIN"}) as (host, port, lines):
        with pytest.raises(SpanledgerError, match="offers no encryption"):
            digest_delivery.send(EmailMessage(), (host, port))
    assert not any(line.startswith(b"AUTH") for line in lines)


def test_encryption_that_is_offered_is_used(monkeypatch):
    from email.message import EmailMessage

    from spanledger.api.errors import SpanledgerError
    from spanledger.cli import digest_delivery

    monkeypatch.setattr(digest_delivery, "_is_here", lambda _: False)
    with relay({"EHLO": "250-relay\r\n250 STARTTLS", "STARTTLS": "454 no certificate"}) as (
        host,
        port,
        lines,
    ):
        with pytest.raises(SpanledgerError):
            digest_delivery.send(EmailMessage(), (host, port))
    assert b"STARTTLS\r\n" in lines
    assert not any(line.lower().startswith(b"mail") for line in lines)


def test_a_login_file_that_is_broken(spanledger, week, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login\n")
    code, _, errors = send(spanledger, "127.0.0.1", 9)
    assert code == 2
    assert "~/.netrc" in errors
