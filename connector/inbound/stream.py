"""The loop around the change stream: batches, the position, and what each error of the source asks for.

One event is applied at once when nothing else waits; under load as many as fit a batch go into one unit, whole
transactions always. The position is stored in the unit that applies, so a crash at any point resumes exactly there.
"""

import asyncio
import contextlib
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import orjson
import structlog

from connector.errors import (
    ConnectorError,
    LinkDown,
    LoginRefused,
    OrgRefused,
    OrgThrottled,
    ReplayWindowLost,
    TransientError,
    UndecodableEvent,
)
from connector.inbound.apply import Applied, DecodedEvent, apply_events
from connector.inbound.backlog import Backlog
from connector.inbound.batch import Buffer, in_order, quoted
from connector.inbound.catalog import SpecChanged
from connector.inbound.decode import decode, salvage
from connector.inbound.holes import open_hole
from connector.inbound.progress import PollMark, reconcile_cursor
from connector.inbound.rounds import Backoff, Round, Tools
from connector.model.change import OLDEST_KEPT, Reached, ReceivedEvent, ReplayId, Subscribed
from connector.model.objects import ObjectSpec
from connector.model.times import to_iso, to_ms
from connector.ports import ChangeSource, Unit

log = structlog.get_logger()

StreamStatus = Literal["live", "connecting", "down", "paused", "off"]

# The other events of a transaction that has begun to arrive are waited for this long: there is no end mark.
LINGER_S = 0.02
# The same where the org held them back, or they are too many for one answer: they come with its next one.
REST_S = 0.5
# A channel that is refused is tried again this seldom: a person must change something.
REFUSED_RETRY_S = 300.0
# An org that throttles the stream and does not say for how long.
THROTTLED_RETRY_S = 60.0
MAX_WAIT_S = 3600.0
# A subscription that lasted this long counts as a success: the next failure begins at a short wait again.
HEALTHY_S = 30.0
MAX_SPEC_RETRIES = 5
TRANSPORTS = ("cometd", "pubsub")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """What of the settings concerns the stream.

    Attributes:
        transport, channel: Name the position's cursor.
        org_id: Tells the org, once it is known; positions of another one are not used.
        replay_all: Behind a lost position subscribe at the oldest event that the org keeps, not at new events.
    """

    transport: str
    channel: str
    org_id: Callable[[], str]
    batch_size: int
    replay_all: bool = False

    @property
    def cursor(self) -> str:
        """Name of the position's cursor."""
        return f"stream:{self.transport}:{self.channel}"

    @property
    def other_cursors(self) -> list[str]:
        """Where the position is if it is another transport's."""
        return [f"stream:{name}:{self.channel}" for name in TRANSPORTS if name != self.transport]


@dataclass(slots=True)
class StreamState:
    """For health. Times in milliseconds since the Unix epoch, UTC, by the local clock.

    Attributes:
        told: Objects of which events have come in this run.
    """

    status: StreamStatus = "connecting"
    since_ms: int = 0
    last_event_ms: int | None = None
    last_error: str | None = None
    events: int = 0
    ignored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    told: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamListeners:
    """Who is told what.

    Attributes:
        health: The stream came to life or went; `expected` False: none is to be waited for.
        poll: Poll these objects soon (None: all).
        doubt: Objects must be compared as a whole.
    """

    health: Callable[[bool, bool], None]
    poll: Callable[[Iterable[str] | None], None]
    doubt: Callable[[], None]


@dataclass(slots=True)
class _Position:
    replay_id: ReplayId | None = None
    event_ms: int | None = None  # commit time of the newest event applied


