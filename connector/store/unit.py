"""`ports.Unit` put together."""

from collections.abc import Mapping

from connector.store.indexes import Indexes
from connector.store.ingest import Ingest
from connector.store.records import Records
from connector.store.retention import Retention
from connector.store.troubles import Troubles


class StoreUnit(Records, Retention, Troubles, Ingest, Indexes):
    """One transaction on one connection; see `ports.Unit` for what each method promises.

    The same object serves one transaction after another: it holds nothing but the connection.
    """

    def queue_depths(self) -> Mapping[str, int]:
        """Rows waiting, by queue; the outbox counts changes and other messages."""
        return {
            "outbox": self.unpublished_count() + self.message_count(),
            "commands": self.open_command_count(),
            "quarantine": self.quarantine_count(),
            "dirty": self.dirty_count(),
        }
