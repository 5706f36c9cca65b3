"""Many commands at once: what goes together, what waits for what, and whose fault a refusal is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from connector.errors import LinkDown, OrgUnavailable, RowLocked, TransientError
from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.codes import HALTED, MODIFIED
from connector.model.command import CommandStatus, OrgProblem
from connector.model.ids import RecordId
from connector.outbound import writer
from connector.ports import RecordWrite, WriteOutcome
from tests.commands import ID, NEW_ID, SECOND_MS, VALUES, Bench, lost_create, opened, update

SUCCEEDED = CommandStatus.SUCCEEDED


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as made:
        yield made


def create(command_id: str, **fields: Any) -> dict[str, Any]:
    return {"command_id": command_id, "fields": {"LastName": command_id, **fields}}


def refusal(code: str, status: int = 400, message: str = "") -> WriteOutcome:
    return WriteOutcome(None, (OrgProblem(code=code, message=message, fields=[]),), status=status)


async def statuses(bench: Bench, *command_ids: str) -> list[CommandStatus]:
    return [(await bench.command(command_id)).status for command_id in command_ids]


async def test_what_waits_goes_together(bench: Bench) -> None:
    """One call for whatever mixture there is; one alone is a row call."""
    for name in "abc":
        await bench.give("create", create(name))
    await bench.give("update", update("d", Phone="2"))
    await bench.send_all()
    assert bench.org.batches == [4]
    await bench.give("create", create("e"))
    await bench.send_all()
    assert bench.org.batches == [4]
    assert len(bench.org.writes) == 5


async def test_a_refused_one_touches_no_other(bench: Bench) -> None:
    """Each of a batch has its own answer, and its own retry."""
    bench.org.answers.extend(
        [
            WriteOutcome(RecordId(NEW_ID)),
            refusal("REQUIRED_FIELD_MISSING"),
            refusal("UNABLE_TO_LOCK_ROW"),
            LinkDown("lost"),
        ]
    )
    for name in "abcd":
        await bench.give("create", create(name))
    await bench.send_all()
    wait, failed = CommandStatus.ACCEPTED, CommandStatus.FAILED
    assert await statuses(bench, *"abcd") == [SUCCEEDED, failed, wait, wait]
    assert [(await bench.command(c)).answer_lost for c in "cd"] == [False, True]


async def test_a_failing_command_holds_up_its_own_record_alone(bench: Bench) -> None:
    """A lock is no reason for other records to wait."""
    bench.org.answers.append(RowLocked("locked"))
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    await bench.give("update", update("b", Phone="3"))
    await bench.give("create", create("c"))
    await bench.send_all()
    assert await statuses(bench, "b", "c") == [CommandStatus.ACCEPTED, SUCCEEDED]


async def test_an_org_that_is_down_is_tried_by_one_batch(bench: Bench) -> None:
    """No other command would fare better: everything waits, and goes together again."""
    bench.org.answers.extend([OrgUnavailable("503")] * 2)
    await bench.give("create", create("a"))
    await bench.give("create", create("b"))
    await bench.send_all()
    assert len(bench.org.writes) == 2
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert bench.org.batches == [2, 2]
    assert await statuses(bench, "a", "b") == [SUCCEEDED, SUCCEEDED]


async def test_waiting_edits_of_different_fields_are_one_write(bench: Bench) -> None:
    """Nothing is lost by it, and each is answered."""
    await bench.give("update", update("a", Phone="2"))
    await bench.give("update", update("b", Email="a@b.example"))
    await bench.give("update", update("c", Phone="2", FirstName="Jane"))
    await bench.send_all()
    (write,) = bench.org.writes
    assert write.fields == {"Phone": "2", "Email": "a@b.example", "FirstName": "Jane"}
    assert await statuses(bench, *"abc") == [SUCCEEDED] * 3
    assert [(await bench.command(c)).carried_by for c in "abc"] == ["c", "c", None]
    assert (await bench.command("c")).sent == write.fields


async def test_edits_that_would_hide_each_other_are_not_merged(bench: Bench) -> None:
    """Two values of one field: triggers and history of the org are to see both. A delete ends it as well."""
    await bench.give("update", update("a", Phone="2"))
    await bench.give("update", update("b", Phone="3"))
    await bench.give("delete", {"command_id": "c", "id": ID})
    await bench.send_all()
    assert [w.fields for w in bench.org.writes] == [{"Phone": "2"}, {"Phone": "3"}, {}]
    assert await statuses(bench, *"abc") == [SUCCEEDED] * 3


async def test_merged_edits_that_are_refused_are_tried_apart(bench: Bench) -> None:
    """So that each gets its own answer, and the good one its effect."""
    bench.org.answers.extend([refusal("FIELD_CUSTOM_VALIDATION_EXCEPTION")] * 2)
    await bench.give("update", update("a", Phone="2"))
    await bench.give("update", update("b", Email="a@b.example"))
    await bench.send_all()
    assert [dict(w.fields) for w in bench.org.writes] == [
        {"Phone": "2", "Email": "a@b.example"}, {"Phone": "2"}, {"Email": "a@b.example"},
    ]  # fmt: skip
    assert await statuses(bench, "a", "b") == [CommandStatus.FAILED, SUCCEEDED]


async def test_neighbours_of_a_changed_record_go_again_at_once(bench: Bench) -> None:
    """The record that changed is read and decided anew; the others are written without it."""
    bench.org.answers.extend([refusal(HALTED, 424), refusal(MODIFIED, 412)])
    bench.org.rows[ID] = {**VALUES, "Email": "new@b.example", "at": SECOND_MS + 5000}
    await bench.give("create", create("a"))
    await bench.give("update", update("b", Phone="2"))
    await bench.send_all()
    assert await statuses(bench, "a", "b") == [SUCCEEDED, SUCCEEDED]
    assert (await bench.command("a")).attempts == 2


async def test_an_edit_follows_the_create_of_its_record(bench: Bench) -> None:
    """Named by the command that makes it: the id is not known yet. Order is kept with edits by id, too."""
    await bench.give("create", create("new", Phone="1"))
    await bench.give("update", {"command_id": "first", "record_of": "new", "fields": {"Phone": "2"}})
    await bench.give("update", {"command_id": "second", "record_of": "new", "fields": {"Phone": "3"}})
    await bench.send_all()
    creating, first, second = bench.org.writes
    assert creating.operation == "create"
    assert (first.record_id, dict(first.fields)) == (NEW_ID, {"Phone": "2"})
    assert (second.record_id, dict(second.fields)) == (NEW_ID, {"Phone": "3"})


async def test_an_edit_of_a_record_that_was_not_made_fails(bench: Bench) -> None:
    """There is nothing that it could be an edit of."""
    bench.org.answers.append(refusal("REQUIRED_FIELD_MISSING"))
    await bench.give("create", create("new"))
    await bench.give("update", {"command_id": "edit", "record_of": "new", "fields": {"Phone": "2"}})
    await bench.send_all()
    assert len(bench.org.writes) == 1
    assert (await bench.command("edit")).errors[0]["code"] == "RECORD_NOT_MADE"
    await bench.give("update", {"command_id": "late", "record_of": "new", "fields": {"Phone": "2"}})
    assert (await bench.command("late")).status is CommandStatus.REJECTED


async def test_an_upsert_waits_for_what_has_its_key(tmp_path: Path) -> None:
    """A create with an external id, then upserts by it: one record, written in order."""
    async with opened(tmp_path, external_id="LastName", as_external_id="LastName") as bench:
        await bench.give("create", {"command_id": "key-1", "fields": {"Phone": "1"}})
        key = {"field": "LastName", "value": "KEY-1"}
        await bench.give("upsert", {"command_id": "b", "external_id": key, "fields": {"Phone": "2"}})
        await bench.give("upsert", {"command_id": "c", "external_id": key, "fields": {"Phone": "3"}})
        await bench.send_all()
        assert [w.operation for w in bench.org.writes] == ["create", "update", "update"]
        assert [w.record_id for w in bench.org.writes[1:]] == [NEW_ID, NEW_ID]


async def test_a_taken_key_on_a_repeated_create_is_looked_at(tmp_path: Path) -> None:
    """DUPLICATE_VALUE after a lost answer: our own record is the success, anybody else's the refusal."""
    async with opened(tmp_path, external_id="LastName", as_external_id="LastName") as bench:
        await lost_create(bench, "mine", "a")
        bench.org.answers.append(refusal("DUPLICATE_VALUE"))
        created = {"CreatedById": "0055f000007NnAbAAK", "CreatedDate": "2026-01-01T12:02:00.000+0000"}
        bench.org.later = [{"Id": NEW_ID, "LastName": "mine", **created}]
        await bench.send_all()
        done = await bench.command("a")
        assert (done.status, done.record_id) == (SUCCEEDED, NEW_ID)
        await lost_create(bench, "theirs", "b")
        bench.org.found = [{"Id": NEW_ID, "LastName": "theirs", **created, "CreatedById": "0055f000007NnAcAAK"}]
        await bench.send_all()
        assert (await bench.command("b")).errors[0]["code"] == "DUPLICATE_VALUE"


