"""The committed configuration in the real collector: spans in; prices, metrics and the right traces out."""

import itertools
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from collector_program import (
    CONFIG,
    RECORDED,
    Backend,
    Collector,
    Sent,
    any_value,
    collector_program,
    key_values,
    plain,
    recorded,
    request,
)
from metric_table import METRICS
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from stack_programs import wait_for

from spanledger.pricing.book import Price, PriceBook
from spanledger.pricing.config import PriceConfig
from spanledger.processor.dialects import read

SERVICES = itertools.count()
NANO = 10**9


@pytest.fixture(scope="module")
def book() -> PriceBook:
    book = PriceBook(PriceConfig())
    book.warm()
    return book


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    backend = Backend()
    backend.start()
    yield backend
    backend.stop()


@pytest.fixture(scope="module")
def collector(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One collector for all tests: each sends as a service of its own."""
    settings = {
        "SAMPLE_PERCENT": "0",
        "TENANTS": "acme|globex|initech",
        "SKIP_SCOPES": "^told[.]elsewhere$",
    }
    collector = Collector(tmp_path_factory.mktemp("collector"), backend, **settings)
    collector.start()
    yield collector
    collector.stop()
    # A statement that fails, or an amount that came out of order, would show here and nowhere else.
    assert collector.complaints() == []


@pytest.fixture
def service() -> str:
    return f"shop-{next(SERVICES)}"


def price(book: PriceBook, sent: Sent) -> Price | None:
    """What the price book says of a span, read as our own processor reads it; None where it is no paid call."""
    call = read(dict(sent.attributes), sent.scope, sent.name)
    if call is None:
        return None
    usage = call.usage
    if call.refused and not usage.units and usage.reported_cost is None:
        usage = usage._replace(reported_cost=Decimal(0))
    return book.price(call.provider, call.model, usage, sent.start_ns)


def series(collector: Collector, metric: str, service: str) -> dict[str, float]:
    found = collector.scrape().get(metric, {})
    return {labels: value for labels, value in found.items() if f'job="{service}"' in labels}


def calls(collector: Collector, service: str) -> int:
    return int(sum(series(collector, "spanledger_calls_total", service).values()))


def wait_for_calls(collector: Collector, service: str, number: int) -> None:
    wait_for(
        lambda: calls(collector, service) >= number,
        f"{number} calls",
        lambda: (series(collector, "spanledger_calls_total", service), collector.complaints()),
    )


# -- 1,000 calls of four dialects -------------------------------------------------------------

MODELS = (
    ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
    ("openai", "gpt-4.1-nano", "gpt-4.1-nano-2025-04-14"),
    ("openai", "gpt-5", "gpt-5-2025-08-07"),
    ("openai", "gpt-5.6-sol", "gpt-5.6-sol-2026-08-21"),
    ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
    ("anthropic", "claude-haiku-4-5", "claude-haiku-4-5-20251001"),
    ("gcp.gemini", "gemini-2.5-flash-lite", "gemini-2.5-flash-lite"),
    ("gcp.gemini", "gemini-3.6-flash", "gemini-3.6-flash"),
    ("openai", "o3", "no-such-model-yet"),
    ("acme-ai", "no-such-model", "no-such-model"),
)


def some_calls(number: int, seed: int) -> list[Sent]:
    """Calls in turn as the conventions of today, those of old, OpenLLMetry, OpenInference and a JavaScript service say it."""
    rng = random.Random(seed)
    dialects = (conventions, old_conventions, openllmetry, openinference, javascript)
    return [dialects[index % len(dialects)](rng) for index in range(number)]


def amounts(rng: random.Random) -> tuple[int, int, int, int]:
    """Input, of which from the cache, output, of which reasoning; every ninth longer than any first step."""
    whole = rng.randrange(200_001, 900_000) if rng.random() < 1 / 9 else rng.randrange(1, 20_000)
    cached = rng.choice((0, rng.randrange(0, whole)))
    output = rng.randrange(1, 5_000)
    return whole, cached, output, rng.choice((0, rng.randrange(0, output)))


def who(rng: random.Random) -> dict[str, str]:
    return {"tenant.id": rng.choice(("acme", "globex", "initech")), "feature.name": "search"}


def new_id(rng: random.Random) -> str:
    return f"response-{rng.getrandbits(64):x}"


def conventions(rng: random.Random) -> Sent:
    (provider, asked, served), (whole, cached, output, reasoning) = rng.choice(MODELS), amounts(rng)
    return Sent(
        "opentelemetry.instrumentation.genai",
        f"chat {asked}",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": asked,
            "gen_ai.response.model": served,
            "gen_ai.response.id": new_id(rng),
            "gen_ai.usage.input_tokens": whole,
            "gen_ai.usage.cache_read.input_tokens": cached,
            "gen_ai.usage.output_tokens": output,
            "gen_ai.usage.reasoning.output_tokens": reasoning,
            "openai.response.service_tier": rng.choice(
                ("auto", "batch", "flex", "priority", "odd")
            ),
            **who(rng),
        },
    )


def old_conventions(rng: random.Random) -> Sent:
    (provider, asked, served), (whole, _, output, _) = rng.choice(MODELS), amounts(rng)
    return Sent(
        "some.old.instrumentation",
        f"chat {asked}",
        {
            "gen_ai.system": provider,
            "gen_ai.request.model": asked,
            "gen_ai.response.model": served,
            "gen_ai.response.id": new_id(rng),
            "gen_ai.usage.prompt_tokens": whole,
            "gen_ai.usage.completion_tokens": output,
            **who(rng),
        },
    )


def openllmetry(rng: random.Random) -> Sent:
    (provider, asked, served), (whole, cached, output, _) = rng.choice(MODELS), amounts(rng)
    return Sent(
        f"opentelemetry.instrumentation.{provider}",
        f"{provider}.chat",
        {
            "llm.request.type": "chat",
            "gen_ai.system": provider.title(),
            "gen_ai.request.model": asked,
            "gen_ai.response.model": served,
            "gen_ai.response.id": new_id(rng),
            "gen_ai.usage.input_tokens": whole,
            "gen_ai.usage.output_tokens": output,
            "gen_ai.usage.cache_read_input_tokens": cached,
            "gen_ai.usage.cache_creation_input_tokens": rng.choice((0, (whole - cached) // 2)),
            **who(rng),
        },
    )


def openinference(rng: random.Random) -> Sent:
    (provider, asked, served), (whole, cached, output, reasoning) = rng.choice(MODELS), amounts(rng)
    return Sent(
        f"openinference.instrumentation.{provider}",
        "ChatCompletion",
        {
            "openinference.span.kind": "LLM",
            "llm.provider": provider,
            "llm.model_name": served,
            "llm.invocation_parameters": json.dumps({"model": asked, "temperature": 0.2}, indent=1),
            "llm.token_count.prompt": whole,
            "llm.token_count.completion": output,
            "llm.token_count.prompt_details.cache_read": cached,
            "llm.token_count.completion_details.reasoning": reasoning,
            **who(rng),
        },
    )


def javascript(rng: random.Random) -> Sent:
    (provider, asked, served), (whole, cached, output, reasoning) = rng.choice(MODELS), amounts(rng)
    metadata = {"anthropic": {"cacheReadInputTokens": cached, "cacheCreationInputTokens": 7}}
    return Sent(
        "ai",
        "ai.streamText.doStream",
        {
            "ai.operationId": "ai.streamText.doStream",
            "ai.model.provider": {"gcp.gemini": "google.generative-ai"}.get(
                provider, f"{provider}.chat"
            ),
            "ai.model.id": asked,
            "ai.response.model": served,
            "ai.response.id": new_id(rng),
            "ai.usage.promptTokens": whole,
            "ai.usage.completionTokens": float(output),
            "ai.usage.reasoningTokens": reasoning,
            "ai.response.providerMetadata": json.dumps(metadata if provider == "anthropic" else {}),
            **who(rng),
        },
    )


def labels_of(span: Sent, service: str) -> str:
    call = read(dict(span.attributes), span.scope, span.name)
    assert call is not None
    labels = {
        "feature": span.attributes.get("feature.name", ""),
        "job": service,
        "model": call.usage.model or call.model or "",
        "operation": call.operation,
        "provider": call.provider,
        "tenant": span.attributes.get("tenant.id", ""),
    }
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


def test_a_thousand_calls_of_four_dialects_cost_what_the_price_book_says(
    collector: Collector, backend: Backend, book: PriceBook, service: str
) -> None:
    sent = some_calls(1_000, seed=7)
    prices = {span.id: price(book, span) for span in sent}
    known = {i: one.nano_usd for i, one in prices.items() if one and one.nano_usd is not None}
    statuses = Counter(one.status for one in prices.values() if one)
    assert statuses > Counter(exact=500, partial=20, estimated=50, unknown=50), statuses
    ours = {**conventions(random.Random(1)).attributes, "spanledger.accounted": True}
    accounted = [Sent("spanledger.instrumentation", "chat", ours) for _ in range(50)]
    mixed = random.Random(3).sample(sent + accounted, len(sent) + len(accounted))
    # Several processes at once: what is added up out of order would be lost.
    exports = [request(mixed[start : start + 30], service) for start in range(0, len(mixed), 30)]
    with ThreadPoolExecutor(8) as processes:
        list(processes.map(collector.send, exports))
    wait_for_calls(collector, service, len(sent))

    expected: Counter[str] = Counter()
    for span in sent:
        if span.id in known:
            expected[labels_of(span, service)] += known[span.id]
    shown = series(collector, "spanledger_cost_USD_total", service)
    assert {labels: round(usd * NANO) for labels, usd in shown.items()} == dict(expected)
    assert calls(collector, service) == len(sent)
    unpriced = series(collector, "spanledger_unpriced_calls_total", service)
    assert sum(unpriced.values()) == len(sent) - len(known)
    estimated = series(collector, "spanledger_estimated_cost_USD_total", service)
    assert round(sum(estimated.values()) * NANO) == sum(
        nano_usd for i, nano_usd in known.items() if prices[i].status == "estimated"
    )
    # The expensive ones are kept, and no others; each says what it cost.
    expensive = {i: nano_usd / NANO for i, nano_usd in known.items() if nano_usd >= NANO // 10}
    assert len(expensive) > 50
    mine = {span.id for span in mixed}
    wait_for(lambda: expensive.keys() <= backend.spans().keys(), "traces", backend.spans)
    arrived = {i: span for i, span in backend.spans().items() if i in mine}
    assert {i: span["gen_ai.usage.cost.amount"] for i, span in arrived.items()} == expensive


# -- what instrumentations really write -------------------------------------------------------


def shapes() -> list[tuple[str, str]]:
    return [
        (file.stem, name)
        for file in sorted(RECORDED.glob("*.json"))
        for name in json.loads(file.read_text())["spans"]
    ]


def test_every_recorded_span_is_priced_as_in_the_application(
    collector: Collector, backend: Backend, book: PriceBook, service: str
) -> None:
    """What spans beside or inside each other tell of the same call is the next test's."""
    sent: list[Sent] = []
    for file, name in shapes():
        for span in recorded(file, name):
            alone = {**span.attributes, "spanledger.degraded": "stale_cache"}  # kept by sampling
            sent.append(Sent(span.scope, span.name, alone, failed=span.failed))
    for span in sent:
        collector.send(request([span], service))
    wait_for(
        lambda: {span.id for span in sent} <= backend.spans().keys(), "all of them", backend.spans
    )
    arrived = backend.spans()
    priced = 0
    for span in sent:
        one, told = price(book, span), arrived[span.id]
        assert "spanledger.call" not in told
        if one is None:
            assert not [name for name in told if "cost" in name and name not in span.attributes]
            assert "spanledger.accounted" not in told
            continue
        priced += 1
        says = (span.scope, span.name, span.attributes)
        usd = None if one.nano_usd is None else one.nano_usd / NANO
        assert told.get("spanledger.cost.usd") == told.get("gen_ai.usage.cost.amount") == usd, says
        assert told["spanledger.cost.status"] == one.status, says
        assert told.get("spanledger.cost.source") == one.source, says
        assert told.get("spanledger.cost.unpriced_reason") == one.reason, says
        assert told.get("spanledger.price.version") == one.version, says
        assert told["spanledger.accounted"] is True
    assert priced > 40


# Spans inside each other, beside each other, with one response id, or around a whole agent: one call each.
ONE_CALL = (
    ("openllmetry", "langchain_openai"),
    ("openinference", "langchain_openai"),
    ("openinference", "langchain_around_sdk_openai"),
    ("anthropic", "nested_in_openllmetry"),
    ("litellm", "openai_chat"),
    ("vercel_4", "generate_text"),
    ("vercel_7", "generate_text"),
    ("vercel_7", "embed"),
)


def test_spans_that_tell_of_one_call_are_booked_once(collector: Collector, service: str) -> None:
    for number, (file, name) in enumerate(ONE_CALL):
        spans = recorded(file, name)
        assert len(spans) > 1
        collector.send(request(spans, f"{service}-{number}"))
    # Two of one instrumentation are two calls, whatever their ids.
    spans = [*recorded("openllmetry", "openai_chat"), *recorded("openllmetry", "openai_chat")]
    collector.send(request(spans, f"{service}-two"))
    collector.send(request(recorded("vercel_6", "embed"), f"{service}-last"))
    wait_for_calls(collector, f"{service}-last", 1)
    time.sleep(0.5)  # what was decided at the same tick is on its way in a batch
    counted = [calls(collector, f"{service}-{number}") for number in range(len(ONE_CALL))]
    assert counted == [1] * len(ONE_CALL)
    assert calls(collector, f"{service}-two") == 2


# -- metrics ----------------------------------------------------------------------------------


def test_metrics_are_ours_and_begin_at_0(collector: Collector, service: str) -> None:
    collector.send(request(recorded("vercel_6", "generate_text"), service))
    values: list[float] = []

    def shown() -> bool:
        values.extend(series(collector, "spanledger_calls_total", service).values())
        return bool(values) and values[-1] == 1

    wait_for(shown, "the call", lambda: values)
    assert values[0] == 0
    assert set(values) == {0, 1}

    seen = set()
    for name, found in collector.scrape().items():
        mine = [labels for labels in found if f'job="{service}"' in labels]
        if mine and name != "target_info":
            base = name.removesuffix("_sum").removesuffix("_count")
            allowed = METRICS.get(name) or METRICS[f"{base}_bucket"]
            for labels in mine:
                names = {label.partition("=")[0] for label in labels.split('",')}
                assert names - {"le"} == allowed - {"le"} | {"job"}, name
            seen.add(name)
    assert seen >= {
        "spanledger_cost_USD_total",
        "spanledger_calls_total",
        "spanledger_tokens_total",
        "spanledger_call_duration_seconds_bucket",
    }
    tokens = series(collector, "spanledger_tokens_total", service)
    by_type = {labels.rpartition('type="')[2].rstrip('"'): n for labels, n in tokens.items()}
    assert by_type == {"input": 1000, "cache_read": 400, "output": 200, "output_reasoning": 50}


def test_unnamed_tenants_share_a_series_and_skipped_scopes_have_none(
    collector: Collector, service: str
) -> None:
    (call,) = recorded("openllmetry", "openai_chat")
    spans = [
        Sent("told.elsewhere", call.name, call.attributes),
        *(
            Sent(call.scope, call.name, {**call.attributes, "tenant.id": tenant})
            for tenant in ("acme", "acme-2", "hooli")
        ),
    ]
    collector.send(request(spans, service))
    wait_for_calls(collector, service, 3)
    found = series(collector, "spanledger_calls_total", service)
    by_tenant = {labels.rpartition('tenant="')[2].rstrip('"'): n for labels, n in found.items()}
    assert by_tenant == {"acme": 1, "other": 2}


def test_our_own_metrics_pass_and_deltas_are_added_up(collector: Collector, service: str) -> None:
    for number in range(3):
        collector.send(own_metrics(service, 0.25, delta=True, number=number), "metrics")
    collector.send(own_metrics(f"{service}-b", 1.5, delta=False, number=1), "metrics")
    wait_for(
        lambda: sum(series(collector, "spanledger_cost_USD_total", service).values()) == 0.75,
        "the sum",
        lambda: series(collector, "spanledger_cost_USD_total", service),
    )
    other = series(collector, "spanledger_cost_USD_total", f"{service}-b")
    assert list(other.values()) == [1.5]
    assert all('instance="pod-1"' in labels for labels in other)


def own_metrics(service: str, usd: float, *, delta: bool, number: int) -> bytes:
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    attributes = {"service.name": service, "service.instance.id": "pod-1"}
    resource.resource.attributes.extend(key_values(attributes))
    metric = resource.scope_metrics.add().metrics.add(name="spanledger.cost", unit="USD")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = (1 if delta else 2), True
    now = time.time_ns()
    point = metric.sum.data_points.add(as_double=usd, time_unix_nano=now + number)
    point.start_time_unix_nano = now + number - 10**9 if delta else now - 10**10
    labels = {"provider": "openai", "model": "m", "operation": "chat", "tenant": "", "feature": ""}
    point.attributes.extend(key_values(labels))
    return message.SerializeToString()


def test_an_sdk_exports_over_grpc(collector: Collector, service: str) -> None:
    exporter = OTLPSpanExporter(f"127.0.0.1:{collector.ports['GRPC']}", insecure=True)
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    (span,) = recorded("openllmetry", "openai_embeddings")
    provider.get_tracer(span.scope).start_span(span.name, attributes=dict(span.attributes)).end()
    provider.shutdown()
    wait_for_calls(collector, service, 1)
    cost = series(collector, "spanledger_cost_USD_total", service)
    assert list(cost.values()) == [0.00000024]


# -- what must not leave ----------------------------------------------------------------------

SECRET = "sk-proj-abcdefghijklmnop1234567890"
PROMPT = "the patient's name is Rumpelstiltskin"
CONTENTS = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.prompt",
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.content",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "gen_ai.retrieval.query.text",
    "llm.input_messages.0.message.content",
    "llm.output_messages.0.message.content",
    "llm.prompts.0.content",
    "llm.invocation_parameters",
    "llm.prompt_template.template",
    "llm.openai.messages",
    "llm.anthropic.content",
    "llm.tools.0.tool.json_schema",
    "input.value",
    "output.value",
    "traceloop.entity.input",
    "traceloop.entity.output",
    "ai.prompt",
    "ai.prompt.messages",
    "ai.response.text",
    "ai.response.object",
    "ai.response.toolCalls",
    "ai.toolCall.args",
    "ai.value",
    "ai.values",
    "ai.result.text",
    "retrieval.documents.0.document.content",
    "embedding.embeddings.0.embedding.text",
    "tool.parameters",
    "http.request.body",
    "metadata.user_api_key_alias",
    "http.request.header.authorization",
    "llm.together_ai.prompt",
    "llm.openai.prompt",
    "llm.text-completion-openai.prompt",
)


