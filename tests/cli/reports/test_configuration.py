"""What the application could not use is refused before it starts, with the same words."""

import pytest

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import load_settings
from spanledger.cli.configuration import check_configuration
from spanledger.processor.startup import Engine

RULE = '[cache."scavio/*"]\nfresh = "15m"\n'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[metrics]\nmax_series = -1", "metrics.max_series"),
        ("[metrics]\nmax_serie = 3", "metrics.max_serie"),
        ('[metrics]\nzero_first = "x"', "metrics.zero_first"),
        ('ledger = "foo://x"', "ledger"),
        ('ledger = "redis://127.0.0.1:port/0"', "ledger"),
        ('cache_store = "foo://"', "cache_store"),
        (f'cache_store = "redis://127.0.0.1:port/0"\n{RULE}', "cache_store"),
        ('journal = "foo"', "journal"),
        ("[events]\ncharges = 1", "events.charges"),
    ],
)
def test_what_the_application_could_not_use_is_refused(path, tmp_path, monkeypatch, text, key):
    monkeypatch.delenv("SPANLEDGER_JOURNAL")
    file = tmp_path / "spanledger.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as checked:
        check_configuration()
    assert (checked.value.source, checked.value.key) == (str(file), key)
    with pytest.raises(ConfigurationError) as started:
        Engine(load_settings(), service="shop")
    assert str(started.value) == str(checked.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPANLEDGER_LEDGER", "foo://x"),
        ("SPANLEDGER_CACHE", "foo://"),  # although no rule makes use of it
        ("SPANLEDGER_JOURNAL", "foo"),
    ],
)
def test_a_wrong_variable_is_refused(spanledger, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, out, errors = spanledger("run", "--", "true")
    assert (code, out) == (2, "")
    assert f"environment: {name}: " in errors
    code, out, _ = spanledger("doctor")
    assert code == 1
    assert out.startswith(f"✗ configuration: environment: {name}: ")


def test_a_user_without_a_home_is_no_wrong_configuration(path, monkeypatch):
    monkeypatch.delenv("SPANLEDGER_JOURNAL")
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *_, **__: "~/.local/state")
    assert check_configuration().settings.journal is None


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
