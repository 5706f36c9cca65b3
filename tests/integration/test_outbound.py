"""Commands from acceptance to result, on a real database, against an org that is told how to answer."""

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.errors import LinkDown, OrgThrottled, RowLocked
from connector.model.change import Change, CommitInfo, Operation, Origin
from connector.model.command import Command, CommandStatus, ConflictPolicy, OrgProblem
from connector.model.ids import RecordId
from connector.model.message import Delivery, Message
from connector.model.objects import ObjectSpec, object_spec
from connector.model.record import ReadRecord, StoredRecord
from connector.outbound.intake import CommandIntake, IntakeRules
from connector.outbound.validate import WriteRules
from connector.outbound.writer import CommandWriter, WriterRules
from connector.ports import Purpose, QueryPage, RecordWrite, Unit, WriteOutcome
from connector.store.database import Database
from tests.waiting import until

ID = RecordId("0035f00002KmQ7aAAF")
NEW_ID = "0035f00002KmQ7bAAF"
SECOND_MS = 1_767_268_800_000
CONTACT: ObjectSpec = object_spec(
    json.loads(files("connector.devorg.objects").joinpath("describe/Contact.json").read_text("utf-8")),
    ("FirstName", "LastName", "Phone", "Email"),
)
RULES = WriteRules(
    writable=True,
    fields=frozenset(),
    operations=frozenset({"create", "update", "upsert", "delete"}),
    external_id="",
)


def read(_spec: ObjectSpec, row: Mapping[str, Any]) -> ReadRecord:
    values = {name: value for name, value in row.items() if name != "at"}
    return ReadRecord(id=ID, values=values, modified_ms=row["at"], modstamp_ms=row["at"], deleted=False)


class OneObject:
    """A catalog that knows contacts."""

    def spec(self, name: str) -> ObjectSpec | None:
        return CONTACT if name == "Contact" else None

    def prefixes(self) -> Mapping[str, str]:
        return {"003": "Contact"}


class PlainAnswers:
    """Results as they stand; topics as in the interface."""

    def result(self, command: Command) -> Sequence[Message]:
        body = {"status": command.status, "errors": list(command.errors), "id": command.record_id}
        topics = [f"r/result/{command.command_id}", *([command.reply_to] if command.reply_to else [])]
        return [
            Message(topic=topic, payload=orjson.dumps(body), correlation=command.correlation_data) for topic in topics
        ]

    def rejected(self, topic: str, reason: str, payload: bytes) -> Message:
        return Message(
            topic="r/rejected", payload=orjson.dumps({"topic": topic, "reason": reason, "size": len(payload)})
        )

    def usable_reply_address(self, topic: str) -> bool:
        return not topic.startswith("r/result")


Answer = WriteOutcome | Exception


@dataclass
class ScriptedOrg:
    """An org whose answers are given in advance; it remembers what it was asked."""

    answers: deque[Answer] = field(default_factory=deque)
    rows: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    found: Sequence[Mapping[str, Any]] = ()
    writes: list[RecordWrite] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)

    async def write(self, write: RecordWrite) -> WriteOutcome:
        self.writes.append(write)
        answer = self.answers.popleft() if self.answers else WriteOutcome(id=write.record_id or RecordId(NEW_ID))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def retrieve(
        self, _name: str, ids: Sequence[RecordId], _fields: Sequence[str], _purpose: Purpose
    ) -> Sequence[Mapping[str, Any] | None]:
        return [self.rows.get(i) for i in ids]

    async def query(self, soql: str, _purpose: Purpose, *, deleted: bool = False) -> QueryPage:
        assert deleted, "a created record may have been deleted meanwhile"
        self.queries.append(soql)
        return QueryPage(self.found, None, len(self.found), 0)


