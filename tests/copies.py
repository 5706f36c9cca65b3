"""A replica of a local org in this process, kept by the way's own jobs over the real doors, for tests."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from connector.devorg.objects.residents import INTEGRATION_USER_ID
from connector.devorg.records.transaction import Transaction
from connector.devorg.server import DevOrg
from connector.inbound.engine import Inbound, InboundRules, Outlets
from connector.inbound.poll import PollRules
from connector.inbound.position import StreamRules
from connector.inbound.reading import from_row
from connector.inbound.repair import RepairRules
from connector.inbound.rounds import Round
from connector.inbound.snapshot import LoadRules
from connector.model.change import Change
from connector.model.ids import RecordId
from connector.model.record import StoredRecord
from connector.ports import Hole, Purpose, Unit
from connector.salesforce.cometd import CometdSource
from connector.salesforce.cometd_watch import CometdLimits
from connector.salesforce.login import Session
from connector.salesforce.pubsub import PubSubSource
from connector.salesforce.pubsub_client import PubSubLimits
from connector.store import Database
from tests.orgs import ORG_ID, VERSION, Door, now_ms, org_session
from tests.orgs import opened as opened_door
from tests.waiting import until
from tests.way import hole_messages

OBJECTS = ("Account", "Contact", "Lead", "Opportunity")
ORIGIN = "com/salesforce/api/rest/58.0"
CHANNEL = "/data/ChangeEvents"
LIMITS = CometdLimits(hold_s=2, margin_s=1, request_s=2, close_s=1, healthy_s=0.0)
PUBSUB_LIMITS = PubSubLimits(request_s=2, settle_s=1, reached_every_s=0.1, healthy_s=0.0)
TRANSPORTS = ("cometd", "pubsub")
ALL_JOBS = ("stream", "load", "poll", "repair")


@dataclass
class Copy:
    """A replica of the local org that is being kept."""

    org: DevOrg
    door: Door
    database: Database
    inbound: Inbound
    rounds: list[Round] = field(default_factory=list)

    def update(self, name: str, ids: str | Sequence[str], *each: Mapping[str, Any], announce: bool = True) -> None:
        """Write these values to the records, one after the other, in one transaction."""
        with self.org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN, announce=announce) as transaction:
            for values in each:
                for record_id in [ids] if isinstance(ids, str) else ids:
                    transaction.update(name, record_id, values)

    def write(self, work: Callable[[Transaction], Any], **options: bool) -> Any:
        """One transaction in the org."""
        with self.org.ctx.org.transaction(INTEGRATION_USER_ID, ORIGIN, **options) as transaction:
            return work(transaction)

    async def rows(self, name: str) -> dict[str, Mapping[str, Any]]:
        """The replica's live records."""
        spec = self.inbound.catalog.specs[name]
        ids = await self.database.run(lambda unit: unit.live_ids(spec, None, None, 100_000))
        return {i: r.values for i, r in (await self.database.run(lambda unit: unit.records(spec, ids))).items()}

    async def ids(self, name: str) -> list[str]:
        return sorted(await self.rows(name))

    async def row(self, name: str, record_id: str) -> StoredRecord | None:
        """One record, deleted or not."""
        spec, wanted = self.inbound.catalog.specs[name], RecordId(record_id)
        return (await self.database.run(lambda unit: unit.records(spec, [wanted]))).get(wanted)

    async def value(self, name: str, record_id: str, field_name: str) -> Any:
        """A field of a live record; None where there is none."""
        row = await self.row(name, record_id)
        return None if row is None or row.deleted_ms is not None else row.values.get(field_name)

    async def until_value(self, name: str, record_id: str, field_name: str, value: Any) -> None:
        async def holds() -> bool:
            return bool(await self.value(name, record_id, field_name) == value)

        await until(holds, 10)

    async def difference(self, *, but: Collection[str] = ()) -> dict[str, Any]:
        """What differs, by object, id and field; stamps that no event brings aside."""
        found: dict[str, Any] = {}
        for name, spec in self.inbound.catalog.specs.items():
            page = await self.door.rest.query(
                f"SELECT {', '.join(spec.read_fields())} FROM {name}",  # noqa: S608  # API names
                Purpose.VERIFY,
            )
            reads = [from_row(spec, row) for row in page.records]
            org: dict[str, Mapping[str, Any]] = {r.id: r.values for r in reads}
            here = await self.rows(name)
            for i in {*org, *here}:
                theirs, ours = org.get(i), here.get(i)
                if theirs is None or ours is None:
                    found[f"{name}/{i}"] = "missing" if ours is None else "too many"
                else:
                    wrong = {n: (v, ours[n]) for n, v in theirs.items() if v != ours[n] and n not in but}
                    found |= {f"{name}/{i}": wrong} if wrong else {}
        return found

    async def settled(self, *, but: Collection[str] = ()) -> None:
        """Return once replica and org are equal; fails with the difference."""

        async def equal() -> bool:
            return not await self.difference(but=but)

        with suppress(TimeoutError):
            await until(equal, 10)
        assert await self.difference(but=but) == {}

    async def changes(self, record_id: str | None = None) -> list[Change]:
        """The changes of a record, or all of them; nothing is published in these tests."""
        found = await self.database.run(lambda unit: unit.unpublished(100_000))
        return [c for c in found if record_id in (None, c.id)]

    async def until_changes(self, record_id: str, count: int) -> list[Change]:
        """So many changes of a record, at least."""

        async def told() -> bool:
            return len(await self.changes(record_id)) >= count

        await until(told, 10)
        return await self.changes(record_id)

    async def holes(self) -> Sequence[Hole]:
        """The open ones."""
        return await self.database.run(lambda unit: unit.open_holes())

    async def until_told(self, start: str) -> list[str]:
        """What was told of holes, once there is a line that begins so (`closed replay_id_lost`)."""

        async def told() -> bool:
            return any(line.startswith(start) for line in await self.hole_messages())

        await until(told, 10)
        return await self.hole_messages()

    async def hole_messages(self) -> list[str]:
        """What was told of holes, in order: `Contact open replay_id_lost 0`."""

        def work(unit: Unit) -> list[str]:
            unit.mark_published(unit.last_version(), 0)
            found = [m.message for m in unit.due(1000)]
            return [f"{m.topic.removeprefix('hole/')} {m.payload.decode()}" for m in found if "hole/" in m.topic]

        return await self.database.run(work)

    async def until_live(self) -> None:
        """Return once the stream is subscribed."""
        await until(lambda: self.inbound.stream_state.status == "live", 10)

    def calls(self) -> Mapping[str, int]:
        """API calls so far, by purpose."""
        told: Mapping[str, int] = self.door.budget.snapshot()["own"]
        return dict(told)


