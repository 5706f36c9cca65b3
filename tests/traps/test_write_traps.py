"""Traps 16 to 19: what the answer to a write means, and what it leaves open."""

import json

import pytest

from connector.devorg.records.rules import Condition, ValidationRule
from connector.devorg.server import DevOrg
from connector.model.change import Origin
from connector.model.command import CommandStatus
from tests.orgcommands import bench_over
from tests.traps.scene import CONTACTS, Making, stand_still
from tests.waiting import until

KEY = {"name": "Key__c", "type": "string", "length": 40, "externalId": True, "unique": True, "idLookup": True}
WRITES = "/sobjects/Contact/?|/composite"
KEYED = {"Contact": (*CONTACTS["Contact"], "Key__c")}


def named(org: DevOrg, last_name: str) -> list[str]:
    """Live contacts of that name."""
    return org.ctx.org.find("Contact", "LastName", last_name)


# 16


async def test_trap_16_a_good_answer_with_failed_items(org: DevOrg, copy: Making) -> None:
    """HTTP 200, in the order of the request: each command has its own outcome, and a failed one takes none with it."""
    org.ctx.org.rules.validation.append(
        ValidationRule(object="Contact", when=Condition(field="LastName", value="Bad"), message="not this one")
    )
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        names = ("Good", "Bad", "Better", "Best")
        for name in names:
            await bench.give("Contact", "create", {"command_id": name, "fields": {"LastName": name}})
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        done = [await bench.command(name) for name in names]
        assert [c.status for c in done] == ["succeeded", "failed", "succeeded", "succeeded"]
        assert [c.record_id for c in done] == [next(iter(named(org, name)), None) for name in names]
        assert [e["code"] for e in done[1].errors] == ["FIELD_CUSTOM_VALIDATION_EXCEPTION"]
        assert sum(count for call, count in org.ctx.usage.calls.items() if "composite" in call) == 1


# 17


@pytest.mark.parametrize("keyed", [True, False], ids=["external id", "by its values"])
async def test_trap_17_a_create_whose_answer_was_lost_is_made_once(org: DevOrg, copy: Making, *, keyed: bool) -> None:
    """It may have been taken: looked for by its key, else by what it wrote, before anything is sent again."""
    org.ctx.schema.add_field("Contact", KEY)
    async with (
        copy(wanted=KEYED) as made,
        bench_over(org, made, external_id="Key__c" if keyed else "") as bench,
    ):
        org.ctx.faults.add("rest", path=WRITES, drop_response=True)
        await bench.give("Contact", "create", {"command_id": "lost", "fields": {"LastName": "Lost"}})
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        done = await bench.command("lost")
        assert (done.status, [done.record_id]) == (CommandStatus.SUCCEEDED, named(org, "Lost"))


async def test_trap_17_a_create_that_was_not_taken_is_repeated(org: DevOrg, copy: Making) -> None:
    """The connection was closed before the org had read it; with a key that costs no doubt."""
    org.ctx.schema.add_field("Contact", KEY)
    async with copy(wanted=KEYED) as made, bench_over(org, made, external_id="Key__c") as bench:
        org.ctx.faults.add("rest", close=True, path=WRITES)
        await bench.give("Contact", "create", {"command_id": "again", "fields": {"LastName": "Again"}})
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        assert (await bench.command("again")).record_id == named(org, "Again")[0]
        assert len(named(org, "Again")) == 1


async def test_trap_17_several_records_for_one_key(org: DevOrg, copy: Making) -> None:
    """300 to an upsert: a person must choose, nothing is written."""
    org.ctx.schema.add_field("Contact", {**KEY, "unique": False})
    async with copy(wanted=KEYED) as made, bench_over(org, made) as bench:
        contacts = await made.ids("Contact")
        made.update("Contact", contacts[:2], {"Key__c": "twice"})
        key = {"field": "Key__c", "value": "twice"}
        order = {"command_id": "which", "external_id": key, "fields": {"Phone": "17"}}
        await bench.give("Contact", "upsert", order)
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        done = await bench.command("which")
        assert (done.status, [e["code"] for e in done.errors]) == (CommandStatus.FAILED, ["DUPLICATE_EXTERNAL_ID"])
        assert {r["Phone"] for r in (await made.rows("Contact")).values()} == {"0"}


@pytest.mark.parametrize("member", ["duplicateResut", "duplicateResult"])
async def test_trap_17_the_matches_of_a_duplicate_rule_are_told(org: DevOrg, copy: Making, member: str) -> None:
    """Under the name that many versions misspell, and under the right one."""
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        match = {"matchResults": [{"matchRecords": [{"record": {"Id": "0035f00000Fake0AAA"}}]}]}
        error = (
            f'[{{"errorCode": "DUPLICATES_DETECTED", "message": "Use one of these", "{member}": {json.dumps(match)}}}]'
        )
        org.ctx.faults.add("rest", path=WRITES, status=400, body=error)
        await bench.give("Contact", "create", {"command_id": "double", "fields": {"LastName": "Double"}})
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        done = await bench.command("double")
        assert done.status is CommandStatus.FAILED
        assert "0035f00000Fake0AAA" in done.errors[0]["message"]


# 18


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "UNABLE_TO_LOCK_ROW"), (503, "SERVER_UNAVAILABLE"), (500, "UNKNOWN_EXCEPTION"), (400, "QUERY_TIMEOUT")],
)
async def test_trap_18_what_passes_is_tried_again(org: DevOrg, copy: Making, status: int, code: str) -> None:
    """Locks and the server's own troubles: with back-off, and the command keeps its place."""
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        org.ctx.faults.add("rest", path=WRITES, status=status, code=code, count=2)
        for phone in ("18", "19"):
            order = {"command_id": phone, "id": contact, "fields": {"Phone": phone}}
            await bench.give("Contact", "update", order)
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        assert set((await bench.statuses()).values()) == {CommandStatus.SUCCEEDED}
        assert bench.row("Contact", contact)["Phone"] == "19"
        assert (await bench.command("18")).attempts > 1


