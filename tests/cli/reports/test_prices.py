"""`spanledger prices`."""

import re


def prices(out):
    return dict(re.findall(r"^  (.*?) +([\d.]+)  USD", out, re.MULTILINE))


def test_a_model_has_the_prices_of_the_day(spanledger, tmp_path):
    (tmp_path / "spanledger.toml").write_text(
        '[[prices.override]]\nprovider = "openai"\nmodel = "gpt-x"\n'
        'prices = { input_mtok = "2.5", output_mtok = "10", cache_read_mtok = "1.25" }\n'
        '[[prices.override]]\nprovider = "openai"\nmodel = "gpt-x"\nstart = 2026-06-01\n'
        'prices = { input_mtok = "2", output_mtok = "8" }\n'
    )
    code, out, _ = spanledger("prices", "openai", "gpt-x", "--date", "2026-05-31")
    assert (code, prices(out)) == (
        0,
        {
            "a million tokens of input": "2.5",
            "a million tokens of input from the cache": "1.25",
            "a million tokens of output": "10",
        },
    )
    code, out, _ = spanledger("prices", "openai", "gpt-x", "--date", "2026-06-01")
    assert prices(out)["a million tokens of input"] == "2"


def test_a_model_of_the_list_has_prices(spanledger):
    code, out, _ = spanledger("prices", "anthropic", "claude-sonnet-4-5", "--date", "2026-01-01")
    assert code == 0
    assert prices(out)["a million tokens of input"] == "3"
    assert prices(out)["a million tokens of output"] == "15"
    assert "genai-prices" in out


def test_a_credit_has_the_price_that_is_configured(spanledger, monkeypatch):
    code, out, errors = spanledger("prices", "scavio")
    assert (code, out) == (1, "")
    assert "SPANLEDGER_USD_PER_CREDIT=scavio=0.005" in errors
    monkeypatch.setenv("SPANLEDGER_USD_PER_CREDIT", "scavio=0.004")
    code, out, _ = spanledger("prices", "scavio")
    assert (code, prices(out)) == (0, {"a credit": "0.004"})


def test_what_has_no_price_is_said(spanledger):
    code, out, errors = spanledger("prices", "openai", "gpt-nobody-knows")
    assert (code, out) == (1, "")
    assert "[[prices.override]]" in errors
    assert spanledger("prices", "openai", "gpt-4o", "--date", "soon")[0] == 2
