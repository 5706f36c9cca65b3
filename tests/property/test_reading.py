"""Columns of an answer become what their values one by one would: for every field of every description."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.inbound.reading import csv_page, json_page
from connector.inbound.values import from_csv, from_json
from connector.model.ids import RecordId, to_record_id, to_record_ids
from connector.model.objects import FieldSpec, Kind, ObjectSpec, object_spec
from connector.model.record import ReadRecord
from connector.model.times import to_iso, to_ms
from connector.salesforce.bulk import CsvPage
from tests.events import record_id
from tests.fakes import real_describe

SPECS = {name: object_spec(real_describe(name), "all") for name in ("Account", "Contact", "Lead", "Opportunity")}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["", "", '"', '""', ",", "\n", "\r\n", "\r", "a\u2028b", "null", "é", "𝄞", "true", "0", "2026-01-02"]
)
moments = st.integers(-62_000_000_000_000, 253_402_300_799_999).map(to_iso)
spellings = st.tuples(moments, st.sampled_from(["Z", "+0000", "+00:00", "+01:00", "z"])).map(lambda t: t[0][:-1] + t[1])
days = st.dates().map(str)
CSV: dict[Kind, st.SearchStrategy[str]] = {
    "text": texts,
    "boolean": st.sampled_from(["true", "false", "TRUE", "False", ""]),
    "integer": st.integers(-(2**63) + 1, 2**63 - 1).map(str) | st.sampled_from(["", "1E3", "+5", "2.0"]),
    "number": st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.sampled_from(["", "1.5E3", "7"]),
    "date": days | st.just(""),
    "datetime": spellings | st.just(""),
}
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
JSON: dict[Kind, st.SearchStrategy[object]] = {
    "text": texts | st.none() | st.just("lone \ud800"),
    "boolean": st.booleans() | st.none(),
    "integer": st.integers(-(2**63) + 1, 2**63 - 1) | st.sampled_from([None, 2.0, 0, ""]),
    "number": numbers | st.sampled_from([None, 0, -0.0, ""]),
    "date": days | st.none(),
    "datetime": spellings | st.none(),
}
# Of no kind, or of another one: equal to what fits (0, False, 0.0), unhashable, out of range.
hostile: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, 0.0, True, False, [], {}, {"a": 1}, "x", "2026-02-30", float("inf"), float("nan"), 10**30, "\ud800", None]
) | st.text(max_size=3)
STAMPS = ("LastModifiedDate", "SystemModstamp")


def drawn(data: st.DataObject, spec: ObjectSpec, by_kind: Any) -> list[dict[str, Any]]:
    """Some rows with every field; their own values of five of them, to be quick."""
    count = data.draw(st.integers(0, 5))
    chosen = set(data.draw(st.permutations(spec.names))[:5])
    rows: list[dict[str, Any]] = [
        {"Id": record_id(n), "IsDeleted": n == 3, "LastModifiedDate": data.draw(spellings), "SystemModstamp": to_iso(n)}
        for n in range(count)
    ]
    for field in spec.fields:
        for row in rows:
            row.setdefault(field.name, data.draw(by_kind[field.kind]) if field.name in chosen else None)
    return rows


def one_by_one(spec: ObjectSpec, row: dict[str, Any], convert: Callable[[FieldSpec, Any], Any]) -> ReadRecord:
    """As the definition of a read record has it."""
    return ReadRecord(
        id=row["Id"],
        values={field.name: convert(field, row[field.name]) for field in spec.fields},
        modified_ms=to_ms(row["LastModifiedDate"]),
        modstamp_ms=to_ms(row["SystemModstamp"]),
        deleted=row["IsDeleted"] in (True, "true"),
    )


def same(got: list[ReadRecord], wanted: list[ReadRecord]) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are not the same value."""
    types = [[type(value) for value in read.values.values()] for read in got]
    return got == wanted and types == [[type(value) for value in read.values.values()] for read in wanted]


@settings(max_examples=150)
@given(st.data(), st.sampled_from(sorted(SPECS)))
def test_json_by_column_is_json_by_value(data: st.DataObject, name: str) -> None:
    spec = SPECS[name]
    rows = drawn(data, spec, JSON)
    assert same(list(json_page(spec, rows).records()), [one_by_one(spec, row, from_json) for row in rows])


@settings(max_examples=150)
@given(st.data(), st.sampled_from(sorted(SPECS)))
def test_csv_by_column_is_csv_by_value(data: st.DataObject, name: str) -> None:
    """From the bytes of the body: every value in quotes, inner ones doubled."""
    spec = SPECS[name]
    rows = [
        {column: {None: "", True: "true", False: "false"}.get(value, value) for column, value in row.items()}
        for row in drawn(data, spec, CSV)
    ]
    columns = list(spec.read_fields())
    lines = [columns, *([row[column] for column in columns] for row in rows)]
    body = "".join(",".join('"' + text.replace('"', '""') + '"' for text in line) + "\n" for line in lines).encode()
    page = CsvPage()
    page.read(iter([body]))
    read = csv_page(page.page({}).columns, spec, page.page({}).rows)
    assert same(list(read.records()), [one_by_one(spec, row, from_csv) for row in rows])
    assert read.newest_ms == max((to_ms(row["SystemModstamp"]) for row in rows), default=None)


