"""What an event or a read record makes of the record we hold: pure; the rules and their reasons are in DESIGN.md."""

from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any

from connector.inbound.decode import compose_name
from connector.inbound.outcome import NOTHING, Editor, Outcome
from connector.inbound.textdiff import apply_diff, is_applied
from connector.inbound.values import empty_value
from connector.model.change import ChangeEvent, ChangeType, Origin
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import ReadRecord, StoredRecord

_MODIFIED = "LastModifiedDate"
_WHOLE_RECORD = (ChangeType.CREATE, ChangeType.UNDELETE)


class Source(StrEnum):
    """Where the newest state of a stored record came from, as far as this process knows."""

    STREAM = "stream"
    READ = "read"


def merge_event(
    spec: ObjectSpec,
    stored: StoredRecord | None,
    event: ChangeEvent,
    record_id: RecordId,
    *,
    source: Source | None,
    now_ms: int,
    read_ms: int | None = None,
) -> Outcome:
    """Apply one event to one of its records.

    Args:
        spec: The record's object.
        stored: The row, or None.
        event: Not a whole-object event.
        record_id: One of the event's.
        source: Where the row's newest state came from; None: not known.
        now_ms: Milliseconds since the Unix epoch, UTC.
        read_ms: The org's clock when it was last asked for what is new of the object; None: it has not been.
    """
    if event.is_gap:
        return Outcome(dirty=event.change_type.lower())
    editor = Editor(spec=spec, origin=Origin.STREAM, commit=event.commit, now_ms=now_ms)
    if stored is None:
        if event.change_type not in _WHOLE_RECORD:
            return Outcome(dirty="unknown_record")
        if read_ms is not None and event.commit.timestamp_ms < read_ms:
            return Outcome(dirty="late_create")
        return _applied(editor, None, event, record_id)
    if event.change_type is ChangeType.DELETE:
        return _merge_delete(editor, stored, event, source)
    return _doubt(spec, stored, event, source) or _applied(editor, stored, event, record_id)


def merge_read(
    spec: ObjectSpec,
    stored: StoredRecord | None,
    read: ReadRecord,
    *,
    raced: bool,
    origin: Origin,
    now_ms: int,
    settling: bool = False,
    silent: bool | AbstractSet[str] = False,
) -> Outcome:
    """Take over a record that was read from the org.

    Args:
        spec: The record's object.
        stored: The row, or None.
        read: As the org answered it.
        raced: Something was applied to the record since the request was sent: the read may be older than the row.
        origin: Of the change.
        now_ms: Milliseconds since the Unix epoch, UTC.
        settling: The read was to settle a doubt: one that is older than the row settles nothing.
        silent: True: a new record is no change (first load); a set: the first value of these fields is no change.
    """
    if stored is None:
        if read.deleted:
            return NOTHING
        if raced:
            return Outcome(dirty="raced")
    elif raced:
        verdict = _raced(stored, read, settling=settling)
        if verdict is not None:
            return verdict
    editor = Editor(spec=spec, origin=origin, commit=None, now_ms=now_ms)
    if read.deleted:
        assert stored is not None  # noqa: S101  # seen to above; for mypy
        return NOTHING if stored.deleted_ms is not None else editor.delete(stored, read.modified_ms)
    # What nothing overtook is the org's word, its stamp included.
    return editor.save(stored, read.id, read.values, read.modified_ms, silent=silent)


def merge_absence(spec: ObjectSpec, stored: StoredRecord, *, now_ms: int) -> Outcome:
    """The org was asked for the record by id and no longer has it, or no longer shows it."""
    if stored.deleted_ms is not None:
        return NOTHING
    editor = Editor(spec=spec, origin=Origin.REPAIR, commit=None, now_ms=now_ms)
    return editor.delete(stored, stored.modified_ms)


def _doubt(spec: ObjectSpec, stored: StoredRecord, event: ChangeEvent, source: Source | None) -> Outcome | None:
    """Why the event must not simply be applied; None: it is newer than the row."""
    moment = _moment(event)
    if moment < stored.modified_ms:
        return NOTHING if source is Source.READ else Outcome(dirty="older_event")
    if moment == stored.modified_ms and not _follows(stored, event, source):
        return NOTHING if _includes(spec, stored, event) else Outcome(dirty="same_second")
    if stored.deleted_ms is not None and event.change_type is ChangeType.UPDATE:
        return Outcome(dirty="deleted_record")
    return None


