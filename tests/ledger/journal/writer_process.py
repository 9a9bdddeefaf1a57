"""A process that writes a journal, for the tests: writer_process.py URL WHAT [NUMBER]."""

import multiprocessing
import os
import sys
import time
from decimal import Decimal

from spanledger.api.gate import new_charge_id
from spanledger.api.values import Attribution, Charge, Ending, PaidCall, Usage
from spanledger.ledger import journal as journal_module
from spanledger.ledger.entry import Entry
from spanledger.ledger.journal import open_journal
from spanledger.ledger.recorder import Recorder

URL, WHAT, NUMBER = sys.argv[1], sys.argv[2], int((sys.argv[3:] or ["0"])[0])

PATH = URL.removeprefix("sqlite:///")


def entry(number: int) -> Entry:
    return Entry(
        PaidCall("openai", "chat", "gpt-4o", Attribution(f"p{os.getpid()}"), time.time_ns()),
        Usage({"input_tokens": number}),
        Ending("ok", 0.1),
        Charge(new_charge_id(), 1_000, None, "exact"),
    )


def recorder() -> Recorder:
    return Recorder(open_journal(URL, service="test"))


def steady() -> None:
    """Record for ever, and say each time which entry and when."""
    books = recorder()
    number = 0
    while True:
        number += 1
        books.record(entry(number))
        print(number, time.monotonic())
        time.sleep(0.002)


def pending() -> None:
    """Record, and exit with everything pending."""
    books = recorder()
    for number in range(NUMBER):
        books.record(entry(number))


def failing() -> None:
    pending()
    raise SystemExit("the application failed")


def shared() -> None:
    """Record, and book a job that other processes report as well, whose credits grow up to NUMBER."""
    journal_module._PATIENCE_S = 30  # on a machine that is short of processors too
    journal = open_journal(URL, service="test")
    books = Recorder(journal)
    booked = Decimal(0)
    for number in range(NUMBER):
        books.record(entry(number))
        if number % 50 == 49:
            usage = Usage(credits=Decimal(number + 1))
            new, _ = journal.job_difference("scavio", "job", usage, Attribution())
            booked += new.credits or 0
    assert books.flush(20)
    print(booked)


def forked() -> None:
    """Record, fork while that is pending, and record on both sides; each says what its sinks saw."""
    seen: list[Entry] = []
    books = Recorder(open_journal(URL, service="test"), sinks=(seen.extend,), interval_s=0.5)
    for number in range(10):
        books.record(entry(number))
    child = os.fork()
    if child == 0:
        print(
            "inherited", sum(PATH in os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(100))
        )
    for number in range(5 if child == 0 else 3):
        books.record(entry(number))
    if child:
        os.waitpid(child, 0)
    books.flush()
    print("child" if child == 0 else "parent", len(seen))


def _record_some(books: Recorder) -> None:
    for number in range(NUMBER):
        books.record(entry(number))


def children() -> None:
    """Record in children of multiprocessing, which end without `atexit`."""
    books = recorder()
    books.record(entry(0))
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=_record_some, args=(books,)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join()


def late() -> None:
    """Record while the interpreter exits, after the recorder was closed."""
    import atexit

    books: list[Recorder] = []
    atexit.register(lambda: books[0].record(entry(1)))
    books.append(recorder())
    books[0].record(entry(0))


if __name__ == "__main__":
    globals()[WHAT]()
