"""Who spends: tenant, user and feature from OpenTelemetry baggage.

    with attribute(tenant="acme", user="u-17"):
        ...

    @feature("competitive-analysis")
    def analyse(...): ...

Both also work as `async with` and on coroutine functions and (async) generators. The plain
OpenTelemetry way works as
well: `baggage.set_baggage("tenant.id", "acme")`.

Baggage has no provenance: what came in over the network looks like what this process set.
`mark_incoming` remembers what a propagator extracted, and `current_attribution` does not believe it
unless the settings say so.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextvars import Token
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar, cast

from opentelemetry import baggage, context, trace
from opentelemetry.context import Context

from spanledger.api import names
from spanledger.api.contexts import left, wrap
from spanledger.api.guard import say_once
from spanledger.api.values import EMPTY, NOBODY, Attribution

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_VALUE: Final = 256
"""Characters of a tenant, user or feature; a longer value keeps its start and a hash of the
whole.
"""

_USE_KEY: Final = context.create_key("spanledger-feature-use")
_INCOMING_KEY: Final = context.create_key("spanledger-incoming-baggage")
_KEPT_KEY: Final = context.create_key("spanledger-kept-attribution")
_EXTRA_KEY: Final = context.create_key("spanledger-extra-attribution")


class _Keys(NamedTuple):
    """Which baggage keys are read."""

    extra: tuple[str, ...] = ()
    trust_incoming: bool = False

    def stripped(self) -> frozenset[str]:
        return frozenset((*names.BAGGAGE_ALIASES, *names.BAGGAGE_ALIASES.values(), *self.extra))


_keys = _Keys()
_stripped = _keys.stripped()


def configure_attribution(*, extra: tuple[str, ...] = (), trust_incoming: bool = False) -> None:
    """Set which further baggage keys are read, and whether baggage from the network is believed."""
    global _keys, _stripped  # noqa: PLW0603 - set once at start
    _keys = _Keys(extra, trust_incoming)
    _stripped = _keys.stripped()


# -- reading
# -----------------------------------------------------------------------------------------------


def current_attribution(ctx: Context | None = None) -> Attribution:
    """The attribution of a paid call that starts now."""
    if ctx is None:
        ctx = context.get_current()
    entries = _entries(ctx)
    use = context.get_value(_USE_KEY, ctx)
    if use is None:
        span = trace.get_current_span(ctx).get_span_context()
        use = f"{span.trace_id:032x}" if span.is_valid else None
    if not entries:
        return NOBODY if use is None else Attribution(use_id=cast("str", use))
    incoming = None if _keys.trust_incoming else context.get_value(_INCOMING_KEY, ctx)
    if incoming:
        entries = _believed(entries, cast("Mapping[str, object]", incoming))
    get = entries.get
    return Attribution(
        _clean(get("tenant.id") or get("tenant")),
        _clean(get("user.id") or get("user")),
        _clean(get("feature.name") or get("feature")),
        cast("str | None", use),
        MappingProxyType({key: value for key in _keys.extra if (value := _clean(get(key)))})
        if _keys.extra
        else EMPTY,
    )


def _entries(ctx: Context) -> Mapping[str, object]:
    """The baggage, and what was taken out of it to keep it from a provider."""
    entries = baggage.get_all(ctx)
    kept = cast("Mapping[str, object] | None", context.get_value(_KEPT_KEY, ctx))
    return {**kept, **entries} if kept else entries


def _believed(
    entries: Mapping[str, object], incoming: Mapping[str, object]
) -> Mapping[str, object]:
    # The same object, not an equal one: an application may set for itself what also came in.
    ignored = [
        key for key, value in entries.items() if incoming.get(key) is value and key in _stripped
    ]
    if not ignored:
        return entries
    say_once(
        "attribution",
        "incoming baggage",
        "baggage %s came in over the network and is not believed. If a gateway you trust sets it "
        'and strips it from the outside, set trust_incoming = "always" under [attribution] '
        "(or SPANLEDGER_TRUST_INCOMING=always); "
        "otherwise set it in this process with spanledger.api.attribute(...)",
        ", ".join(sorted(ignored)),
    )
    return {key: value for key, value in entries.items() if key not in ignored}


def _clean(value: object) -> str | None:
    """`value` as a label: text on one line, bounded in length."""
    if value is None or value == "":
        return None
    text = value if type(value) is str else str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text).strip()
    if len(text) > LONGEST_VALUE:
        text = f"{text[: LONGEST_VALUE - 9]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return text or None


# -- keeping it from others
# --------------------------------------------------------------------------------


def without_attribution(ctx: Context) -> Context:
    """`ctx` with the attribution keys, and only those, taken out of its baggage: the keys that are
    read, and all that `attribute` has set.

    `current_attribution` finds them there all the same: a metered function makes paid calls itself.
    """
    entries = baggage.get_all(ctx)
    if not entries:
        return ctx
    unread = _unread(ctx)
    stripped = _stripped | unread if unread else _stripped
    if stripped.isdisjoint(entries):
        return ctx
    kept = dict(cast("Mapping[str, object]", context.get_value(_KEPT_KEY, ctx) or EMPTY))
    others: dict[str, object] = {}
    for key, value in entries.items():
        (kept if key in stripped else others)[key] = value
    ctx = context.set_value(_KEPT_KEY, kept, baggage.clear(ctx))
    for key, value in others.items():
        ctx = baggage.set_baggage(key, value, ctx)
    return ctx


def _unread(ctx: Context) -> frozenset[str]:
    """What `attribute` has set and nobody reads: a name with an error, or not in the settings."""
    extra = cast("frozenset[str]", context.get_value(_EXTRA_KEY, ctx) or frozenset())
    unread = extra - _stripped
    for key in unread:
        say_once(
            "attribution",
            ("unread", key),
            "attribute(%s=...) sets neither tenant, user or feature nor one of extra_keys: it is "
            "not in the books, and not sent to providers. Correct the name, or add it to "
            "extra_keys under [attribution]",
            key,
        )
    return unread


def mark_incoming(ctx: Context) -> Context:
    """`ctx`, as a propagator extracted it, with its baggage remembered as having come over the
    network.
    """
    entries = baggage.get_all(ctx)
    if not entries:
        return ctx
    # A propagator adds to a context: what this process has set there did not come in with it.
    ours = baggage.get_all()
    before = cast("Mapping[str, object]", context.get_value(_INCOMING_KEY, ctx) or EMPTY)
    incoming = {
        key: value
        for key, value in entries.items()
        if ours.get(key) is not value or before.get(key) is value
    }
    return context.set_value(_INCOMING_KEY, incoming, ctx)


# -- setting
# -----------------------------------------------------------------------------------------------


class attribute:  # noqa: N801 - reads as a statement
    """Attribute the paid calls inside to a tenant, user and feature; `extra` sets further baggage
    keys.

    A context manager (sync and async) and a decorator (functions, coroutine functions, generators
    of both kinds). What is None is left as it is. Nothing set here reaches a provider.
    """

    __slots__ = ("_entered", "_entries", "_extra")

    def __init__(
        self,
        *,
        tenant: str | None = None,
        user: str | None = None,
        feature: str | None = None,
        **extra: str,
    ) -> None:
        given = {names.TENANT: tenant, names.USER: user, names.FEATURE: feature, **extra}
        self._entries = {key: value for key, value in given.items() if value is not None}
        self._extra = frozenset(extra).intersection(self._entries)
        self._entered: list[tuple[Token[Context], Context]] = []

    def _context(self) -> Context:
        ctx = context.get_current()
        for key, value in self._entries.items():
            ctx = baggage.set_baggage(key, value, ctx)
        if self._extra:
            outer = cast("frozenset[str]", context.get_value(_EXTRA_KEY, ctx) or frozenset())
            ctx = context.set_value(_EXTRA_KEY, outer | self._extra, ctx)
        if incoming := cast("Mapping[str, object] | None", context.get_value(_INCOMING_KEY, ctx)):
            # Said here, it is this process's word, even where it repeats what came in.
            kept = {key: value for key, value in incoming.items() if key not in self._entries}
            ctx = context.set_value(_INCOMING_KEY, kept, ctx)
        return ctx

    def __enter__(self) -> Self:
        entered = Context(self._context())  # a copy: `left` knows it by its identity
        self._entered.append((context.attach(entered), entered))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        context.detach(left(self._entered))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, tb)

    def __call__(self, function: F) -> F:
        return wrap(function, self._context)


class feature(attribute):  # noqa: N801 - reads as a statement
    """Attribute the paid calls inside to a feature, and count them as one use of it.

    As a decorator: each call of the function is one use. Entering the same feature inside itself is
        the same use.
    """

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(feature=name)

    def _context(self) -> Context:
        now = context.get_current()
        if (
            context.get_value(_USE_KEY, now)
            and _entries(now).get(names.FEATURE) == self._entries[names.FEATURE]
        ):
            return now
        return context.set_value(_USE_KEY, os.urandom(16).hex(), super()._context())
