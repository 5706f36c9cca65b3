"""The door to SQLite: the replica's file, its one writer and its readers. See DESIGN.md.

The only folder that imports apsw.
"""

from connector.store.database import Database
from connector.store.figures import CursorRow, ObjectFigures, ReplicaFigures
from connector.store.reader import ReadOnlyReplica
from connector.store.session import Session

__all__ = [
    "CursorRow",
    "Database",
    "ObjectFigures",
    "ReadOnlyReplica",
    "ReplicaFigures",
    "Session",
]
