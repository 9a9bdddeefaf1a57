"""Statements by which the collector books each call once, and prices it as the price book does.

Money is integer nano-USD, rounded half to even, once per call, from integers. Unknown is not 0.
"""

from collections.abc import Mapping
from typing import Final

from spanledger.api import names
from spanledger.cli.collector_ottl import (
    CALL,
    Group,
    attribute,
    call,
    first_of,
    literal,
    put,
)
from spanledger.cli.collector_reading import NOTED

PER: Final = 1000
"""Prices are nano-USD for so many of a unit, where they state nothing else."""

_FALLS_BACK_TO: Final = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_5m": "cache_write",
    "cache_write_1h": "cache_write",
    "output_reasoning": "output",
}
"""Unit -> the one whose price it has where it has none of its own."""

_WITHIN: Final[Mapping[str, tuple[str, ...]]] = {
    "input": ("cache_read", "cache_write"),
    "cache_read": (),
    "cache_write": ("cache_write_5m", "cache_write_1h"),
    "cache_write_5m": (),
    "cache_write_1h": (),
    "output": ("output_reasoning",),
    "output_reasoning": (),
}
"""Unit -> those whose amounts are a part of its own."""

_TOLD: Final = 'resource.attributes["spanledger.told"]'
_FAMILIES: Final = {"text_completion": "text", "chat": "text", "generate_content": "text"}
_STANDARD: Final = "^(?:|auto|default|standard|standard_only|on_demand)$"


def twice_groups() -> list[Group]:
    """A call that two spans tell of is booked once, where they come in one export of one service.

    As in `spanledger.processor.seen_calls`: spans inside each other, spans with one response id,
    and spans of two instrumentations in one trace with the same amounts.
    """
    scope, family = "instrumentation_scope.name", call("family")
    parent = f"{_TOLD}[span.parent_span_id.string]"
    trace = "span.trace_id.string"
    amounts = f'{call("used")} == true and {trace} != ""'
    keys = {
        f'Concat(["id", {family}, {call("response_id")}], ":")': f"{call('response_id')} != nil",
        f'Concat([{trace}, {family}, {call("input")}, {call("output")}], ":")': amounts,
    }
    told = [f"{_TOLD}[span.span_id.string] == {family}"]
    told += [
        f"({has} and {_TOLD}[{key}] != nil and {_TOLD}[{key}] != {scope})"
        for key, has in keys.items()
    ]
    return [
        Group(
            "Calls that two spans of one export tell of: the first says so to the others,",
            (NOTED,),
            (
                put(family, call("operation")),
                *(
                    put(family, literal(name), f"{call('operation')} == {literal(operation)}")
                    for operation, name in _FAMILIES.items()
                ),
                put(parent, family, f'{call("used")} == true and span.parent_span_id.string != ""'),
                *(
                    put(f"{_TOLD}[{key}]", scope, f"{has} and {_TOLD}[{key}] == nil")
                    for key, has in keys.items()
                ),
            ),
        ),
        Group(
            "and the others are left alone. Of spans inside each other the inner one counts.",
            (f"{NOTED} and ({' or '.join(told)})",),
            (
                put(attribute(names.ACCOUNTED), "true"),
                f"delete_key(span.attributes, {literal(CALL)})",
            ),
        ),
        Group(
            "The notes on the resource have served.",
            (f"{_TOLD} != nil",),
            ('delete_key(resource.attributes, "spanledger.told")',),
        ),
    ]


def name_group() -> Group:
    """Look the price up by the model that served the call, else by the one asked for."""
    served = first_of(call("served"), call("asked"))
    return Group(
        "Prices are looked up by the model that served the call,",
        (NOTED,),
        (put(call("name"), f'ConvertCase({served}, "lower")'),),
    )


def asked_name_group() -> Group:
    """Where the model that served the call has no price, try the one asked for."""
    asked, served = call("asked"), call("served")
    return Group(
        "and by the model asked for, as an estimate, where that one has no price.",
        (f"{call('rates')} == nil and {served} != nil and {asked} != nil and {asked} != {served}",),
        (
            put(call("name"), f'ConvertCase({asked}, "lower")'),
            put(call("guess"), '"unknown_model"'),
        ),
    )


def cost_groups(version: str) -> list[Group]:
    """Reckon, and tell the span. version: of the price list, for rates that state none."""
    return [
        Group(
            "Which of the model's prices: by service tier, and by how long the input is.",
            (f"{call('rates')} != nil",),
            _choose(version),
        ),
        Group(
            "What has a price of its own is charged at it, the rest of the input or output at its.",
            (f"{call('prices')} != nil and {call('used')} == true and {call('hidden')} == nil",),
            _reckon(),
        ),
        Group("What the provider states counts before all prices.", (NOTED,), _reported()),
        Group("What the span is told.", (NOTED,), _tell()),
    ]


