"""The state of one open transaction, and the steps that every kind of write to records is made of."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from connector.devorg.clock import OrgClock, stamp
from connector.devorg.database import OrgDatabase
from connector.devorg.errors import OrgError
from connector.devorg.ids import IdFactory, is_id, normal_id
from connector.devorg.objects import rendering, validation
from connector.devorg.objects.fields import Field, ObjectSchema
from connector.devorg.objects.schema import Schema
from connector.devorg.records.rules import Rules

Record = dict[str, Any]
"""A stored record: every stored field by API name, booleans as booleans."""


@dataclass(kw_only=True)
class RecordOptions:
    """What the documents leave open about records, changeable at any time.

    Attributes:
        insert_delete_events: A record made and deleted in one transaction gives a CREATE and a DELETE.
        precondition_bodies: The answer 412 carries an error array, else nothing.
        products_refuse_amount: Writing the Amount of an opportunity that has products is an error, else it is ignored.
        long_text_lengths: Describes tell the real length of long text fields, else 255.
    """

    insert_delete_events: bool = False
    precondition_bodies: bool = True
    products_refuse_amount: bool = False
    long_text_lengths: bool = True


@dataclass(slots=True, kw_only=True)
class Parts:
    """What all transactions of an org work with.

    Attributes:
        locks: Key of the held transaction that keeps a record locked, by record id.
    """

    schema: Schema
    clock: OrgClock
    database: OrgDatabase
    ids: IdFactory = field(default_factory=IdFactory)
    rules: Rules = field(default_factory=Rules)
    locks: dict[str, str] = field(default_factory=dict)
    options: RecordOptions = field(default_factory=RecordOptions)


class Work:
    """What has been written so far, and single rows: found, checked, stored.

    Attributes:
        key: UUID-like text; the `transactionKey` of its events.
        before: Every record touched as the transaction found it (None: it was not there), in the order of
            the first touch.

    Args:
        parts: What it works with.
        key: See above.
        user_id: Who writes.
        origin: `changeOrigin` of the events.
        allow_duplicates: The writer overrules duplicate rules that let themselves be overruled.
    """

    def __init__(self, parts: Parts, key: str, user_id: str, origin: str, *, allow_duplicates: bool = False) -> None:
        self.parts = parts
        self.key = key
        self.user_id = user_id
        self.origin = origin
        self.allow_duplicates = allow_duplicates
        self.started_ms = parts.clock.now_ms()
        self.before: dict[tuple[str, str], Record | None] = {}

    @contextmanager
    def atomic(self) -> Generator[None]:
        """Undo everything done inside if an error leaves the block."""
        touched = len(self.before)
        try:
            with self.parts.database.savepoint():
                yield
        except BaseException:
            while len(self.before) > touched:
                self.before.popitem()
            raise

    def object_for(self, name: str, operation: str) -> ObjectSchema:
        """Return the object.

        Raises:
            OrgError: There is no such object, or it does not support the operation.
        """
        schema = self.parts.schema.get(name)
        if schema is None:
            raise OrgError(400, "INVALID_TYPE", f"sObject type '{name}' is not supported.")
        flag = {"create": "createable", "update": "updateable", "upsert": "updateable"}.get(operation)
        if not schema.raw[flag or {"merge": "mergeable"}.get(operation, f"{operation[:-1]}able")]:
            message = f"entity type {schema.name} does not support {operation}"
            raise OrgError(400, "INVALID_TYPE_FOR_OPERATION", message)
        return schema

    def record(self, schema: ObjectSchema, record_id: str) -> Record | None:
        """Return a record as it stands in this transaction, deleted or not."""
        row = self.parts.database.row(schema.table, record_id)
        return None if row is None else rendering.decoded(schema, row)

    def live(self, schema: ObjectSchema, record_id: str) -> Record:
        """Return a record that may be written.

        Raises:
            OrgError: The id is malformed, there is no such record, it is deleted or locked.
        """
        if not is_id(record_id) or not record_id.startswith(schema.key_prefix):
            message = f"{schema.raw['label']} ID: id value of incorrect type: {record_id}"
            raise OrgError(400, "MALFORMED_ID", message, ["Id"])
        record = self.record(schema, normal_id(record_id))
        if record is None:
            raise OrgError(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [])
        if record["IsDeleted"]:
            raise OrgError(404, "ENTITY_IS_DELETED", "entity is deleted", [])
        self.check_lock(record["Id"])
        return record

    def check_lock(self, record_id: str) -> None:
        """Check that no other transaction holds the record.

        Raises:
            OrgError: 400 UNABLE_TO_LOCK_ROW.
        """
        if record_id in self.parts.rules.locked or self.parts.locks.get(record_id, self.key) != self.key:
            message = f"unable to obtain exclusive access to this record or 1 records: {record_id}"
            raise OrgError(400, "UNABLE_TO_LOCK_ROW", message, [])

    def find(self, schema: ObjectSchema, key: Field, value: Any) -> list[str]:
        """Return the ids of the live records whose key field holds `value`, in any case of letters.

        Raises:
            OrgError: The value is empty or does not fit the field.
        """
        wanted = value if key.type == "id" else validation.stored_value(key, value)
        if wanted is None:
            raise OrgError(400, "MISSING_ARGUMENT", f"{key.name} not specified", [])
        if key.type == "id":
            return [self.live(schema, str(wanted))["Id"]]
        return self.parts.database.ids_where(schema.table, key.name, wanted)

    def stamps(self) -> Record:
        """Return what every write by a user leaves on its row."""
        now = stamp(self.parts.clock.now_ms())
        return {"LastModifiedDate": now, "LastModifiedById": self.user_id, "SystemModstamp": now}

    def write(self, schema: ObjectSchema, before: Record | None, after: Record) -> None:
        """Store a row as it is, without a check, and remember how it was found."""
        self.before.setdefault((schema.name, after["Id"]), before)
        if before is None:
            self.parts.database.insert(schema.table, after)
            return
        changed = {name: value for name, value in after.items() if before[name] != value}
        if changed:
            self.parts.database.update(schema.table, after["Id"], changed)