async def test_trap_18_a_validation_error_is_final(org: DevOrg, copy: Making) -> None:
    """Asked once, told, and out of the way of those behind it."""
    org.ctx.org.rules.validation.append(
        ValidationRule(object="Contact", when=Condition(field="Phone", value="18"), message="never")
    )
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        for phone in ("18", "19"):
            await bench.give("Contact", "update", {"command_id": phone, "id": contact, "fields": {"Phone": phone}})
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        done = await bench.command("18")
        assert (done.status, done.errors[0]["message"]) == (CommandStatus.FAILED, "never")
        assert (await bench.command("19")).status is CommandStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("message", "shortest_s"),
    [("TotalRequests Limit exceeded.", 60), ("ConcurrentRequests (Concurrent API Requests) Limit exceeded.", 1)],
    ids=["daily", "concurrent"],
)
async def test_trap_18_a_limit_is_waited_out(org: DevOrg, copy: Making, message: str, shortest_s: float) -> None:
    """Minutes for the quota of the day, seconds for the moment's; the command waits and is not failed."""
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        org.ctx.faults.add("rest", status=403, code="REQUEST_LIMIT_EXCEEDED", message=message, count=None)
        await bench.give("Contact", "update", {"command_id": "later", "id": contact, "fields": {"Phone": "18"}})
        async with bench.sending():
            await until(lambda: org.ctx.usage.calls.total() > 0)

            async def waits() -> bool:
                return (await bench.command("later")).attempts == 1

            await until(waits)
        later = await bench.command("later")
        assert later.status is CommandStatus.ACCEPTED
        assert ((later.retry_ms or 0) - bench.now_ms()) / 1000 >= shortest_s / 2


async def test_trap_18_a_dead_token_is_renewed_once_and_the_write_keeps_its_condition(
    org: DevOrg, copy: Making
) -> None:
    """401 in the middle of guarded writes: one login for all, and the repeated request is still conditional."""
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        logins = sum(org.ctx.usage.logins.values())
        bench.people_write("Contact", contact, {"Phone": "theirs"})  # unseen by the replica in this moment
        order = {"command_id": "guarded", "id": contact, "fields": {"Phone": "ours"}}
        base = {"base": {"last_modified": "2020-01-01T00:00:00.000Z"}}
        org.ctx.tokens.expire("access")
        await bench.give("Contact", "update", order | base)
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        assert (await bench.command("guarded")).status is CommandStatus.CONFLICT
        assert bench.row("Contact", contact)["Phone"] == "theirs"
        assert sum(org.ctx.usage.logins.values()) == logins + 1


# 19


async def test_trap_19_a_write_on_an_old_state_is_merged_or_a_conflict(org: DevOrg, copy: Making) -> None:
    """412, then the record itself decides, field by field."""
    async with copy(wanted=CONTACTS, streaming=False, jobs=("load",)) as made, bench_over(org, made) as bench:
        contact, other, _ = await made.ids("Contact")
        bench.people_write("Contact", contact, {"Email": "theirs@example.com"})
        bench.people_write("Contact", other, {"Phone": "theirs"})
        for record in (contact, other):
            await bench.give("Contact", "update", {"command_id": record, "id": record, "fields": {"Phone": "ours"}})
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        assert (await bench.command(contact)).status is CommandStatus.SUCCEEDED
        merged = bench.row("Contact", contact)
        assert (merged["Phone"], merged["Email"]) == ("ours", "theirs@example.com")
        conflict = await bench.command(other)
        assert conflict.conflict == {"Phone": {"base": "0", "local": "ours", "remote": "theirs"}}
        assert bench.row("Contact", other)["Phone"] == "theirs"


async def test_trap_19_the_second_is_the_finest_that_the_header_knows(org: DevOrg, copy: Making) -> None:
    """Somebody writes in the very second of the state that we hold: `If-Unmodified-Since` would let us overwrite it."""
    async with copy(wanted=CONTACTS, streaming=False, jobs=("load",)) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        stand_still(org)
        bench.people_write("Contact", contact, {"Phone": "seen"})
        await made.inbound.sync()
        assert await made.value("Contact", contact, "Phone") == "seen"
        bench.people_write("Contact", contact, {"Phone": "unseen"})
        await bench.give("Contact", "update", {"command_id": "close", "id": contact, "fields": {"Phone": "ours"}})
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        done = await bench.command("close")
        assert (done.status, bench.row("Contact", contact)["Phone"]) == (CommandStatus.CONFLICT, "unseen")


async def test_trap_19_only_what_was_sent_is_written(org: DevOrg, copy: Making) -> None:
    """One field, no assignment rules, text trimmed by the org: and the echo is known all the same."""
    async with copy(wanted=CONTACTS) as made, bench_over(org, made) as bench:
        contact, *_ = await made.ids("Contact")
        await bench.give(
            "Contact", "update", {"command_id": "trim", "id": contact, "fields": {"Email": " a@b.example "}}
        )
        await bench.send_all()
        assert not org.ctx.faults.in_force()
        [commit] = bench.commits
        [written] = commit.changes
        changed = {n for n, v in written.after.items() if (written.before or {}).get(n) != v}
        assert changed - {"LastModifiedDate", "SystemModstamp", "LastModifiedById"} == {"Email"}
        [change] = await made.until_changes(contact, 1)
        assert (change.origin, change.command_id, (change.after or {})["Email"]) == (
            Origin.COMMAND,
            "trim",
            "a@b.example",
        )
