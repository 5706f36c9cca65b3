"""Updates whose answer was lost: what a command was first sent as decides what a repeat may write."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from connector.devorg.server import DevOrg
from connector.errors import LinkDown, OrgThrottled
from connector.model.command import CommandStatus
from connector.model.record import StoredRecord
from connector.ports import RecordWrite, WriteOutcome
from tests.commands import CONTACT, ID, SECOND_MS, US, VALUES, Bench, opened, update
from tests.orgcommands import OrgBench, org_bench
from tests.waiting import until

CONFLICT, SUCCEEDED = CommandStatus.CONFLICT, CommandStatus.SUCCEEDED
INVOICE = "Invoice__c"
OVERWRITE = {"on_conflict": "overwrite"}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as made:
        yield made


def ours(**values: Any) -> dict[str, Any]:
    """The record as a write of ours left it, ten seconds before the org's clock."""
    return {**VALUES, **values, "at": SECOND_MS + 119_000, "LastModifiedById": US}


async def statuses(bench: Bench, command_ids: str) -> list[CommandStatus]:
    return [(await bench.command(command_id)).status for command_id in command_ids]


@pytest.mark.parametrize("effect", ["drop_response", "close"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("operation", ["update", "upsert"])
async def test_an_edit_of_what_was_not_sent_stays(tmp_path: Path, operation: str, first: bool, effect: str) -> None:
    """A field that held what was wanted was done with when the rest was sent: what it holds now came later.

    `first`: the edit came before the write; else between it and its repeat. The org has taken the write, or has not.
    """
    fields, owner = {INVOICE: ("Name", "Amount__c", "BlackRoad_Key__c")}, {"Amount__c": "mesh"}
    async with DevOrg() as org, org_bench(tmp_path / "r.db", org, fields, owner=owner) as bench:
        key = {"external_id": {"field": "BlackRoad_Key__c", "value": "K"}}
        await bench.give(INVOICE, "upsert", {"command_id": "a", "fields": {"Name": "seen"}} | key)
        await bench.send_all()
        [invoice] = org.ctx.org.find(INVOICE, "BlackRoad_Key__c", "K")
        await bench.catch_up(INVOICE, [invoice])
        named = key if operation == "upsert" else {"id": invoice}
        wanted = {"Name": "seen", "Amount__c": 5}
        await bench.give(INVOICE, operation, {"command_id": "b", "fields": wanted} | named)
        org.ctx.clock.advance(5)
        if first:
            bench.people_write(INVOICE, invoice, {"Name": "theirs"})
            org.ctx.clock.advance(5)
        org.ctx.faults.add("rest", path="/composite$|/sobjects/Invoice__c/", **{effect: True})
        async with bench.sending():
            await until(lambda: _lost(bench, "b"), 10)
        if not first:
            bench.people_write(INVOICE, invoice, {"Name": "theirs"})
        await bench.send_all()
        row = bench.row(INVOICE, invoice)
        assert (row["Name"], row["Amount__c"]) == ("theirs", 5)
        assert (await bench.command("b")).status is SUCCEEDED
        assert (await bench.command("b")).attempts == (1 if effect == "drop_response" else 2)


async def _lost(bench: OrgBench, command_id: str) -> bool:
    return (await bench.command(command_id)).answer_lost


async def test_a_crash_forgets_not_what_was_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was under way when the process died is repeated as it was sent."""
    begun = asyncio.Event()

    async def never(write: RecordWrite) -> WriteOutcome:
        bench.org.writes.append(write)
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(bench.org, "write", never)
        await bench.give("update", update("a", Phone="1", LastName="Ours") | OVERWRITE)
        job = asyncio.create_task(bench.writer().run())
        await begun.wait()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    bench.org.rows[ID] = {**VALUES, "Phone": "9", "at": SECOND_MS + 119_000}
    await bench.send_all()
    assert [dict(write.fields) for write in bench.org.writes] == [{"LastName": "Ours"}] * 2
    assert await statuses(bench, "a") == [SUCCEEDED]


async def test_a_spent_budget_forgets_not_what_was_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does whatever else keeps the org from being asked: the repeat waits, and is the same one."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("update", update("a", Phone="1", LastName="Ours") | OVERWRITE)
    await bench.send_all()
    bench.org.now_ms += 60_000
    with monkeypatch.context() as patched:
        patched.setattr(bench.org, "retrieve", AsyncMock(side_effect=OrgThrottled("quota", retry_after_s=30)))
        await bench.send_all()
    bench.org.rows[ID] = {**VALUES, "Phone": "9", "at": SECOND_MS + 119_000}
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert [dict(write.fields) for write in bench.org.writes] == [{"LastName": "Ours"}] * 2
    assert await statuses(bench, "a") == [SUCCEEDED]


async def test_what_the_org_has_surely_not_taken_is_planned_afresh(bench: Bench) -> None:
    """A refusal is an answer: an edit of any field that the command sets counts."""
    bench.org.answers.append(WriteOutcome(None, ({"code": "UNABLE_TO_LOCK_ROW", "message": "", "fields": []},)))
    await bench.give("update", update("a", Phone="1", LastName="Ours"))
    await bench.send_all()
    assert (await bench.command("a")).sent is None
    await bench.store({**VALUES, "Phone": "9"})
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert (await bench.command("a")).conflict == {"Phone": {"base": "1", "local": "1", "remote": "9"}}


async def test_edits_that_were_lost_together_are_told_apart(bench: Bench) -> None:
    """A value that two of them set was sent for both, and is neither's if the org has taken none."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("update", update("a", Phone="2"))
    await bench.give("update", update("b", Phone="2"))
    await bench.give("update", update("c", Email="a@b.example"))
    await bench.send_all()
    assert [(await bench.command(c)).carried_by for c in "abc"] == ["c", "c", None]
    bench.org.rows[ID] = {**VALUES, "Phone": "9", "at": SECOND_MS + 119_000}
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert await statuses(bench, "abc") == [CONFLICT, CONFLICT, SUCCEEDED]


async def test_what_a_trigger_makes_of_edits_lost_together_is_no_conflict(bench: Bench) -> None:
    """Nor for those that are looked at once the first of them has its end."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("update", update("a", Phone="2"))
    await bench.give("update", update("b", Email="a@b.example"))
    await bench.send_all()
    bench.org.rows[ID] = ours(Phone="2", Email="A@B.EXAMPLE")
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert await statuses(bench, "ab") == [SUCCEEDED, SUCCEEDED]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_write_of_ours_hides_no_edit_of_what_it_did_not_set(bench: Bench, lost: bool) -> None:
    """It has not come back as it was sent (a trigger's work), so it still counts as to come."""
    written_ms = SECOND_MS + 50_000
    bench.org.answers.append(LinkDown("lost") if lost else WriteOutcome(ID, server_ms=written_ms))
    await bench.give("update", update("a", Phone="1", LastName="Ours") | OVERWRITE)
    await bench.send_all()
    await bench.give("update", update("b", Phone="2"))
    found = {**VALUES, "Phone": "9", "LastName": "OURS"}
    times: dict[str, Any] = {"synced_ms": written_ms, "deleted_ms": None, "modified_ms": written_ms}
    polled = StoredRecord(id=ID, values=found, version=0, **times)
    await bench.database.run(lambda unit: unit.put(CONTACT, [polled]))
    bench.org.rows[ID] = ours(Phone="9", LastName="Ours") | {"at": written_ms}
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert [dict(write.fields) for write in bench.org.writes] == [{"LastName": "Ours"}]
    assert await statuses(bench, "ab") == [SUCCEEDED, CONFLICT]
    assert (await bench.command("b")).conflict == {"Phone": {"base": "1", "local": "2", "remote": "9"}}


async def test_what_was_sent_before_the_rest_of_it_is_no_conflict_for_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica lacks the first call, which was lost, and knows of the second alone: the org is asked."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("update", update("a", Phone="2", LastName="Ours") | OVERWRITE)
    await bench.give("update", update("b", Phone="3"))
    await bench.send_all()
    bench.org.rows[ID] = {**ours(Phone="2", LastName="theirs"), "LastModifiedById": "0055f000007NnAcAAK"}
    bench.org.now_ms += 60_000
    bench.org.answers.append(WriteOutcome(ID, server_ms=SECOND_MS + 170_000))
    retrieve = bench.org.retrieve

    async def read(*asked: Any) -> Any:
        rows = await retrieve(*asked)
        bench.org.rows[ID] = ours(Phone="2", LastName="Ours") | {"at": SECOND_MS + 170_000}
        return rows

    monkeypatch.setattr(bench.org, "retrieve", read)  # the write follows its first read
    await bench.send_all()
    assert [dict(write.fields) for write in bench.org.writes[1:]] == [{"LastName": "Ours"}, {"Phone": "3"}]
    assert await statuses(bench, "ab") == [SUCCEEDED, SUCCEEDED]
