"""An object's table follows its describe result through any sequence of changes."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.ports import Unit
from connector.store import Session
from connector.store.refit import refit
from tests.store_nouns import record, record_id, spec_of

TYPES = {"string": "text", "boolean": "boolean", "int": "integer", "double": "number", "date": "date"}
SAMPLES: dict[str, list[Any]] = {
    "string": [None, "x", "12", "1.5", "true", "2026-01-31"],
    "boolean": [None, True, False],
    "int": [None, 0, 1, 7],
    "double": [None, 0.0, 1.0, 2.5],
    "date": [None, "2026-01-31"],
}
FIELDS = st.dictionaries(
    st.sampled_from(["A", "B__c", "b__c", "C", "From"]), st.sampled_from(sorted(TYPES)), max_size=4
)


def unambiguous(fields: dict[str, str]) -> bool:
    """No org has two fields that differ only by case."""
    return len({name.lower() for name in fields}) == len(fields)


def carried(before: dict[str, str], values: dict[str, Any], after: dict[str, str]) -> dict[str, Any]:
    """What a row must hold once its fields have become `after`."""
    kept: dict[str, Any] = {}
    for name, new in after.items():
        old_name = next((n for n in before if n.lower() == name.lower()), None)
        kept[name] = None
        if old_name is not None:
            old, value = before[old_name], values[old_name]
            kept[name] = value if old == new else refit(value, TYPES[old], TYPES[new])
            if new == "boolean" and kept[name] is not None:
                kept[name] = bool(kept[name])
    return kept


class _Undo(Exception):
    pass


@given(st.lists(FIELDS.filter(unambiguous), min_size=2, max_size=5), st.data())
@settings(max_examples=60)
def test_a_table_keeps_what_fits_through_any_changes_of_its_fields(steps: list[dict[str, str]], data: Any) -> None:
    """Fields come, go, change type and spelling; an undone step leaves the table as it was."""
    fields = steps[0]
    values = {name: data.draw(st.sampled_from(SAMPLES[kind])) for name, kind in fields.items()}
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder) / "replica.db") as session:
        first = spec_of(fields)
        session.run(lambda unit: unit.define(first))
        session.run(lambda unit: unit.put(first, [replace(record(1), values=values)]))
        for step in steps[1:]:
            spec, old = spec_of(step), spec_of(fields)
            undone = data.draw(st.booleans())

            def work(unit: Unit, spec: Any = spec, undone: bool = undone) -> None:
                unit.define(spec)
                if undone:
                    raise _Undo

            try:
                session.run(work)
            except _Undo:
                spec = old
            else:
                fields, values = step, carried(fields, values, step)
            found = session.run(lambda unit, spec=spec: unit.records(spec, [record_id(1)]))  # type: ignore[misc] # bound at once
            assert found[record_id(1)].values == values
