"""Reading the replica from any process while the daemon runs."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Self

import apsw

from connector.errors import StoreUnusable
from connector.model.change import Change
from connector.model.command import Command, CommandStatus
from connector.model.history import History
from connector.model.ids import RecordId
from connector.model.objects import ObjectColumns
from connector.model.query import EVERYTHING, Filter, FilterOperator, Page, Where
from connector.model.record import StoredRecord
from connector.ports import ChangeCount, Moved, Movement, ReplicaFigures, Standing
from connector.store.checks import BUSY_TIMEOUT_MS, check_file
from connector.store.failures import translated
from connector.store.figures import object_figures, replica_figures
from connector.store.migrate import SCHEMA_VERSION
from connector.store.movement import change_counts, movement
from connector.store.pages import count, find
from connector.store.tables import objects
from connector.store.unit import StoreUnit

# How many steps of SQLite's machine lie between two looks at the clock: about a tenth of a millisecond.
_STEPS = 5000


class ReadOnlyReplica:
    """The replica, opened for reading; safe beside the daemon, and from several threads in turn.

    Each method sees one moment; `snapshot` makes several see the same. Values are in wire form (booleans are bool).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = RLock()
        self._connection: apsw.Connection | None = None
        self._objects: Mapping[str, ObjectColumns] | None = None  # as the present snapshot has them

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
                self._objects = None
            try:
                yield StoreUnit(connection)
            finally:
                if outermost and connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def limited(self, timeout_s: float) -> Generator[None]:
        """Interrupt SQLite where what is asked inside takes longer.

        Raises:
            QueryTooSlow: It did.
        """
        with self._lock:
            connection, ends_s = self._open, time.monotonic() + timeout_s
            connection.set_progress_handler(lambda: time.monotonic() > ends_s, _STEPS)
            try:
                yield
            finally:
                connection.set_progress_handler(None)

    def objects(self) -> Mapping[str, ObjectColumns]:
        """The objects that have a table, with their columns."""
        with self.snapshot():
            if self._objects is None:
                self._objects = objects(self._open)
            return self._objects

    def version(self) -> int:
        """The version of the newest change; 0 if there is none."""
        with self.snapshot() as unit:
            return unit.last_version()

    def identity(self) -> str:
        """The id of this replica; see `ports.Unit.identity`."""
        with self.snapshot() as unit:
            return unit.identity()

    def cursor(self, name: str) -> str | None:
        """A stored position, or None."""
        with self.snapshot() as unit:
            return unit.cursor(name)

    def get(self, object_name: str, record_id: str, *, fields: Sequence[str] | None = None) -> StoredRecord | None:
        """One record, or None if it is not there or deleted.

        Raises:
            ValueError: The object is not synced.
        """
        by_id = Filter("Id", FilterOperator.EQ, record_id)
        return next(iter(self.search(object_name, where=by_id, limit=1, fields=fields).records), None)

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
        where: Where = EVERYTHING,
        limit: int,
        after: str | None = None,
        order_by: str | None = None,
        fields: Sequence[str] | None = None,
        fits: Callable[[StoredRecord], bool] = lambda _record: True,
    ) -> Page:
        """A page of the records that are not deleted, for which `where` holds and that have the words of `text`.

        Args:
            object_name: As Salesforce spells it.
            text: Words, or their beginnings, in any text field; case and accents make no difference.
            where: Condition on the fields.
            limit: Records on the page.
            after: `next` of the page before.
            order_by: `Field`, `Field asc` or `Field desc`, null being the least; without it, by Id, or by how well
                a text fits (the first 2,000 records; where there are more, in the order in which they came).
            fields: Which values to return; None: all.
            fits: Asked for each record in order; the first one that does not fit begins the next page.

        Raises:
            ValueError: An unknown object or field, a value of another kind, or an `after` of another list; with all
                that is wrong.
            SearchNotReady: The object's text index is being made.
        """
        with self.snapshot():
            return find(
                self._open,
                self._columns(object_name),
                text,
                where=where,
                limit=limit,
                after=after,
                order_by=order_by,
                fields=fields,
                fits=fits,
            )

    def count(self, object_name: str, where: Where = EVERYTHING, *, text: str | None = None) -> int:
        """Records that `search` would find, on all pages.

        Raises:
            ValueError: An unknown object or field, or a value of another kind.
            SearchNotReady: The object's text index is being made.
        """
        with self.snapshot():
            return count(self._open, self._columns(object_name), text, where)

    def changes(self, since: int, limit: int, object_name: str | None = None) -> Sequence[Change] | None:
        """Changes behind a version, of one object or of all, in version order; None: the log does not reach back.

        A version that was never given out is another replica's: what lies behind it cannot be told either.
        """
        with self.snapshot() as unit:
            return unit.changes(since, limit, object_name) if unit.reaches_back_to(since) else None

    def record_changes(
        self, object_name: str, record_id: RecordId, since: int, limit: int
    ) -> tuple[Sequence[Change], int | None]:
        """The changes of one record behind a version, in version order; and when the log begins, if it was trimmed."""
        with self.snapshot() as unit:
            return unit.record_changes(object_name, record_id, since, limit), unit.log_begins_ms()

    def history(self, object_name: str, record_id: str, limit: int) -> History:
        """What happened to one record: its newest `limit` changes, and how far back they tell of it.

        Raises:
            ValueError: The object is not synced.
        """
        with self.snapshot() as unit:
            now = self.get(object_name, record_id)
            values = None if now is None else now.values
            changes = unit.history(object_name, RecordId(record_id), limit + 1)[::-1]
            return History(changes=changes, now=values, known_since_ms=unit.log_begins_ms()).newest(limit)

    def sql(self, query: str, bindings: Sequence[Any] | Mapping[str, Any] = ()) -> Sequence[dict[str, Any]]:
        """The rows of any one statement that reads, as SQLite has them (booleans are 0 and 1).

        Raises:
            ValueError: SQLite does not take the statement.
        """
        with self.snapshot():
            try:
                cursor = self._open.execute(query, bindings)
                return [
                    {column[0]: value for column, value in zip(cursor.get_description(), row, strict=True)}
                    for row in cursor
                ]
            except (apsw.SQLError, apsw.BindingsError) as error:
                raise ValueError(str(error)) from error

    def pending(self, object_name: str, ids: Sequence[RecordId], since_ms: int) -> Sequence[Command]:
        """In order: unfinished commands on the records, and those that succeeded since then and were not echoed yet."""
        with self.snapshot() as unit:
            return unit.pending_on(object_name, ids, since_ms)

    def figures(self, calls_since: str) -> ReplicaFigures:
        """The replica in figures; API calls from the hour `calls_since` (`2026-11-22T00`, UTC) on."""
        with self.snapshot() as unit:
            return replica_figures(self._open, unit, calls_since)

    def standing(self) -> Standing:
        """What health tells of the replica; walks an index of every table."""
        with self.snapshot() as unit:
            records = {name: object_figures(self._open, columns).records for name, columns in self.objects().items()}
            return Standing(records=records, queues=unit.queue_depths(), holes=unit.open_holes())

    def moved(self) -> Moved:
        """How far the replica has come."""
        with self.snapshot() as unit:
            return Moved(unit.last_version(), unit.published_version())

    def movement(self, since: Moved, most: int) -> Movement:
        """What was applied and published since then; of more than `most` changes the newest ones."""
        with self.snapshot():
            return movement(self._open, since, self.moved(), most)

    def change_counts(self, since: int, most: int) -> tuple[int, Sequence[ChangeCount]]:
        """The oldest `most` changes behind a version, counted; and the version that they end with."""
        with self.snapshot():
            return change_counts(self._open, since, most)

    def newest_changes(self, limit: int) -> Sequence[Change]:
        """The newest changes of all objects, newest first."""
        with self.snapshot() as unit:
            return unit.newest_changes(limit)

    def commands(self, status: CommandStatus | None, limit: int) -> Sequence[Command]:
        """Newest commands first, of one status or of all."""
        with self.snapshot() as unit:
            return unit.commands(status, limit)

    def command(self, command_id: str) -> Command | None:
        """The stored command, or None."""
        with self.snapshot() as unit:
            return unit.command(command_id)

    @property
    def _open(self) -> apsw.Connection:
        if self._connection is None:
            raise StoreUnusable(f"{self._path} is closed")
        return self._connection

    def _columns(self, object_name: str) -> ObjectColumns:
        columns = self.objects().get(object_name)
        if columns is None:
            raise ValueError(f"{object_name[:80]!r} is not a synced object")
        return columns


def _casefold(*values: object) -> str | None:
    (value,) = values
    return None if value is None else str(value).casefold()
