"""The real books (price book, recorder, journal in memory) and real spans, for tests of calls."""

from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from books import Books
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spanledger.api.gate import install_gate
from spanledger.api.settings import Section, Settings
from spanledger.instrumentation.anthropic import AnthropicInstrumentor
from spanledger.instrumentation.openai import OpenAIInstrumentor
from spanledger.instrumentation.scavio import ScavioInstrumentor
from spanledger.instrumentation.spans import use_tracer_provider
from spanledger.processor.startup import Engine


@pytest.fixture(scope="session", autouse=True)
def _patched() -> Iterator[None]:
    instrumentors = (OpenAIInstrumentor(), AnthropicInstrumentor(), ScavioInstrumentor())
    for instrumentor in instrumentors:
        instrumentor.instrument(skip_dep_check=True)
    yield
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


@pytest.fixture
def make_books() -> Iterator[Callable[..., Books]]:
    """Makes books with settings of a test's own: `make_books(prices={...})`."""
    engines: list[Engine] = []

    def make(config: dict[str, object] | None = None, **credits: str) -> Books:
        settings = Settings(
            root=Section(config or {}, "test"),
            journal="memory://",
            usd_per_credit={provider: Decimal(usd) for provider, usd in credits.items()},
        )
        engine = Engine(settings, service="test")
        engine.book.warm()  # the first call of a test is over before prices load by themselves
        engines.append(engine)
        install_gate(engine.gate)
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        use_tracer_provider(provider)
        return Books(engine, exporter)

    yield make
    use_tracer_provider(None)
    for engine in engines:
        engine.close()


@pytest.fixture
def books(make_books: Callable[..., Books]) -> Books:
    """Books with default settings, and a price for Scavio's credits."""
    return make_books(scavio="0.005")
