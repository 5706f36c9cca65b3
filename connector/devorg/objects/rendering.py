"""Stored records as the REST API writes them."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from connector.devorg.clock import rest_datetime
from connector.devorg.objects.fields import Field, ObjectSchema

NEWEST_VERSION = "66.0"


def decoded(schema: ObjectSchema, row: sqlite3.Row) -> dict[str, Any]:
    """Return a database row as a record: every stored field by API name, booleans as booleans."""
    # By its name a row finds a value only after comparing the name with those of all columns before it.
    values = dict(zip(row.keys(), row, strict=True))
    return {
        field.name: bool(values[field.name]) if field.type == "boolean" else values[field.name]
        for field in schema.stored
    }


def attributes(schema: ObjectSchema, record_id: str, version: str = NEWEST_VERSION) -> dict[str, str]:
    """Return the `attributes` member of a record."""
    return {"type": schema.name, "url": f"/services/data/v{version}/sobjects/{schema.name}/{record_id}"}


def rest_value(schema: ObjectSchema, record: Mapping[str, Any], field: Field) -> Any:
    """Return one field of a record as REST writes it; a compound is an object with lower-case keys, or null."""
    if not field.stored:
        parts = schema.parts(field.name)
        values = {_lower_first(name): record[part.name] for name, part in sorted(parts.items())}
        return values if any(value is not None for value in values.values()) else None
    value = record[field.name]
    return rest_datetime(value) if field.type == "datetime" and value is not None else value


def _lower_first(name: str) -> str:
    return name[:1].lower() + name[1:]


def rest_record(
    schema: ObjectSchema,
    record: Mapping[str, Any],
    fields: Iterable[Field] | None = None,
    version: str = NEWEST_VERSION,
) -> dict[str, Any]:
    """Return a record as the body of a row GET: `attributes`, then `fields`, or all of them."""
    body: dict[str, Any] = {"attributes": attributes(schema, record["Id"], version)}
    for field in schema.fields.values() if fields is None else fields:
        body[field.name] = rest_value(schema, record, field)
    return body
