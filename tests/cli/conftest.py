"""The command line, for all tests of commands."""

from collections.abc import Callable

import pytest

from spanledger.cli.main import main


@pytest.fixture
def spanledger(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command: exit code, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse's
            code = int(end.code or 0)
        out, errors = capsys.readouterr()
        return code, out, errors

    return run
