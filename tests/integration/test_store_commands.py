"""The queue of commands."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, ConflictPolicy
from connector.store import Session
from tests.store_nouns import NOW_MS, command, record_id


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
        sent_ms=NOW_MS + 1,
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


def test_what_is_pending_on_a_record_is_told_in_order(session: Session) -> None:
    """Unfinished, or succeeded and not come back yet: what the replica does not show so far."""
    done = {"status": CommandStatus.SUCCEEDED, "completed_ms": NOW_MS}
    add(
        session,
        command("old", status=CommandStatus.SUCCEEDED, completed_ms=NOW_MS - 10_000),
        command("echoed", **done),
        command("done", **done),
        command("failed", status=CommandStatus.FAILED, completed_ms=NOW_MS),
        command("sending", status=CommandStatus.SENDING),
        command("waiting"),
        command("other", record_id=record_id(2)),
    )
    session.run(lambda unit: unit.echo_seen("echoed", 5))
    pending = session.run(lambda unit: unit.pending_commands("Widget__c", record_id(1), NOW_MS - 1000))
    assert [c.command_id for c in pending] == ["done", "sending", "waiting"]


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
        return [c.command_id for c in session.run(lambda unit: unit.awaiting_echo("Widget__c", NOW_MS - 1000))]

    assert awaiting() == ["one", "two"]
    session.run(lambda unit: unit.echo_seen("one", 9))
    assert awaiting() == ["two"]


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
