"""Commands from acceptance to result, on a real database, against an org that is told how to answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connector.errors import LinkDown, OrgThrottled, OrgUnavailable, RowLocked
from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.command import CommandStatus, OrgProblem
from connector.ports import Unit, WriteOutcome
from tests.commands import ID, NEW_ID, OTHER_ID, SECOND_MS, US, VALUES, Bench, lost_create, opened, update
from tests.waiting import until


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as made:
        yield made


async def test_an_update_goes_out_guarded_and_is_answered_twice(bench: Bench) -> None:
    """Accepted once it is on disk, then the outcome; the guard is the state that the replica holds."""
    await bench.give("update", update("a", Phone="2"), response_topic="me/inbox", correlation=b"\x00\xff")
    await bench.send_all()
    (write,) = bench.org.writes
    assert (write.fields, write.if_unmodified_since_ms) == ({"Phone": "2"}, SECOND_MS)
    topics = [(topic, body["status"]) for topic, body in await bench.messages()]
    assert topics == [
        ("r/result/a", "accepted"), ("me/inbox", "accepted"), ("r/result/a", "succeeded"), ("me/inbox", "succeeded"),
    ]  # fmt: skip


async def test_a_repeated_id_is_answered_from_what_is_stored(bench: Bench) -> None:
    """It never executes again; the repeat's own address is told."""
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    await bench.give("update", update("a", Phone="3"), response_topic="other/inbox")
    await bench.send_all()
    assert len(bench.org.writes) == 1
    assert ("other/inbox", "succeeded") in [(t, b["status"]) for t, b in await bench.messages()]


async def test_a_redelivery_without_an_id_executes_once(bench: Bench) -> None:
    """The broker delivers again what it had no PUBACK for; the same words in a new message are a new command."""
    payload = {"id": ID, "fields": {"Phone": "2"}}
    await bench.give("update", payload, packet_id=7)
    await bench.give("update", payload, packet_id=7, duplicate=True)
    await bench.give("update", payload, packet_id=8)
    stored = await bench.database.run(lambda unit: unit.commands(None, 10))
    assert len(stored) == 2


async def test_commands_on_one_record_keep_their_order_and_do_not_conflict_with_each_other(bench: Bench) -> None:
    """The second has seen what the first writes; the replica has not, yet."""
    await bench.give("update", update("a", Phone="2"))
    await bench.give("update", update("b", Phone="3"))
    await bench.send_all()
    assert [w.fields["Phone"] for w in bench.org.writes] == ["2", "3"]
    assert (await bench.command("b")).status is CommandStatus.SUCCEEDED


async def test_somebody_else_changed_the_field_since(bench: Bench) -> None:
    """412, then the record itself: a conflict names base, local and remote."""
    bench.org.answers.append(WriteOutcome(None, (OrgProblem(code="X", message="", fields=[]),), status=412))
    bench.org.rows[ID] = {**VALUES, "Phone": "9", "at": SECOND_MS + 5000}
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    done = await bench.command("a")
    assert done.status is CommandStatus.CONFLICT
    assert done.conflict == {"Phone": {"base": "1", "local": "2", "remote": "9"}}


async def test_somebody_else_changed_another_field_since(bench: Bench) -> None:
    """412, then merged: ours goes with the new guard."""
    bench.org.answers.append(WriteOutcome(None, (OrgProblem(code="X", message="", fields=[]),), status=412))
    bench.org.rows[ID] = {**VALUES, "Email": "a@b.example", "at": SECOND_MS + 5000}
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    assert bench.org.writes[1].if_unmodified_since_ms == SECOND_MS + 5000
    assert (await bench.command("a")).status is CommandStatus.SUCCEEDED


async def test_base_version_is_a_number_of_any_size(bench: Bench) -> None:
    """One that was never given out, or that no database can hold, is as good as the newest."""
    for command_id, version in (("float", 1.0), ("many", 2**63), ("most", 2**64 - 1), ("more", 1e300)):
        await bench.store(VALUES, 1)
        await bench.give("update", update(command_id, Phone="2") | {"base": {"version": version}})
        assert (await bench.command(command_id)).status is CommandStatus.ACCEPTED


