"""What happened to one record, as the change log tells it, and the record as it stood at a time. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from connector.model.change import Change, Operation
from connector.model.times import to_iso


def changed_ms(change: Change) -> int:
    """When the org committed it; where nobody told, when the replica learned of it."""
    return change.applied_ms if change.commit is None else change.commit.timestamp_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One record's past.

    Attributes:
        changes: Oldest first.
        now: The record's fields as they stand; None if it is deleted, or was never there.
        known_since_ms: When the log begins, if older changes have been trimmed from it; None: it has them all.
    """

    changes: Sequence[Change]
    now: Mapping[str, Any] | None
    known_since_ms: int | None

    def newest(self, limit: int) -> Self:
        """Its newest `limit` changes alone, which do not reach back as far."""
        if len(self.changes) <= limit:
            return self
        return replace(self, changes=self.changes[-limit:], known_since_ms=changed_ms(self.changes[-limit]))

    def at(self, moment_ms: int) -> Mapping[str, Any] | None:
        """The record's fields without `Id` at a time, milliseconds since the Unix epoch, UTC; None: it was not there.

        Before the first change that the log has it stood as it was loaded.

        Raises:
            ValueError: The log no longer reaches back so far.
        """
        until = [change for change in self.changes if changed_ms(change) <= moment_ms]
        if until:
            return _without_id(until[-1].record)
        if self.known_since_ms is not None and moment_ms < self.known_since_ms:
            raise ValueError(f"the change log reaches back to {to_iso(self.known_since_ms)}")
        if self.changes:
            return _before(self.changes[0])
        return self.now


def _before(change: Change) -> Mapping[str, Any] | None:
    match change.operation:
        case Operation.DELETE:
            return _without_id(change.before)
        case Operation.UPDATE:
            return _without_id({**(change.record or {}), **(change.before or {})})
        case _:
            return None


def _without_id(record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if record is None else {name: value for name, value in record.items() if name != "Id"}
