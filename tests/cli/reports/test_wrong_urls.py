"""URLs that no part of spanledger can use: said with the file or the variable, the key and the remedy."""

import pytest


@pytest.mark.parametrize(
    ("text", "command", "words"),
    [
        ('journal = "foo"', ("report",), "spanledger.toml: journal: 'foo' is not a journal's URL"),
        (
            'journal = "sqlite:///var/none/x.db"',
            ("export",),
            "spanledger.toml: journal: 'sqlite:///var/none/x.db' is a relative path",
        ),
        (
            'ledger = "foo://x"\n[[budgets]]\nscope = "global"\ndaily_usd = 5',
            ("budgets",),
            "spanledger.toml: ledger: no ledger has a URL that starts with 'foo'",
        ),
    ],
)
def test_a_wrong_url_of_the_file(spanledger, tmp_path, monkeypatch, text, command, words):
    monkeypatch.delenv("SPANLEDGER_JOURNAL")
    (tmp_path / "spanledger.toml").write_text(text)
    code, out, errors = spanledger(*command)
    assert (code, out) == (2, "")
    assert words in errors
