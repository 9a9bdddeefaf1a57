"""The ledger over TLS, as its URL says: one Redis, and a cluster, with certificates of an authority of our own."""

import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spanledger.api import guard
from spanledger.ledger.protocol import Denied, LimitedScope, open_ledger

Limited = Callable[..., LimitedScope]


def openssl(directory: Path, *words: object) -> None:
    program = shutil.which("openssl")
    assert program, "these tests need openssl (Debian: apt-get install openssl)"
    subprocess.run([program, *map(str, words)], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, what it signed for 127.0.0.1, and another authority."""
    directory = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other"):
        made = ("-keyout", f"{name}.key", "-out", f"{name}.crt")
        openssl(directory, "req", "-x509", *key, *made, "-days", 2, "-subj", f"/CN={name}")
    openssl(
        directory, "req", *key, "-keyout", "redis.key", "-out", "redis.csr", "-subj", "/CN=redis"
    )
    (directory / "names").write_text("subjectAltName = IP:127.0.0.1\n")
    signs = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl(directory, "x509", "-req", "-in", "redis.csr", "-out", "redis.crt", "-days", 2, *signs)
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tls(certificates: Path, port: int) -> tuple[str, ...]:
    """A server's options: TLS on a port of its own, beside the plain one."""
    files = {"cert": "redis.crt", "key": "redis.key", "ca-cert": "ca.crt"}
    named = [w for name, file in files.items() for w in (f"--tls-{name}-file", certificates / file)]
    return ("--tls-port", str(port), *map(str, named), "--tls-auth-clients", "no")


@pytest.mark.parametrize("kind", ["alone", "cluster"])
def test_a_ledger_over_tls(
    new_redis: Callable,
    new_cluster: Callable,
    limited: Limited,
    certificates: Path,
    kind: str,
    strict_guard: None,
) -> None:
    port = free_port()
    if kind == "alone":
        scheme = "rediss"
        new_redis(*tls(certificates, port))
    else:
        scheme = "rediss+cluster"
        ports = iter((port, free_port(), free_port()))
        new_cluster(lambda: (*tls(certificates, next(ports)), "--tls-cluster", "yes"))
    url = f"{scheme}://127.0.0.1:{port}/0?ssl_ca_certs={certificates / 'ca.crt'}"
    scopes = [limited(f"feature:{i}", 1000, on_outage="closed") for i in range(6)]
    ledger, other = open_ledger(url), open_ledger(url)
    deadline = time.monotonic() + 10
    while isinstance(held := ledger.reserve(scopes, 400), Denied):  # a busy machine is late
        assert held.unverified
        assert time.monotonic() < deadline
        time.sleep(0.05)
    held.settle(300)
    other.add(scopes, 600)
    ledger.close()
    other.close()
    ledger = open_ledger(url)
    keys = [one.key for one in scopes]
    while set(ledger.state(keys).values()) != {(900, 0, False)}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert isinstance(ledger.reserve(scopes, 101), Denied)
    ledger.close()


def test_a_redis_that_another_authority_vouches_for_is_out_of_reach(
    new_redis: Callable, limited: Limited, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    new_redis(*tls(certificates, port))
    guard.forget_said()
    with caplog.at_level(logging.WARNING):
        ledger = open_ledger(
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificates / 'other.crt'}"
        )
        denied = ledger.reserve([limited("tenant:acme", 1000, on_outage="closed")], 1)
    assert isinstance(denied, Denied)
    assert denied.unverified
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    ledger.close()
