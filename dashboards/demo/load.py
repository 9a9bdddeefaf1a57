"""The demo's application as a service that goes on: one day of Scout after another, in one process.

    opentelemetry-instrument python load.py

It brings the providers with it, as a server on this machine; nothing of it leaves the
machine. What its budgets refuse is refused, and it goes on.
"""

import asyncio
import os
import sys
from typing import Final

from spanledger.api import attribute
from spanledger.api.errors import BudgetError
from spanledger.cli.demo.server import ProviderServer

BETWEEN_DAYS_S: Final = float(os.environ.get("DEMO_BETWEEN_DAYS_S", "5"))
PACE_S: Final = 0.03


async def days(server: ProviderServer) -> None:
    """Day after day."""
    # It connects to the address in the environment when it is imported.
    from spanledger.cli.demo import app  # noqa: PLC0415

    async with app.openai_async, app.anthropic_async:
        while True:
            for customer in app.CUSTOMERS:
                try:
                    await app.day(customer)
                except BudgetError as error:
                    print(f"{customer.name}: {error}", flush=True)
            with attribute(tenant="initech"):
                app.old_digest()
            server.requests.clear()
            await asyncio.sleep(BETWEEN_DAYS_S)


def main() -> None:
    """Until it is stopped."""
    with ProviderServer(pace=PACE_S) as server:
        os.environ["DEMO_BASE_URL"] = server.url
        for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "SCAVIO_API_KEY"):
            os.environ[key] = "demo-key"
        asyncio.run(days(server))


if __name__ == "__main__":
    sys.exit(main())
