"""What a mirror makes of pages and changes: whatever comes in between, in the end the connector's own rows."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import PoisonError
from connector.mesh.envelope import change_data
from connector.mirror import copying, messages
from connector.mirror.origin import Copy
from connector.mirror.state import ObjectState
from connector.model.change import Change, Operation
from connector.model.record import StoredRecord
from connector.ports import Unit
from connector.store import Session
from tests.store_nouns import NOW_MS, WIDGET, change, record, record_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TABLE = {
    "object": "Widget__c",
    "key_prefix": "a01",
    "loaded": "first:1",
    "fields": [
        {"name": f.name, "kind": f.kind, "searched": f.searched, "looked_up": f.looked_up} for f in WIDGET.fields
    ],
}
# What people do: (record, new size), or None for a deletion.
EDITS = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 99)), max_size=25)


class Connector:
    """Rows and log of the original, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, StoredRecord] = {r.id: r for r in (record(n, Size__c=n) for n in range(0, 6, 2))}
        self.log: list[Change] = []

    def edit(self, number: int, size: int | None) -> None:
        old = self.rows.get(record_id(number))
        if size is None and old is None:
            return
        version = len(self.log) + 1
        new = record(number, version=version, Size__c=size)
        operation = Operation.DELETE if size is None else Operation.CREATE if old is None else Operation.UPDATE
        values = None if size is None else new.values
        before = None if old is None else old.values
        self.log.append(
            replace(change(number), version=version, operation=operation, before=before, after=values, record=values)
        )
        if size is None:
            del self.rows[record_id(number)]
        else:
            self.rows[record_id(number)] = new

    def page(self, after: str | None, limit: int) -> tuple[list[messages.Row], str | None]:
        ids = sorted(i for i in self.rows if after is None or i > after)
        told = [orjson.loads(orjson.dumps(self.rows[i].document())) for i in ids[:limit]]
        return [messages.row(one) for one in told], ids[limit - 1] if len(ids) > limit else None

    def since(self, version: int) -> list[Change]:
        return [messages.change(orjson.loads(orjson.dumps(change_data(c))), NOW_MS) for c in self.log[version:]]


def shown(unit: Unit) -> dict[str, Any]:
    ids = unit.live_ids(WIDGET, None, None, 100)
    return {i: (r.version, r.values["Size__c"]) for i, r in unit.records(WIDGET, ids).items()}


# Each example makes a database and waits for the disk at every unit.
@settings(deadline=None, max_examples=40)
@given(stale=st.lists(st.integers(0, 5), unique=True), edits=EDITS, cuts=st.lists(st.integers(0, 24), max_size=6))
def test_pages_and_changes_in_any_order_end_in_the_same_rows(
    stale: Sequence[int], edits: Sequence[tuple[int, int | None]], cuts: Sequence[int]
) -> None:
    """Edits between the pages, old rows of another replica with high versions, changes taken early and late."""
    there, waiting = Connector(), list(edits)
    with TemporaryDirectory() as folder, Session(Path(folder) / "copy.db") as session:
        old = [record(n, version=900 + n, Size__c=-1, deleted_ms=NOW_MS if n % 2 else None) for n in stale]
        session.run(lambda unit: unit.define(WIDGET))
        session.run(lambda unit: unit.put(WIDGET, old))
        copy = session.run(lambda unit: copying.begin_anew(unit, "r", 0, NOW_MS))
        told = messages.table(TABLE)
        state = session.run(lambda unit: copying.begin_object(unit, copy, told, NOW_MS))
        for cut in (*cuts, 24, 24, 24, 24, 24, 24):
            for _ in range(min(cut, len(waiting))):
                there.edit(*waiting.pop(0))
            state = session.run(partial(_step, state=state, there=there, cut=cut))
            stored = session.run(lambda unit: ObjectState.stored(unit, "Widget__c", copy))
            assert stored == state
        session.run(lambda unit: _caught_up(unit, there, state))
        assert state.phase == "done"
        assert session.run(shown) == {i: (r.version, r.values["Size__c"]) for i, r in there.rows.items()}
        assert session.run(lambda unit: unit.last_version()) == len(there.log)


def _step(unit: Unit, state: ObjectState, there: Connector, cut: int) -> ObjectState:
    if cut % 2:
        _caught_up(unit, there, state)
    if state.phase == "pages":
        rows, following = there.page(state.after_id, 2)
        return copying.take_page(unit, state, rows, following, len(there.log), NOW_MS)
    return copying.replay(unit, state, NOW_MS) if state.phase == "replay" else state


def _caught_up(unit: Unit, there: Connector, state: ObjectState) -> None:
    changes = there.since(unit.last_version())
    if changes:
        copying.take_changes(unit, changes, [state.table] if state.phase == "done" else [], NOW_MS)


def test_changes_that_do_not_follow_are_not_taken(tmp_path: Path) -> None:
    """Nothing of them is kept."""
    with Session(tmp_path / "copy.db") as session:
        with pytest.raises(ValueError, match="follow"):
            session.run(lambda unit: copying.take_changes(unit, [replace(change(), version=2)], [], NOW_MS))
        assert session.run(lambda unit: unit.last_version()) == 0
        assert session.run(Copy.stored) is None


@given(JSON | st.dictionaries(st.sampled_from(["ok", "replica", "version", "next", "records", "error"]), JSON))
def test_nothing_that_comes_from_the_mesh_does_more_than_being_refused(told: Any) -> None:
    """PoisonError, or something that has the form it should have."""
    payload = orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS) if _fits(told) else b"\xff"
    with suppress(PoisonError):
        messages.change_event(payload)
    with suppress(PoisonError):
        messages.birth(payload)
    for read in (messages.answer, messages.table, messages.row):
        with suppress(PoisonError):
            read(messages.document(payload))


@given(st.dictionaries(st.sampled_from([f.name for f in WIDGET.fields]), JSON))
def test_whatever_a_record_holds_can_be_stored(values: dict[str, Any]) -> None:
    """A value of another kind than its column's is left out."""
    row = StoredRecord(
        id=record_id(1),
        values=messages.fitted(WIDGET, values),
        version=1,
        synced_ms=NOW_MS,
        deleted_ms=None,
        modified_ms=NOW_MS,
    )
    kinds = {f.name: f.kind for f in WIDGET.fields}
    for name, value in row.values.items():
        assert value is None or value == values[name]
        if kinds[name] == "boolean":
            assert value is None or isinstance(value, bool)


def _fits(told: Any) -> bool:
    try:
        orjson.dumps(told)
    except TypeError:
        return False
    return True
