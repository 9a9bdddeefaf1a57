"""What happens to an SDK that is not as we know it: it is said once, and its calls go through untouched.

Releases that are too old or too new cannot be had beside the right ones: their metadata, and the parts that differ,
stand in for them.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest
import wrapt
from books import Books
from openai.types.chat import ChatCompletion
from openai_endpoint import CHAT_NANO_USD, MESSAGES, answering, chat

from spanledger.api import guard
from spanledger.instrumentation.openai import SDK
from spanledger.instrumentation.patching import lay, supported
from spanledger.instrumentation.stainless import Engine

LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))
WRONG = {
    "openai": "4.0.0",
    "anthropic": "0.34.2",
    "scavio": "1.0.0",
    "langchain-scavio": "4.3.0",
    "tavily-python": "0.7.0",
}
# Names what is patched by us: other instrumentations patch the SDKs' transports.
LOOK = """
import anthropic._base_client, langchain_scavio._utilities, openai._base_client
import scavio._async_client, scavio._client, tavily.async_tavily, tavily.tavily
import wrapt

for module in (anthropic._base_client, openai._base_client, langchain_scavio._utilities,
               scavio._client, scavio._async_client, tavily.tavily, tavily.async_tavily):
    for kind in vars(module).values():
        if isinstance(kind, type):
            for name, value in vars(kind).items():
                if not isinstance(value, wrapt.FunctionWrapper):
                    continue
                if value._self_wrapper.__module__.startswith("spanledger"):
                    print(module.__name__, kind.__name__, name)
"""


def install(directory: Path, name: str, version: str) -> None:
    """Metadata that says that `name` is installed in this version."""
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def launched(directory: Path, code: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "COV_"))}
    return subprocess.run(
        [LAUNCHER, sys.executable, "-c", code],
        env={
            **known,
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "openai,anthropic",
            "SPANLEDGER_JOURNAL": "memory://",
            "PYTHONPATH": str(directory),
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_every_sdk_that_fits_is_patched(tmp_path: Path) -> None:
    done = launched(tmp_path, LOOK)
    assert done.stderr == ""
    for name in ("openai", "anthropic", "scavio", "langchain_scavio", "tavily"):
        assert f"{name}." in done.stdout


def test_no_sdk_that_does_not_fit_is_patched(tmp_path: Path) -> None:
    for name, version in WRONG.items():
        install(tmp_path, name, version)
    done = launched(tmp_path, LOOK)
    assert done.stdout == ""
    said = done.stderr.splitlines()
    assert len(said) == len(WRONG)
    for name, version in WRONG.items():
        (line,) = (line for line in said if f"meter {name} {version}" in line)
        assert "Install such a version, or use @metered" in line


def test_a_release_from_before_there_was_a_base_client_is_said_too(tmp_path: Path) -> None:
    install(tmp_path, "openai", "0.28.1")
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "__init__.py").write_text("def create(): return 'answered'\n")
    done = launched(tmp_path, "import openai; print(openai.create())")
    assert done.stdout == "answered\n"
    assert done.stderr.count("spanledger does not meter openai 0.28.1") == 1


def test_an_sdk_without_metadata_is_taken_as_it_is() -> None:
    assert supported("spanledger-no-such-package >= 1")


class _Client:
    def request(self) -> str:
        return "answered"


class _Stream:
    def renamed(self) -> None: ...


def test_what_has_not_all_that_is_patched_is_not_patched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = ModuleType("openai._base_client")
    vars(module).update(
        SyncAPIClient=_Client, AsyncAPIClient=_Client, Stream=_Stream, AsyncStream=_Stream
    )
    for _ in range(2):
        Engine(SDK)._lay(module)
    assert not isinstance(vars(_Client)["request"], wrapt.FunctionWrapper)
    (record,) = caplog.records
    assert "no openai._base_client.Stream.__stream__" in record.message
    assert record.exc_info is None
    assert not guard.internal_errors


def test_all_is_patched_where_all_is_there() -> None:
    module = ModuleType("sdk")

    class Client(_Client):
        def poll(self) -> str:
            return "polled"

    vars(module)["Client"] = Client

    def shout(wrapped: Any, _: Any, args: Any, kwargs: Any) -> str:
        return str(wrapped(*args, **kwargs)).upper()

    lay(module, {"Client.request": shout, "Client.poll": shout}, "")
    assert (Client().request(), Client().poll()) == ("ANSWERED", "POLLED")


@pytest.mark.parametrize("stream", [False, True])
def test_arguments_reach_the_sdk_as_they_came(books: Books, stream: bool) -> None:
    """A choke point that takes them by keyword alone."""
    engine = Engine(SDK)
    engine.active = True
    given: dict[str, Any] = {}

    def request(*, cast_to: Any, options: Any, stream: bool) -> Any:
        given.update(cast_to=cast_to, options=options, stream=stream)
        return ChatCompletion.model_validate(chat())

    options = openai._models.FinalRequestOptions.construct(
        method="post",
        url="/chat/completions",
        json_data={"model": "gpt-4o-mini", "messages": MESSAGES, "stream": stream},
    )
    client = answering(chat()).client()
    engine._request(
        request, client, (), {"cast_to": ChatCompletion, "options": options, "stream": stream}
    )
    assert given["cast_to"] is ChatCompletion
    assert (given["options"] is options) is not stream  # its usage was asked for
    assert given["stream"] is stream
    assert books.row().nano_usd == CHAT_NANO_USD


def test_by_keyword_and_by_position(books: Books) -> None:
    client = answering(chat()).client()
    options = openai._models.FinalRequestOptions.construct(
        method="post",
        url="/chat/completions",
        json_data={"model": "gpt-4o-mini", "messages": MESSAGES},
    )
    client.request(ChatCompletion, options)
    client.request(ChatCompletion, options=options)
    client.request(cast_to=ChatCompletion, options=options)
    assert [row.nano_usd for row in books.rows()] == 3 * [CHAT_NANO_USD]


def test_options_that_are_not_there_harm_nobody(books: Books) -> None:
    engine = Engine(SDK)
    engine.active = True
    guard.reraise_internal_errors(False)
    assert engine._request(lambda **kwargs: kwargs, object(), (), {"made": 1}) == {"made": 1}
    assert not books.rows()
