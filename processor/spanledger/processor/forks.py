"""What OpenTelemetry's SDK leaves as it was in a forked child, renewed.

The SDK gives a child threads and a `service.instance.id` of its own. Two things it leaves:

- An HTTP exporter's connections are the parent's as well. Both write into them, and read each
  other's answers: requests arrive broken, and exports wait for an answer until they time out.
- Locks that the parent held at that moment stay held, by nobody. A child of a parent that was
  exporting, or waiting for a collector that is down, would never export a metric.

There are no public names for any of it. gRPC closes its channels in the child by itself; for a
parent that is in the middle of a gRPC export nothing can be done here: prefer HTTP under servers
that fork.
"""

import copy
import functools
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Final

from opentelemetry import metrics, trace

from spanledger.api.guard import swallow
from spanledger.processor.exits import logger_provider

_RLock: Final = type(threading.RLock())
# To let go of what was the parent's takes locks that may be held.
_inherited: Final[list[object]] = []
_given: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def renew_in_children(*providers: object) -> None:
    """In each child that is forked from now on, renew what `providers` (None is left out) and the
    global ones hold.
    """
    _given.update(provider for provider in providers if provider is not None)
    _watch()


@functools.cache
def _watch() -> None:
    os.register_at_fork(after_in_child=_renew)


def _renew() -> None:
    found = (*_given, metrics.get_meter_provider(), trace.get_tracer_provider())
    for provider in (*found, logger_provider()):
        with swallow("fork"):
            _renew_collection(provider)
            for exporter in _exporters(provider):
                _renew_connections(exporter)


def _renew_collection(provider: Any) -> None:
    """The locks of a meter provider that are held while metrics are collected and sent."""
    for reader in getattr(provider, "_metric_readers", ()):
        _renew_lock(reader, "_export_lock")
    consumer = getattr(provider, "_measurement_consumer", None)
    _renew_lock(consumer, "_lock")
    storages: dict[Any, Any] = getattr(consumer, "_reader_storages", {})
    for storage in storages.values():
        _renew_lock(storage, "_lock")
        for matches in getattr(storage, "_instrument_view_instrument_matches", {}).values():
            for match in matches:
                _renew_lock(match, "_lock")
                for aggregation in getattr(match, "_attributes_aggregation", {}).values():
                    _renew_lock(aggregation, "_lock")


def _renew_lock(owner: Any, name: str) -> None:
    lock = getattr(owner, name, None)
    if lock is not None:
        setattr(owner, name, threading.RLock() if isinstance(lock, _RLock) else threading.Lock())


def _exporters(provider: Any) -> Iterator[Any]:
    for reader in getattr(provider, "_metric_readers", ()):
        yield getattr(reader, "_exporter", None)
    several = getattr(provider, "_active_span_processor", None)
    for processor in getattr(several, "_span_processors", ()):
        yield getattr(processor, "span_exporter", None)
    several = getattr(provider, "_multi_log_record_processor", None)
    for processor in getattr(several, "_log_record_processors", ()):
        batches = getattr(processor, "_batch_processor", processor)
        yield getattr(batches, "_exporter", None)


def _renew_connections(exporter: Any) -> None:
    transport = getattr(getattr(exporter, "_client", None), "_transport", None)
    session = getattr(transport, "_session", None)
    adapters: dict[str, Any] = getattr(session, "adapters", {})
    for prefix, adapter in list(adapters.items()):
        _inherited.append(adapter)
        adapters[prefix] = copy.copy(adapter)  # which has no connections
