"""The queue of commands."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from connector.model.change import Operation, Origin
from connector.model.command import Command, CommandStatus, ConflictPolicy, command_key, external_key
from connector.store import Session
from connector.store.queries import load
from tests.store_nouns import NOW_MS, change, command, record_id


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        yield opened


def add(session: Session, *commands: Command) -> None:
    assert session.run(lambda unit: [unit.add_command(c) for c in commands]) == [None] * len(commands)


def next_ids(session: Session, now_ms: int = NOW_MS, limit: int = 10) -> list[str]:
    return [c.command_id for c in session.run(lambda unit: unit.next_commands(now_ms, limit))]


def test_a_command_comes_back_as_it_was_stored(session: Session) -> None:
    """Every member, in its first state and in its last."""
    first = command(
        "c1",
        operation=Operation.UPSERT,
        record_id=None,
        external_id=("Key__c", "crm/77"),
        base=None,
        on_conflict=ConflictPolicy.REJECT,
        expires_ms=NOW_MS + 5,
        correlation_data=b"\x00\xff",
        delivery_key="7:abc",
        record_of="c0",
        base_seq=4,
    )
    add(session, first)
    assert session.run(lambda unit: unit.command("c1")) == replace(first, seq=1)
    last = replace(
        first,
        seq=1,
        record_id=record_id(5),
        status=CommandStatus.CONFLICT,
        attempts=2,
        answer_lost=True,
        errors=({"code": "X", "message": "no", "fields": ["Name"]},),
        conflict={"Name": {"base": None, "local": "a", "remote": "b"}},
        sent={"Name": "a"},
        carried_by="c2",
        base={"Name": "b"},
        sent_ms=NOW_MS + 1,
        written_ms=NOW_MS + 1000,
        retry_ms=NOW_MS + 2,
        completed_ms=NOW_MS + 3,
    )
    session.run(lambda unit: unit.update_command(last))
    assert session.run(lambda unit: unit.command("c1")) == last
    with pytest.raises(LookupError):
        session.run(lambda unit: unit.update_command(command("unknown")))


def test_a_known_id_is_not_stored_again(session: Session) -> None:
    """The idempotency key: the stored command comes back, the new one leaves no trace."""
    add(session, command("c1"))
    known = session.run(lambda unit: unit.add_command(command("c1", fields={"Name": "other"}, sender="else")))
    assert known == replace(command("c1"), seq=1)
    assert len(session.run(lambda unit: unit.commands(None, 10))) == 1


def test_commands_on_one_record_wait_for_each_other(session: Session) -> None:
    """In the order of arrival, whatever holds the first one up; other records do not wait, nor do creates."""
    add(
        session,
        command("a1"),
        command("a2"),
        command("b1", record_id=record_id(2), retry_ms=NOW_MS + 1),
        command("b2", record_id=record_id(2)),
        command("n1", operation=Operation.CREATE, record_id=None),
        command("n2", operation=Operation.CREATE, record_id=None),
        command("u1", operation=Operation.UPSERT, record_id=None, external_id=("Key__c", "x")),
        command("u2", operation=Operation.UPSERT, record_id=None, external_id=("Key__c", "x")),
        command("u3", operation=Operation.UPSERT, record_id=None, external_id=("Key__c", "y")),
    )
    assert next_ids(session) == ["a1", "n1", "n2", "u1", "u3"]
    assert next_ids(session, limit=2) == ["a1", "n1"]
    session.run(lambda unit: unit.update_command(command("a1", status=CommandStatus.SENDING)))
    assert "a2" not in next_ids(session)
    session.run(lambda unit: unit.update_command(command("a1", status=CommandStatus.FAILED)))
    assert next_ids(session, NOW_MS + 1) == ["a2", "b1", "n1", "n2", "u1", "u3"]
    assert session.run(lambda unit: unit.queue_depths())["commands"] == 8


def test_what_a_command_waits_for_has_many_names(session: Session) -> None:
    """An external id, the command that makes the record, and its id once that is known: one record, one order."""
    key = external_key("Widget__c", "Key__c", "crm-7")
    make = command("make", operation=Operation.CREATE, record_id=None)
    session.run(lambda unit: unit.add_command(make, [key]))
    by_key = command("by_key", operation=Operation.UPSERT, record_id=None, external_id=("key__c", " CRM-7 "))
    by_command = command("by_command", record_id=None, record_of="make")
    assert session.run(lambda unit: unit.first_open(by_key)) == 1
    assert session.run(lambda unit: unit.first_open(by_command)) == 1
    assert session.run(lambda unit: unit.first_open(command("free", record_id=record_id(9)))) is None
    add(session, by_key, by_command)
    assert next_ids(session) == ["make"]
    made = replace(make, seq=1, status=CommandStatus.SUCCEEDED, record_id=record_id(9), completed_ms=NOW_MS)
    session.run(lambda unit: unit.update_command(made))
    add(session, command("by_id", record_id=record_id(9)))
    assert next_ids(session) == ["by_key"]
    for name in (key, command_key("make")):
        assert session.run(lambda unit, name=name: unit.record_by_key("Widget__c", name)) == record_id(9)  # type: ignore[misc] # bound at once
    assert session.run(lambda unit: unit.record_by_key("Widget__c", "nobody")) is None


def test_an_expired_command_waits_for_nothing(session: Session) -> None:
    """It is answered in time, whatever it stands behind."""
    add(session, command("first", retry_ms=NOW_MS + 9000), command("late", expires_ms=NOW_MS + 5))
    assert next_ids(session) == []
    assert next_ids(session, NOW_MS + 5) == ["late"]


def test_a_retry_does_not_wait_for_a_clock_that_was_set_back(session: Session) -> None:
    """It was to wait for seconds, not for the hours that the clock went back."""
    add(session, command("c1", retry_ms=NOW_MS + 500, sent_ms=NOW_MS, attempts=1))
    assert next_ids(session, NOW_MS) == []
    back_ms = NOW_MS - 3_600_000
    assert session.run(lambda unit: unit.wait_no_longer(back_ms, back_ms)) == 1
    assert next_ids(session, back_ms) == ["c1"]


def test_nor_for_one_that_was_set_back_while_nobody_looked(session: Session) -> None:
    """Its retry may be due within what a retry may wait; that it was tried in the future tells."""
    add(session, command("c1", retry_ms=NOW_MS + 500, sent_ms=NOW_MS, attempts=1))
    hour_ms, back_ms = 3_600_000, NOW_MS - 3_599_000
    assert session.run(lambda unit: unit.wait_no_longer(NOW_MS, NOW_MS + hour_ms)) == 0
    assert session.run(lambda unit: unit.wait_no_longer(back_ms, back_ms + hour_ms)) == 1
    assert next_ids(session, back_ms) == ["c1"]


def test_a_record_keeps_its_order_when_a_command_is_opened_again(session: Session) -> None:
    """What a person retries stands where it stood."""
    add(session, command("a"), command("b"))
    session.run(lambda unit: unit.update_command(command("a", status=CommandStatus.FAILED)))
    assert next_ids(session) == ["b"]
    session.run(lambda unit: unit.update_command(command("a")))
    assert next_ids(session) == ["a"]
    assert [c.command_id for c in session.run(lambda unit: unit.commands_behind(command("a", seq=1), 10))] == ["b"]


def test_writes_that_a_row_lacks_are_told_in_order(session: Session) -> None:
    """Those of the row's second of the org's clock or a later one that have not come back as a change."""
    done = {"status": CommandStatus.SUCCEEDED, "completed_ms": NOW_MS, "written_ms": NOW_MS}
    add(
        session,
        command("old", **(done | {"completed_ms": NOW_MS - 10_000})),
        command("passed", **done),  # a poll saw the state behind it alone
        command("echoed", **done),
        command("same_second", **(done | {"written_ms": NOW_MS - 157})),
        command("done", **(done | {"written_ms": NOW_MS + 1000})),
        command("failed", status=CommandStatus.FAILED, completed_ms=NOW_MS),
        command("waiting"),
        command("next", **(done | {"written_ms": NOW_MS + 2000})),
        command("other", record_id=record_id(2), **done),
        command("earlier_second", **(done | {"written_ms": NOW_MS - 1157})),
    )
    session.run(lambda unit: unit.echo_seen("echoed", 5))
    unseen = session.run(lambda unit: unit.unseen_writes("Widget__c", record_id(1), NOW_MS - 100, NOW_MS - 1000))
    assert [c.command_id for c in unseen] == ["same_second", "done", "next"]
    between = session.run(lambda unit: unit.written_between("Widget__c", record_id(1), 3, 8))
    assert [c.command_id for c in between] == ["echoed", "same_second", "done"]
    assert session.run(lambda unit: unit.last_written_ms("Widget__c", record_id(1), "next")) == NOW_MS + 2000
    assert session.run(lambda unit: unit.last_written_ms("Widget__c", record_id(3), "next")) is None


def test_a_command_carried_by_another_comes_back_with_it(session: Session) -> None:
    """The echo shows what was sent; both are seen by it."""
    sent = {"status": CommandStatus.SUCCEEDED, "sent_ms": NOW_MS}
    add(
        session,
        command("a", **sent, carried_by="b", sent={}, written_ms=NOW_MS),
        command("b", **sent, sent={"Name": "wanted", "Size__c": 3}),
    )
    (waiting,) = session.run(lambda unit: unit.awaiting_echo("Widget__c", [record_id(1)], NOW_MS))
    assert (waiting.command_id, waiting.fields) == ("b", {"Name": "wanted", "Size__c": 3})
    assert session.run(lambda unit: unit.last_written_ms("Widget__c", record_id(1), "a")) == NOW_MS
    assert session.run(lambda unit: unit.last_written_ms("Widget__c", record_id(1), "b")) is None
    session.run(lambda unit: unit.echo_seen("b", 9))
    assert session.run(lambda unit: unit.unseen_writes("Widget__c", record_id(1), 0, 0)) == []


def test_creates_without_an_answer_are_told(session: Session) -> None:
    """Under way or lost; and which records are known to be some command's."""
    new = {"operation": Operation.CREATE, "record_id": None}
    add(
        session,
        command("waits", **new),
        command("lost", **new, answer_lost=True),
        command("under_way", **new, status=CommandStatus.SENDING),
        command("done", **(new | {"record_id": record_id(4)}), status=CommandStatus.SUCCEEDED),
        command("update", record_id=record_id(5), answer_lost=True),
    )
    assert [c.command_id for c in session.run(lambda unit: unit.open_creates("Widget__c"))] == ["lost", "under_way"]
    ids = [record_id(number) for number in range(4, 10)]
    assert session.run(lambda unit: unit.claimed("Widget__c", ids)) == {record_id(4)}
    made: dict[str, Any] = {"operation": Operation.CREATE, "before": None}
    ours: dict[str, Any] = {"origin": Origin.COMMAND, "command_id": "lost"}
    other = change(9, **made, **ours, object="Other__c")
    changes = [change(6, **made, **ours), change(7, **made), change(8, **ours), other]
    session.run(lambda unit: unit.append(changes))
    assert session.run(lambda unit: unit.claimed("Widget__c", ids)) == {record_id(4), record_id(6)}