def outcome(convert: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return ("read", convert())
    except ValueError as error:
        return ("refused", str(error))


TYPES: dict[Kind, str] = {
    "text": "string",
    "boolean": "boolean",
    "integer": "int",
    "number": "double",
    "date": "date",
    "datetime": "datetime",
}


def one_field(kind: Kind) -> ObjectSpec:
    """An object with one field of that kind, `Value__c`."""
    fields = [{"name": "Id", "type": "id"}, {"name": "Value__c", "type": TYPES[kind]}]
    fields += [{"name": name, "type": "datetime"} for name in STAMPS]
    return object_spec({**real_describe("Contact"), "fields": fields}, ["Value__c"])


@settings(max_examples=300)
@given(st.data(), st.lists(hostile, min_size=1, max_size=3), st.sampled_from(sorted(TYPES)))
def test_what_does_not_fit_is_refused_by_column_too(data: st.DataObject, values: list[Any], kind: Kind) -> None:
    """With the same words, which name the field and not the value."""
    spec = one_field(kind)
    values = data.draw(st.permutations([*values, *data.draw(st.lists(JSON[kind], max_size=2))]))
    rows = [{"Id": record_id(n), "Value__c": v, **dict.fromkeys(STAMPS, to_iso(0))} for n, v in enumerate(values)]
    by_column = outcome(lambda: [read.values["Value__c"] for read in json_page(spec, rows).records()])
    assert repr(by_column) == repr(outcome(lambda: [from_json(spec.fields[0], value) for value in values]))


@settings(max_examples=300)
@given(st.data(), st.lists(texts, min_size=1, max_size=3), st.sampled_from(sorted(TYPES)))
def test_text_that_does_not_fit_is_refused_by_column_too(data: st.DataObject, values: list[str], kind: Kind) -> None:
    """As above, of a Bulk result."""
    spec = one_field(kind)
    values = data.draw(st.permutations([*values, *data.draw(st.lists(CSV[kind], max_size=2))]))
    lines = [[record_id(n), to_iso(0), to_iso(0), value] for n, value in enumerate(values)]
    columns = ["Id", *STAMPS, "Value__c"]
    by_column = outcome(lambda: [read.values["Value__c"] for read in csv_page(columns, spec, lines).records()])
    # Of several that do not fit, any may be named: they are of one field.
    assert repr(by_column) == repr(outcome(lambda: [from_csv(spec.fields[0], text) for text in values]))


@given(spellings)
def test_a_time_in_any_spelling_is_the_time_that_it_tells(text: str) -> None:
    """Those that need no reckoning are told from those that do."""
    (field,) = (f for f in SPECS["Contact"].fields if f.name == "EmailBouncedDate")
    assert outcome(lambda: from_json(field, text)) == outcome(lambda: to_iso(to_ms(text)))


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00.000Z",
        "2026-01-01T24:00:00.000Z",
        "2026-01-01T23:59:60.000Z",
        "0000-01-01T00:00:00.000Z",
        "2026-W01-1T00:00:00.000Z",
        "\uff12026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:00.000Z\n",
        "2026-01-01T00:00:00.000",
    ],
)
def test_what_looks_like_a_time_and_is_none(text: str) -> None:
    (field,) = (f for f in SPECS["Contact"].fields if f.name == "EmailBouncedDate")
    with pytest.raises(ValueError, match="not a value of kind datetime"):
        from_json(field, text)


bodies = st.text("abcXYZ0189", min_size=15, max_size=15)
ids = bodies.map(to_record_id)
spelled = ids | ids.map(lambda i: RecordId(i.lower())) | bodies
wrong = st.sampled_from(
    ["", "x", "003", "é" * 18, "0035f00000000000AA!", "0035f0000000001AAZ", "0" * 17 + "é", " " * 18]
)


@given(st.lists(spelled | wrong, max_size=6) | st.lists(ids, max_size=40))
def test_many_ids_are_read_as_each_is(texts: list[str]) -> None:
    """Long and short ones, those that lost their case, and what is none."""
    assert outcome(lambda: list(to_record_ids(texts))) == outcome(lambda: [to_record_id(text) for text in texts])


@given(ids, st.integers(0, 17), st.sampled_from("aA0Zz9"))
def test_a_wrong_character_in_one_of_many_is_found(text: RecordId, place: int, char: str) -> None:
    changed = text[:place] + char + text[place + 1 :]
    many = [record_id(1), changed, record_id(2)]
    assert outcome(lambda: list(to_record_ids(many))) == outcome(lambda: [to_record_id(i) for i in many])
