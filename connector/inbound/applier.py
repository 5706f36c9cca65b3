"""Received events on their way into the replica: decoded, applied in one unit with the position behind them.

They are decoded as they arrive, while those before them are being applied.

An event that trips us must not stop the stream: it is found, set aside with its reason, and its records are read.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import structlog

from connector.errors import ConnectorError, TransientError, UndecodableEvent
from connector.inbound.apply import Applied, DecodedEvent, apply_events
from connector.inbound.backlog import Backlog
from connector.inbound.batch import Arrived, in_order, quoted
from connector.inbound.catalog import SpecChanged
from connector.inbound.decode import decode, salvage
from connector.inbound.holes import open_hole
from connector.inbound.position import Position, StoredPosition
from connector.inbound.progress import reconcile_cursor
from connector.inbound.rounds import Tools
from connector.model.change import ReceivedEvent
from connector.model.objects import ObjectSpec
from connector.model.times import to_iso
from connector.ports import Unit

log = structlog.get_logger()

StreamStatus = Literal["live", "connecting", "down", "paused", "off"]

MAX_SPEC_RETRIES = 5
# Records that are applied on the loop's own thread, which stands still for as long: some 70 microseconds each.
MAX_SHORT_RECORDS = 500


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


class Applier:
    """Applies batches.

    Attributes:
        event_ms: Commit time of the newest event applied; whoever subscribes sets it to the stored one.
    """

    def __init__(
        self, tools: Tools, stored: StoredPosition, state: StreamState, listeners: StreamListeners, backlog: Backlog
    ) -> None:
        self._tools = tools
        self._stored = stored
        self._tell = listeners
        self._backlog = backlog
        self.state = state
        self.event_ms: int | None = None

    def read(self, events: Sequence[ReceivedEvent]) -> Sequence[Arrived]:
        """What the events say, as objects are described now."""
        specs = self._tools.catalog.specs
        with contextlib.suppress(Exception):  # `apply` finds the one that trips us, and tells
            return [Arrived(event, specs, _decoded(event, specs, None)) for event in events]
        return [Arrived(event) for event in events]

    async def apply(self, batch: Sequence[Arrived]) -> None:
        """Apply a batch that is not empty.

        Raises:
            StoreFull, StoreUnusable
            TransientError: Not applied; the position stays in front of it.
        """
        try:
            await self._apply_all(batch)
        except ConnectorError:
            raise
        except Exception:
            # An event that trips us must not stop the stream: find it, set it aside, have its records read.
            log.exception("stream.batch_failed", events=len(batch))
            for event in batch:
                await self._apply_one(event)

    async def _apply_one(self, event: Arrived) -> None:
        try:
            await self._apply_all((event,))
        except ConnectorError:
            raise
        except Exception as error:
            log.exception("stream.event_failed")
            await self._apply_all((event,), set_aside=f"could not be applied: {type(error).__name__}")

    async def _apply_all(self, batch: Sequence[Arrived], *, set_aside: str | None = None) -> None:
        for _ in range(MAX_SPEC_RETRIES):
            specs = self._tools.catalog.specs
            decoded = [d for d in (_read_with(specs, arrived, set_aside) for arrived in batch) if d is not None]
            if await self._resolve(decoded):
                continue
            position = Position(batch[-1].received.replay_id, _newest_commit(decoded, self.event_ms))
            work = partial(self._apply_unit, specs=specs, decoded=decoded, position=position)
            try:
                with self._tools.remembering():
                    run = self._tools.replica.run_here if _is_short(decoded) else self._tools.replica.run
                    applied = await run(work)
            except SpecChanged:
                continue
            self.event_ms = position.event_ms
            self._backlog.applied(len(batch), position.event_ms)
            self._after(batch, decoded, applied)
            return
        raise SpecChanged("descriptions keep changing")

    def _apply_unit(
        self,
        unit: Unit,
        specs: Mapping[str, ObjectSpec],
        decoded: Sequence[DecodedEvent],
        position: Position,
    ) -> Applied:
        if self._tools.catalog.specs is not specs:
            raise SpecChanged("a description changed meanwhile")
        self._stored.store(unit, position)
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

    def _after(self, batch: Sequence[Arrived], decoded: Sequence[DecodedEvent], applied: Applied) -> None:
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


def _read_with(specs: Mapping[str, ObjectSpec], arrived: Arrived, set_aside: str | None) -> DecodedEvent | None:
    """What the event says by these descriptions; they may have changed since it came."""
    if arrived.specs is specs and set_aside is None:
        return arrived.decoded
    return _decoded(arrived.received, specs, set_aside)


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


def _is_short(decoded: Iterable[DecodedEvent]) -> bool:
    return sum(len(d.event.record_ids) for d in decoded if d.event is not None) <= MAX_SHORT_RECORDS


def _newest_commit(decoded: Iterable[DecodedEvent], earlier_ms: int | None) -> int | None:
    newest_ms = max((d.event.commit.timestamp_ms for d in decoded if d.event is not None), default=earlier_ms)
    return newest_ms if newest_ms is None or earlier_ms is None else max(newest_ms, earlier_ms)
