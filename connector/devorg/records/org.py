"""The org's records: transactions over them, and reading what is committed."""

import secrets
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from connector.devorg.clock import OrgClock, stamp
from connector.devorg.commits import ChangeKind, Commit, RowChange
from connector.devorg.database import OrgDatabase, quoted
from connector.devorg.errors import OrgError
from connector.devorg.ids import IdFactory, is_id, normal_id
from connector.devorg.objects import rendering
from connector.devorg.objects.fields import Field, ObjectSchema
from connector.devorg.objects.residents import INTEGRATION_USER_ID, ORGANIZATION_ID, ROWS
from connector.devorg.objects.schema import Schema
from connector.devorg.records.derive import defaults, derive
from connector.devorg.records.ledger import Ledger
from connector.devorg.records.rules import Rules
from connector.devorg.records.transaction import Transaction
from connector.devorg.records.work import Parts, Record, RecordOptions

__all__ = ["CommitSink", "Org", "Record", "RecordOptions", "Transaction"]

RECYCLE_BIN_MS = 15 * 24 * 3600 * 1000
_SWEEP_EVERY_MS = 3600 * 1000
_FIRST_COMMIT_NUMBER = 4_711_000_206_994
_COMMIT_STEP = 1021


class CommitSink(Protocol):
    """Takes what transactions did; the event bus in a running org."""

    def append(self, commit: Commit) -> None:
        """Take one commit, inside its still open SQLite transaction."""
        ...

    def wake(self) -> None:
        """Hear that what was appended is committed."""
        ...


@dataclass(frozen=True, slots=True)
class _Image:
    """One record as a held transaction left it; None where it took the record out for good."""

    object: str
    id: str
    row: Record | None
    log: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class _Held:
    transaction: Transaction
    images: tuple[_Image, ...]
    announce: bool