@dataclass
class Bench:
    """Intake and writer on one database."""

    database: Database
    org: ScriptedOrg
    now_ms: int = SECOND_MS + 60_000
    packet_id: int = 0
    external_id: str = ""

    def __post_init__(self) -> None:
        self.intake = CommandIntake(
            replica=self.database,
            catalog=OneObject(),
            answers=PlainAnswers(),
            rules=IntakeRules(objects={"Contact": RULES}, on_conflict=ConflictPolicy.MERGE, max_payload_bytes=10_000),
            now_ms=lambda: self.now_ms,
            stored=lambda: None,
        )

    async def give(self, operation: str, payload: object, **delivery: Any) -> None:
        """A service publishes a command."""
        self.packet_id += 1
        raw = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        message: dict[str, Any] = {"retained": False, "duplicate": False, "packet_id": self.packet_id, "token": None}
        message |= {"response_topic": None, "correlation": None, **delivery}
        name = message.pop("object_name", "Contact")
        await self.intake.handle(
            name, operation, Delivery(topic=f"r/command/{name}/{operation}", payload=raw, **message)
        )

    def writer(self, parallel: int = 4) -> CommandWriter:
        return CommandWriter(
            replica=self.database,
            org=self.org,  # type: ignore[arg-type]  # the three methods that the writer uses
            catalog=OneObject(),
            read=read,
            result=PlainAnswers().result,
            rules=WriterRules(owner={}, external_id={}, backoff_max_s=60, parallel=parallel),
            now_ms=lambda: self.now_ms,
            rng=random.Random(1),
            settled=lambda: None,
        )

    async def send_all(self) -> None:
        """The writer works until nothing is open that is due."""
        writer = self.writer()
        job = asyncio.create_task(writer.run())
        await until(self.idle)
        writer.drain()
        await job

    async def idle(self) -> bool:
        def look(unit: Unit) -> bool:
            return not any(
                c.status is CommandStatus.SENDING
                or (c.status is CommandStatus.ACCEPTED and (c.retry_ms or 0) <= self.now_ms and not self.waits(unit, c))
                for c in unit.commands(None, 100)
            )

        return await self.database.run(look)

    def waits(self, unit: Unit, command: Command) -> bool:
        """An earlier command on the same record waits for its retry."""
        earlier = [c for c in unit.commands(None, 100) if c.seq < command.seq and c.record_id == command.record_id]
        return any(not c.status.final and (c.retry_ms or 0) > self.now_ms for c in earlier if c.record_id)

    async def command(self, command_id: str) -> Command:
        found = await self.database.run(lambda unit: unit.command(command_id))
        assert found is not None
        return found

    async def messages(self) -> list[tuple[str, Any]]:
        due = await self.database.run(lambda unit: unit.due(100))
        return [(m.message.topic, orjson.loads(m.message.payload)) for m in due]

    async def store(self, values: Mapping[str, Any], version: int = 0) -> None:
        record = StoredRecord(
            id=ID, values=values, version=version, synced_ms=SECOND_MS, deleted_ms=None, modified_ms=SECOND_MS
        )
        await self.database.run(lambda unit: unit.put(CONTACT, [record]))


VALUES = {"FirstName": "Jo", "LastName": "Doe", "Phone": "1", "Email": None}


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Bench]:
    async with Database(path / "replica.db") as database:
        await database.run(lambda unit: unit.define(CONTACT))
        bench = Bench(database, ScriptedOrg())
        await bench.store(VALUES)
        yield bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as made:
        yield made


def update(command_id: str, **fields: Any) -> dict[str, Any]:
    return {"command_id": command_id, "id": ID, "fields": fields}


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
    bench.now_ms += 60_000
    await bench.send_all()
    assert [w.fields["Phone"] for w in bench.org.writes] == ["2", "2", "3"]
    assert (await bench.command("a")).attempts == 2


async def test_a_spent_budget_holds_every_command(bench: Bench) -> None:
    """No other command would fare better."""
    bench.org.answers.append(OrgThrottled("quota", retry_after_s=30))
    await bench.give("create", {"command_id": "a", "fields": {"LastName": "A"}})
    await bench.give("create", {"command_id": "b", "fields": {"LastName": "B"}})
    writer = bench.writer(parallel=1)
    job = asyncio.create_task(writer.run())

    async def held() -> bool:
        return (await bench.command("a")).retry_ms is not None

    await until(held)
    writer.wake()
    writer.drain()
    await job
    assert len(bench.org.writes) == 1
    assert (await bench.command("a")).retry_ms == bench.now_ms + 30_000
    assert (await bench.command("b")).attempts == 0


async def test_the_lost_answer_of_an_update_is_settled_by_reading(bench: Bench) -> None:
    """The org had taken it: `succeeded`, without a second write."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("update", update("a", Phone="2"))
    await bench.send_all()
    bench.org.rows[ID] = {**VALUES, "Phone": "2", "at": SECOND_MS + 5000}
    bench.now_ms += 60_000
    await bench.send_all()
    assert len(bench.org.writes) == 1
    assert (await bench.command("a")).status is CommandStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (({"Id": NEW_ID},), CommandStatus.SUCCEEDED),
        ((), CommandStatus.UNKNOWN),
        (({"Id": NEW_ID},) * 2, CommandStatus.UNKNOWN),
    ],
)
async def test_the_lost_answer_of_a_create_is_never_a_second_record(
    bench: Bench, found: Sequence[Mapping[str, Any]], status: CommandStatus
) -> None:
    """One record with these fields is ours; none or several prove nothing."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("create", {"command_id": "a", "fields": {"LastName": "O'Hara"}})
    await bench.send_all()
    bench.org.found = found
    bench.now_ms += 60_000
    await bench.send_all()
    assert len(bench.org.writes) == 1
    assert (await bench.command("a")).status is status
    assert r"LastName = 'O\'Hara'" in bench.org.queries[0]


async def test_what_was_under_way_when_the_process_died_counts_as_lost(tmp_path: Path) -> None:
    """SENDING on disk at start: the org is asked before anything is repeated."""
    async with opened(tmp_path) as bench:
        await bench.give("create", {"command_id": "a", "fields": {"LastName": "A"}})

        def died(unit: Unit) -> None:
            (command,) = unit.next_commands(bench.now_ms, 1)
            unit.update_command(replace(command, status=CommandStatus.SENDING, attempts=1))

        await bench.database.run(died)
        bench.org.found = ({"Id": NEW_ID},)
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
