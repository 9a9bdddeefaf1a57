"""The settings: read from environment and file, and wrong ones said with file, key and remedy."""

from decimal import Decimal
from pathlib import Path

import pytest

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import TABLES, VARIABLES, Origin, Section, Settings, load_settings

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def write(directory: Path, text: str) -> Path:
    path = directory / "spanledger.toml"
    path.write_text(text)
    return path


def test_nothing_has_to_be_configured(tmp_path: Path) -> None:
    settings = load_settings({}, tmp_path)
    assert (settings.journal, settings.ledger, settings.path) == (None, None, None)
    assert not settings.trust_incoming


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    default = tmp_path / "spanledger.toml"
    assert load_settings({}, tmp_path).candidate == default
    named = {"SPANLEDGER_CONFIG": "books.toml"}
    assert load_settings(named, use_file=False).candidate == tmp_path / "books.toml"
    (tmp_path / "books.toml").touch()
    settings = load_settings(named)
    assert (settings.path, settings.candidate) == (Path("books.toml"), tmp_path / "books.toml")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        'journal = "memory://"\nledger = "redis://one"\n[attribution]\nextra_keys = ["plan"]\n',
    )
    settings = load_settings(
        {
            "SPANLEDGER_LEDGER": "redis://other",
            "SPANLEDGER_USD_PER_CREDIT": "scavio=0.005, tavily=0.008",
        },
        tmp_path,
    )
    assert (settings.journal, settings.ledger) == ("memory://", "redis://other")
    assert settings.extra_keys == ("plan",)
    assert settings.usd_per_credit == {"scavio": Decimal("0.005"), "tavily": Decimal("0.008")}


def test_every_url_knows_where_it_was_set(tmp_path: Path) -> None:
    file = write(tmp_path, 'journal = "memory://"\nledger = "redis://one"\n')
    settings = load_settings({"SPANLEDGER_LEDGER": "redis://other"}, tmp_path)
    assert settings.origin("journal") == Origin(str(file), "journal")
    assert settings.origin("ledger") == Origin("environment", "SPANLEDGER_LEDGER")
    assert settings.origin("cache_store") == Origin("default", "cache_store")
    assert Settings(Section({}, "test"), journal="x").origin("journal").source == "code"
    assert str(settings.origin("journal").error("is wrong", "Do right.")) == (
        f"{file}: journal: is wrong. Do right."
    )


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("jurnal = 'memory://'", "jurnal", 'Did you mean "journal"?'),
        (
            "[attribution]\ntrust_incoming = 'sometimes'",
            "attribution.trust_incoming",
            '"never", "always"',
        ),
        ("[attribution]\nextra_keys = 'plan'", "attribution.extra_keys", "list of texts"),
        ("[attribution]\nplan = 1", "attribution.plan", "docs/configuration.md"),
        ("attribution = 1", "attribution", "[attribution]"),
        ("journal = 7", "journal", "a text"),
        ("not toml", "(file)", "cannot be parsed"),
    ],
)
def test_a_mistake_names_file_key_and_remedy(
    tmp_path: Path, text: str, key: str, said: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}, tmp_path)
    assert (caught.value.source, caught.value.key) == (str(path), key)
    assert said in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPANLEDGER_CONFIG", "nowhere.toml"),
        ("SPANLEDGER_TRUST_INCOMING", "yes"),
        ("SPANLEDGER_USD_PER_CREDIT", "scavio=cheap"),
    ],
)
def test_a_mistake_in_the_environment(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({name: value}, tmp_path)
    assert caught.value.source == "environment"
    assert name in caught.value.key


def test_every_setting_is_documented() -> None:
    docs = DOCS.read_text()
    for variable in VARIABLES:
        assert f"`{variable.name}`" in docs
    for table in TABLES:
        assert f"[{table}" in docs


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("250ms", 0.25), ("15m", 900.0), ("24h", 86400.0), ("3d", 259200.0), (1.5, 1.5)],
)
def test_durations(value: object, seconds: float) -> None:
    assert Section({"wait": value}, "test").seconds("wait") == seconds


@pytest.mark.parametrize("value", ["soon", -1, True, "5 weeks", None])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ConfigurationError, match="test: wait: is"):
        Section({"wait": value}, "test").seconds("wait")


def test_numbers_are_exact_and_bounded() -> None:
    section = Section({"a": "0.1", "b": 0.1, "c": float("nan"), "d": -1, "e": True}, "test")
    assert section.number("a") == section.number("b") == Decimal("0.1")
    for key in "cdef":
        with pytest.raises(ConfigurationError):
            section.number(key)