class Org:
    """Records, their transactions and the ledger of what was committed.

    Everything here runs on the event loop's thread without an `await` inside a transaction. A crash leaves a
    transaction's rows, ledger and events all there, or none of them; held transactions are lost, as in any
    database.

    Attributes:
        rules: Validation rules and the like, ordered by the administrator.
        ledger: Every committed change, for tests and the demonstration.
    """

    organization_id = ORGANIZATION_ID

    def __init__(self, schema: Schema, clock: OrgClock, database: OrgDatabase, bus: CommitSink) -> None:
        counters = database.connection.execute("SELECT key_prefix, next FROM id_counter").fetchall()
        ids = IdFactory({row["key_prefix"]: row["next"] for row in counters})
        self._parts = Parts(schema=schema, clock=clock, database=database, ids=ids)
        self._database = database
        self._schema = schema
        self._clock = clock
        self._bus = bus
        self._open: Transaction | None = None
        self._held: dict[str, _Held] = {}
        self.ledger = Ledger(database)
        self._resume()
        self._seed()
        self._swept_ms = clock.now_ms()

    @property
    def options(self) -> RecordOptions:
        """Switches for what the documents leave open."""
        return self._parts.options

    @property
    def rules(self) -> Rules:
        """What the administrator of the org has set up."""
        return self._parts.rules

    def _resume(self) -> None:
        """Take up clock and counters where an earlier run of the same folder left them."""
        self._commit_number = int(self._database.meta("commit_number") or _FIRST_COMMIT_NUMBER)
        self._clock.offset_ms += int(self._database.meta("clock_offset_ms") or 0)
        self._clock.not_before(int(self._database.meta("commit_ms") or 0))

    def _seed(self) -> None:
        now = stamp(self._clock.now_ms())
        made = {"CreatedDate": now, "LastModifiedDate": now, "SystemModstamp": now}
        by = {"CreatedById": INTEGRATION_USER_ID, "LastModifiedById": INTEGRATION_USER_ID}
        with self._database.transaction():
            for name, rows in ROWS.items():
                schema = self._schema.require(name)
                for record_id, values in rows.items():
                    if self._database.row(schema.table, record_id) is None:
                        row = {**defaults(schema, INTEGRATION_USER_ID), **values, **made, **by}
                        row |= {"Id": record_id, "IsDeleted": False}
                        derive(schema, row, list(values), None)
                        self._database.insert(schema.table, row)

    # Writing.

    @contextmanager
    def transaction(
        self,
        user_id: str,
        origin: str,
        hold: bool = False,
        *,
        announce: bool = True,
        allow_duplicates: bool = False,
    ) -> Generator[Transaction]:
        """Commit the writes done inside as one transaction, or none of them if an error leaves the block.

        Args:
            user_id: Who writes.
            origin: `changeOrigin` of the events, for instance `com/salesforce/api/rest/66.0;client=x`.
            hold: Keep it open behind the block: nobody sees it until `release`, its records stay locked.
            announce: Give the events; without them it is a change made in the database directly.
            allow_duplicates: The writer overrules duplicate rules that let themselves be overruled.

        Raises:
            RuntimeError: Another transaction is open.
        """
        transaction = Transaction(self._parts, _transaction_key(), user_id, origin, allow_duplicates=allow_duplicates)
        with self._unit(transaction):
            yield transaction
            if hold:
                self._hold(transaction, announce=announce)
            else:
                self._commit(transaction, announce=announce)
        self._sweep()

    @contextmanager
    def _unit(self, transaction: Transaction) -> Generator[None]:
        """Run one SQLite transaction; what the block did not commit is rolled back."""
        if self._open is not None:
            raise RuntimeError("a transaction is open already")
        self._open = transaction
        try:
            self._database.connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            self._open = None
            if self._database.connection.in_transaction:
                self._database.connection.execute("ROLLBACK")

    def _commit(self, transaction: Transaction, *, announce: bool) -> None:
        self._commit_number += _COMMIT_STEP
        after = _after(transaction)
        commit = Commit(
            transaction_key=transaction.key,
            commit_number=self._commit_number,
            commit_ms=self._clock.now_ms(),
            user_id=transaction.user_id,
            origin=transaction.origin,
            changes=tuple(_changes(transaction, after)),
        )
        self.ledger.write(commit, _purged(transaction, after))
        if announce and commit.changes:
            self._bus.append(commit)
        self._save_counters(commit.commit_ms)
        self._database.connection.execute("COMMIT")
        self._bus.wake()

    def _save_counters(self, commit_ms: int) -> None:
        self._database.connection.executemany(
            "INSERT OR REPLACE INTO id_counter VALUES (?, ?)", self._parts.ids.counters.items()
        )
        self._database.set_meta("commit_number", str(self._commit_number))
        self._database.set_meta("commit_ms", str(commit_ms))
        self._database.set_meta("clock_offset_ms", str(self._clock.offset_ms))

    def advance(self, seconds: float) -> None:
        """Move the org's clock, remember it, and drop what has become too old."""
        self._clock.advance(seconds)
        self._database.set_meta("clock_offset_ms", str(self._clock.offset_ms))
        self._sweep()

    # Held transactions.

    def _hold(self, transaction: Transaction, *, announce: bool) -> None:
        images = tuple(_image(transaction, name, record_id) for name, record_id in transaction.before)
        self._database.connection.execute("ROLLBACK")
        self._held[transaction.key] = _Held(transaction, images, announce)
        self._parts.locks |= {image.id: transaction.key for image in images}

    def release(self, key: str) -> None:
        """Commit a held transaction: its rows become visible now, with the stamps they were written with.

        Raises:
            KeyError: No transaction is held under `key`.
        """
        held = self._take_held(key)
        with self._unit(held.transaction):
            for image in held.images:
                self._restore(image)
            self._commit(held.transaction, announce=held.announce)

    def abandon(self, key: str) -> None:
        """Forget a held transaction.

        Raises:
            KeyError: No transaction is held under `key`.
        """
        self._take_held(key)

    def held(self) -> list[str]:
        """Return the keys of the transactions held open, oldest first."""
        return list(self._held)

    def oldest_open_ms(self) -> int | None:
        """Return when the oldest held transaction began, milliseconds since the Unix epoch, or None."""
        return min((held.transaction.started_ms for held in self._held.values()), default=None)

    def _take_held(self, key: str) -> _Held:
        held = self._held.pop(key)
        for image in held.images:
            self._parts.locks.pop(image.id, None)
        return held

    def _restore(self, image: _Image) -> None:
        schema = self._schema.require(image.object)
        self._database.remove(schema.table, image.id)
        if image.row is not None:
            row = {name: value for name, value in image.row.items() if name in schema.fields}
            self._database.insert(schema.table, row)
        connection = self._database.connection
        connection.execute("DELETE FROM delete_log WHERE object = ? AND id = ?", (image.object, image.id))
        if image.log is not None:
            connection.execute("INSERT INTO delete_log VALUES (?, ?, ?, ?)", image.log)

    # Reading.

    def get(self, object_name: str, record_id: str, include_deleted: bool = False) -> Record | None:
        """Return a committed record: every stored field by API name, date-times with `Z`; or None.

        Raises:
            OrgError: 404 NOT_FOUND: there is no such object.
        """
        schema = self._schema.require(object_name)
        if not is_id(record_id):
            return None
        row = self._database.row(schema.table, normal_id(record_id))
        record = None if row is None else rendering.decoded(schema, row)
        return None if record is None or (record["IsDeleted"] and not include_deleted) else record

    def find(self, object_name: str, field_name: str, value: object) -> list[str]:
        """Return the ids of the live records whose field holds `value`, in any case of letters.

        Raises:
            OrgError: 404 NOT_FOUND: there is no such object; 400 INVALID_FIELD: no such field.
        """
        schema = self._schema.require(object_name)
        return self._database.ids_where(schema.table, _field(schema, field_name).name, value)

    def row_to_rest(
        self,
        object_name: str,
        row: Record,
        fields: Iterable[str] | None = None,
        version: str = rendering.NEWEST_VERSION,
    ) -> dict[str, Any]:
        """Return a record as REST writes it: with `attributes`, `+0000` date-times and compound objects.

        Args:
            object_name: The object.
            row: As `get` returns it.
            fields: API names in any case of letters; None for all.
            version: API version of the URLs.

        Raises:
            OrgError: 400 INVALID_FIELD: there is no such field.
        """
        schema = self._schema.require(object_name)
        wanted = None if fields is None else [_field(schema, name) for name in fields]
        return rendering.rest_record(schema, row, wanted, version)

    # Housekeeping.

    def _sweep(self) -> None:
        """Empty the recycle bin of what is older than 15 days and keep the org's logs bounded."""
        now_ms = self._clock.now_ms()
        if now_ms - self._swept_ms < _SWEEP_EVERY_MS or self._open is not None:
            return
        self._swept_ms = now_ms
        too_old = stamp(now_ms - RECYCLE_BIN_MS)
        with self._database.transaction():
            for name in self._schema.names():
                table = quoted(self._schema.require(name).table)
                # The name is the schema's and quoted.
                statement = f'DELETE FROM {table} WHERE "SystemModstamp" < ? AND "IsDeleted" = 1'  # noqa: S608
                self._database.connection.execute(statement, (too_old,))
            self._database.connection.execute("DELETE FROM delete_log WHERE deleted_at < ?", (too_old,))
            self.ledger.trim()


