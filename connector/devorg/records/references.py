"""What a record points at: named by id or by external id, and checked to be there."""

from collections.abc import Iterable, Mapping
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.objects.fields import Field, ObjectSchema
from connector.devorg.records.work import Work


def check_references(work: Work, schema: ObjectSchema, row: Mapping[str, Any], written: Iterable[str]) -> None:
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
            _check_target(work, field, row[name])


def resolved(work: Work, schema: ObjectSchema, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with each parent that is named by an external id, `{"Account": {"Key__c": "x"}}`, as its id.

    Source: REST API Developer Guide, "Upsert Records Using sObject Rows by External ID", relationships.

    Raises:
        OrgError: 400 INVALID_FIELD: no parent, or more than one, has that external id.
    """
    by_relationship = {str(f.relationship_name).lower(): f for f in schema.stored if f.relationship_name}
    result = {}
    for name, value in values.items():
        field = by_relationship.get(name.lower()) if isinstance(value, dict) and name != "attributes" else None
        if field is None:
            result[name] = value
        else:
            result[field.name] = _parent_id(work, field, value)
    return result


def _parent_id(work: Work, field: Field, named: Mapping[str, Any]) -> str:
    attributes = named.get("attributes")
    kind = attributes.get("type") if isinstance(attributes, dict) else None
    keys = [(name, value) for name, value in named.items() if name != "attributes"]
    candidates = [name for name in field.reference_to if kind is None or name.lower() == str(kind).lower()]
    parent = work.parts.schema.get(candidates[0]) if candidates else None
    key = parent.field(keys[0][0]) if parent is not None and len(keys) == 1 else None
    if parent is None or key is None or not (key.external_id or key.id_lookup):
        message = f"{field.relationship_name} does not name one external ID field of {', '.join(field.reference_to)}"
        raise OrgError(400, "INVALID_FIELD", message)
    found = work.find(parent, key, keys[0][1])
    if len(found) != 1:
        message = f"Foreign key external ID: {keys[0][1]} not found for field {key.name} in entity {parent.name}"
        raise OrgError(400, "INVALID_FIELD", message)
    return found[0]


def _check_record_type(schema: ObjectSchema, field: Field, record_id: str) -> None:
    if all(info["recordTypeId"] != record_id for info in schema.raw["recordTypeInfos"]):
        message = f"{field.label}: this ID value isn't valid for the user: {record_id}"
        raise OrgError(400, "INVALID_CROSS_REFERENCE_KEY", message, [field.name])


def _check_target(work: Work, field: Field, record_id: str) -> None:
    target = work.parts.schema.by_prefix(record_id[:3])
    if target is not None and target.name not in field.reference_to:
        message = f"{field.label}: id value of incorrect type: {record_id}"
        raise OrgError(400, "FIELD_INTEGRITY_EXCEPTION", message, [field.name])
    found = None if target is None else work.record(target, record_id)
    if found is None:
        raise OrgError(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [])
    if found["IsDeleted"]:
        raise OrgError(400, "ENTITY_IS_DELETED", "entity is deleted", [])
    if field.name == "OwnerId" and found.get("IsActive") is False:
        message = f"operation performed with inactive user [{record_id}] as owner of record"
        raise OrgError(400, "INACTIVE_OWNER_OR_USER", message, [field.name])
