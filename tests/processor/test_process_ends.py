"""The parts that tests/e2e/fleet/ sees from outside: the end of a process, its name, and its exemplars."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, Resource
from opentelemetry.trace import get_current_span

from spanledger.api.values import Ending
from spanledger.processor.exemplars import Dearest, trace_of
from spanledger.processor.exits import AtSigterm, flush_providers
from spanledger.processor.instances import tell_apart

NOTE = "_SPANLEDGER_INSTANCE"
KEY = ("openai", "gpt-5")


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


# -- SIGTERM -----------------------------------------------------------------------------------


def test_sigterm_is_taken_where_nobody_has_it_and_given_back(sigterm: None) -> None:
    ours = AtSigterm(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is ours
    ours.undo()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_applications_handler_stays(sigterm: None) -> None:
    def handler(*_: object) -> None:
        """The application's."""

    signal.signal(signal.SIGTERM, handler)
    AtSigterm(lambda: None).undo()
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        ("lambda: print('sent', flush=True)", "sent"),
        ("lambda: (print('sent', flush=True), 1 / 0)", "sent"),  # it ends all the same
        ("lambda: held.acquire()", ""),  # nor does it wait for ever
    ],
)
def test_the_process_ends_by_the_signal(callback: str, said: str) -> None:
    program = f"""
import logging, os, signal, threading
from spanledger.processor import exits
logging.disable()
exits._LONGEST_S = 0.2
held = threading.Lock(); held.acquire()
exits.AtSigterm({callback})
os.kill(os.getpid(), signal.SIGTERM)
print("not reached")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (-signal.SIGTERM, said), done.stderr


def test_each_provider_is_flushed_once_and_proxies_not_at_all() -> None:
    class Provider:
        flushed = 0

        def force_flush(self) -> None:
            self.flushed += 1

    provider = Provider()
    flush_providers((provider, object(), provider))
    assert provider.flushed == 1


# -- instances ---------------------------------------------------------------------------------


def instance_after(name: str | None) -> str | None:
    """What a process calls itself whose resource says `name`."""
    attributes = {} if name is None else {SERVICE_INSTANCE_ID: name}
    provider = MeterProvider(resource=Resource(attributes), shutdown_on_exit=False)
    tell_apart(provider)
    told = provider._sdk_config.resource.attributes.get(SERVICE_INSTANCE_ID)
    return None if told is None else str(told)


def test_only_a_name_that_an_ancestor_has_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOTE, "")
    assert instance_after(None) is None
    assert instance_after("pod-1") == "pod-1"
    assert os.environ[NOTE] == f"{os.getpid()} pod-1"
    assert instance_after("pod-1") == "pod-1"  # the same process
    monkeypatch.setenv(NOTE, "1 pod-1")
    assert instance_after("pod-1") == f"pod-1-{os.getpid()}"
    assert os.environ[NOTE] == "1 pod-1"  # for its own children
    assert instance_after("pod-2") == "pod-2"
    tell_apart(object())


# -- exemplars ---------------------------------------------------------------------------------


def test_the_dearest_call_whose_trace_is_exported() -> None:
    dearest = Dearest()
    for nano, trace, sampled in ((5, 1, True), (9, 2, False), (7, 3, True), (6, 4, True)):
        dearest.note(KEY, nano, Ending("ok", 0.1, trace_id=trace, span_id=7, sampled=sampled))
    contexts = dearest.take()
    assert get_current_span(contexts[KEY]).get_span_context().trace_id == 3
    assert get_current_span(contexts[KEY]).get_span_context().trace_flags.sampled
    assert dearest.take() == {}


def test_a_trace_that_is_not_exported_is_not_named() -> None:
    assert trace_of(Ending("ok", 0.1, trace_id=1, span_id=2)) == {}
