"""One subscriber of a topic: credit in, events out."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import orjson

from connector.devorg.context import Context
from connector.devorg.events.avro_writer import EventWriter
from connector.devorg.events.bus import LoggedEvent
from connector.devorg.events.channels import Channel
from connector.devorg.pubsub.refusals import (
    AUTHENTICATION,
    COUNT_INVALID,
    DELIVERIES_SPENT,
    INTERNAL,
    REPLAY_ID_INVALID,
    REPLAY_ID_MISSING,
    TOPIC_CHANGED,
    Refused,
)
from connector.devorg.pubsub.strikes import Strike
from connector.eventbus.pubsub_api_pb2 import (
    ConsumerEvent,
    FetchRequest,
    FetchResponse,
    ProducerEvent,
    ReplayPreset,
)

MOST_PENDING = 100
"""Source: Pub/Sub API Developer Guide, "Pub/Sub API Allocations"; more is taken for this."""

MOST_RESPONSE_BYTES = 3_000_000
REPLAY_ID_BYTES = 8
LOOK_AGAIN_S = 0.5
"""What no event announces is noticed so soon: a token revoked, a fault ordered, a time that is over."""

Writers = Callable[[str], EventWriter | None]


@dataclass(slots=True)
class _Credit:
    """What the subscriber has asked for and not had."""

    pending: int = 0
    over: bool = False
    refused: Refused | None = None


class Subscription:
    """Answers one Subscribe call.

    Args:
        context: The org.
        channel: The topic's view of the log.
        token: Of the caller; checked again and again.
        writers: By schema id.
        strike: Faults.

    Source: Pub/Sub API Developer Guide, "Subscribe RPC Method" and "Pull Subscription and Flow Control".
    """

    def __init__(self, context: Context, channel: Channel, token: str, writers: Writers, strike: Strike) -> None:
        self._context = context
        self._channel = channel
        self._token = token
        self._writers = writers
        self._strike = strike
        self._credit = _Credit()
        self._epoch = context.bus.epoch
        self._after = 0

    def start(self, first: FetchRequest) -> None:
        """Take the first request.

        Raises:
            Refused: The position is none, or the request asks for nothing.
        """
        self._take(first)
        bus = self._context.bus
        match first.replay_preset:
            case ReplayPreset.EARLIEST:
                self._after = bus.oldest_position()
            case ReplayPreset.CUSTOM:
                self._after = self._position(first.replay_id)
            case _:
                self._after = bus.latest_id()

    def _position(self, replay_id: bytes) -> int:
        if not replay_id:
            raise Refused(REPLAY_ID_MISSING, "A replay id is needed with the preset CUSTOM.")
        place, bus = int.from_bytes(replay_id), self._context.bus
        foreign = not self._context.settings.foreign_replay_ids and bus.is_foreign(self._channel, place)
        if len(replay_id) != REPLAY_ID_BYTES or not bus.valid(place) or foreign:
            raise Refused(REPLAY_ID_INVALID, "The Replay ID validation failed.")
        return place

    def _take(self, request: FetchRequest) -> None:
        if request.topic_name and request.topic_name != self._channel.name:
            raise Refused(TOPIC_CHANGED, "The topic of a stream cannot change.")
        if request.num_requested <= 0:
            raise Refused(COUNT_INVALID, "The number of requested events must be greater than zero.")
        self._credit.pending = min(MOST_PENDING, self._credit.pending + request.num_requested)

    async def read(self, requests: AsyncIterator[FetchRequest]) -> None:
        """Take the further requests; whoever waits looks again after each."""
        try:
            async for request in requests:
                self._take(request)
                self._context.bus.wake()
        except Refused as refused:
            self._credit.refused = refused
        self._credit.over = True
        self._context.bus.wake()

    async def responses(self) -> AsyncIterator[FetchResponse]:
        """What the subscriber gets; ends where it asks for nothing for too long.

        Raises:
            Refused: The stream ends with an error.
        """
        loop, settings, credit = asyncio.get_running_loop(), self._context.settings, self._credit
        answered_s = loop.time()
        while True:
            await self._look()
            told = await self._next()
            now_s = loop.time()
            if told is None and credit.pending and now_s - answered_s >= settings.pubsub_keepalive_s:
                told = self._response([])
            if told is not None:
                yield told
                answered_s = loop.time()
            elif not credit.pending and (credit.over or now_s - answered_s >= settings.pubsub_idle_s):
                return
            else:
                await self._context.bus.wait(LOOK_AGAIN_S)

    async def _look(self) -> None:
        if self._credit.refused is not None:
            raise self._credit.refused
        if self._epoch != self._context.bus.epoch:
            raise Refused(INTERNAL, "The stream was reset.")
        self._context.tokens.keep(self._token)
        if self._context.tokens.check(self._token) is None:
            raise Refused(AUTHENTICATION, "The session expired or was revoked.")
        await self._strike.meanwhile("pubsub:fetch")

    async def _next(self) -> FetchResponse | None:
        """The next events, as many as were asked for; None where there are none."""
        settings, usage = self._context.settings, self._context.usage
        if settings.stream_stalled or not self._credit.pending:
            return None
        found = self._due()
        if not found:
            return None
        if usage.delivered.used() >= settings.delivered_event_limit:
            raise Refused(DELIVERIES_SPENT, "You have exceeded the event delivery limit for your org.")
        told = await self._strike.under_way(self._told(found))
        usage.delivered.add(len(told))
        self._credit.pending = max(0, self._credit.pending - len(told))
        return self._response([_consumer_event(event, payload) for event, payload in told])

    def _told(self, found: list[LoggedEvent]) -> list[tuple[LoggedEvent, bytes]]:
        """The first of them that fit a response, as they are delivered; the position moves behind them."""
        told: list[tuple[LoggedEvent, bytes]] = []
        size = 0
        for event in found:
            payloads = self._payloads(event)
            size += sum(map(len, payloads))
            if told and size > MOST_RESPONSE_BYTES:
                break
            told += [(event, payload) for payload in payloads]
            self._after = event.replay_id
        return told

    def _due(self) -> list[LoggedEvent]:
        due_ms = self._context.clock.now_ms() - round(self._context.settings.stream_delay_s * 1000)
        found = self._context.bus.read(self._channel, self._after, self._credit.pending)
        return [event for event in found if event.logged_ms <= due_ms]

    def _payloads(self, event: LoggedEvent) -> list[bytes]:
        gaps = self._context.settings.gaps_on_filtered_channels
        writer = self._writers(event.schema_id)
        return [_written(writer, payload) for payload in self._context.bus.told(self._channel, event, gaps=gaps)]

    def _response(self, events: list[ConsumerEvent]) -> FetchResponse:
        bus = self._context.bus
        if not events and not self._context.settings.stream_stalled and not bus.read(self._channel, self._after, 1):
            # Nothing of the topic lies between, not even what is delivered later.
            self._after = max(self._after, bus.told_position())
        return FetchResponse(
            events=events,
            latest_replay_id=_replay_id(self._after),
            rpc_id=str(uuid.uuid4()),
            pending_num_requested=self._credit.pending,
        )


def _written(writer: EventWriter | None, payload: bytes) -> bytes:
    """A logged payload in Avro; one that no schema can hold goes as it is, for nobody to read."""
    if writer is None:
        return payload
    try:
        return writer.write(orjson.loads(payload))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return payload


def _consumer_event(event: LoggedEvent, payload: bytes) -> ConsumerEvent:
    event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, str(event.replay_id)))
    produced = ProducerEvent(id=event_id, schema_id=event.schema_id, payload=payload)
    return ConsumerEvent(event=produced, replay_id=_replay_id(event.replay_id))


def _replay_id(place: int) -> bytes:
    return place.to_bytes(REPLAY_ID_BYTES)
