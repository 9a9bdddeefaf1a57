"""What happens to Redis and to the way there, under load: no spend is lost, nobody waits for us, nobody fails."""

import contextlib
import itertools
import logging
import signal
import socket
import threading
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import Origin, Section
from spanledger.api.values import Attribution, PaidCall
from spanledger.budget.budgets import Budgets
from spanledger.budget.config import read_budget_config
from spanledger.budget.holds import Admission
from spanledger.ledger import producer
from spanledger.ledger import redis as redis_store
from spanledger.ledger import scope as client_scope
from spanledger.ledger.leases import LeasedLedger
from spanledger.ledger.protocol import Denied, LimitedScope, open_ledger

NewRedis = Callable[..., "object"]
Limited = Callable[..., LimitedScope]
LARGE = 10**12


@pytest.fixture(autouse=True)
def short_leases(monkeypatch: pytest.MonkeyPatch, strict_guard: None) -> None:
    """Leases of one second instead of five."""
    monkeypatch.setattr(redis_store, "_LEASE_MS", 1000)
    monkeypatch.setattr(client_scope, "USABLE_S", 0.8)
    monkeypatch.setattr(client_scope, "RENEW_S", 0.3)
    monkeypatch.setattr(producer, "_SLEEP_S", 0.3)


@pytest.fixture
def open_ledgers() -> Iterator[Callable[[str], LeasedLedger]]:
    with contextlib.ExitStack() as stack:

        def make(url: str) -> LeasedLedger:
            ledger = open_ledger(url)
            assert isinstance(ledger, LeasedLedger)
            stack.callback(ledger.close)
            return ledger

        yield make


class Load:
    """Threads that spend, all the time; keeps the truth beside."""

    def __init__(self, ledger: LeasedLedger, scopes: list[LimitedScope], count: int = 3) -> None:
        self.ledger, self.scopes = ledger, scopes
        self.spent = self.calls = self.denied = 0
        self.waits: list[float] = []
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._call()
                time.sleep(0.001)
        except BaseException as error:
            self.errors.append(error)
            raise

    def _call(self) -> None:
        before = time.monotonic()
        answer = self.ledger.reserve(self.scopes, 100)
        took = time.monotonic() - before
        with self._lock:
            self.waits.append(took)
            if isinstance(answer, Denied):
                self.denied += 1
                return
            self.calls += 1
            self.spent += 90
        answer.settle(90)
        for spent, held, _ in self.ledger.known([scope.key for scope in self.scopes]).values():
            assert spent >= 0
            assert held >= 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors


def nobody_waited(*loads: Load) -> None:
    """Calls wait for us 100 ms at most. On a machine whose cores others share, a thread may wait longer than that for its
    turn alone: so a call in a hundred may, but none for a second, as it would for a timeout of redis-py's or a retry."""
    waits = sorted(wait for load in loads for wait in load.waits)
    assert waits[int(0.99 * (len(waits) - 1))] < 0.1
    assert waits[-1] < 1


