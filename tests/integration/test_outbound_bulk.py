"""A long queue as Bulk ingest jobs, from the command table to the local org through the real door."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from connector.devorg.clock import wall_ms
from connector.devorg.server import DevOrg
from connector.model.command import CommandStatus
from connector.outbound import bulk
from connector.ports import Purpose
from tests.orgcommands import OrgBench, org_bench
from tests.waiting import until

FIELDS = {
    "Contact": ("FirstName", "LastName", "Phone", "Email", "Department"),
    "Invoice__c": ("Name", "BlackRoad_Key__c"),
}
THRESHOLD = 20


@pytest.fixture
async def org() -> AsyncIterator[DevOrg]:
    async with DevOrg() as started:
        yield started


@pytest.fixture
async def bench(org: DevOrg, tmp_path: Path) -> AsyncIterator[OrgBench]:
    async with org_bench(tmp_path / "r.db", org, FIELDS, bulk_threshold=THRESHOLD, settle_ms=1500) as made:
        yield made


def calls(org: DevOrg, text: str) -> int:
    """API calls whose method and path hold the text."""
    return sum(count for path, count in org.ctx.usage.calls.items() if text in path)


def jobs(org: DevOrg) -> list[dict[str, Any]]:
    """The ingest jobs that the org has not been told to forget."""
    return [dict(row) for row in org.ctx.database.connection.execute("SELECT * FROM bulk_ingest_job")]


async def create(bench: OrgBench, names: Sequence[str], prefix: str = "c") -> None:
    for number, name in enumerate(names):
        await bench.give("Contact", "create", {"command_id": f"{prefix}{number}", "fields": {"LastName": name}})


def last_names(org: DevOrg) -> Counter[str]:
    rows = org.ctx.database.connection.execute("SELECT LastName FROM record_contact WHERE IsDeleted = 0")
    return Counter(row["LastName"] for row in rows)


async def made(bench: OrgBench, count: int) -> list[str]:
    """Contacts that are there and that the replica has."""
    ids = [bench.people_write("Contact", None, {"LastName": f"Old {number}"}) for number in range(count)]
    await bench.catch_up("Contact", ids)
    return ids


async def test_creates_go_as_one_job_and_each_has_its_own_answer(org: DevOrg, bench: OrgBench) -> None:
    """Refused rows fail alone; each command's record is the one that has its values; the calls are counted."""
    org.ctx.org.rules.order(
        "validation",
        {"object": "Contact", "when": {"field": "LastName", "value": "No 7"}, "message": "not seven"},
    )
    used = org.ctx.usage.api.used()
    await create(bench, [f"No {number}" for number in range(60)])
    await bench.send_all()
    statuses = await bench.statuses()
    assert Counter(statuses.values()) == {CommandStatus.SUCCEEDED: 59, CommandStatus.FAILED: 1}
    failed = await bench.command("c7")
    assert [(e["code"], e["message"]) for e in failed.errors] == [("FIELD_CUSTOM_VALIDATION_EXCEPTION", "not seven")]
    for number in (0, 6, 8, 59):
        command = await bench.command(f"c{number}")
        assert bench.row("Contact", str(command.record_id))["LastName"] == f"No {number}"
        assert command.attempts == 1
    assert (calls(org, "composite"), calls(org, "POST /jobs/ingest"), jobs(org)) == (0, 1, [])
    assert org.ctx.usage.api.used() - used == bench.door.budget.made(Purpose.COMMAND) <= 12
    assert {c.origin for c in bench.commits} == {"com/salesforce/api/bulkapi/58.0;client=salesforce-sync"}
    assert await bench.database.run(lambda unit: unit.ingest_jobs()) == []


