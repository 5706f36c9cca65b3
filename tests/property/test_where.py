"""A condition finds in SQLite what a plain reading of it finds in Python."""

import operator as op
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.model.record import StoredRecord
from connector.model.where import parse_where
from connector.store import ReadOnlyReplica, Session
from tests.store_nouns import WIDGET, record

TEXTS = ["", "a", "A", "Ab", "%", "_", "\\", "ä", "Ä", "ß", "SS", "a%b", "a_b", "axb", "Straße", "İ", "\n"]
VALUES: Mapping[str, Sequence[Any]] = {
    "Name": TEXTS,
    "Active__c": [True, False],
    "Size__c": [-(2**63), -1, 0, 1, 2, 2**63 - 1],
    "Price__c": [-1.5, 0.0, 1, 1.0, 2.5, 1e300],
    "Due__c": ["2026-01-31", "2026-02-01", "0999-01-01"],
    "Seen__c": ["2026-11-22T17:26:39.000Z", "2026-11-22T17:26:39.157Z"],
}
PATTERNS = ["", "%", "_", "a%", "%B", r"\%", r"a\_b", "_%_", "ss", "stra_e", "%Ä%", "a\\", "\\\\"]


def some(field: str) -> st.SearchStrategy[Any]:
    return st.sampled_from([*VALUES[field]]).filter(
        lambda v: not (field == "Price__c" and isinstance(v, int) and False)
    )


def rows() -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.fixed_dictionaries({field: st.none() | some(field) for field in VALUES})
    return st.lists(one, max_size=8)


def comparisons(field: str) -> st.SearchStrategy[dict[str, Any]]:
    value = some(field)
    kinds = [
        st.none() | value,
        st.fixed_dictionaries({}, optional=dict.fromkeys(("lt", "lte", "gt", "gte"), value)).filter(bool),
        st.fixed_dictionaries({"ne": st.none() | value}),
        st.fixed_dictionaries({"in": st.lists(st.none() | value, max_size=3)}),
        st.fixed_dictionaries({"is_null": st.booleans()}),
    ]
    if field == "Name":
        kinds.append(st.fixed_dictionaries({"like": st.sampled_from(PATTERNS)}))
    return st.one_of(*kinds).map(lambda test: {field: test})


FIELDS = st.sampled_from(sorted(VALUES)).flatmap(comparisons)
WHERES = st.recursive(
    FIELDS | st.just({}),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"or": parts}),
        inner.map(lambda part: {"not": part}),
        st.tuples(FIELDS, inner).map(lambda two: {**two[1], **two[0]}),
    ),
    max_leaves=6,
)


def holds(where: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """The condition, read as the interface states it."""
    return all(_member(name, value, row) for name, value in where.items())


def _member(name: str, value: Any, row: Mapping[str, Any]) -> bool:
    if name == "and":
        return all(holds(part, row) for part in value)
    if name == "or":
        return any(holds(part, row) for part in value)
    if name == "not":
        return not holds(value, row)
    tests = value if isinstance(value, dict) else {"eq": value}
    return all(_test(operator, row[name], wanted) for operator, wanted in tests.items())


def _test(operator: str, have: Any, wanted: Any) -> bool:
    match operator:
        case "eq":
            return bool(have == wanted)
        case "ne":
            return bool(have != wanted)
        case "in":
            return have in wanted
        case "is_null":
            return (have is None) is wanted
        case "like":
            return have is not None and re.fullmatch(_regex(wanted.casefold()), have.casefold(), re.DOTALL) is not None
        case _:
            return have is not None and bool(_COMPARED[operator](_orderly(have), _orderly(wanted)))


_COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {"lt": op.lt, "lte": op.le, "gt": op.gt, "gte": op.ge}


def _orderly(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _regex(pattern: str) -> str:
    """A `like` pattern as a regular expression; one that ends in its escape matches nothing."""
    made, rest = "", iter(pattern)
    for char in rest:
        if char == "\\":
            escaped = next(rest, None)
            if escaped is None:
                return r"(?!)"
            made += re.escape(escaped)
        else:
            made += {"%": ".*", "_": "."}.get(char, re.escape(char))
    return made


@contextmanager
def replica_of(records: Sequence[StoredRecord]) -> Iterator[ReadOnlyReplica]:
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder) / "replica.db") as session:
        session.run(lambda unit: unit.define(WIDGET))
        session.run(lambda unit: unit.put(WIDGET, records))
        with ReadOnlyReplica(Path(folder) / "replica.db") as replica:
            yield replica


def stored(rows: Sequence[Mapping[str, Any]]) -> list[StoredRecord]:
    return [replace(record(number), values=dict(row)) for number, row in enumerate(rows)]


@given(rows(), st.lists(WHERES, min_size=1, max_size=12))
@settings(max_examples=80)
def test_a_condition_means_the_same_in_sql_and_in_python(
    rows: list[dict[str, Any]], wheres: list[dict[str, Any]]
) -> None:
    """Found are the rows for which it holds; its opposite finds all others: null makes nothing unknown."""
    records = stored(rows)
    with replica_of(records) as replica:
        for where in wheres:
            found = {r.id for r in replica.search("Widget__c", where=parse_where(where), limit=100).records}
            expected = {r.id for r in records if holds(where, r.values)}
            assert found == expected, where
            assert replica.count("Widget__c", parse_where({"not": where})) == len(records) - len(expected)


@given(rows(), st.sampled_from(sorted(VALUES)), st.booleans(), st.integers(1, 4))
@settings(max_examples=60)
def test_pages_put_together_are_the_list(rows: list[dict[str, Any]], field: str, descending: bool, limit: int) -> None:
    """Whatever the order, ties and nulls: no record twice, none left out."""
    records = stored(rows)
    with replica_of(records) as replica:
        order_by = f"{field} desc" if descending else field
        whole = [r.id for r in replica.list("Widget__c", limit=100, order_by=order_by).records]
        paged: list[str] = []
        after: str | None = None
        for _ in range(len(records) + 1):
            page = replica.list("Widget__c", limit=limit, order_by=order_by, after=after, fields=[])
            paged += [r.id for r in page.records]
            after = page.next
            if after is None:
                break
        assert paged == whole
        assert sorted(whole) == sorted(r.id for r in records)


def key(record: StoredRecord, field: str) -> tuple[bool, Any]:
    value = record.values[field]
    return value is not None, value.encode() if isinstance(value, str) else value or 0


@given(rows(), st.sampled_from(sorted(VALUES)), st.booleans())
@settings(max_examples=40)
def test_a_list_is_in_order(rows: list[dict[str, Any]], field: str, descending: bool) -> None:
    """Null first, then by value, ties by Id; the other way round if asked for."""
    records = stored(rows)
    with replica_of(records) as replica:
        found = replica.list("Widget__c", limit=100, order_by=f"{field} {'desc' if descending else 'asc'}").records
        expected = sorted(records, key=lambda r: (*key(r, field), r.id), reverse=descending)
        assert [r.id for r in found] == [r.id for r in expected]