async def test_the_orgs_own_failure_is_not_tried_for_ever(bench: Bench) -> None:
    """UNKNOWN_EXCEPTION on one record, again and again: its own fault."""
    bench.org.answers.extend([refusal("UNKNOWN_EXCEPTION", 500)] * 10)
    bench.org.rows[ID] = {**VALUES, "at": SECOND_MS}
    await bench.give("update", update("a", Phone="2"))
    for _ in range(12):
        await bench.send_all()
        bench.org.now_ms += 120_000
    assert (await bench.command("a")).status is CommandStatus.FAILED
    assert len(bench.org.writes) == 10


async def test_what_a_trigger_makes_of_our_write_is_no_conflict(bench: Bench) -> None:
    """The org says that our user was the last to modify the record: nobody else has touched it."""
    await bench.give("update", update("a", Phone="2"))
    await bench.give("update", update("b", Phone="3"))
    bench.org.answers.extend([WriteOutcome(ID, server_ms=SECOND_MS + 119_000), refusal(MODIFIED, 412)])
    bench.org.rows[ID] = {**VALUES, "Phone": "(2)", "at": SECOND_MS + 119_000, "LastModifiedById": "0055f000007NnAbAAK"}
    await bench.send_all()
    assert (await bench.command("b")).status is SUCCEEDED
    assert dict(bench.org.writes[-1].fields) == {"Phone": "3"}