def _follows(stored: StoredRecord, event: ChangeEvent, source: Source | None) -> bool:
    """Whether an event of the row's own second is surely newer than the row: the stream is in commit order."""
    if source is not Source.STREAM or event.change_type is ChangeType.CREATE:
        return False  # a record is created once: the CREATE of a record that is here has been had
    return event.change_type is ChangeType.UNDELETE or stored.deleted_ms is None


def _includes(spec: ObjectSpec, stored: StoredRecord, event: ChangeEvent) -> bool:
    """Whether the row already shows what the event tells."""
    if event.change_type is ChangeType.UNDELETE and stored.deleted_ms is not None:
        return False
    if any(not is_applied(stored.values.get(name), diff) for name, diff in event.diffs.items()):
        return False
    if _any_left(stored, event.unclear):
        return False
    return all(stored.values.get(n) == v for n, v in event.values.items() if n in spec.by_name)


def _any_left(stored: StoredRecord, unclear: AbstractSet[str]) -> bool:
    """Whether a part that may have been cleared is not known to be empty."""
    return bool(unclear) and any(stored.values.get(name, ...) is not None for name in unclear)


def _merge_delete(editor: Editor, stored: StoredRecord, event: ChangeEvent, source: Source | None) -> Outcome:
    if stored.deleted_ms is not None:
        return NOTHING
    moment = _moment(event)
    if moment <= stored.modified_ms and source is not Source.STREAM:
        return Outcome(dirty="delete_of_read_record")
    return editor.delete(stored, max(moment, stored.modified_ms))


def _applied(editor: Editor, stored: StoredRecord | None, event: ChangeEvent, record_id: RecordId) -> Outcome:
    spec = editor.spec
    values: dict[str, Any] = dict(stored.values) if stored else {f.name: empty_value(f) for f in spec.fields}
    values.update({n: v for n, v in event.values.items() if n in spec.by_name})
    # An update that does not tell when (a lead's conversion may not): the row would keep the date of the one before.
    untold = event.change_type is ChangeType.UPDATE and _MODIFIED in spec.by_name and _MODIFIED not in event.values
    dirty: str | None = "modified_date_not_told" if untold else None
    quarantine = False
    if stored is not None and _any_left(stored, event.unclear):
        dirty = "cleared_part_not_told"
    if event.partial_name and stored is not None:
        if compose_name(spec, stored.values) == stored.values.get("Name"):
            values["Name"] = compose_name(spec, {**stored.values, **event.values})
        else:
            dirty = "name_not_derivable"
    for name, diff in event.diffs.items():
        base = stored.values.get(name) if stored else None
        text = base if is_applied(base, diff) else apply_diff(base, diff)
        if text is None:
            dirty, quarantine = "diff_does_not_fit", True
        else:
            values[name] = text
    moment = _moment(event)
    saved = editor.save(stored, record_id, values, max(moment, stored.modified_ms) if stored else moment)
    if dirty is None:
        return saved
    return Outcome(record=saved.record, change=saved.change, dirty=dirty, quarantine=quarantine)


def _moment(event: ChangeEvent) -> int:
    """When the state that the event tells of began; a deletion and its undoing need not move LastModifiedDate."""
    commit_second = event.commit.timestamp_ms // 1000 * 1000
    if event.change_type is ChangeType.DELETE:
        return commit_second
    return max(event.modified_ms, commit_second) if event.change_type is ChangeType.UNDELETE else event.modified_ms


def _raced(stored: StoredRecord, read: ReadRecord, *, settling: bool) -> Outcome | None:
    """The verdict on a read that something overtook; None: it is newer all the same."""
    again = Outcome(dirty="raced")
    if read.deleted or stored.deleted_ms is not None:
        return NOTHING if read.deleted and stored.deleted_ms is not None else again
    if read.modified_ms < stored.modified_ms:
        return again if settling else NOTHING
    if read.modified_ms == stored.modified_ms:
        return NOTHING if read.values == stored.values else again
    return None
