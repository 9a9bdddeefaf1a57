"""Processes that fork, spawn and end with streams open and rows pending; tracing that comes late or never."""

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

from books import Books
from openai_endpoint import CHAT_NANO_USD, MESSAGES, answering, chat, streaming
from opentelemetry import trace

from spanledger.instrumentation.spans import use_tracer_provider

HERE = Path(__file__).parent
CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
Rows = Counter[tuple[str, str, str]]


def act(directory: Path, *scene: str) -> tuple[Rows, list[tuple[int | None, str | None]], str]:
    """Play a scene: the rows it left by tenant, status and outcome, their money and trace, its stderr."""
    journal = directory / "journal.db"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SPANLEDGER_"))}
    done = subprocess.run(
        [sys.executable, str(HERE / "edges_application.py"), *scene],
        env={
            **env,
            "SPANLEDGER_JOURNAL": f"sqlite:///{journal}",
            "PYTHONPATH": str(HERE.parent / "support"),
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(journal) as connection:
        rows: Rows = Counter(
            connection.execute("SELECT tenant_id, cost_status, outcome FROM charges")
        )
        money = list(
            connection.execute("SELECT nano_usd, trace_id FROM charges ORDER BY timestamp_ns")
        )
    connection.close()
    return rows, money, done.stderr


def test_forks_with_streams_open_in_the_parent(tmp_path: Path) -> None:
    rows, _, said = act(tmp_path, "forked")
    assert rows == {
        ("parent", "exact", "ok"): 4,  # its own affair, whatever the child did with its copies
        ("child", "exact", "ok"): 2,
        ("child", "estimated", "ok"): 1,
        ("parent of fork", "exact", "ok"): 1,
        ("child of multiprocessing", "exact", "ok"): 1,
        ("child of multiprocessing", "estimated", "ok"): 2,
    }
    assert not said


def test_a_spawned_child_that_ends_with_streams_open(tmp_path: Path) -> None:
    rows, _, said = act(tmp_path, "children", "spawn")
    assert rows == {
        ("parent of spawn", "exact", "ok"): 1,
        ("child of multiprocessing", "exact", "ok"): 1,
        ("child of multiprocessing", "estimated", "ok"): 2,
    }
    assert not said


def test_an_interpreter_that_ends_with_everything_open(tmp_path: Path) -> None:
    rows, money, said = act(tmp_path, "exiting")
    assert rows[("pending", "exact", "ok")] == 50
    assert rows[("open", "estimated", "ok")] == 1
    assert rows[("async", "estimated", "ok")] == 1
    assert rows[("generator", "exact", "ok")] == 1
    assert rows[("thread", "exact", "ok")] >= 3
    assert "spanledger" not in said
    # And a tracer provider that is set after the start: no span before it, all of them from then on.
    assert sum(rows.values()) == 56 + rows[("thread", "exact", "ok")]
    (before, no_trace), (after, a_trace), (foreign, another) = money[:3]
    assert before == after == CHAT_NANO_USD
    assert foreign == 1000 * 150 + 100 * 600
    assert no_trace is None
    assert a_trace is not None
    assert another is not None
    assert {trace_id is not None for _, trace_id in money[3:]} == {True}


def test_no_tracer_provider_at_all(books: Books) -> None:
    use_tracer_provider(trace.NoOpTracerProvider())
    answering(chat()).client().chat.completions.create(**CHAT)
    assert len(list(streaming().client().chat.completions.create(**CHAT, stream=True))) == 3
    rows = books.rows()
    assert [(row.nano_usd, row.trace_id, row.span_id) for row in rows] == [
        (CHAT_NANO_USD, None, None)
    ] * 2
    assert not books.spans()
