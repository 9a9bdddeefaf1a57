"""A process whose clock is wrong, and runs fast, spends over the edge of a period: skewed_worker.py TOML URL SKEW_S EDGE_NS BEGINS_S

From two minutes before EDGE_NS until two minutes after, by a clock that is right; BEGINS_S is by the monotonic clock. Prints
as JSON how many calls it made before the edge and after it by its own clock, and how many were refused.
"""

import json
import sys
import time
import tomllib

from spanledger.api.errors import BudgetExceeded
from spanledger.api.settings import Section
from spanledger.api.values import Attribution, PaidCall
from spanledger.budget.budgets import Budgets
from spanledger.budget.config import read_budget_config
from spanledger.budget.holds import Admission
from spanledger.ledger.protocol import open_ledger

PRICE = 25_000_000
SPEED, AROUND_S = 40, 120


def main(toml: str, url: str, skew_s: str, edge_ns: str, begins_s: str) -> None:
    now = edge = int(edge_ns)
    config = read_budget_config(Section(tomllib.loads(toml), "test"))
    ledger = open_ledger(url)
    budgets = Budgets(config, ledger, clock=lambda: now)
    made, refused = [0, 0], [0, 0]
    begins = float(begins_s)
    time.sleep(max(0.0, begins - time.monotonic()))
    while (passed_s := (time.monotonic() - begins) * SPEED) < 2 * AROUND_S:
        now = edge + round((passed_s - AROUND_S + float(skew_s)) * 1e9)
        after = now >= edge
        try:
            call = PaidCall("openai", "chat", "gpt-5", Attribution("acme"), now)
            admission = budgets.admit(call, PRICE)
        except BudgetExceeded:
            refused[after] += 1
            time.sleep(0.01)
            continue
        assert isinstance(admission, Admission)
        time.sleep(0.01)
        now += 30 * 10**9  # in the midst of a call a clock may pass the edge
        admission.hold.settle(PRICE)
        made[after] += 1
    ledger.close()
    print(json.dumps({"made": made, "refused": refused}))


if __name__ == "__main__":
    main(*sys.argv[1:])