async def test_base_version_is_what_the_sender_had_seen(bench: Bench) -> None:
    """A change after it, of the same field, is a conflict at no API call."""
    change = Change(
        object="Contact", id=ID, operation=Operation.UPDATE, changed=("Phone",), before={"Phone": "0"},
        after={"Phone": "1"}, record=VALUES, origin=Origin.STREAM, command_id=None,
        commit=CommitInfo(SECOND_MS), applied_ms=SECOND_MS,
    )  # fmt: skip
    version = await bench.database.run(lambda unit: unit.append([change]))
    await bench.store(VALUES, version)
    await bench.give("update", update("old", Phone="2") | {"base": {"version": version - 1}})
    await bench.give("update", update("new", Phone="2") | {"base": {"version": version}})
    await bench.send_all()
    assert (await bench.command("old")).conflict == {"Phone": {"base": "0", "local": "2", "remote": "1"}}
    assert (await bench.command("new")).status is CommandStatus.SUCCEEDED


async def test_a_refusal_is_final_and_carries_the_orgs_words(bench: Bench) -> None:
    """`failed`, with code, message and fields."""
    problem = OrgProblem(code="FIELD_CUSTOM_VALIDATION_EXCEPTION", message="no", fields=["Phone"])
    bench.org.answers.append(WriteOutcome(None, (problem,), status=400))
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    assert (await bench.command("a")).errors == (problem,)
    assert (await bench.command("a")).status is CommandStatus.FAILED


async def test_temporary_trouble_is_retried_and_keeps_the_order(bench: Bench) -> None:
    """The second command on the record waits for the first one's retry."""
    bench.org.answers.append(RowLocked("locked"))
    await bench.give("update", update("a", Phone="2"))
    await bench.give("update", update("b", Phone="3"))
    await bench.send_all()
    assert len(bench.org.writes) == 1
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert [w.fields["Phone"] for w in bench.org.writes] == ["2", "2", "3"]
    assert (await bench.command("a")).attempts == 2


async def test_a_spent_budget_holds_every_command(bench: Bench) -> None:
    """No other command would fare better."""
    bench.org.answers.append(OrgThrottled("quota", retry_after_s=30))
    await bench.give("create", {"command_id": "a", "fields": {"LastName": "A"}})
    writer = bench.writer(parallel=1)
    job = asyncio.create_task(writer.run())

    async def held() -> bool:
        return (await bench.command("a")).retry_ms is not None

    await until(held)
    await bench.give("create", {"command_id": "b", "fields": {"LastName": "B"}})
    writer.wake()
    writer.drain()
    await job
    assert len(bench.org.writes) == 1
    assert (await bench.command("a")).retry_ms == bench.now_ms + 30_000
    assert (await bench.command("b")).attempts == 0


async def test_a_clock_that_is_set_back_prolongs_no_wait(bench: Bench) -> None:
    """A wait of half a minute does not become one of an hour, for the command that failed nor for the others."""
    bench.org.answers.append(OrgThrottled("quota", retry_after_s=30))
    await bench.give("create", {"command_id": "a", "fields": {"LastName": "A"}})
    writer = bench.writer(parallel=1)
    job = asyncio.create_task(writer.run())

    async def held() -> bool:
        return (await bench.command("a")).retry_ms is not None

    await until(held)
    bench.ahead_ms -= 3_600_000
    await bench.give("create", {"command_id": "b", "fields": {"LastName": "B"}})
    writer.wake()

    async def sent() -> bool:
        return all([(await bench.command(c)).status is CommandStatus.SUCCEEDED for c in ("a", "b")])

    await until(sent)
    writer.drain()
    await job


async def test_a_retry_that_a_fast_clock_had_set_is_not_waited_for(bench: Bench) -> None:
    """The clock was hours ahead when the retry was set, and not when the command was sent."""
    bench.org.answers.append(RowLocked("locked"))
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    ahead = replace(await bench.command("a"), retry_ms=bench.now_ms + 7 * 3_600_000)
    await bench.database.run(lambda unit: unit.update_command(ahead))
    writer = bench.writer()
    job = asyncio.create_task(writer.run())

    async def sent() -> bool:
        return (await bench.command("a")).status is CommandStatus.SUCCEEDED

    await until(sent)
    writer.drain()
    await job


