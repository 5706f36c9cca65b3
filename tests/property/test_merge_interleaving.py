"""However edits, events, polls, repairs, repeats and restarts interleave, the replica ends equal to the org.

The org here has a clock of whole seconds that often stands still, so that stamps tie; answers are applied long after
they were made; the stream runs behind, repeats itself and turns events into gaps.
"""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.inbound.apply import Applying, DecodedEvent, apply_events, apply_reads
from connector.inbound.decode import decode
from connector.inbound.fence import Fences, Memory, ReadFence
from connector.inbound.reading import from_row, json_page
from connector.model.change import Change, Operation, Origin, ReplayId
from connector.model.ids import RecordId
from connector.model.record import ReadPage
from connector.model.times import to_iso
from connector.ports import Unit
from connector.store import Session
from tests.events import T0, contact_spec, event, record_id

SPEC = contact_spec()
SPECS = {"Contact": SPEC}
IDS = [record_id(n) for n in range(3)]
_FIELDS = {"p": "Phone", "e": "Email", "f": "FirstName", "l": "LastName"}


@dataclass
class Org:
    """Records with stamps, and the log of their change events."""

    second: int = 0
    rows: dict[RecordId, dict[str, Any]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def now_ms(self) -> int:
        return T0 + self.second * 1000

    def edit(self, record: RecordId, what: str, value: str | None) -> None:
        row = self.rows.get(record)
        if row is None:
            self.rows[record] = row = dict.fromkeys(SPEC.read_fields()) | {"Id": record, "IsDeleted": False}
            self._stamp(row, FirstName="Jane", LastName="Doe", OwnerId="0055f000007NnAbAAK")
            self._tell("CREATE", row, Name={"FirstName": "Jane", "LastName": "Doe"}, OwnerId=row["OwnerId"])
        elif row["IsDeleted"]:
            row["IsDeleted"] = False
            self._stamp(row)
            name = {"FirstName": row["FirstName"], "LastName": row["LastName"]}
            plain = {f: row[f] for f in ("Phone", "Email", "OwnerId") if row[f] is not None}
            self._tell("UNDELETE", row, Name=name, **plain)
        elif what == "d":
            row["IsDeleted"] = True
            row["SystemModstamp"] = to_iso(self.now_ms)
            self._tell("DELETE", row)
        else:
            self._update(row, _FIELDS[what], value)

    def _update(self, row: dict[str, Any], name: str, value: str | None) -> None:
        value = value or ("X" if name == "LastName" else None)
        if row[name] == value:
            return
        self._stamp(row, **{name: value})
        body: dict[str, Any] = {"Name": {name: value}} if name in ("FirstName", "LastName") else {name: value}
        self._tell("UPDATE", row, **body)

    def _stamp(self, row: dict[str, Any], **values: Any) -> None:
        row |= values | {"LastModifiedDate": to_iso(self.now_ms), "SystemModstamp": to_iso(self.now_ms)}
        row["Name"] = " ".join(p for p in (row["FirstName"], row["LastName"]) if p)

    def _tell(self, kind: str, row: dict[str, Any], **body: Any) -> None:
        self.log.append(event(kind, row["Id"], at_ms=self.now_ms + 500, **body))


@dataclass
class Reading:
    """An answer that is on its way."""

    fence: ReadFence
    scope: AbstractContextManager[ReadFence]
    page: ReadPage


class Replica:
    """The connector's side: a database, the stream's position, answers on their way."""

    def __init__(self, session: Session, org: Org) -> None:
        self.session = session
        self.org = org
        self.position = 0
        self.readings: list[Reading] = []
        self.applying = Applying(Fences(), Memory(), lambda: T0)
        session.run(lambda unit: unit.define(SPEC))

    def deliver(self, count: int, *, gap: bool = False) -> None:
        payloads = self.org.log[self.position : self.position + count]
        if gap and payloads:
            first = payloads[0]["ChangeEventHeader"]
            payloads = [{"ChangeEventHeader": {**first, "changeType": f"GAP_{first['changeType']}"}}, *payloads[1:]]
        batch = [DecodedEvent(replay_id=ReplayId(b"x"), event=decode(p, SPECS)) for p in payloads]
        self.session.run(lambda unit: apply_events(self.applying, unit, SPECS, batch))
        self.position += len(payloads)

    def ask(self) -> None:
        if len(self.readings) == 2:  # two ways of reading
            self.answer()
        scope = self.applying.fences.open("Contact")
        fence = scope.__enter__()
        self.readings.append(Reading(fence, scope, json_page(SPEC, list(self.org.rows.values()))))

    def answer(self) -> None:
        if not self.readings:
            return
        reading = self.readings.pop(0)
        self.session.run(lambda unit: self.take(unit, reading))
        reading.scope.__exit__(None, None, None)

    def take(self, unit: Unit, reading: Reading) -> None:
        reads = list(reading.page.records())
        apply_reads(self.applying, unit, SPEC, reads, fence=reading.fence, origin=Origin.POLL)

    def settle(self, meanwhile: int = 0) -> int:
        """Read the doubtful again; `meanwhile` events arrive before the answer is applied. Returns what is left."""
        doubts = self.session.run(lambda unit: unit.dirty("Contact", 100))
        with self.applying.fences.open("Contact") as fence:
            rows = [self.org.rows.get(d.id) for d in doubts]
            there = [r for r in rows if r is not None and not r["IsDeleted"]]
            reads = [from_row(SPEC, row) for row in there]
            absent = [d.id for d, r in zip(doubts, rows, strict=True) if r is None or r["IsDeleted"]]
            self.deliver(meanwhile)

            def work(unit: Unit) -> None:
                unit.clear_dirty(doubts)
                apply_reads(
                    self.applying,
                    unit,
                    SPEC,
                    reads,
                    fence=fence,
                    origin=Origin.REPAIR,
                    settling=True,
                    absent=absent,
                )

            self.session.run(work)
        return len(self.session.run(lambda unit: unit.dirty("Contact", 100)))

    def restart(self) -> None:
        """A crash: memory is gone, answers are lost, the position and the rows stay."""
        for reading in self.readings:
            reading.scope.__exit__(None, None, None)
        self.readings.clear()
        self.applying.memory.forget()

    def live(self) -> dict[RecordId, dict[str, Any]]:
        rows = self.session.run(lambda unit: unit.records(SPEC, IDS))
        return {i: dict(r.values) for i, r in rows.items() if r.deleted_ms is None}

    def changes(self) -> list[Change]:
        return list(self.session.run(lambda unit: unit.unpublished(10_000)))


@contextmanager
def replica(org: Org) -> Iterator[Replica]:
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder) / "r.db")
        session.open()
        try:
            yield Replica(session, org)
        finally:
            session.close()