def _transaction_key() -> str:
    digits = "00" + secrets.token_hex(15)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _field(schema: ObjectSchema, name: str) -> Field:
    found = schema.field(name)
    if found is None:
        raise OrgError(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {schema.name}")
    return found


def _image(transaction: Transaction, object_name: str, record_id: str) -> _Image:
    schema = transaction.parts.schema.require(object_name)
    log = transaction.parts.database.connection.execute(
        "SELECT * FROM delete_log WHERE object = ? AND id = ?", (object_name, record_id)
    ).fetchone()
    row = transaction.record(schema, record_id)
    return _Image(object_name, record_id, row, None if log is None else tuple(log))


def _after(transaction: Transaction) -> dict[tuple[str, str], Record | None]:
    """Every record touched as the transaction leaves it; None: it is not there."""
    schema = transaction.parts.schema
    return {
        (name, record_id): transaction.record(schema.require(name), record_id) for name, record_id in transaction.before
    }


def _changes(transaction: Transaction, left: Mapping[tuple[str, str], Record | None]) -> Generator[RowChange]:
    """Yield what became of each record touched, in the order of the first touch.

    Only the difference between start and end counts: a record made and deleted in one transaction, or removed
    for good, gives nothing.
    """
    for (object_name, record_id), before in transaction.before.items():
        after = left[object_name, record_id]
        if after is None:
            continue
        for kind in _kinds(before, after, transaction.parts.options):
            found = None if kind == "CREATE" else before or after
            yield RowChange(object=object_name, id=record_id, kind=kind, before=found, after=after)


_BORN: dict[bool, tuple[ChangeKind, ...]] = {False: ("CREATE",), True: ()}
_BORN_DEAD: tuple[ChangeKind, ...] = ("CREATE", "DELETE")
_LIFE: dict[tuple[bool, bool], tuple[ChangeKind, ...]] = {  # by whether it was deleted, before and after
    (False, False): ("UPDATE",),
    (False, True): ("DELETE",),
    (True, False): ("UNDELETE",),
    (True, True): (),
}


def _kinds(before: Record | None, after: Record, options: RecordOptions) -> tuple[ChangeKind, ...]:
    if before is None:
        return _BORN_DEAD if after["IsDeleted"] and options.insert_delete_events else _BORN[after["IsDeleted"]]
    return _LIFE[before["IsDeleted"], after["IsDeleted"]]


def _purged(transaction: Transaction, left: Mapping[tuple[str, str], Record | None]) -> list[tuple[str, str]]:
    """Return object and id of the records that were there and are removed for good."""
    return [key for key, before in transaction.before.items() if before is not None and left[key] is None]
