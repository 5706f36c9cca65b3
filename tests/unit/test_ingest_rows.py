"""The rows of ingest jobs: what the org is given, and whose each row of its results is."""

import csv
import io
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import LinkDown, OrgUnavailable
from connector.model.change import Operation
from connector.model.command import IngestKind
from connector.model.ids import RecordId
from connector.ports import BulkPage, RecordWrite, WriteOutcome
from connector.salesforce import ingest
from connector.salesforce.bulk import CsvPage

CREATE = IngestKind(object="Contact", operation=Operation.CREATE, external_id=None)
UPDATE = IngestKind(object="Contact", operation=Operation.UPDATE, external_id=None)
UPSERT = IngestKind(object="Contact", operation=Operation.UPSERT, external_id="Key__c")
DELETE = IngestKind(object="Contact", operation=Operation.DELETE, external_id=None)
ID = RecordId("0035f00002KmQ7aAAF")
OTHER = RecordId("0035f00002KmQ7bAAF")


def write(operation: Operation, *, record_id: RecordId | None = None, key: str = "", **fields: Any) -> RecordWrite:
    return RecordWrite(
        object="Contact",
        operation=operation,
        fields=fields,
        record_id=record_id,
        external_id=("Key__c", key) if key else None,
    )


def test_rows_hold_what_each_write_sets_and_nothing_else() -> None:
    """A column for every field of any; empty where a write leaves it alone, `#N/A` where it empties it."""
    writes = [
        write(Operation.UPDATE, record_id=ID, Phone=None, Amount=1e21, Rate=0.1),
        write(Operation.UPDATE, record_id=OTHER, LastName='A "B", C\nD', Active=True),
    ]
    text = ingest.upload(UPDATE, writes).decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["Id", "Active", "Amount", "LastName", "Phone", "Rate"],
        [ID, "", "1000000000000000000000", "", "#N/A", "0.1"],
        [OTHER, "true", "", 'A "B", C\nD', "", ""],
    ]
    assert ingest.upload(DELETE, [write(Operation.DELETE, record_id=ID)]) == f"Id\n{ID}\n".encode()
    assert ingest.upload(UPSERT, [write(Operation.UPSERT, key="k,1", Name="N")]) == b'Key__c,Name\n"k,1",N\n'


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"Phone": "1"}, True),
        ({"Phone": None}, True),
        ({"Phone": " #N/A "}, False),
        ({"Phone": "a\rb"}, False),
        ({"Phone": "x" * 32_000}, True),
        ({"Phone": "x" * 32_001}, False),
    ],
)
def test_what_a_row_cannot_hold_is_not_taken(fields: dict[str, Any], taken: bool) -> None:
    """Nor is a write under a condition, which a job does not check."""
    assert ingest.fits(write(Operation.UPDATE, record_id=ID, **fields)) is taken
    guarded = RecordWrite(object="C", operation="update", fields={}, record_id=ID, only_if="Phone = null")
    assert not ingest.fits(guarded)
    assert not ingest.fits(write(Operation.UPSERT, key="#N/A"))


@pytest.mark.parametrize(
    ("text", "code", "message", "fields"),
    [
        ("REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName --", "REQUIRED_FIELD_MISSING",
         "Required fields are missing: [LastName]", ["LastName"]),
        ("ENTITY_IS_DELETED:entity is deleted:--", "ENTITY_IS_DELETED", "entity is deleted", []),
        ("UNABLE_TO_LOCK_ROW:busy: 003:A B --", "UNABLE_TO_LOCK_ROW", "busy: 003", ["A", "B"]),
        ("DUPLICATE_VALUE:duplicate value found", "DUPLICATE_VALUE", "duplicate value found", []),
        ("something else", "UNKNOWN_EXCEPTION", "something else", []),
        ("", "UNKNOWN_EXCEPTION", "the org names no error", []),
    ],
)  # fmt: skip
def test_errors_of_rows(text: str, code: str, message: str, fields: list[str]) -> None:
    """Code, message and fields as in any other answer."""
    assert ingest.problem_of(text) == {"code": code, "message": message, "fields": fields}


