"""A change event of the Pub/Sub API in the form that the Streaming API sends.

There every field is present and those that did not change are null; which were cleared is told by the header alone. So
nulls are left out, and the header's lists become names: what is not listed as nulled is not there.
"""

from collections.abc import Mapping
from typing import Any

from connector.salesforce.pubsub_bitmaps import field_names
from connector.salesforce.pubsub_schema import HEADER, EventSchema

_LISTS = ("changedFields", "nulledFields", "diffFields")


def payload_of(schema: EventSchema, data: bytes) -> dict[str, Any]:
    """The payload of an event, `ChangeEventHeader` and the fields that it tells of.

    Raises:
        ValueError: It was not written by the schema, or its lists name fields that the schema does not have.
    """
    members = schema.read(data)
    header = members.pop(HEADER)
    lists = {name: field_names(header[name], schema.fields) for name in _LISTS if name in header}
    return {HEADER: _clean(header) | lists, **_told(members)}


def remains_of(schema: EventSchema, data: bytes) -> dict[str, Any] | None:
    """What is left of an event that cannot be read: its header, if that can; its lists stay as they came."""
    header = schema.read_header(data)
    return None if header is None else {HEADER: _clean(header)}


def _told(members: Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, value in members.items():
        if isinstance(value, dict):
            parts = _clean({part: inner for part, inner in value.items() if inner is not None})
            if parts:
                told[name] = parts
        elif value is not None:
            told[name] = value
    return _clean(told)


def _clean(values: dict[str, Any]) -> dict[str, Any]:
    """As the other transport's JSON: a NUL ends a text for SQLite's functions and most readers of the replica."""
    return {
        name: value.replace("\0", "") if isinstance(value, str) and "\0" in value else value
        for name, value in values.items()
    }
