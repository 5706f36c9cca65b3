"""The way from the org to the replica over fakes of the org and a real database, for tests."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson

from connector.inbound.apply import Applied
from connector.inbound.engine import Inbound, InboundRules, Outlets
from connector.inbound.poll import PollRules
from connector.inbound.position import StreamRules
from connector.inbound.repair import RepairRules
from connector.inbound.rounds import Round
from connector.inbound.snapshot import LoadRules
from connector.model.change import Change
from connector.model.ids import RecordId
from connector.model.message import Message
from connector.model.record import StoredRecord
from connector.ports import Hole, Unit
from connector.store import Database
from tests.events import CONTACT_FIELDS
from tests.fakes import FakeOrg, FakeSource
from tests.waiting import until

T = TypeVar("T")
ORG_ID = "00D5f000000Qr8sEAC"
STREAM = StreamRules(transport="cometd", channel="/data/ChangeEvents", org_id=lambda: ORG_ID, batch_size=200)


@dataclass
class Way:
    """The parts and what they told.

    Attributes:
        clock_ms: The local clock, which is not the org's.
    """

    org: FakeOrg
    source: FakeSource
    database: Database
    inbound: Inbound
    rounds: list[Round] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    progress: list[tuple[str, int, int]] = field(default_factory=list)

    async def run(self, work: Callable[[Unit], T]) -> T:
        return await self.database.run(work)

    async def row(self, record_id: RecordId, name: str = "Contact") -> StoredRecord | None:
        spec = self.inbound.catalog.specs[name]
        return (await self.run(lambda unit: unit.records(spec, [record_id]))).get(record_id)

    async def value(self, record_id: RecordId, field_name: str, name: str = "Contact") -> Any:
        row = await self.row(record_id, name)
        return None if row is None or row.deleted_ms is not None else row.values[field_name]

    async def changes(self) -> list[Change]:
        """All changes in the log; nothing is published in these tests."""
        return list(await self.run(lambda unit: unit.unpublished(100_000)))

    async def cursor(self, name: str) -> Any:
        text = await self.run(lambda unit: unit.cursor(name))
        return None if text is None else orjson.loads(text)

    async def dirty(self, name: str = "Contact") -> dict[str, str]:
        return {d.id: d.reason for d in await self.run(lambda unit: unit.dirty(name, 100_000))}

    async def holes(self) -> Sequence[Hole]:
        return await self.run(lambda unit: unit.open_holes())

    async def until_whole(self) -> None:
        """Return once no hole is open."""

        async def whole() -> bool:
            return not await self.holes()

        await until(whole)

    async def messages(self) -> list[Message]:
        def work(unit: Unit) -> list[Message]:
            unit.mark_published(unit.last_version(), 0)
            return [m.message for m in unit.due(1000)]

        return await self.run(work)

    async def until_value(self, record_id: RecordId, field_name: str, value: Any, name: str = "Contact") -> None:
        async def holds() -> bool:
            return bool(await self.value(record_id, field_name, name) == value)

        await until(holds)

    async def equals_org(self, name: str = "Contact") -> bool:
        """The replica's live rows are the org's, value by value."""
        spec = self.inbound.catalog.specs[name]
        live = {i: r for i, r in self.org.rows[name].items() if not r["IsDeleted"]}
        ids = await self.run(lambda unit: unit.live_ids(spec, None, None, 100_000))
        stored = await self.run(lambda unit: unit.records(spec, ids))
        wanted = {i: {f.name: row[f.name] for f in spec.fields} for i, row in live.items()}
        return {i: dict(r.values) for i, r in stored.items()} == wanted

    @asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[None]:
        """Run the jobs (all, or those named) meanwhile."""
        jobs = self.inbound.jobs()
        tasks = [asyncio.create_task(jobs[f"inbound.{n}"](), name=n) for n in names or [j[8:] for j in jobs]]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


def hole_messages(hole: Hole) -> Sequence[Message]:
    state = "open" if hole.closed_ms is None else "closed"
    return (Message(topic=f"hole/{hole.object}", payload=f"{state} {hole.reason} {hole.corrected}".encode()),)


@asynccontextmanager
async def opened(  # what tests vary
    path: Path,
    org: FakeOrg,
    *,
    source: FakeSource | None = None,
    wanted: Mapping[str, Sequence[str] | Literal["all"]] | None = None,
    load: LoadRules | None = None,
    intervals_s: Mapping[str, float] | None = None,
    streaming: bool = True,
    clock_ms: Callable[[], int] = lambda: 1_795_368_500_000,
) -> AsyncIterator[Way]:
    """The way with its catalog started; jobs run where a test runs them."""
    source = source or FakeSource()
    wanted = wanted or {"Contact": CONTACT_FIELDS}
    rounds: list[Round] = []
    applied: list[Applied] = []
    progress: list[tuple[str, int, int]] = []

    async def on_round(done: Round) -> None:
        rounds.append(done)

    async with Database(path) as database:
        inbound = Inbound(
            InboundRules(
                wanted=wanted,
                backoff_max_s=0.05,
                load=load or LoadRules(bulk_threshold=20_000, publish_backfill=False, subscribe_wait_s=0.05),
                poll=PollRules(
                    intervals_s=intervals_s or dict.fromkeys(wanted, 900.0), lookback_ms=300_000, stream_wait_s=0.05
                ),
                repair=RepairRules(verify_interval_ms=24 * 3600 * 1000),
                stream=STREAM if streaming else None,
            ),
            Outlets(
                on_round=on_round,
                on_applied=applied.append,
                hole_messages=hole_messages,
                calls=org.calls_for,
                progress=lambda name, done, total: progress.append((name, done, total)),
            ),
            org=org,
            replica=database,
            source=source if streaming else None,
            now_ms=clock_ms,
            rng=random.Random(7),  # jitter
        )
        await inbound.start()
        yield Way(org, source, database, inbound, rounds, applied, progress)


async def loaded(way: Way) -> None:
    """Load every object."""
    for name in way.inbound.catalog.specs:
        await way.inbound.loader.load(name)
