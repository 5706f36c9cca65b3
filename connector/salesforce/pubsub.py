"""`ChangeSource` over the Pub/Sub API: one disposable subscription per call of `events`."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import structlog

from connector.errors import LinkDown, OrgRefused, StreamRefused
from connector.eventbus.pubsub_api_pb2 import ConsumerEvent
from connector.model.change import OLDEST_KEPT, Reached, ReceivedEvent, ReplayId, Subscribed
from connector.model.command import OrgProblem
from connector.salesforce.delivered import Deliveries
from connector.salesforce.login import Session
from connector.salesforce.pubsub_client import Fetching, PubSubCalls, PubSubLimits
from connector.salesforce.pubsub_event import payload_of, remains_of
from connector.salesforce.pubsub_schema import EventSchema
from connector.salesforce.streaming import StreamLife, StreamStatus

log = structlog.get_logger()

# One per object and set of its fields: more than an org changes while we run.
_MOST_SCHEMAS = 500
_FORBIDDEN = 403


class PubSubSource:
    """See `ports.ChangeSource`, and `StreamLife` for when the next session may start.

    No more events are asked for than the window and what the consumer has applied: see `more`. A position is the
    replay id's bytes as they came.

    Args:
        session: Gives the token, and a new one where the org refuses it.
        url: Of the Pub/Sub API.
        channel: For instance `/data/ChangeEvents`.
        now_ms: Milliseconds since the Unix epoch, UTC.
        limits: Times and sizes of a session.
        on_state: Called after each change of state.
        deliveries: Counts the events.
    """

    def __init__(
        self,
        session: Session,
        *,
        url: str,
        channel: str,
        now_ms: Callable[[], int],
        limits: PubSubLimits | None = None,
        on_state: Callable[[], None] | None = None,
        deliveries: Deliveries | None = None,
    ) -> None:
        self._url = url
        self._channel = channel
        self._limits = limits or PubSubLimits()
        self._schemas: OrderedDict[str, EventSchema] = OrderedDict()
        self._fetching: Fetching | None = None  # of the last session
        self._life = StreamLife(
            session, now_ms=now_ms, healthy_s=self._limits.healthy_s, on_state=on_state, deliveries=deliveries
        )

    @property
    def status(self) -> StreamStatus:
        """How the stream is now."""
        return self._life.status

    async def events(self, after: ReplayId | None) -> AsyncIterator[Subscribed | Reached | Sequence[ReceivedEvent]]:
        """See `ChangeSource`. Close the iterator (`contextlib.aclosing`): that ends the session, in bounded time."""
        async with self._life.attempt() as token, PubSubCalls(self._url, token, self._limits) as calls:
            if not await calls.may_subscribe(self._channel):
                text = f"the user may not subscribe to {self._channel}"
                raise StreamRefused(_FORBIDDEN, (OrgProblem(code="PUBSUB_403", message=text, fields=[]),))
            async with calls.subscribe(self._channel, after) as fetching:
                self._life.subscribed(self._channel, _shown(after))
                self._life.saw_frame()
                self._fetching = fetching
                yield Subscribed(after)
                reading = _Reading(calls, self._schemas)
                reached_s = -self._limits.reached_every_s
                while True:
                    response = await fetching.next()
                    self._life.saw_frame()
                    now_s = asyncio.get_running_loop().time()
                    if response.events:
                        self._life.saw_events(len(response.events))
                        yield await reading.received(response.events, held_back=fetching.exhausted)
                    elif response.latest_replay_id and now_s >= reached_s + self._limits.reached_every_s:
                        reached_s = now_s
                        yield Reached(ReplayId(response.latest_replay_id))

    def more(self, events: int) -> None:
        """See `ChangeSource`."""
        if self._fetching is not None:
            self._fetching.more(events)


class _Reading:
    """Reads the events of one session.

    Args:
        calls: Asked for a schema that is not known.
        schemas: By id; those of earlier sessions too.
    """

    def __init__(self, calls: PubSubCalls, schemas: OrderedDict[str, EventSchema]) -> None:
        self._calls = calls
        self._schemas = schemas
        self._unreadable: dict[str, str] = {}

    async def received(self, events: Sequence[ConsumerEvent], *, held_back: bool) -> list[ReceivedEvent]:
        """The events of one response; see `ReceivedEvent.held_back`.

        Raises:
            ConnectorError: As for one.
        """
        read = [await self._received(event) for event in events]
        read[-1] = replace(read[-1], held_back=held_back)
        return read

    async def _received(self, event: ConsumerEvent) -> ReceivedEvent:
        """The event in the consumer's terms; one that cannot be read says why.

        Raises:
            LinkDown: It has no position.
            ConnectorError: Its schema cannot be had now.
        """
        if not event.replay_id:
            raise LinkDown("an event without a position")
        position, data = ReplayId(event.replay_id), event.event.payload
        schema = await self._schema(event.event.schema_id)
        if isinstance(schema, str):
            return ReceivedEvent(position, None, error=schema)
        try:
            return ReceivedEvent(position, payload_of(schema, data))
        except ValueError as error:
            return ReceivedEvent(position, remains_of(schema, data), error=str(error))

    async def _schema(self, schema_id: str) -> EventSchema | str:
        """The schema, or why there is none for the rest of the session."""
        if schema_id in self._schemas:
            self._schemas.move_to_end(schema_id)
            return self._schemas[schema_id]
        if schema_id in self._unreadable:
            return self._unreadable[schema_id]
        try:
            schema = EventSchema(await self._calls.schema(schema_id))
        except (OrgRefused, ValueError) as error:
            log.warning("source.schema_unusable", schema=schema_id, error=str(error))
            reason = f"its schema cannot be used: {error}"
            if len(self._unreadable) < _MOST_SCHEMAS:
                self._unreadable[schema_id] = reason
            return reason
        log.info("source.schema_read", schema=schema_id, fields=len(schema.fields))
        self._schemas[schema_id] = schema
        if len(self._schemas) > _MOST_SCHEMAS:
            self._schemas.popitem(last=False)
        return schema


def _shown(position: ReplayId | None) -> str:
    if position is None:
        return "new events"
    return "oldest kept" if position == OLDEST_KEPT else position.hex()