async def test_while_it_runs_a_clock_that_is_set_back_frees_every_retry(bench: Bench) -> None:
    """However little it was set back: the wait was meant by the other clock."""
    writer = bench.writer()
    job = asyncio.create_task(writer.run())
    bench.org.answers.append(RowLocked("locked", retry_after_s=600))
    await bench.give("update", update("a", Phone="2"))
    writer.wake()

    async def waits() -> bool:
        return (await bench.command("a")).retry_ms is not None

    async def sent() -> bool:
        return (await bench.command("a")).status is CommandStatus.SUCCEEDED

    await until(waits)
    bench.ahead_ms -= 1000
    writer.wake()
    await until(sent)
    writer.drain()
    await job


async def test_a_clock_that_is_set_back_prolongs_no_settling(bench: Bench) -> None:
    """A lost create is repeated once it had its time to appear, counted from when the clock was set back."""
    await lost_create(bench)
    bench.ahead_ms -= 3 * 3_600_000
    await bench.send_all()  # frees the retry
    await bench.send_all()
    assert (await bench.command("a")).status is CommandStatus.ACCEPTED
    bench.org.now_ms += 10 * 60_000
    await bench.send_all()
    assert (await bench.command("a")).status is CommandStatus.SUCCEEDED
    assert len(bench.org.writes) == 2


async def test_nothing_is_sent_before_the_org_has_told_its_clock(bench: Bench) -> None:
    """How long ago a lost write was sent must be told by the org's clock: ours may be hours ahead."""
    bench.org.clock_told = False
    bench.org.unheard.append(OrgUnavailable("down"))
    bench.ahead_ms = 7 * 3_600_000
    await bench.give("create", {"command_id": "a", "fields": {"LastName": "A"}})
    await bench.send_all()
    waits = await bench.command("a")
    assert (waits.status, waits.attempts, waits.answer_lost) == (CommandStatus.ACCEPTED, 0, False)
    bench.org.now_ms += 60_000
    bench.org.answers.append(LinkDown("lost"))
    await bench.send_all()
    assert (await bench.command("a")).began_ms == bench.org.now_ms
    bench.ahead_ms = 0
    await bench.send_all()  # frees the retry
    bench.org.found = ({"Id": NEW_ID, "LastName": "A"},)
    await bench.send_all()
    assert (await bench.command("a")).record_id == NEW_ID
    assert len(bench.org.writes) == 1