async def test_updates_upserts_and_deletes_too(org: DevOrg, bench: OrgBench) -> None:
    """Under `overwrite`; null empties a field, what a command does not set is left alone, gone ones are told."""
    ids = await made(bench, 40)
    bench.people_write("Contact", ids[0], {"Email": "a@b.cd", "FirstName": "Kept"})
    await bench.catch_up("Contact", ids)
    with org.ctx.org.transaction(org.ctx.tokens.default_user_id, "") as work:
        work.delete("Contact", ids[1])
    for number, record_id in enumerate(ids):
        fields: dict[str, Any] = {"Phone": f"{number}"} | ({"Email": None} if number == 0 else {})
        command = {"command_id": f"u{number}", "id": record_id, "fields": fields, "on_conflict": "overwrite"}
        await bench.give("Contact", "update", command | {"base": {"version": 0}})
    await bench.send_all()
    for number in range(30):
        key = {"field": "BlackRoad_Key__c", "value": f"Key {number}"}
        await bench.give(
            "Invoice__c", "upsert", {"command_id": f"k{number}", "external_id": key, "fields": {"Name": f"I {number}"}}
        )
    await bench.send_all()
    assert calls(org, "POST /jobs/ingest") == 2
    statuses = await bench.statuses()
    assert [i for i, status in statuses.items() if status is not CommandStatus.SUCCEEDED] == ["u1"]
    assert (await bench.command("u1")).errors[0]["code"] == "ENTITY_IS_DELETED"
    first = bench.row("Contact", ids[0])
    assert (first["Phone"], first["Email"], first["FirstName"]) == ("0", None, "Kept")
    assert [bench.row("Contact", i)["Phone"] for i in ids[2:]] == [str(n) for n in range(2, 40)]
    invoices = {bench.row("Invoice__c", str((await bench.command(f"k{n}")).record_id))["Name"] for n in range(30)}
    assert invoices == {f"I {n}" for n in range(30)}
    for number, record_id in enumerate(ids):
        command = {"command_id": f"d{number}", "id": record_id, "on_conflict": "overwrite"}
        await bench.give("Contact", "delete", command)
    await bench.send_all()
    assert calls(org, "POST /jobs/ingest") == 3
    assert {s for i, s in (await bench.statuses()).items() if i.startswith("d")} == {CommandStatus.SUCCEEDED}
    assert last_names(org) == {}


async def test_what_must_not_be_written_unseen_goes_by_calls(org: DevOrg, bench: OrgBench) -> None:
    """Edits under `merge`, fields that the org owns, upserts of known records, and texts that a row cannot hold."""
    ids = await made(bench, 30)
    for number, record_id in enumerate(ids):
        command = {"command_id": f"m{number}", "id": record_id, "fields": {"Phone": f"{number}"}}
        await bench.give("Contact", "update", command)
    await bench.send_all()
    texts = ["#N/A", "a\r\nb"] * 15
    await create(bench, texts)
    await bench.send_all()
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    assert calls(org, "jobs/ingest") == 0
    assert last_names(org)["#N/A"] == 15


async def test_the_order_on_a_record_is_kept(org: DevOrg, bench: OrgBench) -> None:
    """What follows on a job's record waits for the job, and so does what names a record that it makes."""
    ids = await made(bench, 25)
    org.ctx.settings.bulk_job_s = 0.5
    for number, record_id in enumerate(ids):
        for step in ("first", "second"):
            command = {"command_id": f"{step}{number}", "id": record_id, "fields": {"Department": step}}
            await bench.give("Contact", "update", command | {"on_conflict": "overwrite"})
    await create(bench, [f"N {number}" for number in range(25)])
    for number in range(25):
        behind = {"command_id": f"b{number}", "record_of": f"c{number}", "fields": {"Phone": f"{number}"}}
        await bench.give("Contact", "update", behind)
    await bench.send_all()
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    assert calls(org, "POST /jobs/ingest") == 1  # the others had no longer to wait than for it
    assert {bench.row("Contact", i)["Department"] for i in ids} == {"second"}
    writes = [change.after["Department"] for c in bench.commits for change in c.changes if change.id == ids[0]]
    assert writes == [None, "first", "second"]
    last = await bench.command("c24")
    assert bench.row("Contact", str(last.record_id))["Phone"] == "24"


@pytest.mark.parametrize("effect", ["drop_response", "close"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/jobs/ingest$"),
        ("PUT", "/batches$"),
        ("PATCH", "/jobs/ingest/"),
        ("GET", "/jobs/ingest/[^/]*$"),
        ("GET", "/successfulResults"),
        ("GET", "/failedResults"),
        ("GET", "/unprocessedrecords"),
        ("DELETE", "/jobs/ingest/"),
    ],
)
async def test_a_lost_answer_has_one_effect(org: DevOrg, bench: OrgBench, method: str, path: str, effect: str) -> None:
    """Whichever call it was, carried out or not: each create has its one record, equal ones as many as were wanted."""
    names = [f"Same {number // 3}" for number in range(45)]
    org.ctx.faults.add("bulk", method=method, path=path, **{effect: True})
    await create(bench, names)
    await bench.send_all(30)
    assert org.ctx.faults.in_force() == {}
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    assert last_names(org) == Counter(names)
    ids = {(await bench.command(f"c{number}")).record_id for number in range(45)}
    assert len(ids) == 45


