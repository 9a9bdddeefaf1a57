"""The journal summed."""

import os
import time
from collections import defaultdict
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanledger.api.errors import JournalError
from spanledger.ledger.journal import open_journal

HOUR = 3_600 * 10**9

row = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from([None, "acme", "globex", "a'b\"c"]),
        "user": st.sampled_from([None, "u1", "u2"]),
        "feature": st.sampled_from([None, "search", "chat"]),
        "use_id": st.sampled_from([None, "1", "2", "3"]),
        "provider": st.sampled_from(["openai", "scavio"]),
        "asked": st.sampled_from([None, "m1"]),
        "model": st.sampled_from([None, "m1", "m2"]),
        "units": st.fixed_dictionaries(
            {},
            optional={
                "input_tokens": st.integers(0, 10**12),
                "output_tokens": st.integers(0, 10**12),
                "cache_read_tokens": st.integers(0, 10**6),
            },
        ),
        "credits": st.none() | st.decimals("0", "1e12", places=6),
        # Sums of a few of the largest are beyond 64 bits.
        "nano_usd": st.none() | st.integers(0, 2**63 - 1) | st.integers(0, 10**6),
        "status": st.sampled_from(["exact", "partial", "estimated", "unknown"]),
        "saved_nano_usd": st.integers(0, 2**63 - 1),
        "started_ns": st.integers(0, 100 * HOUR),
    }
)


def expected(entries, keys):
    """The sums, worked out in Python. keys: of an entry."""
    groups = defaultdict(list)
    for entry in entries:
        groups[keys(entry)].append(entry)
    return {key: measures(group) for key, group in groups.items()}


def measures(group):
    priced = [e.charge.nano_usd for e in group if e.charge.nano_usd is not None]
    uses = {
        (a.feature, a.use_id or e.charge.id)
        for e in group
        if (a := e.call.attribution).feature is not None
    }
    return {
        "nano_usd": sum(priced) if priced or not group else None,
        "calls": len(group),
        "uses": len(uses),
        "input_tokens": sum(e.usage.units.get("input_tokens", 0) for e in group),
        "output_tokens": sum(e.usage.units.get("output_tokens", 0) for e in group),
        "cache_read_tokens": sum(e.usage.units.get("cache_read_tokens", 0) for e in group),
        "cache_write_tokens": 0,
        "credits": sum((e.usage.credits or 0 for e in group), Decimal(0)),
        "unpriced_calls": len(group) - len(priced),
        "partial_calls": sum(e.charge.status == "partial" for e in group),
        "estimated_calls": sum(e.charge.status == "estimated" for e in group),
        "saved_nano_usd": sum(e.ending.saved_nano_usd for e in group),
    }


def found(totals):
    return {
        total.key: {name: value for name, value in total._asdict().items() if name != "key"}
        for total in totals
    }


KEYS = {
    (): lambda e: (),
    ("tenant", "feature"): lambda e: (e.call.attribution.tenant, e.call.attribution.feature),
    ("user",): lambda e: (e.call.attribution.user,),
    ("provider", "model"): lambda e: (e.call.provider, e.usage.model or e.call.model),
}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(row, max_size=30),
    st.sampled_from(list(KEYS)),
    st.none() | st.integers(0, 100 * HOUR),
    st.none() | st.integers(0, 100 * HOUR),
)
def test_totals_are_the_sums_of_the_rows_to_the_nano(entry, rows, by, since, until):
    journal = open_journal("memory://", service="shop")
    entries = [entry(**values) for values in rows]
    journal.append(entries)
    inside = [
        e
        for e in entries
        if (since is None or e.call.started_ns >= since)
        and (until is None or e.call.started_ns < until)
    ]
    sums = expected(inside, KEYS[by])
    if by == () and not inside:
        sums = {(): measures([])}
    totals = journal.totals(by, since, until)
    assert found(totals) == sums
    costs = [total.nano_usd or 0 for total in totals]
    assert costs == sorted(costs, reverse=True)
    journal.close()


