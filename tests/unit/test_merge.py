"""The merge rules, row by row of the table in connector/inbound/DESIGN.md."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from connector.inbound.decode import decode
from connector.inbound.merge import Source, merge_absence, merge_event, merge_read
from connector.inbound.outcome import NOTHING, Outcome
from connector.model.change import ChangeEvent, Operation, Origin
from connector.model.record import ReadRecord, StoredRecord
from tests.events import T0, contact_spec, event, record_id

SPEC = contact_spec("Description")
A = record_id(1)
NOW = T0 + 60_000
VALUES: dict[str, Any] = {
    "FirstName": "Jane",
    "LastName": "Doe",
    "Name": "Jane Doe",
    "Email": None,
    "Phone": "1",
    "AccountId": None,
    "OwnerId": "0055f000007NnAbAAK",
    "Description": None,
}


def stored(*, modified_ms: int = T0, deleted: bool = False, version: int = 7, **values: Any) -> StoredRecord:
    return StoredRecord(
        id=A,
        values=VALUES | values,
        version=version,
        synced_ms=T0,
        deleted_ms=T0 if deleted else None,
        modified_ms=modified_ms,
    )


def read(*, modified_ms: int = T0, deleted: bool = False, **values: Any) -> ReadRecord:
    return ReadRecord(id=A, values=VALUES | values, modified_ms=modified_ms, modstamp_ms=modified_ms, deleted=deleted)


def an_event(kind: str, at_ms: int = T0 + 1000, **fields: Any) -> ChangeEvent:
    got = decode(event(kind, A, at_ms=at_ms, **fields), {"Contact": SPEC})
    assert got is not None
    return got


def merged(row: StoredRecord | None, change: ChangeEvent, source: Source | None = Source.STREAM) -> Outcome:
    return merge_event(SPEC, row, change, A, source=source, now_ms=NOW)


def after_read(row: StoredRecord | None, answer: ReadRecord, *, raced: bool = False, **more: Any) -> Outcome:
    return merge_read(SPEC, row, answer, raced=raced, origin=Origin.POLL, now_ms=NOW, **more)


def test_create_of_a_new_record() -> None:
    got = merged(None, an_event("CREATE", Name={"FirstName": "Jane", "LastName": "Doe"}, Phone="1"))
    assert got.record is not None
    assert got.change is not None
    assert got.change.operation is Operation.CREATE
    assert got.change.changed == ("FirstName", "LastName", "Name", "Phone")
    assert got.change.before is None
    assert got.change.after == got.change.record == got.record.values
    assert got.change.origin is Origin.STREAM
    assert got.change.commit is not None
    assert got.record.modified_ms == T0 + 1000


@pytest.mark.parametrize("kind", ["UPDATE", "DELETE"])
def test_an_unknown_record_is_read(kind: str) -> None:
    assert merged(None, an_event(kind)).dirty == "unknown_record"


@pytest.mark.parametrize("kind", ["CREATE", "UNDELETE"])
@pytest.mark.parametrize(("read_ms", "dirty"), [(T0 + 2000, "late_create"), (T0 + 1000, None), (None, None)])
def test_a_late_create_is_read(kind: str, read_ms: int | None, dirty: str | None) -> None:
    """The object was asked for after that, and the record was not there: no event tells of a purge."""
    late = an_event(kind, T0 + 1000, Name={"LastName": "Doe"})
    got = merge_event(SPEC, None, late, A, source=None, now_ms=NOW, read_ms=read_ms)
    assert got.dirty == dirty
    assert (got.record is None) == (dirty is not None)


def test_a_later_update_applies_what_differs() -> None:
    got = merged(stored(), an_event("UPDATE", Phone="2", Email=None), None)
    assert got.change is not None
    assert got.change.changed == ("Phone",)
    assert (got.change.before, got.change.after) == ({"Phone": "1"}, {"Phone": "2"})
    assert got.record is not None
    assert got.record.modified_ms == T0 + 1000


def test_no_visible_change_moves_the_stamp_alone() -> None:
    got = merged(stored(), an_event("UPDATE", Phone="1"))
    assert got.change is None
    assert got.record is not None
    assert got.record.modified_ms == T0 + 1000


def test_an_update_that_does_not_tell_when_is_applied_and_read() -> None:
    """Open point: a lead's conversion may lack LastModifiedDate; the row would keep the one before."""
    spec = contact_spec("Description", "LastModifiedDate")
    row = stored(LastModifiedDate="2026-11-22T17:26:40.000Z")
    for told, doubt in ((..., "modified_date_not_told"), ("2026-11-22T17:26:41.000Z", None)):
        change = decode(event("UPDATE", A, at_ms=T0 + 1000, Phone="2", LastModifiedDate=told), {"Contact": spec})
        assert change is not None
        got = merge_event(spec, row, change, A, source=Source.STREAM, now_ms=NOW)
        assert got.record is not None
        assert (got.record.values["Phone"], got.dirty) == ("2", doubt)
    assert merged(stored(), an_event("UPDATE", Phone="2", LastModifiedDate=...)).dirty is None


