"""A digest as what chat programs take, and as JSON for everything else."""

from typing import Any, Final

from spanledger.budget.amounts import from_nano
from spanledger.cli.amounts import decimal_text, usd_text
from spanledger.cli.digest_figures import Digest, Spend
from spanledger.cli.digest_text import headline, notes, plain_table, sections, summary

FORMATS: Final = ("slack", "teams", "json")

_MOST_ROWS: Final = 20  # in a chat, however many are asked for: messages are bounded in size
_SLACK_COLUMNS: Final = 64
_SLACK_HEADER: Final = 150  # characters that Slack takes
_SLACK_TEXT: Final = 3000
_MARKDOWN: Final = str.maketrans({c: f"\\{c}" for c in r"\`*_~[]()#<>|"})
_MRKDWN: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "'"})


def message(digest: Digest, form: str, *, top: int) -> dict[str, Any]:
    """The digest in one of `FORMATS`; `top` rows of each table, JSON always has all."""
    if form == "json":
        return as_json(digest)
    rows = min(top or _MOST_ROWS, _MOST_ROWS)
    return slack(digest, rows) if form == "slack" else teams(digest, rows)


def slack(digest: Digest, top: int) -> dict[str, Any]:
    """The digest for an incoming webhook of Slack."""
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": headline(digest)[:_SLACK_HEADER]},
        },
        _slack_section("\n".join(line.translate(_MRKDWN) for line in summary(digest))),
    ]
    for section in sections(digest, top=top):
        table = plain_table(section, _SLACK_COLUMNS).translate(_MRKDWN)
        blocks.append(_slack_section(f"*{section.title}*\n```\n{_fitting(table)}```"))
    foot = "\n".join(line.translate(_MRKDWN) for line in notes(digest))
    blocks.append({"type": "context", "elements": [_slack_text(foot)]})
    return {"text": headline(digest).translate(_MRKDWN), "blocks": blocks}


def _slack_section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _slack_text(text)}


def _slack_text(text: str) -> dict[str, Any]:
    # Verbatim: names of tenants are not to become links or to call people.
    return {"type": "mrkdwn", "text": text[:_SLACK_TEXT], "verbatim": True}


def _fitting(table: str) -> str:
    """`table` without the lines for which there is no room."""
    kept = ""
    for line in table.splitlines(keepends=True):
        if len(kept) + len(line) > _SLACK_TEXT - 100:
            return f"{kept}…\n"
        kept += line
    return kept


def teams(digest: Digest, top: int) -> dict[str, Any]:
    """The digest for a webhook of Teams (Workflows): an adaptive card."""
    body = [
        _teams_text(headline(digest), size="Large", weight="Bolder"),
        *(_teams_text(line, spacing="Small") for line in summary(digest)),
    ]
    for section in sections(digest, top=top):
        body.append(_teams_text(section.title, weight="Bolder", spacing="Medium"))
        facts = [
            {"title": row.cells[0].translate(_MARKDOWN), "value": row.fact.translate(_MARKDOWN)}
            for row in section.rows
        ]
        body.append({"type": "FactSet", "facts": facts})
    body += [_teams_text(line, isSubtle=True, size="Small") for line in notes(digest)]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
    }
    kind = "application/vnd.microsoft.card.adaptive"
    attachment = {"contentType": kind, "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _teams_text(text: str, **look: object) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text.translate(_MARKDOWN), "wrap": True, **look}


def as_json(digest: Digest) -> dict[str, Any]:
    """The digest for other programs; money is texts of exact decimals, null where unknown."""
    since, until = digest.earlier()
    earlier = {"since": since.isoformat(), "until": until.isoformat()}
    return {
        "since": digest.since.isoformat(),
        "until": digest.until.isoformat(),
        "before": earlier if digest.compared else None,
        "currency": "USD",
        "place": digest.place,
        "rounded": digest.fleet,
        "headline": headline(digest),
        "total": _measures(digest.total, digest)
        | {"saved_usd": usd_text(digest.saved_nano_usd) or "0"},
        "by": {
            dimension: [{"name": spend.name} | _measures(spend, digest) for spend in spends]
            for dimension, spends in digest.groups.items()
        },
        "changed_most": [
            {"by": move.dimension, "name": move.spend.name} | _measures(move.spend, digest)
            for move in digest.moves
        ],
        "budgets": [
            {
                name: decimal_text(from_nano(value))
                if name in ("limit", "spent", "held", "projected") and value is not None
                else value
                for name, value in budget._asdict().items()
            }
            for budget in digest.budgets
        ],
        "budgets_error": digest.budgets_error,
        "unpriced": [
            {
                "provider": line.provider,
                "model": line.model,
                "reason": line.reason,
                "calls": line.calls,
            }
            for line in digest.unpriced
        ],
    }


def _measures(spend: Spend, digest: Digest) -> dict[str, Any]:
    return {
        "cost_usd": usd_text(spend.nano_usd),
        "before_usd": usd_text(spend.before_nano_usd) if digest.compared else None,
        "calls": spend.calls,
        "unpriced_calls": spend.unpriced_calls,
    }