def eventually(holds: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def unverified(ledger: LeasedLedger, limited: LimitedScope) -> bool | None:
    """Whether the ledger trusts what it knows of a scope; None while the scope rests."""
    known = ledger.known([limited.key])
    return known[limited.key].unverified if known else None


def books_are(url: str, key: str, spent: int) -> None:
    """The store itself comes to `spent`, with nothing held."""
    store = redis_store.RedisStore(url)
    eventually(lambda: store.read([key])[0] == (spent, 0, False))
    store.close()


def test_redis_stands_still(new_redis: Callable, limited: Limited, open_ledgers: Callable) -> None:
    server = new_redis()
    ledger = open_ledgers(server.url)
    tenant = limited("tenant:acme", LARGE, on_outage="local", outage_allowance=LARGE)
    with Load(ledger, [tenant]) as load:
        time.sleep(0.2)
        server.send(signal.SIGSTOP)
        time.sleep(1.2)  # longer than the leases
        before = load.calls
        assert ledger.state([tenant.key])[tenant.key].unverified
        time.sleep(0.2)
        assert load.calls > before
        server.send(signal.SIGCONT)
        time.sleep(0.3)
    assert load.denied == 0
    nobody_waited(load)
    books_are(server.url, tenant.key, load.spent)
    eventually(lambda: ledger.state([tenant.key])[tenant.key] == (load.spent, 0, False))


@pytest.mark.slow
def test_redis_stands_still_for_12_seconds(
    new_redis: Callable,
    limited: Limited,
    open_ledgers: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With leases as they are, each policy at once, in two processes' ledgers."""
    monkeypatch.undo()
    server = new_redis()
    ledgers = [open_ledgers(server.url) for _ in range(2)]
    opened = [limited(f"opened:{i}", LARGE, on_outage="open") for i in range(5)]
    local = [limited("local", LARGE, on_outage="local", outage_allowance=50_000)]
    closed = [limited("closed", LARGE, on_outage="closed")]
    with contextlib.ExitStack() as stack:
        loads = {
            scopes[0].key: [stack.enter_context(Load(ledger, scopes)) for ledger in ledgers]
            for scopes in (opened, local, closed)
        }
        of_open, of_local, of_closed = loads.values()
        everybody = [load for some in loads.values() for load in some]
        time.sleep(0.5)
        server.send(signal.SIGSTOP)
        stopped_at = time.monotonic()
        eventually(lambda: all(load.denied for load in (*of_local, *of_closed)))
        time.sleep(0.1)
        before = [load.calls for load in everybody]
        time.sleep(stopped_at + 12 - time.monotonic())
        for load, calls in zip(everybody, before, strict=True):
            assert (load.calls > calls) is (load in of_open)
        server.send(signal.SIGCONT)
        before = [load.calls for load in everybody]
        for load, calls in zip(everybody, before, strict=True):
            eventually(lambda: load.calls > calls)  # noqa: B023
    assert not any(load.denied for load in of_open)
    nobody_waited(*everybody)
    for key, some in loads.items():
        books_are(server.url, key, sum(load.spent for load in some))


def test_redis_dies_and_comes_back_empty(
    new_redis: Callable, limited: Limited, open_ledgers: Callable
) -> None:
    server = new_redis()
    one, other, gone = (open_ledgers(server.url) for _ in range(3))
    tenant = limited("tenant:acme", LARGE, on_outage="local", outage_allowance=LARGE)
    gone.add([tenant], 12345)
    gone.close()
    with Load(one, [tenant]) as load, Load(other, [tenant]) as more:
        time.sleep(0.4)
        server.kill()
        time.sleep(0.3)
        server.start()
        time.sleep(0.6)
    assert load.denied == more.denied == 0
    nobody_waited(load, more)
    books_are(server.url, tenant.key, load.spent + more.spent + 12345)


def test_flushall(
    new_redis: Callable,
    limited: Limited,
    open_ledgers: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_scope, "IDLE_S", 0.2)
    server = new_redis()
    ledger, other = open_ledgers(server.url), open_ledgers(server.url)
    tenant = limited("tenant:acme", LARGE, on_outage="closed")
    resting = limited("tenant:resting", LARGE)
    other.add([resting], 777)
    eventually(lambda: not other.known([resting.key]))
    with Load(ledger, [tenant]) as load:
        time.sleep(0.6)
        server.command("FLUSHALL")
        # For one lease nothing new is granted: others may hold what the store forgot.
        eventually(lambda: unverified(ledger, tenant) is True)
        assert isinstance(ledger.reserve_nowait([tenant], 10**6), Denied)  # it need not ask
        eventually(lambda: unverified(ledger, tenant) is False)
        before = load.calls
        eventually(lambda: load.calls > before)
    assert load.denied > 0
    books_are(server.url, tenant.key, load.spent)
    books_are(server.url, resting.key, 777)


def test_nothing_is_granted_twice_after_flushall(
    new_redis: Callable, limited: Limited, open_ledgers: Callable
) -> None:
    """Processes that know the scope, a limit, and a store that forgets: the limit holds."""
    server = new_redis()
    ledgers = [open_ledgers(server.url) for _ in range(3)]
    tenant = limited("tenant:acme", 300_000)
    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(Load(ledger, [tenant], 2)) for ledger in ledgers]
        eventually(lambda: sum(load.spent for load in loads) > 30_000)
        server.command("FLUSHALL")
        eventually(lambda: sum(load.spent for load in loads) > 285_000, 30)
    assert sum(load.spent for load in loads) <= 300_000
    books_are(server.url, tenant.key, sum(load.spent for load in loads))


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        (["CLIENT", "PAUSE", 1100, "ALL"], ["CLIENT", "UNPAUSE"]),
        (["REPLICAOF", "127.0.0.1", 1], ["REPLICAOF", "NO", "ONE"]),
        (["CONFIG", "SET", "maxmemory", 1], ["CONFIG", "SET", "maxmemory", 0]),
    ],
    ids=["client pause", "read-only replica", "out of memory"],
)
def test_redis_refuses(
    new_redis: Callable,
    limited: Limited,
    open_ledgers: Callable,
    breaks: list[object],
    mends: list[object],
) -> None:
    server = new_redis()
    ledger = open_ledgers(server.url)
    tenant = limited("tenant:acme", LARGE, on_outage="local", outage_allowance=LARGE)
    with Load(ledger, [tenant]) as load:
        time.sleep(0.3)
        server.command(*breaks)
        eventually(lambda: unverified(ledger, tenant) is True)
        time.sleep(0.9)  # the lease ends
        before = load.calls
        time.sleep(0.1)
        assert load.calls > before
        if "PAUSE" not in breaks:
            server.command(*mends)
        eventually(lambda: unverified(ledger, tenant) is False)
    assert load.denied == 0
    nobody_waited(load)
    books_are(server.url, tenant.key, load.spent)


