"""Full-text search and the indexes that make looking up quick, on a real file."""

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from connector.errors import SearchNotReady
from connector.model.query import Filter, FilterOperator
from connector.store import ReadOnlyReplica, Session
from connector.store import textsearch as textsearch_module
from connector.store.textindex import MOST_LATE
from tests.store_nouns import NOW_MS, record, record_id, spec_of

PERSON_FIELDS = {"Name": "string", "Email": "email", "Notes__c": "textarea", "OwnerId": "reference", "Size__c": "int"}
PERSON = spec_of(PERSON_FIELDS, "Person__c", "a03")


def person(number: int, **values: Any) -> Any:
    filled = {field: values.get(field) for field in PERSON_FIELDS}
    return replace(record(number), values=filled | {"Size__c": number}, deleted_ms=values.get("deleted_ms"))


def extend(session: Session, name: str = "Person__c", rows: int = 1000) -> int:
    """Make all that is missing; in how many pieces."""
    pieces = 0
    while session.run(lambda unit: unit.extend_indexes(name, rows)):
        pieces += 1
        assert pieces < 100
    return pieces


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        opened.run(lambda unit: unit.define(PERSON))
        people = [
            person(1, Name="José Ärger", Email="jose@example.com", Notes__c="likes tea"),
            person(2, Name="Jane Doe", Email="jane@example.com", Notes__c="tea tea tea"),
            person(3, Name="Janet Doe-Smith", Email="j.smith@example.org"),
            person(4, Name="Jane", deleted_ms=NOW_MS),
        ]
        opened.run(lambda unit: unit.put(PERSON, people))
        extend(opened)
        yield opened


@pytest.fixture
def reader(session: Session, tmp_path: Path) -> Iterator[ReadOnlyReplica]:  # noqa: ARG001 - it makes the file
    with ReadOnlyReplica(tmp_path / "replica.db") as opened:
        yield opened


def found(reader: ReadOnlyReplica, text: str, **more: Any) -> list[int]:
    return [r.values["Size__c"] for r in reader.search("Person__c", text, limit=100, **more).records]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jose", {1}),
        ("JOSÉ", {1}),
        ("arger", {1}),
        ("jan", {2, 3}),
        ("doe jane", {2, 3}),
        ("smith doe", {3}),
        ("jane@example.com", {2}),
        ("jane@exa", {2}),
        ("example.com", {1, 2}),
        ("ane", set()),
        ("  Doe   ", {2, 3}),
        ("- doe", {2, 3}),
        ("@", set()),
        ("", set()),
        ('"', set()),
        ('do"e', set()),
        ("doe OR jose", set()),
        ("doe NOT jane", set()),
        ("Name : doe", set()),
        ("doe*", {2, 3}),
        ("(doe", {2, 3}),
        ("NEAR(doe", set()),
        ("doe\0jane", {2, 3}),
        ("x" * 1000, set()),
    ],
)
def test_words_are_found_by_their_beginnings(reader: ReadOnlyReplica, text: str, expected: set[int]) -> None:
    """Without regard to case and accents; all of them; what looks like an operator is text; no deleted ones."""
    assert set(found(reader, text)) == expected
    assert reader.count("Person__c", text=text) == len(expected)


def test_the_best_fit_comes_first(reader: ReadOnlyReplica) -> None:
    """Unless an order is asked for."""
    assert found(reader, "tea") == [2, 1]
    assert found(reader, "tea", order_by="Name desc") == [1, 2]
    assert found(reader, "tea", where=Filter("Email", FilterOperator.LIKE, "jose%")) == [1]


def test_ids_of_other_records_are_no_words(reader: ReadOnlyReplica) -> None:
    """They would be found in every record of an owner."""
    assert reader.objects()["Person__c"].searched == ("Name", "Email", "Notes__c")
    assert found(reader, record_id(1)) == []


