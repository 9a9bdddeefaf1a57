"""The client's side of one scope, by itself."""

from spanledger.ledger.protocol import LARGEST_AMOUNT, LimitedScope
from spanledger.ledger.scope import USABLE_S, Rested, Scope
from spanledger.ledger.store import Grant, Report

GRANT = Grant(
    generation=7,
    base=0,
    cap=0,
    spent=0,
    held=0,
    retired=0,
    producers=1,
    recovering=False,
    short=False,
    stale=False,
)


def new(rested: Rested | None = None) -> Scope:
    return Scope("tenant:acme", 2_000_000_000, 100.0, rested)


def asked(scope: Scope, *waiting: tuple[int, int]) -> Report:
    for estimate, limit in waiting:
        scope.wait(estimate, limit)
    return scope.report("p", 1, 100.0)


def leased(cap: int, limit: int = 1000) -> Scope:
    """A scope with a lease up to `cap` from second 100 on."""
    scope = new()
    scope.apply(asked(scope, (cap, limit)), GRANT._replace(cap=cap), 100.0, 100.0)
    return scope


def test_all_who_wait_are_asked_for_under_the_lowest_limit() -> None:
    report = asked(new(), (30, 2000), (10, 1000), (20, 2000))
    assert (report.limit, report.least, report.need) == (1000, 10, 60)
    assert asked(new(), (1, 2**60)).limit == LARGEST_AMOUNT


def test_a_report_that_nobody_waits_for_keeps_the_limit_of_the_lease() -> None:
    report = asked(leased(500, limit=800))
    assert (report.limit, report.need) == (800, 0)


def test_who_fits_by_now_need_not_ask() -> None:
    scope = leased(100)
    assert not scope.sated(101.0)  # nobody waits
    scope.wait(40, 1000)
    scope.wait(60, 1500)
    assert scope.sated(101.0)
    scope.wait(101, 1000)
    assert not scope.sated(101.0)


def test_who_has_a_lower_limit_or_comes_too_late_must_ask() -> None:
    scope = leased(100)
    scope.wait(40, 999)
    assert not scope.sated(101.0)
    scope = leased(100)
    scope.wait(40, 1000)
    assert not scope.sated(100.0 + USABLE_S)


def test_a_scope_that_rested_tells_what_it_was_told() -> None:
    report = asked(new(Rested(50, 400, 7, 460, 3, 2_000_000_000)), (5, 1000))
    assert (report.cum, report.keep, report.base) == (50, 50, 50)
    assert (report.retired, report.generation) == (400, 7)


def test_a_report_gives_up_what_it_does_not_keep_before_it_is_sent() -> None:
    scope = leased(100)
    scope.used = 40
    report = asked(scope, (500, 1000))
    assert report.keep == scope.cap == 40


def test_a_scope_in_use_keeps_a_part_of_its_lease_while_it_reports() -> None:
    scope = leased(100)
    scope.apply(asked(scope), GRANT._replace(cap=1000), 100.0, 100.0)
    scope.used = scope.cum = 300
    report = asked(scope)
    assert 300 < report.keep == scope.cap < 1000
    assert report.keep + report.want > 600
    # Not beyond the time of the lease.
    scope.used = scope.cum = 310
    late = scope.report("p", 2, 100.0 + USABLE_S)
    assert late.keep == 310


def test_a_stale_answer_is_no_lease() -> None:
    scope = new()
    scope.apply(asked(scope, (10, 1000)), GRANT._replace(cap=500, stale=True), 100.0, 100.0)
    assert scope.until == 0
    assert scope.dirty


def test_what_happened_meanwhile_is_reported_again() -> None:
    for cum, used in ((1, 1), (0, 5), (0, 0)):
        scope = new()
        report = asked(scope)
        scope.cum, scope.used = cum, used
        scope.apply(report, GRANT, 100.0, 100.0)
        assert scope.dirty == (used > 0)


def test_others_and_this_process_add_up() -> None:
    scope = new()
    scope.cum, scope.used = 30, 40
    scope.apply(asked(scope), GRANT._replace(cap=40, spent=230, held=15), 100.0, 100.0)
    assert scope.state(down=False) == (230, 15, False)
    scope.cum, scope.used = 35, 36
    assert scope.state(down=False) == (235, 6, False)


def test_an_allowance_is_for_one_outage_and_within_the_limit() -> None:
    scope = leased(0)
    scope.apply(asked(scope), GRANT._replace(spent=700, held=100), 100.0, 100.0)
    limited = LimitedScope(scope.key, 1000, 2e9, "local", 150)
    assert scope.allows(limited, 150)
    assert not scope.allows(limited, 151)
    scope.used = scope.cum = 100
    assert scope.allows(limited, 50)
    assert not scope.allows(limited, 51)
    scope.apply(asked(scope), GRANT._replace(cap=100, spent=800, held=100), 100.0, 100.0)
    assert scope.allows(limited, 100)
    assert not scope.allows(limited, 101)  # 700 + 100 of others, 100 here, and no more than 1000
    assert scope.allows(limited._replace(on_outage="open"), 10**9)
    assert not scope.allows(limited._replace(on_outage="closed"), 0)
