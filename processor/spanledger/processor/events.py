"""Each charge as an OpenTelemetry log event, `spanledger.charge`, where the configuration says so:

    [events]
    charges = true

Whatever takes logs over OTLP is then the books of a whole fleet, and a pod's disk may die with it.
An event has every column of `spanledger export`, under the names that spans have for them, and no
prompt, response or other text. It goes the way of the application's other logs: its logger
provider, its exporter.

Emitting may block (a provider may export at once), and the journal must not wait for that: so the
events have a thread of their own. A forked child begins with none waiting.
"""

import atexit
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from opentelemetry._logs import Logger, LoggerProvider, SeverityNumber, get_logger_provider
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from spanledger.api import names
from spanledger.api.contexts import attached
from spanledger.api.guard import internal_errors, say_once, swallow
from spanledger.api.settings import Section
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal_rows import Row, from_values, storable, to_values
from spanledger.processor.exits import at_child_exit, flush_providers

Value = str | int | float

_MOST_WAITING: Final = 100_000  # entries, 1 to 2 KB each
_BATCH: Final = 500  # the SDK's queue holds 2,048 records and drops what is more
_EXIT_S: Final = 5.0

# What has the same name and form in a row, and needs no thought.
_ATTRIBUTES: Final = (
    (names.SERVICE, "service"),
    (names.TENANT, "tenant_id"),
    (names.USER, "user_id"),
    (names.FEATURE, "feature"),
    (names.USE_ID, "use_id"),
    (names.PROVIDER, "provider"),
    (names.OPERATION, "operation"),
    (names.REQUEST_MODEL, "model_requested"),
    (names.RESPONSE_MODEL, "model"),
    (names.OUTCOME, "outcome"),
    (names.ERROR_TYPE, "error_type"),
    (names.INPUT_TOKENS, "input_tokens"),
    (names.OUTPUT_TOKENS, "output_tokens"),
    (names.CACHE_READ_TOKENS, "cache_read_tokens"),
    (names.CACHE_WRITE_TOKENS, "cache_write_tokens"),
    (names.REASONING_TOKENS, "reasoning_tokens"),
    (names.COST_NANO_USD, "nano_usd"),
    (names.COST_STATUS, "cost_status"),
    (names.COST_SOURCE, "cost_source"),
    (names.PRICE_VERSION, "price_version"),
    (names.UNPRICED_REASON, "unpriced_reason"),
    (names.SAVED_NANO_USD, "saved_nano_usd"),
    (names.CHARGE_ID, "charge_id"),
    (names.JOB_KEY, "job_key"),
    (names.BUDGET_TIER, "budget_tier"),
)


def read_charge_events(section: Section, service: str) -> "ChargeEvents | None":
    """What the table [events] asks for; None where it asks for nothing. Raises ConfigurationError.

    service: the name of the application, for the events.
    """
    on = section.flag("charges", False)
    section.finish()
    return ChargeEvents(service) if on else None


def attributes_of(row: Row) -> dict[str, Value]:
    """The attributes of `row`'s event: amounts of money as integers of nano-USD, and the cost in
    USD as well. What is not known is left out.
    """
    given: dict[str, Value | None] = {
        **row.attributes,
        **{name: getattr(row, column) for name, column in _ATTRIBUTES},
        names.COST_USD: None if row.nano_usd is None else row.nano_usd / 1e9,
        names.CREDITS: _number(row.credits),
        names.SAVED_CREDITS: _number(row.saved_credits),
        names.CALL_SECONDS: _seconds(row.latency_ms),
        names.FIRST_CHUNK_SECONDS: _seconds(row.first_chunk_ms),
        **{f"{names.UNITS}.{unit}": _number(amount) for unit, amount in row.units.items()},
    }
    return {name: value for name, value in given.items() if value is not None}


def _number(amount: int | Decimal | None) -> int | float | None:
    return float(amount) if isinstance(amount, Decimal) else amount


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds / 1000, 6)


