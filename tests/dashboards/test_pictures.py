"""The pages that the pictures of the boards are taken of: complete, inside their panels, with the data's own amounts.

Chromium, which takes the picture, is not needed here.
"""

import html
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from picture_days import SCRAPE, TYPED, UNTIL, PictureDays, when
from pictures.__main__ import draw
from pictures.answers import Series, Span
from pictures.charts import DAY, states
from pictures.units import shown, threshold_colour, ticks
from stack_programs import DASHBOARDS, prometheus_with
from synthetic_days import START, STEP, STEPS

LOADED: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text())
    for path in sorted((DASHBOARDS / "grafana" / "json").glob("*.json"))
}
DOCS = DASHBOARDS.parent / "docs"
SPAN = Span(UNTIL - 9 * DAY, UNTIL, SCRAPE)
COST = "spanledger_cost_USD_total"


@pytest.fixture(scope="module")
def days() -> PictureDays:
    return PictureDays()


@pytest.fixture(scope="module")
def pages(days: PictureDays, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with prometheus_with(days.openmetrics(), tmp_path_factory.mktemp("prometheus")) as url:
        yield {name: draw(url, board, SPAN, TYPED) for name, board in LOADED.items()}


def sections(page: str) -> list[str]:
    return re.findall(r"<section .*?</section>", page, re.DOTALL)


def panel(page: str, title: str) -> str:
    return next(part for part in sections(page) if f"<h3>{html.escape(title)}</h3>" in part)


def step_at(day: int, hour: int = 0) -> int:
    """The first step from this hour of November on, in the times of the days that were moved."""
    step = next(
        s
        for s in range(STEPS)
        if when(s).month == 11 and when(s).day == day and when(s).hour >= hour
    )
    return START + step * STEP


@pytest.mark.parametrize("name", LOADED)
def test_every_panel_is_drawn_and_has_data(pages: dict[str, str], name: str) -> None:
    drawn = sections(pages[name])
    assert [html.unescape(re.search(r"<h3>(.*?)</h3>", part)[1]) for part in drawn] == [  # type: ignore[index]
        each["title"] for each in LOADED[name]["panels"] if each["type"] != "row"
    ]
    for part in drawn:
        assert not re.search(r"no data|\bnan\b|\binf\b|\$\{?\w*[a-z_]", part), part
        if 'class="text"' not in part:
            assert re.search(r"\d", re.sub(r"<[^>]*>", "", part)), part


@pytest.mark.parametrize("name", LOADED)
def test_charts_stay_inside_their_panels(pages: dict[str, str], name: str) -> None:
    for width, height, chart in re.findall(
        r'<svg width="(\d+)" height="(\d+)">(.*?)</svg>', pages[name]
    ):
        for x, y, w, h in re.findall(
            r'<rect x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', chart
        ):
            assert -0.1 <= float(x) <= float(x) + float(w) <= int(width) + 0.6
            assert -0.1 <= float(y) <= float(y) + float(h) <= int(height) + 0.6
        for points in re.findall(r'<polyline points="(.*?)"', chart):
            for point in points.split():
                x, y = map(float, point.split(","))
                assert -0.1 <= x <= int(width) + 0.6
                assert -0.1 <= y <= int(height) + 0.6


def test_amounts_are_those_of_the_data(days: PictureDays, pages: dict[str, str]) -> None:
    month = days.total(COST, step_at(1))[""]
    assert f"<b>${month:.2f}</b>" in panel(pages["spend"], "This month")
    today = days.total(COST, step_at(18))[""]
    assert f"<b>${today:.2f}</b>" in panel(pages["spend"], "Today")
    for tenant, spent in days.total(COST, step_at(9, 17), by="tenant").items():
        row = rf">{re.escape(tenant or '(none)')}<td class=\"number\">\${spent:.2f}"
        assert re.search(row, panel(pages["spend"], "Tenants"))


def test_the_tenants_page_is_of_the_first_tenant(pages: dict[str, str]) -> None:
    assert "<b>acme</b>" in pages["tenant"]
    assert "globex" not in pages["tenant"]


def test_a_name_has_one_colour_on_a_board(pages: dict[str, str]) -> None:
    for page in pages.values():
        colours: dict[str, set[str]] = {}
        for colour, name in re.findall(r'<s style="background:(#\w+)"></s>(.*?)<td>', page):
            colours.setdefault(name, set()).add(colour)
        assert all(len(used) == 1 for used in colours.values()), colours


@pytest.mark.parametrize("name", LOADED)
def test_every_board_has_its_picture_in_the_docs(name: str) -> None:
    assert f"](pictures/{name}.png)" in (DOCS / "dashboards.md").read_text()
    assert (DOCS / "pictures" / f"{name}.png").stat().st_size < 200_000


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0, "currencyUSD", None, "$0"),
        (1234.5, "currencyUSD", 2, "$1.23K"),
        (-0.0123, "currencyUSD", None, "-$0.0123"),
        (0.456, "percentunit", None, "45.6%"),
        (2, "percentunit", None, "200%"),
        (2381.4, "locale", 0, "2,381"),
        (1.6, "locale", 1, "1.6"),
        (20.0, "locale", 1, "20"),
        (1101.373, "prefix:$", 2, "$1101.37"),
        (-12.5, "prefix:$", 2, "$-12.50"),
        (-1e-9, "prefix:$", 2, "$0.00"),
        (0.25, "s", None, "250 ms"),
        (0, "s", None, "0 s"),
        (5400, "s", None, "1.50 hours"),
        (28.04, "d", 1, "4.0 weeks"),
        (0.3, "d", 1, "0.3 days"),
        (math.nan, "currencyUSD", 2, "-"),
    ],
)
def test_values_look_as_in_grafana(
    value: float, unit: str, decimals: int | None, text: str
) -> None:
    assert shown(value, unit, decimals) == text


@pytest.mark.parametrize(
    ("lowest", "highest", "unit", "expected"),
    [
        (0, 86, "currencyUSD", [0, 25, 50, 75]),
        (0, 1.6, "percentunit", [0, 0.5, 1, 1.5]),
        (-8, 20, "currencyUSD", [-10, 0, 10, 20]),
        (0, 4 * 604_800, "s", [0, 604_800, 2 * 604_800, 3 * 604_800, 4 * 604_800]),
        (0, 0, "locale", [0]),
        (0, 2, "locale", [0, 1, 2]),
    ],
)
def test_axes_have_round_values(
    lowest: float, highest: float, unit: str, expected: list[float]
) -> None:
    assert ticks(lowest, highest, unit) == pytest.approx(expected)


def test_a_threshold_colours_from_its_value_on() -> None:
    steps = {"steps": [{"value": None, "color": "green"}, {"value": 0.7, "color": "red"}]}
    assert threshold_colour(0.69, steps) != threshold_colour(0.7, steps)


def test_a_state_lasts_until_the_next() -> None:
    tiers = next(each for each in LOADED["budgets"]["panels"] if each["title"] == "Tiers")
    span = Span(0, 4 * DAY, SCRAPE)
    row = Series("global", {}, {0: 0, DAY: 0, 2 * DAY: 2, 3 * DAY: 2, 4 * DAY: 2})
    widths = re.findall(
        r'width="([\d.]+)" height="[\d.]+" fill="(#\w+)"', states(tiers, [row], span, (500, 200))
    )
    assert len(widths) == 2
    assert widths[0][0] == widths[1][0]
    assert widths[0][1] != widths[1][1]