def page(columns: list[str], *rows: list[str]) -> BulkPage:
    return BulkPage(columns, rows, None)


def test_rows_are_known_by_id_and_by_key() -> None:
    """Fifteen characters or eighteen, and whatever the case of a key and of a column's name."""
    found = ingest.Outcomes(UPDATE, [write(Operation.UPDATE, record_id=i, Phone="1") for i in (ID, OTHER)])
    found.refused(page(["sf__Id", "sf__Error", "ID", "Phone"], ["", "A_CODE:no:--", OTHER[:15], "1"]))
    found.taken(page(["sf__Id", "sf__Created", "Id", "Phone"], [ID, "false", ID, "1"]))
    first, second = found.all()
    assert first == WriteOutcome(ID)
    assert second == WriteOutcome(OTHER, ({"code": "A_CODE", "message": "no", "fields": []},), status=400)
    keyed = ingest.Outcomes(UPSERT, [write(Operation.UPSERT, key="Key 1", Phone="1")])
    keyed.taken(page(["sf__Id", "sf__Created", "key__c", "Phone"], [ID, "true", "KEY 1", "1"]))
    assert keyed.all() == [WriteOutcome(ID, created=True)]


def test_what_no_row_tells_of_is_lost() -> None:
    """A row that is nobody's is nobody's; one without an id tells only that an answer is missing."""
    found = ingest.Outcomes(CREATE, [write(Operation.CREATE, LastName=name) for name in ("A", "B", "C")])
    columns = ["sf__Id", "sf__Created", "LastName"]
    found.taken(page(columns, [ID, "true", "Z"], ["", "true", "A"]))
    found.untried(page(["LastName"], ["C"]))
    assert [type(one) for one in found.all()] == [LinkDown, LinkDown, OrgUnavailable]


VALUES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9, allow_nan=False) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\n",\t #'), min_size=1, max_size=20
).map(str.strip).filter(bool)  # fmt: skip


@given(
    st.lists(st.dictionaries(st.sampled_from(["A", "B", "C"]), VALUES, min_size=1), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_each_create_gets_a_record_with_its_values(fields: list[dict[str, Any]], rng: random.Random) -> None:
    """Whatever the order of the rows: every row is one write's, and a write's record has what it set."""
    writes = [write(Operation.CREATE, **one) for one in fields]
    if not all(ingest.fits(one) for one in writes):
        return
    header, *rows = csv.reader(io.StringIO(ingest.upload(CREATE, writes).decode(), newline=""))
    rows = [row or [""] for row in rows]
    numbered = [(f"0035f00000{number:05}", row) for number, row in enumerate(rows)]
    rng.shuffle(numbered)
    written = [pair for pair in numbered if rng.random() < 0.6]
    failed = [pair for pair in numbered if pair not in written]
    found = ingest.Outcomes(CREATE, writes)
    found.taken(_read(["sf__Id", "sf__Created", *header], [[i, "true", *row] for i, row in written]))
    found.refused(_read(["sf__Id", "sf__Error", *header], [["", "A_CODE:no:--", *row] for _, row in failed]))
    outcomes = found.all()
    by_id = dict(numbered)
    taken = [o.id for o in outcomes if isinstance(o, WriteOutcome) and not o.errors]
    assert sorted(str(i)[:15] for i in taken) == sorted(i for i, _ in written)
    assert sum(isinstance(o, WriteOutcome) and bool(o.errors) for o in outcomes) == len(failed)
    for outcome, row in zip(outcomes, rows, strict=True):
        if isinstance(outcome, WriteOutcome) and not outcome.errors:
            assert by_id[str(outcome.id)[:15]] == row


def _read(header: list[str], rows: list[list[str]]) -> BulkPage:
    """As the door reads what the org writes."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([header, *rows])
    read = CsvPage()
    read.read(iter([text.getvalue().encode()]))
    return read.page({})
