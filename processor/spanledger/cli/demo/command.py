"""`spanledger demo`: what the whole thing looks like, in a few seconds and without an account."""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

KEYS: Final = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "SCAVIO_API_KEY")
SDKS: Final = ("openai", "anthropic", "scavio")
USD_PER_CREDIT: Final = "0.005"
PACE_S: Final = 0.005
LONGEST_S: Final = 120.0

NEXT: Final = """
Next, your own application:
  1. Install spanledger into its environment:
       pip install .                       (in this clone)
  2. Say on whose account it works:
       from spanledger.api import attribute, feature
       with attribute(tenant="acme"), feature("chat"): ...
  3. Start it, and see what it spent:
       spanledger run -- python app.py
       spanledger report --by tenant,feature
  Something is missing?  spanledger doctor
"""


class Subparsers(Protocol):
    """What `ArgumentParser.add_subparsers` returns; argparse has no public name for it."""

    def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser:  # noqa: A002 - argparse's name
        """Register a subcommand."""
        ...


def add(subparsers: Subparsers) -> None:
    """Register `spanledger demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="run a small SaaS application against a loopback server and report what it spent",
        description=(
            "Run a small SaaS application (three tenants, five features, the real SDKs) under "
            "opentelemetry-instrument, against a server on this machine that speaks the wire "
            "protocols of OpenAI, Anthropic and Scavio. Nothing leaves the machine."
        ),
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help=f"a few cheap calls of the real providers instead; needs {', '.join(KEYS)} (or some)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the journal and say where it is")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo. Returns the exit code: 2 where something it needs is missing."""
    missing = [name for name in SDKS if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"The demo uses the SDKs of its providers; missing: {', '.join(missing)}. "
            "Install them: pip install '.[demo]' (in this clone).",
            file=sys.stderr,
        )
        return 2
    launcher = find_launcher()
    if launcher is None:
        print(
            "opentelemetry-instrument was not found. Install it: pip install opentelemetry-distro",
            file=sys.stderr,
        )
        return 2
    directory = Path(tempfile.mkdtemp(prefix="spanledger-demo-"))
    try:
        return _live(launcher, directory) if arguments.live else _loopback(launcher, directory)
    finally:
        if arguments.keep:
            print(f"\nThe journal is kept: {journal_url(directory)}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def find_launcher() -> str | None:
    """The path of `opentelemetry-instrument`, of this Python's environment if it has one."""
    own = os.pathsep.join((str(Path(sys.executable).parent), sysconfig.get_path("scripts")))
    return shutil.which("opentelemetry-instrument", path=own) or shutil.which(
        "opentelemetry-instrument"
    )


def journal_url(directory: Path) -> str:
    """Where the demo's journal is."""
    return f"sqlite:///{directory / 'journal.db'}"


def environment(inherited: Mapping[str, str], directory: Path) -> dict[str, str]:
    """What the application is started with: the user's own settings of OTel and ours stay out."""
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(("OTEL_", "SPANLEDGER_"))
    }
    return {
        **kept,
        "OTEL_SERVICE_NAME": "scout",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "SPANLEDGER_JOURNAL": journal_url(directory),
        "SPANLEDGER_USD_PER_CREDIT": f"scavio={USD_PER_CREDIT}",
    }


def _loopback(launcher: str, directory: Path) -> int:
    # Here, not above: no other command pays for an HTTP server.
    from spanledger.cli.demo.server import ProviderServer  # noqa: PLC0415

    print(
        "A small SaaS application with three tenants runs under opentelemetry-instrument,\n"
        "against a server on this machine that speaks for OpenAI, Anthropic and Scavio.\n"
        f"A Scavio credit is priced at {USD_PER_CREDIT} USD: the demo's price, not yours.\n"
    )
    with ProviderServer(pace=PACE_S) as server:
        environ = {
            **environment(os.environ, directory),
            **dict.fromkeys(KEYS, "demo-key"),
            "DEMO_BASE_URL": server.url,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        # The SDKs would take these from the user's own set-up.
        for name in ("ANTHROPIC_AUTH_TOKEN", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
            environ.pop(name, None)
        code = _run_and_report(launcher, "spanledger.cli.demo.app", environ, directory)
        return code or _limits(launcher, environ, directory)


def _limits(launcher: str, environ: Mapping[str, str], directory: Path) -> int:
    """The second part: what is saved, and what happens at the end of a budget."""
    second = directory / "limits"
    second.mkdir()
    config = Path(__file__).with_name("limits.toml")
    environ = {
        **environ,
        "SPANLEDGER_CONFIG": str(config),
        "SPANLEDGER_JOURNAL": journal_url(second),
    }
    print("\nThe same company on a busy day, with budgets and a cache (limits.toml)\n")
    code = _run(launcher, "spanledger.cli.demo.limits", environ, second)
    if code:
        return code
    print("\n$ spanledger report --by tenant,feature", flush=True)
    code = _report(journal_url(second), "tenant,feature")
    print(NEXT, end="")
    return code


def _live(launcher: str, directory: Path) -> int:
    unset = [key for key in KEYS if not os.environ.get(key)]
    if len(unset) == len(KEYS):
        print(f"--live needs at least one of {', '.join(KEYS)}; none is set.", file=sys.stderr)
        return 2
    if unset:
        print(f"Without calls for want of a key: {', '.join(unset)}.")
    print(
        "A handful of cheap calls go to the real providers, on your account.\n"
        f"A Scavio credit is priced at {USD_PER_CREDIT} USD: the demo's price, not yours.\n"
    )
    environ = environment(os.environ, directory)
    code = _run_and_report(launcher, "spanledger.cli.demo.live", environ, directory)
    print(NEXT, end="")
    return code


def _run_and_report(launcher: str, module: str, environ: Mapping[str, str], directory: Path) -> int:
    """Run `module` under the launcher and print the report. Returns the first exit code not 0."""
    code = _run(launcher, module, environ, directory)
    for by in ("tenant,feature", "provider,model"):
        if not code:
            print(f"\n$ spanledger report --by {by}", flush=True)
            code = _report(journal_url(directory), by)
    return code


def _run(launcher: str, module: str, environ: Mapping[str, str], directory: Path) -> int:
    """Run `module` under the launcher. Returns its exit code."""
    command = [launcher, sys.executable, "-m", module]
    print(f"$ opentelemetry-instrument python -m {module}", flush=True)
    try:
        # Its own directory: a spanledger.toml of the user's must not change the demo.
        done = subprocess.run(  # noqa: S603 - nothing of it comes from outside
            command, env=environ, cwd=directory, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"The application did not end within {LONGEST_S:.0f} s.", file=sys.stderr)
        return 1
    if done.returncode:
        print(f"The application failed (exit code {done.returncode}).", file=sys.stderr)
        return done.returncode
    return 0


def _report(journal: str, by: str) -> int:
    # Here, not above: main imports this module.
    from spanledger.cli.main import main  # noqa: PLC0415

    return main(["report", "--journal", journal, "--by", by])
