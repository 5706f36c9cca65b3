"""Records as the replica shows them, with those writes of ours that have not come back; for one unit, read together."""

from collections.abc import Iterable, Sequence

from connector.model.command import ECHO_WINDOW_MS, Command
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import StoredRecord
from connector.ports import Unit


class Shown:
    """What is asked for one record after the other is cheaper read at once: each statement costs as much as its row."""

    def __init__(self, unit: Unit, now_ms: int) -> None:
        self._unit = unit
        self._since_ms = now_ms - ECHO_WINDOW_MS
        self._stored: dict[tuple[str, RecordId], StoredRecord | None] = {}
        self._written: set[tuple[str, RecordId]] = set()

    def load(self, spec: ObjectSpec, ids: Iterable[RecordId]) -> None:
        """Read these now."""
        wanted = [i for i in dict.fromkeys(ids) if (spec.name, i) not in self._stored]
        if not wanted:
            return
        rows = self._unit.records(spec, wanted)
        self._stored.update(((spec.name, i), rows.get(i)) for i in wanted)
        self._written.update((spec.name, i) for i in self._unit.unseen_records(spec.name, wanted, self._since_ms))

    def stored(self, spec: ObjectSpec, record_id: RecordId) -> StoredRecord | None:
        """The record, deleted or not; None if it is not there."""
        self.load(spec, [record_id])
        return self._stored[spec.name, record_id]

    def unseen(self, spec: ObjectSpec, record_id: RecordId) -> Sequence[Command]:
        """In order: our writes that the record, as it is shown, lacks."""
        stored = self.stored(spec, record_id)
        if (spec.name, record_id) not in self._written:
            return ()
        modified_ms = 0 if stored is None else stored.modified_ms
        return self._unit.unseen_writes(spec.name, record_id, modified_ms, self._since_ms)