class ChargeEvents:
    """Sends each charge as a log event. A sink of the recorder: call it with batches of entries.

    service: the name of the application, as the journal has it.
    logger_provider: what sends the events; default: the application's, once it is there.
    most_waiting: entries kept while sending takes its time; more are dropped, counted and said.
    """

    def __init__(
        self,
        service: str,
        logger_provider: LoggerProvider | None = None,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self.pull: Callable[[], object] | None = None
        """Called when the main thread ends: brings what is still on its way to us."""
        self._service = service
        self._given = logger_provider
        self._most_waiting = most_waiting
        self._waiting: deque[Entry] = deque()
        self._stop = threading.Event()
        self._begin()
        after_fork = weakref.WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (method := after_fork()) and method())
        main_ends = weakref.WeakMethod(self._main_ends)
        _when_main_ends(lambda: (method := main_ends()) and method())

    def _begin(self) -> None:
        """Begin anew; in a forked child without thread, locks and entries of the parent."""
        self._waiting.clear()
        self._working = threading.RLock()  # held by whoever sends
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, entries: Sequence[Entry]) -> None:
        """Send `entries`, soon."""
        room = max(self._most_waiting - len(self._waiting), 0)
        self._waiting.extend(entries[:room])
        if len(entries) > room:
            self._lose(len(entries) - room)
        if self._thread is None:
            self._start()
        self._wake.set()

    def flush(self) -> None:
        """Hand what is waiting to the provider now."""
        self._send()

    def close(self) -> None:
        """Hand what is waiting to the provider, and end the thread.

        What comes later, while the interpreter exits, is handed on at once by its own thread.
        """
        self._stop.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_EXIT_S)
            if thread.is_alive():
                self._lose_all()
                return
        self._thread = None
        self._send(_EXIT_S)

    # -- the sender --------------------------------------------------------------------------------

    def _start(self) -> None:
        if not self._stop.is_set():
            thread = threading.Thread(target=self._run, name="spanledger-events", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no thread to be had
                say_once("events", "thread", "events are sent by the journal's thread: %s", error)
            else:
                self._thread = thread
                at_child_exit(self._end_child)
                return
        self._send()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            with swallow("events"):
                self._send()

    def _send(self, timeout_s: float = math.inf) -> None:
        """Hand what is waiting to the provider; what takes longer than `timeout_s` is dropped."""
        deadline = time.monotonic() + timeout_s
        if not self._working.acquire(timeout=timeout_s if timeout_s < math.inf else -1):
            return  # its holder sends what there is
        try:
            provider = self._given or get_logger_provider()
            logger = provider.get_logger(names.SCOPE_PROCESSOR)
            if not logger.enabled(event_name=names.EVENT_CHARGE):
                if self._waiting:
                    self._waiting.clear()
                    say_once("events", "no logs", _NO_LOGS)
                return
            # Exporters belong to no request; and a record takes an empty context for the current.
            with attached(Context()):
                while batch := self._take():
                    for entry in batch:
                        with swallow("events.charge"):
                            _emit(logger, from_values(storable(to_values(entry, self._service))))
                    if self._waiting and time.monotonic() < deadline:
                        # So many at once would overrun the provider's queue, which then drops some.
                        flush_providers([provider])
                    elif self._waiting:
                        self._lose_all()
        finally:
            self._working.release()

    def _take(self) -> list[Entry]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]

    def _lose_all(self) -> None:
        self._lose(len(self._waiting))
        self._waiting.clear()

    def _lose(self, entries: int) -> None:
        internal_errors["events.dropped"] += entries
        say_once(
            "events",
            "dropped",
            "charges were not sent as events, because the log exporter is too slow or its endpoint "
            "is down; the journal has them. spanledger.internal.errors counts them under "
            "events.dropped",
        )

    # -- exit --------------------------------------------------------------------------------------

    def _main_ends(self) -> None:
        with swallow("events"):
            if self.pull is not None and not self._stop.is_set():
                self.pull()
                self._send(_EXIT_S)

    def _end_child(self) -> None:
        """A child of `multiprocessing` ends without exit handlers, the provider's among them."""
        with swallow("events"):
            self.close()
            flush_providers([self._given or get_logger_provider()])


# Exit handlers run from the last registered to the first: a logger provider that the application
# made after we began ends before any of ours, with the charges of the last moment still on their
# way. Before all of them run those of concurrent.futures, for which there is no public name.
_when_main_ends: Final[Callable[[Callable[[], object]], object]] = getattr(
    threading, "_register_atexit", atexit.register
)

_NO_LOGS: Final = (
    "[events] charges = true, and nothing sends logs: set OTEL_LOGS_EXPORTER=otlp, or give the "
    "application a logger provider with a processor"
)


def _emit(logger: Logger, row: Row) -> None:
    logger.emit(
        timestamp=row.timestamp_ns,
        context=_trace(row),
        severity_number=SeverityNumber.INFO,
        severity_text="INFO",
        attributes=attributes_of(row),
        event_name=names.EVENT_CHARGE,
    )


def _trace(row: Row) -> Context:
    """A context in the call's span, if it had one."""
    if row.trace_id is None or row.span_id is None:
        return Context()
    span = SpanContext(int(row.trace_id, 16), int(row.span_id, 16), is_remote=False)
    return set_span_in_context(NonRecordingSpan(span), Context())
