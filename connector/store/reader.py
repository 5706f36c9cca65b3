"""Reading the replica from any process while the daemon runs."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Self

import apsw

from connector.errors import StoreUnusable
from connector.model.record import StoredRecord
from connector.model.times import to_ms
from connector.ports import Hole
from connector.store.checks import BUSY_TIMEOUT_MS, check_file
from connector.store.failures import translated
from connector.store.filters import (
    Bindings,
    Filter,
    FilterOperator,
    Order,
    behind,
    condition,
    kind_of,
    order,
    page_end,
    text_condition,
)
from connector.store.migrate import SCHEMA_VERSION
from connector.store.queries import load
from connector.store.records import stored_record
from connector.store.tables import OWN_COLUMNS, ObjectColumns, objects, quoted
from connector.store.unit import StoreUnit

_POSITIONS = load("positions")


@dataclass(frozen=True, slots=True)
class Page:
    """Some records in order.

    Attributes:
        records: Their `values` hold the fields that were asked for.
        next: `after` of the next page; None at the end.
    """

    records: Sequence[StoredRecord]
    next: str | None


@dataclass(frozen=True, slots=True)
class ObjectFigures:
    """One object in figures.

    Attributes:
        records: Without the deleted ones.
        deleted: Tombstones.
    """

    records: int
    deleted: int


@dataclass(frozen=True, slots=True)
class CursorRow:
    """One stored position."""

    name: str
    value: str
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFigures:
    """The replica in figures, all of one moment.

    Attributes:
        version: The newest change's.
        published: Newest version that the broker has acknowledged.
        queues: Rows waiting in outbox, commands, quarantine, dirty.
        calls: API calls by purpose.
        holes: The open ones.
    """

    version: int
    published: int
    objects: Mapping[str, ObjectFigures]
    queues: Mapping[str, int]
    cursors: Sequence[CursorRow]
    calls: Mapping[str, int]
    holes: Sequence[Hole]


class ReadOnlyReplica:
    """The replica, opened for reading; safe beside the daemon, and from several threads in turn.

    Each method sees one moment; `snapshot` makes several see the same. Values are in wire form (booleans are bool).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = RLock()
        self._connection: apsw.Connection | None = None

    def open(self) -> None:
        """Open the file.

        Raises:
            StoreUnusable: Missing, damaged, of another program or of another version.
        """
        if check_file(self._path, thorough=False) != SCHEMA_VERSION:
            raise StoreUnusable(f"{self._path} holds no replica of this version yet: run `salesforce-sync sync` first")
        with translated(self._path):
            connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            connection.execute("PRAGMA query_only = ON")
            connection.create_scalar_function("casefold", _casefold, 1, deterministic=True)
            self._connection = connection

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Generator[StoreUnit]:
        """Everything asked inside sees one moment; keep it short, for the WAL cannot be reused meanwhile.

        Yields the unit of that moment, whose writing methods fail.
        """
        with self._lock, translated(self._path):
            connection = self._open
            outermost = not connection.in_transaction
            if outermost:
                connection.execute("BEGIN")
            try:
                yield StoreUnit(connection)
            finally:
                if outermost and connection.in_transaction:
                    connection.execute("ROLLBACK")

    def objects(self) -> Mapping[str, ObjectColumns]:
        """The objects that have a table, with their columns."""
        with self.snapshot():
            return objects(self._open)

    def get(self, object_name: str, record_id: str) -> StoredRecord | None:
        """One record, or None if it is not there or deleted.

        Raises:
            ValueError: The object is not synced.
        """
        return next(
            iter(self.search(object_name, where=[Filter("Id", FilterOperator.EQ, record_id)], limit=1).records), None
        )

    def list(
        self,
        object_name: str,
        *,
        limit: int,
        after: str | None = None,
        order_by: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Page:
        """A page of the records that are not deleted; see `search`."""
        return self.search(object_name, limit=limit, after=after, order_by=order_by, fields=fields)

    def search(
        self,
        object_name: str,
        text: str | None = None,
        *,
        where: Sequence[Filter] = (),
        limit: int,
        after: str | None = None,
        order_by: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Page:
        """A page of the records that are not deleted, fit every filter and hold `text` in some text field.

        Args:
            object_name: As Salesforce spells it.
            text: Anywhere in a text field or the Id, without regard to case.
            where: All must hold.
            limit: Records on the page.
            after: `next` of the page before.
            order_by: `Field`, `Field asc` or `Field desc`, null being the least; without it, by Id.
            fields: Which values to return; None: all.

        Raises:
            ValueError: An unknown object or field, a value of another kind, or an `after` of another list.
        """
        with self.snapshot():
            columns = self._columns(object_name)
            by, bindings = order(columns, order_by), Bindings(limit=limit + 1)
            conditions = [condition(columns, where, bindings), behind(columns, by, after, bindings)]
            if text is not None:
                conditions.append(text_condition(columns, text, bindings))
            names = tuple(columns.fields) if fields is None else tuple(f for f in dict.fromkeys(fields) if f != "Id")
            for name in names:
                kind_of(columns, name)
            return self._page(columns, names, by, " AND ".join(conditions), bindings)

    def count(self, object_name: str, where: Sequence[Filter] = ()) -> int:
        """Records that are not deleted and fit every filter.

        Raises:
            ValueError: An unknown object or field, or a value of another kind.
        """
        with self.snapshot():
            columns, bindings = self._columns(object_name), Bindings()
            # Names are known columns; values are bound.
            query = f"SELECT count(*) FROM {quoted(columns.table)} WHERE {condition(columns, where, bindings)}"  # noqa: S608
            return int(self._open.execute(query, bindings).get)

    def figures(self, calls_since: str) -> ReplicaFigures:
        """The replica in figures; API calls from the hour `calls_since` (`2026-11-22T00`, UTC) on."""
        with self.snapshot() as unit:
            rows = self._open.execute(_POSITIONS["all"])
            return ReplicaFigures(
                version=unit.last_version(),
                published=unit.published_version(),
                objects={o.name: self._object_figures(o) for o in objects(self._open).values()},
                queues=unit.queue_depths(),
                cursors=tuple(CursorRow(str(name), str(value), to_ms(str(at))) for name, value, at in rows),
                calls=unit.calls_since(calls_since),
                holes=unit.open_holes(),
            )

    @property
    def _open(self) -> apsw.Connection:
        if self._connection is None:
            raise StoreUnusable(f"{self._path} is closed")
        return self._connection

    def _columns(self, object_name: str) -> ObjectColumns:
        columns = objects(self._open).get(object_name)
        if columns is None:
            raise ValueError(f"{object_name!r} is not a synced object")
        return columns

    def _page(
        self, columns: ObjectColumns, names: Sequence[str], by: Order, conditions: str, bindings: Bindings
    ) -> Page:
        booleans = [name for name in names if columns.fields[name] == "boolean"]
        listed = ", ".join(quoted(name) for name in (by.field, "Id", *names, *OWN_COLUMNS))
        direction = "DESC" if by.descending else "ASC"
        # Names are known columns; values are bound.
        query = (
            f"SELECT {listed} FROM {quoted(columns.table)} WHERE {conditions} "  # noqa: S608
            f'ORDER BY {quoted(by.field)} {direction}, "Id" {direction} LIMIT :limit'
        )
        rows = self._open.execute(query, bindings).fetchall()
        shown = rows[: int(bindings["limit"] or 0) - 1]
        more = len(rows) > len(shown) > 0
        return Page(
            records=[stored_record(names, booleans, row[1:]) for row in shown],
            next=page_end(by, str(shown[-1][1]), shown[-1][0]) if more else None,
        )

    def _object_figures(self, columns: ObjectColumns) -> ObjectFigures:
        table = quoted(columns.table)
        # Both counts walk an index; the table's name was checked when it was made.
        everything = int(self._open.execute(f"SELECT count(*) FROM {table}").get)  # noqa: S608
        deleted = int(
            self._open.execute(f"SELECT count(*) FROM {table} WHERE _deleted_at IS NOT NULL").get  # noqa: S608
        )
        return ObjectFigures(records=everything - deleted, deleted=deleted)


def _casefold(*values: object) -> str | None:
    (value,) = values
    return None if value is None else str(value).casefold()
