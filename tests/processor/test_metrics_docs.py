"""docs/attributes.md has every name that leaves the program."""

from pathlib import Path

import pytest

from spanledger.api import names

TEXT = (Path(__file__).parents[2] / "docs" / "attributes.md").read_text(encoding="utf-8")
NO_ATTRIBUTES = ("LABEL_", "SCOPE_", "OVERFLOW", "BAGGAGE_ALIASES")
NAMES = sorted(
    value
    for name, value in vars(names).items()
    if name.isupper() and not name.startswith(NO_ATTRIBUTES)
)
LABELS = sorted(value for name, value in vars(names).items() if name.startswith("LABEL_"))


@pytest.mark.parametrize("name", [*NAMES, *LABELS, names.OVERFLOW])
def test_is_documented(name: str) -> None:
    assert f"`{name}`" in TEXT
