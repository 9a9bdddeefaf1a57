"""An application that spends under a limit, by the words of its command line.

killed [TENANT]: fifty calls, in the journal and mostly not in the ledger yet when it kills itself
forked: the same in a child
busy: four threads that call without end, until a line of input or a signal ends the process
leaves: one call, and after a line of input fifty more and an end in order
"""

import os
import signal
import sys
import threading
import time

from spanledger.api import attribute
from spanledger.instrumentation.metered import metered
from spanledger.processor import startup

THREADS = 4


@metered(provider="geocoder", operation="geocode", cost="0.005")
def geocode() -> None:
    """Costs half a cent."""


def spend(tenant: str = "acme", calls: int = 50, pause_s: float = 0) -> None:
    with attribute(tenant=tenant, user="u-1"):
        for _ in range(calls):
            geocode()
            if pause_s:
                time.sleep(pause_s)


def spend_and_die(tenant: str = "acme") -> None:
    engine = startup.engine()
    assert engine is not None
    spend(calls=1)  # the lease is there, and this call is told
    while not engine.ledger.known([key for key, _ in engine.ledger.counters()]):
        time.sleep(0.01)
    time.sleep(0.6)
    spend(tenant)
    engine.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def main(what: str, *words: str) -> None:
    startup.start()
    if what == "killed":
        spend_and_die(*words)
    elif what == "forked":
        child = os.fork()
        if child == 0:
            spend_and_die()
        os.waitpid(child, 0)
    elif what == "leaves":
        spend(calls=1)
        print("spent", flush=True)
        if sys.stdin.readline():
            spend()
    elif what == "busy":
        for _ in range(THREADS):
            threading.Thread(target=spend, args=("acme", 10**9, 0.002), daemon=True).start()
        time.sleep(0.5)
        print("spent", flush=True)
        sys.stdin.readline()


main(*sys.argv[1:])