async def killed_when(bench: OrgBench, condition: Any) -> None:
    """A writer that dies in the middle, as with its process: nothing is finished."""
    job = asyncio.create_task(bench.make_writer().run())
    await until(condition)
    job.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await job


@pytest.mark.parametrize("state", ["Open", "UploadComplete", "InProgress", "JobComplete"])
async def test_a_job_is_settled_by_the_next_process(org: DevOrg, bench: OrgBench, state: str) -> None:
    """Killed with a job of any state: the org is asked what became of it, and nothing is written twice."""
    names = [f"Same {number // 3}" for number in range(450)]
    await create(bench, names)
    org.ctx.settings.bulk_job_s = 0 if state == "JobComplete" else 1000
    stalled = {"Open": ("PUT", "/batches"), "JobComplete": ("GET", "/successfulResults")}.get(state)
    if stalled:
        org.ctx.faults.add("bulk", method=stalled[0], path=stalled[1], half_open=True)

    async def reached() -> bool:
        if state == "InProgress":  # half of its time has passed, which is time for one of three chunks
            half_ms = wall_ms() - 500_000
            org.ctx.database.connection.execute(
                "UPDATE bulk_ingest_job SET closed_ms = ? WHERE closed_ms > 0", (half_ms,)
            )
        held = not stalled or not org.ctx.faults.in_force()
        return held and [job["state"] for job in jobs(org)] == [state]

    await killed_when(bench, reached)
    assert Counter((await bench.statuses()).values())[CommandStatus.SENDING] > 0
    org.ctx.settings.bulk_job_s = 0
    org.ctx.database.connection.execute("UPDATE bulk_ingest_job SET closed_ms = 1 WHERE closed_ms > 0")
    await bench.send_all(30)
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    assert last_names(org) == Counter(names)
    assert jobs(org) == []