def test_accepted_commands_are_counted_per_object(session: Session) -> None:
    """The nth newest since a time, rejected ones left out; deletes by themselves."""
    add(
        session,
        command("a", accepted_ms=NOW_MS - 3000),
        command("b", accepted_ms=NOW_MS - 2000, operation=Operation.DELETE, fields={}),
        command("no", accepted_ms=NOW_MS - 1500, status=CommandStatus.REJECTED),
        command("c", accepted_ms=NOW_MS - 1000),
        command("else", object="Lead"),
    )

    def since(since_ms: int, limit: int, *, deletes: bool = False) -> int | None:
        return session.run(lambda unit: unit.accepted_since("Widget__c", since_ms, limit, deletes=deletes))

    assert since(NOW_MS - 3001, 3) == NOW_MS - 3000
    assert since(NOW_MS - 3000, 3) is None
    assert since(NOW_MS - 3000, 1) == NOW_MS - 1000
    assert since(0, 1, deletes=True) == NOW_MS - 2000
    assert since(0, 2, deletes=True) is None


def test_commands_that_await_their_echo_are_told_until_it_came(session: Session) -> None:
    """By object, from a time on, sent ones only."""
    sent = {"sent_ms": NOW_MS, "status": CommandStatus.SUCCEEDED}
    add(
        session,
        command("early", status=CommandStatus.SUCCEEDED, sent_ms=NOW_MS - 5000),
        command("one", **sent),
        command("two", sent_ms=NOW_MS, status=CommandStatus.SENDING),
        command("failed", sent_ms=NOW_MS, status=CommandStatus.FAILED),
        command("unsent"),
        command("other", object="Lead", **sent),
    )

    def awaiting() -> list[str]:
        found = session.run(lambda unit: unit.awaiting_echo("Widget__c", [record_id(1)], NOW_MS - 1000))
        return [c.command_id for c in found]

    assert awaiting() == ["one", "two"]
    session.run(lambda unit: unit.echo_seen("one", 9))
    assert awaiting() == ["two"]


