"""Which budgets a call counts in: all that match, and of a kind the most specific one."""

from hypothesis import given
from hypothesis import strategies as st

from spanledger.budget.config import Budget
from spanledger.budget.matching import Matcher
from spanledger.budget.scopes import ANY, Scope


def matcher(*budgets: str) -> Matcher:
    """Budgets by texts like "tenant:acme month usd 5"."""
    made = []
    for text in budgets:
        scope, period, unit, limit = text.split()
        made.append(Budget(Scope.parse(scope), period, unit, int(limit)))  # type: ignore[arg-type]
    return Matcher(made)


def found(matcher: Matcher, **names: str) -> set[str]:
    return {
        f"{match.scope} {match.budget.period} {match.budget.unit} {match.budget.limit}"
        for match in matcher.of_call(Scope.of(**names))
    }


def test_all_dimensions_must_agree() -> None:
    budgets = matcher(
        "global month usd 1",
        "tenant:acme month usd 2",
        "user:u month usd 3",
        "feature:f month usd 4",
        "provider:openai month usd 5",
        "tenant:acme+feature:f month usd 6",
        "tenant:other month usd 7",
    )
    assert found(budgets, tenant="acme", user="u", feature="f", provider="openai") == {
        "global month usd 1",
        "tenant:acme month usd 2",
        "user:u month usd 3",
        "feature:f month usd 4",
        "provider:openai month usd 5",
        "tenant:acme+feature:f month usd 6",
    }
    assert found(budgets) == {"global month usd 1"}
    assert found(budgets, feature="f") == {"global month usd 1", "feature:f month usd 4"}


def test_the_more_specific_one_replaces_the_general_one() -> None:
    budgets = matcher("tenant:* month usd 1", "tenant:acme month usd 2")
    assert found(budgets, tenant="acme") == {"tenant:acme month usd 2"}
    assert found(budgets, tenant="other") == {"tenant:other month usd 1"}
    assert found(budgets) == set()


def test_it_does_so_for_its_own_period_and_unit() -> None:
    budgets = matcher(
        "tenant:* month usd 1",
        "tenant:* day usd 2",
        "tenant:* month credits 3",
        "tenant:acme month usd 4",
    )
    assert found(budgets, tenant="acme") == {
        "tenant:acme month usd 4",
        "tenant:acme day usd 2",
        "tenant:acme month credits 3",
    }


def test_of_equally_specific_ones_the_tenants_counts() -> None:
    budgets = matcher(
        "tenant:*+feature:* day usd 1",
        "tenant:*+feature:f day usd 2",
        "tenant:acme+feature:* day usd 3",
        "tenant:acme+feature:f day usd 4",
    )
    assert found(budgets, tenant="acme", feature="f") == {"tenant:acme+feature:f day usd 4"}
    assert found(budgets, tenant="acme", feature="g") == {"tenant:acme+feature:g day usd 3"}
    assert found(budgets, tenant="b", feature="f") == {"tenant:b+feature:f day usd 2"}
    assert found(budgets, tenant="b", feature="g") == {"tenant:b+feature:g day usd 1"}
    budgets = matcher("tenant:*+feature:f day usd 2", "tenant:acme+feature:* day usd 3")
    assert found(budgets, tenant="acme", feature="f") == {"tenant:acme+feature:f day usd 3"}


def test_a_tenant_with_a_name_like_a_scope() -> None:
    budgets = matcher(
        "tenant:* day usd 1", "tenant:acme+feature:f day usd 2", "tenant:acme day usd 3"
    )
    assert found(budgets, tenant="acme+feature:f") == {"tenant:acme%2Bfeature:f day usd 1"}
    assert found(budgets, tenant="*") == {"tenant:%2A day usd 1"}


def test_concrete_ones_and_dimensions() -> None:
    budgets = matcher("global day usd 1", "tenant:* day usd 2", "tenant:acme week usd 3")
    assert {str(match.scope) for match in budgets.concrete()} == {"global", "tenant:acme"}
    # What is concrete takes part in all that counts for it.
    assert {m.budget.limit for m in budgets.concrete() if m.scope.tenant} == {2, 3}
    assert budgets.names(0)
    assert not budgets.names(1)


names = st.sampled_from(["a", "b", ANY]) | st.none()
call_names = st.sampled_from(["a", "b", "c"]) | st.none()


@given(
    st.lists(
        st.tuples(st.builds(Scope, names, names, names, names), st.sampled_from(["day", "week"]))
    ),
    st.builds(Scope, call_names, call_names, call_names, call_names),
)
def test_against_the_rule_spelt_out(given_budgets: list[tuple[Scope, str]], call: Scope) -> None:
    budgets = [
        Budget(scope, period, "usd", number)  # type: ignore[arg-type]
        for number, (scope, period) in enumerate(dict.fromkeys(given_budgets))
    ]
    expected: dict[tuple[object, ...], Budget] = {}
    for budget in sorted(budgets, key=lambda b: (b.scope.count(ANY), [n == ANY for n in b.scope])):
        if all(
            own in (None, ANY, its) and (own is None or its)
            for own, its in zip(budget.scope, call, strict=True)
        ):
            expected.setdefault((budget.scope.dimensions, budget.period), budget)
    matched = list(Matcher(budgets).of_call(call))
    assert {match.budget for match in matched} == set(expected.values())
    for match in matched:
        assert match.scope == call.within(match.budget.scope.dimensions)
