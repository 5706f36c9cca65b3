"""Events of a channel that delivers some fields always, changed or not."""

from collections.abc import Sequence
from typing import Any

import orjson

from connector.devorg.database import OrgDatabase
from connector.devorg.events.changes import EventOptions, enrichment
from connector.devorg.objects.rendering import decoded
from connector.devorg.objects.schema import Schema

ENRICHED_TYPES = ("UPDATE", "DELETE")


def enriched(
    payload: bytes, fields: Sequence[str], schema: Schema, database: OrgDatabase, options: EventOptions
) -> list[bytes]:
    """One event per record with the fields added, or the event as it is where it has no enrichment.

    The values are those of the moment of delivery: a replay shows today's. Empty ones are left out.

    Source: Change Data Capture Developer Guide, "Enriched Fields" and "Enrichment Considerations".
    """
    event = orjson.loads(payload)
    header = event.get("ChangeEventHeader") if isinstance(event, dict) else None
    if not fields or not isinstance(header, dict) or header.get("changeType") not in ENRICHED_TYPES:
        return [payload]
    found = schema.require(header["entityName"])
    events = []
    for record_id in header["recordIds"]:
        row = database.row(found.table, record_id)
        extra = {} if row is None else enrichment(found, decoded(found, row), fields, options)
        own = event | {"ChangeEventHeader": header | {"recordIds": [record_id]}}
        events.append(orjson.dumps(_joined(own, extra)))
    return events


def _joined(event: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The event with what it lacks; what it tells of a change stays as it is."""
    joined = dict(event)
    for name, value in extra.items():
        told = joined.get(name, value)
        joined[name] = {**value, **told} if isinstance(value, dict) and isinstance(told, dict) else told
    return joined
