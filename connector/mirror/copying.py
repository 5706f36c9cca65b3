"""What a page, or a change, does to the copy. Each function is one unit, and safe to repeat."""

from collections.abc import Sequence
from dataclasses import replace

from connector.mirror.messages import Row, Table, fitted, stored
from connector.mirror.origin import Copy
from connector.mirror.state import ObjectState
from connector.model.change import Change, Operation
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import StoredRecord
from connector.ports import Unit

REPLAY_AT_ONCE = 500


def begin_anew(unit: Unit, replica: str, version: int, at_ms: int) -> Copy:
    """Copy everything again: the replica's changes from `version` on, and every record.

    The records stay readable as they were until their pages come.
    """
    unit.restart_log(version, at_ms)
    copy = Copy(replica, at_ms)
    copy.store(unit, at_ms)
    return copy


def begin_object(unit: Unit, copy: Copy, told: Table, at_ms: int) -> ObjectState:
    """Make the object's table fit, and copy its records again."""
    spec = told.spec()
    unit.define(spec)
    # Versions of deleted records may be another replica's; those of the others come with their pages.
    unit.reset_deleted(spec)
    state = ObjectState(begun_ms=copy.begun_ms, table=told)
    state.store(unit, at_ms)
    return state


def take_page(
    unit: Unit, state: ObjectState, rows: Sequence[Row], following: str | None, version: int, at_ms: int
) -> ObjectState:
    """Take in a page: its records are as they are there, and what should stand between them is deleted."""
    spec = state.table.spec()
    unit.put(spec, [stored(spec, row, at_ms) for row in rows])
    upto = RecordId(rows[-1].id) if following is not None and rows else None
    _sweep(unit, spec, state.after_id, upto, {row.id for row in rows}, at_ms)
    replayed = version if state.replayed is None else state.replayed
    if following is None:
        state = replace(state, phase="replay", after=None, after_id=None, replayed=replayed)
    else:
        after_id = rows[-1].id if rows else state.after_id
        state = replace(state, after=following, after_id=after_id, replayed=replayed)
    state.store(unit, at_ms)
    return state


def replay(unit: Unit, state: ObjectState, at_ms: int) -> ObjectState:
    """Apply some of the changes that were logged while the object was listed; the state is `done` after the last."""
    changes = unit.changes(state.replayed or 0, REPLAY_AT_ONCE, state.table.object)
    _apply(unit, state.table.spec(), changes, at_ms)
    if len(changes) < REPLAY_AT_ONCE:
        state = replace(state, phase="done")
    else:
        state = replace(state, replayed=changes[-1].version)
    state.store(unit, at_ms)
    return state


def take_changes(unit: Unit, changes: Sequence[Change], done: Sequence[Table], at_ms: int) -> None:
    """Log changes that follow on one another and on the log, and apply those of objects that are in step.

    Raises:
        ValueError: They do not follow; nothing is kept.
    """
    first = unit.last_version() + 1
    if [change.version for change in changes] != list(range(first, first + len(changes))):
        raise ValueError("the changes do not follow on the log")
    for told in done:
        _apply(unit, told.spec(), [change for change in changes if change.object == told.object], at_ms)
    last = unit.append(changes)
    # They are with the broker, which they came from: the log may be trimmed.
    unit.mark_published(last, at_ms)


def _apply(unit: Unit, spec: ObjectSpec, changes: Sequence[Change], at_ms: int) -> None:
    known = unit.records(spec, {change.id for change in changes})
    for change in changes:
        row = known.get(change.id)
        if row is None or row.version < change.version:
            known[change.id] = _changed(spec, row, change, at_ms)
    unit.put(spec, list(known.values()))


def _changed(spec: ObjectSpec, row: StoredRecord | None, change: Change, at_ms: int) -> StoredRecord:
    told = (change.before if change.operation is Operation.DELETE else change.record) or {}
    # A change of before a field came does not tell of it: what is there stays.
    older = {} if row is None else {name: value for name, value in row.values.items() if name not in told}
    return StoredRecord(
        id=change.id,
        values=fitted(spec, {**older, **told}),
        version=change.version,
        synced_ms=at_ms,
        deleted_ms=change.applied_ms if change.operation is Operation.DELETE else None,
        modified_ms=change.applied_ms if change.commit is None else change.commit.timestamp_ms,
    )


def _sweep(
    unit: Unit, spec: ObjectSpec, after: str | None, upto: RecordId | None, there: set[RecordId], at_ms: int
) -> None:
    """Delete the records behind `after`, up to and with `upto`, that are not there."""
    position = None if after is None else RecordId(after)
    while ids := unit.live_ids(spec, position, upto, REPLAY_AT_ONCE):
        gone = unit.records(spec, [i for i in ids if i not in there])
        unit.put(spec, [replace(row, version=0, synced_ms=at_ms, deleted_ms=at_ms) for row in gone.values()])
        position = ids[-1]
