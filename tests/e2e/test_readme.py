"""README's examples are true: its Python runs, its TOML is a configuration, its commands exist."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback
from scavio._spec import ENDPOINTS

from spanledger.api import current_attribution
from spanledger.api.gate import install_gate
from spanledger.api.settings import TABLES, Section, Settings
from spanledger.budget import read_budget_config
from spanledger.cache.config import read_cache_config
from spanledger.cli.main import main
from spanledger.processor.startup import Engine

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_first_lines_of_code_attribute_a_call() -> None:
    seen = []
    code = blocks("python")[0].replace(
        "def answer(question): ...", "def answer(question): seen.append(current_attribution())"
    )
    # In the text the function stands below its use, as a reader meets it.
    use, definition = code.split("@feature", 1)
    head, body = use.split("\n\n", 1)
    exec(
        f"{head}\n\n@feature{definition}\n{body}",
        {"seen": seen, "current_attribution": current_attribution, "question": "?"},
    )
    (found,) = seen
    assert (found.tenant, found.user, found.feature) == ("acme", "u-17", "competitive-analysis")


def test_the_recipe_for_scavio_over_plain_http_is_metered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What of it is booked, test_edges_metered.py says of all metered functions."""
    (code,) = blocks("python", (ROOT / "docs" / "providers.md").read_text())
    said = {"organic_results": [], "credits_used": 2}
    monkeypatch.setenv("SCAVIO_API_KEY", "sk-secret")
    engine = Engine(Settings(root=Section({}, "test"), journal="memory://"), service="test")
    install_gate(engine.gate)
    with Loopback(lambda _: (200, said)) as server:
        made: dict[str, Any] = {}
        exec(code.replace("https://api.scavio.dev", server.url), made)
        assert made["google_search"]("otters") == said
    assert server.requests[0].path == ENDPOINTS["google_search"].path
    assert server.requests[0].body == {"query": "otters"}
    assert engine.flush()
    (row,) = engine.journal.rows()
    engine.close()
    assert (row.provider, row.operation, row.credits) == ("scavio", "google.search", 2)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_python_compiles_and_what_it_imports_is_there(path: Path) -> None:
    for code in blocks("python", path.read_text()):
        compile(code, str(path), "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT
        for line in code.splitlines():
            if re.match(r"from spanledger\S* import ", line.strip()):
                exec(line.strip(), {})


def test_the_toml_is_a_configuration() -> None:
    for text in blocks("toml"):
        tables = tomllib.loads(text)
        assert set(tables) <= set(TABLES)
        root = Section(tables, "README.md")
        read_budget_config(root)
        read_cache_config(root.section("cache"))


def commands() -> list[str]:
    text = "\n".join(block for path in DOCS for block in blocks("console", path.read_text()))
    return sorted({m[1] for m in re.finditer(r"^\$ spanledger ([a-z-]+)", text, re.MULTILINE)})


@pytest.mark.parametrize("command", commands())
def test_every_command_in_the_docs_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert command in capsys.readouterr().out


def test_the_make_targets_exist() -> None:
    for target in re.findall(r"^\$ make ([a-z]+)", README, re.MULTILINE):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_link_leads_somewhere() -> None:
    for path in [*DOCS, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
