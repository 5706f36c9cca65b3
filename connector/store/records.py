"""The records of the synced objects."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import ReadPage, StoredRecord
from connector.store.columns import iso, iso_or_none, ms, ms_or_none
from connector.store.part import Part
from connector.store.queries import load
from connector.store.tables import define, statements, update_statement
from connector.store.textindex import Edit, rewrite

_SQL = load("objects")


class Records(Part):
    """Tables made from describe results, and their rows."""

    def define(self, spec: ObjectSpec) -> None:
        """Make or alter the object's table so that it has a column per synced field, and its live view.

        A retyped column keeps no old values that do not fit; a removed field's column goes.
        """
        define(self._db, spec)

    def records(self, spec: ObjectSpec, ids: Iterable[RecordId]) -> dict[RecordId, StoredRecord]:
        """Those of the records that are stored, deleted ones included."""
        names = spec.names
        rows = self._db.executemany(statements(spec).select, ((i,) for i in ids))
        return {row[0]: stored_record(names, spec.booleans, row[:-1], row[-1]) for row in rows}

    def put(
        self,
        spec: ObjectSpec,
        records: Sequence[StoredRecord],
        *,
        stored: Mapping[RecordId, StoredRecord] | None = None,
    ) -> None:
        """Insert or replace records.

        Only columns whose value differs are written: SQLite rewrites the entry in every index of a column that an
        UPDATE names, whether its value changes or not, and each of those is a page of its own on the disk.

        Args:
            spec: Of the records.
            records: As they are to be; of two with one id the later counts.
            stored: The rows that are there as `records` has read them in this unit, where it has.
        """
        names = spec.names
        wanted = {record.id: record for record in records}
        present = self.records(spec, wanted) if stored is None else stored
        new = [record for record_id, record in wanted.items() if record_id not in present]
        if new:
            self._db.executemany(statements(spec).insert, (_row(names, record) for record in new))
        updates: dict[str, list[tuple[Any, ...]]] = {}
        for record_id, record in wanted.items():
            if record_id in present:
                differing = _differing(names, present[record_id], record)
                if differing:
                    update = update_statement(spec.table, tuple(differing))
                    updates.setdefault(update, []).append((*differing.values(), _place(present[record_id])))
        for update, bindings in updates.items():
            self._db.executemany(update, bindings)
        self._index(spec, present, wanted.values())

    def insert_loaded(self, spec: ObjectSpec, page: ReadPage, at_ms: int) -> Collection[RecordId]:
        """Insert records as a first load brings them; returns the ids of those that are left to be put.

        Left is what is stored already. Where the object has a text index, which has to be told of each record, nothing
        is inserted.
        """
        if self._db.execute(_SQL["search_row"], (spec.name,)).get:
            return page.ids
        text = statements(spec)
        last = self._db.execute(text.last_row).get
        before = self._db.total_changes()
        own = (repeat(0), repeat(iso(at_ms)), repeat(None), page.modified)
        self._db.executemany(text.insert_new, zip(page.ids, *page.columns, *own, strict=False))
        if self._db.total_changes() - before == len(page.ids):
            return ()
        inserted = {row[0] for row in self._db.execute(text.newer_rows, (last,))}
        return [record_id for record_id in page.ids if record_id not in inserted]

    def _index(
        self, spec: ObjectSpec, present: Mapping[RecordId, StoredRecord], records: Iterable[StoredRecord]
    ) -> None:
        """Bring the text index up to the rows that it covers."""
        filled = self._db.execute(_SQL["search_row"], (spec.name,)).get
        names = spec.searched
        if not filled or not names:
            return
        edits: list[Edit] = []
        new: dict[RecordId, list[str | None]] = {}
        for record in records:
            after = [record.values[name] for name in names]
            known = present.get(record.id)
            if known is None:
                new[record.id] = after
            elif (before := [known.values[name] for name in names]) != after:
                edits.append(Edit(_place(known), before, after))
        if new:
            rows = self._db.executemany(statements(spec).rowid, ((i,) for i in new))
            edits += [Edit(row, None, new[record_id]) for record_id, row in rows]
        covered = [edit for edit in edits if edit.rowid <= filled]
        rewrite(self._db, spec.name, spec.table, names, covered)

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


def stored_record(
    names: Sequence[str], booleans: Iterable[str], row: Sequence[Any], place: int | None = None
) -> StoredRecord:
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
        synced_ms=ms(synced_at),
        deleted_ms=ms_or_none(deleted_at),
        modified_ms=ms(modstamp),
        row=place,
    )


def _place(known: StoredRecord) -> int:
    if known.row is None:
        raise ValueError("a row that this unit has not read")
    return known.row


def _differing(names: Sequence[str], old: StoredRecord, new: StoredRecord) -> dict[str, Any]:
    """The columns whose values differ, with the new ones."""
    before, after = old.values, new.values
    differing = {name: after[name] for name in names if after[name] != before[name]}
    for column, moment, known_ms in (
        ("_synced_at", new.synced_ms, old.synced_ms),
        ("_deleted_at", new.deleted_ms, old.deleted_ms),
        ("_modstamp", new.modified_ms, old.modified_ms),
    ):
        if moment != known_ms:
            differing[column] = iso_or_none(moment)
    if new.version != old.version:
        differing["_version"] = new.version
    return differing


def _row(names: Sequence[str], record: StoredRecord) -> tuple[Any, ...]:
    values: Mapping[str, Any] = record.values
    return (record.id, *[values[name] for name in names], *_own(record))


def _own(record: StoredRecord) -> tuple[Any, ...]:
    """Our own columns in the order of `OWN_COLUMNS`."""
    return record.version, iso(record.synced_ms), iso_or_none(record.deleted_ms), iso(record.modified_ms)
