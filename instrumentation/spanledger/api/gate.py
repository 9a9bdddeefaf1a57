"""The seam: what instrumentation asks of whoever knows money, and the open gate that stands there
without one.

    answer = gate().admit(call)          # a Permit, or Wait; raises only BudgetError
    permit.settle(usage, ending)         # or permit.release(ending): exactly once
    gate().record(...)                   # what was never admitted: jobs, batches, foreign spans

Nothing in a gate blocks: `Wait` says how long, and the caller sleeps in its own way.
"""

import itertools
import os
from decimal import Decimal
from typing import Final, Literal, NamedTuple, Protocol

from spanledger.api.errors import BudgetError
from spanledger.api.values import Charge, Ending, ModelSwap, PaidCall, Tier, Usage

Decision = Literal["proceed", "cheaper_model", "stale"]


class Wait(NamedTuple):
    """Admission is paced: sleep `seconds`, then ask again with the same call and this `Wait` as
    `waited`.
    """

    seconds: float
    waited_s: float = 0.0


class Permit(Protocol):
    """Leave to make one paid call. It ends exactly once, by `settle` or `release`; a second ending
    does nothing.

    decision: proceed as asked, proceed with `swap`'s model, or serve the stale result that the call
        announced.
    """

    @property
    def decision(self) -> Decision: ...
    @property
    def swap(self) -> ModelSwap | None: ...
    @property
    def refusal(self) -> BudgetError | None:
        """What the user gets where the provider rejects `swap`'s model: never the dear one."""
        ...

    @property
    def tier(self) -> Tier | None: ...

    def settle(self, usage: Usage | None, ending: Ending) -> Charge:
        """Book the call. Without usage the provider may have billed it all the same: it is
        booked as estimated.
        """
        ...

    def release(self, ending: Ending) -> Charge:
        """Book the call as one that cost nothing: it was not sent, or the provider does not bill
        it.
        """
        ...


class Gate(Protocol):
    """Admits and books paid calls."""

    def admit(
        self, call: PaidCall, waited: Wait | None = None, *, nowait: bool = False
    ) -> Permit | Wait | None:
        """Ask leave for `call`.

        waited: the `Wait` that the caller slept for, where it asks again.
        nowait: the caller must not block (an event loop): None where the answer needs the network;
            it then asks again in a thread.

        Raises `BudgetThrottled` or `BudgetExceeded` where a budget says so, nothing else.
        """
        ...

    def record(
        self, call: PaidCall, usage: Usage, ending: Ending, key: str | None = None
    ) -> Charge:
        """Book what was never admitted, or was refused (outcomes `blocked` and `throttled` cost
        nothing).

        key: where given, unique per (provider, key): a job's id. Its usage is cumulative: each call
            books the difference to what was booked before under that key, in the name of whoever
            was booked first.
        """
        ...

    def credits_remaining(self, provider: str, balance: Decimal) -> None:
        """Note the balance that a provider reported."""
        ...


class _OpenPermit:
    @property
    def decision(self) -> Decision:
        return "proceed"

    @property
    def swap(self) -> ModelSwap | None:
        return None

    @property
    def refusal(self) -> BudgetError | None:
        return None

    @property
    def tier(self) -> Tier | None:
        return None

    def settle(self, usage: Usage | None, ending: Ending) -> Charge:
        return Charge("", None, usage.credits if usage else None, reason="no_processor")

    def release(self, ending: Ending) -> Charge:
        return Charge("", None, reason="no_processor")


class OpenGate:
    """The gate without a processor: admits all and charges nothing."""

    permit: Final = _OpenPermit()

    def admit(
        self, call: PaidCall, waited: Wait | None = None, *, nowait: bool = False
    ) -> Permit | Wait | None:
        return self.permit

    def record(
        self, call: PaidCall, usage: Usage, ending: Ending, key: str | None = None
    ) -> Charge:
        return self.permit.settle(usage, ending)

    def credits_remaining(self, provider: str, balance: Decimal) -> None:
        return None


_gate: Gate = OpenGate()


def gate() -> Gate:
    """The installed gate."""
    return _gate


def install_gate(new: Gate) -> Gate:
    """Put `new` in the place of the installed gate, which is returned."""
    global _gate
    old, _gate = _gate, new
    return old


_prefix = ""
_numbers = itertools.count(1)


def renew_charge_ids() -> None:
    """From here on charge ids begin with another prefix: those of one ledger's client are told from
    those of the next, and a child process does not repeat its parent's.
    """
    global _prefix  # noqa: PLW0603 - see above
    _prefix = os.urandom(10).hex()


renew_charge_ids()
os.register_at_fork(after_in_child=renew_charge_ids)


def new_charge_id() -> str:
    """A charge id: 80 random bits of this process and a running number, 32 hexadecimal digits.

    Not `random`, which an application may seed; not `uuid4`, which asks the kernel each time.
    """
    return f"{_prefix}{next(_numbers):012x}"
