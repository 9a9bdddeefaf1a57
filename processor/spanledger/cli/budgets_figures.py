"""What the commands about budgets show: every budget with what was spent, from the ledger or the
journal.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

from spanledger.api.errors import SpanledgerError
from spanledger.api.settings import Settings, load_settings
from spanledger.budget.amounts import to_nano
from spanledger.budget.config import Budget, BudgetConfig, read_budget_config
from spanledger.budget.plans import Book
from spanledger.budget.scopes import DIMENSIONS, Scope
from spanledger.budget.shared import SharedBudgets, open_shared, read_limits
from spanledger.budget.windows import Window
from spanledger.ledger.journal import Journal
from spanledger.ledger.place import ledger_url
from spanledger.ledger.protocol import Ledger, ScopeState, open_ledger


class Figures(NamedTuple):
    """All budgets as they stand.

    source: where the amounts come from, for people.
    budgets: those in force. windows: one for each budget's scope, the worst first.
    """

    source: str
    budgets: Sequence[Budget]
    windows: list[Window]


class Source(Protocol):
    """Where amounts come from."""

    name: str

    def scopes(self, now_ns: int) -> Iterable[Scope]:
        """What was used lately, besides the budgets for one scope."""
        ...

    def amounts(self, windows: Sequence[Window]) -> Iterable[tuple[ScopeState, int]]:
        """The state of each window, and what the period before it has spent."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class OutOfReachError(SpanledgerError):
    """What the processes share about budgets cannot be read."""


def shared_of(settings: Settings) -> SharedBudgets | None:
    """What processes share about budgets; None where each has a ledger of its own."""
    shared = open_shared(ledger_url(settings))
    return shared if shared.shares else None


def config_of(settings: Settings) -> BudgetConfig:
    """The budgets in force: the file's, and before them the limits that were set at run time.

    Raises ConfigurationError, and OutOfReachError where the latter cannot be read.
    """
    config = read_budget_config(settings.root)
    shared = shared_of(settings)
    if shared is None:
        return config
    try:
        return config.with_limits(read_limits(shared))
    except OSError as error:
        raise OutOfReachError(f"limits set at run time cannot be read: {error}") from error


def source_of(settings: Settings, open_journal: Callable[[], Journal | None]) -> Source:
    """The ledger, where it is shared; else the journal."""
    shared = shared_of(settings)
    if shared is None:
        return _FromJournal(open_journal())
    return _FromLedger(open_ledger(ledger_url(settings), settings.origin("ledger")), shared)


class Reader:
    """Reads how the budgets stand, as often as it is asked; by the file and the journal of this
    host where the ledger was out of reach from the first.
    """

    def __init__(self, open_journal: Callable[[], Journal | None]) -> None:
        self._open_journal = open_journal
        self._source: Source | None = None
        self._instead: _FromJournal | None = None
        self._read = False

    def read(self, now_ns: int) -> Figures:
        """How they stand now. Raises ConfigurationError, JournalError and OutOfReachError."""
        settings = load_settings()
        try:
            config = config_of(settings)
            if not config.budgets:
                return Figures("nowhere", (), [])
            self._source = self._source or source_of(settings, self._open_journal)
            found = figures(config, self._source, now_ns)
        except OutOfReachError as error:
            config = read_budget_config(settings.root)
            if self._read or not config.budgets:
                raise
            self._instead = self._instead or _FromJournal(self._open_journal(), verified=False)
            self._instead.name = f"this host's journal and the file ({error})"
            return figures(config, self._instead, now_ns)
        self._read = True
        return found

    def close(self) -> None:
        """Let go of what it reads."""
        for source in (self._source, self._instead):
            if source is not None:
                source.close()


def figures(config: BudgetConfig, source: Source, now_ns: int) -> Figures:
    """All budgets as they stand at `now_ns`."""
    book = Book(config, now_ns)
    for scope in source.scopes(now_ns):
        book.of_call(scope, now_ns)
    windows = book.current(now_ns)
    fill(windows, source, now_ns)
    return Figures(source.name, config.budgets, sorted(windows, key=_rank))


