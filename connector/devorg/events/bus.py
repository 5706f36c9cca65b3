"""The org's event log: change events under gappy replay ids, kept for the retention window."""

import asyncio
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from connector.devorg.clock import OrgClock
from connector.devorg.commits import Commit
from connector.devorg.database import OrgDatabase
from connector.devorg.events.changes import OVERFLOW_ID, EventOptions, event_header, render
from connector.devorg.events.channels import Channel
from connector.devorg.events.enrich import enriched
from connector.devorg.events.event_schemas import EventSchemas
from connector.devorg.events.filters import filter_fields, passing
from connector.devorg.objects.schema import Schema

FIRST_REPLAY_ID = 37_904_280
REPLAY_ID_AFTER_RESET = 2_000_000
LARGEST_GAP = 13
MOST_ENRICHED = 10
_SCATTER = 2_654_435_761
TRIMMED_AT_ONCE = 5000

_TABLES = """
CREATE TABLE IF NOT EXISTS event_log (
    replay_id INTEGER PRIMARY KEY,
    logged_ms INTEGER NOT NULL,
    entity TEXT NOT NULL,
    selected INTEGER NOT NULL,      -- the object was selected for Change Data Capture, not only for a channel
    schema_id TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS event_log_entity ON event_log (entity, replay_id);
CREATE INDEX IF NOT EXISTS event_log_time ON event_log (logged_ms, replay_id);
"""
_INSERT = "INSERT INTO event_log VALUES (?, ?, ?, ?, ?, ?)"
_LAST_ID, _CHANNELS, _FILTERS = "event_log.last_id", "event_log.channels", "event_log.filters"
_TOLD = "event_log.told"


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event as it was logged; `payload` is JSON, `logged_ms` by the org's clock."""

    replay_id: int
    logged_ms: int
    entity: str
    schema_id: str
    payload: bytes