def test_it_is_kept_in_the_transaction_that_changes_a_record(session: Session, reader: ReadOnlyReplica) -> None:
    """Inserted, edited, deleted and trimmed; what is rolled back is not found."""
    session.run(lambda unit: unit.put(PERSON, [person(5, Name="Newcomer")]))
    assert found(reader, "newcomer") == [5]
    session.run(lambda unit: unit.put(PERSON, [person(5, Name="Renamed", Notes__c="x")]))
    assert (found(reader, "newcomer"), found(reader, "renamed")) == ([], [5])

    def undone(unit: Any) -> None:
        unit.put(PERSON, [person(5, Name="Never")])
        raise KeyError

    with pytest.raises(KeyError):
        session.run(undone)
    assert (found(reader, "never"), found(reader, "renamed")) == ([], [5])
    session.run(lambda unit: unit.put(PERSON, [person(5, Name="Renamed", deleted_ms=NOW_MS)]))
    assert found(reader, "renamed") == []
    session.run(lambda unit: unit.trim(NOW_MS + 10**10, 10**9, 10**9, 100))
    session.run(lambda unit: unit.put(PERSON, [person(5, Name="Again")]))
    assert (found(reader, "renamed"), found(reader, "again")) == ([], [5])


@pytest.mark.parametrize("most", [2000, 10, 0])
def test_pages_of_a_search_put_together_are_all_of_it(
    session: Session, reader: ReadOnlyReplica, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Ranked, or too many to be ranked: no record twice, none left out."""
    monkeypatch.setattr(textsearch_module, "MAX_RANKED", most)
    people = [person(n, Name=f"bulk {'bulk ' * (n % 3)}{n}") for n in range(10, 30)]
    session.run(lambda unit: unit.put(PERSON, people))
    paged: list[int] = []
    after = None
    for _ in range(20):
        page = reader.search("Person__c", "bulk", limit=3, after=after)
        paged += [r.values["Size__c"] for r in page.records]
        after = page.next
        if after is None:
            break
    if most != 10:
        assert sorted(paged) == list(range(10, 30))
    assert len(set(paged)) == len(paged)
    ranked = [n % 3 for n in paged]
    assert ranked == sorted(ranked, reverse=True) or most < 20


@pytest.mark.parametrize("after", ["x", "WyJ0ZXh0IiwxLDFd", "WyJ0ZXh0IixudWxsLCJhIl0", "WyJvdGhlciIsbnVsbCwxXQ"])
def test_a_position_of_another_list_is_refused(reader: ReadOnlyReplica, after: str) -> None:
    """As in every list."""
    with pytest.raises(ValueError, match="after"):
        reader.search("Person__c", "tea", limit=1, after=after)
    with pytest.raises(ValueError, match="after"):
        reader.list("Person__c", limit=1, after=after)


def test_it_is_made_piece_by_piece_after_the_load(tmp_path: Path) -> None:
    """Meanwhile records come, change and go; nobody is given half of what there is."""
    with Session(tmp_path / "new.db") as session, ReadOnlyReplica(tmp_path / "new.db") as reader:
        session.run(lambda unit: unit.define(PERSON))
        session.run(lambda unit: unit.put(PERSON, [person(n, Name=f"old {n}") for n in range(25)]))
        with pytest.raises(SearchNotReady, match="Person__c"):
            found(reader, "old")
        for _ in range(5):  # three indexes, then the first two pieces
            assert session.run(lambda unit: unit.extend_indexes("Person__c", 10))
        session.run(lambda unit: unit.put(PERSON, [person(3, Name="edited"), person(24, Name="edited")]))
        session.run(lambda unit: unit.put(PERSON, [person(30, Name="late")]))
        with pytest.raises(SearchNotReady):
            reader.count("Person__c", text="old")
        extend(session, rows=10)
        assert sorted(found(reader, "old")) == [n for n in range(25) if n not in (3, 24)]
        assert (sorted(found(reader, "edited")), found(reader, "late")) == ([3, 24], [30])
        assert extend(session) == 0


@pytest.mark.parametrize("seed", range(3))
def test_it_says_what_the_rows_say(tmp_path: Path, seed: int) -> None:
    """Whatever is written in whatever order, twice in one page too, while the index is made and after: FTS5 agrees."""
    rng = random.Random(seed)
    words = ("tea", "Ärger", "doe", "x", "", None)
    with Session(tmp_path / "new.db") as session:
        session.run(lambda unit: unit.define(PERSON))
        for turn in range(60):
            page = [
                person(
                    rng.randrange(40),
                    Name=rng.choice(words),
                    Notes__c=rng.choice(words),
                    deleted_ms=rng.choice((None, None, NOW_MS)),
                )
                for _ in range(rng.randrange(1, 12))
            ]
            session.run(lambda unit, page=page: unit.put(PERSON, page))  # type: ignore[misc]  # bound at once
            if turn > 5:
                session.run(lambda unit: unit.extend_indexes("Person__c", rng.randrange(1, 9)))
            if turn % 10 == 9:
                session.run(lambda unit: unit.trim(NOW_MS + 2, 1, 1, 3))
        extend(session, rows=7)
        session.run(lambda unit: unit.settle_index("Person__c"))
    with contextlib.closing(apsw.Connection(str(tmp_path / "new.db"))) as connection:
        # Raises where the index holds anything else than the table's texts.
        connection.execute("INSERT INTO person__c_search (person__c_search, rank) VALUES ('integrity-check', 1)")


def test_fields_that_come_and_go(session: Session, reader: ReadOnlyReplica) -> None:
    """The index is made anew where what is searched has changed, and kept where it has not."""
    more = spec_of({**PERSON_FIELDS, "Price__c": "currency"}, "Person__c", "a03")
    session.run(lambda unit: unit.define(more))
    assert sorted(found(reader, "doe")) == [2, 3]
    renamed = replace(person(2, Name="Jane Roe"), values={**person(2, Name="Jane Roe").values, "Price__c": None})
    session.run(lambda unit: unit.put(more, [renamed]))
    assert (found(reader, "doe"), found(reader, "roe")) == ([3], [2])
    fewer = spec_of({"Name": "string", "Size__c": "int", "City__c": "string"}, "Person__c", "a03")
    session.run(lambda unit: unit.define(fewer))
    with pytest.raises(SearchNotReady):
        found(reader, "tea")
    assert extend(session) > 0
    assert (found(reader, "tea"), found(reader, "roe")) == ([], [2])
    none = spec_of({"Size__c": "int"}, "Person__c", "a03")
    session.run(lambda unit: unit.define(none))
    assert (found(reader, "roe"), extend(session)) == ([], 0)


def test_an_object_without_text_finds_nothing(session: Session, reader: ReadOnlyReplica) -> None:
    """And says so without an error; of an object that is not there nothing can be made."""
    bare = spec_of({"Size__c": "int"}, "Bare__c", "a04")
    session.run(lambda unit: unit.define(bare))
    assert extend(session, "Bare__c") == 0
    assert reader.search("Bare__c", "x", limit=1).records == ()
    assert not session.run(lambda unit: unit.extend_indexes("Nope", 10))


def test_looking_up_walks_an_index(session: Session, reader: ReadOnlyReplica) -> None:
    """The condition and the order together, so that a page costs what it shows."""
    assert reader.objects()["Person__c"].looked_up == ("Name", "Email", "OwnerId")
    plan = session.run(
        lambda unit: unit._db.execute(  # type: ignore[attr-defined]  # the plan is asked for here alone
            'EXPLAIN QUERY PLAN SELECT * FROM person__c WHERE _deleted_at IS NULL AND ("OwnerId" = ?) AND "Id" > ? '
            'ORDER BY "Id" LIMIT 5',
            ("x", "y"),
        ).fetchall()
    )
    assert [row[3] for row in plan] == ["SEARCH person__c USING INDEX person__c_by_OwnerId (OwnerId=? AND Id>?)"]


def test_a_vacuum_changes_nothing(session: Session, tmp_path: Path) -> None:
    """The index goes by row ids."""
    session.run(lambda unit: unit.put(PERSON, [person(1, Name="x", deleted_ms=1)]))
    session.run(lambda unit: unit.trim(NOW_MS + 10**10, 10**9, 10**9, 100))
    session.close()
    connection = apsw.Connection(str(tmp_path / "replica.db"))
    connection.execute("VACUUM")
    connection.close()
    with ReadOnlyReplica(tmp_path / "replica.db") as reader:
        assert (found(reader, "janet"), found(reader, "tea")) == ([3], [2])


def test_a_few_rows_wait_for_more(session: Session, reader: ReadOnlyReplica) -> None:
    """A change alone leaves the index as it is and is found all the same; many at once, or settling, write it."""

    def in_index(word: str) -> int:
        statement = "SELECT count(*) FROM person__c_search WHERE person__c_search MATCH ?"
        rows: int = session.run(lambda unit: unit._db.execute(statement, (word,)).get)  # type: ignore[attr-defined]  # as other programs ask
        return rows

    session.run(lambda unit: unit.settle_index("Person__c"))
    session.run(lambda unit: unit.put(PERSON, [person(2, Name="Wanda Doe", Notes__c="tea tea tea")]))
    assert (found(reader, "wanda"), found(reader, "jane"), set(found(reader, "tea"))) == ([2], [3], {1, 2})
    assert (in_index("wanda"), in_index("jane")) == (0, 2)
    assert reader.count("Person__c", text="wanda") == 1
    assert [r.id for r in reader.search("Person__c", text="doe", order_by="Name", limit=9).records] == [
        record_id(3),
        record_id(2),
    ]
    session.run(lambda unit: unit.settle_index("Person__c"))
    assert (in_index("wanda"), in_index("jane")) == (1, 1)
    session.run(lambda unit: unit.put(PERSON, [person(n, Name="Crowd") for n in range(100, 100 + MOST_LATE)]))
    assert in_index("crowd") == 0
    session.run(lambda unit: unit.put(PERSON, [person(3, Name="Overflow"), person(100, Name="Crowd again")]))
    assert (in_index("crowd"), in_index("overflow"), in_index("smith")) == (MOST_LATE, 1, 0)
    assert found(reader, "again") == [100]


def test_other_programs_search_as_well(session: Session, tmp_path: Path) -> None:
    """With the SQLite of the system, which is older than ours: by words, by column, with what was found marked."""
    assert session
    script = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "for sql in sys.argv[2:]: print(connection.execute(sql).fetchall())\n"
    )
    joined = "person__c_search AS s JOIN person__c AS p ON p.rowid = s.rowid"
    found = f"SELECT p.Name FROM {joined} WHERE _deleted_at IS NULL AND person__c_search MATCH"  # noqa: S608 - our own names
    marked = "SELECT highlight(person__c_search, 0, '[', ']') FROM person__c_search WHERE person__c_search MATCH"
    queries = {
        f"{found} 'doe AND jan*' ORDER BY s.rank, p.Name": "[('Jane Doe',), ('Janet Doe-Smith',)]",
        f"{found} 'Email: smith'": "[('Janet Doe-Smith',)]",
        f"{marked} 'arger'": "[('José [Ärger]',)]",
        "SELECT count(*) FROM person__c_search": "[(4,)]",
        "PRAGMA integrity_check": "[('ok',)]",
    }
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script, str(tmp_path / "replica.db"), *queries],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.splitlines() == list(queries.values())


def test_of_two_indexes_the_better_one_is_walked(session: Session, reader: ReadOnlyReplica) -> None:
    """One owner of everything does not make a page cost everything."""
    crowd = [person(n, Name=f"n {n}", Email=f"{n // 10}@example.com", OwnerId="x") for n in range(100, 3000)]
    session.run(lambda unit: unit.put(PERSON, crowd))
    session.run(lambda unit: unit.define(spec_of({"Size__c": "int"}, "Person__c", "a03")))
    session.run(lambda unit: unit.define(PERSON))
    session.run(lambda unit: unit.put(PERSON, crowd))
    extend(session)
    with reader.snapshot() as unit:
        plan = unit._db.execute(
            'EXPLAIN QUERY PLAN SELECT * FROM person__c WHERE "OwnerId" = \'x\' AND "Email" = ?', "a"
        )
        assert "person__c_by_Email" in str(plan.fetchall())
