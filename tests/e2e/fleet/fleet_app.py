"""What the tests of a fleet run: a WSGI application, the same for ASGI, jobs, and a job that forks."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from spanledger.api import BudgetExceeded, attribute, feature
from spanledger.instrumentation.metered import metered


@metered(provider="geocoder", operation="geocode", cost="0.005")
def geocode(address: str) -> str:
    return address.upper()


def call(tenant: str = "acme") -> None:
    with attribute(tenant=tenant, user="u-1"), feature("search"):
        geocode("main street")


def application(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    status = "200 OK"
    try:
        call()
    except BudgetExceeded:
        status = "402 Payment Required"
    start_response(status, [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        for answer in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{answer}.complete"})
        return
    call()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


def job(calls: int, tenants: int) -> None:
    """Ends at once."""
    for number in range(calls):
        call(f"tenant-{number % tenants}")


def commanded() -> None:
    """A service that makes as many calls as each line of its input says, until there is none."""
    for line in sys.stdin:
        for _ in range(int(line)):
            call()
        print("made", line, flush=True)


def forking(children: int, calls: int) -> None:
    """The parent has an open connection when its children begin; told to be `sending`, it is in an export."""
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider

    provider = metrics.get_meter_provider()
    assert isinstance(provider, MeterProvider)
    sending = "sending" in sys.argv
    call("parent")
    if sending:
        sys.stdin.readline()  # the test knows when it is
    else:
        provider.force_flush()
    started = []
    for _ in range(children):
        child = os.fork()
        if child == 0:
            for _ in range(calls):
                call("child")
                if not sending:
                    provider.force_flush()
            sys.exit(0)
        started.append(child)
    for child in started:
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    what, *numbers = (argument for argument in sys.argv[1:] if argument != "sending")
    {"job": job, "commanded": commanded, "forking": forking}[what](*map(int, numbers))