def test_in_the_same_second_the_stream_is_in_order() -> None:
    got = merged(stored(), an_event("UPDATE", T0, Phone="2"), Source.STREAM)
    assert got.change is not None


@pytest.mark.parametrize("source", [Source.READ, None])
def test_in_the_same_second_as_a_read_values_decide(source: Source | None) -> None:
    """The read may hold more than this event: never turn it back, ask again where it differs."""
    assert merged(stored(), an_event("UPDATE", T0, Phone="1"), source) == NOTHING
    assert merged(stored(), an_event("UPDATE", T0, Phone="2"), source) == Outcome(dirty="same_second")


def test_an_older_event_than_a_read_is_included_in_it() -> None:
    assert merged(stored(), an_event("UPDATE", T0 - 1000, Phone="2"), Source.READ) == NOTHING


@pytest.mark.parametrize("source", [Source.STREAM, None])
def test_an_older_event_without_a_read_is_a_doubt(source: Source | None) -> None:
    assert merged(stored(), an_event("UPDATE", T0 - 1000, Phone="2"), source) == Outcome(dirty="older_event")


def test_delete_later_than_the_row() -> None:
    got = merged(stored(), an_event("DELETE", T0 + 1999), Source.READ)
    assert got.change is not None
    assert got.change.operation is Operation.DELETE
    assert got.change.before == VALUES
    assert got.change.record is None
    assert got.record is not None
    assert got.record.deleted_ms == NOW
    assert got.record.modified_ms == T0 + 1000


def test_delete_in_the_second_of_the_row() -> None:
    """After a read the record may have been restored in that second; after the stream it cannot."""
    assert merged(stored(), an_event("DELETE", T0 + 500), Source.STREAM).change is not None
    assert merged(stored(), an_event("DELETE", T0 + 500), Source.READ).dirty == "delete_of_read_record"
    assert merged(stored(), an_event("DELETE", T0 + 500), None).dirty == "delete_of_read_record"


def test_delete_of_a_deleted_record_is_nothing() -> None:
    assert merged(stored(deleted=True), an_event("DELETE")) == NOTHING


def test_undelete_replaces_the_row() -> None:
    got = merged(stored(deleted=True), an_event("UNDELETE", Name={"LastName": "Roe"}))
    assert got.change is not None
    assert got.change.operation is Operation.UNDELETE
    assert got.record is not None
    assert got.record.deleted_ms is None
    assert got.record.values["Phone"] is None
    assert got.record.values["Name"] == "Roe"


def test_undelete_counts_by_its_commit_where_last_modified_did_not_move() -> None:
    late = replace(an_event("UNDELETE", T0 + 5000, Name={"LastName": "Roe"}), modified_ms=T0 - 9000)
    got = merged(stored(deleted=True, modified_ms=T0 + 1000), late)
    assert got.change is not None
    assert got.record is not None
    assert got.record.modified_ms == T0 + 5000


def test_update_of_a_deleted_record_is_read() -> None:
    assert merged(stored(deleted=True), an_event("UPDATE", Phone="2")).dirty == "deleted_record"


def test_a_create_that_was_had_never_turns_the_record_back() -> None:
    again = an_event("CREATE", T0, Name={"LastName": "Doe"})
    assert merged(stored(), again, Source.STREAM).dirty == "same_second"
    assert merged(stored(), an_event("CREATE", T0 - 1000, LastName="Doe"), Source.READ) == NOTHING


@pytest.mark.parametrize("kind", ["GAP_CREATE", "GAP_UPDATE", "GAP_DELETE", "GAP_UNDELETE"])
@pytest.mark.parametrize("row", [None, stored()])
def test_gap_events_have_the_record_read(kind: str, row: StoredRecord | None) -> None:
    assert merged(row, an_event(kind)) == Outcome(dirty=kind.lower())


def test_name_is_derived_where_its_parts_compose_it() -> None:
    got = merged(stored(), an_event("UPDATE", Name={"FirstName": "Maren"}))
    assert got.change is not None
    assert got.change.after == {"FirstName": "Maren", "Name": "Maren Doe"}
    assert got.dirty is None


def test_name_is_read_where_its_parts_do_not_compose_it() -> None:
    """Another locale's order, or a part that is not synced: the rest is applied, the name is read."""
    got = merged(stored(Name="Doe Jane"), an_event("UPDATE", Name={"FirstName": "Maren"}))
    assert got.change is not None
    assert got.change.after == {"FirstName": "Maren"}
    assert got.dirty == "name_not_derivable"


def _diff(old: str, new: str) -> str:
    return f"--- \n+++ {hashlib.sha256(new.encode()).hexdigest()}\n@@ -1,1 +1,1 @@\n-{old}\n+{new}"


