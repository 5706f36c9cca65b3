"""What happened to a record, newest first, and the record as it stood at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic

from connector.client.models import R, Row, record_of, wire
from connector.client.names import Names
from connector.model.change import Change
from connector.model.history import History, changed_ms
from connector.model.times import to_iso, to_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One change.

    Attributes:
        at: When it was committed in the org, ISO 8601; where nobody told, when the replica learned of it.
        operation: create, update, delete or undelete.
        user: Id of the user who wrote; None where nobody told.
        origin: stream, poll, backfill, repair or command.
        command_id: The command of ours that it came from.
        changed: Attributes that changed.
        before, after: Their values; to a create, an undelete or a delete: those of the whole record.
    """

    version: int
    at: str
    operation: str
    user: str | None
    origin: str
    command_id: str | None
    changed: tuple[str, ...]
    before: Mapping[str, Any]
    after: Mapping[str, Any]


class RecordHistory(Generic[R]):
    """The changes of one record, newest first."""

    def __init__(self, record_id: str, history: History, model: type[R], names: Names) -> None:
        self._id = record_id
        self._history = history
        self._model = model
        self._names = names

    def at(self, moment: datetime | str) -> R | None:
        """The record as it stood at a time; None if it was not there.

        Before the first change that the replica knows of it stood as it was loaded.

        Args:
            moment: With a zone; as text in ISO 8601 (`2026-11-22T17:26:39Z`).

        Raises:
            ValueError: The change log no longer reaches back so far, or it is no such time.
        """
        moment_ms = to_ms(str(wire(moment)))
        values = self._history.at(moment_ms)
        if values is None:
            return None
        until = [change.version for change in self._history.changes if changed_ms(change) <= moment_ms]
        row = Row(self._id, values, until[-1] if until else 0, None, until[-1] if until else 0)
        # Fields may have come and gone since.
        return record_of(self._model, row, Names(self._names.object, values))

    def __iter__(self) -> Iterator[Revision]:
        return (self._revision(change) for change in reversed(self._history.changes))

    def __len__(self) -> int:
        return len(self._history.changes)

    def __getitem__(self, number: int) -> Revision:
        return list(self)[number]

    def __repr__(self) -> str:
        return f"<{len(self)} changes of {self._id}>"

    def _revision(self, change: Change) -> Revision:
        return Revision(
            version=change.version,
            at=to_iso(changed_ms(change)),
            operation=change.operation.value,
            user=None if change.commit is None else change.commit.user,
            origin=change.origin.value,
            command_id=change.command_id,
            changed=tuple(self._names.attribute(name) for name in change.changed),
            before=self._by_attribute(change.before),
            after=self._by_attribute(change.after),
        )

    def _by_attribute(self, values: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return {self._names.attribute(name): value for name, value in (values or {}).items() if name != "Id"}
