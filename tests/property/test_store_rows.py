"""Rows, pages and the order of commands, over whatever values there may be."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.model.command import Command, CommandStatus
from connector.model.record import StoredRecord
from connector.store import ReadOnlyReplica, Session
from tests.store_nouns import NOW_MS, WIDGET, change, command, record, record_id

VALUES = st.fixed_dictionaries(
    {
        "Name": st.none() | st.text(max_size=20),
        "Active__c": st.none() | st.booleans(),
        "Size__c": st.none() | st.integers(-(2**63), 2**63 - 1),
        "Price__c": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "Due__c": st.none() | st.dates().map(lambda d: d.isoformat()),
        "Seen__c": st.none() | st.just("2026-11-22T17:26:39.000Z"),
    }
)
# Few different values, so that ties and nulls are common.
TIED = st.fixed_dictionaries(
    {
        "Name": st.sampled_from([None, "", "a", "A", "b"]),
        "Active__c": st.sampled_from([None, True, False]),
        "Size__c": st.sampled_from([None, -1, 0, 2]),
        "Price__c": st.sampled_from([None, -0.5, 0.0, 1e300]),
        "Due__c": st.none(),
        "Seen__c": st.none(),
    }
)


@contextmanager
def opened() -> Iterator[tuple[Session, Path]]:
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder) / "replica.db") as session:
        session.run(lambda unit: unit.define(WIDGET))
        yield session, Path(folder) / "replica.db"


def rows_of(values: list[dict[str, Any]]) -> list[StoredRecord]:
    return [replace(record(n), values=v) for n, v in enumerate(values)]


@given(st.lists(VALUES, min_size=1, max_size=5))
@settings(max_examples=50)
def test_rows_and_changes_come_back_as_they_went_in(values: list[dict[str, Any]]) -> None:
    """No value is altered on its way through a column or through JSON."""
    rows = rows_of(values)
    changes = [change(n, record=v, after=v, before=v) for n, v in enumerate(values)]
    with opened() as (session, _):
        session.run(lambda unit: unit.put(WIDGET, rows))
        assert session.run(lambda unit: unit.records(WIDGET, [r.id for r in rows])) == {r.id: r for r in rows}
        session.run(lambda unit: unit.append(changes))
        stored = session.run(lambda unit: unit.unpublished(10))
        assert stored == [replace(c, version=v) for v, c in enumerate(changes, 1)]


@given(
    st.lists(TIED, max_size=12),
    st.sampled_from(["Id", "Name", "Active__c", "Size__c", "Price__c"]),
    st.booleans(),
    st.integers(1, 5),
)
@settings(max_examples=80)
def test_pages_hold_every_record_once_and_in_order(
    values: list[dict[str, Any]], field: str, descending: bool, limit: int
) -> None:
    """However many ties and nulls, in either direction; null is the least."""
    rows = rows_of(values)

    def key(row: StoredRecord) -> tuple[bool, Any, str]:
        value = row.id if field == "Id" else row.values[field]
        return value is not None, "" if value is None else value, row.id

    def typed(row: StoredRecord) -> tuple[Any, ...]:
        present, value, row_id = key(row)
        return (present, value, row_id) if present else (present, row_id)

    nulls = sorted((r for r in rows if not key(r)[0]), key=typed)
    others = sorted((r for r in rows if key(r)[0]), key=typed)
    expected = [r.id for r in (*nulls, *others)]
    with opened() as (session, path):
        session.run(lambda unit: unit.put(WIDGET, rows))
        with ReadOnlyReplica(path) as reader:
            told: list[str] = []
            after = None
            for _ in range(len(rows) + 1):
                page = reader.list(
                    "Widget__c", limit=limit, after=after, order_by=f"{field} {'desc' if descending else 'asc'}"
                )
                told += [r.id for r in page.records]
                after = page.next
                if after is None:
                    break
            assert told == (expected[::-1] if descending else expected)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, 0, 1])), max_size=15), st.randoms())
@settings(max_examples=40)
def test_commands_on_one_record_run_one_at_a_time_and_in_order(given_: list[tuple[int, int | None]], rng: Any) -> None:
    """Whatever is retried later and in whatever order the answers come; and every command gets its turn."""
    queue = [
        command(f"c{n}", record_id=record_id(number), retry_ms=None if wait is None else NOW_MS + wait)
        for n, (number, wait) in enumerate(given_)
    ]
    begun: list[Command] = []
    sending: list[Command] = []
    with opened() as (session, _):
        session.run(lambda unit: [unit.add_command(c) for c in queue])
        while len(begun) < len(queue) or sending:
            for item in session.run(lambda unit: unit.next_commands(NOW_MS + 1, 2)):
                assert item.record_id not in {s.record_id for s in sending}
                tried = replace(item, status=CommandStatus.SENDING)
                session.run(lambda unit, c=tried: unit.update_command(c))  # type: ignore[misc] # bound at once
                begun.append(item)
                sending.append(item)
            done = replace(sending.pop(rng.randrange(len(sending))), status=CommandStatus.SUCCEEDED)
            session.run(lambda unit, c=done: unit.update_command(c))  # type: ignore[misc] # bound at once
    for number in range(4):
        mine = [c.seq for c in begun if c.record_id == record_id(number)]
        assert mine == sorted(mine)