def change_source(
    org: DevOrg,
    session: Session,
    transport: str,
    channel: str,
    limits: CometdLimits | PubSubLimits | None,
    clock_ms: Callable[[], int],
) -> CometdSource | PubSubSource:
    """The stream over one of the two transports, with limits of its own kind or the usual ones."""
    if transport == "cometd":
        given = limits if isinstance(limits, CometdLimits) else LIMITS
        return CometdSource(session, channel=channel, api_version=VERSION, now_ms=clock_ms, limits=given)
    over = limits if isinstance(limits, PubSubLimits) else PUBSUB_LIMITS
    return PubSubSource(session, url=org.ctx.pubsub_url, channel=channel, now_ms=clock_ms, limits=over)


@asynccontextmanager
async def copied(  # what tests vary
    org: DevOrg,
    path: Path,
    *,
    streaming: bool = True,
    transport: str = "cometd",
    jobs: Sequence[str] = ALL_JOBS,
    wanted: Mapping[str, Sequence[str] | Literal["all"]] | None = None,
    channel: str = CHANNEL,
    limits: CometdLimits | PubSubLimits | None = None,
    clock_ms: Callable[[], int] = now_ms,
    bulk_threshold: int = 20,
    replay_all: bool = False,
    backoff_max_s: float = 0.2,
) -> AsyncIterator[Copy]:
    """A way with its jobs running; the poller comes round by request only."""
    rounds: list[Round] = []
    wanted = wanted or dict.fromkeys(OBJECTS, "all")

    async def on_round(done: Round) -> None:
        rounds.append(done)

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(path))
        session = org_session(org)
        door = await stack.enter_async_context(opened_door(session, replica=database))
        inbound = Inbound(
            InboundRules(
                wanted=wanted,
                backoff_max_s=backoff_max_s,
                load=LoadRules(bulk_threshold=bulk_threshold, publish_backfill=False, subscribe_wait_s=5),
                poll=PollRules(intervals_s=dict.fromkeys(wanted, 3600.0), lookback_ms=300_000, stream_wait_s=5),
                repair=RepairRules(verify_interval_ms=24 * 3600 * 1000),
                stream=StreamRules(
                    transport=transport, channel=channel, org_id=lambda: ORG_ID, batch_size=200, replay_all=replay_all
                ),
            ),
            Outlets(
                on_round=on_round,
                on_applied=lambda _applied: None,
                hole_messages=hole_messages,
                calls=lambda purpose: int(door.budget.snapshot()["own"].get(purpose.value, 0)),
            ),
            org=door.rest,
            replica=database,
            source=change_source(org, session, transport, channel, limits, clock_ms) if streaming else None,
            now_ms=clock_ms,
            rng=random.Random(5),
        )
        await inbound.start()
        running = inbound.jobs()
        tasks = [
            asyncio.create_task(running[f"inbound.{name}"](), name=name)
            for name in jobs
            if f"inbound.{name}" in running
        ]
        try:
            if "load" in jobs:
                await asyncio.wait_for(inbound.loader.finished(), 20)
            # What is edited in the second in which it was read is read again: not what these tests are about.
            org.ctx.org.advance(2)
            yield Copy(org, door, database, inbound, rounds)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