async def test_an_edit_between_two_of_our_writes_is_somebodys(bench: Bench) -> None:
    """Our user was the last to modify the record, but what it wrote last was another field."""
    bench.org.answers.append(WriteOutcome(ID, server_ms=SECOND_MS + 119_000))
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    await bench.give("update", update("b", LastName="Ours") | {"on_conflict": "overwrite"})
    await bench.give("update", update("c", Phone="3", LastName="Last"))
    bench.org.answers.extend([WriteOutcome(ID, server_ms=SECOND_MS + 119_000), refusal(MODIFIED, 412)])
    left = {"Phone": "9", "LastName": "OURS", "at": SECOND_MS + 119_000, "LastModifiedById": "0055f000007NnAbAAK"}
    bench.org.rows[ID] = {**VALUES, **left}
    await bench.send_all()
    assert await statuses(bench, "a", "b", "c") == [SUCCEEDED, SUCCEEDED, CommandStatus.CONFLICT]
    assert (await bench.command("c")).conflict == {"Phone": {"base": "2", "local": "3", "remote": "9"}}


async def test_an_expired_command_is_answered_in_time(bench: Bench) -> None:
    """Even behind one that waits for its retry, and only one that has not been tried: it may have been taken."""
    bench.org.answers.append(RowLocked("locked", retry_after_s=3000))
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    await bench.give("update", update("b", Phone="3") | {"expires_at": "2026-01-01T12:02:30Z"})
    bench.org.now_ms += 60_000
    await bench.send_all()
    assert await statuses(bench, "a", "b") == [CommandStatus.ACCEPTED, CommandStatus.EXPIRED]


