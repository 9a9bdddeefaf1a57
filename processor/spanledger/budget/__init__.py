"""Budgets: what may be spent, and what happens near the limit.

    from spanledger.budget import budget_status, on_budget_event, set_budget

Applications need no more than that. `Budgets` is what the gate asks; `read_budget_config` reads the
configuration.
"""

from spanledger.budget.budgets import Budgets
from spanledger.budget.config import BudgetConfig, read_budget_config
from spanledger.budget.control import budget_status, reset_budget, set_budget
from spanledger.budget.events import (
    BudgetEvent,
    Spender,
    TopSpenders,
    on_budget_event,
    remove_budget_callback,
)
from spanledger.budget.holds import Admission, Pause
from spanledger.budget.replay import Replay
from spanledger.budget.shared import open_shared
from spanledger.budget.status import BudgetStatus
from spanledger.budget.watcher import Watcher
from spanledger.budget.windows import BudgetReading

__all__ = [
    "Admission",
    "BudgetConfig",
    "BudgetEvent",
    "BudgetReading",
    "BudgetStatus",
    "Budgets",
    "Pause",
    "Replay",
    "Spender",
    "TopSpenders",
    "Watcher",
    "budget_status",
    "on_budget_event",
    "open_shared",
    "read_budget_config",
    "remove_budget_callback",
    "reset_budget",
    "set_budget",
]
