"""Creates whose answer was lost, settled with the local org: what the replica has seen of them, and by which clock."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from connector.devorg.objects.residents import SECOND_EDITOR_ID
from connector.devorg.server import DevOrg
from connector.model.command import Command, CommandStatus
from connector.ports import Purpose, QueryPage
from tests.copies import copied
from tests.orgcommands import OrgBench, bench_over, org_bench
from tests.waiting import until

FIELDS = {"Lead": ("LastName", "Company"), "Invoice__c": ("Name", "BlackRoad_Key__c")}
HOUR_MS = 3_600_000
LEAD = {"LastName": "Once", "Company": "Acme"}


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        started.ctx.schema.select(*FIELDS)
        yield started


async def lose_answer(bench: OrgBench, *creates: tuple[str, str]) -> None:
    """Creates (command id, object) that the org takes and whose answer is lost; nothing more is sent afterwards."""
    for command_id, name in creates:
        fields = LEAD if name == "Lead" else {"Name": "Once"}
        await bench.give(name, "create", {"command_id": command_id, "fields": fields})
    bench.org.ctx.faults.add("rest", method="POST", drop_response=True)
    writer = bench.make_writer()
    job = asyncio.create_task(writer.run())

    async def lost() -> bool:
        return all([(await bench.command(c)).answer_lost for c, _ in creates])

    await until(lost, 10)
    bench.org.ctx.faults.clear()
    writer.drain()
    await job


def made(org: DevOrg, table: str) -> list[str]:
    found = org.ctx.database.connection.execute(f"SELECT Id FROM record_{table} WHERE CreatedDate > '2026'")  # noqa: S608 - a name from below
    return [row["Id"] for row in found]


async def test_a_clock_that_ran_ahead_hides_no_record(org: DevOrg, tmp_path: Path) -> None:
    """Accepted and sent by a clock seven hours ahead, which is then set right: the record is found where it is."""
    async with org_bench(tmp_path / "r.db", org, FIELDS, external_id="BlackRoad_Key__c", settle_ms=300) as bench:
        before = len(made(org, "lead")), len(made(org, "invoice__c"))
        bench.ahead_ms = 7 * HOUR_MS
        await lose_answer(bench, ("lead", "Lead"), ("invoice", "Invoice__c"))
        bench.ahead_ms = 0
        await bench.send_all()
        done = [await bench.command(c) for c in ("lead", "invoice")]
    assert [(c.status, c.attempts) for c in done] == [(CommandStatus.SUCCEEDED, 1)] * 2
    assert (len(made(org, "lead")), len(made(org, "invoice__c"))) == (before[0] + 1, before[1] + 1)


async def test_a_clock_that_jumps_ahead_ends_no_settling(org: DevOrg, tmp_path: Path) -> None:
    """The org may be at it still: its own clock tells when a request has had its time."""
    async with org_bench(tmp_path / "r.db", org, FIELDS, settle_ms=HOUR_MS) as bench:
        await bench.give("Lead", "create", {"command_id": "a", "fields": LEAD})
        org.ctx.faults.add("rest", method="POST", path="/sobjects/Lead", close=True)
        async with bench.sending():
            await until(lambda: _lost(bench, "a"), 10)
            bench.ahead_ms = 7 * HOUR_MS
            asked = len(org.ctx.usage.calls)
            await until(lambda: _asked_again(bench, asked), 10)
        assert (await bench.command("a")).status is CommandStatus.ACCEPTED
        assert (await bench.command("a")).attempts == 1


async def _lost(bench: OrgBench, command_id: str) -> bool:
    return (await bench.command(command_id)).answer_lost


async def _asked_again(bench: OrgBench, _before: int) -> bool:
    return sum(n for call, n in bench.org.ctx.usage.calls.items() if "query" in call) >= 2


@pytest.fixture
async def watched(org: DevOrg, tmp_path: Path) -> AsyncIterator[tuple[DevOrg, OrgBench]]:
    """A bench over a replica that the stream keeps; both creates were taken, and came back."""
    wanted = {name: list(fields) for name, fields in FIELDS.items()}
    async with copied(org, tmp_path / "r.db", wanted=wanted) as copy:
        await copy.until_live()
        async with bench_over(org, copy, external_id="BlackRoad_Key__c") as bench:
            await lose_answer(bench, ("lead", "Lead"), ("invoice", "Invoice__c"))

            async def came_back() -> bool:
                return {c.command_id for c in await copy.changes()} >= {"lead", "invoice"}

            await until(came_back, 10)
            yield org, bench


async def test_a_record_that_was_seen_and_is_gone_is_not_made_again(watched: tuple[DevOrg, OrgBench]) -> None:
    """Somebody deleted it for good before the org was asked: the org shows nothing, but its change had come."""
    org, bench = watched
    commits = [c for c in bench.commits if any(change.kind == "CREATE" for change in c.changes)]
    ids = {change.object: change.id for commit in commits for change in commit.changes}
    with org.ctx.org.transaction(SECOND_EDITOR_ID, "") as work:
        for name, record_id in ids.items():
            work.purge(name, record_id)
    await bench.send_all()
    assert _ends([await bench.command("lead"), await bench.command("invoice")]) == [
        (CommandStatus.SUCCEEDED, 1, ids["Lead"]),
        (CommandStatus.SUCCEEDED, 1, ids["Invoice__c"]),
    ]
    assert _creates(bench) == Counter(ids.values())


async def test_a_record_that_came_back_is_nobody_elses(watched: tuple[DevOrg, OrgBench]) -> None:
    """Another lost create with the same content does not get it for its own."""
    _org, bench = watched
    await lose_answer(bench, ("twin", "Lead"))
    await bench.send_all()
    done = [await bench.command("lead"), await bench.command("twin")]
    assert [(c.status, c.attempts) for c in done] == [(CommandStatus.SUCCEEDED, 1)] * 2
    assert len({c.record_id for c in done}) == 2


async def test_a_change_that_comes_back_while_the_org_is_asked_is_the_commands_own(
    org: DevOrg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims its record: from other commands, not from the one that made it, or that would be sent again."""
    wanted = {name: list(fields) for name, fields in FIELDS.items()}
    async with copied(org, tmp_path / "r.db", wanted=wanted) as copy:
        await copy.until_live()
        async with bench_over(org, copy, settle_ms=0) as bench:
            org.ctx.settings.stream_stalled = True
            await lose_answer(bench, ("lead", "Lead"))
            query = bench.door.rest.query

            async def came_back() -> bool:
                return "lead" in {c.command_id for c in await copy.changes()}

            async def slow_query(soql: str, purpose: Purpose, *, deleted: bool = False) -> QueryPage:
                page = await query(soql, purpose, deleted=deleted)
                org.ctx.settings.stream_stalled = False
                org.ctx.bus.wake()
                await until(came_back, 10)
                return page

            monkeypatch.setattr(bench.door.rest, "query", slow_query)
            await bench.send_all()
            done = await bench.command("lead")
    assert (done.status, done.attempts) == (CommandStatus.SUCCEEDED, 1)
    assert list(_creates(bench).values()) == [1]


