"""`spanledger report --prometheus`: the sums of nine synthetic days in a real Prometheus, over restarts and new series."""

import csv
import io
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from loopback import Loopback

COST = "spanledger_cost_USD_total"
# 28 and 29 October: a process restarts on the 29th, and a tenant appears.
SINCE, UNTIL = 1_761_609_600, 1_761_782_400
PERIOD = ("--since", "2025-10-28", "--until", "2025-10-29")


def fleet_report(spanledger: Any, url: str, *arguments: str) -> dict[str, Any]:
    code, out, errors = spanledger("report", "--prometheus", url, "--json", *arguments)
    assert (code, errors) == (0, "")
    return dict(json.loads(out))


def dollars(text: str | None) -> float:
    assert text is not None
    return float(text)


def close(amount: float) -> Any:
    return pytest.approx(amount, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["tenant", "feature", "provider", "model", "operation"])
def test_sums_are_those_of_the_data(spanledger, prometheus, days, name):
    said = fleet_report(spanledger, prometheus, "--by", name, *PERIOD)
    expected = days.total(COST, SINCE, UNTIL, by=name)
    assert {row[name] or "": dollars(row["cost_usd"]) for row in said["rows"]} == {
        key: close(amount) for key, amount in expected.items()
    }
    total = days.total(COST, SINCE, UNTIL)[""]
    assert dollars(said["total"]["cost_usd"]) == close(total)
    assert sum(Decimal(row["cost_usd"]) for row in said["rows"]) == pytest.approx(
        Decimal(said["total"]["cost_usd"]), abs=Decimal("1e-8")
    )
    costs = [dollars(row["cost_usd"]) for row in said["rows"]]
    assert costs == sorted(costs, reverse=True)


def test_every_measure_is_that_of_the_data(spanledger, prometheus, days):
    said = fleet_report(spanledger, prometheus, "--by", "tenant,feature", *PERIOD)

    def sums(metric: str, **labels: str) -> dict[tuple[str, str], float]:
        return {
            (tenant, feature): amount
            for tenant in ("", "acme", "globex", "other", "newcomer")
            for feature, amount in days.total(
                f"spanledger_{metric}_total", SINCE, UNTIL, by="feature", tenant=tenant, **labels
            ).items()
        }

    for measure, metric, labels in (
        ("calls", "calls", {}),
        ("uses", "feature_uses", {}),
        ("input_tokens", "tokens", {"type": "input"}),
        ("output_tokens", "tokens", {"type": "output"}),
        ("credits", "credits", {}),
        ("unpriced_calls", "unpriced_calls", {}),
        ("saved_usd", "saved_USD", {}),
    ):
        found = {
            (row["tenant"] or "", row["feature"] or ""): float(row[measure])
            for row in said["rows"]
            if float(row[measure])
        }
        expected = sums(metric, **labels)
        assert found == {key: close(amount) for key, amount in expected.items()}, measure
    assert {row["cache_read_tokens"] for row in said["rows"]} == {0}


def test_what_the_metrics_do_not_tell_is_unknown_not_zero(spanledger, prometheus, days):
    said = fleet_report(spanledger, prometheus, "--by", "provider", *PERIOD)
    for row in (said["total"], *said["rows"]):
        assert row["partial_calls"] is row["estimated_calls"] is row["uses"] is None
    assert said["rounded"] is True
    assert prometheus in said["place"]
    estimated = days.total("spanledger_estimated_cost_USD_total", SINCE, UNTIL)[""]
    assert dollars(said["estimated_usd"]) == close(estimated)


def test_by_day(spanledger, prometheus, days):
    said = fleet_report(spanledger, prometheus, "--by", "day,provider", "--since", "2025-10-27", "--until", "2025-10-30")  # fmt: skip
    begins = 1_761_523_200
    for number, day in enumerate(("2025-10-27", "2025-10-28", "2025-10-29", "2025-10-30")):
        since = begins + number * 86_400
        expected = days.total(COST, since, since + 86_400, by="provider")
        found = {r["provider"]: dollars(r["cost_usd"]) for r in said["rows"] if r["day"] == day}
        assert found == {key: close(amount) for key, amount in expected.items()}
    assert [row["day"] for row in said["rows"]] == sorted(row["day"] for row in said["rows"])
    total = days.total(COST, begins, begins + 4 * 86_400)[""]
    assert dollars(said["total"]["cost_usd"]) == close(total)


