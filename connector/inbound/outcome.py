"""What is to be done with one record, and the rows and changes it is made of. Pure."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.ids import RecordId
from connector.model.noun import dataclass
from connector.model.objects import ObjectSpec
from connector.model.record import StoredRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is to be done with one record.

    Attributes:
        record: The row to write (with its old version); None: the row stays as it is.
        change: The change to log, not numbered yet; None: nothing visible changed.
        dirty: Why the record must be read again; None: it need not.
        quarantine: True if the event could not be applied as it was.
    """

    record: StoredRecord | None = None
    change: Change | None = None
    dirty: str | None = None
    quarantine: bool = False


NOTHING = Outcome()


@dataclass(frozen=True, slots=True, kw_only=True)
class Editor:
    """Makes rows, and the changes that tell of them.

    Attributes:
        commit: The transaction, where the source tells it.
        now_ms: Milliseconds since the Unix epoch, UTC.
    """

    spec: ObjectSpec
    origin: Origin
    commit: CommitInfo | None
    now_ms: int

    def save(
        self,
        stored: StoredRecord | None,
        record_id: RecordId,
        values: Mapping[str, Any],
        modified_ms: int,
        *,
        silent: bool | AbstractSet[str] = False,
    ) -> Outcome:
        """The record lives and has these values.

        Args:
            stored: The row so far, or None.
            record_id: The record.
            values: Every synced field.
            modified_ms: Of the state that has the values.
            silent: True: a new record is no change; a set: the first value of these fields is no change.
        """
        record = StoredRecord(
            id=record_id,
            values=values,
            version=stored.version if stored else 0,
            synced_ms=self.now_ms,
            deleted_ms=None,
            modified_ms=modified_ms,
        )
        if stored is None:
            return Outcome(record=record, change=None if silent is True else self._whole(Operation.CREATE, record))
        if stored.deleted_ms is not None:
            return Outcome(record=record, change=self._whole(Operation.UNDELETE, record))
        changed = _differing(self.spec.names, stored.values, values)
        if not changed and modified_ms == stored.modified_ms:
            return NOTHING
        told = bool(changed) and not (isinstance(silent, AbstractSet) and set(changed) <= silent)
        return Outcome(record=record, change=self._update(stored, record, changed) if told else None)

    def delete(self, stored: StoredRecord, modified_ms: int) -> Outcome:
        """The record is deleted; its row keeps the values."""
        record = StoredRecord(
            id=stored.id,
            values=stored.values,
            version=stored.version,
            synced_ms=self.now_ms,
            deleted_ms=self.now_ms,
            modified_ms=modified_ms,
        )
        return Outcome(record=record, change=self._change(Operation.DELETE, stored.id, (), stored.values, None, None))

    def _whole(self, operation: Operation, record: StoredRecord) -> Change:
        filled = tuple(f.name for f in self.spec.fields if record.values.get(f.name) is not None)
        return self._change(operation, record.id, filled, None, record.values, record.values)

    def _update(self, stored: StoredRecord, record: StoredRecord, changed: tuple[str, ...]) -> Change:
        before = {name: stored.values.get(name) for name in changed}
        after = {name: record.values.get(name) for name in changed}
        return self._change(Operation.UPDATE, record.id, changed, before, after, record.values)

    def _change(  # private, and the order is that of the message
        self,
        operation: Operation,
        record_id: RecordId,
        changed: tuple[str, ...],
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
        record: Mapping[str, Any] | None,
    ) -> Change:
        return Change(
            object=self.spec.name,
            id=record_id,
            operation=operation,
            changed=changed,
            before=before,
            after=after,
            record=record,
            origin=self.origin,
            command_id=None,
            commit=self.commit,
            applied_ms=self.now_ms,
        )


def _differing(names: Iterable[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple([name for name in names if before[name] != after[name]])
