"""The door to SQLite: the replica's file, its one writer and its readers. See DESIGN.md.

The only folder that imports apsw.
"""

from connector.store.database import Database
from connector.store.filters import Filter, FilterOperator
from connector.store.reader import CursorRow, ObjectFigures, Page, ReadOnlyReplica, ReplicaFigures
from connector.store.session import Session
from connector.store.tables import ObjectColumns

__all__ = [
    "CursorRow",
    "Database",
    "Filter",
    "FilterOperator",
    "ObjectColumns",
    "ObjectFigures",
    "Page",
    "ReadOnlyReplica",
    "ReplicaFigures",
    "Session",
]