@pytest.mark.parametrize("asked", [2, 3, 4, 50])
def test_commands_that_await_their_change_are_found_for_many_records(session: Session, asked: int) -> None:
    """Whether fewer, as many or more records are asked for than have commands; those that were not are left out."""
    sent = {"sent_ms": NOW_MS, "status": CommandStatus.SUCCEEDED}
    add(session, *(command(f"c{n}", record_id=record_id(n), **sent) for n in (1, 2, 60)))
    ids = [record_id(n) for n in range(1, asked + 1)]
    found = session.run(lambda unit: unit.awaiting_echo("Widget__c", ids, NOW_MS - 1000))
    assert [c.command_id for c in found] == ["c1", "c2"]
    assert list(session.run(lambda unit: unit.awaiting_echo("Widget__c", ids[2:], NOW_MS - 1000))) == []


def test_commands_are_listed_newest_first_by_status(session: Session) -> None:
    """For a person, and for the start after a crash (SENDING)."""
    add(session, command("a"), command("b", status=CommandStatus.SENDING), command("c"))
    assert [c.command_id for c in session.run(lambda unit: unit.commands(None, 2))] == ["c", "b"]
    assert [c.command_id for c in session.run(lambda unit: unit.commands(CommandStatus.SENDING, 9))] == ["b"]


