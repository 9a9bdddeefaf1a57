"""Draw every board from a Prometheus: `python -m pictures --prometheus URL --out FOLDER`.

Needs Chromium and pngquant (Debian: apt-get install chromium pngquant fonts-inter).
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pictures.answers import HOUR, Span, chosen_by_default, fill_in, get, series
from pictures.panels import WIDTH, View, height, page

BOARDS: Final = Path(__file__).parents[1] / "json"


def draw(prometheus: str, board: Mapping[str, Any], span: Span, typed: Mapping[str, str]) -> str:
    """The board as HTML, with what its queries find; `typed`: values of its variables."""
    chosen = {**chosen_by_default(prometheus, board, span), **typed}
    answers = {
        panel["id"]: series(prometheus, panel, span, chosen)
        for panel in board["panels"]
        if panel.get("targets")
    }
    view = View(span, _alerts(prometheus, board, span, chosen))
    return page(board, answers, view, chosen)


def _alerts(
    prometheus: str, board: Mapping[str, Any], span: Span, chosen: Mapping[str, str]
) -> list[int]:
    """When alerts began to fire, after the span did."""
    window = {"start": str(span.since), "end": str(span.until), "step": str(HOUR)}
    began = {
        row["values"][0][0]
        for marks in board.get("annotations", {}).get("list", ())
        for row in get(
            f"{prometheus}/api/v1/query_range",
            query=fill_in(marks["expr"], span, chosen),
            **window,
        )["result"]
    }
    return sorted(at for at in began if at > span.since)


def take(page_file: Path, picture: Path, lines: int) -> None:
    """A picture of a page, `lines` pixels high."""
    subprocess.run(  # noqa: S603 - nothing of it comes from outside
        [
            *("chromium", "--headless", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(["--no-sandbox"] if os.geteuid() == 0 else []),  # root has none, as in a container
            *("--force-device-scale-factor=1.5", f"--window-size={WIDTH},{lines}"),
            *(f"--screenshot={picture}", page_file.as_uri()),
        ],
        check=True,
        capture_output=True,
    )
    shrink = ["pngquant", "--force", "--strip", "--speed=1", "--nofs", "--output", str(picture)]
    subprocess.run([*shrink, "96", str(picture)], check=True)  # noqa: S603


def draw_all(
    prometheus: str, span: Span, folder: Path, typed: Mapping[str, str] | None = None
) -> None:
    """Pictures of all boards, over their own time ranges, but not longer than the span."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(BOARDS.glob("*.json")):
        board = json.loads(file.read_text(encoding="utf-8"))
        days = int(board["time"]["from"].removeprefix("now-").removesuffix("d"))
        since = max(span.since, span.until - days * 24 * HOUR)
        html = folder.resolve() / f"{file.stem}.html"
        drawn = draw(prometheus, board, Span(since, span.until, span.scrape), typed or {})
        html.write_text(drawn, encoding="utf-8")
        take(html, html.with_suffix(".png"), height(board))
        html.unlink()


def main() -> None:
    """Read what to draw from the command line."""
    arguments = argparse.ArgumentParser(prog="python -m pictures", description=__doc__)
    arguments.add_argument("--prometheus", required=True, metavar="URL")
    arguments.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    arguments.add_argument("--until", type=int, default=int(time.time()), metavar="UNIX_TIME")
    arguments.add_argument("--days", type=int, default=30, help="at most so many (30)")
    arguments.add_argument(
        "--scrape", type=int, default=15, metavar="SECONDS", help="Prometheus' interval (15)"
    )
    arguments.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a variable of the boards"
    )
    given = arguments.parse_args()
    span = Span(given.until - given.days * 24 * HOUR, given.until, given.scrape)
    draw_all(given.prometheus, span, given.out, dict(pair.split("=", 1) for pair in given.set))


if __name__ == "__main__":
    main()
