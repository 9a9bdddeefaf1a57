"""`spanledger collector-config`, and that what is committed is what it writes."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from collector_program import CONFIG, ROOT, collector_config
from genai_prices.data_snapshot import get_snapshot

from spanledger.api.errors import ConfigurationError
from spanledger.api.values import Usage
from spanledger.cli import collector
from spanledger.cli.collector_names import in_order, names
from spanledger.cli.collector_ottl import call
from spanledger.cli.collector_prices import price_groups
from spanledger.pricing.book import PriceBook
from spanledger.pricing.config import PriceConfig

PRICES = """
[[prices.override]]
provider = "openai"
model = "gpt-4o-mini"
tenant = "acme"
prices = {input_mtok = "0.1", output_mtok = "0.4"}

[[prices.multiplier]]
provider = "anthropic"
factor = "0.9"

[prices.deployments]
chat-small = "gpt-4o-mini"
"""


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPANLEDGER_CONFIG", raising=False)


def rows(text: str, name: str) -> list[str]:
    """The statements that set the rates of a model."""
    return [line for line in text.splitlines() if '["rates"], {' in line and name in line]


def test_what_is_committed_is_what_it_writes(tmp_path: Path) -> None:
    copy = tmp_path / "collector.yaml"
    shutil.copy(CONFIG, copy)
    options = re.search(r"# >>> spanledger collector-config (.*)", CONFIG.read_text())
    assert options is not None
    assert collector_config(*options[1].split(), "--into", str(copy)) == 0
    assert copy.read_text() == CONFIG.read_text()


def test_a_file_of_its_own_has_the_models_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        collector_config("--models", "openai/gpt-4o-mini", "azure/gpt-4o", "--date", "2026-11-24")
        == 0
    )
    text = capsys.readouterr().out
    assert text.startswith(
        "# Written by `spanledger collector-config --date 2026-11-24 "
        "--models openai/gpt-4o-mini azure/gpt-4o`.\nprocessors:\n  transform/spanledger:\n"
    )
    (mini,) = rows(text, "gpt-4o-mini-2024")
    assert '"standard": {"cache_read": 75000, "input": 150000, "output": 600000}' in mini
    assert '["provider"] == "azure.ai.openai"' in text
    assert not rows(text, "gpt-4\\\\.1")


def test_announced_prices_come_with_their_dates(capsys: pytest.CaptureFixture[str]) -> None:
    assert collector_config("--models", "gcp.gemini/gemini-3.6-flash", "--date", "2026-11-24") == 0
    before, after = rows(capsys.readouterr().out, "gemini-3")
    assert "span.start_time_unix_nano < 1798761600000000000" in before
    assert "span.start_time_unix_nano >= 1798761600000000000" in after


def test_a_longer_input_has_prices_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert collector_config("--models", "anthropic/claude-sonnet-4-5", "--date", "2026-11-24") == 0
    (row,) = rows(capsys.readouterr().out, "claude-sonnet-4-5")
    assert re.search(r'"input": 3000000, .*"above": 200000, "longer": \{.*"input": 6000000', row)


def test_your_own_prices_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spanledger.toml").write_text(PRICES)
    models = ("openai/gpt-4o-mini", "openai/chat-small", "anthropic/claude-haiku-4-5")
    assert collector_config("--models", *models, "--date", "2026-11-24") == 0
    text = capsys.readouterr().out
    acme, everybody = rows(text, "gpt-4o-mini-2024")
    assert '["tenant.id"] == "acme"' in acme
    assert '"input": 100000' in acme
    assert '"source": "override"' in acme
    assert '"input": 150000' in everybody
    assert len(rows(text, '["name"] == "chat-small"')) == 2
    (haiku,) = rows(text, "claude-haiku-4-5")
    assert '"input": 900000' in haiku
    assert '"version": "genai-prices' in haiku


def test_what_cannot_be_priced_is_said_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        collector_config("--models", "openai/gpt-4o", "openai/no-such", "deepseek/deepseek-chat")
        == 1
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "openai/no-such: the price book has none (unknown_model)",
        "deepseek/deepseek-chat: its price changes by the time of day",
        "Say what they cost in an [[prices.override]], or leave them out.",
    ]


def test_a_model_without_its_provider_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="Name both, such as openai/gpt-4o"):
        collector_config("--models", "gpt-4o")


@pytest.mark.parametrize("text", [None, "processors:\n"])
def test_only_a_copy_of_the_configuration_can_be_changed(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "other.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"Name a copy of otel-collector-config\.yaml"):
        collector_config("--into", str(file))


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "azure"])
def test_every_name_of_a_model_gets_the_price_book_s_price(provider: str) -> None:
    """The first condition that holds for a name, carried out here, leads to the price book's price."""
    snapshot = get_snapshot().providers
    own = next(one for one in snapshot if one.id == provider)
    texts = sorted({n for m in in_order(own, snapshot) for n in (m.id.lower(), *names(m.match))})
    moment = datetime.now(UTC)
    groups, _, _ = price_groups([f"{provider}/{text}" for text in texts], PriceConfig(), moment)
    book = PriceBook(PriceConfig())
    book.warm()
    (group,) = groups
    now = int(moment.timestamp()) * 10**9
    found = [
        re.search(r'"standard": \{.*?"input": (\d+).*? == nil and (.*)', s)
        for s in group.statements
    ]
    rows = [match.groups() for match in found if match is not None]
    checked = 0
    for text in texts:
        price = book.price(provider, text, Usage({"input_tokens": 1000}, model=text), now)
        chosen = next((int(nano) for nano, where in rows if holds(where, text, now)), None)
        if chosen is not None:
            assert price.nano_usd == chosen, text
            checked += 1
    assert checked > 0.8 * len(texts)


def holds(condition: str, name: str, now_ns: int) -> bool:
    """A condition of such a statement, as Python reads it."""
    replacements = (
        (r'IsMatch\(NAME, ("(?:[^"\\]|\\.)*")\)', rf"bool(re.search(\1, {name!r}))"),
        (r"span.start_time_unix_nano", str(now_ns)),
        (r"NAME", repr(name)),
    )
    python = condition.replace(call("name"), "NAME")
    for old, new in replacements:
        python = re.sub(old, new, python)
    return bool(eval(python, {"re": re}))


def test_the_modules_of_the_builder_are_the_pinned_ones() -> None:
    here = ROOT / "dashboards" / "collector"
    pinned = dict(re.findall(r"^\t(\S+) (v\S+)$", (here / "go.mod").read_text(), re.MULTILINE))
    built = re.findall(r"gomod: (\S+) (v\S+)", (here / "builder-config.yaml").read_text())
    assert len(built) > 10
    assert {module: pinned.get(module) for module, _ in built} == dict(built)


def test_the_variables_are_described() -> None:
    head, _, rest = CONFIG.read_text().partition("\nextensions:")
    used = set(re.findall(r"\$\{env:(\w+)", rest))
    ports = {name for name in used if name.endswith("_PORT")}
    assert used - ports == set(re.findall(r"SPANLEDGER_COLLECTOR_\w+", head))


def test_the_default_models_are_in_the_price_list() -> None:
    models = [f"{p}/{m}" for p, ms in collector._DEFAULT_MODELS.items() for m in ms.split()]
    groups, version, problems = price_groups(models, PriceConfig(), datetime.now(UTC))
    assert problems == []
    assert len(groups) == 3
    assert version.startswith("genai-prices ")
