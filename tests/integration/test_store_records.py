"""Tables made from describe results, and their rows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from connector.errors import FatalError
from connector.model.record import ReadPage, StoredRecord
from connector.model.times import to_iso
from connector.store import ReadOnlyReplica, Session
from tests.store_nouns import NOW_MS, WIDGET, WIDGET_FIELDS, record, record_id, spec_of


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        opened.run(lambda unit: unit.define(WIDGET))
        yield opened


def rows(tmp_path: Path, sql: str) -> list[Any]:
    connection = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def columns(tmp_path: Path, table: str = "widget__c") -> list[tuple[str, str]]:
    return [(name, kind) for _, name, kind, *_ in rows(tmp_path, f"PRAGMA table_info({table})")]


def test_an_object_has_the_table_and_view_of_the_contract(session: Session, tmp_path: Path) -> None:
    """Section 7: lower-case name, one column per field under its API name, exactly four of our own, STRICT."""
    session.run(lambda unit: unit.put(WIDGET, [record(1, Name="a", Active__c=True), record(2, deleted_ms=NOW_MS)]))
    assert columns(tmp_path) == [
        ("Id", "TEXT"),
        ("Name", "TEXT"),
        ("Active__c", "INTEGER"),
        ("Size__c", "INTEGER"),
        ("Price__c", "REAL"),
        ("Due__c", "TEXT"),
        ("Seen__c", "TEXT"),
        ("_version", "INTEGER"),
        ("_synced_at", "TEXT"),
        ("_deleted_at", "TEXT"),
        ("_modstamp", "TEXT"),
    ]
    assert rows(tmp_path, "SELECT strict FROM pragma_table_list WHERE name = 'widget__c'") == [(1,)]
    ours = (0, "2026-11-22T17:26:40.157Z", None, "2026-11-22T17:26:40.000Z")
    assert rows(tmp_path, "SELECT * FROM widget__c_live") == [(record_id(1), "a", 1, *([None] * 4), *ours)]
    assert rows(tmp_path, "SELECT _deleted_at FROM widget__c WHERE Name IS NULL") == [("2026-11-22T17:26:40.157Z",)]


def test_records_come_back_as_they_were_put(session: Session) -> None:
    """Every kind of value, null, a deleted record, and one that is not there."""
    full = record(
        1,
        version=7,
        Name="Zoë 'x'\n\0",
        Active__c=False,
        Size__c=-(2**53),
        Price__c=1e15,
        Due__c="2026-02-28",
        Seen__c="2026-11-22T17:26:39.000Z",
    )
    gone = record(2, deleted_ms=NOW_MS)
    session.run(lambda unit: unit.put(WIDGET, [full, gone]))
    found = session.run(lambda unit: unit.records(WIDGET, [record_id(n) for n in (1, 2, 3)]))
    assert found == {full.id: full, gone.id: gone}
    assert found[full.id].values["Active__c"] is False
    assert session.run(lambda unit: unit.count(WIDGET)) == 1


def test_put_replaces_every_value(session: Session) -> None:
    """A value that is null now is not left from before."""
    session.run(lambda unit: unit.put(WIDGET, [record(1, Name="a", Size__c=1)]))
    session.run(lambda unit: unit.put(WIDGET, [record(1, Size__c=2, version=3)]))
    assert session.run(lambda unit: unit.records(WIDGET, [record_id(1)]))[record_id(1)] == record(
        1, Size__c=2, version=3
    )


def page(*records: StoredRecord) -> ReadPage:
    """As a load reads them."""
    return ReadPage(
        ids=[r.id for r in records],
        names=WIDGET.names,
        columns=[[r.values[name] for r in records] for name in WIDGET.names],
        modified=[to_iso(r.modified_ms) for r in records],
        modstamp=[to_iso(r.modified_ms) for r in records],
        deleted=[False for _ in records],
    )


def test_what_a_load_brings_is_inserted_once(session: Session) -> None:
    """Every kind of value; what is stored already, deleted or not, stays as it is and is told."""
    full = record(1, Name='Jane "Ü"', Active__c=True, Size__c=2**62, Price__c=2.5, Due__c="2026-01-31", Seen__c=None)
    assert list(session.run(lambda unit: unit.insert_loaded(WIDGET, page(full, record(2)), NOW_MS))) == []
    session.run(lambda unit: unit.put(WIDGET, [record(4, Name="gone", version=7, deleted_ms=NOW_MS)]))
    again = page(record(4, Name="new"), record(5, Name="new"), record(1, Name="new"), record(0))
    assert list(session.run(lambda unit: unit.insert_loaded(WIDGET, again, NOW_MS))) == [record_id(4), record_id(1)]
    stored = session.run(lambda unit: unit.records(WIDGET, [record_id(n) for n in range(6)]))
    gone = record(4, Name="gone", version=7, deleted_ms=NOW_MS)
    assert list(stored.values()) == [record(0), full, record(2), gone, record(5, Name="new")]
    assert type(stored[record_id(1)].values["Active__c"]) is bool


def test_a_load_leaves_an_indexed_object_to_put(session: Session) -> None:
    """Which tells the text index of each record."""
    while session.run(lambda unit: unit.extend_indexes("Widget__c", 10)):
        pass
    assert list(session.run(lambda unit: unit.insert_loaded(WIDGET, page(record(1)), NOW_MS))) == [record_id(1)]
    assert session.run(lambda unit: unit.count(WIDGET)) == 0


def test_a_load_that_does_not_fit_leaves_nothing(session: Session) -> None:
    """A unit is whole."""
    with pytest.raises(FatalError, match="Price__c"):
        session.run(lambda unit: unit.insert_loaded(WIDGET, page(record(1), record(2, Price__c="cheap")), NOW_MS))
    assert session.run(lambda unit: unit.count(WIDGET)) == 0


def test_live_ids_are_the_living_between_two_bounds(session: Session) -> None:
    """What verification pages through."""
    session.run(
        lambda unit: unit.put(WIDGET, [record(n, deleted_ms=NOW_MS if n == 3 else None) for n in (5, 2, 3, 4, 1)])
    )
    ids = [record_id(n) for n in range(6)]
    assert session.run(lambda unit: unit.live_ids(WIDGET, None, None, 10)) == [ids[1], ids[2], ids[4], ids[5]]
    assert session.run(lambda unit: unit.live_ids(WIDGET, ids[1], ids[4], 10)) == [ids[2], ids[4]]
    assert session.run(lambda unit: unit.live_ids(WIDGET, None, None, 2)) == [ids[1], ids[2]]


def test_a_value_of_another_kind_is_refused_and_nothing_kept(session: Session) -> None:
    """STRICT tables: a text in a number column is our fault, not the file's."""
    with pytest.raises(FatalError, match="Price__c"):
        session.run(lambda unit: unit.put(WIDGET, [record(1), record(2, Price__c="cheap")]))
    assert session.run(lambda unit: unit.count(WIDGET)) == 0


