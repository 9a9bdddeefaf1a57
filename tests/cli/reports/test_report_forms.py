"""`spanledger report` as JSON and CSV: names, exactness, order."""

import csv
import io
import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanledger.cli.amounts import usd_text

AUGUST = ("--since", "2026-08", "--until", "2026-08")
MEASURES = [
    "cost_usd",
    "calls",
    "uses",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "credits",
    "unpriced_calls",
    "partial_calls",
    "estimated_calls",
    "saved_usd",
]


def report(spanledger, *arguments):
    code, out, errors = spanledger("report", "--json", *AUGUST, *arguments)
    assert (code, errors) == (0, "")
    return json.loads(out)


def test_json_has_these_names_and_exact_amounts(spanledger, august):
    said = report(spanledger, "--by", "tenant")
    assert list(said) == ["since", "until", "currency", "total", "rows"]
    assert said["since"] == "2026-08-01T00:00:00+00:00"
    assert said["until"] == "2026-09-01T00:00:00+00:00"
    assert said["currency"] == "USD"
    assert list(said["total"]) == MEASURES
    acme = {
        "tenant": "acme",
        # 3 x 123,456,789 and 2 x 20,000,001 nano-USD on 1 to 28 August, which add up to 406 days; and 3,000
        "cost_usd": "166.610372814",
        "calls": 146,
        "uses": 28 * 2 + 28 * 1 + 6,
        "input_tokens": 140_040,
        "output_tokens": 14_000,
        "cache_read_tokens": 1_400,
        "cache_write_tokens": 0,
        "credits": "5",
        "unpriced_calls": 3,
        "partial_calls": 1,
        "estimated_calls": 1,
        "saved_usd": "0.098765432",
    }
    assert said["rows"][0] == acme
    assert [row["tenant"] for row in said["rows"]] == ["acme", "globex", "initech", None]
    total = sum(Decimal(row["cost_usd"]) for row in said["rows"])
    assert Decimal(said["total"]["cost_usd"]) == total


def test_rows_stand_by_their_group_the_dearest_first(spanledger, august):
    rows = report(spanledger, "--by", "feature,tenant")["rows"]
    assert [(row["feature"], row["tenant"]) for row in rows] == [
        ("competitive-analysis", "acme"),
        ("search", "globex"),
        ("search", "acme"),
        ("a-feature-whose-name-does-not-fit-into-its-column", "initech"),
        (None, None),
    ]


def test_days_stand_in_their_order(spanledger, august):
    days = [row["day"] for row in report(spanledger, "--by", "day")["rows"]]
    assert days == [f"2026-08-{day:02}" for day in range(1, 29)]


def test_further_keys_can_be_summed_by(spanledger, books, entry):
    books([entry(extra={"plan": "pro"}), entry(extra={"plan": "free"}, nano_usd=5)])
    rows = report(spanledger, "--by", "plan,user")["rows"]
    assert [(row["plan"], row["user"], row["cost_usd"]) for row in rows] == [
        ("pro", None, "0.0000015"),
        ("free", None, "0.000000005"),
    ]


def test_what_has_no_price_has_no_cost(spanledger, books, entry):
    books([entry(nano_usd=None)])
    said = report(spanledger, "--by", "model")
    assert said["total"]["cost_usd"] is None
    assert (said["rows"][0]["cost_usd"], said["rows"][0]["unpriced_calls"]) == (None, 1)


def test_csv_has_the_rows(spanledger, august):
    code, out, _ = spanledger("report", "--csv", "--by", "tenant", *AUGUST)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert list(rows[0]) == ["tenant", *MEASURES]
    assert rows[0]["cost_usd"] == "166.610372814"
    assert [row["tenant"] for row in rows] == ["acme", "globex", "initech", ""]


def test_the_period_bounds_what_is_summed(spanledger, august):
    code, out, _ = spanledger("report", "--json", "--since", "2026-08-03", "--until", "2026-08-04")
    said = json.loads(out)
    assert said["total"]["calls"] == 20
    assert said["until"] == "2026-08-05T00:00:00+00:00"


def test_since_all_begins_with_the_first_call(spanledger, august):
    _, out, _ = spanledger("report", "--json", "--since", "all", "--until", "2026-08-28")
    said = json.loads(out)
    assert said["since"].startswith("2026-08-01T09:30:00.123")
    assert said["total"]["calls"] == 287


def test_an_empty_journal_is_a_report_of_nothing(spanledger, books):
    books([])
    said = report(spanledger)
    assert (said["total"]["cost_usd"], said["total"]["calls"], said["rows"]) == ("0", 0, [])
    code, out, _ = spanledger("report", "--since", "all")
    assert code == 0
    assert "spanledger run app.py" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--by", "tennant"), 1, "'tennant'"),
        (("--by", ","), 2, "not a list"),
        (("--by", "user,user"), 2, "not a list"),
        (("--since", "soon"), 2, "a date (2026-08-01)"),
        (("--until", "2026-02-30"), 2, "a date (2026-08-01)"),
        (("--since", "2026-08-02", "--until", "2026-08-01"), 2, "Give a later one"),
        (("--json", "--csv"), 2, "not allowed"),
        (("--journal", "journal.db"), 2, "command line: --journal: 'journal.db' is not a journal"),
        (("--journal", "memory://"), 1, "cannot be read from outside"),
    ],
)
def test_mistakes_are_said(spanledger, august, arguments, code, words):
    found, out, errors = spanledger("report", *arguments)
    assert (found, out) == (code, "")
    assert words in errors


@pytest.mark.parametrize("command", ["report", "export"])
def test_where_nothing_was_recorded_it_says_how_to_start(spanledger, path, command):
    code, out, errors = spanledger(command)
    assert (code, out) == (1, "")
    assert "nothing was recorded" in errors
    assert "spanledger run app.py" in errors
    assert not path.exists()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a", "b"]),
            st.sampled_from([None, "f", "g"]),
            st.none() | st.integers(0, 10**15),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_reported_is_the_sum_of_what_is_exported(tmp_path_factory, capsys, utc, rows):
    from spanledger.cli.main import main
    from spanledger.ledger.journal import open_journal

    from_rows = capsys  # the fixture is shared by the examples; each reads its own output
    url = f"sqlite:///{tmp_path_factory.mktemp('books')}/journal.db"
    journal = open_journal(url, service="shop")
    make = _entries(rows)
    journal.append(make)
    journal.close()
    from_rows.readouterr()
    where = ("--journal", url, *AUGUST)
    assert main(["export", *where]) == 0
    exported = [json.loads(line) for line in from_rows.readouterr().out.splitlines()]
    assert main(["report", "--json", "--by", "tenant,feature", *where]) == 0
    said = json.loads(from_rows.readouterr().out)
    for row in said["rows"]:
        own = [
            Decimal(e["cost_usd"])
            for e in exported
            if (e["tenant_id"], e["feature"]) == (row["tenant"], row["feature"])
            and e["cost_usd"] is not None
        ]
        assert row["cost_usd"] == (_text(sum(own)) if own else None)
    assert sum(row["calls"] for row in said["rows"]) == len(exported) == len(rows)


def _text(amount):
    return usd_text(int(amount * 10**9))


def _entries(rows):
    from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
    from spanledger.ledger.entry import Entry

    return [
        Entry(
            PaidCall("p", "chat", "m", Attribution(tenant, feature=feature), 1_786_000_000 * 10**9),
            Usage(),
            Ending("ok", 0.1),
            Charge(f"{number:032x}", nano_usd, None, "exact" if nano_usd else "unknown"),
        )
        for number, (tenant, feature, nano_usd) in enumerate(rows)
    ]
