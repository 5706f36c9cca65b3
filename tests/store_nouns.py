"""Objects, records, changes and commands for the tests of the store."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.command import Command, ConflictPolicy
from connector.model.ids import RecordId, to_record_id
from connector.model.objects import ObjectSpec, object_spec
from connector.model.record import StoredRecord

NOW_MS = 1_795_368_400_157  # 2026-11-22T17:26:40.157Z
DAY_MS = 24 * 3600 * 1000

WIDGET_FIELDS: Mapping[str, str] = {
    "Name": "string",
    "Active__c": "boolean",
    "Size__c": "int",
    "Price__c": "currency",
    "Due__c": "date",
    "Seen__c": "datetime",
}


def spec_of(fields: Mapping[str, str] = WIDGET_FIELDS, name: str = "Widget__c", prefix: str = "a01") -> ObjectSpec:
    """An object with these fields (name -> the org's type), all synced."""
    described = [{"name": "Id", "type": "id"}, {"name": "SystemModstamp", "type": "datetime"}]
    described += [{"name": field, "type": kind} for field, kind in fields.items()]
    return object_spec({"name": name, "keyPrefix": prefix, "fields": described}, list(fields))


WIDGET = spec_of()


def record_id(number: int, prefix: str = "a01") -> RecordId:
    return to_record_id(f"{prefix}5f{number:010d}")


def record(number: int, *, version: int = 0, deleted_ms: int | None = None, **values: Any) -> StoredRecord:
    """A widget; fields that are not named are null."""
    return StoredRecord(
        id=record_id(number),
        values={field: values.get(field) for field in WIDGET_FIELDS},
        version=version,
        synced_ms=NOW_MS,
        deleted_ms=deleted_ms,
        modified_ms=NOW_MS - 157,
    )


def change(number: int = 1, **other: Any) -> Change:
    """A published-to-be update of a widget's Name."""
    made = Change(
        object="Widget__c",
        id=record_id(number),
        operation=Operation.UPDATE,
        changed=("Name",),
        before={"Name": None},
        after={"Name": "new"},
        record={"Id": record_id(number), "Name": "new", "Active__c": True, "Price__c": 1.5},
        origin=Origin.STREAM,
        command_id=None,
        commit=CommitInfo(NOW_MS - 37, 92847272780, "0055f000007NnAbAAK", "001b7375-0086-250e-e6ca-b99bc3a8b69f", 1),
        applied_ms=NOW_MS,
    )
    return replace(made, **other)


def command(command_id: str, **other: Any) -> Command:
    """An accepted update of widget 1."""
    made = Command(
        command_id=command_id,
        object="Widget__c",
        operation=Operation.UPDATE,
        record_id=record_id(1),
        external_id=None,
        fields={"Name": "wanted", "Active__c": True},
        base={"Name": None},
        on_conflict=ConflictPolicy.MERGE,
        expires_ms=None,
        sender="billing",
        reply_to="billing/inbox",
        correlation="abc",
        accepted_ms=NOW_MS,
    )
    return replace(made, **other)