def live(org: Org) -> dict[RecordId, dict[str, Any]]:
    return {i: {f.name: r[f.name] for f in SPEC.fields} for i, r in org.rows.items() if not r["IsDeleted"]}


def folded(changes: list[Change]) -> dict[RecordId, dict[str, Any]]:
    """What a consumer holds that follows the changes alone."""
    held: dict[RecordId, dict[str, Any]] = {}
    for change in changes:
        if change.operation is Operation.DELETE:
            assert held.pop(change.id) == change.before
        elif change.operation is Operation.UPDATE:
            assert change.before is not None
            assert change.after is not None
            assert {n: held[change.id][n] for n in change.changed} == dict(change.before)
            assert any(change.before[n] != change.after[n] for n in change.changed)
            held[change.id] |= change.after
            assert held[change.id] == change.record
        else:
            assert change.id not in held
            held[change.id] = dict(change.record or {})
    return held


edits = st.tuples(st.just("edit"), st.sampled_from(IDS), st.sampled_from("dppefl"), st.sampled_from([None, "1", "2"]))
steps = st.one_of(
    edits,
    edits,
    st.tuples(st.just("tick")),
    st.tuples(st.just("deliver"), st.integers(1, 4)),
    st.tuples(st.just("gap"), st.integers(1, 3)),
    st.tuples(st.just("repeat"), st.integers(1, 6)),
    st.tuples(st.just("ask")),
    st.tuples(st.just("answer")),
    st.tuples(st.just("settle"), st.integers(0, 2)),
    st.tuples(st.just("restart")),
)


def play(org: Org, side: Replica, step: tuple[Any, ...]) -> None:
    match step:
        case ("edit", record, what, value):
            org.edit(record, what, value)
        case ("tick",):
            org.second += 1
        case ("deliver", count):
            side.deliver(count)
        case ("gap", count):
            side.deliver(count, gap=True)
        case ("repeat", count):
            side.position = max(0, side.position - count)
        case ("ask",):
            side.ask()
        case ("answer",):
            side.answer()
        case ("settle", meanwhile):
            side.settle(meanwhile)
        case ("restart",):
            side.restart()


def quiet(org: Org, side: Replica) -> None:
    """Everything that is on its way arrives, and what is in doubt is read."""
    side.deliver(len(org.log))
    while side.readings:
        side.answer()
    for _ in range(5):
        if not side.settle():
            return
    raise AssertionError("doubts never end")


@settings(max_examples=200)
@given(st.lists(steps, max_size=40))
def test_any_interleaving_ends_equal_to_the_org(story: list[tuple[Any, ...]]) -> None:
    """Live records are equal, and so is what a consumer folds out of the changes; no version is missing."""
    org = Org()
    with replica(org) as side:
        for step in story:
            play(org, side, step)
        quiet(org, side)
        assert side.live() == live(org)
        changes = side.changes()
        assert folded(changes) == live(org)
        assert [c.version for c in changes] == list(range(1, len(changes) + 1))


@settings(max_examples=100)
@given(story=st.lists(edits | st.tuples(st.just("tick")), max_size=20), cut=st.integers(0, 20), restarted=st.booleans())
def test_a_redelivered_tail_leaves_the_record_unchanged(
    story: list[tuple[Any, ...]], cut: int, *, restarted: bool
) -> None:
    """Resuming from any earlier position: the same rows and, within one run, not one more change."""
    org = Org()
    with replica(org) as side:
        for step in story:
            play(org, side, step)
        side.deliver(len(org.log))
        rows, changes = side.live(), side.changes()
        side.position = min(cut, len(org.log))
        if restarted:
            side.restart()
        quiet(org, side)
        assert side.live() == rows
        if not restarted:
            assert side.changes() == changes


@settings(max_examples=100)
@given(st.lists(steps, max_size=25), st.lists(edits, max_size=10))
def test_a_lost_stretch_is_made_up_by_a_poll(story: list[tuple[Any, ...]], unseen: list[tuple[Any, ...]]) -> None:
    """The position is lost: what happened meanwhile comes by query, deletions included."""
    org = Org()
    with replica(org) as side:
        for step in story:
            play(org, side, step)
        for step in unseen:
            play(org, side, step)
        side.position = len(org.log)
        while side.readings:
            side.answer()
        side.ask()
        quiet(org, side)
        assert side.live() == live(org)
        assert folded(side.changes()) == live(org)
