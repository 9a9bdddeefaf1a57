"""What a provider file says of a call: its request, and what was read from its result."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from opentelemetry.util.types import AttributeValue

from spanledger.api.values import EMPTY, Usage, count


class Request(NamedTuple):
    """What a provider file says of a call before it is sent.

    attributes: span attributes of this request besides those that the fields give.
    shape: which of the provider's response formats to read; the provider file's own word.
    swappable: another model could be asked instead, in the body of the request.
    ask_usage: whether usage of a stream may be asked for.
    spends: False where the call costs nothing itself, but its answer tells what something else cost
        (a job's poll) or what is left (a balance): it is not admitted and is no call in the books.
    known: usage that the request itself states: a floor, or all there is to know.
    content: what is asked, as JSON, for the data layer; None where a result is not to be shared.
    credits_unsaid: it may cost credits, and how many is said only afterwards.
    """

    provider: str
    operation: str
    model: str | None = None
    server_address: str | None = None
    server_port: int | None = None
    stream: bool = False
    max_output_tokens: int | None = None
    input_bytes: Callable[[], int] | None = None
    attributes: Mapping[str, AttributeValue] = EMPTY
    shape: str = ""
    ask_usage: bool = True
    spends: bool = True
    swappable: bool = False
    known: Usage | None = None
    content: Mapping[str, object] | None = None
    credits_unsaid: bool = False


class Reading(NamedTuple):
    """What a provider file reads from a result.

    usage: None where the provider did not say: the call is then booked as estimated.
    credits_remaining: the balance that the provider states.
    job: id of the job that the call made, or whose usage by now this is.
    """

    usage: Usage | None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    credits_remaining: Decimal | None = None
    job: str | None = None


NOTHING_READ: Final = Reading(None)


class Counts:
    """What a result states of its usage, amount by amount.

    units: what is an amount, for `Usage.units`.
    wrong: what is none, or is not there and ought to be, for `Usage.unpriced`.
    """

    __slots__ = ("units", "wrong")

    def __init__(self) -> None:
        self.units: dict[str, int] = {}
        self.wrong: list[str] = []

    def add(self, unit: str, stated: object, *, due: bool = False) -> None:
        """Add what is `stated` of `unit`. due: a result of this kind has to state it."""
        if stated is None:
            if due:
                self.wrong.append(f"missing:{unit}")
        elif (amount := count(stated)) is None:
            self.wrong.append(f"invalid:{unit}")
        elif amount or due:
            self.units[unit] = amount
