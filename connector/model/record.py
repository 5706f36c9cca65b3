"""A record as the replica holds it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import compress
from typing import Any

from connector.model.ids import RecordId
from connector.model.noun import dataclass
from connector.model.times import to_iso, to_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """One row of an object's table.

    Attributes:
        id: 18-character id.
        values: Every synced field but `Id` under its API name, in wire form (booleans are bool, date-times
            `2026-11-22T17:26:39.000Z`), never missing.
        version: Version of the last change; 0 for a record that was loaded without being published.
        synced_ms: When the row was last written, milliseconds since the Unix epoch, UTC.
        deleted_ms: When the record was found deleted; None while it lives.
        modified_ms: `LastModifiedDate` of the newest state that the row includes (whole seconds in practice).
        row: Where the store has it, for the unit that read it; None of a record that was not read from there.
    """

    id: RecordId
    values: Mapping[str, Any]
    version: int
    synced_ms: int
    deleted_ms: int | None
    modified_ms: int
    row: int | None = field(default=None, compare=False)

    def numbered(self, version: int) -> "StoredRecord":
        """The row with another version; `dataclasses.replace` takes four times as long."""
        return StoredRecord(
            id=self.id,
            values=self.values,
            version=version,
            synced_ms=self.synced_ms,
            deleted_ms=self.deleted_ms,
            modified_ms=self.modified_ms,
        )

    def document(self) -> dict[str, Any]:
        """The record as replies and `--json` show it: its fields with `Id`, and the version and time of its state."""
        return {"Id": self.id, **self.values, "_version": self.version, "_modstamp": to_iso(self.modified_ms)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRecord:
    """One record as a query, a Bulk job or a retrieve answered it.

    Attributes:
        values: As in `StoredRecord`.
        modified_ms: `LastModifiedDate` (or the object's nearest substitute).
        modstamp_ms: `SystemModstamp` (or the nearest substitute), the poller's high-water mark.
        deleted: `IsDeleted`.
    """

    id: RecordId
    values: Mapping[str, Any]
    modified_ms: int
    modstamp_ms: int
    deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPage:
    """Records that were read together, by column: of the thousands of a page few have to be looked at one by one.

    Attributes:
        ids: Of the records, in the order of all the columns.
        names: Of the synced fields.
        columns: Of each, in the same order, its values as in `StoredRecord`.
        modified, modstamp: As in `ReadRecord`, but in wire form.
        deleted: `IsDeleted`.
    """

    ids: Sequence[RecordId]
    names: Sequence[str]
    columns: Sequence[Sequence[Any]]
    modified: Sequence[str]
    modstamp: Sequence[str]
    deleted: Sequence[bool]

    @property
    def newest_ms(self) -> int | None:
        """The newest `modstamp`; None of an empty page."""
        # Times in wire form are in the order of their text.
        return to_ms(max(self.modstamp)) if self.modstamp else None

    def records(self) -> Iterator[ReadRecord]:
        """One by one."""
        rows = zip(self.ids, self.modified, self.modstamp, self.deleted, *self.columns, strict=True)
        for record_id, modified, modstamp, deleted, *values in rows:
            yield ReadRecord(
                id=record_id,
                values=dict(zip(self.names, values, strict=True)),
                modified_ms=to_ms(modified),
                modstamp_ms=to_ms(modstamp),
                deleted=deleted,
            )

    def among(self, ids: Collection[RecordId]) -> "ReadPage":
        """The records with these ids."""
        return self._only([record_id in ids for record_id in self.ids])

    def without(self, ids: Collection[RecordId]) -> "ReadPage":
        """The records with other ids."""
        return self._only([record_id not in ids for record_id in self.ids]) if ids else self

    def _only(self, chosen: Sequence[bool]) -> "ReadPage":
        return ReadPage(
            ids=list(compress(self.ids, chosen)),
            names=self.names,
            columns=[list(compress(column, chosen)) for column in self.columns],
            modified=list(compress(self.modified, chosen)),
            modstamp=list(compress(self.modstamp, chosen)),
            deleted=list(compress(self.deleted, chosen)),
        )
