"""Jobs that state their usage cumulatively: what is new of it is given out once."""

import contextlib
import sqlite3
import threading
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanledger.api import guard
from spanledger.api.values import Attribution, Usage
from spanledger.ledger.journal import open_journal

ACME = Attribution("acme", "u1", "crawl", "use", {"plan": "pro"})


def test_the_first_statement_is_new_as_a_whole_and_later_ones_in_part(journal):
    part = Usage({"input_tokens": 5}, model="m")
    usage = Usage(
        {"input_tokens": 10, "web_searches": 1},
        Decimal("1.5"),
        Decimal("0.2"),
        "m",
        {"processing": "batch"},
        parts=(part,),
    )
    assert journal.job_difference("p", "job", usage, ACME) == (usage, ACME)
    more = usage._replace(
        units={"input_tokens": 25, "output_tokens": 3},
        credits=Decimal(4),
        reported_cost=Decimal("0.3"),
    )
    new, attribution = journal.job_difference("p", "job", more, Attribution("other"))
    assert new == more._replace(
        units={"input_tokens": 15, "output_tokens": 3},
        credits=Decimal("2.5"),
        reported_cost=Decimal("0.1"),
        parts=(),
    )
    assert attribution == ACME


def test_nothing_is_negative_and_an_amount_that_was_not_known_counts_when_it_is(journal):
    journal.job_difference("p", "job", Usage({"input_tokens": 10}, Decimal(5)), ACME)
    new, _ = journal.job_difference("p", "job", Usage({"input_tokens": 4}, Decimal(1)), ACME)
    assert (dict(new.units), new.credits, new.reported_cost) == ({}, Decimal(0), None)
    new, _ = journal.job_difference("p", "job", Usage(reported_cost=Decimal(2)), ACME)
    assert (new.credits, new.reported_cost) == (None, Decimal(2))
    new, _ = journal.job_difference("p", "job", Usage({"input_tokens": 11}, Decimal(5)), ACME)
    assert (dict(new.units), new.credits) == ({"input_tokens": 1}, Decimal(0))


def test_jobs_are_told_apart_by_provider_and_key(journal):
    for provider, key in (("p", "a"), ("p", "b"), ("q", "a")):
        new, _ = journal.job_difference(provider, key, Usage(credits=Decimal(3)), ACME)
        assert new.credits == 3


def test_it_is_remembered_by_the_file(url):
    for credits_, new_credits in ((3, 3), (3, 0), (5, 2)):
        journal = open_journal(url, service="shop")
        new, who = journal.job_difference("p", "a", Usage(credits=Decimal(credits_)), ACME)
        assert (new.credits, who) == (new_credits, ACME)
        journal.close()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.booleans(), st.decimals("0", "1000", places=3)), min_size=1))
def test_whoever_reports_in_whatever_order_each_credit_is_booked_once(tmp_path_factory, reports):
    url = f"sqlite:///{tmp_path_factory.mktemp('jobs')}/j.db"
    journals = {side: open_journal(url, service="shop") for side in (True, False)}
    booked = Decimal(0)
    for side, credits_ in reports:
        new, _ = journals[side].job_difference("p", "j", Usage(credits=credits_), ACME)
        assert new.credits is not None
        assert new.credits >= 0
        booked += new.credits
    assert booked == max(credits_ for _, credits_ in reports)
    for journal in journals.values():
        journal.close()


def test_threads_share_it_even_while_the_file_is_held(journal, path):
    booked = []

    def report(start):
        for number in range(start, 200, 4):
            new, _ = journal.job_difference("p", "j", Usage({"input_tokens": number + 1}), ACME)
            booked.append(new.units.get("input_tokens", 0))

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        threads = [threading.Thread(target=report, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        other.execute("PRAGMA busy_timeout = 5000")
        other.execute("BEGIN IMMEDIATE")
        threading.Event().wait(0.2)
        other.execute("ROLLBACK")
        for thread in threads:
            thread.join()
    assert sum(booked) == 200


def test_where_the_file_does_not_answer_memory_stands_in_and_the_file_learns_later(
    journal, path, url
):
    journal.job_difference("p", "j", Usage(credits=Decimal(3)), ACME)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        new, who = journal.job_difference("p", "j", Usage(credits=Decimal(10)), Attribution())
        assert (new.credits, who) == (7, ACME)
        new, _ = journal.job_difference("p", "j", Usage(credits=Decimal(12)), Attribution())
        assert new.credits == 2
        other.execute("ROLLBACK")
    assert guard.internal_errors["journal.job"] == 2
    new, _ = journal.job_difference("p", "j", Usage(credits=Decimal(12)), Attribution())
    assert new.credits == 0
    another = open_journal(url, service="shop")
    new, who = another.job_difference("p", "j", Usage(credits=Decimal(20)), Attribution())
    assert (new.credits, who) == (8, ACME)
    another.close()


def test_it_waits_for_no_thread_of_ours_for_long(journal):
    journal.job_difference("p", "j", Usage(credits=Decimal(3)), ACME)
    busy, done = threading.Event(), threading.Event()

    def hold():
        with journal._writer.use():
            busy.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    busy.wait()
    new, _ = journal.job_difference("p", "j", Usage(credits=Decimal(10)), ACME)
    done.set()
    thread.join()
    assert new.credits == 7
    assert guard.internal_errors["journal.job"] == 1


def test_it_outlasts_a_full_disk(journal):
    with journal._writer.use() as connection:
        connection.execute("PRAGMA query_only = 1")
    for credits_, new_credits in ((3, 3), (5, 2), (5, 0)):
        new, _ = journal.job_difference("p", "j", Usage(credits=Decimal(credits_)), ACME)
        assert new.credits == new_credits
