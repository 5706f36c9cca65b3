"""The records of the synced objects."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import StoredRecord
from connector.model.times import to_ms
from connector.store.columns import iso, iso_or_none, ms_or_none
from connector.store.names import OWN_COLUMNS
from connector.store.part import Part
from connector.store.tables import define, statements, update_statement


class Records(Part):
    """Tables made from describe results, and their rows."""

    def define(self, spec: ObjectSpec) -> None:
        """Make or alter the object's table so that it has a column per synced field, and its live view.

        A retyped column keeps no old values that do not fit; a removed field's column goes.
        """
        define(self._db, spec)

    def records(self, spec: ObjectSpec, ids: Iterable[RecordId]) -> dict[RecordId, StoredRecord]:
        """Those of the records that are stored, deleted ones included."""
        names = [f.name for f in spec.fields]
        rows = self._db.executemany(statements(spec).select, ((i,) for i in ids))
        return {row[0]: stored_record(names, spec.booleans, row) for row in rows}

    def put(self, spec: ObjectSpec, records: Sequence[StoredRecord]) -> None:
        """Insert or replace records.

        Only columns whose value differs are written: SQLite rewrites the entry in every index of a column that an
        UPDATE names, whether its value changes or not, and each of those is a page of its own on the disk.
        """
        names = [f.name for f in spec.fields]
        columns = ("Id", *names, *OWN_COLUMNS)
        for record in records:
            row = _row(names, record)
            stored = self._db.execute(statements(spec).select, (record.id,)).fetchone()
            if stored is None:
                self._db.execute(statements(spec).insert, row)
                continue
            differing = [i for i, (old, new) in enumerate(zip(stored, row, strict=True)) if old != new]
            if differing:
                update = update_statement(spec.table, tuple(columns[i] for i in differing))
                self._db.execute(update, (*(row[i] for i in differing), record.id))

    def reset_deleted(self, spec: ObjectSpec) -> None:
        """Set the version of every deleted record to 0: what comes next on it is newer, whatever its version."""
        self._db.execute(statements(spec).reset_deleted)

    def count(self, spec: ObjectSpec) -> int:
        """Records that are not deleted."""
        return int(self._db.execute(statements(spec).count).get)

    def live_ids(
        self, spec: ObjectSpec, after: RecordId | None, upto: RecordId | None, limit: int
    ) -> Sequence[RecordId]:
        """Ids of records that are not deleted, ascending, behind `after` and up to and with `upto` (None: no bound)."""
        bindings = {"after": after, "upto": upto, "limit": limit}
        return [RecordId(row[0]) for row in self._db.execute(statements(spec).live_ids, bindings)]


def stored_record(names: Sequence[str], booleans: Iterable[str], row: Sequence[Any]) -> StoredRecord:
    """A row of Id, the named fields and our own columns as a record in wire form."""
    values: dict[str, Any] = dict(zip(names, row[1:-4], strict=True))
    for name in booleans:
        if values[name] is not None:
            values[name] = bool(values[name])
    version, synced_at, deleted_at, modstamp = row[-4:]
    return StoredRecord(
        id=RecordId(row[0]),
        values=values,
        version=version,
        synced_ms=to_ms(synced_at),
        deleted_ms=ms_or_none(deleted_at),
        modified_ms=to_ms(modstamp),
    )


def _row(names: Sequence[str], record: StoredRecord) -> tuple[Any, ...]:
    values: Mapping[str, Any] = record.values
    return (
        record.id,
        *[values[name] for name in names],
        record.version,
        iso(record.synced_ms),
        iso_or_none(record.deleted_ms),
        iso(record.modified_ms),
    )
