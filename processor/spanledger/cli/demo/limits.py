"""Scout on a busy day: popular searches, and two customers who reach the end of their budgets.

Run by `spanledger demo` as its second part, with the budgets and cache rules of `limits.toml`.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Final

from openai import OpenAI
from scavio import ScavioClient

from spanledger.api import BudgetExceeded, BudgetThrottled, attribute, feature
from spanledger.budget import budget_status

BASE_URL: Final = os.environ["DEMO_BASE_URL"]
POPULAR: Final = ("best crm", "crm pricing", "erp trends", "sales automation")
MOST_QUESTIONS: Final = 40
PAUSE_S: Final = 0.2

openai = OpenAI(base_url=f"{BASE_URL}/v1", max_retries=0)
scavio = ScavioClient(base_url=BASE_URL, max_requests_per_second=50)


@feature("popular-searches")
def search(query: str) -> int:
    """A search that many customers make."""
    return len(scavio.google.search(query)["organic_results"])


def popular_searches() -> None:
    """Each customer makes the same few searches again and again, some of them at the same time."""
    with ThreadPoolExecutor(8) as pool:
        for tenant in ("acme", "globex", "initech"):
            with attribute(tenant=tenant):
                for query in POPULAR:
                    at_once = [pool.submit(copy_context().run, search, query) for _ in range(4)]
                    found = {future.result() for future in at_once}
                    assert len(found) == 1
                for _ in range(3):
                    for query in POPULAR:
                        search(query)
    print("84 searches by three customers: 12 were made, the others came from the data layer")


@feature("research")
def research(number: int) -> str:
    """A question to a dear model; the answer says which model served it."""
    answer = openai.chat.completions.create(
        model="gpt-5.4",
        max_completion_tokens=400,
        messages=[{"role": "user", "content": f"Question {number}. " + "All the facts. " * 200}],
    )
    return answer.model


def until_it_ends(tenant: str, ask: Callable[[int], str] = research) -> None:
    """Ask on behalf of `tenant` until a budget says no."""
    served, tier = "", ""
    for number in range(MOST_QUESTIONS):
        time.sleep(PAUSE_S)  # so that events are told in their place
        with attribute(tenant=tenant, user=f"u-{number % 3}"):
            try:
                model = ask(number)
            except BudgetThrottled as error:
                print(f"  {tenant}: paced, come back in {error.retry_after:.0f} s")
                return
            except BudgetExceeded as error:
                print(f"  {tenant}: {error}")
                return
        status = budget_status(tenant=tenant)
        if (model, status.tier) != (served, tier):
            served, tier = model, status.tier
            print(
                f"  {tenant}: tier {tier:8} served by {model}, {status.spent} USD spent", flush=True
            )


def main() -> None:
    popular_searches()
    print("initech's budget has the usual tiers: look at 70 %, pace at 90 %, degrade at 110 %")
    until_it_ends("initech")
    print("globex's is spent to the end: the cheaper model at 100 %, refusal at 120 %")
    until_it_ends("globex")


if __name__ == "__main__":
    main()
