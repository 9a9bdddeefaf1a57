"""Scopes: what they say, and that a name cannot pass for another scope."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanledger.budget.scopes import ANY, DIMENSIONS, Scope, escape, unescape


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("global", Scope()),
        ("tenant:acme", Scope(tenant="acme")),
        ("tenant:*", Scope(tenant=ANY)),
        ("user:a:b@c", Scope(user="a:b@c")),
        ("provider:azure.ai.openai", Scope(provider="azure.ai.openai")),
        ("tenant:acme+feature:search", Scope(tenant="acme", feature="search")),
        ("feature:search+tenant:acme", Scope(tenant="acme", feature="search")),
        ("tenant:a+b+feature:c+d", Scope(tenant="a%2Bb", feature="c%2Bd")),
    ],
)
def test_reads(text: str, scope: Scope) -> None:
    assert Scope.parse(text) == scope
    assert Scope.parse(str(scope)) == scope


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not global or one of tenant:NAME, user:NAME, feature:NAME, provider:NAME"),
        ("tenant", "'tenant' is not"),
        ("tenant:", "'tenant:' is not"),
        ("model:gpt-5", "'model:gpt-5' is not"),
        ("tenant:a+tenant:b", "names tenant twice"),
        ("global+tenant:a", "'global' is not"),
    ],
)
def test_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        Scope.parse(text)


def test_the_order_of_names_does_not_matter() -> None:
    assert str(Scope.parse("provider:p+tenant:t")) == "tenant:t+provider:p"


names = st.none() | st.text(st.sampled_from("a*+:|%2BFtenant"), min_size=1) | st.just("*")


@given(st.tuples(names, names, names, names))
def test_a_name_is_never_more_than_a_name(given_names: tuple[str | None, ...]) -> None:
    scope = Scope.of(*given_names)
    assert not scope.is_template
    assert Scope.parse(str(scope)) == scope
    assert "|" not in str(scope)
    assert tuple(name and unescape(name) for name in scope) == given_names


@given(st.tuples(names, names, names, names), st.tuples(names, names, names, names))
def test_other_names_are_another_scope(
    one: tuple[str | None, ...], other: tuple[str | None, ...]
) -> None:
    assert (str(Scope.of(*one)) == str(Scope.of(*other))) == (one == other)


@given(st.text())
def test_escaping_is_undone(name: str) -> None:
    assert unescape(escape(name)) == name


def test_covers() -> None:
    acme = Scope.parse("tenant:acme")
    assert Scope.parse("tenant:*").covers(acme)
    assert acme.covers(acme)
    assert not acme.covers(Scope.parse("tenant:*"))
    assert not Scope.parse("tenant:other").covers(acme)
    assert not Scope().covers(acme)
    assert not acme.covers(Scope())
    assert Scope.parse("tenant:*").covers(Scope.parse("tenant:*"))


def test_within_keeps_the_named_dimensions() -> None:
    scope = Scope("t", "u", "f", "p")
    assert scope.within((0, 2)) == Scope("t", None, "f", None)
    assert scope.dimensions == tuple(range(len(DIMENSIONS)))
    assert scope.within(()) == Scope()
