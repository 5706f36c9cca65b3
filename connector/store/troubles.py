"""What is not yet right: records to read again, events that could not be applied, holes."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from connector.model.times import to_ms
from connector.ports import DirtyRecord, Hole
from connector.store.columns import iso, ms_or_none
from connector.store.part import Part
from connector.store.queries import load

_SQL = load("troubles")

# Enough to see what is wrong with a kind of event; the org's largest event has 1 MB.
MAX_QUARANTINED = 1000
_MAX_EVENT_BYTES = 1 << 20
_MAX_ERROR_CHARS = 1000


class Troubles(Part):
    """Dirty marks, quarantine and holes."""

    def mark_dirty(self, records: Iterable[DirtyRecord]) -> None:
        """Remember that these must be read again; a record already marked keeps its first reason.

        An event that the record waited with before is settled by the new one: one reading answers both.
        """
        for record in records:
            marked = asdict(record)
            if record.quarantine_id is not None:
                waiting = self._db.execute(_SQL["superseded"], marked).get
                if waiting is not None:
                    self.settle_quarantine([int(waiting)], record.since_ms)
            self._db.execute(_SQL["mark_dirty"], marked)

    def dirty(self, object_name: str, limit: int) -> Sequence[DirtyRecord]:
        """Oldest marked records of an object; each record once."""
        rows = self._db.execute(_SQL["dirty"], {"object": object_name, "limit": limit})
        return [DirtyRecord(*row) for row in rows]

    def clear_dirty(self, records: Iterable[DirtyRecord]) -> None:
        """They have been read; a mark set again since then (newer `since_ms`) stays."""
        self._db.executemany(_SQL["clear_dirty"], ((r.object, r.id, r.since_ms) for r in records))

    def dirty_count(self) -> int:
        """Records waiting to be read again."""
        return int(self._db.execute(_SQL["dirty_depth"]).get)

    def quarantine(self, object_name: str | None, replay_id: bytes, error: str, event: bytes, at_ms: int) -> int:
        """Keep an event that could not be applied as it was; returns its id.

        Of more than `MAX_QUARANTINED` the settled ones go first, then the oldest.
        """
        text = event[:_MAX_EVENT_BYTES].decode("utf-8", "backslashreplace")
        row = (object_name, b64encode(replay_id).decode(), error[:_MAX_ERROR_CHARS], text, iso(at_ms))
        quarantine_id = int(self._db.execute(_SQL["quarantine"], row).get)
        self._db.execute(_SQL["bound_quarantine"], {"keep": quarantine_id, "max": MAX_QUARANTINED})
        return quarantine_id

    def settle_quarantine(self, ids: Iterable[int], at_ms: int) -> None:
        """The records of these events have been read from the org instead."""
        self._db.executemany(_SQL["settle"], ((iso(at_ms), i) for i in ids))

    def nameless_quarantine(self, object_name: str | None) -> Sequence[int]:
        """Unsettled events of the object that no record waits with; None: those whose object could not be read."""
        return [int(i) for (i,) in self._db.execute(_SQL["nameless"], (object_name,))]

    def quarantine_count(self) -> int:
        """Events not settled yet."""
        return int(self._db.execute(_SQL["quarantine_depth"]).get)

    def open_hole(self, object_name: str, from_ms: int, reason: str, at_ms: int) -> Hole:
        """Open a hole, or widen the object's open one (which keeps its reason)."""
        bindings = {"object": object_name, "from": iso(from_ms), "reason": reason, "at": iso(at_ms)}
        return _hole(self._db.execute(_SQL["open_hole"], bindings).get)

    def close_hole(self, hole_id: int, to_ms: int, corrected: int, at_ms: int) -> Hole:
        """Close a hole with the number of records that had to be changed; a closed one stays as it is.

        Raises:
            LookupError: There is no such hole.
        """
        bindings = {"id": hole_id, "to": iso(to_ms), "corrected": corrected, "at": iso(at_ms)}
        self._db.execute(_SQL["close_hole"], bindings)
        row = self._db.execute(_SQL["hole"], (hole_id,)).get
        if row is None:
            raise LookupError(f"hole {hole_id} is not in the database")
        return _hole(row)

    def open_holes(self, object_name: str | None = None) -> Sequence[Hole]:
        """Open holes, oldest first."""
        return [_hole(row) for row in self._db.execute(_SQL["open_holes"], {"object": object_name})]


def _hole(row: Any) -> Hole:
    hole_id, name, from_at, to_at, reason, opened_at, closed_at, corrected = row
    return Hole(
        id=hole_id,
        object=name,
        from_ms=to_ms(from_at),
        to_ms=ms_or_none(to_at),
        reason=reason,
        opened_ms=to_ms(opened_at),
        closed_ms=ms_or_none(closed_at),
        corrected=corrected,
    )
