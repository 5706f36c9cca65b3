"""Checks that what a record points at is there."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from connector.devorg.errors import OrgError
from connector.devorg.fields import Field, ObjectSchema

if TYPE_CHECKING:
    from connector.devorg.transaction import Transaction


def check_references(
    transaction: "Transaction", schema: ObjectSchema, row: Mapping[str, Any], written: Iterable[str]
) -> None:
    """Check the look-ups that a write brings.

    Raises:
        OrgError: A referenced record is of a wrong object, missing, deleted, or an inactive user.
    """
    for name in written:
        field = schema.fields[name]
        if field.type != "reference" or row[name] is None:
            continue
        if "RecordType" in field.reference_to:
            _check_record_type(schema, field, row[name])
        else:
            _check_target(transaction, field, row[name])


def _check_record_type(schema: ObjectSchema, field: Field, record_id: str) -> None:
    if all(info["recordTypeId"] != record_id for info in schema.raw["recordTypeInfos"]):
        message = f"{field.label}: this ID value isn't valid for the user: {record_id}"
        raise OrgError(400, "INVALID_CROSS_REFERENCE_KEY", message, [field.name])


def _check_target(transaction: "Transaction", field: Field, record_id: str) -> None:
    target = transaction.parts.schema.by_prefix(record_id[:3])
    if target is not None and target.name not in field.reference_to:
        message = f"{field.label}: id value of incorrect type: {record_id}"
        raise OrgError(400, "FIELD_INTEGRITY_EXCEPTION", message, [field.name])
    found = None if target is None else transaction.record(target, record_id)
    if found is None:
        raise OrgError(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [])
    if found["IsDeleted"]:
        raise OrgError(400, "ENTITY_IS_DELETED", "entity is deleted", [])
    if field.name == "OwnerId" and found.get("IsActive") is False:
        message = f"operation performed with inactive user [{record_id}] as owner of record"
        raise OrgError(400, "INACTIVE_OWNER_OR_USER", message, [field.name])
