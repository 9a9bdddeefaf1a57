"""A charge's log event: what is in it, that none is lost, none sent twice, and nobody waits for it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource

from spanledger.api.errors import ConfigurationError
from spanledger.api.guard import internal_errors
from spanledger.api.settings import Section, load_settings
from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.cli.export import record
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal_rows import Row, from_values, to_values
from spanledger.processor.events import ChargeEvents, attributes_of, read_charge_events
from spanledger.processor.startup import Engine


def entry(number: int = 1, **given: Any) -> Entry:
    """A call with a value for every column."""
    return Entry(
        PaidCall(
            "openai",
            "chat",
            "gpt-4o",
            Attribution(given.get("tenant", "acme"), "u-1", "search", "use-1", {"plan": "pro"}),
            1_786_000_000_123_456_789,
        ),
        Usage(
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "cache_read_tokens": 30,
                "cache_write_tokens": 40,
                "output_reasoning_tokens": 5,
                "web_searches": 2,
                "audio_seconds": Decimal("1.25"),
            },
            credits=Decimal("2.5"),
            model="gpt-4o-2024-08-06",
        ),
        Ending(
            "degraded",
            1.25,
            0.125,
            "TimeoutError",
            given.get("trace_id", 0xABC),
            given.get("span_id", 0xDEF),
            4_000_000_001,
            Decimal("0.5"),
        ),
        Charge(
            f"{number:032x}",
            given.get("nano_usd", 12_345_678_901_234_567),
            None,
            given.get("status", "partial"),
            "price_list",
            "genai-prices 2026-01-01",
            given.get("reason", "unpriced:web_searches"),
            "warning",
        ),
        "job-1",
    )


class Sent:
    """Events, and a provider that sends them."""

    def __init__(
        self,
        processor: Any = SimpleLogRecordProcessor,
        exporter: InMemoryLogRecordExporter | None = None,
        **settings: Any,
    ) -> None:
        self.exporter = exporter or InMemoryLogRecordExporter()
        self.provider = LoggerProvider(
            Resource.create({"service.name": "shop"}), shutdown_on_exit=False
        )
        self.provider.add_log_record_processor(processor(self.exporter))
        self.events = ChargeEvents("shop", self.provider, **settings)

    def records(self) -> list[Any]:
        self.events.flush()
        self.provider.force_flush()
        return [log.log_record for log in self.exporter.get_finished_logs()]

    def ids(self) -> list[str]:
        return [log.attributes["spanledger.charge.id"] for log in self.records()]


@pytest.fixture
def sending() -> Iterator[Callable[..., Sent]]:
    made: list[Sent] = []

    def make(*arguments: Any, **settings: Any) -> Sent:
        made.append(Sent(*arguments, **settings))
        return made[-1]

    yield make
    for sent in made:
        sent.events.close()
        sent.provider.shutdown()


# -- what is in it ---------------------------------------------------------------------------------


def test_the_event_of_a_charge(sending: Callable[..., Sent]) -> None:
    sent = sending()
    sent.events([entry()])
    (log,) = sent.records()
    assert log.event_name == "spanledger.charge"
    assert log.body is None
    assert (log.timestamp, log.severity_text, log.severity_number.value) == (
        1_786_000_000_123_456_789,
        "INFO",
        9,
    )
    assert (log.trace_id, log.span_id) == (0xABC, 0xDEF)
    expected = {
        "service.name": "shop",
        "tenant.id": "acme",
        "user.id": "u-1",
        "feature.name": "search",
        "plan": "pro",
        "spanledger.use.id": "use-1",
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "spanledger.outcome": "degraded",
        "error.type": "TimeoutError",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.cache_write.input_tokens": 40,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "spanledger.units.web_searches": 2,
        "spanledger.units.audio_seconds": 1.25,
        "spanledger.credits": 2.5,
        "spanledger.cost.nano_usd": 12_345_678_901_234_567,
        "spanledger.cost.usd": 12_345_678.901234567,
        "spanledger.cost.status": "partial",
        "spanledger.cost.source": "price_list",
        "spanledger.price.version": "genai-prices 2026-01-01",
        "spanledger.cost.unpriced_reason": "unpriced:web_searches",
        "spanledger.saved.nano_usd": 4_000_000_001,
        "spanledger.saved.credits": 0.5,
        "spanledger.call.duration": 1.25,
        "gen_ai.response.time_to_first_chunk": 0.125,
        "spanledger.budget.tier": "warning",
        "spanledger.charge.id": f"{1:032x}",
        "spanledger.job.key": "job-1",
    }
    found = dict(log.attributes)
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }


FULL = from_values(to_values(entry(), "shop"))
# What an event has in its own fields, not among its attributes.
FIELDS = {"timestamp_ns", "trace_id", "span_id"}


@pytest.mark.parametrize("column", [name for name in Row._fields if name not in FIELDS])
def test_every_column_is_in_it(column: str) -> None:
    value = getattr(FULL, column)
    assert value, "the full row lacks it"
    other = {} if isinstance(value, dict) else value * 2
    without = FULL._replace(**{column: other})
    assert attributes_of(without) != attributes_of(FULL)


def test_the_full_row_has_every_column_of_the_export() -> None:
    assert [name for name, value in record(FULL).items() if value is None] == []


def test_unknown_is_not_zero_and_what_is_not_known_is_left_out(
    sending: Callable[..., Sent],
) -> None:
    sent = sending()
    call = PaidCall("openai", "chat", None, Attribution(), 1)
    unknown = Charge("c", None, reason="no_usage")
    sent.events([Entry(call, Usage(), Ending("error", 0.1), unknown)])
    (log,) = sent.records()
    assert dict(log.attributes) == {
        "service.name": "shop",
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "spanledger.outcome": "error",
        "spanledger.cost.status": "unknown",
        "spanledger.cost.unpriced_reason": "no_usage",
        "spanledger.saved.nano_usd": 0,
        "spanledger.call.duration": 0.1,
        "spanledger.charge.id": "c",
    }
    assert (log.trace_id, log.span_id) == (0, 0)


def test_an_event_is_in_its_calls_span_not_in_whatever_runs(sending: Callable[..., Sent]) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    sent = sending()
    sent.events.close()  # from now on the caller's own thread sends
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("something else"):
        sent.events([entry(1), entry(2, trace_id=0, span_id=0)])
    assert [(log.trace_id, log.span_id) for log in sent.records()] == [(0xABC, 0xDEF), (0, 0)]


def test_broken_text_is_escaped(sending: Callable[..., Sent]) -> None:
    sent = sending()
    sent.events([entry(tenant="a\ud800")])
    (log,) = sent.records()
    assert log.attributes["tenant.id"] == "a\\ud800"


# -- none is lost, nobody waits --------------------------------------------------------------------


class Distant(InMemoryLogRecordExporter):
    """An exporter to an endpoint that takes a moment to answer."""

    def export(self, batch: Any) -> Any:
        time.sleep(0.05)
        return super().export(batch)


def test_more_at_once_than_the_sdks_queue_holds_all_arrive(sending: Callable[..., Sent]) -> None:
    sent = sending(BatchLogRecordProcessor, Distant())
    sent.events([entry(number) for number in range(5_000)])
    assert sorted(sent.ids()) == [f"{number:032x}" for number in range(5_000)]
    assert "events.dropped" not in internal_errors


class Blocked(SimpleLogRecordProcessor):
    """An exporter that takes its time."""

    gate = threading.Event()
    entered = threading.Event()

    def on_emit(self, log_record: Any) -> None:
        self.entered.set()
        assert self.gate.wait(20)
        super().on_emit(log_record)


def test_a_slow_exporter_keeps_nobody_waiting_and_what_is_too_much_is_counted(
    sending: Callable[..., Sent], caplog: pytest.LogCaptureFixture
) -> None:
    Blocked.gate.clear()
    Blocked.entered.clear()
    sent = sending(Blocked, most_waiting=10)
    sent.events([entry(0)])
    assert Blocked.entered.wait(20)
    for number in range(1, 6):
        sent.events([entry(number * 10 + i) for i in range(3)])  # returns, while nothing is sent
    assert internal_errors["events.dropped"] == 5
    assert [r.message[:24] for r in caplog.records] == ["charges were not sent as"]
    Blocked.gate.set()
    assert len(sent.ids()) == 11


def test_sent_by_itself_within_moments(sending: Callable[..., Sent]) -> None:
    sent = sending()
    arrived = threading.Event()
    export = sent.exporter.export
    sent.exporter.export = lambda batch: (export(batch), arrived.set())[0]  # type: ignore[method-assign]
    for number in range(3):
        arrived.clear()
        sent.events([entry(number)])
        assert arrived.wait(20)


def test_after_the_end_its_own_thread_sends(sending: Callable[..., Sent]) -> None:
    sent = sending()
    sent.events([entry(1)])
    sent.events.close()
    sent.events([entry(2)])
    assert sent.exporter.get_finished_logs()[-1].log_record.attributes["spanledger.charge.id"] == (
        f"{2:032x}"
    )
    assert sent.ids() == [f"{1:032x}", f"{2:032x}"]


def test_where_nothing_sends_logs_it_is_said_once_and_nothing_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)  # what OTEL_LOGS_EXPORTER=none makes
    events = ChargeEvents("shop", provider)
    for _ in range(2):
        events([entry()])
        events.flush()
    assert not events._waiting
    (said,) = caplog.records
    assert "OTEL_LOGS_EXPORTER=otlp" in said.message
    exporter = InMemoryLogRecordExporter()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    events([entry(7)])
    events.flush()
    assert len(exporter.get_finished_logs()) == 1
    events.close()
    provider.shutdown()


# -- fork ------------------------------------------------------------------------------------------


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` is true in a forked child."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # a child that is stuck is a failure, not a hang
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_sends_its_own_and_only_its_own(sending: Callable[..., Sent]) -> None:
    Blocked.gate.clear()
    Blocked.entered.clear()
    sent = sending(Blocked)
    sent.events([entry(1)])
    assert Blocked.entered.wait(20)  # the parent's thread is at work, with the lock
    sent.events([entry(2)])

    def work() -> bool:
        Blocked.gate.set()
        sent.events([entry(3)])
        return sent.ids() == [f"{3:032x}"]

    assert in_child(work)
    Blocked.gate.set()
    assert sent.ids() == [f"{1:032x}", f"{2:032x}"]


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "on"), [({}, False), ({"charges": False}, False), ({"charges": True}, True)]
)
def test_on_by_configuration_only(table: dict[str, object], on: bool) -> None:
    events = read_charge_events(Section(table, "spanledger.toml", "events"), "shop")
    assert (events is not None) is on


@pytest.mark.parametrize("table", [{"charge": True}, {"charges": "yes"}])
def test_a_mistake_is_an_error(table: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"spanledger\.toml: events\.charge"):
        read_charge_events(Section(table, "spanledger.toml", "events"), "shop")


def test_the_engine_sends_what_it_books(tmp_path: Any) -> None:
    """The journal and the events say the same of each call."""
    (tmp_path / "spanledger.toml").write_text("[events]\ncharges = true\n")
    environ = {"SPANLEDGER_JOURNAL": "memory://", "SPANLEDGER_LEDGER": "memory://"}
    engine = Engine(load_settings(environ, tmp_path), service="shop")
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    assert engine.events is not None
    engine.events._given = provider
    for number in range(3):
        call = PaidCall("geocoder", "geocode", None, Attribution("acme"), number + 1)
        engine.gate.record(call, Usage(reported_cost=Decimal("0.005")), Ending("ok", 0.1))
    assert engine.flush()
    engine.events.flush()
    rows = list(engine.journal.rows())
    logs = [log.log_record for log in exporter.get_finished_logs()]
    engine.close()
    provider.shutdown()
    assert [dict(log.attributes) for log in logs] == [attributes_of(row) for row in rows]
    assert [row.nano_usd for row in rows] == [5_000_000] * 3
