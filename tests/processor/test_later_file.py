"""A configuration file that comes, or is corrected, after the start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time
from pathlib import Path
from spanledger.processor.startup import engine, pre_instrument, stop

path = Path(sys.argv[1]).absolute()
pre_instrument()
os.chdir("/")
print(len(engine().budgets.config.budgets), engine().settings.path)
path.parent.mkdir(exist_ok=True)
path.write_text('[[budgets]]\\nscope = "global"\\nmonthly_usd = 7\\n')
deadline = time.monotonic() + 10
while not engine().budgets.config.budgets and time.monotonic() < deadline:
    time.sleep(0.05)
print([str(budget.slot) for budget in engine().budgets.config.budgets])
stop()
"""


@pytest.mark.parametrize(
    ("place", "before", "named"),
    [
        ("spanledger.toml", None, False),
        ("etc/books.toml", None, True),
        ("spanledger.toml", "no toml", False),
        ("spanledger.toml", "[prices]\nsaurce = 1\n", False),
        ("etc/books.toml", "[[budgets]]\n", True),
    ],
)
def test_its_budgets_come_into_force(
    tmp_path: Path, place: str, before: str | None, named: bool
) -> None:
    path = tmp_path / place
    if before is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(before)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SPANLEDGER_"))}
    env |= {"SPANLEDGER_JOURNAL": f"sqlite:///{tmp_path / 'journal.db'}"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, place],
        env=env | ({"SPANLEDGER_CONFIG": place} if named else {}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ["0 None", "['global|month|usd']"]