def test_redis_forgets_the_scripts(
    new_redis: Callable, limited: Limited, open_ledgers: Callable
) -> None:
    server = new_redis()
    ledger = open_ledgers(server.url)
    tenant = limited("tenant:acme", LARGE)
    with Load(ledger, [tenant]) as load:
        for _ in range(5):
            time.sleep(0.1)
            server.command("SCRIPT", "FLUSH")
    assert load.denied == 0
    books_are(server.url, tenant.key, load.spent)


class CuttingProxy:
    """Passes commands on to Redis and, in `cut` of four cases, closes the connection instead of bringing the reply."""

    def __init__(self, port: int) -> None:
        self.cut = 0
        self.cuts = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        turn = 0
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._port)) as server,
        ):
            while data := client.recv(1 << 20):
                server.sendall(data)
                reply = server.recv(1 << 20)
                turn += 1
                if turn % 4 < self.cut:
                    self.cuts += 1
                    return
                client.sendall(reply)

    def close(self) -> None:
        self._listener.close()


def test_replies_are_lost(shared_redis: object, limited: Limited, open_ledgers: Callable) -> None:
    """The command arrives, the reply does not; the same is said again, and counts once."""
    proxy = CuttingProxy(shared_redis.port)  # type: ignore[attr-defined]
    ledger, other = open_ledgers(proxy.url), open_ledgers(proxy.url)
    tenant = limited("tenant:acme", 400_000, on_outage="closed")
    with Load(ledger, [tenant]) as load, Load(other, [tenant]) as more:
        eventually(lambda: load.calls > 0 and more.calls > 0)
        proxy.cut = 1
        eventually(lambda: proxy.cuts >= 8)
        proxy.cut = 0
        eventually(lambda: load.spent + more.spent > 390_000, 30)
    assert load.spent + more.spent <= 400_000
    books_are(shared_redis.url, tenant.key, load.spent + more.spent)  # type: ignore[attr-defined]
    proxy.close()


