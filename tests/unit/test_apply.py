"""Applying batches and pages to a real database: order, once, echoes, quarantine, and what it costs."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from connector.inbound.apply import Applied, Applying, DecodedEvent, apply_events, apply_reads
from connector.inbound.decode import decode
from connector.inbound.fence import Fences, Memory, ReadFence
from connector.inbound.merge import Source
from connector.model.change import Change, Operation, Origin, ReplayId
from connector.model.command import Command, CommandStatus, ConflictPolicy
from connector.model.ids import RecordId
from connector.model.record import ReadRecord, StoredRecord
from connector.ports import Unit
from connector.store import Database
from tests.events import CONTACT_FIELDS, T0, contact_spec, event, record_id

SPEC = contact_spec()
SPECS = {"Contact": SPEC}
A, B = record_id(1), record_id(2)
NAME = {"FirstName": "Jane", "LastName": "Doe"}


class Bench:
    """A database with one object, and the memory of a process."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ms = T0 + 10_000
        self.applying = Applying(Fences(), Memory(), lambda: self.now_ms)

    async def events(self, *payloads: Any) -> Applied:
        batch = [decoded(p, i) for i, p in enumerate(payloads, 1)]
        return await self.database.run(lambda unit: apply_events(self.applying, unit, SPECS, batch))

    async def reads(self, *reads: ReadRecord, fence: ReadFence | None = None, **more: Any) -> Applied:
        more.setdefault("origin", Origin.POLL)
        return await self.database.run(
            lambda unit: apply_reads(self.applying, unit, SPEC, reads, fence=fence or ReadFence(), **more)
        )

    async def row(self, record: RecordId) -> StoredRecord:
        return (await self.database.run(lambda unit: unit.records(SPEC, [record])))[record]

    async def changes(self) -> Sequence[Change]:
        return await self.database.run(lambda unit: unit.unpublished(10_000))

    async def dirty(self) -> dict[str, str]:
        return {d.id: d.reason for d in await self.database.run(lambda unit: unit.dirty("Contact", 10_000))}

    async def command(self, operation: Operation, record: RecordId | None, **fields: Any) -> str:
        """A command that was sent just now."""

        def work(unit: Unit) -> str:
            command = Command(
                command_id=f"c-{len(unit.commands(None, 1000))}",
                object="Contact",
                operation=operation,
                record_id=record,
                external_id=None,
                fields=fields,
                base=None,
                on_conflict=ConflictPolicy.MERGE,
                expires_ms=None,
                sender=None,
                reply_to=None,
                correlation=None,
                accepted_ms=self.now_ms - 100,
                status=CommandStatus.SENDING,
                sent_ms=self.now_ms - 50,
            )
            unit.add_command(command)
            unit.update_command(command)
            return command.command_id

        return await self.database.run(work)


def decoded(payload: Any, number: int) -> DecodedEvent:
    return DecodedEvent(replay_id=ReplayId(str(number).encode()), event=decode(payload, SPECS))


def read(record: RecordId, modified_ms: int = T0, *, deleted: bool = False, **values: Any) -> ReadRecord:
    everything = dict.fromkeys(CONTACT_FIELDS) | values
    return ReadRecord(id=record, values=everything, modified_ms=modified_ms, modstamp_ms=modified_ms, deleted=deleted)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Database(tmp_path / "replica.db") as database:
        await database.run(lambda unit: unit.define(SPEC))
        yield Bench(database)


async def test_a_batch_is_applied_in_order_with_one_version_per_change(bench: Bench) -> None:
    """Several events on one record in one batch: each its change, the row the last version."""
    applied = await bench.events(
        event("CREATE", A, Name=NAME),
        event("UPDATE", A, at_ms=T0 + 1000, Phone="1"),
        event("CREATE", B, Name=NAME, at_ms=T0 + 1000),
        event("UPDATE", A, at_ms=T0 + 1000, Phone="2"),
    )
    changes = await bench.changes()
    assert [(c.version, c.id, c.operation) for c in changes] == [
        (1, A, "create"),
        (2, A, "update"),
        (3, B, "create"),
        (4, A, "update"),
    ]
    row = await bench.row(A)
    assert (row.values["Phone"], row.version, row.modified_ms) == ("2", 4, T0 + 1000)
    assert (await bench.row(B)).version == 3
    assert applied.last_version == 4
    assert applied.changes == {"Contact": 4}
    assert len(applied.lags_ms) == 4


