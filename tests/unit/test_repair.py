"""Doubts are settled by reading: single records, whole objects, and never too many deletions at once."""

from pathlib import Path

import pytest

from connector.errors import LinkDown, PoisonError
from connector.model.change import Operation, Origin
from connector.ports import DirtyRecord, Purpose
from tests.events import T0, event, record_id
from tests.fakes import FakeOrg
from tests.waiting import until
from tests.way import Way, loaded, opened

A, B = record_id(0), record_id(1)
COUNT = 100


@pytest.fixture
def org() -> FakeOrg:
    org = FakeOrg("Contact", server_ms=T0)
    for n in range(COUNT):
        org.put("Contact", record_id(n), T0 - 60_000, LastName=f"Doe {n}")
    return org


async def mark(way: Way, *numbers: int, reason: str = "gap_update") -> None:
    marks = [DirtyRecord("Contact", record_id(n), reason, T0, None) for n in numbers]
    await way.run(lambda unit: unit.mark_dirty(marks))


async def test_doubtful_records_are_read_in_one_call(tmp_path: Path, org: FakeOrg) -> None:
    """GAP events: in batches of up to 2,000 ids, a missing one deleted."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        for n in range(50):
            org.put("Contact", record_id(n), T0, Phone=str(n))
        org.delete("Contact", record_id(49))
        await mark(way, *range(50))
        async with way.running("repair"):
            await way.until_value(A, "Phone", "0")
            await until(lambda: any(r.kind == "repair" for r in way.rounds))
        assert org.calls["retrieve"] == 1
        assert await way.equals_org()
        assert await way.dirty() == {}
        told = {(c.operation, c.origin) for c in await way.changes()}
        assert told == {(Operation.UPDATE, Origin.REPAIR), (Operation.DELETE, Origin.REPAIR)}


async def test_a_record_that_moves_on_while_it_is_read_is_read_again(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            org.put("Contact", A, T0, Phone="1")
            await mark(way, 0)

            async def meanwhile() -> None:
                org.put("Contact", A, T0 + 1000, Email="x@example.com")
                way.source.send(event("UPDATE", A, at_ms=T0 + 1000, Email="x@example.com"))
                await way.until_value(A, "Email", "x@example.com")

            org.after["retrieve"].append(meanwhile)
            assert await way.inbound.settler.settle("Contact") == 1
            assert await way.dirty() == {A: "raced"}
            assert await way.inbound.settler.settle("Contact") == 0
        assert await way.equals_org()


async def test_a_failed_reading_leaves_the_marks(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.put("Contact", A, T0, Phone="1")
        await mark(way, 0)
        org.failures["retrieve"].append(LinkDown("cut"))
        async with way.running("repair"):
            await way.until_value(A, "Phone", "1")
            await until(lambda: way.rounds[-1].error is None)
        errors = [r.error for r in way.rounds if r.kind == "repair"]
        assert errors == ["cut", None]


async def test_nothing_is_read_before_the_first_load_is_complete(tmp_path: Path, org: FakeOrg) -> None:
    """Events on records that the load has not brought yet would be read one by one."""
    async with opened(tmp_path / "r.db", org) as way:
        await mark(way, 0)
        async with way.running("repair"):
            way.inbound.repairer.wake()
            await loaded(way)

            async def settled() -> bool:
                return await way.dirty() == {}

            await until(settled)
        assert org.calls["retrieve"] == 1


async def test_a_comparison_finds_what_nothing_told(tmp_path: Path, org: FakeOrg) -> None:
    """Hard deletes and changes without a stamp: one call per 2,000 records, and one for what is missed."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.put("Contact", A, T0 - 60_000, Phone="silent")
        org.delete("Contact", B, hard=True)
        org.put("Contact", record_id(500), T0 - 60_000, LastName="Unseen")
        (done,) = await way.inbound.verify()
        assert (done.compared, done.drift, done.repaired, done.held) == (COUNT, 3, 3, 0)
        assert await way.equals_org()
        assert org.calls_for(Purpose.VERIFY) == 1
        assert org.calls_for(Purpose.REPAIR) == 1
        assert way.inbound.proofs.verified_ms["Contact"] == T0
        (again,) = await way.inbound.verify()
        assert again.drift == 0


