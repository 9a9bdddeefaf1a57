"""The books and the spans that a test's calls left."""

import gc
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.instrumentation.streams import flush_streams
from spanledger.ledger.journal_rows import Row
from spanledger.processor.startup import Engine


class Books:
    """What a test reads after its calls."""

    def __init__(self, engine: Engine, exporter: InMemorySpanExporter) -> None:
        self.engine = engine
        self._exporter = exporter

    def rows(self) -> Sequence[Row]:
        """Every row, in the order of the calls' starts."""
        assert flush_streams()
        assert self.engine.flush()
        return list(self.engine.journal.rows())

    def collect(self) -> None:
        """Let the garbage collector find what was dropped (a tenth of a second: only on demand)."""
        gc.collect()

    def row(self) -> Row:
        """The one row there must be."""
        rows = self.rows()
        assert len(rows) == 1, rows
        return rows[0]

    def spans(self) -> Sequence[ReadableSpan]:
        """Every ended span."""
        return self._exporter.get_finished_spans()

    def span(self) -> ReadableSpan:
        """The one span there must be."""
        spans = self.spans()
        assert len(spans) == 1, [span.name for span in spans]
        return spans[0]