async def test_merged_ids_give_one_change_each(bench: Bench) -> None:
    """Trap 7: the body applies to every id."""
    await bench.events(event("CREATE", A, Name=NAME), event("CREATE", B, Name=NAME))
    await bench.events(event("UPDATE", A, B, at_ms=T0 + 1000, Phone="9"))
    assert [c.id for c in (await bench.changes())[2:]] == [A, B]
    assert {(await bench.row(i)).values["Phone"] for i in (A, B)} == {"9"}


async def test_a_duplicate_is_nothing(bench: Bench) -> None:
    """The same event again, in the batch and later: no change, no version."""
    update = event("UPDATE", A, at_ms=T0 + 1000, Phone="1")
    await bench.events(event("CREATE", A, Name=NAME), update, update)
    applied = await bench.events(update)
    assert applied.duplicates == 1
    assert len(await bench.changes()) == 2


async def test_a_replayed_stretch_converges_without_memory(bench: Bench) -> None:
    """After a restart nothing is remembered: what is older or of the same second never turns the record back."""
    story = [
        event("CREATE", A, Name=NAME),
        event("UPDATE", A, at_ms=T0 + 1000, Phone="1"),
        event("UPDATE", A, at_ms=T0 + 2000, Phone="2"),
        event("UPDATE", A, at_ms=T0 + 2000, Phone="3"),
    ]
    await bench.events(*story)
    bench.applying.memory.forget()
    await bench.events(*story)
    assert (await bench.row(A)).values["Phone"] == "3"
    assert len(await bench.changes()) == 4
    assert await bench.dirty() == {A: "older_event"}


async def test_what_a_failed_unit_noted_is_not_kept(bench: Bench) -> None:
    """Rolled back is rolled back: the event applies at the next try."""
    create = decoded(event("CREATE", A, Name=NAME), 1)

    def failing(unit: Unit) -> None:
        apply_events(bench.applying, unit, SPECS, [create])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await bench.database.run(failing)
    bench.applying.memory.forget()
    await bench.database.run(lambda unit: apply_events(bench.applying, unit, SPECS, [create]))
    assert len(await bench.changes()) == 1


async def test_events_of_an_object_no_longer_known_are_left_out(bench: Bench) -> None:
    batch = [decoded(event("CREATE", A, Name=NAME), 1)]
    applied = await bench.database.run(lambda unit: apply_events(bench.applying, unit, {}, batch))
    assert applied.last_version == 0


async def test_an_undecodable_event_is_kept_and_its_records_marked(bench: Bench) -> None:
    broken = DecodedEvent(
        replay_id=ReplayId(b"7"),
        event=None,
        error="Phone: not a value",
        entity="Contact",
        record_ids=(A,),
        raw=lambda: b"{}",
    )
    applied = await bench.database.run(lambda unit: apply_events(bench.applying, unit, SPECS, [broken]))
    (mark,) = await bench.database.run(lambda unit: unit.dirty("Contact", 10))
    assert (mark.id, mark.reason) == (A, "undecodable_event")
    assert mark.quarantine_id is not None
    assert applied.quarantined == 1
    assert applied.dirty == {"Contact"}


async def test_two_undecodable_events_of_one_record_leave_one_that_waits(bench: Bench) -> None:
    """One reading answers both, also where they came in one batch: the record waits with the later one."""
    batch = [
        DecodedEvent(replay_id=ReplayId(text), event=None, error="x", entity="Contact", record_ids=(A,))
        for text in (b"7", b"8")
    ]
    await bench.database.run(lambda unit: apply_events(bench.applying, unit, SPECS, batch))
    (mark,) = await bench.database.run(lambda unit: unit.dirty("Contact", 10))
    assert mark.quarantine_id is not None
    await bench.database.run(lambda unit: unit.settle_quarantine([mark.quarantine_id or 0], T0))
    assert (await bench.database.run(lambda unit: unit.queue_depths()))["quarantine"] == 0


@pytest.mark.parametrize(("entity", "poll"), [("Contact", {"Contact"}), (None, {None})])
async def test_an_undecodable_event_without_records_asks_for_a_poll(
    bench: Bench, entity: str | None, poll: set[str | None]
) -> None:
    broken = DecodedEvent(replay_id=ReplayId(b"7"), event=None, error="x", entity=entity, raw=lambda: b"{}")
    applied = await bench.database.run(lambda unit: apply_events(bench.applying, unit, SPECS, [broken]))
    assert applied.poll == poll