def test_a_redelivery_is_found_by_its_key(session: Session) -> None:
    """Only from a time on: packet ids come round again."""
    add(session, command("a", delivery_key="7:x"), command("b", delivery_key="7:x", accepted_ms=NOW_MS + 5))
    found = session.run(lambda unit: unit.command_by_delivery("7:x", NOW_MS))
    assert found is not None
    assert found.command_id == "b"
    assert session.run(lambda unit: unit.command_by_delivery("7:x", NOW_MS + 6)) is None
    assert session.run(lambda unit: unit.command_by_delivery("8:x", NOW_MS)) is None


@pytest.mark.parametrize("name", ["pending_on", "unseen_records", "claimed", "awaiting_echo", "unseen", "last_written"])
def test_what_is_asked_of_a_record_walks_its_own_commands(session: Session, tmp_path: Path, name: str) -> None:  # noqa: ARG001 - it makes the file
    """Every read and every change asks it, and a month's commands of the object may be there."""
    connection = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    bindings = {"ids": "[]", "id": "", "object": "Contact", "since": "", "modified": "", "besides": ""}
    statement = load("commands")[name]
    used = {key: value for key, value in bindings.items() if f":{key}" in statement}
    plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", used)]
    connection.close()
    assert any(step.startswith("SEARCH command USING INDEX command_") and "(record_id=?" in step for step in plan), plan


def test_records_that_commands_made_are_found_without_going_through_the_log(session: Session, tmp_path: Path) -> None:  # noqa: ARG001 - it makes the file
    """Of twenty thousand records at once, in a log of a million changes."""
    connection = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    explained = connection.execute(f"EXPLAIN QUERY PLAN {load('commands')['claimed']}", {"ids": "[]", "object": ""})
    plan = [str(row[3]) for row in explained]
    connection.close()
    assert "SEARCH change_log USING INDEX change_made (id=?)" in plan


def test_open_creates_are_found_among_the_open_commands(session: Session, tmp_path: Path) -> None:  # noqa: ARG001 - it makes the file
    """There are few of these, and the events of every create ask."""
    connection = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    explained = connection.execute(f"EXPLAIN QUERY PLAN {load('commands')['open_creates']}", {"object": "Contact"})
    plan = [str(row[3]) for row in explained]
    connection.close()
    assert plan[0] == "SEARCH command USING INDEX command_status (status=?)"
