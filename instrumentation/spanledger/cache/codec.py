"""Results as bytes: JSON, compressed when large. Each unpacking makes an equal value of its own."""

import json
import zlib
from collections.abc import Iterable
from typing import Final, cast

COMPRESS_FROM: Final = 16 * 1024
"""Bytes of JSON text to compress from: below, inflating costs a hit more than it is worth."""

_PLAIN: Final = b"j"
_DEFLATED: Final = b"z"
_TEXT: Final = frozenset({str})
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_encode: Final = json.JSONEncoder(
    separators=(",", ":"),
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,  # what contains itself ends as a RecursionError all the same
).encode


class UnstorableError(ValueError):
    """The value is not plain JSON, or larger than an entry may be."""


def pack(value: object, most: int) -> bytes:
    """`value` as bytes; `most` is the largest JSON text in bytes. Raises UnstorableError."""
    try:
        text = _encode(value).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as error:
        raise UnstorableError(f"it is not JSON ({type(error).__name__})") from error
    if len(text) > most:
        raise UnstorableError(f"it has {len(text)} bytes, more than max_entry_bytes = {most}")
    if not _is_plain(value):
        # JSON would make a list of a tuple and a text of a number as key: a hit would differ from
        # the call.
        raise UnstorableError("it has tuples, keys that are not text, or classes of its own")
    if len(text) < COMPRESS_FROM:
        return _PLAIN + text
    return _DEFLATED + zlib.compress(text, 1)


def unpack(data: bytes, most: int) -> object:
    """The value of `data`, made anew.

    Raises ValueError where `data` is damaged, or inflates to more than `most` bytes.
    """
    kind, body = data[:1], data[1:]
    if kind == _DEFLATED:
        inflater = zlib.decompressobj()
        try:
            body = inflater.decompress(body, most + 1)
        except zlib.error as error:
            raise ValueError("a cache entry is damaged") from error
        if not inflater.eof:
            raise ValueError("a cache entry is cut off, or larger than max_entry_bytes")
    elif kind != _PLAIN:
        raise ValueError("a cache entry is of another format")
    return json.loads(body.decode("utf-8", "surrogatepass"))


def _is_plain(value: object) -> bool:
    """Whether every part of `value` has exactly a type that JSON gives back."""
    parts: Iterable[object]
    left = [value]
    while left:
        part = left.pop()
        kind = type(part)
        if kind in _SCALARS:
            continue
        if kind is dict:
            table = cast("dict[object, object]", part)
            if not _TEXT.issuperset(map(type, table)):
                return False
            parts = table.values()
        elif kind is list:
            parts = cast("list[object]", part)
        else:
            return False
        if not _SCALARS.issuperset(map(type, parts)):
            left += [item for item in parts if type(item) not in _SCALARS]
    return True
