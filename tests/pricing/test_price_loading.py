"""When the price list is loaded: not at import, not on the caller's path, once, over threads and forks; and refreshed."""

import gc
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot
from genai_prices.update_prices import UpdatePrices
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from spanledger.api.guard import reraise_internal_errors
from spanledger.api.values import Usage
from spanledger.pricing import loading
from spanledger.pricing.book import PriceBook
from spanledger.pricing.config import PriceConfig

NOW = 1_795_000_000 * 10**9
TOKENS = Usage({"input_tokens": 1000, "output_tokens": 100})


def _run(script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_neither_import_nor_start_load_anything_heavy() -> None:
    loaded = _run("""
        import sys
        from spanledger.api.settings import Section
        from spanledger.api.values import Usage
        from spanledger.pricing.book import PriceBook
        from spanledger.pricing.config import read_price_config
        from spanledger.pricing.estimates import Estimates
        from decimal import Decimal
        book = PriceBook(read_price_config(Section({"usd_per_credit": {"scavio": 2}}, "x"), {}))
        Estimates(book)
        assert book.price("scavio", None, Usage(credits=Decimal(1)), 0).nano_usd == 2 * 10**9
        assert book.price("openai", "x", Usage(reported_cost=Decimal(1)), 0).nano_usd == 10**9
        assert book.price("openai", "x", Usage(), 0).reason == "no_usage"
        print({"genai_prices", "pydantic", "httpx2"} & {*sys.modules})
    """)
    assert loaded == "set()\n"


def test_the_first_call_loads_the_list_where_nobody_has() -> None:
    book = PriceBook(PriceConfig())
    assert book.price("openai", "gpt-4o-mini", TOKENS, NOW).nano_usd == 210_000
    assert book.info().version is not None


def test_a_list_that_is_long_in_loading_makes_nobody_wait() -> None:
    book = PriceBook(PriceConfig())
    with loading._lock:  # as if another thread were loading
        began = time.monotonic()
        prices = [book.price("openai", "gpt-4o-mini", TOKENS, NOW) for _ in range(20)]
        took = time.monotonic() - began
    assert {(price.nano_usd, price.reason) for price in prices} == {(None, "no_price_list")}
    assert took < 20 * loading.PATIENCE_S / 2  # not a wait for each of them
    book._loader._loading.join()  # type: ignore[union-attr]
    assert book.price("openai", "gpt-4o-mini", TOKENS, NOW).nano_usd == 210_000


def test_a_list_that_cannot_be_loaded_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "spanledger.pricing.price_list", None)  # importing it fails
    reraise_internal_errors(on=False)
    book = PriceBook(PriceConfig())
    with caplog.at_level(logging.WARNING, "spanledger"):
        for _ in range(3):
            assert book.price("openai", "gpt-4o-mini", TOKENS, NOW).reason == "no_price_list"
    assert len(caplog.records) == 1
    assert book._loader._loading is not None
    with pytest.raises(ImportError):
        book.warm()


def test_a_thread_that_cannot_start_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:  # as at the interpreter's end
        raise RuntimeError

    monkeypatch.setattr(threading.Thread, "start", start)
    price = PriceBook(PriceConfig()).price("openai", "gpt-4o-mini", TOKENS, NOW)
    assert (price.nano_usd, price.reason) == (None, "no_price_list")


