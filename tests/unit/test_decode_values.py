"""Values in wire form out of REST JSON, event JSON and Bulk CSV; diffs of long texts."""

from typing import Any

import pytest

from connector.inbound.reading import csv_page, from_row, json_page
from connector.inbound.textdiff import apply_diff, is_applied
from connector.inbound.values import from_csv, from_json
from connector.model.objects import FieldSpec, object_spec
from tests.events import T0, contact_spec, record_id
from tests.fakes import FakeOrg, real_describe

SPEC = contact_spec("Birthdate", "IsEmailBounced", "MailingLatitude", "EmailBouncedDate")


def field(kind: str) -> FieldSpec:
    names = {
        "text": "Phone",
        "boolean": "IsEmailBounced",
        "number": "MailingLatitude",
        "date": "Birthdate",
        "datetime": "EmailBouncedDate",
    }
    return SPEC.by_name[names[kind]]


@pytest.mark.parametrize(
    ("kind", "raw", "wire"),
    [
        ("text", "x", "x"),
        ("text", "", None),
        ("text", "lone \ud800", "lone ?"),
        ("boolean", False, False),
        ("number", 3, 3.0),
        ("date", "2026-01-02", "2026-01-02"),
        ("datetime", "2026-11-22T17:26:39.000+0000", "2026-11-22T17:26:39.000Z"),
        ("datetime", "2026-11-22T18:26:39.000+01:00", "2026-11-22T17:26:39.000Z"),
        ("datetime", T0, "2026-11-22T17:26:40.000Z"),
        ("datetime", None, None),
    ],
)
def test_json_values(kind: str, raw: object, wire: object) -> None:
    got = from_json(field(kind), raw)
    assert got == wire
    assert type(got) is type(wire)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("text", 5),
        ("boolean", "true"),
        ("boolean", 1),
        ("number", "3"),
        ("number", float("nan")),
        ("number", True),
        ("date", "2026-13-02"),
        ("date", "20260102"),
        ("datetime", "2026-11-22"),
        ("datetime", 10**20),
        ("datetime", {}),
    ],
)
def test_json_values_that_do_not_fit(kind: str, raw: object) -> None:
    with pytest.raises(ValueError, match=f"{field(kind).name}: not a value of kind {kind}"):
        from_json(field(kind), raw)


@pytest.mark.parametrize(
    ("kind", "text", "wire"),
    [
        ("text", "a\x00b", "ab"),
        ("text", "", None),
        ("boolean", "true", True),
        ("boolean", "FALSE", False),
        ("number", "1.5E3", 1500.0),
        ("date", "2026-01-02", "2026-01-02"),
        ("datetime", "2026-11-22T17:26:39.000Z", "2026-11-22T17:26:39.000Z"),
    ],
)
def test_csv_values(kind: str, text: str, wire: object) -> None:
    assert from_csv(field(kind), text) == wire


@pytest.mark.parametrize(("kind", "text"), [("boolean", "yes"), ("number", "inf"), ("number", "x"), ("date", "1")])
def test_csv_values_that_do_not_fit(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match="not a value of kind"):
        from_csv(field(kind), text)


def test_rows_and_csv_give_the_same_record() -> None:
    org = FakeOrg("Contact")
    row = org.put("Contact", record_id(1), T0, FirstName="Jane", LastName="Doe", MailingLatitude=1.5)
    read = from_row(SPEC, row)
    columns = SPEC.read_fields()
    text = {**dict.fromkeys(columns, ""), "Id": record_id(1), "FirstName": "Jane", "LastName": "Doe"}
    text |= {"Name": "Jane Doe", "MailingLatitude": "1.5", "IsEmailBounced": "false", "IsDeleted": "false"}
    text |= {"LastModifiedDate": "2026-11-22T17:26:40.000Z", "SystemModstamp": "2026-11-22T17:26:40.000Z"}
    assert list(csv_page(columns, SPEC, [[text[c] for c in columns]]).records()) == [read]
    assert read.modified_ms == read.modstamp_ms == T0


@pytest.mark.parametrize(
    "broken", [{"Id": None}, {"Id": "x"}, {"SystemModstamp": None}, {"LastModifiedDate": "x"}, {"Phone": 5}]
)
def test_rows_that_do_not_fit(broken: dict[str, Any]) -> None:
    row = FakeOrg("Contact").put("Contact", record_id(1), T0)
    with pytest.raises(ValueError, match=r"."):
        from_row(SPEC, row | broken)
    short = {k: v for k, v in row.items() if k != next(iter(broken))}
    with pytest.raises(ValueError, match="missing"):
        from_row(SPEC, short)


def test_a_bulk_result_without_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match="SystemModstamp"):
        csv_page([c for c in SPEC.read_fields() if c != "SystemModstamp"], SPEC, [])
    with pytest.raises(ValueError, match="another number"):
        csv_page(SPEC.read_fields(), SPEC, [["x"]])


def test_one_row_that_does_not_fit_spoils_the_page() -> None:
    """Which one it is, is for `readable` to find out."""
    rows = [FakeOrg("Contact").put("Contact", record_id(n), T0) for n in range(5)]
    assert [read.id for read in json_page(SPEC, rows).records()] == [record_id(n) for n in range(5)]
    with pytest.raises(ValueError, match="Phone: not a value of kind text"):
        json_page(SPEC, [*rows, rows[0] | {"Phone": 0}])
    with pytest.raises(ValueError, match="documented shape"):
        json_page(SPEC, [*rows, "x"])  # type: ignore[list-item]  # as an org might answer


def test_a_page_without_records() -> None:
    assert json_page(SPEC, []).newest_ms is None
    assert list(csv_page(SPEC.read_fields(), SPEC, []).records()) == []


def test_an_object_of_which_no_field_is_synced_has_records_all_the_same() -> None:
    spec = object_spec(real_describe("Contact"), ["Id"])
    (read,) = json_page(spec, [FakeOrg("Contact").put("Contact", record_id(1), T0)]).records()
    assert (read.id, read.values) == (record_id(1), {})


OLD = "\n".join(f"Row {n:02d} " + "x" * 60 for n in range(1, 21))
HASH = "b5990093d1042607fdb931a8f7c16cf54760eb00617ca72e6896b5be264aeeb3"
DIFF = f"--- \n+++ {HASH}\n@@ -7,1 +7,1 @@\n-Row 07 {'x' * 60}\n+Row 07 revised"


def test_the_documented_diff_fits() -> None:
    """The example of section 3.11 with its real SHA-256."""
    got = apply_diff(OLD, DIFF)
    assert got is not None
    assert got.split("\n")[6] == "Row 07 revised"
    assert is_applied(got, DIFF)
    assert not is_applied(OLD, DIFF)


@pytest.mark.parametrize(
    ("base", "diff"),
    [
        (None, DIFF),
        ("", DIFF),
        (OLD.replace("Row 20", "Row 99"), DIFF),  # fits, but the hash does not
        (OLD.replace("Row 07", "Row 77"), DIFF),
        (OLD, DIFF.replace("-7,1", "-700,1")),
        (OLD, DIFF.replace("@@ -7,1 +7,1 @@", "@@ nonsense @@")),
        (OLD, "revised"),
        (OLD, ""),
        (OLD, "--- \n+++ short\n"),
    ],
)
def test_a_diff_that_does_not_fit_gives_nothing(base: object, diff: str) -> None:
    assert apply_diff(base, diff) is None
