"""What a write to one record does to others: cascading deletes, cleared look-ups, merges, and the way back.

Source: Object Reference, "Relationships"; SOAP API Developer Guide, "delete()", "undelete()", "merge()".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.objects.fields import ObjectSchema
from connector.devorg.objects.schema import Schema
from connector.devorg.records.work import Work

MAX_LOSERS = 2
_NO_CHILDREN = frozenset({"CreatedById", "LastModifiedById", "MasterRecordId"})
_CONVERTED = "Converted"


@dataclass(frozen=True, slots=True)
class Relationship:
    """A field of `child` that points at a parent object."""

    child: ObjectSchema
    field: str
    cascades: bool
    restricts: bool


def relationships(schema: Schema, parent: ObjectSchema) -> Iterator[Relationship]:
    """Yield the relationships whose parent is `parent`; what a deletion does follows the describe results."""
    declared = {(row["childSObject"], row["field"]): row for row in parent.raw["childRelationships"]}
    for child in filter(None, map(schema.get, schema.names())):
        for field in child.stored:
            if parent.name not in field.reference_to or field.name in _NO_CHILDREN:
                continue
            known = declared.get((child.name, field.name), field.raw)
            yield Relationship(child, field.name, known["cascadeDelete"], known["restrictedDelete"])


def delete(work: Work, schema: ObjectSchema, before: dict[str, Any], *, deleted_with: str) -> None:
    """Put a record into the recycle bin, then its cascading children, and clear the look-ups of the others.

    Raises:
        OrgError: 400 DELETE_FAILED where a child forbids it; 400 UNABLE_TO_LOCK_ROW.
    """
    record_id = before["Id"]
    work.check_lock(record_id)
    after = {**before, **work.stamps(), "IsDeleted": True}
    work.write(schema, before, after)
    work.parts.database.connection.execute(
        "INSERT OR REPLACE INTO delete_log VALUES (?, ?, ?, ?)",
        (schema.name, record_id, after["SystemModstamp"], deleted_with),
    )
    for relationship in relationships(work.parts.schema, schema):
        for child_id in _children(work, relationship, record_id):
            _let_go(work, relationship, child_id, deleted_with)


def _children(work: Work, relationship: Relationship, parent_id: str) -> list[str]:
    return work.parts.database.ids_where(relationship.child.table, relationship.field, parent_id)


def _let_go(work: Work, relationship: Relationship, child_id: str, deleted_with: str) -> None:
    child = work.record(relationship.child, child_id)
    if child is None or relationship.field.startswith(_CONVERTED):
        return
    if relationship.restricts:
        message = "Your attempt to delete this record could not be completed because other records point at it."
        raise OrgError(400, "DELETE_FAILED", message, [])
    if relationship.cascades:
        delete(work, relationship.child, child, deleted_with=deleted_with)
    else:
        _point(work, relationship, child, None)


def _point(work: Work, relationship: Relationship, child: dict[str, Any], parent_id: str | None) -> None:
    work.check_lock(child["Id"])
    after = {**child, **work.stamps(), relationship.field: parent_id}
    work.write(relationship.child, child, after)


def undelete(work: Work, schema: ObjectSchema, record_id: str) -> None:
    """Bring back a record and whatever its deletion took along.

    Raises:
        OrgError: 400 UNDELETE_FAILED.
    """
    before = work.record(schema, record_id)
    if before is None or not before["IsDeleted"]:
        raise OrgError(400, "UNDELETE_FAILED", "Entity is not in the recycle bin", [])
    if before.get("MasterRecordId") is not None:
        raise OrgError(400, "UNDELETE_FAILED", "Cannot undelete a record that was merged", [])
    work.check_lock(record_id)
    for found, row in _deleted_with(work, schema, before):
        work.write(found, row, {**row, **work.stamps(), "IsDeleted": False})
        work.parts.database.connection.execute(
            "DELETE FROM delete_log WHERE object = ? AND id = ?", (found.name, row["Id"])
        )


def _deleted_with(work: Work, schema: ObjectSchema, root: dict[str, Any]) -> list[tuple[ObjectSchema, dict[str, Any]]]:
    """Return the record and those that its deletion took along, itself first."""
    found = [(schema, root)]
    logged = work.parts.database.connection.execute(
        "SELECT object, id FROM delete_log WHERE deleted_with = ? AND id <> deleted_with ORDER BY object, id",
        (root["Id"],),
    )
    for entry in logged.fetchall():
        child_schema = work.parts.schema.get(entry["object"])
        child = None if child_schema is None else work.record(child_schema, entry["id"])
        if child_schema is not None and child is not None and child["IsDeleted"]:
            found.append((child_schema, child))
    return found


def purge(work: Work, schema: ObjectSchema, record_id: str) -> None:
    """Remove a record for good, with what its deletion took along.

    Raises:
        OrgError: 400 INVALID_CROSS_REFERENCE_KEY: there is no such record; 400 UNABLE_TO_LOCK_ROW.
    """
    record = work.record(schema, record_id)
    if record is None:
        raise OrgError(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [])
    if not record["IsDeleted"]:
        delete(work, schema, record, deleted_with=record_id)
    work.check_lock(record_id)
    for found, row in _deleted_with(work, schema, record):
        work.before.setdefault((found.name, row["Id"]), row)
        work.parts.database.remove(found.table, row["Id"])


def merge(work: Work, schema: ObjectSchema, winner_id: str, loser_ids: Sequence[str]) -> None:
    """Move the losers' children to the winner, then delete the losers.

    Raises:
        OrgError: A record is missing, deleted or locked, or there are too many.
    """
    if not 1 <= len(set(loser_ids) - {winner_id}) == len(loser_ids) <= MAX_LOSERS:
        raise OrgError(400, "INVALID_OPERATION", f"merge takes 1 to {MAX_LOSERS} records besides the master", [])
    work.live(schema, winner_id)
    for loser_id in loser_ids:
        work.live(schema, loser_id)
        for relationship in relationships(work.parts.schema, schema):
            for child_id in _children(work, relationship, loser_id):
                child = work.record(relationship.child, child_id)
                if child is not None and child_id not in loser_ids:
                    _point(work, relationship, child, winner_id)
    for loser_id in loser_ids:
        loser = work.live(schema, loser_id)
        marked = {**loser, "MasterRecordId": winner_id}
        work.write(schema, loser, marked)
        delete(work, schema, marked, deleted_with=loser_id)