def test_prompts_and_secrets_do_not_leave(
    collector: Collector, backend: Backend, service: str
) -> None:
    contents = dict.fromkeys(CONTENTS, PROMPT)
    secrets = {
        "url.full": f"https://api.example.com/v1?key={SECRET}&q=1",
        "http.headers": f"Authorization: Bearer {SECRET}",
        "my.api_key": "hunter2hunter2",
        "db.connection": "postgres://admin:hunter2hunter2@db/prices",
        "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.hunter2hunter2",
    }
    kept = {
        "gen_ai.request.model": "gpt-4o",
        "tool.name": "lookup",
        "llm.token_count.prompt": 17,
        "gen_ai.prompt.name": "greeting",
        "embedding.model_name": "text-embedding-3-small",
    }
    event = {
        "content": PROMPT,
        "gen_ai.prompt": PROMPT,
        "exception.message": PROMPT,
        "role": "user",
    }
    span = Sent(
        "gen_ai",
        "chat",
        {"gen_ai.operation.name": "chat", **contents, **secrets, **kept},
        failed=True,
        message=PROMPT,
        events=[("gen_ai.user.message", event), ("exception", event)],
    )
    collector.send(request([span], service))
    collector.send(log_record(service), "logs")
    wait_for(lambda: span.id in backend.spans() and backend.logs, "span and log", backend.spans)
    everything = b"".join(
        message.SerializeToString()
        for message in (*backend.traces, *backend.metrics, *backend.logs)
    )
    assert b"Rumpelstiltskin" not in everything
    assert b"hunter2" not in everything
    assert SECRET.encode() not in everything
    told = backend.spans()[span.id]
    assert {name: told.get(name) for name in kept} == kept
    assert told["url.full"] == "https://api.example.com/v1****&q=1"
    (arrived,) = [one for one in backend.whole_spans() if one.span_id.hex() == span.id]
    assert [plain(one.attributes)["role"] for one in arrived.events] == ["user", "user"]