def fill(windows: Sequence[Window], source: Source, now_ns: int) -> None:
    """Put the amounts into `windows`."""
    for window, (state, last) in zip(windows, source.amounts(windows), strict=True):
        window.take_last(last)
        for _ in range(2):  # what is held or projected must be seen twice
            window.evaluate(state, now_ns)


def journal_spent(journal: Journal, window: Window) -> int:
    """What the journal says was spent in a window, nano-units."""
    ((state, _),) = _FromJournal(journal).amounts([window])
    return state.spent


def used_part(window: Window) -> float:
    """The part of the limit that is spent or held."""
    used, limit = window.spent + window.held, window.budget.limit
    return used / limit if limit else float("inf") if used else 0.0


def _rank(window: Window) -> tuple[int, float, str, str]:
    return -window.standing.tier, -used_part(window), window.scope, window.key


class _FromLedger:
    name: str = "the ledger"

    def __init__(self, ledger: Ledger, shared: SharedBudgets) -> None:
        self._ledger = ledger
        self._shared = shared

    def scopes(self, now_ns: int) -> Iterable[Scope]:
        try:
            used = self._shared.used()
        except OSError as error:
            raise OutOfReachError(f"scopes in use cannot be read: {error}") from error
        return {Scope.parse(key.partition("|")[0]) for key in used}

    def amounts(self, windows: Sequence[Window]) -> Iterable[tuple[ScopeState, int]]:
        keys = [window.key for window in windows]
        last_keys = [window.last_key() for window in windows]
        found = self._ledger.state([*keys, *last_keys])
        nothing = ScopeState(0, 0, unverified=True)
        for key, last in zip(keys, last_keys, strict=True):
            yield found.get(key, nothing), found.get(last, nothing).spent

    def close(self) -> None:
        self._ledger.close()


class _Sum(NamedTuple):
    """What calls came to. nano_usd: of those with a price."""

    nano_usd: int = 0
    credits: Decimal = Decimal(0)
    unpriced: int = 0


class _FromJournal:
    """The amounts as a ledger would have counted them: what is in flight is not known here.

    verified: False where other hosts may have spent as well.
    """

    name: str = "the journal (the ledger is the application's own)"

    def __init__(self, journal: Journal | None, *, verified: bool = True) -> None:
        self._journal = journal
        self._verified = verified
        self._sums: dict[tuple[int, int, tuple[int, ...]], Mapping[Scope, _Sum]] = {}

    def scopes(self, now_ns: int) -> Iterable[Scope]:
        if self._journal is None:
            return ()
        two_months_ns = 62 * 86_400 * 10**9
        totals = self._journal.totals(DIMENSIONS, now_ns - two_months_ns, None)
        return {Scope.of(*total.key) for total in totals}

    def amounts(self, windows: Sequence[Window]) -> Iterable[tuple[ScopeState, int]]:
        self._sums = {}
        for window in windows:
            period = window.period
            spent = self._spent(window, period.start_ns, period.end_ns)
            before = window.period_before()
            last = self._spent(window, before.start_ns, before.end_ns)
            yield ScopeState(spent, 0, unverified=not self._verified), last

    def _spent(self, window: Window, since: int, until: int) -> int:
        scope, budget = Scope.parse(window.scope), window.budget
        span = (since, until, scope.dimensions)
        if span not in self._sums:
            self._sums[span] = self._summed(*span)
        found = self._sums[span].get(scope, _Sum())
        if budget.unit == "credits":
            return to_nano(found.credits)
        return found.nano_usd + found.unpriced * budget.unknown_nano

    def _summed(self, since: int, until: int, dimensions: tuple[int, ...]) -> Mapping[Scope, _Sum]:
        sums: dict[Scope, _Sum] = {}
        if self._journal is None:
            return sums
        by = tuple(DIMENSIONS[place] for place in dimensions)
        for total in self._journal.totals(by, since, until):
            names = dict(zip(by, total.key, strict=True))
            sums[Scope.of(**names)] = _Sum(total.nano_usd or 0, total.credits, total.unpriced_calls)
        return sums

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
