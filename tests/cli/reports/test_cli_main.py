"""The command as a whole."""

import re
import subprocess
import sys

import pytest

from spanledger.cli.amounts import decimal_text, places_for, rounded_usd, short_number, usd_text


def test_it_has_a_version_and_help(spanledger):
    code, out, _ = spanledger("--version")
    assert code == 0
    assert re.fullmatch(r"spanledger \d+\.\d+\.\d+\n", out)
    code, out, _ = spanledger("--help")
    assert code == 0
    for command in ("demo", "run", "report", "export", "budgets", "prices", "doctor"):
        assert command in out
    assert spanledger()[0] == 2
    assert spanledger("reprot")[0] == 2


def test_a_wrong_configuration_is_exit_code_2(spanledger, tmp_path):
    (tmp_path / "spanledger.toml").write_text("journal = 3\n")
    code, out, errors = spanledger("report")
    assert (code, out) == (2, "")
    assert "spanledger.toml: journal" in errors


def test_asking_for_help_loads_nothing_heavy():
    heavy = ("rich", "genai_prices", "opentelemetry.sdk", "redis", "spanledger.budget")
    code = (
        "import sys\nfrom spanledger.cli.main import _parser\n_parser()\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "0"),
        (1, "0.000000001"),
        (1_000_000_000, "1"),
        (100_000_000_000, "100"),
        (2**63 - 1, "9223372036.854775807"),
        (-1_500_000_000, "-1.5"),
        (None, None),
    ],
)
def test_usd_is_exact(nano_usd, text):
    assert usd_text(nano_usd) == text


def test_amounts_for_people():
    from decimal import Decimal

    assert decimal_text(Decimal("1E+3")) == "1000"
    assert decimal_text(Decimal("0.500")) == "0.5"
    assert rounded_usd(1_234_567_891_234, 2) == "1,234.57"
    assert rounded_usd(4_000, 4) == "<0.0001"
    assert rounded_usd(0, 4) == "0.0000"
    assert [places_for(n) for n in (10**13, 10**9, 10**6)] == [2, 4, 6]
    assert [short_number(n) for n in (999_999, 1_000_000, 10**10, Decimal("2.5"))] == [
        "999,999",
        "1.0M",
        "10.0G",
        "2.5",
    ]