def test_what_is_spent_by_one_thing_within_others(journal, entry):
    journal.append(
        [
            entry(tenant="acme", user="u1", nano_usd=3 * 10**9 + 1, credits=Decimal("0.1")),
            entry(tenant="acme", user="u1", nano_usd=None, credits=Decimal("0.2")),
            entry(tenant="acme", feature="search", nano_usd=2**63 - 1),
            entry(tenant="other", user="u1", nano_usd=5),
            entry(tenant="acme", user="u1", nano_usd=7, started_ns=1),
        ]
    )
    span = (2, 2**62)
    acme = {"tenant": "acme"}
    assert dict(journal.spent("user", span, acme)) == {
        "u1": Decimal("3.000000001"),
        None: Decimal(2**63 - 1).scaleb(-9),
    }
    assert dict(journal.spent("user", span, acme, credits=True)) == {"u1": Decimal("0.3"), None: 0}
    assert journal.spent("model", span, {**acme, "feature": "none"}) == []
    assert dict(journal.spent("tenant", span, {})).keys() == {"acme", "other"}


def test_sums_may_be_larger_than_sqlites_integers(journal, entry):
    journal.append([entry(nano_usd=2**63 - 1, saved_nano_usd=2**63 - 1) for _ in range(3)])
    (total,) = journal.totals()
    assert (total.nano_usd, total.saved_nano_usd) == (3 * (2**63 - 1),) * 2


def test_nothing_costs_nothing_and_unpriced_calls_nobody_knows_what(journal, entry):
    assert journal.totals()[0].nano_usd == 0
    journal.append([entry(nano_usd=None, status="unknown")])
    assert journal.totals()[0].nano_usd is None
    journal.append([entry(nano_usd=0)])
    assert journal.totals()[0].nano_usd == 0


def test_further_attribution_keys_are_names_to_sum_by(journal, entry):
    journal.append([entry(extra={"plan": "pro"}), entry(extra={"plan": "pro"}), entry()])
    assert [(t.key, t.calls) for t in journal.totals(("plan",))] == [(("pro",), 2), ((None,), 1)]
    with pytest.raises(JournalError, match="'tennant'.*tenant.*plan"):
        journal.totals(("tennant",))
    with pytest.raises(JournalError):
        journal.totals(("'; DROP TABLE charges; --",))


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
    assert "TZ" not in os.environ or os.environ["TZ"] != "Europe/Berlin"


def test_days_are_those_of_the_readers_clock(berlin, journal, entry):
    midnight = 1_785_535_200 * 10**9  # 2026-08-01T00:00+02:00
    journal.append([entry(started_ns=midnight - 1), entry(started_ns=midnight)])
    assert {t.key[0]: t.calls for t in journal.totals(("day",))} == {
        "2026-07-31": 1,
        "2026-08-01": 1,
    }


def test_a_series_is_what_was_spent_in_each_part(journal, entry):
    journal.append(
        [
            entry(started_ns=100, nano_usd=2 * 10**9),
            entry(started_ns=149, nano_usd=10**9),
            entry(started_ns=199, nano_usd=5 * 10**9, tenant="globex"),
            entry(started_ns=200, nano_usd=7 * 10**9),
            entry(started_ns=120, nano_usd=None, status="unknown", tenant="free"),
        ]
    )
    assert journal.series(("tenant",), 100, 200, 2) == {
        ("acme",): [3.0, 0.0],
        ("globex",): [0.0, 5.0],
        ("free",): [1, 0],  # calls, where nothing has a price
    }
    assert journal.series(("tenant",), 200, 200, 2) == {}


def test_why_calls_have_no_price(journal, entry):
    credit = {"provider": "scavio", "asked": None, "nano_usd": None, "status": "unknown"}
    journal.append(
        [
            entry(**credit, credits=Decimal("1.5"), reason="usd_per_credit"),
            entry(**credit, credits=Decimal(10), reason="usd_per_credit"),
            entry(nano_usd=5, status="partial", reason="unpriced:web_searches"),
            entry(),
        ]
    )
    first, second = journal.unpriced()
    assert first == ("scavio", None, "usd_per_credit", "unknown", 2, Decimal("11.5"))
    assert second[:5] == ("openai", "gpt-4o", "unpriced:web_searches", "partial", 1)


def test_the_extent_is_how_much_there_is(journal, entry):
    assert journal.extent() == (0, None, None)
    journal.append([entry(started_ns=5), entry(started_ns=3)])
    assert journal.extent() == (2, 3, 5)