def test_threads_that_warm_together_load_one_list() -> None:
    book = PriceBook(PriceConfig())
    seen: list[object] = []

    def warm() -> None:
        book.warm()
        seen.append(book._loader.quotes)

    threads = [threading.Thread(target=warm) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len({id(quotes) for quotes in seen}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_the_list_loads_finds_a_working_book() -> None:
    said = _run("""
        import os, threading, time
        from spanledger.api.values import Usage
        from spanledger.pricing import loading
        from spanledger.pricing.book import PriceBook
        from spanledger.pricing.config import PriceConfig
        book = PriceBook(PriceConfig())
        thread = threading.Thread(target=book.warm)
        thread.start()
        while not loading._lock.locked() and thread.is_alive():
            time.sleep(0)
        child = os.fork()
        if child == 0:
            for _ in range(100):
                price = book.price("openai", "gpt-4o-mini", Usage({"input_tokens": 1000}), 1_795_000_000 * 10**9)
                if price.nano_usd is not None:
                    break
                time.sleep(0.05)
            assert not loading._lock.locked()
            os._exit(0 if price.nano_usd == 150_000 else 1)
        thread.join()
        assert not loading._lock.locked()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert said == "0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_process_refreshes_for_itself() -> None:
    said = _run("""
        import logging, os
        from spanledger.pricing.book import PriceBook
        from spanledger.pricing.config import PriceConfig
        logging.disable()
        book = PriceBook(PriceConfig(refresh=True, refresh_url="http://127.0.0.1:1/"))
        book.warm()
        child = os.fork()
        if child == 0:
            os._exit(0 if book._loader._refreshing.is_alive() else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert said == "0\n"


# -- refreshing --------------------------------------------------------------------------------------------

NEWER = [
    {
        "id": "openai",
        "name": "OpenAI",
        "api_pattern": "https://api\\.openai\\.com",
        "models": [
            {
                "id": "gpt-4o-mini",
                "match": {"equals": "gpt-4o-mini"},
                "prices": {"input_mtok": 1, "output_mtok": 2, "a_price_key_of_the_future": 3},
            }
        ],
    }
]


class _Prices(ThreadingHTTPServer):
    """Serves `body`, on the loopback."""

    body = b""
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Prices

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200 if self.server.body else 500)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args: object) -> None:
        return None


@pytest.fixture
def server() -> Iterator[_Prices]:
    server = _Prices(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def refreshed(server: _Prices) -> Iterator[Callable[[bytes], PriceBook]]:
    books: list[PriceBook] = []

    def make(body: bytes) -> PriceBook:
        server.body = body
        url = f"http://127.0.0.1:{server.server_port}/data.json"
        books.append(PriceBook(PriceConfig(refresh=True, refresh_url=url)))
        books[0].warm()
        return books[0]

    yield make
    for book in books:
        book.close()
        book._loader._refreshing.join()  # type: ignore[union-attr]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_refresh_replaces_the_list(refreshed: Callable[[bytes], PriceBook]) -> None:
    book = refreshed(json.dumps(NEWER).encode())
    _until(lambda: book.info().refreshed)
    price = book.price("openai", "gpt-4o-mini", TOKENS, NOW)
    assert price.nano_usd == 1_200_000
    assert price.version is not None
    assert f"refreshed {book.info().data_date}" in price.version
    # The process's own list is not ours to change.
    assert not get_snapshot().from_auto_update


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'[{"id": 1}]'])
def test_a_refresh_that_fails_leaves_the_list_that_is_there(
    refreshed: Callable[[bytes], PriceBook],
    server: _Prices,
    body: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "spanledger"):
        book = refreshed(body)
        _until(lambda: server.asked > 0)
        book.close()
        book._loader._refreshing.join()  # type: ignore[union-attr]
    assert not book.info().refreshed
    assert book.price("openai", "gpt-4o-mini", TOKENS, NOW).nano_usd == 210_000
    assert [
        record.getMessage() for record in caplog.records if "stays in use" in record.getMessage()
    ]


def test_a_refresh_is_not_part_of_the_applications_traces(
    refreshed: Callable[[bytes], PriceBook], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spanledger.pricing import price_list

    seen: list[bool] = []

    class Watched(UpdatePrices):
        def fetch(self) -> DataSnapshot | None:
            seen.append(is_instrumentation_enabled())
            return super().fetch()

    monkeypatch.setattr(price_list, "UpdatePrices", Watched)
    refreshed(json.dumps(NEWER).encode())
    _until(lambda: bool(seen))
    assert seen == [False]


def test_nothing_is_asked_of_the_network_unless_configured(server: _Prices) -> None:
    url = f"http://127.0.0.1:{server.server_port}/data.json"
    book = PriceBook(PriceConfig(refresh_url=url))
    book.warm()
    assert book._loader._refreshing is None
    assert server.asked == 0


@pytest.fixture
def threshold() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    yield before
    gc.set_threshold(*before)


def load_while(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Load a list, and do `action` meanwhile."""

    def load() -> object:
        action()
        return real()

    from spanledger.pricing import price_list

    real = price_list.load
    monkeypatch.setattr(price_list, "load", load)
    book = PriceBook(PriceConfig())
    book.warm()
    assert book.price("openai", "gpt-4o-mini", TOKENS, NOW).status == "exact"


def test_the_collector_comes_seldom_while_the_list_is_loaded_and_as_before_after_it(
    monkeypatch: pytest.MonkeyPatch, threshold: tuple[int, int, int]
) -> None:
    meanwhile: list[int] = []
    load_while(monkeypatch, lambda: meanwhile.append(gc.get_threshold()[0]))
    assert meanwhile[0] > threshold[0]
    assert gc.get_threshold() == threshold


def test_what_the_application_tells_the_collector_while_the_list_is_loaded_stays(
    monkeypatch: pytest.MonkeyPatch, threshold: tuple[int, int, int]
) -> None:
    load_while(monkeypatch, lambda: gc.set_threshold(5000, 20, 20))
    assert gc.get_threshold()[:2] == (5000, 20)


def test_a_collector_that_is_off_stays_off_while_the_list_is_loaded(
    monkeypatch: pytest.MonkeyPatch, threshold: tuple[int, int, int]
) -> None:
    gc.set_threshold(0, *threshold[1:])
    meanwhile: list[int] = []
    load_while(monkeypatch, lambda: meanwhile.append(gc.get_threshold()[0]))
    assert meanwhile == [0]
    assert gc.get_threshold()[0] == 0