async def test_killed_between_two_slices_of_results(
    org: DevOrg, bench: OrgBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told apart by nothing is settled together: the rest never gets the rows of those that are settled."""
    monkeypatch.setattr(bulk, "SLICE", 4)
    names = [f"Same {number // 6}" for number in range(60)]
    await create(bench, names)

    async def partly() -> bool:
        done = Counter((await bench.statuses()).values())
        return done[CommandStatus.SUCCEEDED] > 0

    await killed_when(bench, partly)
    await bench.send_all()
    assert last_names(org) == Counter(names)
    ids = [(await bench.command(f"c{number}")).record_id for number in range(60)]
    assert len(set(ids)) == 60
    for number, record_id in enumerate(ids):
        assert bench.row("Contact", str(record_id))["LastName"] == names[number]


async def test_killed_before_the_org_made_the_job(org: DevOrg, bench: OrgBench) -> None:
    """The org has heard of no record: all of them are as if they had never been tried."""
    org.ctx.faults.add("bulk", method="POST", half_open=True)
    await create(bench, [f"N {number}" for number in range(30)])

    async def asked() -> bool:
        return org.ctx.faults.in_force() == {}

    await killed_when(bench, asked)
    await bench.send_all()
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    assert {(await bench.command(f"c{number}")).attempts for number in range(30)} == {1}
    assert last_names(org) == Counter(f"N {number}" for number in range(30))


async def test_a_job_that_the_org_no_longer_has(org: DevOrg, bench: OrgBench) -> None:
    """Its answers are lost, and each create is looked for by itself."""
    names = [f"N {number}" for number in range(30)]
    await create(bench, names)
    org.ctx.faults.add("bulk", method="GET", path="/successfulResults", half_open=True)

    async def written() -> bool:
        return org.ctx.faults.in_force() == {}

    await killed_when(bench, written)
    org.ctx.database.connection.execute("DELETE FROM bulk_ingest_job")
    await bench.send_all()
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    assert last_names(org) == Counter(names)


async def test_updates_of_a_job_that_is_gone_are_repeated_as_they_were_sent(org: DevOrg, bench: OrgBench) -> None:
    """A field that held what was wanted was not in the job: somebody's edit of it stays, even under `overwrite`."""
    ids = await made(bench, 30)
    for number, contact in enumerate(ids):
        wanted = {"LastName": f"Old {number}", "Phone": "1"}
        command = {"command_id": f"u{number}", "id": contact, "fields": wanted, "on_conflict": "overwrite"}
        await bench.give("Contact", "update", command)
    org.ctx.faults.add("bulk", method="PUT", path="/batches", half_open=True)

    async def uploading() -> bool:
        return org.ctx.faults.in_force() == {}

    await killed_when(bench, uploading)
    org.ctx.database.connection.execute("DELETE FROM bulk_ingest_job")
    for contact in ids:
        bench.people_write("Contact", contact, {"LastName": "theirs"})
    await bench.send_all()
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    rows = [bench.row("Contact", contact) for contact in ids]
    assert {(row["LastName"], row["Phone"]) for row in rows} == {("theirs", "1")}


async def test_what_a_stopped_job_did_not_come_to_goes_by_calls(org: DevOrg, bench: OrgBench) -> None:
    """Somebody aborts it in its middle: what was written stays, and the rest is written once."""
    names = [f"N {number}" for number in range(450)]
    await create(bench, names)
    org.ctx.settings.bulk_job_s = 1000
    async with bench.sending():
        await until(lambda: _has_job(org))
        org.ctx.database.connection.execute("UPDATE bulk_ingest_job SET closed_ms = closed_ms - 500000")
        await until(lambda: _is_half_done(org))
        org.ctx.database.connection.execute("UPDATE bulk_ingest_job SET state = 'Aborted'")
        await until(bench.done, 20)
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    assert last_names(org) == Counter(names)
    assert calls(org, "POST /composite") > 0


async def _has_job(org: DevOrg) -> bool:
    return [job["state"] for job in jobs(org)] == ["UploadComplete"]


async def _is_half_done(org: DevOrg) -> bool:
    return bool(0 < jobs(org)[0]["done"] < 450)


@pytest.mark.parametrize("code", ["FEATURENOTENABLED", "EXCEEDED_QUOTA", "SERVER_UNAVAILABLE"])
async def test_an_org_that_makes_no_job(org: DevOrg, bench: OrgBench, code: str) -> None:
    """The commands go by calls, and for a while no job is tried."""
    org.ctx.faults.add("bulk", method="POST", status=400, code=code, message="no", count=None)
    await create(bench, [f"N {number}" for number in range(60)])
    await bench.send_all()
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
    assert calls(org, "jobs/ingest") == 0
    assert len(last_names(org)) == 60


async def test_a_job_that_fails_as_a_whole(org: DevOrg, tmp_path: Path) -> None:
    """A field that has gone meanwhile: nothing was written, and each command is refused by itself."""
    org.ctx.schema.add_field("Contact", {"name": "Gone__c", "type": "string", "length": 20})
    async with org_bench(
        tmp_path / "other.db", org, {"Contact": ("LastName", "Gone__c")}, bulk_threshold=THRESHOLD
    ) as other:
        for number in range(30):
            fields = {"LastName": f"N {number}", **({"Gone__c": "x"} if number % 2 else {})}
            await other.give("Contact", "create", {"command_id": f"c{number}", "fields": fields})
        org.ctx.schema.remove_field("Contact", "Gone__c")
        await other.send_all()
        statuses = Counter((await other.statuses()).values())
        assert statuses == {CommandStatus.SUCCEEDED: 15, CommandStatus.FAILED: 15}
        assert (await other.command("c1")).errors[0]["code"] == "INVALID_FIELD"


async def test_a_drained_writer_leaves_its_job_to_the_next_start(org: DevOrg, bench: OrgBench) -> None:
    """It does not wait for an org that takes its time."""
    org.ctx.settings.bulk_job_s = 1000
    await create(bench, [f"N {number}" for number in range(30)])
    async with asyncio.timeout(10):
        async with bench.sending():
            await until(lambda: _has_job(org))
    assert set((await bench.statuses()).values()) == {CommandStatus.SENDING}
    org.ctx.settings.bulk_job_s = 0
    await bench.send_all()
    assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
