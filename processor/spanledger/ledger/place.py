"""Where the ledger is, where nobody says: beside the journal, so that the processes of one machine
share a limit without a server.
"""

from typing import Final

from spanledger.api.settings import Settings
from spanledger.ledger.journal_place import locate
from spanledger.ledger.protocol import check_ledger_url

MEMORY: Final = "memory://"


def ledger_url(settings: Settings) -> str:
    """The URL of the ledger that `settings` mean.

    Raises ConfigurationError for what is no URL, and JournalError where there is no place.
    """
    if settings.ledger is not None:
        check_ledger_url(settings.ledger, settings.origin("ledger"))
        return settings.ledger
    journal = locate(settings.journal, settings.origin("journal")).path
    return MEMORY if journal is None else f"sqlite:///{journal.with_name('ledger.db')}"
