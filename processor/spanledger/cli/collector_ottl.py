"""The collector's statement language, OTTL, and YAML, as far as `collector-config` writes them."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

Literal: TypeAlias = "str | int | bool | Mapping[str, Literal]"

CALL: Final = "spanledger.call"
"""The span attribute, a map, in which the statements note what they learn of a call."""


class Group(NamedTuple):
    """Statements that are carried out for the spans that meet one of the conditions.

    comment: what they do, for the reader of the configuration.
    repeat: the label of a group whose statements are carried out once more.
    label: a name for the statements, so that another group can repeat them.
    """

    comment: str
    conditions: tuple[str, ...]
    statements: tuple[str, ...] = ()
    label: str | None = None
    repeat: str | None = None


def attribute(name: str) -> str:
    """The path of a span attribute."""
    return f"span.attributes[{literal(name)}]"


def call(*keys: str) -> str:
    """The path of what is noted of a call."""
    return attribute(CALL) + "".join(f"[{literal(key)}]" for key in keys)


def literal(value: Literal) -> str:
    """`value` as OTTL writes it."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"


def put(target: str, value: str, where: str | None = None) -> str:
    """The statement that sets `target`. Where the value is nil it does nothing."""
    return f"set({target}, {value})" + (f" where {where}" if where else "")


def first_of(*values: str) -> str:
    """The first of these that is not nil."""
    return values[0] if len(values) == 1 else f"Coalesce([{', '.join(values)}])"


def escape(text: str) -> str:
    """`text` as a regular expression that matches it, and no longer than it has to be."""
    return re.sub(r"[.^$*+?()\[\]{}|\\]", r"\\\g<0>", text)


def to_yaml(groups: Iterable[Group], indent: str) -> list[str]:
    """The groups as a list in YAML, one line an item."""
    lines: list[str] = []
    for group in groups:
        lines += [f"{indent}# {group.comment}", f"{indent}- conditions:"]
        lines += [f"{indent}    - {_scalar(condition)}" for condition in group.conditions]
        if group.repeat is not None:
            lines.append(f"{indent}  statements: *{group.repeat}")
            continue
        lines.append(f"{indent}  statements:" + (f" &{group.label}" if group.label else ""))
        lines += [f"{indent}    - {_scalar(statement)}" for statement in group.statements]
    return lines


def _scalar(text: str) -> str:
    # A lone "$" begins a variable of the environment.
    return "'" + text.replace("'", "''").replace("$", "$$") + "'"
