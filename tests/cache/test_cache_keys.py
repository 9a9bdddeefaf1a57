import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.cache.keys import cache_key

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def make(secret: bytes = b"s", **changes: object) -> str:
    given_: dict = {
        "provider": "scavio",
        "operation": "google.search",
        "request": {"query": "otters", "page": 1},
        "tenant": "acme",
        "public": False,
        **changes,
    }
    return cache_key(secret, **given_)


def test_a_key_says_nothing() -> None:
    assert re.fullmatch(r"[0-9a-f]{48}", make())


def test_the_order_of_parameters_does_not_matter() -> None:
    assert make() == make(request={"page": 1, "query": "otters"})


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": "tavily"},
        {"operation": "google.maps"},
        {"request": {"query": "otters", "page": 2}},
        {"request": {"query": "otters", "page": "1"}},
        {"request": {"query": "otters", "page": True}},
        {"request": {"query": "otters"}},
        {"tenant": "globex"},
        {"tenant": None},
        {"public": True},
        {"secret": b"t"},
        {"secret": b""},
    ],
)
def test_everything_else_matters(changes: dict) -> None:
    assert make(**changes) != make()


def test_what_is_public_is_shared_by_all_and_apart_from_what_is_not() -> None:
    shared = make(public=True)
    assert make(public=True, tenant="globex") == shared
    assert make(public=True, tenant=None) == shared
    assert make(tenant=None) != shared


def test_no_tenant_is_not_a_tenant_named_none() -> None:
    assert make(tenant=None) != make(tenant="None")
    assert make(tenant=None) != make(tenant="")


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", float("nan")])
def test_what_is_not_json_has_no_key(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        make(request={"query": value})


@given(
    st.dictionaries(st.text(), json_values, max_size=4),
    st.dictionaries(st.text(), json_values, max_size=4),
)
def test_keys_are_equal_just_where_the_json_is(one: dict, other: dict) -> None:
    import json

    def same(a: dict, b: dict) -> bool:
        return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)

    assert (make(request=one) == make(request=other)) == same(one, other)
    assert make(request=one) == make(request=dict(reversed(one.items())))
