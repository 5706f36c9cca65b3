"""The way from a command to the org over a real database and an org that is told how to answer, for tests."""

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

from connector.errors import LinkDown, TransientError
from connector.model.command import Command, CommandStatus
from connector.model.ids import RecordId
from connector.model.message import Delivery, Message
from connector.model.objects import ObjectSpec, object_spec
from connector.model.record import ReadRecord, StoredRecord
from connector.outbound.intake import CommandIntake
from connector.outbound.rules import OutboundRules, WriteRules
from connector.outbound.writer import CommandWriter
from connector.ports import Purpose, QueryPage, RecordWrite, Unit, WriteOutcome
from connector.store.database import Database
from tests.waiting import until

ID = RecordId("0035f00002KmQ7aAAF")
NEW_ID = "0035f00002KmQ7bAAF"
OTHER_ID = "0035f00002KmQ7cAAF"
US = RecordId("0055f000007NnAbAAK")
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
    values = {f.name: row.get(f.name) for f in CONTACT.fields}
    at_ms = row.get("at", SECOND_MS)
    return ReadRecord(
        id=RecordId(row.get("Id", ID)), values=values, modified_ms=at_ms, modstamp_ms=at_ms, deleted=False
    )


class OneObject:
    """A catalog that knows contacts."""

    def __init__(self) -> None:
        self._contact = CONTACT

    def keyed(self, name: str) -> None:
        """Take a field for a unique external id."""
        if name:
            field_spec = replace(CONTACT.described[name], external_id=True, unique=True, nillable=True)
            self._contact = replace(
                CONTACT,
                described={**CONTACT.described, name: field_spec},
                fields=tuple(field_spec if f.name == name else f for f in CONTACT.fields),
            )

    def spec(self, name: str) -> ObjectSpec | None:
        return self._contact if name == "Contact" else None

    def prefixes(self) -> Mapping[str, str]:
        return {"003": "Contact"}


class PlainAnswers:
    """Results as they stand; topics as in the interface."""

    def result(self, command: Command, dry_run: Mapping[str, Any] | None = None) -> Sequence[Message]:
        body: dict[str, Any] = {"status": command.status, "errors": list(command.errors), "id": command.record_id}
        body |= {"conflict": command.conflict} | ({"dry_run": dry_run} if dry_run is not None else {})
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
    """An org whose answers are given in advance; it remembers what it was asked.

    Attributes:
        now_ms: Its clock.
        clock_told: It has told it.
        unheard: What becomes of the first questions for it.
    """

    answers: deque[Answer] = field(default_factory=deque)
    rows: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    found: Sequence[Mapping[str, Any]] = ()
    later: Sequence[Mapping[str, Any]] | None = None
    writes: list[RecordWrite] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    now_ms: int = SECOND_MS + 120_000
    clock_told: bool = True
    unheard: deque[Exception] = field(default_factory=deque)

    async def write(self, write: RecordWrite) -> WriteOutcome:
        self.writes.append(write)
        answer = self.answers.popleft() if self.answers else WriteOutcome(id=write.record_id or RecordId(NEW_ID))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def write_many(self, writes: Sequence[RecordWrite]) -> Sequence[WriteOutcome | TransientError]:
        self.batches.append(len(writes))
        outcomes: list[WriteOutcome | TransientError] = []
        for write in writes:
            try:
                outcomes.append(await self.write(write))
            except TransientError as error:
                outcomes.append(error)
        return outcomes

    async def user_id(self) -> RecordId:
        return US

    def clock_ms(self) -> int | None:
        return self.now_ms if self.clock_told else None

    async def hear_clock(self) -> None:
        if self.unheard:
            raise self.unheard.popleft()
        self.clock_told = True

    async def retrieve(
        self, _name: str, ids: Sequence[RecordId], _fields: Sequence[str], _purpose: Purpose
    ) -> Sequence[Mapping[str, Any] | None]:
        return [self.rows.get(i) for i in ids]

    async def query(self, soql: str, _purpose: Purpose, *, deleted: bool = False) -> QueryPage:
        assert deleted, "a created record may have been deleted meanwhile"
        self.queries.append(soql)
        found = self.found
        if self.later is not None:
            self.found, self.later = self.later, None
        return QueryPage(found, None, len(found), self.now_ms)


@dataclass
class Bench:
    """Intake and writer on one database.

    Attributes:
        ahead_ms: How far our clock is before the org's.
    """

    database: Database
    org: ScriptedOrg
    ahead_ms: int = 0
    packet_id: int = 0
    external_id: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    catalog: OneObject = field(default_factory=OneObject)

    def __post_init__(self) -> None:
        self.intake = CommandIntake(
            replica=self.database,
            catalog=self.catalog,
            answers=PlainAnswers(),
            rules=self.rules(),
            now_ms=lambda: self.now_ms,
            stored=lambda: None,
        )

    @property
    def now_ms(self) -> int:
        return self.org.now_ms + self.ahead_ms

    def rules(self) -> OutboundRules:
        contact = replace(RULES, external_id=self.external_id)
        return OutboundRules(objects={"Contact": contact}, max_payload_bytes=10_000, backoff_max_s=60, **self.limits)

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
            ingest=self.org,  # type: ignore[arg-type]  # no queue here is long enough for it
            catalog=self.catalog,
            read=read,
            result=PlainAnswers().result,
            rules=replace(self.rules(), parallel=parallel),
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
                or (c.status is CommandStatus.ACCEPTED and (c.expires_ms or 2**62) <= self.now_ms)
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
async def opened(
    path: Path, *, external_id: str = "", as_external_id: str = "", limits: Mapping[str, int] | None = None
) -> AsyncIterator[Bench]:
    """A bench with one contact; `as_external_id`: a field that is taken for a unique external id."""
    async with Database(path / "replica.db") as database:
        await database.run(lambda unit: unit.define(CONTACT))
        bench = Bench(database, ScriptedOrg(), external_id=external_id, limits=limits or {})
        bench.catalog.keyed(as_external_id)
        polled = '{"high": "2026-01-01T12:01:40.000Z", "at": "2026-01-01T12:01:40.000Z"}'
        await database.run(lambda unit: unit.set_cursor("poll:Contact", polled, SECOND_MS))
        await bench.store(VALUES)
        yield bench


def update(command_id: str, **fields: Any) -> dict[str, Any]:
    return {"command_id": command_id, "id": ID, "fields": fields}


async def lost_create(bench: Bench, last_name: str = "O'Hara", command_id: str = "a") -> None:
    """A create whose answer is lost, and the time that passes until the org is asked."""
    bench.org.answers.append(LinkDown("lost"))
    await bench.give("create", {"command_id": command_id, "fields": {"LastName": last_name}})
    await bench.send_all()
    bench.org.now_ms += 60_000
