"""The text index knows what the records say, whatever happens to them and whenever it is made."""

import contextlib
import tempfile
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.ports import Unit
from connector.store import ReadOnlyReplica, Session
from tests.store_nouns import NOW_MS, record, spec_of

WORDS = ["tea", "Tee", "Tée", "t", "doe-roe", "x@y.z", "Über", "uber", "12", "1-2", "", "ß", "日本", "🙂"]
SHAPES = [
    {"A": "string", "B": "textarea"},
    {"A": "string"},
    {"A": "string", "B": "textarea", "C": "email"},
    {"C": "int"},
]
TEXTS = st.none() | st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 4), TEXTS, TEXTS),
    st.tuples(st.just("delete"), st.integers(0, 4)),
    st.tuples(st.just("trim")),
    st.tuples(st.just("define"), st.integers(0, 3)),
    st.tuples(st.just("extend"), st.integers(1, 3)),
    st.tuples(st.just("undone"), st.integers(0, 4), TEXTS),
)


def words_of(text: str) -> list[str]:
    """As the tokenizer sees them: runs of letters and digits, without case and accents."""
    folded = unicodedata.normalize("NFD", text.casefold().replace("ss", "ß"))
    plain = "".join(char for char in folded if not unicodedata.combining(char))
    return "".join(c if c.isalnum() else " " for c in plain).split()


def fits(query: str, values: dict[str, Any]) -> bool:
    """Every word of the query begins a word, or a run of words, of a field."""
    runs = [words_of(value) for value in values.values() if isinstance(value, str)]
    return all(any(_begins(words_of(part), run) for run in runs) for part in query.split() if words_of(part))


def _begins(phrase: list[str], run: list[str]) -> bool:
    size = len(phrase)
    return any(
        run[i : i + size - 1] == phrase[:-1] and run[i + size - 1].startswith(phrase[-1])
        for i in range(len(run) - size + 1)
    )


class _Undo(Exception):
    pass


class Table:
    """A table and what its rows should say; each step is done to both."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.rows: dict[int, dict[str, Any]] = {}
        self.gone: set[int] = set()
        self.define(0)

    def do(self, step: tuple[str, *tuple[Any, ...]]) -> None:
        name, *arguments = step
        getattr(self, name)(*arguments)

    def define(self, shape: int) -> None:
        self.spec = spec_of(SHAPES[shape])
        self.session.run(lambda unit: unit.define(self.spec))
        self.rows = {n: {name: old.get(name) for name in self.spec.by_name} for n, old in self.rows.items()}

    def put(self, number: int, a: str | None, b: str | None) -> None:
        self._store(number, {"A": a, "B": b})
        self.gone.discard(number)

    def delete(self, number: int) -> None:
        if number in self.rows:
            self._store(number, self.rows[number], NOW_MS)
            self.gone.add(number)

    def trim(self) -> None:
        self.session.run(lambda unit: unit.trim(NOW_MS + 10**10, 10**9, 10**9, 100))
        self.rows = {n: row for n, row in self.rows.items() if n not in self.gone}
        self.gone.clear()

    def extend(self, size: int) -> None:
        self.session.run(lambda unit: unit.extend_indexes("Widget__c", size))

    def undone(self, number: int, text: str | None) -> None:
        values = {name: text if field.kind == "text" else None for name, field in self.spec.by_name.items()}

        def work(unit: Unit) -> None:
            unit.put(self.spec, [replace(record(number), values=values)])
            raise _Undo

        with contextlib.suppress(_Undo):
            self.session.run(work)

    def finish(self) -> None:
        """Make the whole index, and have SQLite look whether it is sound."""
        while self.session.run(lambda unit: unit.extend_indexes("Widget__c", 2)):
            pass
        self.session.run(lambda unit: unit.settle_index("Widget__c"))
        check = "INSERT INTO widget__c_search (widget__c_search, rank) VALUES ('integrity-check', 1)"
        if any(field.searched for field in self.spec.fields):
            self.session.run(lambda unit: unit._db.execute(check).fetchall())  # type: ignore[attr-defined]  # SQLite's own word

    def found_by(self, query: str) -> set[str]:
        return {record(n).id for n, row in self.rows.items() if n not in self.gone and fits(query, row)}

    def _store(self, number: int, values: dict[str, Any], deleted_ms: int | None = None) -> None:
        row = {name: values.get(name) for name in self.spec.by_name}
        self.session.run(lambda unit: unit.put(self.spec, [replace(record(number), values=row, deleted_ms=deleted_ms)]))
        self.rows[number] = row


QUERIES = st.lists(st.sampled_from([word for word in WORDS if words_of(word)]), min_size=1, max_size=4)


@given(st.lists(STEPS, max_size=25), QUERIES)
@settings(max_examples=80)
def test_a_search_finds_what_a_reader_of_the_records_would(steps: list[Any], queries: list[str]) -> None:
    """Through edits, deletions, undone units and changes of the fields, with the index made at any pace."""
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder) / "replica.db") as session:
        table = Table(session)
        for step in steps:
            table.do(step)
        table.finish()
        with ReadOnlyReplica(Path(folder) / "replica.db") as reader:
            for query in [*queries, " ".join(queries)]:
                found = {r.id for r in reader.search("Widget__c", query, limit=100).records}
                assert found == table.found_by(query), query