async def test_gap_events_mark_every_record(bench: Bench) -> None:
    """Trap 11."""
    await bench.events(event("GAP_UPDATE", A, B))
    assert await bench.dirty() == {A: "gap_update", B: "gap_update"}


async def test_whole_object_events_are_told(bench: Bench) -> None:
    applied = await bench.events(event("GAP_OVERFLOW", "000000000000000AAA", at_ms=T0 + 5))
    assert applied.whole == {"Contact": T0 + 5}
    assert await bench.dirty() == {}


async def test_every_apply_is_seen_by_the_reads_under_way(bench: Bench) -> None:
    """A read asked for before an event was applied must not turn the row back (trap 15)."""
    await bench.reads(read(A, LastName="Doe", Phone="0"))
    with bench.applying.fences.open("Contact") as fence:
        await bench.events(event("UPDATE", A, at_ms=T0 + 1000, Phone="1"))
        await bench.reads(read(A, LastName="Doe", Phone="0"), fence=fence)
    assert (await bench.row(A)).values["Phone"] == "1"
    await bench.reads(read(A, T0 + 1000, LastName="Doe", Phone="1"))
    assert bench.applying.memory.sources.get(A) is Source.READ


async def test_a_load_drives_nothing_out_of_the_memory(bench: Bench) -> None:
    """A row that no event has changed counts as read anyway; one that the stream told of is remembered as read."""
    await bench.reads(read(A, LastName="Doe", Phone="0"), read(B, LastName="Roe", Phone="0"), silent=True)
    assert bench.applying.memory.sources.get(A) is None
    await bench.events(event("UPDATE", A, at_ms=T0 + 1000, Phone="1"))
    assert bench.applying.memory.sources.get(A) is Source.STREAM
    await bench.reads(read(A, T0 + 2000, LastName="Doe", Phone="1"), read(B, LastName="Roe", Phone="0"), silent=True)
    assert bench.applying.memory.sources.get(A) is Source.READ
    assert bench.applying.memory.sources.get(B) is None


async def test_a_read_does_not_overtake_itself_but_others(bench: Bench) -> None:
    with bench.applying.fences.open("Contact") as load, bench.applying.fences.open("Contact") as poll:
        await bench.reads(read(A, Phone="1"), fence=poll)
        assert load.raced(A)
        assert not poll.raced(A)


async def test_an_event_that_the_read_includes_is_skipped(bench: Bench) -> None:
    """Poll first, event later: nothing is published twice and nothing turns back."""
    await bench.reads(read(A, T0 + 2000, LastName="Doe", Name="Doe", Phone="2"))
    await bench.events(event("UPDATE", A, at_ms=T0 + 1000, Phone="1"), event("UPDATE", A, at_ms=T0 + 2000, Phone="2"))
    assert [c.origin for c in await bench.changes()] == [Origin.POLL]
    assert (await bench.row(A)).values["Phone"] == "2"
    assert await bench.dirty() == {}


async def test_absent_records_are_deleted_unless_overtaken(bench: Bench) -> None:
    await bench.reads(read(A), read(B))
    fence = ReadFence()
    fence.note([B])
    await bench.reads(fence=fence, origin=Origin.REPAIR, absent=[A, B, record_id(3)])
    assert (await bench.row(A)).deleted_ms is not None
    assert (await bench.row(B)).deleted_ms is None
    assert await bench.dirty() == {B: "raced"}


async def test_the_echo_of_an_update_carries_the_command(bench: Bench) -> None:
    await bench.events(event("CREATE", A, Name=NAME))
    command = await bench.command(Operation.UPDATE, A, Phone=" 5 ")
    await bench.events(event("UPDATE", A, at_ms=T0 + 1000, Phone="5"))
    await bench.events(event("UPDATE", A, at_ms=T0 + 2000, Phone="6"), event("UPDATE", A, at_ms=T0 + 3000, Phone="5"))
    told = [(c.origin, c.command_id) for c in await bench.changes()]
    assert told[1:] == [(Origin.COMMAND, command), (Origin.STREAM, None), (Origin.STREAM, None)]