@pytest.mark.parametrize(
    ("phone", "modified_s", "later_s", "told"),
    [
        ("2", 110, 120, SUCCEEDED),
        ("1", 100, 700, CommandStatus.EXPIRED),
        ("1", 100, 120, CommandStatus.UNKNOWN),
        ("9", 130, 700, CommandStatus.UNKNOWN),
    ],
)
@pytest.mark.parametrize("operation", ["update", "delete"])
async def test_a_lost_write_that_expires_is_compared_first(
    bench: Bench, operation: str, phone: str, modified_s: int, later_s: int, told: CommandStatus
) -> None:
    """It is there: `succeeded`. The record is as before, and was edited 20 s before: `expired`.

    The request may still be under way in the org, or somebody wrote since: who knows.
    """
    wanted = {"command_id": "a", "id": ID} if operation == "delete" else update("a", Phone="2")
    bench.org.answers.append(LinkDown("lost"))
    await bench.give(operation, wanted | {"expires_at": "2026-01-01T12:02:30Z", "on_conflict": "overwrite"})
    await bench.send_all()
    if told is SUCCEEDED and operation == "delete":
        bench.org.rows.pop(ID, None)
    else:
        bench.org.rows[ID] = {**VALUES, "Phone": phone, "at": SECOND_MS + modified_s * 1000}
    bench.org.now_ms += later_s * 1000
    await bench.send_all()
    assert await statuses(bench, "a") == [told]


