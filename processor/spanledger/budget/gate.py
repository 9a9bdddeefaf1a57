"""The gate: admits paid calls against the budgets, prices what they used, and writes it into the
books.
"""

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from spanledger.api.errors import BudgetError
from spanledger.api.gate import Decision, Permit, Wait, new_charge_id
from spanledger.api.guard import swallow
from spanledger.api.values import Attribution, Charge, Ending, ModelSwap, PaidCall, Tier, Usage
from spanledger.budget.amounts import to_nano
from spanledger.budget.budgets import Budgets
from spanledger.budget.holds import Admission, Pause
from spanledger.ledger.entry import Entry
from spanledger.ledger.recorder import Recorder
from spanledger.pricing.book import NO_PRICE_LIST, PriceBook
from spanledger.pricing.estimates import Estimates, fallback_usage

# Entered on every call: made once.
_PRICING: Final = swallow("pricing")
_HOLDING: Final = swallow("budgets")
_LEARNING: Final = swallow("learning")

JobDifference = Callable[[str, str, Usage, Attribution], tuple[Usage, Attribution]]


class LedgerGate:
    """The gate of a process.

    job_difference: (provider, job id, cumulative usage, attribution) -> what is new of it, and in
        whose name.
    on_credits: (provider, balance) as a provider reports it.
    """

    def __init__(
        self,
        book: PriceBook,
        estimates: Estimates,
        recorder: Recorder,
        budgets: Budgets,
        *,
        job_difference: JobDifference,
        on_credits: Callable[[str, Decimal], None] | None = None,
    ) -> None:
        self._book = book
        self._estimates = estimates
        self._recorder = recorder
        self._job_difference = job_difference
        self._on_credits = on_credits
        self.budgets = budgets

    def admit(
        self, call: PaidCall, waited: Wait | None = None, *, nowait: bool = False
    ) -> Permit | Wait | None:
        """See `spanledger.api.gate.Gate`."""
        budgets = self.budgets
        if not call.spends or budgets.idle:
            return _Permit(self, call, None)
        answer = budgets.admit(
            call,
            self._estimates.estimate(call),
            waited_s=waited.waited_s if waited else 0.0,
            cheaper_estimate=self._cheaper(call) if call.swappable else None,
            credits_estimate=self._estimates.credits,
            nowait=nowait,
        )
        if isinstance(answer, Pause):
            return Wait(answer.seconds)
        return None if answer is None else _Permit(self, call, answer)

    def record(
        self, call: PaidCall, usage: Usage, ending: Ending, key: str | None = None
    ) -> Charge:
        """See `spanledger.api.gate.Gate`."""
        if key is not None:
            usage, attribution = self._job_difference(call.provider, key, usage, call.attribution)
            if not (usage.credits or usage.reported_cost or any(usage.units.values())):
                return _NOTHING_NEW
            call = call._replace(attribution=attribution)
        charge = (
            _nothing_due(None)
            if ending.outcome in ("blocked", "throttled")
            else self._price(call, usage, None)
        )
        self._recorder.record(Entry(call, usage, ending, charge, key))
        if not self.budgets.idle:
            with _HOLDING:
                self.budgets.record(call, charge.nano_usd, charge.credits)
        return charge

    def _cheaper(self, call: PaidCall) -> Callable[[ModelSwap], int | None]:
        return lambda swap: self._estimates.estimate(call._replace(model=swap.model))

    def credits_remaining(self, provider: str, balance: Decimal) -> None:
        """See `spanledger.api.gate.Gate`."""
        if self._on_credits is not None:
            self._on_credits(provider, balance)

    def _price(self, call: PaidCall, usage: Usage, tier: Tier | None) -> Charge:
        with _PRICING:
            return _charge(self._book, call, usage, new_charge_id(), tier)
        return Charge(new_charge_id(), None, usage.credits, reason="pricing_failed", tier=tier)

    # -- the ends of a permit
    # ------------------------------------------------------------------------------

    def settle(self, permit: "_Permit", usage: Usage | None, ending: Ending) -> Charge:
        """Book an admitted call."""
        call = permit.call
        if not call.spends:
            return self._book_nothing(permit, usage or Usage(), ending)
        if usage is None:
            usage = fallback_usage(call)
        charge = self._price(call, usage, permit.tier)
        if permit.decision == "cheaper_model" and ending.outcome == "ok":
            ending = ending._replace(
                outcome="degraded", saved_nano_usd=self._saved(call, usage, charge)
            )
        # The books first: what fails after this costs no row.
        self._recorder.record(Entry(call, usage, ending, charge))
        if permit.hold is not None:
            with _HOLDING:
                permit.hold.settle(charge.nano_usd, charge.credits)
            with _LEARNING:
                self._learn(call, usage, charge, ending)
        if ending.job is not None:  # from now on the job is known, in the name of its creator
            with _LEARNING:
                self._job_difference(call.provider, ending.job, usage, call.attribution)
        return charge

    def _learn(self, call: PaidCall, usage: Usage, charge: Charge, ending: Ending) -> None:
        if charge.nano_usd and charge.status != "estimated":
            self._estimates.observe(call, charge.nano_usd)
        # Not what the call states by itself, which is a floor, and not what a job begins with.
        floor = usage.estimated and call.known is not None
        if charge.credits is not None and not floor and ending.job is None:
            self._estimates.observe_credits(call, to_nano(charge.credits))

    def release(self, permit: "_Permit", ending: Ending) -> Charge:
        """Book an admitted call that cost nothing."""
        charge = self._book_nothing(permit, Usage(), ending)
        if permit.hold is not None:
            with _HOLDING:
                permit.hold.release()
        return charge

    def _book_nothing(self, permit: "_Permit", usage: Usage, ending: Ending) -> Charge:
        charge = _nothing_due(permit.tier)
        self._recorder.record(Entry(permit.call, usage, ending, charge))
        return charge

    def _saved(self, call: PaidCall, usage: Usage, charge: Charge) -> int:
        """Nano-USD that the model asked for would have cost more than the cheaper one did."""
        asked = self._price(call, usage._replace(model=None), None)
        if asked.nano_usd is None or charge.nano_usd is None:
            return 0
        return max(0, asked.nano_usd - charge.nano_usd)


