"""The Avro schema of an object's change events, as the Pub/Sub API shows it.

Source: Pub/Sub API Developer Guide, "Event Deserialization Considerations"; recorded event schemas.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from connector.devorg.events.channels import event_api_name
from connector.devorg.events.layout import Slot, slots_of
from connector.devorg.objects.fields import Field, ObjectSchema

Avro = dict[str, Any]

HEADER = "ChangeEventHeader"
NAMESPACE = "com.sforce.eventbus"
_CHANGE_TYPES = (
    *("CREATE", "UPDATE", "DELETE", "UNDELETE"),
    *("GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE", "GAP_OVERFLOW", "SNAPSHOT"),
)
_TEXTS: Avro = {"type": "array", "items": "string"}
_BITMAPS = ("nulledFields", "diffFields", "changedFields")
_HEADER: Avro = {
    "type": "record",
    "name": HEADER,
    "fields": [
        {"name": "entityName", "type": "string"},
        {"name": "recordIds", "type": _TEXTS},
        {"name": "changeType", "type": {"type": "enum", "name": "ChangeType", "symbols": list(_CHANGE_TYPES)}},
        {"name": "changeOrigin", "type": "string"},
        {"name": "transactionKey", "type": "string"},
        {"name": "sequenceNumber", "type": "int"},
        {"name": "commitTimestamp", "type": "long"},
        {"name": "commitNumber", "type": "long"},
        {"name": "commitUser", "type": "string"},
        *({"name": name, "type": _TEXTS} for name in _BITMAPS),
    ],
}
# Describe type -> Avro type and the second part of `doc`; what is not here is text.
_TYPES: Mapping[str, tuple[str, str]] = {
    "boolean": ("boolean", "Boolean"),
    "int": ("int", "Integer"),
    "double": ("double", "Double"),
    "currency": ("double", "CurrencyValue"),
    "percent": ("double", "Percent"),
    "date": ("long", "DateOnly"),
    "datetime": ("long", "DateTime"),
    "time": ("long", "TimeOnly"),
    "email": ("string", "Email"),
    "phone": ("string", "Phone"),
    "url": ("string", "Url"),
    "picklist": ("string", "DynamicEnum"),
    "multipicklist": ("string", "MultiEnum"),
    "textarea": ("string", "StringPlusClob"),
    "reference": ("string", "EntityId"),
}
_TEXT = ("string", "Text")


def avro_schema(schema: ObjectSchema, *, internal_parts: bool = False) -> Avro:
    """The schema of an object's change events.

    Args:
        schema: The object.
        internal_parts: Addresses have the member `Xyz`, which some recorded schemas have.
    """
    groups: dict[str, list[Slot]] = {}
    for slot in slots_of(schema):
        groups.setdefault(slot.parent or slot.name, []).append(slot)
    records: dict[str, Avro] = {}
    fields: list[Avro] = [{"name": HEADER, "type": _HEADER}]
    for name, slots in groups.items():
        if slots[0].parent is None:
            fields.append(_field(name, slots[0]))
        else:
            record = _record(schema.fields[name], slots, records, internal_parts=internal_parts)
            fields.append({"name": name, "type": ["null", record], "default": None})
    return {"type": "record", "name": event_api_name(schema.name), "namespace": NAMESPACE, "fields": fields}


def _field(name: str, slot: Slot) -> Avro:
    kind, told = _TYPES.get(slot.type, _TEXT)
    group = "ForeignKey" if slot.type == "reference" else "Data"
    return {"name": name, "type": ["null", kind], "doc": f"{group}:{told}", "default": None}


def _record(compound: Field, slots: Sequence[Slot], records: dict[str, Avro], *, internal_parts: bool) -> Avro | str:
    """The record of a compound, or the name of the one defined before; parts of another kind need another name."""
    parts = [_field(slot.label, slot) for slot in slots]
    if internal_parts and compound.type == "address":
        parts.insert(-1, {"name": "Xyz", "type": ["null", "string"], "default": None})
    name = {"address": "Address", "location": "Location"}.get(compound.type, "PersonName")
    if name in records and records[name]["fields"] != parts:
        name = f"{name}_{compound.name}"
    if name in records:
        return name
    records[name] = {"type": "record", "name": name, "fields": parts}
    return records[name]
