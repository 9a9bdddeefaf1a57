import enum
import zlib
from collections import OrderedDict
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.cache.codec import COMPRESS_FROM, UnstorableError, pack, unpack

MOST = 1_000_000

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(plain)
def test_a_value_comes_back_equal_and_of_the_same_types(value: object) -> None:
    back = unpack(pack(value, MOST), MOST)
    assert repr(back) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {"a": [{"b": (1,)}]},
        {1: "a"},
        {"a": {None: 1}},
        {"a": OrderedDict(b=1)},
        [enum.IntEnum("E", "A").A],  # type: ignore[attr-defined]
        type("Text", (str,), {})("x"),
        Decimal(1),
        {"a": b"x"},
        [float("nan")],
        [float("inf")],
        object(),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_json_would_change_is_not_stored(value: object) -> None:
    with pytest.raises(UnstorableError):
        pack(value, MOST)


def test_what_contains_itself_is_not_stored() -> None:
    value: list = []
    value.append(value)
    with pytest.raises(UnstorableError):
        pack(value, MOST)


def test_what_is_nested_too_deep_is_not_stored() -> None:
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnstorableError):
        pack(value, MOST)


def test_large_values_are_compressed_and_small_ones_are_not() -> None:
    small, large = pack("a" * 1000, MOST), pack("a" * COMPRESS_FROM, MOST)
    assert len(small) == 1003
    assert len(large) < 200


@given(st.integers(COMPRESS_FROM - 10, COMPRESS_FROM + 10))
def test_the_cap_is_on_the_text_and_holds_to_the_byte(length: int) -> None:
    value = "a" * (length - 2)
    assert unpack(pack(value, length), length) == value
    with pytest.raises(UnstorableError, match=f"{length} bytes"):
        pack(value, length - 1)


def test_what_inflates_beyond_the_cap_is_damaged() -> None:
    bomb = b"z" + zlib.compress(b'"' + b"a" * 10_000_000 + b'"')
    with pytest.raises(ValueError, match="larger"):
        unpack(bomb, MOST)


@pytest.mark.parametrize("data", [b"", b"?1", b"j", b"j{", b"z", b"znonsense", b"j\xff"])
def test_damage_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data, MOST)


def test_a_cut_off_entry_is_damaged() -> None:
    data = pack("a" * COMPRESS_FROM, MOST)
    with pytest.raises(ValueError, match="cut off"):
        unpack(data[:-3], MOST)
