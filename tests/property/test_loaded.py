"""A page of a first load is applied as any other read, only quicker: whatever the stream has told meanwhile."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.inbound.apply import apply_reads
from connector.inbound.loaded import apply_loaded
from connector.model.change import Origin
from connector.model.ids import RecordId
from connector.model.record import ReadPage
from connector.ports import Unit
from connector.store import Session
from tests.events import T0
from tests.property.test_merge_interleaving import IDS, SPEC, Org, Reading, Replica, edits, play

DAY_MS = 24 * 3600 * 1000


class Held(Replica):
    """Holds each record of a load against its row."""

    def take(self, unit: Unit, reading: Reading) -> None:
        reads = list(reading.page.records())
        apply_reads(self.applying, unit, SPEC, reads, fence=reading.fence, origin=Origin.BACKFILL, silent=True)


class Loaded(Replica):
    """Writes as they are those that nothing is known of."""

    def take(self, unit: Unit, reading: Reading) -> None:
        apply_loaded(self.applying, unit, SPEC, reading.page, fence=reading.fence)


def told(side: Replica) -> tuple[Any, ...]:
    """Everything that a unit leaves behind, on disk and in memory."""
    rows = side.session.run(lambda unit: unit.records(SPEC, IDS))
    doubts = side.session.run(lambda unit: sorted((d.id, d.reason) for d in unit.dirty("Contact", 100)))
    sources = {record_id: side.applying.memory.sources.get(record_id) for record_id in IDS}
    return rows, doubts, side.changes(), sources


def twice(page: ReadPage, record_id: RecordId) -> ReadPage:
    """The page with one record of it again behind the last, in an older state."""
    again = page.among({record_id})
    columns = [[*column, *more] for column, more in zip(page.columns, again.columns, strict=True)]
    return replace(
        page,
        ids=[*page.ids, *again.ids],
        columns=columns,
        modified=[*page.modified, *("2001-01-01T00:00:00.000Z" for _ in again.ids)],
        modstamp=[*page.modstamp, *again.modstamp],
        deleted=[*page.deleted, *again.deleted],
    )


@contextmanager
def sides(org: Org) -> Iterator[tuple[Held, Loaded]]:
    with tempfile.TemporaryDirectory() as folder:
        first, second = Session(Path(folder) / "held.db"), Session(Path(folder) / "loaded.db")
        with first, second:
            yield Held(first, org), Loaded(second, org)


tales = st.lists(
    st.one_of(
        edits,
        edits,
        st.tuples(st.just("tick")),
        st.tuples(st.just("deliver"), st.integers(1, 4)),
        st.tuples(st.just("gap"), st.integers(1, 3)),
        st.tuples(st.just("settle"), st.integers(0, 2)),
        st.tuples(st.just("trim")),
        st.tuples(st.just("forget")),
    ),
    max_size=12,
)


def both(org: Org, pair: tuple[Held, Loaded], tale: list[tuple[Any, ...]]) -> None:
    """Play it; what the org does is done once."""
    for step in tale:
        if step[0] in ("edit", "tick"):
            play(org, pair[0], step)
            continue
        for side in pair:
            one(org, side, step)


def one(org: Org, side: Replica, step: tuple[Any, ...]) -> None:
    match step:
        case ("forget",):
            side.applying.memory.forget()
        case ("trim",):
            side.session.run(lambda unit: unit.trim(T0 + 1, 0, DAY_MS, 100))
        case _:
            play(org, side, step)


A = IDS[0]
BORN, GONE = ("edit", A, "p", "1"), ("edit", A, "d", None)
DELIVERED = ("deliver", 4)


# A record of which an event told nothing but that; one that comes twice; one that was deleted before anybody here had
# heard of it; one that came back after its tombstone was trimmed.
@example(before=[BORN], meanwhile=[("gap", 1)], after=[], again=None, complete=True)
@example(before=[BORN], meanwhile=[], after=[], again=A, complete=True)
@example(before=[BORN, GONE], meanwhile=[], after=[], again=None, complete=True)
@example(before=[BORN, GONE, DELIVERED, ("trim",), BORN], meanwhile=[], after=[DELIVERED], again=None, complete=True)
@settings(max_examples=150)
@given(tales, tales, tales, st.none() | st.sampled_from(IDS), st.booleans())
def test_the_quick_way_and_the_long_one_end_in_the_same(
    before: list[tuple[Any, ...]],
    meanwhile: list[tuple[Any, ...]],
    after: list[tuple[Any, ...]],
    again: RecordId | None,
    complete: bool,
) -> None:
    """Rows, versions, changes, doubts, what is remembered, and what becomes of it: the same."""
    org = Org()
    with sides(org) as pair:
        both(org, pair, before)
        for side in pair:
            side.ask()
            (reading,) = side.readings
            reading.fence.complete = complete  # not so of a job that an earlier run had made
            if again is not None:
                reading.page = twice(reading.page, again)
        both(org, pair, meanwhile)
        with pair[0].applying.fences.open("Contact") as first, pair[1].applying.fences.open("Contact") as second:
            for side in pair:
                side.answer()
            assert [first.raced(i) for i in IDS] == [second.raced(i) for i in IDS]
        assert told(pair[0]) == told(pair[1])
        both(org, pair, after)
        assert told(pair[0]) == told(pair[1])
