"""The schemas of change events by their ids; what an event was ever logged with can be asked for."""

import base64
import hashlib

import orjson

from connector.devorg.database import OrgDatabase
from connector.devorg.events.avro import avro_schema
from connector.devorg.events.changes import EventOptions
from connector.devorg.objects.schema import Schema

_TABLE = """
CREATE TABLE IF NOT EXISTS event_schema (
    schema_id TEXT PRIMARY KEY,
    entity TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT
"""


class EventSchemas:
    """Kept in the org's file; at most one per object and set of fields."""

    def __init__(self, database: OrgDatabase, schema: Schema, options: EventOptions) -> None:
        self._connection = database.connection
        self._schema = schema
        self._options = options
        self._connection.execute(_TABLE)

    def current(self, entity: str) -> str:
        """The id of an object's schema as it is now."""
        schema_id = self._schema.event_schema_id(entity)
        if not self._options.internal_parts:
            return schema_id
        digest = hashlib.sha256(f"{schema_id} with internal parts".encode()).digest()[:16]
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def used(self, entity: str) -> str:
        """The same, and an event is about to be logged with it."""
        schema_id = self.current(entity)
        if self._stored(schema_id) is None:
            values = (schema_id, entity, self._body(entity))
            self._connection.execute("INSERT INTO event_schema VALUES (?, ?, ?)", values)
        return schema_id

    def body(self, schema_id: str) -> str | None:
        """The schema as JSON text; None for an id that never was one."""
        stored = self._stored(schema_id)
        if stored is not None:
            return stored
        name = next((name for name in self._schema.names() if self.current(name) == schema_id), None)
        return None if name is None else self._body(name)

    def _stored(self, schema_id: str) -> str | None:
        row = self._connection.execute("SELECT body FROM event_schema WHERE schema_id = ?", (schema_id,)).fetchone()
        return None if row is None else str(row[0])

    def _body(self, entity: str) -> str:
        schema = avro_schema(self._schema.require(entity), internal_parts=self._options.internal_parts)
        return orjson.dumps(schema).decode()
