"""`spanledger report` in a terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

AUGUST = ("--since", "2026-08", "--until", "2026-08")
GOLDEN = Path(__file__).with_name("report_80.txt")


def test_the_table_at_80_columns(spanledger, august, path):
    code, out, errors = spanledger("report", *AUGUST)
    assert (code, errors) == (0, "")
    lines = [line.rstrip() for line in out.replace(str(path), "/journal.db").splitlines()]
    assert lines == GOLDEN.read_text().splitlines()
    assert max(len(line) for line in out.splitlines() if str(path) not in line) <= 80


def test_a_wide_terminal_shows_tokens(spanledger, august, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = spanledger("report", *AUGUST)
    assert "tokens in" in out
    assert "280,0" in out
    assert max(len(line) for line in out.splitlines()) <= 120


def test_a_name_that_does_not_fit_is_cut_and_no_number_is(spanledger, books, entry):
    books([entry(tenant="t" * 200, nano_usd=10**15)])
    _, out, _ = spanledger("report", "--by", "tenant", *AUGUST)
    (line,) = [line for line in out.splitlines() if line.startswith("ttt")]
    assert "…" in line
    assert "1,000,000.00" in line


def test_names_cannot_steer_the_terminal(spanledger, books, entry):
    books([entry(tenant="\x1b[31mred[/]\n[bold]x")])
    _, out, _ = spanledger("report", "--by", "tenant", *AUGUST)
    assert "\x1b" not in out
    assert "?[31mred[/]?[bold]x" in out


def test_long_lists_are_cut_to_the_dearest(spanledger, books, entry):
    books([entry(tenant=f"t{number:02}", nano_usd=10**9 * number) for number in range(1, 31)])
    _, out, _ = spanledger("report", "--by", "tenant", *AUGUST)
    names = [line.split()[0] for line in out.splitlines() if line.startswith("t") and "%" in line]
    assert names == [*(f"t{number}" for number in range(30, 10, -1)), "total"]
    (rest,) = [line for line in out.splitlines() if line.startswith("… 10 more")]
    assert rest.split()[3:5] == ["55.0000", "█"]
    _, out, _ = spanledger("report", "--by", "tenant", "--top", "0", *AUGUST)
    assert "t01" in out


def test_what_was_saved_is_shown_by_group_and_by_why(spanledger, books, entry, monkeypatch):
    books(
        [
            entry(nano_usd=10**9),
            entry(outcome="cached", nano_usd=0, saved_nano_usd=10**9),
            entry(tenant="globex", outcome="cached", nano_usd=0, saved_nano_usd=2 * 10**9),
            entry(tenant="globex", outcome="deduplicated", nano_usd=0, saved_nano_usd=4 * 10**9),
            entry(tenant="globex", outcome="degraded", nano_usd=0, saved_nano_usd=8 * 10**9),
            entry(outcome="degraded", nano_usd=1, source="price_list", saved_nano_usd=16 * 10**9),
        ]
    )
    _, out, _ = spanledger("report", "--by", "tenant", *AUGUST)
    table, _, hint = out.rpartition("\n\n")
    rows = {line.split()[0]: line.split() for line in table.splitlines() if "%" in line}
    assert {name: "14.0000" in row or "17.0000" in row for name, row in rows.items()} == {
        "acme": True,
        "globex": True,
        "total": False,
    }
    assert "31.0000" in rows["total"]
    assert " ".join(hint.split()) == (
        "Saved: 31.0000 USD: 3.0000 by cached results, 4.0000 by calls shared while in flight, "
        "8.0000 by stale results, 16.0000 by cheaper models."
    )


def test_where_the_width_is_short_the_trend_makes_room(spanledger, august, monkeypatch):
    _, out, _ = spanledger("report", *AUGUST)
    assert "saved" in out
    assert "trend" not in out
    monkeypatch.setenv("COLUMNS", "90")
    _, out, _ = spanledger("report", *AUGUST)
    assert "trend" in out


def test_where_nothing_was_saved_there_is_no_column_for_it(spanledger, books, entry):
    books([entry(tenant="t" * 200)])
    _, out, _ = spanledger("report", *AUGUST)
    (header,) = [line for line in out.splitlines() if "cost USD" in line]
    assert "saved" not in header
    assert "trend" in header


def test_a_cost_that_is_not_whole_is_marked(spanledger, books, entry):
    books(
        [
            entry(tenant="whole", nano_usd=10**9),
            entry(tenant="partial", nano_usd=10**9, status="partial"),
            entry(tenant="missing", nano_usd=10**9),
            entry(tenant="missing", nano_usd=None),
            entry(tenant="unknown", nano_usd=None),
        ]
    )
    _, out, _ = spanledger("report", "--by", "tenant", *AUGUST)
    cells = {
        line.split()[0]: line.split()[1:3]
        for line in out.splitlines()
        if " 1.0" in line or "≥" in line
    }
    assert {name: cell[0] for name, cell in cells.items()} == {
        "whole": "1.0000",
        "partial": "≥1.0000",
        "missing": "≥1.0000",
        "total": "≥3.0000",
    }
    assert "unknown  no price" in out


def test_a_cost_that_is_more_than_nothing_does_not_look_like_nothing(spanledger, books, entry):
    books([entry(nano_usd=1), entry(tenant="rich", nano_usd=10**12)])
    _, out, _ = spanledger("report", "--by", "tenant", *AUGUST)
    (line,) = [line for line in out.splitlines() if line.startswith("acme")]
    assert "<0.01" in line
    assert "<1%" in line


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_block_characters_gets_plain_ones(august, books, entry, encoding):
    books([entry(tenant="\u0416")])
    code = "import sys; from spanledger.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", *AUGUST],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        check=True,
        encoding=encoding,
    )
    assert done.stderr == ""
    assert "####" in done.stdout
    assert done.stdout.isascii()
    assert "\\u0416" in done.stdout
    assert "total" in done.stdout


def test_without_calls_in_the_period_it_says_when_there_were_some(spanledger, august):
    code, out, _ = spanledger("report", "--since", "2025-01", "--until", "2025-02")
    assert code == 0
    assert "No paid calls in that time. The journal has 287" in out
    assert "2026-08-28 12:00" in out


def test_hints_end_with_the_lines_to_write(spanledger, august):
    _, out, _ = spanledger("report", "--by", "user,feature", *AUGUST)
    assert "    [prices.usd_per_credit]\n    scavio = 0.005\n" in out
    assert "    SPANLEDGER_USD_PER_CREDIT=scavio=0.005\n" in out
    assert '    provider = "openai"\n    model = "gpt-99"\n' in out
    assert "287 of 287 calls name no user." in out
    assert '    with attribute(user="u-17"): ...\n' in out


def test_the_lines_that_hints_give_are_a_valid_configuration(spanledger, august, tmp_path):
    from spanledger.cli.configuration import check_configuration

    _, out, _ = spanledger("report", *AUGUST)
    lines = [line[4:] for line in out.splitlines() if line.startswith("    ")]
    toml = [line for line in lines if line[:1] in "[psm" and "SPANLEDGER" not in line]
    (tmp_path / "spanledger.toml").write_text("\n".join(toml))
    prices = check_configuration({}).prices
    assert list(prices.usd_per_credit) == ["scavio"]
    assert prices.overrides[0].scope.model == "gpt-99"
    (variable,) = [line for line in lines if line.startswith("SPANLEDGER")]
    name, _, value = variable.partition("=")
    assert check_configuration({name: value}).prices.usd_per_credit["scavio"][0].usd > 0


def test_of_many_reasons_the_most_frequent_are_named(spanledger, books, entry):
    books(
        [
            entry(asked=f"m{number}", nano_usd=None, reason="no_usage")
            for number in range(8)
            for _ in range(20 - number)
        ]
        + [entry(provider="tool", asked=None, nano_usd=None) for _ in range(30)]
    )
    _, out, _ = spanledger("report", *AUGUST)
    assert "30 calls are without a price: tool (no reason given)." in out
    assert "20 calls are without a price: openai m0 (no_usage)." in out
    assert "openai m5" not in out
    assert f"{16 + 15 + 14 + 13} calls are without a price for more reasons" in out


def test_everything_attributed_and_priced_has_no_hints(spanledger, books, entry):
    books([entry(user="u")])
    _, out, _ = spanledger("report", "--by", "tenant,user,feature,model", *AUGUST)
    assert out.splitlines()[-1].startswith("total")