async def test_a_look_writes_nothing(tmp_path: Path, org: FakeOrg, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of difference is counted, over several pages, and left; without one the object is proved equal."""
    monkeypatch.setattr("connector.inbound.compare.PAGE_ROWS", 10)
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        (equal,) = await way.inbound.verify(repair=False)
        assert (equal.compared, equal.drift, way.inbound.proofs.verified_ms["Contact"]) == (COUNT, 0, T0)
        org.server_ms = T0 + 60_000
        org.put("Contact", A, T0 - 60_000, Phone="silent")
        org.delete("Contact", B, hard=True)
        org.put("Contact", record_id(500), T0 - 60_000, LastName="Unseen")
        (done,) = await way.inbound.verify(repair=False)
        assert (done.compared, done.drift, done.repaired, done.held) == (COUNT, 3, 0, 0)
        assert (await way.changes(), await way.dirty()) == ([], {})
        assert way.inbound.proofs.drift("Contact") == 3
        assert way.inbound.proofs.verified_ms["Contact"] == T0
        await way.inbound.verify()
        assert way.inbound.proofs.drift("Contact") == 0
        assert way.inbound.proofs.verified_ms["Contact"] == org.server_ms


async def test_a_look_tells_what_a_repair_would_hold(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.rows["Contact"].clear()
        (done,) = await way.inbound.verify(repair=False)
        assert (done.compared, done.drift, done.repaired, done.held) == (0, COUNT, 0, COUNT)
        assert await way.changes() == []


async def test_what_is_not_loaded_cannot_be_compared(tmp_path: Path, org: FakeOrg) -> None:
    """Its records would all be differences, and be published as such."""
    async with opened(tmp_path / "r.db", org) as way:
        with pytest.raises(PoisonError, match="Contact"):
            await way.inbound.verify(["Contact"])
        assert await way.inbound.verify() == []


async def test_a_busy_object_is_not_compared_all_the_time(tmp_path: Path, org: FakeOrg) -> None:
    """A comparison that ended with records in doubt proves nothing; the next one has time."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        way.inbound.proofs.verified_ms["Contact"] = T0
        await way.run(lambda unit: unit.set_cursor("reconcile:Contact", "2026-11-22T17:26:40.000Z", T0))

        async def doubt() -> None:
            await mark(way, 0)

        org.after["retrieve"].extend([doubt] * 50)
        await mark(way, 0)
        await way.inbound.repairer._pass()
        compared = org.calls_for(Purpose.VERIFY)
        await way.inbound.repairer._pass()
        assert (compared, org.calls_for(Purpose.VERIFY)) == (1, 1)


async def test_pages_of_a_comparison_cover_all_ids(
    tmp_path: Path, org: FakeOrg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.inbound.compare.PAGE_ROWS", 10)
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        for n in (0, 9, 10, 57, 99):
            org.delete("Contact", record_id(n), hard=True)
        (done,) = await way.inbound.verify()
        assert (done.compared, done.repaired) == (95, 5)
        assert await way.equals_org()


async def test_a_record_that_came_during_a_comparison_is_not_missed(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("stream"):
            await until(lambda: way.inbound.stream_state.status == "live")
            new = record_id(500)

            async def meanwhile() -> None:
                org.put("Contact", new, T0 + 1000, LastName="New")
                way.source.send(event("CREATE", new, at_ms=T0 + 1000, Name={"LastName": "New"}))
                await way.until_value(new, "LastName", "New")

            org.after["query"].append(meanwhile)
            (done,) = await way.inbound.verify()
        assert done.drift == 0
        assert await way.equals_org()


async def test_many_missing_records_are_not_deleted_without_a_word(tmp_path: Path, org: FakeOrg) -> None:
    """A user who lost the right to see the object sees none of its records."""
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        gone = dict(org.rows["Contact"])
        org.rows["Contact"].clear()
        (done,) = await way.inbound.verify()
        assert (done.drift, done.repaired, done.held) == (COUNT, 0, COUNT)
        assert await way.changes() == []
        assert way.inbound.proofs.held == {"Contact": COUNT}
        org.rows["Contact"] |= gone
        (done,) = await way.inbound.verify()
        assert way.inbound.proofs.held == {}
        org.rows["Contact"].clear()
        (done,) = await way.inbound.verify(allow_deletions=["Contact"])
        assert done.repaired == COUNT
        assert await way.equals_org()


async def test_many_doubts_that_turn_out_missing_are_held_too(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.rows["Contact"].clear()
        await mark(way, *range(60))
        assert await way.inbound.settler.settle("Contact") == 0
        assert await way.changes() == []
        assert way.inbound.proofs.held == {"Contact": 60}


async def test_deletions_that_the_org_told_are_believed(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        org.rows["Contact"].clear()
        await mark(way, *range(60), reason="gap_delete")
        await way.inbound.settler.settle("Contact")
        assert len(await way.changes()) == 60


async def test_every_object_is_compared_once_a_day(tmp_path: Path, org: FakeOrg) -> None:
    async with opened(tmp_path / "r.db", org) as way:
        await loaded(way)
        async with way.running("repair"):
            await until(lambda: way.inbound.proofs.verified_ms.get("Contact") == T0)
            org.put("Contact", A, T0 - 60_000, Phone="silent")
            org.server_ms = T0 + 25 * 3600 * 1000
            await way.inbound.sync()
            way.inbound.repairer.wake()
            await way.until_value(A, "Phone", "silent")
            await until(lambda: way.inbound.proofs.verified_ms["Contact"] == org.server_ms)
        assert org.calls_for(Purpose.VERIFY) == 1
