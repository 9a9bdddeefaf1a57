"""Data calls through the data layer: a kept result served, identical calls in flight made one.

Results are shared where a rule of the configuration names the operation; everything else takes the
plain path. A hit spends nothing and is never refused. A leader's budget error is its own: another
follower leads.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final, Protocol

from opentelemetry import context

from spanledger.api.guard import swallow
from spanledger.api.names import CACHE
from spanledger.api.values import count
from spanledger.cache.config import Rule
from spanledger.cache.flight import ErrorKind, Follow, Hit, Lead
from spanledger.cache.flight import Failed as LeaderFailed
from spanledger.cache.layer import DataLayer
from spanledger.instrumentation.call import Call
from spanledger.instrumentation.pipeline import (
    RAISE,
    SEND,
    Failed,
    Flow,
    Offload,
    Raise,
    Reader,
    admission,
    paid_call,
    status_of,
)
from spanledger.instrumentation.request import NOTHING_READ

_REJECTED: Final = frozenset({400, 404, 409, 410, 422})
_UNAVAILABLE: Final = frozenset({408, 429})
_OUT_OF_REACH: Final = ("Timeout", "ConnectionError", "ConnectError", "ConnectTimeout")

_layer: DataLayer | None = None


def use_data_layer(layer: DataLayer | None) -> None:
    """Share results by `layer` from now on; None for not at all."""
    global _layer  # noqa: PLW0603 - set once at start
    _layer = layer


class DataReader(Reader, Protocol):
    """A reader whose errors can be told to other processes."""

    def error_detail(self, error: BaseException) -> object:
        """What of an error others need to raise the same (JSON); None where it cannot be said."""
        ...

    def error_from(self, detail: object) -> BaseException | None:
        """The error that `error_detail` told of."""
        ...


def data_call(
    call: Call, reader: DataReader, content: Mapping[str, object] | None, *, nowait: bool
) -> Flow:
    """The steps of one data call. `content`: what is asked; None where it is not to be shared."""
    layer, request = _layer, call.request
    if layer is None or content is None:
        return paid_call(call, reader, nowait=nowait)
    rule = layer.rule(request.provider, request.operation)
    if rule is None:
        return paid_call(call, reader, nowait=nowait)
    return _shared_call(call, reader, layer, rule, content, nowait=nowait)


def _shared_call(
    call: Call,
    reader: DataReader,
    layer: DataLayer,
    rule: Rule,
    content: Mapping[str, object],
    *,
    nowait: bool,
) -> Flow:
    key = _key(call, layer, rule, content)
    lead = Lead()  # alone, until the layer gives one
    try:
        answer = yield Offload(
            partial(layer.begin, key, rule), partial(layer.async_begin, key, rule)
        )
        followed = isinstance(answer, Follow)
        if followed:
            answer = yield Offload(answer.wait, answer.async_wait)
        if isinstance(answer, LeaderFailed):
            error = answer.error or reader.error_from(answer.detail)
            if error is not None:
                call.fail(error, None, unbilled=True)
                return Raise(error)
            answer = Lead()
        if isinstance(answer, Hit):
            return _serve(call, answer, "deduplicated" if followed else "cached")
        lead = answer
        call.looked_up("bypass" if lead.bypassed else "miss", stale_available=lead.has_stale)
        yield from admission(call, nowait=nowait)
        if call.decision == "stale" and (hit := lead.stale()) is not None:
            lead.abandon()
            return _serve(call, hit, "degraded")
        token = context.attach(call.context())
        try:
            result = yield SEND
        finally:
            context.detach(token)
    except BaseException as error:  # refused, or cancelled before it was sent
        lead.abandon()
        call.fail(error, None, unbilled=True)
        raise
    if isinstance(result, Failed):
        return (yield from _failed(call, reader, lead, result.error))
    return (yield from _completed(call, reader, lead, result))


def _key(call: Call, layer: DataLayer, rule: Rule, content: Mapping[str, object]) -> str | None:
    """The entry's key; without one the call is made alone."""
    with swallow("cache.key"):
        return layer.key(
            rule,
            provider=call.request.provider,
            operation=call.request.operation,
            request=content,
            tenant=call.paid.attribution.tenant,
        )
    return None


def _completed(call: Call, reader: DataReader, lead: Lead, result: object) -> Flow:
    """Book the call, and let the others have its result."""
    with swallow("completed"):
        result = reader.completed(call, result)
        if hasattr(type(result), "__await__"):  # what it comes to is its caller's alone
            lead.abandon()
            return result
    call.finish(NOTHING_READ)  # where it could not be read what it used
    charge = call.charge
    cost = (charge.nano_usd, charge.credits) if charge is not None else (None, None)
    store = (result, *cost)
    yield Offload(partial(lead.store, *store), partial(lead.async_store, *store))
    return result


def _serve(call: Call, hit: Hit, outcome: str) -> object:
    state = "stale" if hit.stale else "hit"
    call.served(outcome, state, hit.saved.nano_usd, hit.saved.credits)  # type: ignore[arg-type]
    return hit.value


def _failed(call: Call, reader: DataReader, lead: Lead, error: BaseException) -> Flow:
    """The provider failed: tell the followers, and serve what is stale where that helps."""
    detail: object = None
    with swallow("failed"):
        detail = reader.error_detail(error)
    kind = _kind(error, detail)
    stale = None
    if kind == "unavailable" and isinstance(error, Exception) and (stale := lead.stale()):
        call.span.set_attribute(CACHE, "stale")  # the call failed, its caller has a result
    with swallow("failed"):
        reader.failed(call, error)
    call.fail(error, None, unbilled=False)  # where it could not be read what it used
    if not isinstance(error, Exception):  # cancelled: nobody waits for us now
        lead.abandon()
        return RAISE
    yield Offload(
        partial(lead.fail, kind, error, detail), partial(lead.async_fail, kind, error, detail)
    )
    return RAISE if stale is None else stale.value


def _kind(error: BaseException, detail: object) -> ErrorKind:
    """Whom an error concerns: everybody who asks the same, everybody for now, or its caller."""
    status = status_of(error)
    if status is None and isinstance(detail, Mapping):  # the SDK's error has lost it
        status = count(detail.get("status"))
    if status is None:
        names = {kind.__name__ for kind in type(error).__mro__}
        reach = any(name.endswith(_OUT_OF_REACH) or "Timeout" in name for name in names)
        return "unavailable" if reach else "own"
    if status in _REJECTED:
        return "rejected"
    return "unavailable" if status in _UNAVAILABLE or status >= 500 else "own"