class StreamLoop:
    """One job: subscribe, apply, and subscribe again; `pause` and `resume` from outside."""

    def __init__(
        self,
        tools: Tools,
        source: ChangeSource,
        rules: StreamRules,
        listeners: StreamListeners,
        *,
        subscribed: asyncio.Event,
        backlog: Backlog,
    ) -> None:
        """`subscribed` is set at the first subscription, for those who must come after it."""
        self._tools = tools
        self._source = source
        self._rules = rules
        self._subscribed = subscribed
        self._backlog = backlog
        self._tell = listeners
        self._paused = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._buffer: Buffer | None = None
        self._event_ms: int | None = None  # commit time of the newest event applied
        self._backoff = Backoff(tools.rng, tools.backoff_max_s)
        self.state = StreamState(since_ms=tools.now_ms())

    def pause(self) -> None:
        """Close the subscription and stay away; what has been received is applied first."""
        self._resumed.clear()
        self._paused.set()
        if self._buffer is not None:
            self._buffer.close()

    def resume(self) -> None:
        """Subscribe again from the stored position."""
        self._paused.clear()
        self._resumed.set()

    async def run(self) -> None:
        """Keep the stream; does not end.

        Raises:
            LoginRefused, StoreFull, StoreUnusable
        """
        while True:
            if self._paused.is_set():
                self._enter("paused")
                await self._resumed.wait()
            self._enter("connecting")
            started_s = asyncio.get_running_loop().time()
            try:
                await self._session()
                continue
            except TransientError as error:
                wait_s = await self._failed(error)
            except OrgRefused as error:
                wait_s = await self._refused(error)
            if asyncio.get_running_loop().time() - started_s > HEALTHY_S:
                self._backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, MAX_WAIT_S)):
                    await self._paused.wait()

    async def _session(self) -> None:
        """One subscription from the stored position to its failure, or to a pause."""
        left = await self._tools.replica.run(self._leave_other)
        if left:
            log.warning("stream.transport_changed", objects=left)
        position = await self._tools.replica.run(self._stored)
        after, self._event_ms = position.replay_id, position.event_ms
        buffer = self._buffer = Buffer(self._rules.batch_size, self._source.more)
        log.info("stream.subscribing", channel=self._rules.channel, replay=after is not None)
        pump = asyncio.create_task(self._pump(after, buffer), name="stream.pump")
        try:
            while batch := await buffer.take(LINGER_S, REST_S):
                await self._apply(batch)
        finally:
            pump.cancel()
            await asyncio.wait((pump,))
            self._backlog.ended()
        if not pump.cancelled():
            pump.result()

    async def _pump(self, after: ReplayId | None, buffer: Buffer) -> None:
        """Move what the source yields into the buffer; a full buffer holds the source back."""
        received = self._source.events(after)
        try:
            async for item in received:
                if isinstance(item, Subscribed):
                    await self._live(item)
                elif isinstance(item, Reached):
                    await self._reached(item)
                else:
                    self._backlog.received(len(item))
                    await buffer.put(item)
        finally:
            buffer.close()
            if isinstance(received, AsyncGenerator):
                await received.aclose()
        raise TransientError("the change source ended")

    async def _live(self, subscribed: Subscribed) -> None:
        position = b64encode(subscribed.position).decode() if subscribed.position is not None else "new events"
        log.info("stream.subscribed", channel=self._rules.channel, position=position)
        if subscribed.position is None:
            await self._tools.replica.run(self._begin_blind)
        self._enter("live")
        self.state.last_error = None
        self._backlog.subscribed(resumed=subscribed.position is not None)
        self._subscribed.set()
        await self._report(None)
        if subscribed.position in (None, OLDEST_KEPT):
            # Nothing proves what came before the first event: ask, with the holes open that the answer is to close.
            self._tell.poll(None)

    async def _reached(self, reached: Reached) -> None:
        """Keep a position that came without an event, once everything before it is applied; the next one will do."""
        if self._backlog.under_way:
            return
        position = _Position(reached.position, self._event_ms)
        await self._tools.replica.run(lambda unit: self._store(unit, position))
        log.debug("stream.position_reached", channel=self._rules.channel)

    async def _apply(self, batch: Sequence[ReceivedEvent]) -> None:
        try:
            await self._apply_all(batch)
        except ConnectorError:
            raise
        except Exception:
            # An event that trips us must not stop the stream: find it, set it aside, have its records read.
            log.exception("stream.batch_failed", events=len(batch))
            for event in batch:
                await self._apply_one(event)

    async def _apply_one(self, event: ReceivedEvent) -> None:
        try:
            await self._apply_all((event,))
        except ConnectorError:
            raise
        except Exception as error:
            log.exception("stream.event_failed")
            await self._apply_all((event,), set_aside=f"could not be applied: {type(error).__name__}")

    async def _apply_all(self, batch: Sequence[ReceivedEvent], *, set_aside: str | None = None) -> None:
        for _ in range(MAX_SPEC_RETRIES):
            specs = self._tools.catalog.specs
            decoded = [d for d in (_decoded(e, specs, set_aside) for e in batch) if d is not None]
            if await self._resolve(decoded):
                continue
            position = _Position(batch[-1].replay_id, _newest_commit(decoded, self._event_ms))
            work = partial(self._apply_unit, specs=specs, decoded=decoded, position=position)
            try:
                with self._tools.remembering():
                    applied = await self._tools.replica.run(work)
            except SpecChanged:
                continue
            self._event_ms = position.event_ms
            self._backlog.applied(len(batch), position.event_ms)
            self._after(batch, decoded, applied)
            return
        raise SpecChanged("descriptions keep changing")

    def _apply_unit(
        self,
        unit: Unit,
        specs: Mapping[str, ObjectSpec],
        decoded: Sequence[DecodedEvent],
        position: _Position,
    ) -> Applied:
        if self._tools.catalog.specs is not specs:
            raise SpecChanged("a description changed meanwhile")
        self._store(unit, position)
        applied = apply_events(self._tools.applying, unit, specs, in_order(decoded))
        self._open_holes(unit, applied)
        return applied

    async def _resolve(self, decoded: Iterable[DecodedEvent]) -> bool:
        """Have objects described again whose events show unknown fields; True if that changed anything."""
        unknown: dict[str, frozenset[str]] = {}
        for item in decoded:
            if item.event is not None and item.event.unknown_fields:
                name = item.event.entity
                unknown[name] = unknown.get(name, frozenset()) | item.event.unknown_fields
        changed = False
        for name, fields in unknown.items():
            try:
                changed = await self._tools.catalog.resolve(name, fields) or changed
            except TransientError as error:
                # The event is applied without them; the next reading of the description makes up for it.
                log.warning("stream.describe_postponed", object=name, error=str(error))
        return changed

    def _after(self, batch: Sequence[ReceivedEvent], decoded: Sequence[DecodedEvent], applied: Applied) -> None:
        state = self.state
        state.last_event_ms = self._tools.now_ms()
        state.events += len(batch)
        state.ignored += len(batch) - len(decoded)
        state.duplicates += applied.duplicates
        state.quarantined += applied.quarantined
        state.told.update(d.event.entity for d in decoded if d.event is not None)
        self._tools.applied(applied)
        if applied.poll:
            self._tell.poll(None if None in applied.poll else [n for n in applied.poll if n is not None])
        if applied.whole:
            self._tell.doubt()
        log.debug("stream.batch_applied", events=len(batch), changes=sum(applied.changes.values()))

    def _open_holes(self, unit: Unit, applied: Applied) -> None:
        """An event spoke for whole objects: they are compared with the org; what asks for it is on disk."""
        now_ms = self._tools.now_ms()
        for name, commit_ms in applied.whole.items():
            unit.set_cursor(reconcile_cursor(name), to_iso(now_ms), now_ms)
            open_hole(unit, name, commit_ms, "whole_object_event", now_ms, self._tools.hole_messages)

    def _store(self, unit: Unit, position: _Position) -> None:
        assert position.replay_id is not None  # noqa: S101  # a batch is never empty; for mypy
        document = {
            "replay_id": b64encode(position.replay_id).decode(),
            "org": self._rules.org_id(),
            "event": to_iso(position.event_ms) if position.event_ms is not None else None,
        }
        unit.set_cursor(self._rules.cursor, orjson.dumps(document).decode(), self._tools.now_ms())

    def _stored(self, unit: Unit, cursor: str | None = None) -> _Position:
        text = unit.cursor(cursor or self._rules.cursor)
        if text is None:
            return _Position()
        try:
            document = orjson.loads(text)
            event = document["event"]
            position = _Position(
                ReplayId(b64decode(document["replay_id"], validate=True)), to_ms(event) if event else None
            )
            known = document["org"] == self._rules.org_id()
        except (ValueError, KeyError, TypeError):
            log.warning("stream.position_unreadable", cursor=self._rules.cursor)
            return _Position()
        if not known:
            log.warning("stream.position_of_another_org", cursor=self._rules.cursor)
            return _Position()
        return position

    async def _failed(self, error: TransientError) -> float:
        if isinstance(error, LinkDown) and error.retry_after_s == 0:
            # The org forgets its clients every few hours: told to nobody unless the next session fails as well.
            self._enter("connecting")
            log.info("stream.session_ended", error=str(error))
            return self._backoff.next_s(0.0)
        self._down(error)
        if isinstance(error, ReplayWindowLost):
            lost = await self._tools.replica.run(self._lose_position)
            if lost is not None:
                log.error("stream.position_lost", objects=lost, error=str(error))
                await self._report(error)
                return 0.0
        asked_s = error.retry_after_s
        if isinstance(error, OrgThrottled) and asked_s is None:
            asked_s = THROTTLED_RETRY_S
        wait_s = self._backoff.next_s(asked_s)
        log.warning("stream.down", error=str(error), kind=type(error).__name__, wait_s=round(wait_s, 2))
        await self._report(error)
        return wait_s

    async def _refused(self, error: OrgRefused) -> float:
        """A person must change something; until then the poller alone keeps the replica."""
        self._down(error)
        self._tell.health(False, False)  # noqa: FBT003  # healthy, expected
        self._subscribed.set()  # it is nothing to wait for any more
        log.error("stream.channel_refused", channel=self._rules.channel, error=str(error))
        await self._report(error)
        return REFUSED_RETRY_S

    def _lose_position(self, unit: Unit) -> list[str] | None:
        """Forget the position and open a hole per object, from the last moment that was proved.

        None: there was no position to lose, so the org's complaint is about something else.
        """
        if unit.cursor(self._rules.cursor) is None:
            return None
        now_ms = self._tools.now_ms()
        lost = self._stored(unit)
        names = self._doubt_all(unit, lost.event_ms, "replay_id_lost", now_ms)
        if self._rules.replay_all and lost.replay_id != OLDEST_KEPT:
            self._store(unit, _Position(OLDEST_KEPT))
        else:
            unit.set_cursor(self._rules.cursor, None, now_ms)
        return names

    def _leave_other(self, unit: Unit) -> list[str]:
        """Give up the position of the other transport, which means nothing to this one; a hole per object says so."""
        now_ms = self._tools.now_ms()
        for cursor in self._rules.other_cursors:
            if unit.cursor(cursor) is not None:
                names = self._doubt_all(unit, self._stored(unit, cursor).event_ms, "transport_changed", now_ms)
                unit.set_cursor(cursor, None, now_ms)
                return names
        return []

    def _doubt_all(self, unit: Unit, event_ms: int | None, reason: str, now_ms: int) -> list[str]:
        """Open a hole per object, from the last moment that was proved: its last poll, or the newest event if later."""
        names: list[str] = []
        for name in self._tools.catalog.specs:
            mark = PollMark.stored(unit, name)
            if mark is not None:
                from_ms = max(mark.polled_ms, event_ms or mark.polled_ms)
                open_hole(unit, name, from_ms, reason, now_ms, self._tools.hole_messages)
                names.append(name)
        return names

    def _begin_blind(self, unit: Unit) -> None:
        """Subscribed at new events: what happened since the last poll nobody will tell."""
        for name in self._tools.catalog.specs:
            mark = PollMark.stored(unit, name)
            if mark is not None and not unit.open_holes(name):
                now_ms = self._tools.now_ms()
                open_hole(unit, name, mark.polled_ms, "no_replay_id", now_ms, self._tools.hole_messages)

    async def _report(self, error: ConnectorError | None) -> None:
        said = None if error is None else _said(error)
        await self._tools.on_round(
            Round(kind="stream", objects=(), error=said, person=isinstance(error, (OrgRefused, LoginRefused)))
        )

    def _down(self, error: ConnectorError) -> None:
        self.state.last_error = _said(error)
        self._enter("down")

    def _enter(self, status: StreamStatus) -> None:
        state = self.state
        if state.status != status:
            state.status, state.since_ms = status, self._tools.now_ms()
        if status == "live":
            self._tell.health(True, True)  # noqa: FBT003  # healthy, expected
        else:
            self._tell.health(False, True)  # noqa: FBT003  # healthy, expected


def _decoded(received: ReceivedEvent, specs: Mapping[str, ObjectSpec], set_aside: str | None) -> DecodedEvent | None:
    """The event, or what is needed to keep it; None for one that is not synced."""
    error = set_aside or received.error
    if error is None:
        try:
            event = decode(received.payload, specs)
        except UndecodableEvent as problem:
            error = str(problem)
        else:
            return DecodedEvent(replay_id=received.replay_id, event=event) if event is not None else None
    entity, ids = salvage(received.payload)
    if entity is not None and entity not in specs:
        return None
    log.warning("stream.event_set_aside", object=entity, records=len(ids), error=error)
    return DecodedEvent(
        replay_id=received.replay_id,
        event=None,
        error=error,
        entity=entity,
        record_ids=ids,
        raw=partial(quoted, received.payload),
    )


def _newest_commit(decoded: Iterable[DecodedEvent], earlier_ms: int | None) -> int | None:
    newest_ms = max((d.event.commit.timestamp_ms for d in decoded if d.event is not None), default=earlier_ms)
    return newest_ms if newest_ms is None or earlier_ms is None else max(newest_ms, earlier_ms)


def _said(error: ConnectorError) -> str:
    return str(error) or type(error).__name__
