"""JSON Schemas of the objects' records, made of the org's own descriptions."""

from collections.abc import Mapping
from typing import Any

from connector.model.objects import FieldSpec, Kind, ObjectSpec
from connector.schemas.documents import DIALECT, URN, VERSION

_TYPES: Mapping[Kind, Mapping[str, str]] = {
    "text": {"type": "string"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
}


def object_schema(spec: ObjectSpec) -> dict[str, Any]:
    """JSON Schema 2020-12 of a record of the object as changes and replies carry it.

    `readOnly` are the fields that no command may set, whatever the settings allow.
    """
    fields = {field.name: _field_schema(field) for field in spec.fields}
    return {
        "$schema": DIALECT,
        "$id": f"{URN}:object:{spec.name}:{VERSION}",
        "title": spec.name,
        "type": "object",
        "properties": {"Id": {"type": "string", "pattern": f"^{spec.key_prefix}[A-Za-z0-9]+$", "readOnly": True}}
        | fields,
        "required": ["Id", *fields],
    }


def _field_schema(field: FieldSpec) -> dict[str, Any]:
    schema: dict[str, Any] = {"$comment": field.type, **_TYPES[field.kind]}
    if field.kind == "text" and field.length:
        schema["maxLength"] = field.length
    if field.values is not None and field.type == "picklist":
        schema["enum"] = sorted(field.values)
    if field.reference_to:
        schema["$comment"] = f"reference to {', '.join(field.reference_to)}"
    # What the org keeps empty for now is null, whether a user may leave it so or not.
    schema["type"] = [schema["type"], "null"]
    if "enum" in schema:
        schema["enum"].append(None)
    if not (field.createable or field.updateable):
        schema["readOnly"] = True
    return schema