def log_record(service: str) -> bytes:
    message = ExportLogsServiceRequest()
    resource = message.resource_logs.add()
    resource.resource.attributes.extend(key_values({"service.name": service}))
    logs = resource.scope_logs.add().log_records
    logs.add(event_name="gen_ai.client.inference.operation.details", body=any_value(PROMPT))
    logs.add(body=any_value(f"refused: {SECRET}"), attributes=key_values({"gen_ai.prompt": PROMPT}))
    return message.SerializeToString()


# -- traces -----------------------------------------------------------------------------------


def test_errors_and_degraded_blocked_and_expensive_calls_are_kept(
    collector: Collector, backend: Backend, service: str
) -> None:
    def own(**attributes: Any) -> Sent:
        return Sent(
            "spanledger.instrumentation", "chat", {"spanledger.accounted": True, **attributes}
        )

    kept = [
        Sent("app", "GET /", {}, failed=True),
        own(**{"spanledger.degraded": "cheaper_model"}),
        own(**{"spanledger.degraded": "stale_cache"}),
        own(**{"error.type": "BudgetExceeded"}),
        own(**{"error.type": "BudgetThrottled"}),
        own(**{"spanledger.cost.usd": 0.1}),
    ]
    dropped = [Sent("app", "GET /", {}), own(**{"spanledger.cost.usd": 0.09})]
    # A trace is kept as a whole.
    beside = [Sent("app", "beside", {}, trace=span.trace) for span in kept]
    collector.send(request([*kept, *dropped, *beside], service))
    whole = {span.id for span in (*kept, *beside)}
    wait_for(lambda: whole <= backend.spans().keys(), "traces", backend.spans)
    assert not {span.id for span in dropped} & backend.spans().keys()


# -- the configuration itself -----------------------------------------------------------------


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    command = [collector_program(), "validate", "--config", str(CONFIG)]
    environment = {**os.environ, "SPANLEDGER_COLLECTOR_STORAGE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
