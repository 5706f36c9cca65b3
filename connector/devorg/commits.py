"""What one committed transaction of the org did: the noun between its records and its event bus."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ChangeKind = Literal["CREATE", "UPDATE", "DELETE", "UNDELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChange:
    """One record as a transaction found it and as it left it.

    Several writes to one record in one transaction are one `RowChange` with the first kind and the final values;
    a record both made and deleted in one transaction gives none.

    Attributes:
        object: API name of the object.
        id: 18-character record id.
        kind: What happened to the record.
        before: Every stored field by API name, as the transaction found them; None for CREATE.
        after: Every stored field by API name, as committed (a deleted record keeps its values).

    Values are what the REST API would answer, but for date-times: `2026-01-01T12:00:00.000Z` here.
    """

    object: str
    id: str
    kind: ChangeKind
    before: Mapping[str, Any] | None
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One committed transaction.

    Attributes:
        transaction_key: UUID-like text, shared by all events of the transaction.
        commit_number: The org's commit counter (SCN), 64-bit.
        commit_ms: Commit time by the org's clock, milliseconds since the Unix epoch, UTC.
        user_id: Id of the user who wrote.
        origin: `changeOrigin` of the events, for instance `com/salesforce/api/rest/58.0;client=x`; may be empty.
        changes: In the order of the writes.

    Source: Change Data Capture Developer Guide, "ChangeEventHeader Fields".
    """

    transaction_key: str
    commit_number: int
    commit_ms: int
    user_id: str
    origin: str
    changes: tuple[RowChange, ...]
