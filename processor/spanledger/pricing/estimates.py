"""What a call is going to cost: what its like have cost, or what its size says.

USD and credits are learnt apart: a call may cost both, and budgets hold each.
"""

from typing import Final

from spanledger.api.values import PaidCall, Usage
from spanledger.pricing.book import PriceBook
from spanledger.pricing.generations import Generations

_BYTES_A_TOKEN: Final = 4
_USUAL_OUTPUT: Final = 1024
_LARGEST_OUTPUT: Final = 131_072
"""Tokens that no model of the price list exceeds in one answer."""

_SAMPLES: Final = 64
_ENOUGH: Final = 8
_QUANTILE: Final = 0.95
_MOST_KINDS: Final = 2048

_Kind = tuple[str, str | None, str, str | None]


def fallback_usage(call: PaidCall) -> Usage:
    """What `call` probably consumes, going by nothing but itself.

    A token for four bytes of input, and as much output as it allows, or 1,024 tokens; for a data
    API the credits that its specification states.
    """
    return _guess(call, _BYTES_A_TOKEN, _USUAL_OUTPUT)


def upper_bound(call: PaidCall) -> Usage:
    """What `call` consumes at the most.

    A token for each byte of input, and as much output as it allows, or as the largest answer of any
    model. For a data API, whose specification states a floor only, that floor: there is no bound.
    """
    return _guess(call, 1, _LARGEST_OUTPUT)


def _guess(call: PaidCall, bytes_a_token: int, output: int) -> Usage:
    if call.known is not None:
        return call.known._replace(estimated=True)
    if call.model is None:
        return Usage(estimated=True)
    size = call.input_bytes() if call.input_bytes is not None else 0
    units = {"input_tokens": -(-size // bytes_a_token)}
    if call.operation != "embeddings":
        units["output_tokens"] = (
            output if call.max_output_tokens is None else call.max_output_tokens
        )
    return Usage(units, estimated=True)


class _Seen:
    """What the last calls of a kind have cost, in nano-units, and a high quantile of it."""

    __slots__ = ("costs", "high")

    def __init__(self, costs: tuple[int, ...]) -> None:
        self.costs: Final = costs
        self.high: Final = sorted(costs)[int(_QUANTILE * (len(costs) - 1) + 0.5)]


class Estimates:
    """Estimates calls by what the last 64 of the same provider, model, operation and feature cost.

    No locks: two threads that learn of the same kind at once may lose one of the two samples, which
    changes no estimate that matters, and a fork finds nothing held.
    """

    def __init__(self, book: PriceBook) -> None:
        self._book: Final = book
        self._seen: Final[Generations[_Kind, _Seen]] = Generations(_MOST_KINDS)
        self._credits: Final[Generations[_Kind, _Seen]] = Generations(_MOST_KINDS)

    def observe(self, call: PaidCall, nano_usd: int) -> None:
        """Learn what `call` has cost."""
        _learn(self._seen, call, nano_usd)

    def observe_credits(self, call: PaidCall, nano_credits: int) -> None:
        """Learn how many credits `call` has cost."""
        _learn(self._credits, call, nano_credits)

    def credits(self, call: PaidCall) -> int | None:
        """Nano-credits that calls like `call` have cost; None where none is known to have cost any.

        What `call` states itself is not in it.
        """
        seen = self._credits.get(_kind(call))
        if seen is None:
            return None
        return max(seen.costs) if len(seen.costs) < _ENOUGH else seen.high

    def estimate(self, call: PaidCall, *, strict: bool = False) -> int | None:
        """Nano-USD that `call` is going to cost; None where there is no telling.

        strict: the upper bound instead, for budgets that must not be exceeded by a cent.
        """
        if not call.spends:
            return 0
        seen = self._seen.get(_kind(call))
        if strict:
            return _larger(self._most(call), seen)
        if seen is None:
            return self._price(call, fallback_usage(call))
        if len(seen.costs) < _ENOUGH:
            return _larger(self._price(call, fallback_usage(call)), seen)
        return self._capped(call, seen.high)

    def _capped(self, call: PaidCall, cost: int) -> int:
        if call.known is not None or call.model is None:
            return cost
        # Counting the bytes of the input costs more than all the rest: only where the output alone
        # does not allow it.
        output = self._price(call, upper_bound(call._replace(input_bytes=None)))
        if output is None or output >= cost:
            return cost
        most = self._most(call)
        return cost if most is None else min(cost, most)

    def _most(self, call: PaidCall) -> int | None:
        return self._price(call, upper_bound(call))

    def _price(self, call: PaidCall, usage: Usage) -> int | None:
        return self._book.price(
            call.provider, call.model, usage, call.started_ns, call.attribution.tenant
        ).nano_usd


def _kind(call: PaidCall) -> _Kind:
    return call.provider, call.model, call.operation, call.attribution.feature


def _learn(kinds: Generations[_Kind, _Seen], call: PaidCall, cost: int) -> None:
    kind = _kind(call)
    seen = kinds.get(kind)
    kinds.put(kind, _Seen((cost,) if seen is None else (*seen.costs[1 - _SAMPLES :], cost)))


def _larger(estimate: int | None, seen: _Seen | None) -> int | None:
    if seen is None:
        return estimate
    return max(seen.costs) if estimate is None else max(estimate, *seen.costs)