def test_define_follows_the_fields_and_keeps_the_values(session: Session, tmp_path: Path) -> None:
    """A field added, one removed, one retyped and one spelled anew, in place; repeated, it changes nothing."""
    session.run(lambda unit: unit.put(WIDGET, [record(1, Name="12", Size__c=4, Price__c=2.5), record(2, Name="x")]))
    fields = {"Name": "double", "SIZE__c": "int", "Price__c": "currency", "City__c": "string"}
    changed = spec_of(fields)
    for _ in range(2):
        session.run(lambda unit: unit.define(changed))
    found = session.run(lambda unit: unit.records(changed, [record_id(1), record_id(2)]))
    assert found[record_id(1)].values == {"Name": 12.0, "SIZE__c": 4, "Price__c": 2.5, "City__c": None}
    assert found[record_id(2)].values == {"Name": None, "SIZE__c": None, "Price__c": None, "City__c": None}
    assert [c for c in columns(tmp_path, "widget__c_live") if not c[0].startswith("_")] == [
        ("Id", "TEXT"),
        ("Name", "REAL"),
        ("SIZE__c", "INTEGER"),
        ("Price__c", "REAL"),
        ("City__c", "TEXT"),
    ]
    with ReadOnlyReplica(tmp_path / "replica.db") as reader:
        assert dict(reader.objects()["Widget__c"].fields) == {
            "Name": "number",
            "SIZE__c": "integer",
            "Price__c": "number",
            "City__c": "text",
        }