async def test_a_lost_upsert_undoes_nothing_that_a_later_command_has_written(org: DevOrg, tmp_path: Path) -> None:
    """It named the record by its key, the later one by its id: they did not wait for one another."""
    async with org_bench(tmp_path / "r.db", org, FIELDS) as bench:
        upsert = {"command_id": "first", "external_id": {"field": "BlackRoad_Key__c", "value": "K"}}
        await bench.give("Invoice__c", "upsert", upsert | {"fields": {"Name": "first"}})
        org.ctx.faults.add("rest", method="PATCH", drop_response=True)
        async with bench.sending() as writer:
            await until(lambda: _lost(bench, "first"), 10)
            await _wait_until(bench, "first", 2**42)
            [invoice] = org.ctx.org.find("Invoice__c", "BlackRoad_Key__c", "K")
            await bench.give("Invoice__c", "update", {"command_id": "second", "id": invoice, "fields": {"Name": "2nd"}})
            await until(lambda: _succeeded(bench, "second"), 10)
            await _wait_until(bench, "first", None)
            writer.wake()
            await until(lambda: _succeeded(bench, "first"), 10)
        assert bench.row("Invoice__c", invoice)["Name"] == "2nd"
        assert (await bench.command("first")).record_id == invoice


async def _wait_until(bench: OrgBench, command_id: str, retry_ms: int | None) -> None:
    command = await bench.command(command_id)
    await bench.database.run(lambda unit: unit.update_command(replace(command, retry_ms=retry_ms)))


async def _succeeded(bench: OrgBench, command_id: str) -> bool:
    return (await bench.command(command_id)).status is CommandStatus.SUCCEEDED


def _ends(commands: Sequence[Command]) -> list[tuple[CommandStatus, int, str | None]]:
    return [(c.status, c.attempts, c.record_id) for c in commands]


def _creates(bench: OrgBench) -> Counter[str]:
    return Counter(change.id for commit in bench.commits for change in commit.changes if change.kind == "CREATE")


UPSERT = {"external_id": {"field": "BlackRoad_Key__c", "value": "K"}, "fields": {"Name": "ours"}}


async def lose_upsert(bench: OrgBench, command_id: str, **effect: bool) -> None:
    """An upsert whose answer is lost, and that waits; `drop_response`: the org has taken it, `close`: it has not."""
    await bench.give("Invoice__c", "upsert", {"command_id": command_id} | UPSERT)
    bench.org.ctx.faults.add("rest", method="PATCH", **effect)
    async with bench.sending():
        await until(lambda: _lost(bench, command_id), 10)
        await _wait_until(bench, command_id, 2**42)
    bench.org.ctx.faults.clear()


