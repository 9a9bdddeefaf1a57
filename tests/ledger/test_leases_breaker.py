"""The breaker, by its clock."""

from spanledger.ledger.breaker import Breaker


def test_it_opens_at_the_first_failure_and_probes_ever_later() -> None:
    breaker = Breaker()
    assert not breaker.open
    assert breaker.wait_s(0) == 0
    waits = []
    now = 0.0
    for _ in range(8):
        breaker.failed(now)
        assert breaker.open
        waits.append(round(breaker.wait_s(now), 6))
        now += breaker.wait_s(now)
        assert breaker.wait_s(now) == 0
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_an_answer_closes_it_and_the_next_failure_starts_anew() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(0)
    breaker.succeeded()
    assert not breaker.open
    breaker.failed(10)
    assert round(breaker.wait_s(10), 6) == 0.05


def test_a_suspicion_opens_it_and_lets_the_prober_ask_at_once() -> None:
    breaker = Breaker()
    breaker.suspect()
    assert breaker.open
    assert breaker.wait_s(5) == 0
    breaker.succeeded()
    assert not breaker.open
