"""The ledger as budgets use it, over each of the stores."""

import gc
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import Origin
from spanledger.ledger import leases, producer, scope
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.protocol import (
    LARGEST_AMOUNT,
    Denied,
    LimitedScope,
    Reservation,
    open_ledger,
)
from spanledger.ledger.store import Grant, Report

NewLedger = Callable[[], LeasedLedger]
Limited = Callable[..., LimitedScope]


now = time.monotonic


def held(answer: Reservation | Denied | None) -> Reservation:
    assert answer is not None
    assert not isinstance(answer, Denied), answer
    return answer


def reserve(
    ledger: LeasedLedger, scopes: list[LimitedScope], estimate: int
) -> Reservation | Denied:
    """As the ledger's own, but patient: a busy machine is no outage."""
    answer = ledger.reserve(scopes, estimate)
    deadline = time.monotonic() + 10
    while isinstance(answer, Denied) and answer.unverified and time.monotonic() < deadline:
        time.sleep(0.01)
        answer = ledger.reserve(scopes, estimate)
    return answer


def eventually(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a quarter of a second otherwise takes a twentieth."""
    for module in (scope, producer, leases):
        monkeypatch.setattr(module, "REPORT_S", 0.05)


def test_spent_and_held_are_seen_by_all(new_ledger: NewLedger, limited: Limited) -> None:
    one, other = new_ledger(), new_ledger()
    tenant = limited("tenant:acme", 1000)
    first = held(reserve(one, [tenant], 100))
    held(reserve(one, [tenant], 50)).settle(30)
    assert one.known([tenant.key, "unused"]) == {tenant.key: (30, 100, False)}
    eventually(lambda: other.state([tenant.key])[tenant.key] == (30, 100, False))
    first.release()
    eventually(lambda: other.state([tenant.key])[tenant.key] == (30, 0, False))
    held(reserve(other, [tenant], 10)).settle(12)
    eventually(lambda: one.state([tenant.key])[tenant.key] == (42, 0, False))


def test_all_is_reported_within_a_moment(
    new_ledger: NewLedger, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held, settled, released and added, each by itself, and not only when a lease is renewed."""
    monkeypatch.setattr(scope, "RENEW_S", 1000.0)
    one, other = new_ledger(), new_ledger()
    tenant = limited("tenant:acme", 1000)

    def seen(spent: int, estimates: int) -> None:
        eventually(lambda: other.state([tenant.key])[tenant.key] == (spent, estimates, False), 3)

    held(reserve(one, [tenant], 600)).release()
    first, second = (held(reserve(one, [tenant], 100)) for _ in range(2))
    seen(0, 200)
    first.release()
    seen(0, 100)
    second.settle(40)
    seen(40, 0)
    one.add([tenant], 2)
    seen(42, 0)
    one.add([tenant], 2)
    seen(44, 0)


def test_a_key_that_nobody_used_spent_nothing(new_ledger: NewLedger) -> None:
    ledger = new_ledger()
    assert ledger.state(["new", "newer"]) == {"new": (0, 0, False), "newer": (0, 0, False)}
    assert ledger.known(["new"]) == {}
    assert list(ledger.counters()) == []


def test_the_second_ending_does_nothing(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    tenant = limited("tenant:acme", 1000)
    settled, released = (held(reserve(ledger, [tenant], 100)) for _ in range(2))
    settled.settle(70)
    settled.settle(70)
    settled.release()
    released.release()
    released.settle(100)
    assert ledger.known([tenant.key])[tenant.key] == (70, 0, False)


def test_a_negative_actual_counts_as_nothing(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    tenant = limited("tenant:acme", 1000)
    held(reserve(ledger, [tenant], 100)).settle(-5)
    ledger.add([tenant], -5)
    assert ledger.known([tenant.key])[tenant.key] == (0, 0, False)


def test_a_denied_call_holds_nothing_in_any_scope(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    roomy, tight = limited("global", 1000), limited("tenant:acme", 100)
    held(reserve(ledger, [roomy, tight], 80)).settle(80)
    denied = ledger.reserve([roomy, tight], 30)
    assert denied == Denied(tight.key, 80, 0, unverified=False)
    assert ledger.reserve([tight, roomy], 30) == denied
    assert ledger.known([roomy.key])[roomy.key] == (80, 0, False)
    held(reserve(ledger, [roomy, tight], 20)).settle(20)


def test_the_whole_limit_can_be_used_and_no_more(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    scopes = [limited(name, 1000) for name in ("a", "b", "c")]
    won = 0
    while not isinstance(answer := reserve(ledger, scopes, 7), Denied):
        answer.settle(7)
        won += 1
    assert won == 142


def test_of_many_threads_exactly_so_many_win(new_ledger: NewLedger, limited: Limited) -> None:
    ledgers = [new_ledger(), new_ledger()]
    scopes = [limited(name, 50) for name in ("global", "tenant:acme")]

    def call(i: int) -> bool:
        # A denial may be for what the other ledger leased and did not use: it comes back, ask again.
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            answer = ledgers[i % 2].reserve(scopes, 10)
            if not isinstance(answer, Denied):
                answer.settle(10)
                return True
            if answer.spent + answer.held == 50:
                return False
            time.sleep(0.02)
        return False

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(call, range(100))) == 5
    for ledger in ledgers:
        eventually(lambda: ledger.state([scopes[0].key])[scopes[0].key][:2] == (50, 0))  # noqa: B023


def test_what_is_added_is_never_refused_and_counts(new_ledger: NewLedger, limited: Limited) -> None:
    one, other = new_ledger(), new_ledger()
    tenant = limited("tenant:acme", 1000)
    held(reserve(one, [tenant], 100)).release()
    one.add([tenant], 1500)
    denied = one.reserve([tenant], 1)
    assert denied == Denied(tenant.key, 1500, 0, unverified=False)
    eventually(lambda: other.state([tenant.key])[tenant.key].spent == 1500)
    assert isinstance(other.reserve([tenant], 1), Denied)


def test_a_lease_for_degraded_calls_is_not_for_others(
    new_ledger: NewLedger, limited: Limited
) -> None:
    ledger = new_ledger()
    hard = limited("tenant:acme", 1000)
    ceiling = hard._replace(limit=2000)
    held(reserve(ledger, [ceiling], 900)).settle(900)  # with a lease beyond 1000
    assert isinstance(ledger.reserve([hard], 200), Denied)
    held(reserve(ledger, [ceiling], 200)).settle(200)
    assert isinstance(ledger.reserve([hard], 1), Denied)
    held(reserve(ledger, [ceiling], 200)).settle(200)


def test_both_limits_at_once(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    hard = limited("tenant:acme", 100)
    ceiling = hard._replace(limit=200)

    def spend(limit: LimitedScope) -> int:
        won = 0
        while not isinstance(answer := reserve(ledger, [limit], 1), Denied):
            answer.settle(1)
            won += 1
        return won

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(spend, limit) for limit in (hard, ceiling) * 4]
    full_price = sum(future.result() for future in asked[::2])
    assert full_price <= 100
    assert full_price + sum(future.result() for future in asked[1::2]) == 200


def test_a_limit_may_change_at_any_time(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    tenant = limited("tenant:acme", 10_000)
    held(reserve(ledger, [tenant], 100)).settle(100)
    assert isinstance(ledger.reserve([tenant._replace(limit=100)], 1), Denied)
    held(reserve(ledger, [tenant._replace(limit=101)], 1)).settle(1)


def test_no_limit_to_speak_of(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    observed = limited("global", LARGEST_AMOUNT)
    held(reserve(ledger, [observed], 10**15)).settle(10**15)
    assert ledger.known([observed.key])[observed.key].spent == 10**15


def test_forty_idle_producers_lock_nothing_up(new_ledger: NewLedger, limited: Limited) -> None:
    tenant = limited("tenant:acme", 1000)
    for _ in range(40):
        idle = new_ledger()
        for _ in range(4):  # it gets a lease of more than one call
            held(reserve(idle, [tenant], 1)).settle(1)
    busy = new_ledger()

    def spend() -> bool:
        while not isinstance(answer := reserve(busy, [tenant], 10), Denied):
            answer.settle(10)
        return busy.known([tenant.key])[tenant.key].spent == 1000

    eventually(spend)


def test_close_gives_the_lease_back(new_ledger: NewLedger, limited: Limited) -> None:
    one, other = new_ledger(), new_ledger()
    tenant = limited("tenant:acme", 1000)
    held(reserve(one, [tenant], 200)).settle(150)
    one.close()
    one.close()
    held(reserve(other, [tenant], 850)).settle(850)
    assert other.known([tenant.key])[tenant.key] == (1000, 0, False)


def test_after_close_the_policy_decides(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    tenant = limited("tenant:acme", 1000)
    ledger.close()
    denied = ledger.reserve([tenant], 1)
    assert isinstance(denied, Denied)
    assert denied.unverified
    held(reserve(ledger, [tenant._replace(on_outage="open")], 1)).settle(1)


def test_a_scope_at_rest_gives_all_back_and_comes_back(
    new_ledger: NewLedger, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "IDLE_S", 0.05)
    monkeypatch.setattr(scope, "RENEW_S", 0.05)
    one, other = new_ledger(), new_ledger()
    tenant = limited("tenant:acme", 1000)
    open_call = held(reserve(one, [tenant], 100))
    time.sleep(0.3)
    assert one.known([tenant.key])  # not while a call is in flight
    open_call.settle(60)
    eventually(lambda: not one.known([tenant.key]))
    assert dict(one.counters()) == {tenant.key: (60, 0, False)}
    held(reserve(other, [tenant], 940)).settle(440)
    eventually(lambda: new_ledger().state([tenant.key])[tenant.key].spent == 500)
    held(reserve(one, [tenant], 500)).settle(500)
    assert one.known([tenant.key])[tenant.key] == (1000, 0, False)


def test_a_scope_at_rest_whose_time_is_over_is_forgotten(
    new_ledger: NewLedger, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "IDLE_S", 0.05)
    monkeypatch.setattr(scope, "RENEW_S", 0.05)
    monkeypatch.setattr(producer, "_SWEEP_S", 0.05)
    monkeypatch.setattr(producer, "_SLEEP_S", 0.05)
    ledger = new_ledger()
    tenant = limited("tenant:acme", 1000)
    ledger.add([tenant, limited("tenant:old", 1000)._replace(expires_s=1000.0)], 1)
    eventually(lambda: not ledger.known([tenant.key]))
    eventually(lambda: dict(ledger.counters()) == {tenant.key: (1, 0, False)})


def test_how_many_spend_from_a_scope(new_ledger: NewLedger, limited: Limited) -> None:
    ledgers = [new_ledger() for _ in range(3)]
    tenant = limited("tenant:acme", 1000)
    assert ledgers[0].producers(tenant.key) == 1
    calls = [held(reserve(ledger, [tenant], 1)) for ledger in ledgers]
    for ledger in ledgers:
        eventually(lambda: ledger.producers(tenant.key) == 3)  # noqa: B023
    for call in calls:
        call.release()


def test_nowait_never_asks_the_store(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    tenant = limited("tenant:acme", 1000)
    answer = ledger.reserve_nowait([tenant], 10)
    assert (answer is None) == (not ledger._store.instant)  # memory needs no network
    for _ in range(4):
        held(reserve(ledger, [tenant], 10)).settle(10)
    held(ledger.reserve_nowait([tenant], 10)).settle(10)  # there is a lease by now
    assert isinstance(ledger.reserve([tenant], 990), Denied)
    assert isinstance(ledger.reserve_nowait([tenant], 990), Denied)  # a moment ago


def test_a_denial_is_not_asked_again_for_a_moment(
    new_ledger: NewLedger, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = new_ledger()
    tenant = limited("tenant:acme", 100)
    held(reserve(ledger, [tenant], 100)).settle(100)
    asked = []
    sync = ledger._store.sync
    monkeypatch.setattr(
        ledger._store, "sync", lambda reports: asked.extend(reports) or sync(reports)
    )
    for _ in range(1000):
        assert isinstance(ledger.reserve([tenant], 10), Denied)
    assert len(asked) <= 20


def test_a_finalizer_may_end_a_call_anywhere(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    tenant = limited("tenant:acme", 10**9)
    held(reserve(ledger, [tenant], 10)).release()

    class Dropped:
        def __init__(self) -> None:
            self.me = self
            self.call = held(reserve(ledger, [tenant], 10))

        def __del__(self) -> None:
            self.call.settle(1)

    thresholds = gc.get_threshold()
    gc.freeze()  # what other tests left behind need not be looked at
    gc.set_threshold(1)  # collect at every opportunity, also inside of the ledger
    try:
        for _ in range(300):
            Dropped()
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    gc.collect()
    with ledger._producer.lock:  # as where the collector runs while the lock is held
        held(reserve(ledger, [tenant], 10)).settle(1)
    assert ledger.known([tenant.key])[tenant.key] == (301, 0, False)


def test_a_lease_is_renewed_before_it_ends(
    new_ledger: NewLedger, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "RENEW_S", 0.2)
    ledger = new_ledger()
    tenant = limited("tenant:acme", 1000)
    call = held(reserve(ledger, [tenant], 10))
    used = ledger._producer.scopes[tenant.key]
    before = used.until
    eventually(lambda: used.until > before + 0.5)
    call.release()


def test_a_lease_that_runs_low_is_topped_up_before_anybody_waits(
    new_ledger: NewLedger, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (scope, producer):
        monkeypatch.setattr(module, "REPORT_S", 1000.0)  # nothing else renews it
    monkeypatch.setattr(scope, "RENEW_S", 1000.0)
    ledger = new_ledger()
    tenant = limited("tenant:acme", 10**9)
    reports: list[Report] = []
    sync = ledger._store.sync
    monkeypatch.setattr(ledger._store, "sync", lambda asked: reports.extend(asked) or sync(asked))

    def topped_up() -> bool:
        held(reserve(ledger, [tenant], 10)).settle(10)
        return any(report.want and not report.need for report in reports)

    eventually(topped_up)


def test_threads_that_come_and_go(new_ledger: NewLedger, limited: Limited) -> None:
    ledger = new_ledger()
    scopes = [limited(f"feature:{i}", 10**6) for i in range(5)]

    def spend() -> None:
        for _ in range(50):
            held(reserve(ledger, scopes, 3)).settle(2)

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in scopes:
        assert ledger.known([one.key])[one.key] == (800, 0, False)


def test_leases_of_several_reservations_come_together(
    new_ledger: NewLedger, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = new_ledger()
    batches: list[int] = []
    sync = ledger._store.sync

    def counted(reports: Sequence[Report]) -> Sequence[Grant | None]:
        batches.append(sum(report.need > 0 for report in reports))
        return sync(reports)

    monkeypatch.setattr(ledger._store, "sync", counted)

    def together() -> bool:
        scopes = [limited(f"feature:{uuid.uuid4().hex}", 100) for _ in range(3)]
        batches.clear()
        ledger.prepare([([one], number) for number, one in enumerate(scopes, 10)], now() + 5)
        for number, one in enumerate(scopes, 10):
            answer = ledger.reserve([one], number, deadline=now())
            if isinstance(answer, Denied):  # on a busy machine Redis may once be late
                return False
            answer.settle(number)
        return [needs for needs in batches if needs] == [3]

    eventually(together)
    # Where one of them is going to be denied, nobody need be asked.
    full = limited("tenant:full", 0)
    eventually(lambda: ledger.reserve([full], 1) == Denied(full.key, 0, 0, unverified=False))
    batches.clear()
    ledger.prepare([([full], 1), ([limited("tenant:new", 9)], 1)], now() + 5)
    assert not any(batches)


def test_a_call_that_has_no_time_left_is_decided_here(
    new_ledger: NewLedger, limited: Limited
) -> None:
    ledger = new_ledger()
    closed, opened = limited("closed", 100), limited("opened", 100, on_outage="open")
    denied = Denied(closed.key, 0, 0, unverified=True)
    assert ledger.reserve([closed], 10, deadline=now()) == denied
    held(ledger.reserve([opened], 10, deadline=now())).release()
    assert ledger.reachable


def test_a_wait_of_a_moment_says_nothing_of_the_store(
    new_ledger: NewLedger, limited: Limited
) -> None:
    ledger = new_ledger()
    if ledger._store.instant:
        pytest.skip("memory has nothing to wait for")
    go_on, sync = threading.Event(), ledger._store.sync

    def slow(reports: Sequence[Report]) -> Sequence[Grant | None]:
        go_on.wait(5)
        return sync(reports)

    ledger._store.sync = slow  # type: ignore[method-assign]
    tenant = limited("tenant:acme", 100)
    denied = Denied(tenant.key, 0, 0, unverified=True)
    assert ledger.reserve([tenant], 10, deadline=now() + 0.01) == denied
    assert ledger.reachable
    go_on.set()
    held(reserve(ledger, [tenant], 10)).release()


def test_the_wait_is_bounded(new_ledger: NewLedger, limited: Limited) -> None:
    assert leases.PATIENCE_S <= 0.1
    ledger = new_ledger()
    tenant = limited("tenant:acme", 100)
    if ledger._store.instant:
        pytest.skip("memory has nothing to wait for")
    hang = threading.Event()
    sync = ledger._store.sync

    def hanging(reports: object) -> object:
        hang.wait(5)
        return sync(reports)  # type: ignore[arg-type]

    ledger._store.sync = hanging  # type: ignore[method-assign, assignment]
    started = time.monotonic()
    denied = ledger.reserve([tenant], 10)
    assert time.monotonic() - started < 1
    assert denied == Denied(tenant.key, 0, 0, unverified=True)
    assert isinstance(ledger.reserve_nowait([tenant], 10), Denied)  # nobody else waits
    hang.set()
    eventually(lambda: not isinstance(ledger.reserve([tenant], 10), Denied))


@pytest.mark.parametrize(
    "url", ["", "memory", "postgres://user:secret@host/db", "sqlite://", "sqlite:///", "redis:/x"]
)
def test_a_url_of_no_ledger(url: str) -> None:
    if not url:
        open_ledger(url).close()  # as None: memory
        return
    with pytest.raises(ConfigurationError, match=r"app\.toml: ledger: .*sqlite:///") as caught:
        open_ledger(url, Origin("app.toml", "ledger"))
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_opened(tmp_path: object) -> None:
    with pytest.raises(ConfigurationError, match=r"app\.toml: ledger: .* cannot be opened"):
        open_ledger(f"sqlite:///{tmp_path}", Origin("app.toml", "ledger"))
