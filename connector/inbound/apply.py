"""Applying events and reads inside one unit: rows, changes, dirty marks and quarantine together.

Per object and batch there is one look-up and one write of rows; between them everything is merged in memory, in order.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import field

from connector.inbound.echo import Echoes, split
from connector.inbound.fence import Fences, Memory, ReadFence
from connector.inbound.merge import Source, merge_absence, merge_event, merge_read
from connector.inbound.outcome import Outcome
from connector.inbound.progress import asked_ms
from connector.model.change import Change, ChangeEvent, Origin, ReplayId
from connector.model.ids import RecordId
from connector.model.noun import dataclass
from connector.model.objects import ObjectSpec
from connector.model.record import ReadRecord, StoredRecord
from connector.ports import DirtyRecord, Unit

# An echo that takes longer (the stream was down) is an ordinary change.
ECHO_WINDOW_MS = 30 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedEvent:
    """One event on its way into a unit.

    Attributes:
        event: None where it could not be decoded.
        error: Why not, without field values.
        entity, record_ids: As far as they could be read.
        raw: The event as JSON, for the quarantine.
    """

    replay_id: ReplayId
    event: ChangeEvent | None
    error: str = ""
    entity: str | None = None
    record_ids: tuple[RecordId, ...] = ()
    raw: Callable[[], bytes] = field(default=bytes)


@dataclass(slots=True, kw_only=True)
class Applied:
    """What a batch or a page did.

    Attributes:
        changes: Changes logged, by object.
        last_version: The newest version after it.
        dirty: Objects with records to read again.
        whole: Objects of which an event said that any record may differ, and when (commit time).
        poll: Objects with an event that named no readable record; None in it: not even the object could be read.
        lags_ms: Commit in the org to applied here, one for each change of the stream.
        fresh: The changes themselves, numbered, where they came by the stream.
        changed: (id, changed fields) of every change, for the drift count; reads only.
    """

    changes: Counter[str] = field(default_factory=Counter)
    last_version: int = 0
    dirty: set[str] = field(default_factory=set)
    whole: dict[str, int] = field(default_factory=dict)
    poll: set[str | None] = field(default_factory=set)
    duplicates: int = 0
    quarantined: int = 0
    lags_ms: list[int] = field(default_factory=list)
    fresh: Sequence[Change] = ()
    changed: list[tuple[RecordId, tuple[str, ...]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Applying:
    """What every apply needs besides its unit."""

    fences: Fences
    memory: Memory
    now_ms: Callable[[], int]


def apply_events(
    context: Applying, unit: Unit, specs: Mapping[str, ObjectSpec], batch: Sequence[DecodedEvent]
) -> Applied:
    """Apply a batch in its order; the caller stores the stream's position in the same unit.

    Events of objects that are not in `specs` any more are left out.
    """
    work = _Work(context, unit, specs)
    work.load(batch)
    for item in batch:
        if item.event is None:
            work.keep(item)
        elif item.event.entity in specs:
            work.event(item, item.event)
    applied = work.finish(None)
    applied.fresh = work.logged
    return applied


def apply_reads(
    context: Applying,
    unit: Unit,
    spec: ObjectSpec,
    reads: Sequence[ReadRecord],
    *,
    fence: ReadFence,
    origin: Origin,
    settling: bool = False,
    silent: bool | AbstractSet[str] = False,
    absent: Sequence[RecordId] = (),
) -> Applied:
    """Apply records that were read after `fence` was opened.

    Args:
        context: The process's memory.
        unit: The transaction.
        spec: The object.
        reads: As the org answered them; of two with one id the later counts.
        fence: Of this read.
        origin: Of the changes.
        settling: The reads were to settle doubts: what stays in doubt is marked again.
        silent: True: new records are no changes; a set: the first values of these fields are no changes.
        absent: Records that were asked for by id and not answered.
    """
    work = _Work(context, unit, {spec.name: spec})
    ids = [r.id for r in reads] + list(absent)
    work.look_up(spec.name, ids)
    rows = work.rows[spec.name]
    for read in reads:
        stored = rows.get(read.id)
        # Of a row that is not there yet an earlier run has left a mark, should an event have overtaken the read.
        raced = fence.raced(read.id) and (stored is not None or fence.complete)
        outcome = merge_read(
            spec, stored, read, raced=raced, origin=origin, now_ms=work.now_ms, settling=settling, silent=silent
        )
        work.take(spec, read.id, outcome)
        if not raced or outcome.record is not None:
            work.was_read(spec.name, read.id, outcome)
    for record_id in absent:
        stored = rows.get(record_id)
        if stored is None:
            continue
        raced = fence.raced(record_id)
        outcome = Outcome(dirty="raced") if raced else merge_absence(spec, stored, now_ms=work.now_ms)
        work.take(spec, record_id, outcome)
    work.touched[spec.name].update(ids)
    return work.finish(fence)


class _Work:
    """The state of one apply."""

    def __init__(self, context: Applying, unit: Unit, specs: Mapping[str, ObjectSpec]) -> None:
        self._context = context
        self._unit = unit
        self._specs = specs
        self.now_ms = context.now_ms()
        self.rows: dict[str, dict[RecordId, StoredRecord]] = {}
        self._stored: dict[str, Mapping[RecordId, StoredRecord]] = {}  # as they were
        self._wanted: dict[str, Sequence[RecordId]] = {}
        self.touched: dict[str, set[RecordId]] = {name: set() for name in specs}
        self._written: dict[str, dict[RecordId, int | None]] = {}  # id -> index of its last change
        self._changes: list[Change] = []
        self._echoed: list[tuple[str, int]] = []  # command, index of the change
        self._echoes: dict[str, Echoes] = {}
        self._marks: list[DirtyRecord] = []
        self._marked: set[tuple[str, RecordId]] = set()
        self.sources: dict[RecordId, Source] = {}
        self._asked: dict[str, int | None] = {}
        self._seen: dict[str, None] = {}
        self.logged: Sequence[Change] = ()
        self.applied = Applied()

    def load(self, batch: Iterable[DecodedEvent]) -> None:
        """Read every row that the batch may touch, once."""
        wanted: dict[str, dict[RecordId, None]] = {}
        for item in batch:
            if item.event is not None and item.event.entity in self._specs:
                wanted.setdefault(item.event.entity, {}).update(dict.fromkeys(item.event.record_ids))
        for name, ids in wanted.items():
            self.look_up(name, list(ids))

    def look_up(self, name: str, ids: Sequence[RecordId]) -> None:
        """Read these rows of an object."""
        self._wanted[name] = ids
        self._stored[name] = self._unit.records(self._specs[name], ids)
        self.rows[name] = dict(self._stored[name])

    def event(self, item: DecodedEvent, event: ChangeEvent) -> None:
        """Merge one event into each of its records."""
        if event.whole_object:
            self.applied.whole[event.entity] = event.commit.timestamp_ms
            return
        spec = self._specs[event.entity]
        rows = self.rows[event.entity]
        quarantine = False
        doubtful: list[RecordId] = []
        for record_id in event.record_ids:
            if self._had(event, record_id):
                self.applied.duplicates += 1
                continue
            outcome = merge_event(
                spec,
                rows.get(record_id),
                event,
                record_id,
                source=self._source(record_id, rows.get(record_id)),
                now_ms=self.now_ms,
                read_ms=None if record_id in rows else self._asked_ms(event.entity),
            )
            quarantine = quarantine or outcome.quarantine
            if outcome.quarantine:
                doubtful.append(record_id)
            self.take(spec, record_id, outcome)
            self.touched[event.entity].add(record_id)
            if outcome.record is not None:
                self.sources[record_id] = Source.STREAM
            elif outcome.dirty is None:
                self._unchanged(spec, record_id)
            if outcome.change is not None:
                self.applied.lags_ms.append(max(0, self.now_ms - event.commit.timestamp_ms))
        if quarantine:
            number = self._quarantine(event.entity, item, "a text diff does not fit the stored value")
            self._mark(event.entity, doubtful, "diff_does_not_fit", number)

    def keep(self, item: DecodedEvent) -> None:
        """Quarantine an event that cannot be applied; its records are read instead, as far as they can be named."""
        spec = self._specs.get(item.entity or "")
        if item.entity is not None and spec is None:
            return
        number = self._quarantine(item.entity, item, item.error)
        if spec is not None and item.record_ids:
            self._mark(spec.name, item.record_ids, "undecodable_event", number)
        else:
            self.applied.poll.add(item.entity)

    def take(self, spec: ObjectSpec, record_id: RecordId, outcome: Outcome) -> None:
        """Note what an outcome asks for."""
        if outcome.dirty is not None:
            self._mark(spec.name, (record_id,), outcome.dirty, None)
        if outcome.record is None:
            return
        self.rows[spec.name][record_id] = outcome.record
        index: int | None = None
        if outcome.change is not None:
            for change in self._told(spec, outcome.change):
                index = len(self._changes)
                self._changes.append(change)
            self.applied.changed.append((record_id, outcome.change.changed))
        written = self._written.setdefault(spec.name, {})
        written[record_id] = index if index is not None else written.get(record_id)

    def was_read(self, name: str, record_id: RecordId, outcome: Outcome) -> None:
        """Remember it, unless it goes without saying (see `_source`).

        A load of a million rows would drive out what is known of those that the stream has told of.
        """
        row = self.rows[name].get(record_id)
        plain = outcome.change is None and row is not None and row.version == 0
        if not plain or self._context.memory.sources.get(record_id) is not None:
            self.sources[record_id] = Source.READ

    def finish(self, own: ReadFence | None) -> Applied:
        """Write everything; to be called once."""
        unit, memory = self._unit, self._context.memory
        last = unit.last_version()
        first = last + 1
        if self._changes:
            self.logged = [change.numbered(version) for version, change in enumerate(self._changes, first)]
            last = unit.append(self.logged)
        for name, written in self._written.items():
            rows = self.rows[name]
            numbered = [_numbered(rows[i], first, at) for i, at in written.items()]
            unit.put(self._specs[name], numbered, stored=self._stored[name])
        for command_id, index in self._echoed:
            unit.echo_seen(command_id, first + index)
        if self._marks:
            unit.mark_dirty(self._marks)
        # Nothing below fails: what is remembered has been written.
        for name, ids in self.touched.items():
            self._context.fences.note(name, ids, own)
        for record_id, source in self.sources.items():
            memory.sources.set(record_id, source)
        for seen in self._seen:
            memory.seen.set(seen, value=True)
        self.applied.changes.update(c.object for c in self._changes)
        self.applied.last_version = last
        self.applied.dirty = {name for name, _ in self._marked}
        return self.applied

    def _asked_ms(self, name: str) -> int | None:
        if name not in self._asked:
            self._asked[name] = asked_ms(self._unit, name)
        return self._asked[name]

    def _had(self, event: ChangeEvent, record_id: RecordId) -> bool:
        commit = event.commit
        if commit.transaction is None or commit.sequence is None:
            return False
        key = f"{commit.transaction}/{commit.sequence}/{record_id}"
        if key in self._seen or self._context.memory.seen.get(key):
            return True
        self._seen[key] = None
        return False

    def _source(self, record_id: RecordId, stored: StoredRecord | None) -> Source | None:
        if stored is None:
            return None
        known = self.sources.get(record_id) or self._context.memory.sources.get(record_id)
        # A row of version 0 was loaded and has not been changed by an event since.
        return known or (Source.READ if stored.version == 0 else None)

    def _told(self, spec: ObjectSpec, change: Change) -> Sequence[Change]:
        command = self._awaited(spec).match(change)
        if command is None:
            return (change,)
        self._echoed.append((command.command_id, len(self._changes)))
        return split(spec, change, command)

    def _unchanged(self, spec: ObjectSpec, record_id: RecordId) -> None:
        row = self.rows[spec.name].get(record_id)
        command = self._awaited(spec).match_unchanged(record_id, row.values) if row else None
        if command is not None and row is not None:
            self._unit.echo_seen(command.command_id, row.version)

    def _awaited(self, spec: ObjectSpec) -> Echoes:
        if spec.name not in self._echoes:
            self._echoes[spec.name] = Echoes(
                self._unit, spec, self.now_ms - ECHO_WINDOW_MS, self._wanted.get(spec.name, ())
            )
        return self._echoes[spec.name]

    def _quarantine(self, entity: str | None, item: DecodedEvent, error: str) -> int:
        self.applied.quarantined += 1
        return self._unit.quarantine(entity, item.replay_id, error, item.raw(), self.now_ms)

    def _mark(self, name: str, ids: Iterable[RecordId], reason: str, quarantine_id: int | None) -> None:
        for record_id in ids:
            # Every event in quarantine is marked, so that a later one of its record settles it.
            if quarantine_id is not None or (name, record_id) not in self._marked:
                self._marked.add((name, record_id))
                self._marks.append(DirtyRecord(name, record_id, reason, self.now_ms, quarantine_id))


def _numbered(row: StoredRecord, first: int, at: int | None) -> StoredRecord:
    return row if at is None else row.numbered(first + at)
