"""Sampling that loses no money: a paid call that is not sampled still reaches the span processor.

`KeepGenAI` stands around the sampler that the application configured and turns its DROP into
RECORD_ONLY for GenAI spans: they are recorded, so that they can be booked, and not exported. The
`sampled` flag stays unset, so that what happens inside such a span is sampled as before.
"""

from collections.abc import Sequence
from typing import Any, Final

import wrapt
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind
from opentelemetry.trace.span import TraceState
from opentelemetry.util.types import Attributes

from spanledger.api.guard import swallow
from spanledger.processor.dialects import is_genai_scope, may_be_paid


class KeepGenAI(Sampler):
    """`inner`, but that no GenAI span is dropped.

    every: keep also the spans whose attributes do not tell what they are; for the tracers of GenAI
        instrumentations, some of which set attributes only when a span is about to end.
    """

    def __init__(self, inner: Sampler, *, every: bool = False) -> None:
        self.inner: Final = inner
        self._every = every

    def should_sample(  # noqa: PLR0917 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See `opentelemetry.sdk.trace.sampling.Sampler`."""
        result = self.inner.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )
        if result.decision is not Decision.DROP:
            return result
        with swallow("sampler"):
            if self._keeps(attributes):
                # A sampler that drops a span gives none of its attributes back.
                kept = {**(attributes or {}), **(result.attributes or {})}
                return SamplingResult(Decision.RECORD_ONLY, kept, result.trace_state)
        return result

    def _keeps(self, attributes: Attributes) -> bool:
        told = may_be_paid(attributes) if attributes else None
        return self._every if told is None else told

    def get_description(self) -> str:
        """See `opentelemetry.sdk.trace.sampling.Sampler`."""
        return f"KeepGenAI{{{self.inner.get_description()}}}"


def wrap(tracer_provider: object) -> bool:
    """Put `KeepGenAI` around the sampler of an SDK's tracer provider, once.

    Tracers made before keep working and get it too. False where there was nothing to wrap.
    """
    if not isinstance(tracer_provider, TracerProvider):
        return False
    if isinstance(tracer_provider.sampler, KeepGenAI):
        return False
    inner = tracer_provider.sampler
    keep, keep_every = KeepGenAI(inner), KeepGenAI(inner, every=True)

    def equip(tracer: object, scope_name: str) -> None:
        if isinstance(tracer, Tracer) and (tracer.sampler is inner or tracer.sampler is keep):
            tracer.sampler = keep_every if is_genai_scope(scope_name) else keep

    def get_tracer(wrapped: Any, _: object, args: Any, kwargs: Any) -> Any:
        tracer = wrapped(*args, **kwargs)
        with swallow("sampler"):
            equip(tracer, str(args[0] if args else kwargs["instrumenting_module_name"]))
        return tracer

    tracer_provider.sampler = keep
    with swallow("sampler"):
        # A tracer copies the sampler when it is made: those already made are found nowhere else.
        made: dict[InstrumentationScope, Tracer] = getattr(tracer_provider, "_tracers", {})
        for scope, tracer in list(made.items()):
            equip(tracer, scope.name)
    # On this provider's `get_tracer`, since a sampler is not told which instrumentation asks.
    wrapt.wrap_function_wrapper(tracer_provider, "get_tracer", get_tracer)
    return True
