"""Change events as the org sends them, and the objects they are about."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from connector.model.ids import RecordId, to_record_id
from connector.model.objects import ObjectSpec, object_spec
from connector.model.times import to_iso
from tests.fakes import real_describe

T0 = 1_795_368_400_000  # 2026-11-22T17:26:40.000Z
CONTACT_FIELDS = ("FirstName", "LastName", "Name", "Email", "Phone", "AccountId", "OwnerId")
_numbers = count(1)


def contact_spec(*more: str) -> ObjectSpec:
    return object_spec(real_describe("Contact"), [*CONTACT_FIELDS, *more])


def account_spec(*fields: str) -> ObjectSpec:
    return object_spec(real_describe("Account"), list(fields or ("Name", "Industry", "AnnualRevenue", "OwnerId")))


def record_id(number: int, prefix: str = "003") -> RecordId:
    return to_record_id(f"{prefix}5f{number:010d}")


def event(
    kind: str,
    *ids: str,
    at_ms: int = T0,
    entity: str = "Contact",
    transaction: str | None = None,
    sequence: int = 1,
    header: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A payload committed at `at_ms`, with its LastModifiedDate (whole second) where the kind has fields."""
    body: dict[str, Any] = dict(fields)
    if kind in ("CREATE", "UPDATE", "UNDELETE"):
        body.setdefault("LastModifiedDate", to_iso(at_ms // 1000 * 1000))
    body = {k: v for k, v in body.items() if v is not ...}
    return {
        "ChangeEventHeader": {
            "entityName": entity,
            "recordIds": list(ids),
            "changeType": kind,
            "changeOrigin": "com/salesforce/api/rest/58.0",
            "transactionKey": transaction or f"00057fee-4c3e-f459-02dd-{next(_numbers):012x}",
            "sequenceNumber": sequence,
            "commitTimestamp": at_ms,
            "commitNumber": 4711000206994,
            "commitUser": "0055f000007NnAbAAK",
            "changedFields": list(body) if kind == "UPDATE" else [],
            **(header or {}),
        },
        **body,
    }