class SlowProxy(CuttingProxy):
    """Brings each reply `delay_s` late."""

    delay_s = 0.0

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(("127.0.0.1", self._port)) as server,
        ):
            asking = threading.Thread(target=self._pass_on, args=(client, server), daemon=True)
            asking.start()
            while reply := server.recv(1 << 20):
                time.sleep(self.delay_s)
                client.sendall(reply)

    @staticmethod
    def _pass_on(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                server.sendall(data)


def test_a_slow_redis_holds_a_call_up_once_however_many_budgets_it_has(
    shared_redis: object, open_ledgers: Callable
) -> None:
    proxy = SlowProxy(shared_redis.port)  # type: ignore[attr-defined]
    kinds = itertools.product(("tenant", "user", "feature"), ("daily", "weekly", "monthly"))
    text = "".join(
        f'[[budgets]]\nscope = "{dimension}:*"\n{period}_usd = 100\nunknown_usd = {number}\n'
        for number, (dimension, period) in enumerate(kinds)
    )
    config = read_budget_config(Section(tomllib.loads(text), "spanledger.toml"))
    ledger = open_ledgers(proxy.url)
    budgets = Budgets(config, ledger)

    def takes() -> float:
        who = Attribution(*(uuid.uuid4().hex for _ in range(3)))
        call = PaidCall("openai", "chat", "gpt-5", who, time.time_ns())
        before = time.monotonic()
        admission = budgets.admit(call, 1000)
        after = time.monotonic()
        assert isinstance(admission, Admission)
        admission.hold.settle(1000)
        return after - before

    takes()  # the scripts are loaded
    proxy.delay_s = 0.03
    took = [takes() for _ in range(5)]
    proxy.close()
    assert max(took) < 0.1 + 0.1  # one after the other they would take 0.27


# -- policies ------------------------------------------------------------------------------------------------


def spends(ledger: LeasedLedger, scope: LimitedScope, estimate: int) -> int:
    """How much goes through, in calls of `estimate`, at most 1000 of them."""
    total = 0
    for _ in range(1000):
        answer = ledger.reserve([scope], estimate)
        if isinstance(answer, Denied):
            assert answer.unverified
            break
        answer.settle(estimate)
        total += estimate
    return total


def test_the_policies_without_redis(
    new_redis: Callable, limited: Limited, open_ledgers: Callable
) -> None:
    server = new_redis()
    server.kill()
    ledger = open_ledgers(server.url)  # an outage is no error
    local = limited("local", LARGE, on_outage="local", outage_allowance=1000)
    tight = limited("tight", 400, on_outage="local", outage_allowance=1000)
    opened = limited("opened", 400, on_outage="open")
    closed = limited("closed", LARGE, on_outage="closed")
    assert spends(ledger, local, 90) == 990
    assert spends(ledger, tight, 90) == 360  # not beyond the limit as far as it is known
    assert spends(ledger, opened, 90) == 90_000
    assert spends(ledger, closed, 90) == 0
    assert ledger.state([local.key, "other"]) == {
        local.key: (990, 0, True),
        "other": (0, 0, True),
    }
    server.start()
    books_are(server.url, opened.key, 90_000)
    # The next outage has an allowance of its own.
    eventually(lambda: unverified(ledger, local) is False)
    server.kill()
    eventually(lambda: unverified(ledger, local) is True)
    assert spends(ledger, local, 90) >= 990


def test_a_lease_is_good_for_a_while_without_redis(
    new_redis: Callable, limited: Limited, open_ledgers: Callable
) -> None:
    server = new_redis()
    ledger = open_ledgers(server.url)
    tenant = limited("tenant:acme", LARGE)

    def denied(estimate: int) -> bool:
        answer = ledger.reserve([tenant], estimate)
        if not isinstance(answer, Denied):
            answer.settle(estimate)
        return isinstance(answer, Denied)

    for _ in range(20):  # on a busy machine Redis may once be late
        eventually(lambda: not denied(10))
    server.kill()
    assert not denied(1)
    eventually(lambda: denied(1))


# -- start ---------------------------------------------------------------------------------------------------


def test_a_redis_that_evicts_is_refused(new_redis: Callable) -> None:
    server = new_redis("--maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigurationError, match=r"app\.toml: ledger: .*allkeys-lru.*noeviction"):
        open_ledger(server.url, Origin("app.toml", "ledger"))


def test_a_redis_that_was_away_at_the_start_is_looked_at_later(
    new_redis: Callable,
    limited: Limited,
    open_ledgers: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = new_redis("--maxmemory-policy", "allkeys-lru")
    server.kill()
    ledger = open_ledgers(server.url)
    ledger.add([limited("tenant:acme", LARGE)], 1)
    server.start()
    eventually(lambda: "allkeys-lru" in caplog.text)
    assert "maxmemory-policy noeviction" in caplog.text


def test_a_redis_that_does_not_say_what_it_evicts(
    new_redis: Callable, open_ledgers: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis()
    server.command(
        "ACL", "SETUSER", "app", "on", ">pass", "~spanledger:*", "+@all", "-info", "-config"
    )
    url = server.url.replace("redis://", "redis://app:pass@")
    with caplog.at_level(logging.WARNING):
        open_ledgers(url)
        open_ledgers(url)
    assert caplog.text.count("see that its maxmemory-policy is noeviction") == 1


def test_a_wrong_password(new_redis: Callable) -> None:
    server = new_redis()
    server.command("CONFIG", "SET", "requirepass", "right")
    with pytest.raises(ConfigurationError, match=r"app\.toml: ledger: .*refuses the log") as caught:
        open_ledger(server.url.replace("redis://", "redis://:wrong@"), Origin("app.toml", "ledger"))
    assert "wrong@" not in str(caught.value)


def test_a_url_that_redis_cannot_read() -> None:
    with pytest.raises(ConfigurationError, match=r"app\.toml: ledger: .* cannot be read") as caught:
        open_ledger("redis+cluster://:pass/word@127.0.0.1/0", Origin("app.toml", "ledger"))
    assert "pass/" not in str(caught.value)
    assert "'pass'" not in str(caught.value)


# -- cluster -------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(new_cluster: Callable) -> list:
    """Three nodes."""
    return new_cluster()[1]


def test_a_cluster_of_three(cluster: list, limited: Limited, open_ledgers: Callable) -> None:
    nodes = cluster
    url = nodes[0].url.replace("redis://", "redis+cluster://")
    ledger, other = open_ledgers(url), open_ledgers(url)
    scopes = [limited(f"feature:{i}", 100_000, on_outage="closed") for i in range(9)]
    with Load(ledger, scopes) as load, Load(other, scopes) as more:
        eventually(lambda: load.spent + more.spent > 95_000, 30)
    total = load.spent + more.spent
    assert total <= 100_000
    eventually(
        lambda: all(
            state == (total, 0, False)
            for state in open_ledgers(url).state([one.key for one in scopes]).values()
        )
    )
    with_keys = 0
    for node in nodes:
        with node.admin as admin:
            with_keys += admin.dbsize() > 0
    assert with_keys == 3
    nodes[2].kill()
    eventually(lambda: isinstance(ledger.reserve(scopes, 1), Denied))
    assert ledger.state([one.key for one in scopes])[scopes[0].key].unverified


def test_one_node_of_a_cluster_loses_its_memory(
    cluster: list, limited: Limited, open_ledgers: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_scope, "IDLE_S", 0.2)
    url = cluster[0].url.replace("redis://", "redis+cluster://")
    ledger = open_ledgers(url)
    resting = [limited(f"tenant:{i}", LARGE) for i in range(9)]
    ledger.add(resting, 777)
    keys = [one.key for one in resting]
    eventually(lambda: not ledger.known(keys))
    marks = ledger._store.identity()
    assert len(set(marks.split(" "))) == 3  # one of each node
    eventually(lambda: ledger._producer._identity == marks)
    for node in cluster:
        node.command("FLUSHALL")
        for key in keys:
            books_are(url, key, 777)
    cluster[2].kill()
    assert ledger._store.identity()  # the others are there
    for node in cluster[:2]:
        node.kill()
    assert ledger._store.identity() is None
