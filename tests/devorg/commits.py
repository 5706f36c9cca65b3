"""Commits as an org's transactions would give them, for tests of what becomes of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from connector.devorg.commits import ChangeKind, Commit, RowChange

USER = "0055f000007NnAbAAK"
OTHER_USER = "0055f000007SvcUAAS"

Row = dict[str, Any]


def row(modified: str = "2026-01-01T12:00:00.000Z", by: str = USER, **values: Any) -> Row:
    """A stored record: system fields and what the test cares for."""
    system: Row = {
        "OwnerId": USER,
        "CreatedDate": "2026-01-01T12:00:00.000Z",
        "CreatedById": USER,
        "LastModifiedDate": modified,
        "LastModifiedById": by,
        "SystemModstamp": modified,
        "IsDeleted": False,
    }
    return system | values


def changed(
    kind: ChangeKind, name: str, record_id: str, after: Mapping[str, Any], before: Mapping[str, Any] | None = None
) -> RowChange:
    found = None if before is None else {"Id": record_id, **before}
    return RowChange(object=name, id=record_id, kind=kind, before=found, after={"Id": record_id, **after})


def commit(*changes: RowChange, at: str = "2026-01-01T12:00:00.000Z", **members: Any) -> Commit:
    known: dict[str, Any] = {
        "transaction_key": "00057fee-4c3e-f459-02dd-21250b729601",
        "commit_number": 4711000206994,
        "commit_ms": int(datetime.fromisoformat(at).timestamp() * 1000),
        "user_id": USER,
        "origin": "com/salesforce/api/rest/66.0",
    }
    return Commit(changes=changes, **(known | members))
