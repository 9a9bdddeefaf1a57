"""Write the dashboards of `boards/` to `json/`, for Grafana to load; see docs/dashboards.md.

pip install 'grafana-foundation-sdk==1769699379!11.6.0'
python dashboards/grafana/generate.py
"""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from boards import BOARDS


def rendered() -> dict[str, str]:
    """The JSON of each dashboard, by the name of its file."""
    return {
        f"{name}.json": json.dumps(make(), cls=JSONEncoder, indent=2) + "\n"
        for name, make in BOARDS.items()
    }


def main() -> None:
    """Write all of them."""
    folder = Path(__file__).parents[1] / "json"
    folder.mkdir(exist_ok=True)
    for name, text in rendered().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