async def test_a_lost_write_that_expires_may_have_come_before_its_record_went(bench: Bench) -> None:
    """Deleted since by whomever, the record does not tell; one that was never sent was never taken."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("update", update("a", Phone="2") | {"expires_at": "2026-01-01T12:02:30Z"})
    await bench.send_all()
    bench.org.rows.pop(ID, None)
    bench.org.now_ms += 120_000
    await bench.send_all()
    assert await statuses(bench, "a") == [CommandStatus.UNKNOWN]


async def test_a_delete_takes_no_edit_with_it_that_its_sender_had_not_seen(bench: Bench) -> None:
    """A record that was changed since is a conflict, unless the sender says overwrite."""
    bench.org.answers.append(refusal(MODIFIED, 412))
    bench.org.rows[ID] = {**VALUES, "Phone": "9", "at": SECOND_MS + 5000}
    await bench.give("delete", {"command_id": "a", "id": ID})
    await bench.give("delete", {"command_id": "b", "id": ID, "on_conflict": "overwrite"})
    await bench.send_all()
    assert (await bench.command("a")).conflict == {"Phone": {"base": "1", "local": None, "remote": "9"}}
    assert (await bench.command("b")).status is SUCCEEDED
    assert bench.org.writes[-1].only_if is None


async def test_a_dry_run_tells_and_does_nothing(bench: Bench) -> None:
    """What would be sent, whether it would be accepted, and no trace."""
    await bench.give("update", update("a", Phone="2", LastName="Doe") | {"dry_run": True})
    await bench.give("update", update("b", Nope="2") | {"dry_run": True})
    await bench.give("update", update("c", Phone="1") | {"dry_run": True})
    await bench.give("create", create("d") | {"dry_run": True})
    told = {topic.rpartition("/")[2]: body for topic, body in await bench.messages()}
    sends = {"sends": True, "operation": "update", "id": ID, "external_id": None, "fields": {"Phone": "2"}}
    assert (told["a"]["status"], told["a"]["dry_run"]) == ("accepted", sends)
    assert (told["b"]["status"], told["b"]["dry_run"]["sends"]) == ("rejected", False)
    assert (told["c"]["status"], told["c"]["dry_run"]["sends"]) == ("accepted", False)
    assert told["d"]["dry_run"]["fields"] == {"LastName": "d"}
    assert await bench.database.run(lambda unit: unit.commands(None, 10)) == []
    assert bench.org.writes == []


async def test_a_dry_run_tells_a_conflict(bench: Bench) -> None:
    """As far as the replica knows of it: what somebody changed behind the state that the sender names."""
    change = Change(
        object="Contact", id=ID, operation=Operation.UPDATE, changed=("Phone",), before={"Phone": "0"},
        after={"Phone": "1"}, record=VALUES, origin=Origin.STREAM, command_id=None,
        commit=CommitInfo(SECOND_MS), applied_ms=SECOND_MS,
    )  # fmt: skip
    version = await bench.database.run(lambda unit: unit.append([change]))
    await bench.store(VALUES, version)
    await bench.give("update", update("a", Phone="2") | {"base": {"version": version - 1}, "dry_run": True})
    await bench.database.run(lambda unit: unit.mark_published(version, SECOND_MS))
    ((_, told),) = await bench.messages()
    assert (told["status"], told["dry_run"]["sends"]) == ("conflict", False)
    assert told["conflict"] == {"Phone": {"base": "0", "local": "2", "remote": "1"}}
    assert bench.org.writes == []


async def test_waits_grow_with_chance_in_them_up_to_the_longest(bench: Bench) -> None:
    """From a second on, doubled each time, between half of that and all of it; never more than `backoff_max`."""
    await bench.give("update", update("a", Phone="2"))
    parts = []
    for attempt in range(1, 13):
        bench.org.answers.append(RowLocked("locked"))
        await bench.send_all()
        command = await bench.command("a")
        assert (command.attempts, command.status) == (attempt, CommandStatus.ACCEPTED)
        assert command.retry_ms is not None
        parts.append((command.retry_ms - bench.now_ms) / min(60_000, 500 * 2**attempt))
        bench.org.now_ms = command.retry_ms
    assert all(0.49 <= part <= 1.0 for part in parts)
    await bench.send_all()
    assert (await bench.command("a")).status is SUCCEEDED


async def test_calls_under_way_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four at a time, however much waits."""
    monkeypatch.setattr(writer, "MOST_TAKEN", 2)
    under_way, most = 0, 0
    write_many = bench.org.write_many

    async def slowly(writes: Sequence[RecordWrite]) -> Sequence[WriteOutcome | TransientError]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return await write_many(writes)

    bench.org.write_many = slowly  # type: ignore[method-assign]
    for number in range(40):
        await bench.give("create", create(f"c{number}"))
    await bench.send_all()
    assert (most, len(bench.org.writes), len(bench.org.batches)) == (4, 40, 20)


@pytest.mark.parametrize(
    ("limits", "operation", "setting"),
    [
        ({"per_minute": 2}, "create", "commands.per_minute = 2"),
        ({"deletes_per_hour": 2}, "delete", "commands.deletes_per_hour = 2"),
    ],
)
async def test_limits_refuse_and_say_when_it_goes_on(
    tmp_path: Path, limits: dict[str, int], operation: str, setting: str
) -> None:
    """Per object, counted by what was accepted; what comes later is taken again."""
    async with opened(tmp_path, limits=limits) as bench:

        def payload(name: str) -> dict[str, Any]:
            return create(name) if operation == "create" else {"command_id": name, "id": ID}

        for name in "abc":
            await bench.give(operation, payload(name))
        assert await statuses(bench, *"abc") == [CommandStatus.ACCEPTED] * 2 + [CommandStatus.REJECTED]
        message = (await bench.command("c")).errors[0]["message"]
        assert setting in message
        assert "try after 2026-01-01T1" in message
        bench.org.now_ms += 3_600_000
        await bench.give(operation, payload("d"))
        assert (await bench.command("d")).status is CommandStatus.ACCEPTED
