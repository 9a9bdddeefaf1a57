"""By which names the price list knows a model, as conditions in OTTL."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ModelInfo,
    Provider,
)

from spanledger.cli.collector_ottl import escape, literal

Clause: TypeAlias = (
    ClauseAnd
    | ClauseContains
    | ClauseEndsWith
    | ClauseEquals
    | ClauseOr
    | ClauseRegex
    | ClauseStartsWith
)

_NEGATED: Final = re.compile(r"\^\(\?!(.*)\)")  # the whole of it is one negative look-ahead
_DAY: Final = re.compile(r"-(\d{4})-(\d{2})-(\d{2})$")


class NotExpressible(Exception):
    """The collector's regular expressions cannot say this."""


def condition(clause: Clause, path: str) -> str:
    """The condition that the name at `path`, in lower case, is one that `clause` is for.

    Raises NotExpressible.
    """
    parts: list[str] = []
    patterns: list[Clause] = []
    for one in _alternatives(clause):
        if isinstance(one, ClauseAnd):
            parts.append(f"({' and '.join(condition(part, path) for part in one.and_)})")
        elif isinstance(one, ClauseRegex) and (negated := _NEGATED.fullmatch(one.regex)):
            parts.append(f"not IsMatch({path}, {literal('^' + negated[1])})")
        else:
            patterns.append(one)
    if patterns:
        parts.insert(0, f"IsMatch({path}, {literal(_pattern(patterns))})")
    return parts[0] if len(parts) == 1 else f"({' or '.join(parts)})"


def names(clause: Clause) -> tuple[str, ...]:
    """The whole names that `clause` spells out."""
    return tuple(
        one.equals.lower() for one in _alternatives(clause) if isinstance(one, ClauseEquals)
    )


def in_order(provider: Provider, providers: Sequence[Provider]) -> list[ModelInfo]:
    """The provider's models in the order in which a name is looked for among them."""
    models = [*provider.models]
    for fallback in provider.fallback_model_providers or ():
        models += next((other.models for other in providers if other.id == fallback), [])
    return models


def taken_before(model: ModelInfo, models: Sequence[ModelInfo]) -> list[ModelInfo]:
    """The models before `model` that take some of its names."""
    found: list[ModelInfo] = []
    for other in models:
        if other is model:
            break
        starts = (
            one.starts_with
            for one in _alternatives(other.match)
            if isinstance(one, ClauseStartsWith)
        )
        if any(model.match.is_match(name) for name in (*names(other.match), *starts)):
            found.append(other)
    return found


def _alternatives(clause: Clause) -> "Iterator[Clause]":
    if isinstance(clause, ClauseOr):
        for one in clause.or_:
            yield from _alternatives(one)
    else:
        yield clause


def _pattern(clauses: Sequence[Clause]) -> str:
    whole = [_undashed(one.equals.lower()) for one in clauses if isinstance(one, ClauseEquals)]
    patterns = [f"^(?:{'|'.join(whole)})$"] if whole else []
    for one in clauses:
        if isinstance(one, ClauseStartsWith):
            patterns.append("^" + escape(one.starts_with.lower()))
        elif isinstance(one, ClauseEndsWith):
            patterns.append(escape(one.ends_with.lower()) + "$")
        elif isinstance(one, ClauseContains):
            patterns.append(escape(one.contains.lower()))
        elif isinstance(one, ClauseRegex):
            if re.search(r"\(\?(?!:)|\\\d", one.regex):  # look-around and back references
                raise NotExpressible(one.regex)
            patterns.append(one.regex)
    return "|".join(patterns)


def _undashed(name: str) -> str:
    """Some gateways leave the dashes out of a date."""
    day = _DAY.search(name)
    if day is None:
        return escape(name)
    return escape(name[: day.start()]) + "-" + "-?".join(day.groups())