def priced_late(book: PriceBook, entry: Entry) -> Entry:
    """`entry`, priced now where the price list was not loaded yet when its call ended.

    For the writer's thread, which may wait for it.
    """
    charge = entry.charge
    if charge.reason != NO_PRICE_LIST:
        return entry
    book.warm()
    return entry._replace(charge=_charge(book, entry.call, entry.usage, charge.id, charge.tier))


def _charge(book: PriceBook, call: PaidCall, usage: Usage, id_: str, tier: Tier | None) -> Charge:
    price = book.price(call.provider, call.model, usage, call.started_ns, call.attribution.tenant)
    return Charge(
        id_,
        price.nano_usd,
        usage.credits,
        price.status,
        price.source,
        price.version,
        price.reason,
        tier,
    )


def _nothing_due(tier: Tier | None) -> Charge:
    return Charge(new_charge_id(), 0, None, "exact", None, None, None, tier)


class _Permit:
    """Leave for one call. Its first ending counts; a later one gets the first one's charge."""

    __slots__ = (
        "_charge",
        "_ended",
        "_gate",
        "call",
        "decision",
        "hold",
        "refusal",
        "swap",
        "tier",
    )

    def __init__(self, gate: LedgerGate, call: PaidCall, admission: Admission | None) -> None:
        self._gate = gate
        self._ended = threading.Lock()  # acquired once, without blocking: an atomic "who ends it"
        self._charge: Charge = _UNENDED
        self.call = call
        if admission is None:
            self.decision: Decision = "proceed"
            self.swap: ModelSwap | None = None
            self.tier: Tier | None = None
            self.hold = None
            self.refusal: BudgetError | None = None
        else:
            self.decision = admission.decision
            self.swap = admission.swap
            self.tier = admission.tier
            self.hold = admission.hold
            self.refusal = admission.refusal

    def settle(self, usage: Usage | None, ending: Ending) -> Charge:
        """See `spanledger.api.gate.Permit`."""
        if self._ended.acquire(blocking=False):
            self._charge = self._gate.settle(self, usage, ending)
        return self._charge

    def release(self, ending: Ending) -> Charge:
        """See `spanledger.api.gate.Permit`."""
        if self._ended.acquire(blocking=False):
            self._charge = self._gate.release(self, ending)
        return self._charge


_NOTHING_NEW: Final = Charge("", 0, None, "exact")
_UNENDED: Final = Charge("", None, reason="not ended")
