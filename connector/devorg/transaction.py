"""One open transaction of the org: every kind of write to records, each of them done whole or not at all."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from connector.devorg import conversion, relations, rendering, validation
from connector.devorg.clock import OrgClock, stamp
from connector.devorg.database import OrgDatabase
from connector.devorg.derive import defaults, derive
from connector.devorg.errors import OrgError
from connector.devorg.fields import Field, ObjectSchema
from connector.devorg.ids import IdFactory, is_id, normal_id
from connector.devorg.references import check_references, resolved
from connector.devorg.rules import Rules
from connector.devorg.schema import Schema

Record = dict[str, Any]
"""A stored record: every stored field by API name, booleans as booleans."""


@dataclass(kw_only=True)
class RecordOptions:
    """What the documents leave open about records, changeable at any time.

    Attributes:
        insert_delete_events: A record made and deleted in one transaction gives a CREATE and a DELETE.
    """

    insert_delete_events: bool = False


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


class Transaction:
    """The writes of one user that become visible together.

    A write that is refused leaves no trace, and the transaction goes on. Stamps are taken when a row is written.

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

    # What callers do.

    def create(self, object_name: str, values: Mapping[str, Any]) -> str:
        """Create a record and return its id.

        Raises:
            OrgError: The values are refused.
        """
        schema = self.object_for(object_name, "create")
        cleaned = validation.clean(schema, resolved(self, schema, values), creating=True)
        with self.atomic():
            row = {**defaults(schema, self.user_id), **cleaned, **self._birth(schema)}
            self._save(schema, None, row, list(cleaned))
        return str(row["Id"])

    def update(self, object_name: str, record_id: str, values: Mapping[str, Any]) -> None:
        """Set fields of a live record.

        Raises:
            OrgError: There is no such live record, it is locked, or the values are refused.
        """
        schema = self.object_for(object_name, "update")
        before = self.live(schema, record_id)
        cleaned = validation.clean(schema, resolved(self, schema, values), creating=False)
        if before.get("IsConverted"):
            raise OrgError(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", [])
        with self.atomic():
            self._save(schema, before, {**before, **cleaned, **self.stamps()}, list(cleaned))

    def upsert(self, object_name: str, field_name: str, value: Any, values: Mapping[str, Any]) -> tuple[str, bool]:
        """Update the record whose `field_name` holds `value`, or create it; return its id and whether it is new.

        Raises:
            OrgError: The field is no key, several records match, or the values are refused.
        """
        schema = self.object_for(object_name, "upsert")
        key = key_field(schema, field_name)
        found = self.find(schema, key, value)
        if len(found) > 1:
            message = f"{key.name}: more than one record found for external id field: [{', '.join(found)}]"
            raise OrgError(400, "DUPLICATE_EXTERNAL_ID", message, [key.name])
        rest = {name: given for name, given in values.items() if name.lower() != key.name.lower()}
        if found:
            self.update(schema.name, found[0], rest)
            return found[0], False
        if key.type == "id":
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        return self.create(schema.name, {**rest, key.name: value}), True

    def delete(self, object_name: str, record_id: str) -> None:
        """Put a record and what goes with it into the recycle bin.

        Raises:
            OrgError: There is no such live record, or it is locked, or something else forbids it.
        """
        schema = self.object_for(object_name, "delete")
        before = self.live(schema, record_id)
        with self.atomic():
            relations.delete(self, schema, before, deleted_with=before["Id"])

    def undelete(self, object_name: str, record_id: str) -> None:
        """Take a record and what was deleted with it out of the recycle bin.

        Raises:
            OrgError: 400 UNDELETE_FAILED: it is not there, or it lost a merge.
        """
        schema = self.object_for(object_name, "undelete")
        with self.atomic():
            relations.undelete(self, schema, normal_id(record_id))

    def purge(self, object_name: str, record_id: str) -> None:
        """Remove a record for good, out of the recycle bin or past it; there is no event for it.

        Raises:
            OrgError: There is no such record.
        """
        schema = self.object_for(object_name, "delete")
        with self.atomic():
            relations.purge(self, schema, normal_id(record_id))

    def merge(
        self,
        object_name: str,
        winner_id: str,
        loser_ids: Sequence[str],
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Merge up to two records into one: children move over, losers are deleted and name their master.

        Raises:
            OrgError: The object cannot be merged, a record is missing, or the values are refused.
        """
        schema = self.object_for(object_name, "merge")
        with self.atomic():
            if values:
                self.update(schema.name, winner_id, values)
            relations.merge(self, schema, normal_id(winner_id), [normal_id(loser) for loser in loser_ids])

    def convert_lead(
        self,
        lead_id: str,
        *,
        status: str = conversion.CONVERTED_STATUS,
        account_id: str | None = None,
        contact_id: str | None = None,
        opportunity_name: str | None = None,
        create_opportunity: bool = True,
    ) -> conversion.Converted:
        """Convert a lead into an account, a contact and maybe an opportunity.

        Args:
            lead_id: The lead.
            status: Its new status.
            account_id: An account that is there already, else one is made.
            contact_id: A contact that is there already, else one is made.
            opportunity_name: Name of the opportunity, else the company's.
            create_opportunity: Make one at all.

        Raises:
            OrgError: The lead is missing, deleted, or converted already.
        """
        with self.atomic():
            order = conversion.Order(
                status=status,
                account_id=account_id,
                contact_id=contact_id,
                opportunity_name=opportunity_name,
                create_opportunity=create_opportunity,
            )
            return conversion.convert(self, normal_id(lead_id), order)

    def recalculate(self, object_name: str, record_id: str, values: Mapping[str, Any]) -> None:
        """Set fields as the org does behind everybody's back: no stamp moves and no event tells of it.

        For formula and roll-up fields whose inputs changed elsewhere.

        Raises:
            OrgError: There is no such live record, or a value does not fit.
        """
        schema = self.object_for(object_name, "update")
        before = self.live(schema, record_id)
        unknown = [name for name in values if name not in schema.fields]
        if unknown:
            raise OrgError(400, "INVALID_FIELD", f"No such column '{unknown[0]}' on sobject of type {schema.name}")
        stored = {name: validation.stored_value(schema.fields[name], value) for name, value in values.items()}
        self.parts.database.update(schema.table, before["Id"], stored)

    # What the modules that share the work build on.

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

    def _birth(self, schema: ObjectSchema) -> Record:
        stamps = self.stamps()
        made = {"CreatedDate": stamps["SystemModstamp"], "CreatedById": self.user_id, "IsDeleted": False}
        return {**stamps, **made, "Id": self.parts.ids.make(schema.key_prefix)}

    def _save(self, schema: ObjectSchema, before: Record | None, row: Record, written: list[str]) -> None:
        """Derive, check and store one record as a user wrote it."""
        derive(schema, row, written, before)
        automatic = self.parts.rules.automation(schema.name, row)
        if automatic:
            row |= {n: validation.stored_value(schema.fields[n], value) for n, value in automatic.items()}
            derive(schema, row, list(automatic), before)
        validation.check_required(schema, row, None if before is None else written)
        check_references(self, schema, row, written)
        self.parts.rules.check(schema.name, row)
        self.parts.rules.check_duplicates(schema.name, row, self._matches, allow_save=self.allow_duplicates)
        self._check_unique(schema, row, written)
        self.write(schema, before, row)

    def _matches(self, object_name: str, values: Mapping[str, Any]) -> list[str]:
        schema = self.object_for(object_name, "update")
        found = [set(self.parts.database.ids_where(schema.table, name, value)) for name, value in values.items()]
        return sorted(set.intersection(*found))

    def _check_unique(self, schema: ObjectSchema, row: Record, written: list[str]) -> None:
        for name in written:
            if not schema.fields[name].unique or row[name] is None:
                continue
            others = [i for i in self.find(schema, schema.fields[name], row[name]) if i != row["Id"]]
            if others:
                message = f"duplicate value found: {name} duplicates value on record with id: {others[0][:15]}"
                raise OrgError(400, "DUPLICATE_VALUE", message, [])


def key_field(schema: ObjectSchema, name: str) -> Field:
    """Return the field by which records can be addressed: `Id`, an external id or another look-up field.

    Raises:
        OrgError: 404 NOT_FOUND: there is no such field, or it is no key.
    """
    found = schema.field(name)
    if found is None or not (found.external_id or found.id_lookup):
        message = f"Provided external ID field does not exist or is not accessible: {name}"
        raise OrgError(404, "NOT_FOUND", message)
    return found
