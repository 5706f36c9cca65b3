"""The org's own account of what was committed: what a test holds a replica against."""

from collections.abc import Iterable
from dataclasses import dataclass

from connector.devorg.commits import Commit
from connector.devorg.database import OrgDatabase

_KEPT_ROWS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record in one commit; `kind` is that of the change, or PURGE for a removal that has no event."""

    commit_number: int
    transaction_key: str
    commit_ms: int
    object: str
    id: str
    kind: str
    user_id: str
    origin: str


class Ledger:
    """The table `ledger`, one row per record and commit; the newest million are kept."""

    def __init__(self, database: OrgDatabase) -> None:
        self._connection = database.connection

    def write(self, commit: Commit, purged: Iterable[tuple[str, str]]) -> None:
        """Write down a commit inside its open SQLite transaction; `purged` has no events of its own."""
        happened = [(change.object, change.id, str(change.kind)) for change in commit.changes]
        happened += [(object_name, record_id, "PURGE") for object_name, record_id in purged]
        self._connection.executemany(
            "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (commit.commit_number, commit.transaction_key, commit.commit_ms, *what, commit.user_id, commit.origin)
                for what in happened
            ],
        )

    def entries(self, after: int = 0, limit: int = 10_000) -> list[Entry]:
        """Return what was committed after a commit number, oldest first."""
        rows = self._connection.execute(
            "SELECT * FROM ledger WHERE commit_number > ? ORDER BY commit_number, rowid LIMIT ?", (after, limit)
        )
        return [Entry(**row) for row in rows]

    def trim(self) -> None:
        """Drop the oldest rows above the number that is kept."""
        self._connection.execute("DELETE FROM ledger WHERE rowid <= (SELECT MAX(rowid) FROM ledger) - ?", (_KEPT_ROWS,))
