"""A record as the replica holds it."""

from collections.abc import Mapping
from typing import Any

from connector.model.ids import RecordId
from connector.model.noun import dataclass
from connector.model.times import to_iso


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
    """

    id: RecordId
    values: Mapping[str, Any]
    version: int
    synced_ms: int
    deleted_ms: int | None
    modified_ms: int

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
