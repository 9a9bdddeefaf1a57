"""`spanledger budgets`: the table, limits set at run time, and the explanation."""

import argparse
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

import pytest
from redis_server import redis_server
from rich.console import Console

from spanledger.api.errors import ConfigurationError, SpanledgerError
from spanledger.api.settings import load_settings
from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.budget import Budgets, open_shared, read_budget_config
from spanledger.budget.config import AMOUNTS
from spanledger.budget.shared import SqliteShared
from spanledger.cli import budgets as command
from spanledger.cli import budgets_table
from spanledger.cli.budgets_figures import config_of, figures, source_of
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal import Journal, open_journal
from spanledger.ledger.protocol import open_ledger

USD = 10**9

CONFIG = """
[[budgets]]
scope = "tenant:*"
monthly_usd = 100
[[budgets]]
scope = "provider:scavio"
weekly_credits = 500
[[budgets]]
scope = "global"
daily_usd = 100000
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own, with a configuration and a journal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("SPANLEDGER_JOURNAL", "sqlite:///journal.db")
    monkeypatch.delenv("SPANLEDGER_CONFIG", raising=False)
    monkeypatch.setenv("SPANLEDGER_LEDGER", "memory://")
    (tmp_path / "spanledger.toml").write_text(CONFIG)
    return tmp_path


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["budgets", *words])
    code: int = arguments.func(arguments)
    return code


Out = Callable[[], str]


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    return lambda: capsys.readouterr().out


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = open_journal("sqlite:///journal.db", service="test")
    yield journal
    journal.close()


_number = iter(range(10**6))


def book(
    journal: Journal,
    usd: float | None,
    tenant: str = "acme",
    *,
    model: str = "gpt-5",
    credits: int | None = None,
    ago: timedelta = timedelta(0),
    **names: str,
) -> None:
    provider = "openai" if credits is None else "scavio"
    at = time.time_ns() - int(ago.total_seconds()) * 10**9
    call = PaidCall(provider, "chat", model, Attribution(tenant, **names), at)
    amount = None if credits is None else Decimal(credits)
    nano = None if usd is None else round(usd * USD)
    charge = Charge(f"c{next(_number)}", nano, amount, "exact" if nano is not None else "unknown")
    journal.append([Entry(call, Usage(credits=amount, model=model), Ending("ok", 0.1), charge)])


def shown(text: str) -> dict[str, dict[str, str]]:
    return {entry["scope"]: entry for entry in json.loads(text)["budgets"]}


# -- from the journal --------------------------------------------------------------------------------------


def test_without_a_budget(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "spanledger.toml").write_text("")
    assert run() == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "No budgets yet" in captured.err
    assert 'scope = "tenant:*"' in captured.err


def test_before_anything_is_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    captured = capsys.readouterr()
    assert {scope: entry["spent"] for scope, entry in shown(captured.out).items()} == {
        "provider:scavio": "0",
        "global": "0",
    }
    assert "spanledger run" in captured.err


def test_amounts_from_the_journal(journal: Journal, out: Out) -> None:
    book(journal, 60)
    book(journal, 20, user="u")
    book(journal, 0.000000001, "other")
    book(journal, None, "other")  # counts by the ceiling of 0.10
    book(journal, 0, "other", credits=7)
    book(journal, 500, ago=timedelta(days=70))
    assert run("--json") == 0
    text = out()
    assert json.loads(text)["source"].startswith("the journal")
    entries = shown(text)
    assert {
        scope: (e["tier"], e["period"], e["unit"], e["limit"], e["spent"], e["left"])
        for scope, e in entries.items()
    } == {
        "tenant:acme": ("warning", "month", "usd", "100", "80", "20"),
        "tenant:other": ("ok", "month", "usd", "100", "0.100000001", "99.899999999"),
        "provider:scavio": ("ok", "week", "credits", "500", "7", "493"),
        "global": ("ok", "day", "usd", "100000", "80.100000001", "99919.899999999"),
    }
    assert next(iter(entries)) == "tenant:acme"  # the worst comes first
    now = datetime.now(UTC)
    resets = datetime.fromisoformat(entries["global"]["resets_at"])
    assert timedelta(0) < resets - now <= timedelta(days=1)


def test_a_projection_makes_a_warning(journal: Journal) -> None:
    now = int(datetime(2026, 11, 11, tzinfo=UTC).timestamp()) * USD
    book(journal, 50, ago=timedelta(seconds=time.time() - now / 1e9 + 3600))
    source = source_of(load_settings(), lambda: journal)
    found = {w.scope: w for w in figures(config_of(load_settings()), source, now).windows}
    assert found["tenant:acme"].standing.tier == 1
    assert found["tenant:acme"].spent == 50 * USD


def test_the_table(journal: Journal, out: Out) -> None:
    book(journal, 80)
    book(journal, 0.001, "a\x1b[31mlong" + "g" * 200)
    assert run() == 0
    lines = out().splitlines()
    assert lines[0].split() == ["budget", "limit", "spent", *lines[0].split()[3:]]
    acme = next(line for line in lines if line.startswith("tenant:acme"))
    assert "100/month" in acme
    assert "80.00" in acme
    assert "80%  warning" in acme
    odd = next(line for line in lines if line.startswith("tenant:a?[31mlong"))
    assert "…" in odd
    assert "<0.01" in odd
    assert lines[-1] == "from the journal (the ledger is the application's own)"
    assert max(map(len, lines)) <= 120


def test_the_first_lines(journal: Journal, out: Out) -> None:
    for number in range(5):
        book(journal, number + 1, f"t{number}")
    assert run("--top", "2") == 0
    text = out()
    assert "tenant:t4" in text
    assert "tenant:t0" not in text
    assert "5 more: --top 0 shows all" in text
    assert run("--top", "0") == 0
    assert "tenant:t0" in out()


def test_a_terminal_that_knows_only_ascii(journal: Journal) -> None:
    book(journal, 80)
    settings = load_settings()
    source = source_of(settings, lambda: journal)
    now = time.time_ns()
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    console = Console(file=stream, width=80, highlight=False)
    console.print(
        budgets_table.drawn(figures(config_of(settings), source, now), now, console, top=0)
    )
    stream.seek(0)
    text = stream.read()
    assert "####" in text
    assert "80%" in text


@pytest.mark.parametrize(
    ("part", "text"),
    [(0.0, "           0%"), (0.5, "████      50%"), (1.0, "████████ 100%"), (2.5, "████████ 250%"), (0.001, "▏          0%"), (float("inf"), "████████ >99x")],
)  # fmt: skip
def test_bars(part: float, text: str) -> None:
    assert budgets_table.bar(part, fine=True) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86_400 * 2.5, "2.5 d"), (86_399, "24.0 h"), (3600, "1.0 h"), (90, "2 min")],
)
def test_remaining(seconds: float, text: str) -> None:
    assert budgets_table.remaining(seconds) == text


def test_watch_ends_with_ctrl_c(
    journal: Journal, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def sleep(seconds: float) -> None:
        seen.append(seconds)
        book(journal, 10)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    book(journal, 10)
    assert run("--watch") == 0
    assert seen == [1.0] * 3
    assert "30.00" in out()


def watched(monkeypatch: pytest.MonkeyPatch, out: Out, *between: Callable[[], object]) -> list[str]:
    """What `--watch` shows at first, and after each of these."""
    pictures: list[str] = []
    steps = iter(between)

    def sleep(_: float) -> None:
        pictures.append(out())
        if (step := next(steps, None)) is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setenv("FORCE_COLOR", "1")  # as a terminal: each picture is drawn
    monkeypatch.setattr(time, "sleep", sleep)
    assert run("--watch") == 0
    return pictures


def test_watch_outlives_a_mistake_in_the_file(
    place: Path, journal: Journal, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    book(journal, 10)
    file = place / "spanledger.toml"
    before, wrong, after = watched(
        monkeypatch,
        out,
        lambda: file.write_text(CONFIG.replace("monthly_usd = 100", "monthly_usd = -1")),
        lambda: file.write_text(CONFIG.replace("monthly_usd = 100", "monthly_usd = 300")),
    )
    assert "100/month" in before
    assert "100/month" in wrong
    assert "Not up to date" not in before + after
    assert "Not up to date" in wrong
    assert "monthly_usd" in wrong
    assert "300/month" in after


def test_watch_outlives_the_ledger(out: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server() as server:
        monkeypatch.setenv("SPANLEDGER_LEDGER", server.url)
        open_shared(server.url).note_used({"tenant:acme|month|2026-11": time.time() + 1000})
        before, gone = watched(
            monkeypatch, out, lambda: (server.process.kill(), server.process.wait())
        )
    assert "tenant:acme" in before
    assert "Not up to date" not in before
    assert "tenant:acme" in gone
    assert "Not up to date: limits set at run time cannot be read: Redis: Conn" in gone


def test_scopes_that_cannot_be_read(
    shared: str, journal: Journal, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(_: object) -> NoReturn:
        raise OSError("gone between two questions")

    book(journal, 80)
    monkeypatch.setattr(SqliteShared, "used", used)
    assert run() == 0
    text = out()
    assert "80%  warning" in text
    assert "gone between two questions" in text


def test_watch_sees_what_comes_meanwhile(journal: Journal) -> None:
    source = source_of(load_settings(), lambda: journal)
    spent: list[list[int]] = []
    for _ in range(2):
        book(journal, 10)
        found = figures(config_of(load_settings()), source, time.time_ns())
        spent.append([w.spent for w in found.windows if w.scope == "tenant:acme"])
    assert spent == [[10 * USD], [20 * USD]]


# -- from a shared ledger ----------------------------------------------------------------------------------


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> str:
    url = "sqlite:///ledger.db"
    monkeypatch.setenv("SPANLEDGER_LEDGER", url)
    return url


@pytest.fixture
def application(shared: str) -> Iterator[Budgets]:
    """The budgets of an application on the same ledger."""
    ledger = open_ledger(shared)
    yield Budgets(read_budget_config(load_settings().root), ledger, shared=open_shared(shared))
    ledger.close()


def _call(tenant: str = "acme", provider: str = "openai") -> PaidCall:
    return PaidCall(provider, "chat", "gpt-5", Attribution(tenant), time.time_ns())


def _until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 3
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_amounts_from_the_ledger(application: Budgets, out: Out) -> None:
    application.record(_call(), 95 * USD)
    admission = application.admit(_call("b+c"), 7 * USD)
    application.tick()

    def entries() -> dict[str, dict[str, str]]:
        assert run("--json") == 0
        text = out()
        assert json.loads(text)["source"] == "the ledger"
        return shown(text)

    def found() -> dict[str, tuple[str, str, str]]:
        return {scope: (e["tier"], e["spent"], e["held"]) for scope, e in entries().items()}

    expected = {
        "tenant:acme": ("critical", "95", "0"),
        "tenant:b%2Bc": ("ok", "0", "7"),
        "global": ("ok", "95", "7"),
        "provider:scavio": ("ok", "0", "0"),
    }
    _until(lambda: found() == expected)
    assert found() == expected
    assert run() == 0
    assert "held" in out()
    admission.hold.settle(USD)  # type: ignore[union-attr]


def test_set_and_reset(application: Budgets, out: Out) -> None:
    assert run("set", "tenant:acme", "--monthly-usd", "1500.50", "--daily-credits", "3") == 0
    assert out() == (
        "tenant:acme: 1,500.5 USD in a month, in force within a second\n"
        "tenant:acme: 3 credits in a day, in force within a second\n"
    )
    application.refresh()
    status = application.status(tenant="acme")
    assert status.limit in (Decimal("1500.5"), Decimal(3))
    assert {b.limit for b in application.config.budgets if b.scope.tenant == "acme"} == {
        1_500_500_000_000,
        3 * USD,
    }
    assert run("--json") == 0
    assert "1500.5" in out()
    assert run("reset", "tenant:acme") == 0
    assert out() == "tenant:acme: as the configuration file says, within a second\n"
    application.refresh()
    assert application.status(tenant="acme").limit == 100


def test_set_has_an_option_for_each_amount_of_the_file(out: Out) -> None:
    with pytest.raises(SystemExit):
        run("set", "--help")
    options = re.findall(r"^  --(\S+) N +(.+)$", out(), re.MULTILINE)
    assert {key.replace("-", "_"): text for key, text in options} == {
        key: f"{'USD' if unit == 'usd' else unit} in a {period}"
        for key, (period, unit) in AMOUNTS.items()
    }


def test_a_limit_where_the_file_has_none(place: Path, shared: str, out: Out) -> None:
    (place / "spanledger.toml").write_text("")
    assert run("set", "global", "--weekly-usd", "5") == 0
    assert run("--json") == 0
    assert '"limit": "5"' in out()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("set", "tenants:a", "--daily-usd", "1"),
            "command line: SCOPE: 'tenants:a' is not global",
        ),
        (("set", "tenant:a"), "no amount is given. Give one of --daily-usd, --weekly-usd"),
        (("set", "tenant:a", "--daily-usd", "1"), "environment: SPANLEDGER_LEDGER: is memory://"),
        (("reset", "tenant:a"), "environment: SPANLEDGER_LEDGER: is memory://"),
        (
            ("explain", "tenant:*"),
            "command line: SCOPE: tenant:* stands for many. Name one of them",
        ),
    ],
)
def test_mistakes(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run(*words)
    assert said in str(caught.value)


@pytest.mark.parametrize("amount", ["-1", "x", "NaN", "1e12", ""])
def test_amounts_that_are_none(amount: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("set", "tenant:a", f"--daily-usd={amount}")
    assert "argument --daily-usd" in capsys.readouterr().err


def test_a_store_out_of_reach(
    place: Path, monkeypatch: pytest.MonkeyPatch, journal: Journal, out: Out
) -> None:
    monkeypatch.setenv("SPANLEDGER_LEDGER", "redis://127.0.0.1:1/0")
    for words in (("set", "global", "--daily-usd", "1"), ("reset", "global")):
        with pytest.raises(SpanledgerError, match="Redis: "):
            run(*words)
    # What this host knows is shown all the same.
    book(journal, 80)
    assert run() == 0
    text = out()
    assert "80%  warning" in text
    assert "The ledger cannot be reached or recovers: more may have been spent." in text
    assert "from this host's journal and the file (limits set at run time cannot be read" in text
    assert run("--json") == 0
    text = out()
    assert "Redis: ConnectionError" in json.loads(text)["source"]
    assert all(entry["unverified"] for entry in shown(text).values())
    (place / "spanledger.toml").write_text("")
    with pytest.raises(SpanledgerError, match="Redis: "):
        run()


# -- explain -----------------------------------------------------------------------------------------------


def test_explain(journal: Journal, out: Out) -> None:
    book(journal, 60, feature="search", user="u1")
    book(journal, 20, feature="chat", user="u1", model="gpt-5-mini")
    book(journal, 0.5, feature="chat", user="u2")
    book(journal, 99, "other", user="u9")
    book(journal, 88, ago=timedelta(days=70), user="u8")
    assert run("explain", "tenant:acme") == 0
    text = out()
    assert "spent 80.50 of 100.00 USD: 80%, tier warning" in text
    by_feature = text[text.index("by feature") : text.index("by model")].split()
    assert [word for word in by_feature if word in ("search", "60.00", "75%", "chat", "20.50")] == [
        "search", "60.00", "75%", "chat", "20.50"
    ]  # fmt: skip
    calls = text[text.index("dearest calls") :].splitlines()[1:]
    assert [line.split()[0] for line in calls if "openai" in line] == [
        "60.0000",
        "20.0000",
        "0.5000",
    ]
    assert "openai gpt-5-mini" in calls[1]
    assert "user u1, feature chat" in " ".join(calls[1].split())
    assert "u9" not in text
    assert "u8" not in text
    assert "other hosts" not in text


def test_explain_in_credits(journal: Journal, out: Out) -> None:
    book(journal, 0, credits=30)
    book(journal, 1)
    assert run("explain", "provider:scavio") == 0
    text = out()
    assert "spent 30.00 of 500.00 credits" in text
    assert "30.0000" in text
    assert "openai" not in text


def test_explain_says_where_the_rest_is(application: Budgets, journal: Journal, out: Out) -> None:
    application.record(_call(), 80 * USD)

    def text() -> str:
        assert run("explain", "tenant:acme") == 0
        return out()

    book(journal, 30)
    assert _until(lambda: "spent 80.00" in text())
    assert "this journal has 30.00 of it; other hosts have journals of their own" in text()


def test_explain_a_call_without_a_price(journal: Journal, out: Out) -> None:
    book(journal, None)
    assert run("explain", "tenant:acme") == 0
    text = out()
    assert "spent 0.10 of" in text
    assert "no price" in text


def test_explain_what_has_no_budget(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "user:u") == 1
    assert "user:u has no budget" in capsys.readouterr().err


def test_explain_without_a_journal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "tenant:acme") == 1
    captured = capsys.readouterr()
    assert "spent 0.00 of 100.00 USD" in captured.out
    assert "spanledger run" in captured.err