def test_a_diff_is_applied_to_the_stored_text() -> None:
    got = merged(stored(Description="old"), an_event("UPDATE", Description={"diff": _diff("old", "new")}))
    assert got.change is not None
    assert got.change.after == {"Description": "new"}
    assert got.dirty is None


def test_a_diff_that_is_in_the_row_already_is_nothing() -> None:
    repeated = an_event("UPDATE", T0, Description={"diff": _diff("old", "new")})
    assert merged(stored(Description="new"), repeated, Source.READ) == NOTHING


def test_a_diff_that_does_not_fit_is_quarantined_and_the_record_read() -> None:
    got = merged(stored(Description="other"), an_event("UPDATE", Phone="2", Description={"diff": _diff("old", "new")}))
    assert got.dirty == "diff_does_not_fit"
    assert got.quarantine
    assert got.change is not None
    assert got.change.after == {"Phone": "2"}


def test_a_read_that_nothing_overtook_is_taken_whatever_the_stamps_say() -> None:
    got = after_read(stored(modified_ms=T0 + 9000), read(Phone="2"))
    assert got.change is not None
    assert got.change.after == {"Phone": "2"}
    assert got.change.commit is None
    assert got.change.origin is Origin.POLL
    assert got.record is not None
    assert got.record.modified_ms == T0


def test_a_read_of_what_is_here_is_nothing() -> None:
    assert after_read(stored(), read()) == NOTHING


def test_a_read_finds_new_deleted_and_restored_records() -> None:
    found = [
        after_read(None, read()),
        after_read(stored(), read(deleted=True)),
        after_read(stored(deleted=True), read()),
    ]
    operations = [o.change.operation for o in found if o.change is not None]
    assert operations == [Operation.CREATE, Operation.DELETE, Operation.UNDELETE]
    assert after_read(None, read(deleted=True)) == NOTHING
    assert after_read(stored(deleted=True), read(deleted=True)) == NOTHING


@pytest.mark.parametrize(
    ("row", "answer", "expected"),
    [
        (None, read(), "dirty"),
        (stored(), read(modified_ms=T0 - 1000, Phone="0"), "nothing"),
        (stored(), read(), "nothing"),
        (stored(), read(Phone="2"), "dirty"),
        (stored(), read(modified_ms=T0 + 1000, Phone="2"), "apply"),
        (stored(), read(deleted=True), "dirty"),
        (stored(deleted=True), read(), "dirty"),
        (stored(deleted=True), read(deleted=True), "nothing"),
    ],
)
def test_a_read_that_was_overtaken(row: StoredRecord | None, answer: ReadRecord, expected: str) -> None:
    got = after_read(row, answer, raced=True)
    assert {"dirty": got.dirty == "raced", "nothing": got == NOTHING, "apply": got.change is not None}[expected]


def test_a_settling_read_that_is_older_than_the_row_settles_nothing() -> None:
    got = after_read(stored(), read(modified_ms=T0 - 1000), raced=True, settling=True)
    assert got == Outcome(dirty="raced")


def test_a_first_load_is_silent_but_for_what_changed() -> None:
    new = after_read(None, read(), silent=True)
    assert new.record is not None
    assert new.change is None
    assert after_read(stored(), read(Phone="2"), silent=True).change is not None


def test_the_first_values_of_new_fields_are_silent() -> None:
    fields = frozenset({"Description"})
    filled = after_read(stored(), read(Description="x"), silent=fields)
    assert filled.record is not None
    assert filled.change is None
    assert after_read(stored(), read(Description="x", Phone="2"), silent=fields).change is not None


def test_absence() -> None:
    got = merge_absence(SPEC, stored(), now_ms=NOW)
    assert got.change is not None
    assert (got.change.operation, got.change.origin) == (Operation.DELETE, Origin.REPAIR)
    assert merge_absence(SPEC, stored(deleted=True), now_ms=NOW) == NOTHING


def test_a_compound_that_came_as_null_without_its_parts_has_the_record_read() -> None:
    """Which of them was cleared is not told; nothing is emptied on a guess."""
    spec = contact_spec("MailingCity", "MailingStreet")
    payload = event("UPDATE", A, at_ms=T0 + 1000, MailingAddress=None, header={"changedFields": None})
    change = decode(payload, {"Contact": spec})
    assert change is not None
    full = stored(MailingCity="Bergen", MailingStreet="1 Quay Rd")
    got = merge_event(spec, full, change, A, source=Source.STREAM, now_ms=NOW)
    assert got.dirty == "cleared_part_not_told"
    assert got.record is not None
    assert got.record.values["MailingStreet"] == "1 Quay Rd"
    empty = stored(MailingCity=None, MailingStreet=None)
    assert merge_event(spec, empty, change, A, source=Source.STREAM, now_ms=NOW).dirty is None
    read_since = replace(full, modified_ms=T0 + 1000)
    assert merge_event(spec, read_since, change, A, source=None, now_ms=NOW).dirty == "same_second"
