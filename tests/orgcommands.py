"""The way from a command to the local org, through the real door, over a real database, for tests."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from connector.devorg.commits import Commit
from connector.devorg.server import DevOrg
from connector.inbound.reading import from_row
from connector.mesh.envelope import Envelope
from connector.mesh.topics import Topics
from connector.model.command import Command, CommandStatus, ConflictPolicy
from connector.model.ids import RecordId
from connector.model.message import Delivery
from connector.model.objects import ObjectSpec, object_spec
from connector.model.record import StoredRecord
from connector.model.times import to_iso
from connector.outbound.intake import CommandIntake
from connector.outbound.rules import OutboundRules, WriteRules
from connector.outbound.writer import CommandWriter
from connector.ports import Purpose, Unit
from connector.store.database import Database
from tests.copies import Copy
from tests.orgs import Door, opened, org_session
from tests.waiting import until

EDITOR = "0055f000007SvcUAAS"
EVERYTHING = frozenset({"create", "update", "upsert", "delete"})


@dataclass
class Specs:
    """A catalog of objects that were described once."""

    known: Mapping[str, ObjectSpec]

    def spec(self, name: str) -> ObjectSpec | None:
        return self.known.get(name)

    def prefixes(self) -> Mapping[str, str]:
        return {spec.key_prefix: name for name, spec in self.known.items()}


@dataclass
class OrgBench:
    """Intake and writer between a database and a local org.

    Attributes:
        commits: What was committed in the org since the bench was made, in order.
        ahead_ms: How far the connector's clock is before the org's.
    """

    org: DevOrg
    door: Door
    database: Database
    specs: Specs
    rules: OutboundRules
    commits: list[Commit] = field(default_factory=list)
    given: int = 0
    ahead_ms: int = 0

    def __post_init__(self) -> None:
        self.answers = Envelope(Topics(root="t"), node="n")
        self.intake = CommandIntake(
            replica=self.database,
            catalog=self.specs,
            answers=self.answers,
            rules=self.rules,
            now_ms=self.now_ms,
            stored=self._stored,
        )
        self.writer: CommandWriter | None = None

    def now_ms(self) -> int:
        return self.org.ctx.clock.now_ms() + self.ahead_ms

    def _stored(self) -> None:
        if self.writer is not None:
            self.writer.wake()

    async def give(self, name: str, operation: str, payload: Mapping[str, Any]) -> None:
        """A service publishes a command."""
        self.given += 1
        delivery = Delivery(
            topic=f"t/command/{name}/{operation}",
            payload=orjson.dumps(payload),
            retained=False,
            duplicate=False,
            packet_id=self.given,
            token=None,
            response_topic=None,
            correlation=None,
        )
        await self.intake.handle(name, operation, delivery)

    @asynccontextmanager
    async def sending(self, seed: int = 1) -> AsyncIterator[CommandWriter]:
        """The writer at work; it finishes what it has begun."""
        self.writer = self.make_writer(seed)
        job = asyncio.create_task(self.writer.run())
        try:
            yield self.writer
        finally:
            self.writer.drain()
            await job
            self.writer = None

    def make_writer(self, seed: int = 1) -> CommandWriter:
        """A writer, as after a start of the process."""
        return CommandWriter(
            replica=self.database,
            org=self.door.rest,
            ingest=self.door.rest.ingest,
            catalog=self.specs,
            read=from_row,
            result=self.answers.result,
            rules=self.rules,
            now_ms=self.now_ms,
            rng=random.Random(seed),
            settled=lambda: None,
        )

    async def send_all(self, timeout_s: float = 20.0) -> None:
        """Send until every command has its end."""
        async with self.sending():
            await until(self.done, timeout_s)

    async def done(self) -> bool:
        return await self.database.run(lambda unit: unit.queue_depths()["commands"]) == 0

    async def command(self, command_id: str) -> Command:
        found = await self.database.run(lambda unit: unit.command(command_id))
        assert found is not None
        return found

    async def statuses(self) -> dict[str, CommandStatus]:
        return {c.command_id: c.status for c in await self.database.run(lambda unit: unit.commands(None, 10**6))}

    def people_write(self, name: str, record_id: str | None, values: Mapping[str, Any]) -> str:
        """Somebody edits (or makes) a record in the org."""
        with self.org.ctx.org.transaction(EDITOR, "") as work:
            if record_id is None:
                return work.create(name, dict(values))
            work.update(name, record_id, dict(values))
            return record_id

    async def catch_up(self, name: str, ids: Sequence[str]) -> None:
        """The replica gets the records as they stand, as if their events had come, and a poll after them."""
        spec = self.specs.known[name]
        wanted = [RecordId(i) for i in ids]
        rows = await self.door.rest.retrieve(name, wanted, spec.read_fields(), Purpose.REPAIR)

        def put(unit: Unit) -> None:
            for row in rows:
                if row is not None:
                    read = from_row(spec, row)
                    unit.put(
                        spec,
                        [
                            StoredRecord(
                                id=read.id,
                                values=read.values,
                                version=0,
                                synced_ms=self.now_ms(),
                                deleted_ms=None,
                                modified_ms=read.modified_ms,
                            )
                        ],
                    )
            for record_id in wanted:
                for command in unit.awaiting_echo(name, [record_id], 0):
                    if command.status is CommandStatus.SUCCEEDED:
                        unit.echo_seen(command.command_id, 1)

            at = to_iso(self.now_ms() // 1000 * 1000)
            unit.set_cursor(f"poll:{name}", f'{{"high": "{at}", "at": "{at}"}}', self.now_ms())

        await self.database.run(put)

    def row(self, name: str, record_id: str) -> Mapping[str, Any]:
        found = self.org.ctx.org.get(name, record_id)
        assert found is not None
        return found


@asynccontextmanager
async def org_bench(
    path: Path,
    org: DevOrg,
    fields: Mapping[str, Sequence[str]],
    *,
    external_id: str = "",
    owner: Mapping[str, str] | None = None,
    settle_ms: int = 10 * 60 * 1000,
    timeout_s: float = 5.0,
    bulk_threshold: int = 0,
) -> AsyncIterator[OrgBench]:
    """A bench for these objects (name -> fields)."""
    async with opened(org_session(org), timeout_s=timeout_s) as door, Database(path) as database:
        specs = {}
        for name, names in fields.items():
            specs[name] = object_spec(await door.rest.describe(name, Purpose.CATCH_UP), names)
            spec = specs[name]
            await database.run(lambda unit, spec=spec: unit.define(spec))  # type: ignore[misc] # bound at once
        rules = _rules(specs, external_id=external_id, owner=owner, settle_ms=settle_ms, bulk_threshold=bulk_threshold)
        with _noting(OrgBench(org, door, database, Specs(specs), rules)) as bench:
            yield bench


@asynccontextmanager
async def bench_over(
    org: DevOrg, copy: Copy, *, external_id: str = "", settle_ms: int = 10 * 60 * 1000
) -> AsyncIterator[OrgBench]:
    """A bench over a replica that is being kept: what it writes comes back on the stream."""
    rules = _rules(copy.inbound.catalog.specs, external_id=external_id, settle_ms=settle_ms)
    with _noting(OrgBench(org, copy.door, copy.database, Specs(copy.inbound.catalog.specs), rules)) as bench:
        yield bench


def _rules(
    specs: Mapping[str, ObjectSpec],
    *,
    external_id: str,
    owner: Mapping[str, str] | None = None,
    settle_ms: int = 10 * 60 * 1000,
    bulk_threshold: int = 0,
) -> OutboundRules:
    allowed = WriteRules(
        writable=True,
        fields=frozenset(),
        operations=EVERYTHING,
        external_id="",
        on_conflict=ConflictPolicy.MERGE,
        owner=owner or {},
    )
    keyed = replace(allowed, external_id=external_id)
    return OutboundRules(
        objects={name: keyed if external_id in spec.described else allowed for name, spec in specs.items()},
        max_payload_bytes=1 << 18,
        backoff_max_s=0.3,
        settle_ms=settle_ms,
        bulk_threshold=bulk_threshold,
    )


@contextmanager
def _noting(bench: OrgBench) -> Iterator[OrgBench]:
    """The bench, noting what is committed in the org meanwhile."""
    bus = bench.org.ctx.org._bus
    append = bus.append

    def noted(commit: Commit) -> None:
        bench.commits.append(commit)
        append(commit)

    bus.append = noted  # type: ignore[method-assign]
    try:
        yield bench
    finally:
        bus.append = append  # type: ignore[method-assign]
