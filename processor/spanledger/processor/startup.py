"""The composition root: the one place that knows both halves and puts a running spanledger
together.

`pre_instrument` is what the OpenTelemetry launcher calls, after the SDK is configured and before
the instrumentors. It
never raises: an exception there would stop all instrumentation. Applications without the launcher
call `start`.
"""

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import wrapt
from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from spanledger.api.attribution import configure_attribution
from spanledger.api.errors import ConfigurationError, JournalError
from spanledger.api.gate import OpenGate, install_gate, renew_charge_ids
from spanledger.api.guard import log, say_once, swallow
from spanledger.api.settings import Section, Settings, load_settings
from spanledger.budget import (
    BudgetEvent,
    Budgets,
    Replay,
    TopSpenders,
    Watcher,
    open_shared,
    read_budget_config,
)
from spanledger.budget.gate import LedgerGate, priced_late
from spanledger.instrumentation.hosts import configure_hosts
from spanledger.instrumentation.streams import end_open_streams
from spanledger.ledger.journal import Journal, open_journal
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.place import MEMORY, ledger_url
from spanledger.ledger.protocol import open_ledger
from spanledger.ledger.recorder import Recorder
from spanledger.pricing.book import PriceBook
from spanledger.pricing.config import read_price_config
from spanledger.pricing.estimates import Estimates
from spanledger.processor.exits import AtSigterm, flush_providers, logger_provider
from spanledger.processor.forks import renew_in_children
from spanledger.processor.instances import tell_apart
from spanledger.processor.metrics import Metrics
from spanledger.processor.metrics_config import read_metrics_config
from spanledger.processor.propagation import mark_incoming_baggage
from spanledger.processor.sampler import wrap as wrap_sampler
from spanledger.processor.span_processor import LedgerSpanProcessor

# What is imported where it is first needed, most processes never need: start-up takes the less.
if TYPE_CHECKING:
    from spanledger.cache.layer import DataLayer
    from spanledger.processor.events import ChargeEvents

DEFAULT_SERVICE: Final = "unknown_service"
# Seconds that a collection of metrics waits for what is still on its way.
_COLLECTION_S: Final = 0.2