class EventBus:
    """One append-only log for all channels; survives a restart of the org.

    Attributes:
        options: Read anew for each event.
        schemas: Of the events, by the ids they were logged with.
        epoch: Counts the resets of the stream; positions of another epoch mean nothing.
        custom_channels: Enriched fields by object, by the name of a channel of the org's own (`Sales__chn`).
        channel_filters: Filter expressions by object, likewise.

    Source: Streaming API Developer Guide, "Message Durability".
    """

    def __init__(self, database: OrgDatabase, schema: Schema, clock: OrgClock, options: EventOptions) -> None:
        self.options = options
        self.epoch = 0
        self._database, self._schema, self._clock = database, schema, clock
        self._signal = asyncio.Event()
        self.schemas = EventSchemas(database, schema, options)
        database.connection.executescript(_TABLES)
        newest = database.connection.execute("SELECT max(replay_id) FROM event_log").fetchone()[0]
        self._last_id = max(newest or 0, int(database.meta(_LAST_ID) or FIRST_REPLAY_ID))
        # The position that was given out without an event, and when by the org's clock.
        self._told: tuple[int, int] | None = orjson.loads(database.meta(_TOLD) or "null")
        self.custom_channels: dict[str, dict[str, list[str]]] = orjson.loads(database.meta(_CHANNELS) or "{}")
        self.channel_filters: dict[str, dict[str, str]] = orjson.loads(database.meta(_FILTERS) or "{}")

    def append(self, commit: Commit) -> None:
        """Log the events of a transaction, inside the database transaction that is open.

        Only objects that are selected, for all or for a channel of the org's own, have events.
        """
        payloads = render(commit, self._schema, self.options)
        entities = {change.object for change in commit.changes if self._is_logged(change.object)}
        schema_ids = {entity: self.schemas.used(entity) for entity in entities}
        logged_ms, rows = self._clock.now_ms(), []
        for payload in payloads:
            entity = payload["ChangeEventHeader"]["entityName"]
            if entity in entities:
                selected = int(entity in self._schema.selected)
                data = orjson.dumps(payload)
                rows.append((self._next_id(), logged_ms, entity, selected, schema_ids[entity], data))
        self._database.connection.executemany(_INSERT, rows)
        self._trim()

    def emit(self, payload: Any, *, entity: str = "") -> int:
        """Log a payload as it stands, whatever it is, and tell its replay id.

        Args:
            payload: Any JSON; an undecodable one as well.
            entity: The object whose channel carries it; empty is the one its header names.
        """
        name = entity or str(payload["ChangeEventHeader"]["entityName"])
        known = self._schema.get(name)
        with self._database.transaction():
            schema_id = "" if known is None else self.schemas.used(name)
            row = (self._next_id(), self._clock.now_ms(), name, 1, schema_id, orjson.dumps(payload))
            self._database.connection.execute(_INSERT, row)
        self.wake()
        return self._last_id

    def emit_without_body(
        self,
        entity: str,
        change_type: str,
        record_ids: Sequence[str] = (OVERFLOW_ID,),
        *,
        user_id: str = "",
        origin: str = "",
        transaction_key: str = "",
    ) -> int:
        """Log a gap, overflow or wildcard event that no transaction of the org gave, and tell its replay id.

        Args:
            entity: API name of the object.
            change_type: For instance `GAP_UPDATE` or `GAP_OVERFLOW`.
            record_ids: 18-character ids; `("003*",)` is every record.
            user_id: `commitUser`.
            origin: `changeOrigin`, mostly empty.
            transaction_key: Empty is a new one.
        """
        now_ms = self._clock.now_ms()
        header = event_header(
            entity=entity,
            record_ids=record_ids,
            change_type=change_type,
            transaction_key=transaction_key or str(uuid.uuid4()),
            commit_ms=now_ms // 1000 * 1000,
            commit_number=now_ms,
            user_id=user_id,
            origin=origin,
        )
        return self.emit({"ChangeEventHeader": header})

    def told(self, channel: Channel, event: LoggedEvent, *, gaps: bool = True) -> list[bytes]:
        """The payloads that stand for an event on a channel: one, with enrichment one per record, filtered maybe none.

        `gaps`: channels that filter deliver gap and overflow events.
        """
        payload: bytes | None = event.payload
        expression = channel.filters.get(event.entity)
        if expression is not None:
            payload = passing(event.payload, event.entity, expression, self._schema, self._database, gaps=gaps)
        fields = channel.enriched.get(event.entity, ())
        if payload is None or not fields:
            return [] if payload is None else [payload]
        return enriched(payload, fields, self._schema, self._database, self.options)

    def read(self, channel: Channel, after: int, limit: int) -> list[LoggedEvent]:
        """At most `limit` events of the channel behind position `after`, in order."""
        condition, names = "selected = 1", tuple(channel.entities or ())
        if channel.entities is not None:
            condition = f"entity IN ({', '.join('?' * len(names))})"
            condition += "" if channel.is_custom else " AND selected = 1"
        # The condition is made of the texts above; what comes from outside is bound.
        statement = (
            "SELECT replay_id, logged_ms, entity, schema_id, payload FROM event_log"  # noqa: S608
            f" WHERE replay_id > ? AND {condition} ORDER BY replay_id LIMIT ?"
        )
        rows = self._database.connection.execute(statement, (after, *names, limit))
        return [LoggedEvent(*row) for row in rows]

    def latest_id(self) -> int:
        """The newest position: behind it come new events only."""
        return self._last_id

    def told_position(self) -> int:
        """The newest position, given out without an event: it is valid for the retention window from now on."""
        self._told = self._last_id, self._clock.now_ms()
        with self._database.transaction():
            self._database.set_meta(_TOLD, orjson.dumps(self._told).decode())
        return self._last_id

    def oldest_position(self) -> int:
        """The position behind which every event of the retention window comes."""
        statement = "SELECT max(replay_id) FROM event_log WHERE logged_ms < ?"
        expired: int | None = self._database.connection.execute(statement, (self._horizon_ms(),)).fetchone()[0]
        return expired or 0

    def valid(self, replay_id: int) -> bool:
        """Whether a subscription may start behind this id: it is a position inside the retention window.

        An id that was published and lies between two others is a position as well; an id older than the window is
        none even where nothing was published since, unless it was given out again.
        """
        if self._told is not None and replay_id == self._told[0] and self._told[1] >= self._horizon_ms():
            return True
        statement = "SELECT logged_ms FROM event_log WHERE replay_id <= ? ORDER BY replay_id DESC LIMIT 1"
        if not 0 <= replay_id <= self._last_id:
            return False
        row = self._database.connection.execute(statement, (replay_id,)).fetchone()
        return row is not None and row["logged_ms"] >= self._horizon_ms()

    def is_foreign(self, channel: Channel, replay_id: int) -> bool:
        """Whether the id is that of an event which the channel does not carry."""
        found = "SELECT 1 FROM event_log WHERE replay_id = ?"
        known = self._database.connection.execute(found, (replay_id,)).fetchone() is not None
        return known and not any(event.replay_id == replay_id for event in self.read(channel, replay_id - 1, 1))

    def expire_all(self) -> None:
        """Make every replay id given so far invalid."""
        self._told = None
        with self._database.transaction():
            self._database.connection.execute("DELETE FROM event_log")
            self._database.set_meta(_LAST_ID, str(self._last_id))
            self._database.set_meta(_TOLD, "null")

    def reset(self) -> None:
        """Start a new stream, as an org that moved to another instance: old ids mean nothing in it."""
        self.expire_all()
        self._last_id = REPLAY_ID_AFTER_RESET + self.epoch
        self._database.set_meta(_LAST_ID, str(self._last_id))
        self.epoch += 1
        self.wake()

    def define_channel(
        self,
        name: str,
        entities: Collection[str],
        always: Mapping[str, Collection[str]] | None = None,
        filters: Mapping[str, str] | None = None,
    ) -> None:
        """Make or change a channel of the org's own and remember it; no entities take it away.

        Args:
            name: Ends in `__chn`.
            entities: Objects that it carries.
            always: Fields (or compounds) by object that it delivers with every update and delete, at most ten.
            filters: Expressions by object; the fields that one looks at are always delivered, too.

        Raises:
            ValueError: The name, an object or a field is not as expected.
        """
        members: dict[str, list[str]] = {}
        chosen: dict[str, str] = {}
        for entity in entities:
            found = self._schema.get(entity)
            fields = sorted((always or {}).get(entity, ()))
            if found is not None and (filters or {}).get(entity):
                chosen[found.name] = (filters or {})[entity]
                fields = sorted({*fields, *filter_fields(found.name, chosen[found.name], self._schema)})
            if found is None or len(fields) > MOST_ENRICHED or not all(map(found.field, fields)):
                raise ValueError(f"channel {name}: expected known objects with at most ten known fields, not {entity}")
            members[found.name] = fields
        if not name.endswith("__chn"):
            raise ValueError(f"channel {name}: expected a name ending in __chn")
        self.custom_channels.pop(name, None)
        self.channel_filters.pop(name, None)
        if members:
            self.custom_channels[name] = members
            self.channel_filters[name] = chosen
        self._database.set_meta(_CHANNELS, orjson.dumps(self.custom_channels).decode())
        self._database.set_meta(_FILTERS, orjson.dumps(self.channel_filters).decode())

    def wake(self) -> None:
        """Let everyone in `wait` look again; called once what was appended is committed."""
        signal, self._signal = self._signal, asyncio.Event()
        signal.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next `wake`, at most so many real seconds; False where it did not come.

        Nothing is missed between a `read` and a `wait` that have no other `await` between them.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._signal.wait()
        except TimeoutError:
            return False
        return True

    def _is_logged(self, entity: str) -> bool:
        return entity in self._schema.selected or any(entity in names for names in self.custom_channels.values())

    def _next_id(self) -> int:
        # Gaps as uneven as chance, yet the same in every run.
        self._last_id += 1 + (self._last_id * _SCATTER % 2**32 >> 16) % LARGEST_GAP
        return self._last_id

    def _horizon_ms(self) -> int:
        return self._clock.now_ms() - round(self.options.retention_s * 1000)

    def _trim(self) -> None:
        """Drop some of what the retention window has passed; the newest id outlives its event."""
        connection, horizon_ms = self._database.connection, self._horizon_ms()
        oldest = connection.execute("SELECT min(logged_ms) FROM event_log").fetchone()[0]
        if oldest is None or oldest >= horizon_ms:
            return
        statement = (
            "DELETE FROM event_log WHERE replay_id IN"
            " (SELECT replay_id FROM event_log WHERE logged_ms < ? ORDER BY logged_ms, replay_id LIMIT ?)"
        )
        connection.execute(statement, (horizon_ms, TRIMMED_AT_ONCE))
        self._database.set_meta(_LAST_ID, str(self._last_id))
