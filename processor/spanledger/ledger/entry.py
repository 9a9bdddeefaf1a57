"""One entry of the books: what a paid call was, used, cost and came to."""

from typing import NamedTuple

from spanledger.api.values import Charge, Ending, PaidCall, Usage


class Entry(NamedTuple):
    """A paid call in the books. Corrections are new entries, never changes.

    key: the job's id, where the charge is for what a job has used since it was booked last. Such an
        entry is no call of its own: whoever created the job has made the call.
    """

    call: PaidCall
    usage: Usage
    ending: Ending
    charge: Charge
    key: str | None = None
