"""The store's side of the leases, for one scope: the books of memory and SQLite. `sync.lua` is the
same for Redis.

All functions are pure but for the `Records` they are given: time comes in, in milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from spanledger.ledger.store import Grant, Report, Totals

LIVE: Final = 0
LEFT: Final = 1
"""The producer left: kept for a while, so that a late message of its does not count twice."""
REAPED: Final = 2
"""The producer fell silent: kept as long as the scope, for it may come back, or its journal."""

KEEP_LEFT_MS: Final = 15 * 60 * 1000
SHORT_MS: Final = 1000
SCAN_MS: Final = 1000


class Record(NamedTuple):
    """A producer in the books of a scope.

    cum: what it ever spent; for one that is gone, all that is in `retired` of it.
    cap, base: see `Grant`; cap of one that is gone: what it told that it had spent.
    deadline: when it is reaped unless it reports again, by the scope's clock; for one that left,
        when it is forgotten.
    """

    seq: int
    cum: int
    inflight: int
    cap: int
    base: int
    deadline: int
    state: int


@dataclass(slots=True)
class Head:
    """The books of a scope, without its producers.

    generation: when its memory began (always after every former generation), as a number.
    born: when its memory began, by the store's clock.
    old: retired in generations whose memory was lost, as the producers remember it.
    retired: retired in this generation.
    live, caps, held, producers: sums over the live producers of cum - base, cap - base and
        inflight, and their number.
    seen: when somebody last reported.
    clock: time passes by it while somebody reports. Silence of all is no proof of anybody's death:
        the store may have been away.
    short: until then, leases are recalled.
    scan: when somebody may next have to be reaped or forgotten.
    lost: 1 where a memory was lost before this one.
    """

    generation: int
    born: int
    old: int = 0
    retired: int = 0
    live: int = 0
    caps: int = 0
    held: int = 0
    producers: int = 0
    seen: int = 0
    clock: int = 0
    short: int = 0
    scan: int = 0
    lost: int = 0


class Records(Protocol):
    """The producers of a scope."""

    def get(self, producer: str) -> Record | None: ...
    def put(self, producer: str, record: Record) -> None: ...
    def drop(self, producer: str) -> None: ...
    def all(self) -> Sequence[tuple[str, Record]]: ...


def sync(
    head: Head | None, records: Records, report: Report, now: int, lease_ms: int
) -> tuple[Head, Grant]:
    """Book `report`; the head as it is afterwards, and the answer."""
    if head is None:
        generation = max(now, report.generation + 1)
        head = Head(generation, now, seen=now, clock=now, scan=now + SCAN_MS)
    if 0 < now - head.seen <= lease_ms // 2:
        head.clock += now - head.seen
    head.seen = now
    if report.generation and report.generation != head.generation:
        head.lost = 1
        head.old = max(head.old, report.retired)
    if now >= head.scan:
        _scan(head, records, now)
    record = records.get(report.producer)
    if record and report.seq <= record.seq:
        return head, _answer(head, record.base, record.cap, now, lease_ms, stale=True)
    if record is None:
        base = report.base
    elif record.state == LIVE:
        base = record.base
        _uncount(head, record)
    else:
        base = record.cum
    if report.final:
        total = _leave(head, records, report, base, now)
        return head, _answer(head, total, total, now, lease_ms)
    head.producers += 1
    cap = report.keep + _extra(head, report, base, now, lease_ms)
    head.live += report.cum - base
    head.caps += cap - base
    head.held += report.inflight
    head.scan = min(head.scan, now + max(lease_ms, SCAN_MS))
    deadline = head.clock + lease_ms
    records.put(
        report.producer, Record(report.seq, report.cum, report.inflight, cap, base, deadline, LIVE)
    )
    return head, _answer(head, base, cap, now, lease_ms)


def _extra(head: Head, report: Report, base: int, now: int, lease_ms: int) -> int:
    """What the producer gets beyond what it keeps; `head` holds its number, not its amounts."""
    if _recovering(head, now, lease_ms):
        return 0
    room = report.limit - head.old - head.retired - head.caps - (report.keep - base)
    # What the others hold beyond what they spent and have in flight.
    unused = head.caps - head.live - head.held
    if room < report.need and unused > 0:
        head.short = now + SHORT_MS
    if room <= 0 or room < report.least:
        return 0
    share = 0 if now < head.short else room // (2 * (head.producers + 1))
    return min(room, max(report.need, min(report.want, share)))


def _leave(head: Head, records: Records, report: Report, base: int, now: int) -> int:
    """Book a final report; all that the producer ever spent."""
    total = report.cum + report.inflight
    head.retired += total - base
    deadline = now + KEEP_LEFT_MS
    head.scan = min(head.scan, deadline)
    records.put(report.producer, Record(report.seq, total, 0, total, total, deadline, LEFT))
    return total


def _uncount(head: Head, record: Record) -> None:
    head.live -= record.cum - record.base
    head.caps -= record.cap - record.base
    head.held -= record.inflight
    head.producers -= 1


def _scan(head: Head, records: Records, now: int) -> None:
    """Reap the silent, forget those who left long ago, and say when to look again."""
    following = now + KEEP_LEFT_MS
    for producer, record in records.all():
        if record.state == REAPED:
            continue
        left_ms = record.deadline - (head.clock if record.state == LIVE else now)
        if left_ms > 0:
            following = min(following, now + left_ms)
        elif record.state == LEFT:
            records.drop(producer)
        else:
            _uncount(head, record)
            # The provider bills what was in flight, and nobody else will tell: the estimate is
            # counted.
            total = record.cum + record.inflight
            head.retired += total - record.base
            # What it told stays known as its cap: a journal that lost its last rows says less.
            records.put(producer, Record(record.seq, total, 0, record.cum, total, now, REAPED))
    head.scan = max(following, now + SCAN_MS)


def _recovering(head: Head, now: int, lease_ms: int) -> bool:
    return head.lost == 1 and 0 <= now - head.born < lease_ms


def _answer(
    head: Head, base: int, cap: int, now: int, lease_ms: int, *, stale: bool = False
) -> Grant:
    retired = head.old + head.retired
    return Grant(
        generation=head.generation,
        base=base,
        cap=cap,
        spent=retired + head.live,
        held=head.held,
        retired=retired,
        producers=head.producers,
        recovering=_recovering(head, now, lease_ms),
        short=now < head.short,
        stale=stale,
    )


def totals(head: Head | None, now: int, lease_ms: int) -> Totals:
    """The totals of a scope."""
    if head is None:
        return Totals(0, 0, recovering=False)
    return Totals(head.old + head.retired + head.live, head.held, _recovering(head, now, lease_ms))


def replay(head: Head | None, records: Records, producer: str, cum: int) -> bool:
    """Correct what a producer that is gone ever spent to `cum`, or to what it told itself where
    that is more; saying it twice is as good as once.
    """
    record = records.get(producer)
    if head is None or record is None or record.state == LIVE:
        return False
    cum = max(cum, record.cap)
    head.retired += cum - record.cum
    records.put(producer, record._replace(cum=cum, base=cum))
    return True