class Engine:
    """A running spanledger: price book, journal, metrics, budgets, and the gate over them.

    Raises ConfigurationError and JournalError.
    """

    def __init__(self, settings: Settings, *, service: str) -> None:
        root = settings.root
        self.settings = settings
        self.book = PriceBook(read_price_config(root.section("prices"), settings.usd_per_credit))
        budget_config = read_budget_config(root)
        bounds = read_metrics_config(root.section("metrics"))
        self.events = _charge_events(root.section("events"), service)
        self.layer = _data_layer(settings)
        self.journal: Journal = open_journal(
            settings.journal, service=service, origin=settings.origin("journal")
        )
        renew_charge_ids()
        ledger, self.ledger = _open_ledger(settings)
        self.budgets = Budgets(
            budget_config,
            self.ledger,
            shared=open_shared(ledger),
            top_spenders=self._top_spenders,
        )
        # A ledger in memory ends with its process.
        self.replay = (
            None if ledger == MEMORY else Replay(self.budgets, self.ledger, ledger, self.journal)
        )
        self.watcher = Watcher(self.budgets, settings.candidate, self.replay)
        self.metrics = Metrics(**bounds._asdict(), read_budgets=self.budgets.readings)
        sinks = (self.metrics,) if self.events is None else (self.metrics, self.events)
        self.recorder = Recorder(
            self.journal, sinks=sinks, complete=partial(priced_late, self.book)
        )
        if self.events is not None:
            self.events.pull = self.recorder.flush
        self.metrics.flush = partial(self.recorder.flush, _COLLECTION_S)
        self.metrics.read_prices_timestamp = self._prices_timestamp
        self.gate = LedgerGate(
            self.book,
            Estimates(self.book),
            self.recorder,
            self.budgets,
            job_difference=self.journal.job_difference,
            on_credits=self.metrics.credits_remaining,
        )

    def start(self) -> None:
        """Put it into the path of the calls, and start what runs in the background."""
        install_gate(self.gate)
        self._share_by(self.layer)
        self.watcher.start()
        threading.Thread(target=self._warm, name="spanledger-prices", daemon=True).start()

    def _share_by(self, layer: "DataLayer | None") -> None:
        """Let data calls share their results by `layer`, where this process has one at all."""
        if self.layer is not None:
            from spanledger.instrumentation.shared import use_data_layer  # noqa: PLC0415

            use_data_layer(layer)

    def _warm(self) -> None:
        with swallow("loading prices"):
            self.book.warm()

    def _top_spenders(self, event: BudgetEvent) -> TopSpenders:
        from spanledger.budget.spenders import top_spenders  # noqa: PLC0415

        self.flush(_COLLECTION_S)  # those of the last moment are who it is about
        return top_spenders(self.journal, event)

    def _prices_timestamp(self) -> float | None:
        day = self.book.info().data_date
        return None if day is None else datetime.combine(day, time(), UTC).timestamp()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Write what is pending into the journal. False where that took longer than `timeout_s`."""
        return self.recorder.flush(timeout_s)

    def send(self) -> None:
        """Write and send everything: this process is about to be ended."""
        self.flush()
        if self.events is not None:
            self.events.flush()
        self.metrics.send()
        flush_providers((trace.get_tracer_provider(), logger_provider()))
        self.ledger.close()
        self.flush()  # what ended meanwhile
        if self.replay is not None:
            self.replay.close()

    def close(self) -> None:
        """Book what is still open, write it, and stop."""
        self._share_by(None)
        parts = (
            self.watcher,
            self.ledger,
            self.layer,
            self.recorder,
            self.events,
            self.book,
            self.replay,
            self.journal,
        )
        with swallow("closing"):
            end_open_streams()
            self.metrics.finish()
        for part in parts:
            with swallow("closing"):
                if part is not None:
                    part.close()


def _open_ledger(settings: Settings) -> tuple[str, LeasedLedger]:
    """The ledger and its URL. A default place that cannot be used is no reason to book nothing."""
    url = ledger_url(settings)
    try:
        return url, open_ledger(url, settings.origin("ledger"))
    except ConfigurationError as error:
        if settings.ledger is not None:
            raise
        say_once("ledger", "place", "each process holds its budgets by itself: %s", error)
        return MEMORY, open_ledger(MEMORY)


def _charge_events(section: Section, service: str) -> "ChargeEvents | None":
    """The log events of charges, where the configuration asks for them."""
    if not section.values:
        return None
    from spanledger.processor.events import read_charge_events  # noqa: PLC0415

    return read_charge_events(section, service)


def _data_layer(settings: Settings) -> "DataLayer | None":
    """The data layer, where the configuration names an operation whose results are shared."""
    section = settings.root.section("cache")
    if not section.values and settings.cache_store is None:
        return None
    from spanledger.cache.config import read_cache_config  # noqa: PLC0415
    from spanledger.cache.layer import DataLayer  # noqa: PLC0415
    from spanledger.cache.store import open_store  # noqa: PLC0415

    config = read_cache_config(section)
    origin = settings.origin("cache_store")
    # Where there are no rules as well: a wrong URL is said before somebody relies on it.
    store = open_store(settings.cache_store, max_bytes=config.max_bytes, origin=origin)
    if not config.rules:
        store.close()
        return None
    return DataLayer(config, store)


_engine: Engine | None = None
_sigterm: AtSigterm | None = None
_lock: Final = threading.Lock()


def engine() -> Engine | None:
    """The running engine, None before `start`."""
    return _engine


def start(
    settings: Settings | None = None,
    *,
    service: str | None = None,
    tracer_provider: Any = None,
    meter_provider: MeterProvider | None = None,
) -> Engine:
    """Start spanledger in this process, once; a second call returns the running engine.

    For applications that do not use the launcher: call it before the SDKs' clients are used, then
    `OpenAIInstrumentor().instrument()` and its like.

    Raises ConfigurationError and JournalError.
    """
    global _engine, _sigterm  # noqa: PLW0603 - one engine a process
    with _lock:
        if _engine is not None:
            return _engine
        settings = settings or load_settings()
        configure_attribution(extra=settings.extra_keys, trust_incoming=settings.trust_incoming)
        configure_hosts(settings.root.section("providers"))
        mark_incoming_baggage()
        new = Engine(settings, service=service or _service_name(tracer_provider))
        new.start()
        _hook_tracer_provider(tracer_provider)
        meters = meter_provider or metrics.get_meter_provider()
        tell_apart(meters)
        new.metrics.register(meters)
        renew_in_children(tracer_provider, meters)
        atexit.register(new.close)
        _sigterm = AtSigterm(new.send)
        _engine = new
        return new


def stop() -> None:
    """Stop the running engine; calls are no longer booked."""
    global _engine  # noqa: PLW0603 - one engine a process
    with _lock:
        if _engine is None:
            return
        install_gate(OpenGate())
        atexit.unregister(_engine.close)
        if _sigterm is not None:
            _sigterm.undo()
        _engine.close()
        _engine = None


def pre_instrument() -> None:
    """Entry point `opentelemetry_pre_instrument`: start, whatever the configuration looks like.

    An application is not stopped for the sake of its books: what cannot be used is said, and left
    out, a wrong variable by itself, a wrong file as a whole.
    """
    with swallow("start"):
        environ, use_file = dict(os.environ), True
        while (error := _mistake(environ, use_file=use_file)) is not None:
            variable = error.key.partition(".")[0]
            if error.source == "environment":
                log.error("spanledger: a variable is not used: %s", error)
                if variable == "SPANLEDGER_CONFIG":
                    # What was named is not there; the default one is not what was meant. It stays
                    # named: its budgets come into force when it is there.
                    use_file = False
                else:
                    del environ[variable]
            elif use_file:
                log.error("spanledger: the configuration is not used: %s", error)
                use_file = False
            else:
                raise error


def _mistake(environ: Mapping[str, str], *, use_file: bool) -> ConfigurationError | None:
    """Start with this configuration; what is wrong with it, where that cannot be."""
    try:
        _start_with(load_settings(environ, use_file=use_file))
    except ConfigurationError as error:
        return error
    return None


def _start_with(settings: Settings) -> None:
    if settings.disabled:
        return
    try:
        start(settings)
    except JournalError as error:
        log.error("spanledger: charges are kept in memory only: %s", error)
        start(replace(settings, journal="memory://"))


# -- tracer providers
# --------------------------------------------------------------------------------------


def _hook_tracer_provider(given: Any) -> None:
    """Put the sampler wrapper and the span processor into the tracer provider, or into the one
    that comes later.
    """
    provider = given or trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        _prepare(provider)
    else:
        wrapt.wrap_function_wrapper(trace, "_set_tracer_provider", _prepare_later)


def _prepare(provider: TracerProvider) -> None:
    with swallow("tracer provider"):
        wrap_sampler(provider)
        provider.add_span_processor(LedgerSpanProcessor())


def _prepare_later(wrapped: Callable[..., None], _: object, args: Any, kwargs: Any) -> None:
    provider = kwargs.get("tracer_provider", args[0] if args else None)
    if isinstance(provider, TracerProvider):
        _prepare(provider)
    wrapped(*args, **kwargs)


def _service_name(tracer_provider: Any) -> str:
    provider = tracer_provider or trace.get_tracer_provider()
    resource = getattr(provider, "resource", None)
    name = resource.attributes.get("service.name") if resource else None
    name = name or os.environ.get("OTEL_SERVICE_NAME")
    return str(name) if name else DEFAULT_SERVICE
