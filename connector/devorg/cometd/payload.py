"""The payload of an event as the Streaming API words it, where the documents leave that open."""

from typing import Any

import orjson

from connector.devorg.events.changes import EventOptions

HEADER = "ChangeEventHeader"


def as_streamed(payload: bytes, options: EventOptions) -> bytes:
    """A payload of the event log as a CometD subscriber gets it; one that is no change event stays as it is.

    The log names the changed fields and holds every cleared part: the Pub/Sub API always tells both.
    """
    if options.changed_fields and options.nested_nulls:
        return payload
    event = orjson.loads(payload)
    if not isinstance(event, dict) or not isinstance(event.get(HEADER), dict):
        return payload
    if not options.changed_fields:
        event[HEADER].pop("changedFields", None)
    return orjson.dumps(event if options.nested_nulls else {name: _lifted(value) for name, value in event.items()})


def _lifted(value: Any) -> Any:
    """None for a compound whose parts are all null."""
    return None if isinstance(value, dict) and value and all(part is None for part in value.values()) else value
