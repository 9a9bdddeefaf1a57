"""`spanledger demo`, from the command line to the report."""

import argparse
import re

import pytest

from spanledger.cli.demo.command import KEYS, add, environment, find_launcher, journal_url
from spanledger.cli.demo.server import ProviderServer


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """Run `spanledger demo` with these arguments, in an environment without keys."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in (*KEYS, "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*given):
        parser = argparse.ArgumentParser()
        add(parser.add_subparsers())
        arguments = parser.parse_args(["demo", *given])
        return arguments.func(arguments)

    return run


def test_the_users_own_settings_stay_out(tmp_path):
    made = environment(
        {"PATH": "/bin", "OTEL_SDK_DISABLED": "true", "SPANLEDGER_CONFIG": "mine.toml"}, tmp_path
    )
    assert made["PATH"] == "/bin"
    assert made["SPANLEDGER_JOURNAL"] == journal_url(tmp_path)
    assert made["SPANLEDGER_USD_PER_CREDIT"] == "scavio=0.005"
    assert "OTEL_SDK_DISABLED" not in made
    assert "SPANLEDGER_CONFIG" not in made
    assert {made[f"OTEL_{signal}_EXPORTER"] for signal in ("TRACES", "METRICS", "LOGS")} == {"none"}


def test_the_launcher_is_this_environments(monkeypatch):
    found = find_launcher()
    monkeypatch.setenv("PATH", "")
    assert found == find_launcher()


def test_it_runs_and_reports(demo, capfd, tmp_path):
    assert demo() == 0
    out, err = capfd.readouterr()
    for word in (
        *("acme", "globex", "initech"),
        *("competitive-analysis", "support-chat", "document-search"),
        *("lead-enrichment", "weekly-digest"),
        *("openai", "anthropic", "scavio", "geocoder"),
    ):
        assert word in out
    assert "0.005 USD: the demo's price" in out
    assert "spanledger doctor" in out
    # The second part: both budgets walked to their end, and the log says so.
    for tenant, tiers in (("initech", "warning critical hard"), ("globex", "warning hard")):
        for tier in tiers.split():
            assert f"{tenant}: tier {tier}" in out
            assert f"budget tenant:{tenant} (month) is at its tier {tier}" in err
        assert f"budget tenant:{tenant} is used up" in out
    assert "served by gpt-5.4-mini" in out
    assert re.search(r"tenant / feature .*  saved ", out)
    (saved,) = re.findall(r"Saved: .*?\.\n", out, re.DOTALL)
    assert "by cached results" in saved
    assert saved.split()[-2:] == ["cheaper", "models."]
    assert all(line.startswith("budget tenant:") for line in err.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_live_needs_a_key(demo, capfd, tmp_path):
    assert demo("--live") == 2
    assert (
        "OPENAI_API_KEY, ANTHROPIC_API_KEY, SCAVIO_API_KEY; none is set" in capfd.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_live_calls_those_whose_key_is_set_and_keeps_the_journal(
    demo, capfd, monkeypatch, tmp_path
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "key-one")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-two")
    with ProviderServer() as server:
        # The SDKs' own variables: the loopback server in place of the real providers.
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        assert demo("--live", "--keep") == 0
    out, _ = capfd.readouterr()
    assert "for want of a key: SCAVIO_API_KEY." in out
    assert sorted(r.path for r in server.requests) == [
        *["/v1/chat/completions"] * 2,
        *["/v1/messages"] * 2,
        *["/v1/responses"] * 2,
    ]
    kept = re.search(r"kept: sqlite:///(\S+)", out)
    assert kept
    assert kept[1].startswith(str(tmp_path))
    assert (tmp_path / kept[1]).is_file()