async def settled(bench: OrgBench, command_id: str) -> Command:
    await _wait_until(bench, command_id, None)
    await bench.send_all()
    return await bench.command(command_id)


def people_delete(org: DevOrg, record_id: str) -> None:
    with org.ctx.org.transaction(SECOND_EDITOR_ID, "") as work:
        work.delete("Invoice__c", record_id)


def keyed(org: DevOrg) -> list[str]:
    return org.ctx.org.find("Invoice__c", "BlackRoad_Key__c", "K")


async def test_a_lost_upsert_whose_record_was_deleted_is_not_made_again(org: DevOrg, tmp_path: Path) -> None:
    """It made the record, somebody deleted it: that was its one effect."""
    async with org_bench(tmp_path / "r.db", org, FIELDS) as bench:
        await lose_upsert(bench, "u", drop_response=True)
        [invoice] = keyed(org)
        people_delete(org, invoice)
        done = await settled(bench, "u")
    assert (done.status, done.attempts, done.record_id) == (CommandStatus.SUCCEEDED, 1, invoice)
    assert keyed(org) == []


async def test_a_lost_upsert_does_not_undo_a_later_delete(org: DevOrg, tmp_path: Path) -> None:
    """The delete named the record by its id and did not wait."""
    async with org_bench(tmp_path / "r.db", org, FIELDS) as bench:
        invoice = bench.people_write("Invoice__c", None, {"Name": "theirs", "BlackRoad_Key__c": "K"})
        await bench.give("Invoice__c", "upsert", {"command_id": "u"} | UPSERT)
        org.ctx.faults.add("rest", method="PATCH", drop_response=True)
        async with bench.sending():
            await until(lambda: _lost(bench, "u"), 10)
            await _wait_until(bench, "u", 2**42)
            await bench.give("Invoice__c", "delete", {"command_id": "d", "id": invoice, "on_conflict": "overwrite"})
            await until(lambda: _succeeded(bench, "d"), 10)
        done = await settled(bench, "u")
    assert (done.status, done.attempts, done.record_id) == (CommandStatus.SUCCEEDED, 1, invoice)
    assert keyed(org) == []


@pytest.mark.parametrize("known", [False, True])
async def test_whether_a_lost_upsert_came_before_the_delete_cannot_be_told(
    org: DevOrg, tmp_path: Path, known: bool
) -> None:
    """The record does not show what it set: it may have been edited since, or not been reached. Nothing is repeated.

    `known`: an earlier command has told which record it is.
    """
    async with org_bench(tmp_path / "r.db", org, FIELDS) as bench:
        invoice = bench.people_write("Invoice__c", None, {"Name": "theirs", "BlackRoad_Key__c": "K"})
        if known:
            key = UPSERT["external_id"]
            await bench.give("Invoice__c", "upsert", {"command_id": "a", "external_id": key, "fields": {"Name": "b"}})
            await bench.send_all()
        await lose_upsert(bench, "u", close=True)
        people_delete(org, invoice)
        done = await settled(bench, "u")
    assert (done.status, done.attempts) == (CommandStatus.UNKNOWN, 1)
    assert keyed(org) == []


async def test_a_lost_upsert_of_what_was_deleted_before_it_is_sent_again(org: DevOrg, tmp_path: Path) -> None:
    """A record that went before the upsert was sent has nothing to do with it."""
    with org.ctx.org.transaction(SECOND_EDITOR_ID, "") as work:
        before = work.create("Invoice__c", {"Name": "ours", "BlackRoad_Key__c": "K"})
    people_delete(org, before)
    org.ctx.org.advance(60)
    async with org_bench(tmp_path / "r.db", org, FIELDS) as bench:
        await lose_upsert(bench, "u", close=True)
        done = await settled(bench, "u")
    assert (done.status, done.attempts) == (CommandStatus.SUCCEEDED, 2)
    assert keyed(org) == [done.record_id] != [before]


async def test_a_lost_upsert_that_came_back_and_was_purged_is_not_made_again(org: DevOrg, tmp_path: Path) -> None:
    """The org shows nothing of it, but its change had come."""
    wanted = {name: list(fields) for name, fields in FIELDS.items()}
    async with copied(org, tmp_path / "r.db", wanted=wanted) as copy:
        await copy.until_live()
        async with bench_over(org, copy) as bench:
            await lose_upsert(bench, "u", drop_response=True)
            [invoice] = keyed(org)

            async def came_back() -> bool:
                return "u" in {c.command_id for c in await copy.changes()}

            await until(came_back, 10)
            with org.ctx.org.transaction(SECOND_EDITOR_ID, "") as work:
                work.purge("Invoice__c", invoice)
            done = await settled(bench, "u")
    assert (done.status, done.attempts, done.record_id) == (CommandStatus.SUCCEEDED, 1, invoice)
    assert keyed(org) == []