def _choose(version: str) -> tuple[str, ...]:
    tier, rates, prices = call("tier"), call("rates"), call("prices")
    longer = f'{prices}["above"] != nil and {call("input")} > {prices}["above"]'
    return (
        put(tier, '"standard"', f"{tier} == nil"),
        put(tier, f'ConvertCase(Trim({tier}), "lower")'),
        put(tier, '"standard"', f"IsMatch({tier}, {literal(_STANDARD)})"),
        put(prices, f"{rates}[{tier}]"),
        put(
            call("guess"),
            f'Concat(["unpriced:service_tier", {tier}], "=")',
            f"{prices} == nil and {call('guess')} == nil",
        ),
        put(prices, f'{rates}["standard"]', f"{prices} == nil"),
        # Twice: no price list knows more than two steps.
        put(prices, f'{prices}["longer"]', longer),
        put(prices, f'{prices}["longer"]', longer),
        put(call("rates", "version"), literal(version), f"{call('rates', 'version')} == nil"),
        put(call("rates", "per"), str(PER), f"{call('rates', 'per')} == nil"),
        # Audio and images that have prices of their own: which of them there were is not noted.
        put(
            call("hidden"),
            '"unpriced:audio_or_image_tokens"',
            f'{call("other")} > 0 and {rates}["apart"] == true',
        ),
    )


def _reckon() -> tuple[str, ...]:
    terms = [
        f"({' - '.join(call(key) for key in (unit, *parts))}) * {call('prices', unit)}"
        for unit, parts in _WITHIN.items()
    ]
    fine, per, nano = call("fine"), call("rates", "per"), call("nano")
    rest = f"2 * ({fine} - {nano} * {per})"
    return (
        *(
            put(
                call("doubt"),
                literal(f"unpriced:{unit}_tokens"),
                f"{call('prices', unit)} == nil and {call(unit)} > 0",
            )
            for unit in ("input", "output")
        ),
        *(
            put(call("prices", unit), "0", f"{call('prices', unit)} == nil")
            for unit in ("input", "output", "call")
        ),
        *(
            put(call("prices", unit), call("prices", wider), f"{call('prices', unit)} == nil")
            for unit, wider in _FALLS_BACK_TO.items()
        ),
        put(
            call("cache_write"),
            f"{call('cache_write_5m')} + {call('cache_write_1h')}",
            f"{call('cache_write')} < {call('cache_write_5m')} + {call('cache_write_1h')}",
        ),
        put(fine, " + ".join((*terms, call("prices", "call")))),
        put(nano, f"{fine} / {per}", f"{fine} > 0 or {call('doubt')} == nil"),
        put(
            call("up"),
            "true",
            f"{rest} > {per} or ({rest} == {per} and {nano} - {nano} / 2 * 2 == 1)",
        ),
        put(nano, f"{nano} + 1", f"{call('up')} == true"),
        put(call("status"), '"exact"', f"{nano} != nil"),
        put(call("status"), '"partial"', f"{nano} != nil and {call('doubt')} != nil"),
        put(call("status"), '"estimated"', f"{nano} != nil and {call('guess')} != nil"),
        put(call("source"), first_of(call("rates", "source"), '"price_list"')),
    )


def _reported() -> tuple[str, ...]:
    reported, nano = call("reported"), call("nano")
    free = f"{call('refused')} == true and {call('used')} == nil and {reported} == nil"
    stated = f"{reported} != nil or ({free})"
    return (
        put(nano, f"Int(Double({reported}) * 1000000000.0 + 0.5)", f"{reported} != nil"),
        put(nano, "0", free),
        put(call("status"), '"exact"', stated),
        put(call("source"), '"provider"', stated),
        f'delete_key({call()}, "doubt") where {stated}',
        f'delete_key({call()}, "guess") where {stated}',
        f'delete_key({call("rates")}, "version") where {call("rates")} != nil and ({stated})',
        put(call("reason"), '"unknown_model"', f"{nano} == nil"),
        put(call("reason"), call("hidden"), f"{nano} == nil"),
        put(call("reason"), '"no_usage"', f"{nano} == nil and {call('used')} == nil"),
        put(call("reason"), first_of(call("doubt"), call("guess")), f"{nano} != nil"),
        put(
            call("reason"),
            f'Concat([{call("doubt")}, {call("guess")}], ",")',
            f"{nano} != nil and {call('doubt')} != nil and {call('guess')} != nil",
        ),
        put(call("status"), '"unknown"', f"{nano} == nil"),
    )


def _tell() -> tuple[str, ...]:
    nano = call("nano")
    usd = f"Double({nano}) / 1000000000.0"
    return (
        put(attribute(names.ACCOUNTED), "true"),
        put(attribute(names.COST_STATUS), call("status")),
        put(attribute(names.COST_USD), usd, f"{nano} != nil"),
        put(attribute(names.COST_AMOUNT), usd, f"{nano} != nil"),
        put(attribute(names.COST_CURRENCY), '"USD"', f"{nano} != nil"),
        put(attribute(names.COST_SOURCE), call("source"), f"{nano} != nil"),
        put(attribute(names.PRICE_VERSION), call("rates", "version"), f"{nano} != nil"),
        put(attribute(names.UNPRICED_REASON), call("reason")),
    )