def test_a_text_that_became_a_date_keeps_only_dates(session: Session) -> None:
    """Both are TEXT to SQLite: it is the kind that decides."""
    session.run(lambda unit: unit.put(WIDGET, [record(1, Name="2026-01-31"), record(2, Name="soon")]))
    changed = spec_of({**WIDGET_FIELDS, "Name": "date"})
    session.run(lambda unit: unit.define(changed))
    found = session.run(lambda unit: unit.records(changed, [record_id(1), record_id(2)]))
    assert [r.values["Name"] for r in found.values()] == ["2026-01-31", None]


def test_a_change_of_order_alone_is_taken_over(session: Session) -> None:
    """Columns are addressed by name."""
    turned = spec_of({name: WIDGET_FIELDS[name] for name in sorted(WIDGET_FIELDS, reverse=True)})
    session.run(lambda unit: unit.put(WIDGET, [record(1, Name="a", Size__c=1)]))
    session.run(lambda unit: unit.define(turned))
    found = session.run(lambda unit: unit.records(turned, [record_id(1)]))[record_id(1)]
    assert (found.values["Name"], found.values["Size__c"]) == ("a", 1)


@pytest.mark.parametrize("name", ["Change", "Object", "Sqlite_schema", "Widget__c_live"])
def test_an_object_cannot_take_a_table_of_ours(session: Session, name: str) -> None:
    """A name that would hide a public table is refused before anything is made."""
    with pytest.raises(FatalError):
        session.run(lambda unit: unit.define(spec_of({"Name": "string"}, name=name)))


@pytest.mark.parametrize("field", ['x" TEXT, "y', "_version", "", "Näme"])
def test_a_name_that_is_no_api_name_is_refused(session: Session, field: str) -> None:
    """Describe results come from outside, and names cannot be bound."""
    bad = replace(WIDGET, fields=(replace(WIDGET.fields[0], name=field),))
    with pytest.raises(FatalError, match="no API name"):
        session.run(lambda unit: unit.define(bad))


@pytest.mark.parametrize("name", ["Order", "Group", "Case"])
def test_objects_named_like_sql_words_work(session: Session, name: str) -> None:
    """They are standard objects."""
    spec = spec_of({"From": "string", "Select__c": "boolean"}, name=name)
    row = replace(record(1), values={"From": "a", "Select__c": True})
    session.run(lambda unit: unit.define(spec))
    session.run(lambda unit: unit.put(spec, [row]))
    assert session.run(lambda unit: unit.records(spec, [row.id])) == {row.id: row}


def test_an_edit_writes_the_pages_of_what_changed(session: Session) -> None:
    """An index whose field kept its value is not rewritten: each would be one more page on the SD card."""
    session.run(lambda unit: unit.define(WIDGET))
    session.run(lambda unit: unit.put(WIDGET, [record(1, Name="a", Size__c=1), record(2, Name="b", Size__c=1)]))
    connection = session._connection
    assert connection is not None
    written: list[str] = []
    connection.set_profile(lambda statement, _ns: written.append(statement))
    session.run(
        lambda unit: unit.put(WIDGET, [record(1, Name="a", Size__c=2, version=3), record(2, Name="b", Size__c=1)])
    )
    connection.set_profile(None)
    updates = [statement for statement in written if statement.startswith("UPDATE")]
    assert len(updates) == 1, updates
    assert '"Name"' not in updates[0]
    assert '"Size__c"' in updates[0]
