"""Changes while calls run: a new configuration, limits set at run time, and the thread that sees them."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import redis

from spanledger.api import guard
from spanledger.api.errors import BudgetExceeded
from spanledger.budget.budgets import Budgets
from spanledger.budget.config import Slot
from spanledger.budget.events import BudgetEvent
from spanledger.budget.scopes import Scope
from spanledger.budget.shared import (
    MemoryShared,
    SharedBudgets,
    limit_of,
    open_shared,
    read_limits,
)
from spanledger.budget.watcher import Watcher
from spanledger.ledger.leases import LeasedLedger

from .conftest import USD, Clock, MakeBudgets, MakeCall, config_of

MONTH = '[[budgets]]\nscope = "tenant:*"\nmonthly_usd = 100\n'
LATE = "2026-11-29T00:00:00"
ACME = Slot(Scope(tenant="acme"), "month", "usd")

Spend = Callable[..., None]


# -- a new configuration -----------------------------------------------------------------------------------


def test_a_changed_limit_counts_at_once(
    make: MakeBudgets, call: MakeCall, spend: Spend, clock: Clock
) -> None:
    clock.set(LATE)
    events: list[BudgetEvent] = []
    budgets = make(MONTH, on_event=events.append)
    spend(budgets, 110)
    budgets.tick()
    with pytest.raises(BudgetExceeded):
        budgets.admit(call(), USD)
    budgets.reload(config_of(MONTH.replace("100", "150")))
    answer = budgets.admit(call(), USD)
    assert answer is not None
    # What is spent stays spent, and the new limit has its own warning.
    spend(budgets, 1)
    budgets.tick()
    assert [(e.tier, e.limit) for e in events] == [("hard", 100), ("warning", 150)]
    budgets.reload(config_of(MONTH.replace("100", "50")))
    with pytest.raises(BudgetExceeded):
        budgets.admit(call(), USD)


def test_a_raised_limit_warns_again(make: MakeBudgets, spend: Spend, clock: Clock) -> None:
    clock.set(LATE)
    events: list[BudgetEvent] = []
    budgets = make(MONTH, on_event=events.append)
    spend(budgets, 75)
    budgets.tick()
    budgets.reload(config_of(MONTH.replace("100", "105")))
    spend(budgets, 1)
    budgets.tick()
    assert [(e.tier, e.limit) for e in events] == [("warning", 100), ("warning", 105)]


def test_an_unchanged_budget_goes_on_as_it_was(
    make: MakeBudgets, spend: Spend, clock: Clock
) -> None:
    clock.set(LATE)
    events: list[BudgetEvent] = []
    budgets = make(MONTH, on_event=events.append, shared=_Forgetful())
    spend(budgets, 75)
    budgets.tick()
    budgets.reload(config_of(MONTH + '[[budgets]]\nscope = "global"\ndaily_usd = 1000\n'))
    spend(budgets, 1)
    budgets.tick()
    assert [event.scope for event in events] == ["tenant:acme"]
    assert {r.scope: r.spent for r in budgets.readings()} == {
        "tenant:acme": 76 * USD,
        "global": 1 * USD,
    }


class _Forgetful(MemoryShared):
    """Lets every process tell every event."""

    def claim(self, name: str, expires_s: float) -> bool:
        return True


def test_a_removed_budget_is_gone(make: MakeBudgets, call: MakeCall, spend: Spend) -> None:
    budgets = make(MONTH)
    spend(budgets, 200)
    budgets.reload(config_of(""))
    assert list(budgets.readings()) == []
    assert budgets.admit(call(), USD).tier is None  # type: ignore[union-attr]


def test_a_hold_outlives_the_configuration(make: MakeBudgets, call: MakeCall) -> None:
    budgets = make(MONTH)
    hold = budgets.admit(call(), USD).hold  # type: ignore[union-attr]
    budgets.reload(config_of(MONTH.replace("100", "50")))
    hold.settle(2 * USD)
    status = budgets.status(tenant="acme")
    assert (status.spent, status.held, status.limit) == (2, 0, 50)


def test_a_set_limit_stays_before_a_new_file(make: MakeBudgets) -> None:
    budgets = make(MONTH)
    budgets.set_limit(ACME, 7 * USD)
    budgets.reload(config_of(MONTH.replace("100", "50")))
    assert budgets.status(tenant="acme").limit == 7
    assert budgets.status(tenant="other").limit == 50
    budgets.set_limit(ACME, None)
    assert budgets.status(tenant="acme").limit == 50


def test_a_set_limit_shows_in_the_readings_without_a_call(make: MakeBudgets, spend: Spend) -> None:
    budgets = make(MONTH)
    spend(budgets, 40)
    budgets.set_limit(Slot(Scope(tenant="*"), "month", "usd"), 30 * USD)
    (reading,) = budgets.readings()
    assert (reading.scope, reading.limit, reading.spent, reading.tier) == (
        "tenant:acme",
        30 * USD,
        40 * USD,
        "hard",
    )


# -- the file ----------------------------------------------------------------------------------------------


def _write(path: Path, text: str) -> None:
    """A version that no clock is too coarse for."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_the_file_is_read_again_when_it_changes(
    make: MakeBudgets, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spanledger.toml"
    _write(path, MONTH)
    budgets = make(MONTH)
    watcher = Watcher(budgets, path)
    watcher.look()
    before = budgets.config
    watcher.look()
    assert budgets.config is before
    _write(path, MONTH.replace("100", "300"))
    watcher.look()
    assert budgets.status(tenant="acme").limit == 300
    # A wrong one keeps the old one and says so, once.
    _write(path, MONTH.replace("monthly", "monthy"))
    for _ in range(3):
        watcher.look()
    assert budgets.status(tenant="acme").limit == 300
    (warning,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert warning.getMessage() == (
        f"the former budgets stay in force: {path}: budgets[0].monthy_usd: is not a setting. "
        'Did you mean "monthly_usd"?'
    )
    _write(path, "no toml")
    watcher.look()
    path.unlink()
    watcher.look()
    assert budgets.status(tenant="acme").limit == 300
    assert "cannot be parsed" in caplog.records[-2].getMessage()
    assert "is not a file" in caplog.records[-1].getMessage()
    _write(path, MONTH.replace("100", "400"))
    watcher.look()
    assert budgets.status(tenant="acme").limit == 400


# -- what processes share ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("redis-server")
    assert program, "these tests need redis-server (Debian: apt-get install redis-server)"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        cwd=tmp_path_factory.mktemp("redis"),
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 10
    with redis.Redis(port=port) as client:
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.wait()


Open = Callable[[], SharedBudgets]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same place, as another process would."""
    if request.param == "memory":
        place = open_shared("memory://")
        yield lambda: place
    elif request.param == "sqlite":
        yield lambda: open_shared(f"sqlite:///{tmp_path / 'ledger.db'}")
    else:
        url = request.getfixturevalue("redis_url")
        yield lambda: open_shared(url)
        with redis.Redis.from_url(url) as client:
            client.flushall()


def test_limits_are_shared(opened: Open) -> None:
    one, other = opened(), opened()
    odd = Slot(Scope.of(tenant="a|b+feature:c", feature="ü *"), "day", "credits")
    assert read_limits(other) == {}
    one.set_limit(ACME, 5)
    one.set_limit(odd, 2**53 // 2)
    one.set_limit(ACME, 6)
    assert read_limits(other) == {ACME: 6, odd: 2**53 // 2}
    other.set_limit(odd, None)
    other.set_limit(odd, None)
    assert read_limits(one) == {ACME: 6}


def test_an_event_is_claimed_once(opened: Open) -> None:
    one, other = opened(), opened()
    later = time.time() + 1000
    assert one.claim("tenant:a|month|2026-11|warning", later)
    assert not other.claim("tenant:a|month|2026-11|warning", later)
    assert not one.claim("tenant:a|month|2026-11|warning", later)
    assert other.claim("tenant:a|month|2026-11|critical", later)


def test_a_claim_ends(opened: Open) -> None:
    soon = time.time() + 0.2
    assert opened().claim("event", soon)
    assert not opened().claim("event", soon)
    assert until(lambda: opened().claim("event", soon + 1000))
    assert time.time() >= soon


def test_scopes_in_use_are_listed(opened: Open) -> None:
    one, other = opened(), opened()
    now = time.time()
    one.note_used({"tenant:b|day|2026-11-03": now + 100, "tenant:a|day|2026-11-03": now + 100})
    other.note_used({"tenant:b|day|2026-11-03": now + 100, "tenant:a|day|2026-11-02": now - 1})
    expected = ["tenant:a|day|2026-11-03", "tenant:b|day|2026-11-03"] if one.shares else []
    assert list(other.used()) == expected


def test_a_redis_that_loses_its_memory_is_told_again(
    redis_url: str, make: MakeBudgets, caplog: pytest.LogCaptureFixture
) -> None:
    later = time.time() + 1000
    used = {"tenant:a|day|2026-11-03": later}, {"tenant:b|day|2026-11-03": later}
    places = [open_shared(redis_url) for _ in range(2)]
    one, other = (make(MONTH, shared=place) for place in places)
    beta = Slot(Scope(tenant="beta"), "day", "usd")
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        one.set_limit(ACME, 7 * USD)
        one.set_limit(beta, 3 * USD)
        for place, keys in zip(places, used, strict=True):
            place.note_used(keys)
        other.refresh()
        client.flushall()
        open_shared(redis_url).set_limit(beta, 4 * USD)  # by somebody who knows nothing yet
        for budgets in (one, other):
            budgets.refresh()
            assert {str(b.scope): b.limit for b in budgets.config.budgets} == {
                "tenant:*": 100 * USD,
                "tenant:acme": 7 * USD,
                "tenant:beta": 4 * USD,
            }
        newcomer = open_shared(redis_url)
        assert read_limits(newcomer) == {ACME: 7 * USD, beta: 4 * USD}
        assert list(newcomer.used()) == ["tenant:a|day|2026-11-03", "tenant:b|day|2026-11-03"]
        assert "lost the limits set at run time; the 2 that" in caplog.text
        caplog.clear()
        # What is taken back stays so.
        other.set_limit(ACME, None)
        for budgets in (one, other):
            budgets.refresh()
        assert read_limits(newcomer) == {beta: 4 * USD}
        assert not caplog.records
        client.flushall()


def test_a_limit_that_nobody_can_read(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(MemoryShared):
        def limits(self) -> dict[str, str]:
            return {"tenant:a|day|usd": "x", "nothing": "1", "global|day|usd": "-1", str(ACME): "3"}

    for _ in range(2):
        assert read_limits(Odd()) == {ACME: 3}
    assert len(caplog.records) == 3


def test_limit_of_an_amount() -> None:
    assert limit_of(Decimal("0.5")) == USD // 2


def test_a_place_that_cannot_be_reached(tmp_path: Path) -> None:
    nowhere = [
        open_shared("redis://user:secret@127.0.0.1:1/0"),
        open_shared(f"sqlite:///{tmp_path / 'missing' / 'ledger.db'}"),
    ]
    for shared in nowhere:
        with pytest.raises(OSError) as caught:
            shared.claim("event", time.time() + 10)
        assert "secret" not in str(caught.value)
    with pytest.raises(OSError):
        nowhere[0].limits()
    assert nowhere[1].limits() == {}


# -- the thread --------------------------------------------------------------------------------------------


def until(true: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def watch() -> Iterator[Callable[[Budgets], Watcher]]:
    watchers: list[Watcher] = []

    def watch(budgets: Budgets) -> Watcher:
        watchers.append(Watcher(budgets))
        watchers[-1].start()
        return watchers[-1]

    yield watch
    for watcher in watchers:
        watcher.close()


def test_a_limit_is_in_force_everywhere(
    make: MakeBudgets, opened: Open, watch: Callable[[Budgets], Watcher]
) -> None:
    one, other = make(MONTH, shared=opened()), make(MONTH, shared=opened())
    watch(other)
    one.set_limit(ACME, 7 * USD)
    assert one.status(tenant="acme").limit == 7
    assert until(lambda: other.status(tenant="acme").limit == 7)
    one.set_limit(ACME, None)
    assert until(lambda: other.status(tenant="acme").limit == 100)


def test_events_come_from_the_thread(
    make: MakeBudgets, spend: Spend, clock: Clock, watch: Callable[[Budgets], Watcher]
) -> None:
    clock.set(LATE)
    told: list[str] = []
    budgets = make(MONTH, on_event=lambda _: told.append(threading.current_thread().name))
    watch(budgets)
    spend(budgets, 75)
    assert until(lambda: told == ["spanledger-events"])


def test_close_tells_what_there_is(
    make: MakeBudgets, spend: Spend, clock: Clock, watch: Callable[[Budgets], Watcher]
) -> None:
    clock.set(LATE)
    told: list[BudgetEvent] = []
    budgets = make(MONTH, on_event=told.append)
    watcher = watch(budgets)
    spend(budgets, 75)
    watcher.close()
    assert len(told) == 1
    watcher.close()


def test_a_callback_that_takes_its_time_holds_nothing_up(
    make: MakeBudgets, spend: Spend, clock: Clock, watch: Callable[[Budgets], Watcher]
) -> None:
    clock.set(LATE)
    told: list[str] = []
    begun, over = threading.Event(), threading.Event()

    def slow(event: BudgetEvent) -> None:
        begun.set()
        assert over.wait(10)
        told.append(event.scope)

    shared = MemoryShared()
    budgets = make(MONTH, on_event=slow, shared=shared)
    watch(budgets)
    spend(budgets, 75, tenant="a")
    assert begun.wait(5)
    shared.set_limit(ACME, 7 * USD)
    assert until(lambda: budgets.config.budgets[-1].limit == 7 * USD)
    spend(budgets, 75, tenant="b")
    assert until(lambda: {r.scope: r.tier for r in budgets.readings()}["tenant:b"] == "warning")
    assert told == []
    over.set()
    assert until(lambda: told == ["tenant:a", "tenant:b"])


def test_close_waits_for_a_callback_and_tells_the_rest(
    make: MakeBudgets, spend: Spend, clock: Clock, watch: Callable[[Budgets], Watcher]
) -> None:
    clock.set(LATE)
    told: list[str] = []
    begun, closing = threading.Event(), threading.Event()

    def until_the_end(event: BudgetEvent) -> None:
        begun.set()
        assert closing.wait(10)
        told.append(event.scope)

    budgets = make(MONTH, on_event=until_the_end)
    watcher = watch(budgets)
    spend(budgets, 75, tenant="a")
    assert begun.wait(5)
    spend(budgets, 75, tenant="b")
    threading.Timer(0.1, closing.set).start()
    watcher.close()
    assert told == ["tenant:a", "tenant:b"]


def test_what_is_new_when_no_thread_can_be_started_is_told(tmp_path: Path) -> None:
    """As while the interpreter ends, from 3.12 on."""
    program = tmp_path / "ends.py"
    program.write_text(
        f"""
import atexit, threading
from budget.conftest import Clock, USD, config_of
from spanledger.budget.budgets import Budgets
from spanledger.budget.watcher import Watcher
from spanledger.ledger.protocol import open_ledger
from spanledger.api.values import Attribution, PaidCall

told, clock = threading.Event(), Clock()
budgets = Budgets(config_of({MONTH!r}), open_ledger(), clock=clock, on_event=lambda _: told.set())
watcher = Watcher(budgets)
watcher.start()

def end():
    budgets.record(PaidCall("openai", "chat", "m", Attribution("a"), clock()), 95 * USD)
    print(told.wait(5))

atexit.register(end)
"""
    )
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"


def test_a_shared_place_that_is_away_for_a_while(
    make: MakeBudgets, spend: Spend, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.set(LATE)

    class Away(MemoryShared):
        away = True

        def limits(self) -> dict[str, str]:
            if self.away:
                raise OSError("no route")
            return {str(ACME): str(7 * USD)}

        def claim(self, name: str, expires_s: float) -> bool:
            raise OSError("no route")

    shared = Away()
    told: list[BudgetEvent] = []
    budgets = make(MONTH, shared=shared, on_event=told.append)
    watcher = Watcher(budgets)
    spend(budgets, 75)
    watcher.look()
    watcher.look()
    # Events are told all the same.
    assert [event.limit for event in told] == [100]
    said = [r.getMessage() for r in caplog.records]
    assert len([text for text in said if "out of reach for now: no route" in text]) == 1
    shared.away = False
    watcher.look()
    assert budgets.status(tenant="acme").limit == 7


def test_a_child_has_a_thread_of_its_own(
    ledger: LeasedLedger, tmp_path: Path, clock: Clock, watch: Callable[[Budgets], Watcher]
) -> None:
    shared = open_shared(f"sqlite:///{tmp_path / 'ledger.db'}")
    told: list[BudgetEvent] = []
    budgets = Budgets(config_of(MONTH), ledger, clock=clock, shared=shared, on_event=told.append)
    watch(budgets)
    guard.reraise_internal_errors(False)
    child = os.fork()
    if child == 0:
        open_shared(f"sqlite:///{tmp_path / 'ledger.db'}").set_limit(ACME, 7 * USD)
        seen = until(lambda: budgets.config.budgets[-1].limit == 7 * USD)
        os._exit(0 if seen else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert until(lambda: budgets.config.budgets[-1].limit == 7 * USD)


def test_a_child_tells_of_its_own_while_its_parent_is_telling(
    make: MakeBudgets, spend: Spend, clock: Clock, watch: Callable[[Budgets], Watcher]
) -> None:
    clock.set(LATE)
    told: list[str] = []
    begun, over = threading.Event(), threading.Event()
    parent = os.getpid()

    def slow(event: BudgetEvent) -> None:
        begun.set()
        assert os.getpid() != parent or over.wait(10)
        told.append(event.scope)

    budgets = make(MONTH, on_event=slow)
    watch(budgets)
    spend(budgets, 75, tenant="a")
    assert begun.wait(5)
    guard.reraise_internal_errors(False)
    child = os.fork()
    if child == 0:
        spend(budgets, 75, tenant="b")
        os._exit(0 if until(lambda: told == ["tenant:b"]) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    over.set()
    assert until(lambda: told == ["tenant:a"])
