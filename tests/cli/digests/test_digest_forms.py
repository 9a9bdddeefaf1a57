"""A digest as people see it: in a terminal, in Slack, in Teams, in a mail."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from spanledger.cli.digest_figures import Digest, Spend
from spanledger.cli.digest_text import drawn, plain
from spanledger.ledger.journal_totals import Unpriced

FRIDAY = ("--since", "2026-08-28", "--until", "2026-08-28")
HERE = Path(__file__).parent


def form(spanledger: Any, name: str, *arguments: str) -> dict[str, Any]:
    code, out, errors = spanledger("digest", *FRIDAY, "--format", name, *arguments)
    assert (code, errors) == (0, "")
    return dict(json.loads(out))


def texts(part: Any) -> list[str]:
    """Every text in a message that somebody sees."""
    if isinstance(part, dict):
        return [t for key in part for t in texts(part[key]) if key not in ("$schema", "type")]
    if isinstance(part, list):
        return [t for item in part for t in texts(item)]
    return [part] if isinstance(part, str) else []


def test_the_terminal_at_80_columns(spanledger, week, tmp_path):
    code, out, errors = spanledger("digest", *FRIDAY)
    assert (code, errors) == (0, "")
    lines = "".join(f"{line.rstrip()}\n" for line in out.splitlines())
    assert lines.replace(str(tmp_path), "DIR") == (HERE / "digest_80.txt").read_text()


NASTY = "a<b>&c`d*e_f[g](http://evil)\x1b[31m"


def a_digest(rows: int = 1, name: str = NASTY, **changes: Any) -> Digest:
    from datetime import UTC, datetime

    spends = [Spend(name, 10**9, 2 * 10**9, 1, 0) for _ in range(rows)]
    return Digest(
        place=f"sqlite:///{name}.db",
        since=datetime(2026, 8, 28, tzinfo=UTC),
        until=datetime(2026, 8, 29, tzinfo=UTC),
        now=datetime(2026, 8, 29, 7, tzinfo=UTC),
        weeks=1,
        compared=True,
        total=Spend(None, rows * 10**9, rows * 2 * 10**9, rows, 0),
        saved_nano_usd=0,
        groups={"provider": spends, "feature": spends, "tenant": spends},
        moves=[],
        budgets=[],
        budgets_error=None,
        unpriced=[Unpriced("openai", name, "unknown_model", "unknown", 1, 0)],  # type: ignore[arg-type]
        fleet=False,
    )._replace(**changes)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_tables_fit_any_width_whatever_the_names(width):
    for name in ("x" * 300, "数" * 100, NASTY):
        digest = a_digest(3, name, place="the journal")
        for line in plain(digest, top=0, width=width).splitlines():
            assert Console(width=width).measure(line).maximum <= width


def test_what_a_terminal_cannot_show_is_replaced():
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=out, width=60, color_system=None)
    spend = Spend("x" * 300, 10**9, 2 * 10**9, 1, 1)
    console.print(drawn(a_digest(groups={n: [spend] * 12 for n in ("provider", "feature", "tenant")}), console, top=5))  # fmt: skip
    out.flush()
    said = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "... 7 more" in said
    assert ">1.0000" in said


def test_no_control_character_reaches_a_terminal():
    assert "\x1b" not in plain(a_digest(), top=10)


def test_rows_past_the_top_are_summed_up(spanledger, week):
    _, out, _ = spanledger("digest", *FRIDAY, "--top", "2")
    rest = next(line for line in out.splitlines() if line.startswith("… 4 more"))
    assert rest.split()[3:] == ["≥0.7500", "8%", "2.5000", "-70%"]
    _, out, _ = spanledger("digest", *FRIDAY, "--top", "0")
    assert "more" not in out


# -- Slack -----------------------------------------------------------------------------------------


def test_slack(spanledger, week):
    said = form(spanledger, "slack")
    headline = "Spend on Friday, 28 Aug 2026: ≥9.7500 USD (+50%)"
    assert said["text"] == headline
    kinds = [block["type"] for block in said["blocks"]]
    assert kinds == ["header", *["section"] * 5, "context"]
    assert said["blocks"][0]["text"] == {"type": "plain_text", "text": headline}
    tenants = next(b["text"]["text"] for b in said["blocks"][1:] if "By tenant" in str(b))
    assert tenants.splitlines()[:4] == [
        "*By tenant*",
        "```",
        "tenant       cost USD  share  before  change",
        "acme          ≥6.0000    62%  4.0000    +50%",
    ]
    assert tenants.endswith("```")


def test_slack_calls_nobody_and_links_nowhere():
    from spanledger.cli.digest_messages import slack

    for name in (NASTY, "<!channel>", "```", "<https://evil|x>"):
        for text in texts(slack(a_digest(name=name), 10)["blocks"][1:]):
            assert not re.search(r"<[!@#h]", text)
            fences = text.count("```")
            assert fences in (0, 2)
            assert text.count("`") == 3 * fences


@pytest.mark.parametrize("name", ["x" * 300, "&" * 300, "<" * 40])
def test_slack_bounds_are_kept(name):
    from spanledger.cli.digest_messages import message

    said = message(a_digest(1000, name), "slack", top=0)
    assert len(said["blocks"]) <= 50
    for text in texts(said["blocks"]):
        assert len(text) <= 3000
    for block in said["blocks"]:
        if "By " in str(block):
            assert block["text"]["text"].endswith("\n```")
            assert not re.search(r"&(?!amp;|lt;|gt;)", block["text"]["text"])


# -- Teams -----------------------------------------------------------------------------------------


def test_teams(spanledger, week):
    said = form(spanledger, "teams")
    assert said["type"] == "message"
    (attachment,) = said["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    facts = [part["facts"] for part in card["body"] if part["type"] == "FactSet"]
    assert [(fact["title"], fact["value"]) for fact in facts[2]] == [
        ("acme", r"≥6.0000 USD \(62%\), +50% on 4.0000"),
        ("newcomer", r"3.0000 USD \(31%\), new"),
        ("globex", r"0.5000 USD \(5%\), 0% on 0.5000"),
        (r"\(no tenant\)", r"0.2500 USD \(3%\), new"),
        ("initech", "no price"),
        ("leaver", r"0 USD \(0%\), gone, was 2.0000"),
    ]


def test_teams_reads_names_as_names():
    from spanledger.cli.digest_messages import message

    said = message(a_digest(100), "teams", top=0)
    assert len(json.dumps(said)) < 28_000  # what Teams takes
    for text in texts(said):
        assert not re.search(r"(?<!\\)[`*_\[<]", text), text


# -- JSON ------------------------------------------------------------------------------------------


def test_json_has_all_rows_whatever_the_top(spanledger, week):
    assert len(form(spanledger, "json", "--top", "1")["by"]["tenant"]) == 6


# -- mail ------------------------------------------------------------------------------------------


def test_a_mail_says_the_same_as_text_and_as_html():
    from spanledger.cli.digest_delivery import mail

    message = mail(a_digest(), ["a@example.com", "b@example.com"], None, top=10)
    assert message["Subject"] == "Spend on Friday, 28 Aug 2026: 1.0000 USD (-50%)"
    assert message["To"] == "a@example.com, b@example.com"
    assert message["From"].startswith("spanledger@")
    assert message["Date"] == "Sat, 29 Aug 2026 07:00:00 +0000"
    text = message.get_body(("plain",)).get_content()
    page = message.get_body(("html",)).get_content()
    assert text == plain(a_digest(), top=10, width=76)
    assert "a&lt;b&gt;&amp;c" in page
    assert "<b>" not in page
    for word in ("By tenant", "unknown_model", "2.0000", "-50%"):
        assert word in text
        assert word in page
    assert message.as_bytes().decode("ascii")
