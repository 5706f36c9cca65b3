"""The door to SQLite: the replica's file, its one writer and its readers. See DESIGN.md.

The only folder that imports apsw.
"""

from connector.store.database import Database
from connector.store.reader import ReadOnlyReplica
from connector.store.session import Session

__all__ = [
    "Database",
    "ReadOnlyReplica",
    "Session",
]