async def test_what_a_trigger_changed_besides_is_an_ordinary_change(bench: Bench) -> None:
    """Trap 12: the event holds final values under our origin."""
    await bench.events(event("CREATE", A, Name=NAME, Phone="1", Email="a@example.com"))
    command = await bench.command(Operation.UPDATE, A, Phone="5")
    await bench.events(event("UPDATE", A, at_ms=T0 + 1000, Phone="5", Email="b@example.com"))
    echo, other = (await bench.changes())[1:]
    assert (echo.origin, echo.command_id, echo.after) == (Origin.COMMAND, command, {"Phone": "5"})
    assert echo.record is not None
    assert echo.record["Email"] == "a@example.com"
    assert (other.origin, other.command_id, other.after) == (Origin.STREAM, None, {"Email": "b@example.com"})
    assert (await bench.row(A)).version == other.version


async def test_the_echo_of_a_create_is_known_by_its_values(bench: Bench) -> None:
    """The event may come before the answer told the id."""
    command = await bench.command(Operation.CREATE, None, LastName="Doe", Phone="5")
    await bench.events(event("CREATE", A, Name={"LastName": "Doe"}, Phone="6"))
    await bench.events(event("CREATE", B, Name={"LastName": "Doe"}, Phone="5"))
    assert [c.command_id for c in await bench.changes()] == [None, command]


async def test_echoes_of_many_creates_and_upserts(bench: Bench) -> None:
    """Each change takes the oldest that fits it, whatever else they set; an upsert may make or change its record."""
    wanted = {"Phone": "5"}
    made = [await bench.command(Operation.CREATE, None, LastName="Doe", **part) for part in (wanted, {}, wanted)]
    found = await bench.command(Operation.UPSERT, None, LastName="Roe", **wanted)
    ids = [A, B, record_id(7), record_id(8)]
    await bench.events(*[event("CREATE", i, Name={"LastName": "Doe"}, Phone="5") for i in ids])
    assert [c.command_id for c in await bench.changes()] == [*made, None]
    await bench.events(event("UPDATE", A, at_ms=T0 + 1000, Name={"LastName": "Roe"}))
    assert (await bench.changes())[-1].command_id == found


async def test_the_echo_of_a_delete(bench: Bench) -> None:
    await bench.events(event("CREATE", A, Name=NAME))
    command = await bench.command(Operation.DELETE, A)
    await bench.events(event("DELETE", A, at_ms=T0 + 1000))
    assert (await bench.changes())[1].command_id == command


async def test_an_echo_that_changed_nothing_is_not_awaited_any_more(bench: Bench) -> None:
    await bench.events(event("CREATE", A, Name=NAME, Phone="5"))
    await bench.command(Operation.UPDATE, A, Phone="5")
    await bench.events(event("UPDATE", A, at_ms=T0 + 1000, LastModifiedDate="2026-11-22T17:26:40.000Z"))
    assert await bench.database.run(lambda unit: unit.awaiting_echo("Contact", [A], 0)) == []


async def test_a_poll_finds_an_echo_too(bench: Bench) -> None:
    await bench.reads(read(A, LastName="Doe"))
    command = await bench.command(Operation.UPDATE, A, Phone="5")
    await bench.reads(read(A, T0 + 1000, LastName="Doe", Phone="5"))
    assert [(c.origin, c.command_id) for c in (await bench.changes())[1:]] == [(Origin.COMMAND, command)]


class Counted:
    """A unit that counts what it is asked."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self._unit, name)


async def test_a_batch_asks_no_more_than_one_change(bench: Bench) -> None:
    """One look-up and one write of rows, one of the log: two hundred changes share them."""
    ids = [record_id(n) for n in range(200)]
    await bench.events(*[event("CREATE", i, Name=NAME) for i in ids])

    def asked(phone: str, changed: Sequence[RecordId], unit: Unit) -> Counter[str]:
        counted = Counted(unit)
        batch = [decoded(event("UPDATE", i, at_ms=T0 + 1000 * int(phone), Phone=phone), 1) for i in changed]
        assert len(apply_events(bench.applying, cast("Unit", counted), SPECS, batch).fresh) == len(changed)
        return counted.asked

    alone = await bench.database.run(partial(asked, "1", ids[:1]))
    assert await bench.database.run(partial(asked, "2", ids)) == alone