async def test_the_lost_answer_of_an_update_is_settled_by_reading(bench: Bench) -> None:
    """The org had taken it: `succeeded`, without a second write."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    bench.org.rows[ID] = {**VALUES, "Phone": "2", "at": SECOND_MS + 5000}
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert len(bench.org.writes) == 1
    assert (await bench.command("a")).status is CommandStatus.SUCCEEDED


async def test_a_lost_create_is_found_by_what_it_wrote(bench: Bench) -> None:
    """One record of our user, of that time, with these fields: ours. No second call."""
    await lost_create(bench)
    bench.org.found = ({"Id": NEW_ID, "LastName": "O'Hara"}, {"Id": OTHER_ID, "LastName": "Else"})
    await bench.send_all()
    assert len(bench.org.writes) == 1
    done = await bench.command("a")
    assert (done.status, done.record_id) == (CommandStatus.SUCCEEDED, NEW_ID)
    assert f"CreatedById = '{US}'" in bench.org.queries[0]


async def test_a_lost_create_that_is_not_there_waits_and_is_repeated(bench: Bench) -> None:
    """A request may run ten minutes in the org; then nothing of it can appear any more."""
    await lost_create(bench)
    await bench.send_all()
    assert (await bench.command("a")).status is CommandStatus.ACCEPTED
    bench.org.now_ms += 10 * 60_000
    await bench.send_all()
    assert len(bench.org.writes) == 2
    done = await bench.command("a")
    assert (done.status, done.attempts) == (CommandStatus.SUCCEEDED, 2)


@pytest.mark.parametrize(
    "found",
    [
        ({"Id": NEW_ID, "LastName": "O'Hara"}, {"Id": OTHER_ID, "LastName": "O'Hara"}),
        ({"Id": NEW_ID, "LastName": "O'HARA of a trigger"},),
    ],
)
async def test_a_lost_create_that_cannot_be_told_is_unknown(bench: Bench, found: Sequence[Mapping[str, Any]]) -> None:
    """Several records fit, or one of ours that no command accounts for: a repetition could be a second record."""
    await lost_create(bench)
    bench.org.found = found
    await bench.send_all()
    assert (await bench.command("a")).status is CommandStatus.ACCEPTED
    bench.org.now_ms += 10 * 60_000
    await bench.send_all()
    assert len(bench.org.writes) == 1
    assert (await bench.command("a")).status is CommandStatus.UNKNOWN


async def test_equal_creates_take_a_record_each(bench: Bench) -> None:
    """Two lost creates with the same content and two records: which is whose does not matter."""
    await lost_create(bench, "Twin", "a")
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("create", {"command_id": "b", "fields": {"LastName": "Twin"}})
    bench.org.found = ({"Id": NEW_ID, "LastName": "Twin"}, {"Id": OTHER_ID, "LastName": "Twin"})
    await bench.send_all()
    bench.org.now_ms += 60_000
    await bench.send_all()
    both = [await bench.command("a"), await bench.command("b")]
    assert {c.record_id for c in both} == {NEW_ID, OTHER_ID}
    assert {c.status for c in both} == {CommandStatus.SUCCEEDED}


async def test_a_lost_create_that_expires_may_have_been_taken(bench: Bench) -> None:
    """`expired` would say that it was not."""
    bench.org.answers.append(LinkDown("lost"))
    late = {"command_id": "a", "fields": {"LastName": "A"}, "expires_at": "2026-01-01T12:03:00Z"}
    await bench.give("create", late)
    await bench.send_all()
    bench.org.now_ms += 120_000
    await bench.send_all()
    assert (await bench.command("a")).status is CommandStatus.UNKNOWN


async def test_what_was_under_way_when_the_process_died_counts_as_lost(tmp_path: Path) -> None:
    """SENDING on disk at start: the org is asked before anything is repeated."""
    async with opened(tmp_path) as bench:
        await bench.give("create", {"command_id": "a", "fields": {"LastName": "A"}})

        def died(unit: Unit) -> None:
            (command,) = unit.next_commands(bench.now_ms, 1)
            unit.update_command(replace(command, status=CommandStatus.SENDING, attempts=1))

        await bench.database.run(died)
        bench.org.found = ({"Id": NEW_ID, "LastName": "A"},)
        await bench.send_all()
        assert bench.org.writes == []
        assert (await bench.command("a")).record_id == NEW_ID


async def test_delete_of_what_is_deleted_succeeds(bench: Bench) -> None:
    """The wanted state is there."""
    gone = OrgProblem(code="ENTITY_IS_DELETED", message="entity is deleted", fields=[])
    bench.org.answers.append(WriteOutcome(None, (gone,), status=404))
    await bench.give("delete", {"command_id": "a", "id": ID})
    await bench.send_all()
    assert (await bench.command("a")).status is CommandStatus.SUCCEEDED


async def test_an_expired_command_is_given_up(bench: Bench) -> None:
    """Only commands with `expires_at` are given up on by time."""
    await bench.give("update", update("a", Phone="2") | {"expires_at": "2020-01-01T00:00:00Z"})
    await bench.send_all()
    assert bench.org.writes == []
    assert (await bench.command("a")).status is CommandStatus.EXPIRED


@pytest.mark.parametrize(
    ("payload", "delivery", "topic", "told"),
    [
        (b"{", {}, "r/rejected", "not JSON"),
        (b"{", {"response_topic": "me/inbox"}, "me/inbox", "not JSON"),
        ({"command_id": "a", "fields": {"Nope": 1}, "id": ID}, {}, "r/result/a", "no such field"),
        ({"command_id": "a/b", "id": ID}, {}, "r/rejected", "command_id"),
        (update("a", Phone="2"), {"retained": True}, "r/rejected", "retained"),
        (update("a", Phone="2"), {"response_topic": "r/result/x"}, "r/rejected", "reply address"),
        (update("a", Phone="2"), {"object_name": "Case"}, "r/result/a", "not a synced object"),
        (b"x" * 20_000, {}, "r/rejected", "at most 10000"),
    ],
)
async def test_what_is_not_acceptable_is_told_and_nothing_else_happens(
    bench: Bench, payload: object, delivery: Mapping[str, Any], topic: str, told: str
) -> None:
    """`rejected` to the sender where there is an address, on the rejected topic where there is none."""
    await bench.give("update", payload, **delivery)
    await bench.send_all()
    bodies = dict(await bench.messages())
    assert told in json.dumps(bodies[topic])
    assert bench.org.writes == []
    assert await bench.database.run(lambda unit: unit.next_commands(bench.now_ms, 1)) == []
