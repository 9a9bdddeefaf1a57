"""The collector restarted, killed, and given prices of one's own."""

import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector_program import Backend, Collector, Sent, collector_config, request
from stack_programs import wait_for

from spanledger.api.settings import load_settings
from spanledger.pricing.book import PriceBook
from spanledger.pricing.config import read_price_config
from spanledger.processor.dialects import read

NANO = 10**9
# Half a nano-USD for a token: half of all amounts have to be rounded, half of these to the even one.
PRICES = """
[[prices.override]]
provider = "openai"
model = "ours"
prices = {input_mtok = "0.0005", output_mtok = "0.0025"}

[[prices.override]]
provider = "openai"
model = "ours"
tenant = "acme"
prices = {input_mtok = "0.0001", output_mtok = "0.0007"}
"""


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.stop()


@pytest.fixture
def prices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """What `spanledger collector-config` writes for these prices."""
    (tmp_path / "spanledger.toml").write_text(PRICES)
    monkeypatch.chdir(tmp_path)
    assert collector_config("--models", "openai/ours") == 0
    file = tmp_path / "prices.yaml"
    file.write_text(capsys.readouterr().out)
    return file


def calls(number: int, *, failed: bool = False) -> list[Sent]:
    rng = random.Random(number)
    return [
        Sent(
            "gen_ai",
            "chat",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "ours",
                "gen_ai.usage.input_tokens": rng.randrange(1, 100),
                "gen_ai.usage.output_tokens": rng.randrange(1, 100),
                "tenant.id": rng.choice(("acme", "globex")),
            },
            failed=failed,
        )
        for _ in range(number)
    ]


def costs(sent: list[Sent]) -> dict[str, int]:
    settings = load_settings()
    book = PriceBook(read_price_config(settings.root.section("prices"), {}))
    book.warm()
    found: dict[str, int] = {}
    for span in sent:
        call = read(dict(span.attributes), span.scope, span.name)
        assert call is not None
        price = book.price(
            call.provider, call.model, call.usage, span.start_ns, span.attributes["tenant.id"]
        )
        assert price.nano_usd is not None
        found[span.id] = price.nano_usd
    return found


def test_a_restart_in_the_middle_loses_nothing(
    tmp_path: Path, backend: Backend, prices: Path
) -> None:
    """500 calls; halfway the collector is restarted, with the backend down: all arrive, and all are counted once."""
    sent = calls(500)
    expected = costs(sent)
    collector = Collector(tmp_path, backend, prices, SAMPLE_PERCENT="100")
    collector.start()
    halfway = threading.Event()

    def export() -> None:
        for start in range(0, len(sent), 25):
            collector.send(request(sent[start : start + 25]))
            if start == len(sent) // 2:
                halfway.set()

    exporter = threading.Thread(target=export)
    try:
        exporter.start()
        assert halfway.wait(20)
        collector.stop()
        collector.start()
        exporter.join(20)
        backend.start()
        wait_for(
            lambda: len(backend.whole_spans()) >= len(sent),
            "all spans",
            lambda: (len(backend.whole_spans()), collector.complaints()),
        )
        wait_for(
            lambda: round(sum(backend.totals("spanledger.calls").values())) >= len(sent),
            "all calls",
            lambda: backend.totals("spanledger.calls"),
        )
    finally:
        exporter.join(20)
        collector.stop()
    assert len(backend.whole_spans()) == len(sent)
    arrived = {i: span["spanledger.cost.usd"] for i, span in backend.spans().items()}
    assert arrived == {i: nano / NANO for i, nano in expected.items()}
    totals = backend.totals("spanledger.cost")
    assert len({start for _, start in totals}) > 1  # it did count anew
    assert round(sum(totals.values()) * NANO) == sum(expected.values())
    assert sum(backend.totals("spanledger.calls").values()) == len(sent)


def test_what_is_queued_outlives_a_kill(tmp_path: Path, backend: Backend, prices: Path) -> None:
    sent = calls(40, failed=True)
    collector = Collector(tmp_path, backend, prices)
    collector.start()
    try:
        collector.send(request(sent))
        wait_for(lambda: queued(collector) >= len(sent), "the queue", lambda: queued(collector))
        collector.stop(signal.SIGKILL)
        backend.start()
        collector.start()
        wait_for(
            lambda: {span.id for span in sent} <= backend.spans().keys(),
            "all spans",
            lambda: (len(backend.whole_spans()), collector.complaints()),
        )
    finally:
        collector.stop()


def queued(collector: Collector) -> float:
    """How many spans are on disk."""
    sizes = collector.scrape("OWN_METRICS").get("otelcol_exporter_queue_size", {})
    return sum(value for labels, value in sizes.items() if 'data_type="traces"' in labels)