def test_days_are_this_machines(spanledger, prometheus, days, monkeypatch):
    """In New York, 2 November 2025 has 25 hours."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    said = fleet_report(spanledger, prometheus, "--by", "day", "--since", "2025-11-01T00:00", "--until", "2025-11-02T18:00")  # fmt: skip
    first, second, end = 1_761_969_600, 1_762_056_000, 1_762_124_400
    expected = [days.total(COST, first, second)[""], days.total(COST, second, end)[""]]
    assert [row["day"] for row in said["rows"]] == ["2025-11-01", "2025-11-02"]
    assert [dollars(row["cost_usd"]) for row in said["rows"]] == [close(a) for a in expected]


def test_what_was_saved_is_told_by_why(prometheus, days):
    from datetime import UTC, datetime

    from spanledger.cli.prometheus import Prometheus
    from spanledger.cli.report_prometheus import Fleet

    since, until = (datetime.fromtimestamp(at, UTC) for at in (SINCE, UNTIL))
    found = Fleet(Prometheus(prometheus)).saved(since, until)
    metric = "spanledger_saved_USD_total"
    by_reason = days.total(metric, SINCE, UNTIL, by="reason")
    degraded = days.total(metric, SINCE, UNTIL, by="model", reason="degrade")
    stale = degraded.pop("")  # of a data call, which has no model
    assert {why: nano_usd / 1e9 for why, nano_usd in found.items()} == {
        "cached": close(by_reason["cache"]),
        "deduplicated": close(by_reason["single_flight"]),
        "stale": close(stale),
        "cheaper_model": close(sum(degraded.values())),
    }


def test_the_table_says_that_it_is_the_fleets_and_rounded(spanledger, prometheus, monkeypatch):
    code, out, errors = spanledger("report", "--prometheus", prometheus, *PERIOD)
    assert (code, errors) == (0, "")
    assert f"the fleet's Prometheus at {prometheus}; amounts are rounded" in out
    assert "estimated" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = spanledger("report", "--prometheus", prometheus, *PERIOD)
    acme = next(line for line in out.splitlines() if line.startswith("acme"))
    assert acme.split()[-1].strip("▁▂▃▄▅▆▇█") == ""  # its course over the period
    assert len(acme.split()[-1]) == 8


def test_the_course_of_a_group_is_its_own(prometheus, days):
    from datetime import UTC, datetime

    from spanledger.cli.prometheus import Prometheus
    from spanledger.cli.report_prometheus import Fleet

    since, until = (datetime.fromtimestamp(at, UTC) for at in (SINCE, UNTIL))
    drawn = Fleet(Prometheus(prometheus)).series(("tenant",), since, until, 8)
    width = (UNTIL - SINCE) // 8
    for tenant in ("acme", "newcomer"):
        expected = [
            days.total(COST, SINCE + part * width, SINCE + (part + 1) * width, tenant=tenant).get(
                "", 0
            )
            for part in range(8)
        ]
        assert drawn[(tenant,)] == [close(amount) for amount in expected]
    assert (None,) in drawn
    # Parts that are no whole number of milliseconds: none is left out.
    ragged = Fleet(Prometheus(prometheus)).series(("tenant",), since, until, 11)
    assert min(ragged[("acme",)]) > 0
    total = days.total(COST, SINCE, UNTIL, tenant="acme")[""]
    assert sum(ragged[("acme",)]) == pytest.approx(total, rel=0.01)


def test_csv(spanledger, prometheus):
    code, out, _ = spanledger(
        "report", "--prometheus", prometheus, "--csv", "--by", "provider", *PERIOD
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert {row["provider"] for row in rows} == {"openai", "anthropic", "scavio"}
    assert {row["partial_calls"] for row in rows} == {""}


def test_a_time_without_calls(spanledger, prometheus):
    code, out, _ = spanledger(
        "report", "--prometheus", prometheus, "--since", "2024-01-01", "--until", "2024-01-02"
    )
    assert code == 0
    assert "knows of no paid call in that time" in out
    said = fleet_report(spanledger, prometheus, "--since", "2024-01-01", "--until", "2024-01-02")
    assert (said["total"]["cost_usd"], said["total"]["calls"], said["rows"]) == ("0", 0, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "user"), "users are no label of the metrics"),
        (("--by", "tenant,user"), "users are no label of the metrics"),
        (("--by", "outcome"), "outcome is a label of calls"),
        (("--by", "plan"), "plan is no label of the metrics"),
        (("--since", "all"), "Say since when"),
        (("--journal", "sqlite:///a.db"), "not allowed with"),
    ],
)
def test_what_cannot_be_asked_is_said(spanledger, arguments, words):
    code, out, errors = spanledger("report", "--prometheus", "http://127.0.0.1:9", *arguments)
    assert (code, out) == (2, "")
    assert words in errors


@pytest.mark.parametrize("url", ["localhost:9090", "ftp://host", "http://", "http://host:port", ""])
def test_what_is_no_address(spanledger, url):
    code, out, errors = spanledger("report", "--prometheus", url)
    assert (code, out) == (2, "")
    assert "--prometheus: is not an address" in errors


def test_a_prometheus_that_is_not_there(spanledger):
    code, out, errors = spanledger("report", "--prometheus", "http://bob:secret@127.0.0.1:9/prom/")
    assert (code, out) == (1, "")
    assert (
        errors
        == "spanledger: Prometheus at http://127.0.0.1:9/prom cannot be reached: Connection refused\n"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((422, {"status": "error", "error": "query timed out"}), "answered 422: query timed out"),
        ((502, b"<html>Bad Gateway</html>"), "answered 502\n"),
        ((200, b"<html>Welcome</html>"), "does not answer as Prometheus does"),
        ((200, {"status": "success"}), "does not answer as Prometheus does"),
    ],
)
def test_answers_that_are_none(spanledger, answer, words):
    with Loopback(lambda _: answer) as server:
        code, out, errors = spanledger("report", "--prometheus", server.url)
    assert (code, out) == (1, "")
    assert words in errors


EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}


@pytest.mark.parametrize("where", ["address", "netrc"])
def test_it_logs_in(spanledger, tmp_path, where):
    with Loopback(lambda _: (200, EMPTY)) as server:
        url = f"{server.url}/prom"
        if where == "address":
            url = url.replace("//", "//bob:p%40ss@")
        else:
            (tmp_path / ".netrc").write_text("machine 127.0.0.1 login bob password p@ss\n")
            (tmp_path / ".netrc").chmod(0o600)
        code, out, _ = spanledger("report", "--prometheus", url, "--json")
    assert code == 0
    assert "bob" not in out
    for request in server.requests:
        assert request.headers["authorization"] == "Basic Ym9iOnBAc3M="
        assert request.path.startswith("/prom/api/v1/query")


def test_a_group_without_a_price_has_no_cost(spanledger):
    """Values that are no numbers are passed over, and what is unknown is not 0."""

    def answer(request: Any) -> tuple[int, Any]:
        labels = {"tenant": "acme", "provider": "scavio", "operation": "google.search"}
        found = []
        for metric, value in (
            ("calls", "3"),
            ("unpriced_calls", "3"),
            ("credits", "7.5"),
            ("cost_USD", "NaN"),
        ):
            if f"spanledger_{metric}_total" in request.path:
                more = {"reason": "usd_per_credit"} if metric == "unpriced_calls" else {}
                found = [{"metric": labels | more, "value": [1.0, value]}]
        return 200, {"data": {"result": [] if "query_range" in request.path else found}}

    with Loopback(answer) as server:
        said = fleet_report(spanledger, server.url)
        _, out, _ = spanledger("report", "--prometheus", server.url)
    (row,) = said["rows"]
    assert (row["cost_usd"], row["unpriced_calls"], row["credits"]) == (None, 3, "7.5")
    assert "no price" in out
    assert "7.5 credits of scavio" in out
    assert "SPANLEDGER_USD_PER_CREDIT=scavio=0.005" in out
