"""The wiring: settings in, running parts out. The only module that knows all others."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as distribution_version
from typing import Any

import orjson
import structlog

from connector.errors import ConfigError, StoreUnusable, TransientError
from connector.inbound.apply import Applied
from connector.inbound.engine import Inbound, InboundRules, Outlets
from connector.inbound.poll import PollRules
from connector.inbound.repair import RepairRules
from connector.inbound.rounds import Round
from connector.inbound.snapshot import LoadRules, Progress
from connector.inbound.stream import StreamRules
from connector.inbound.values import from_row
from connector.mesh.connection import MeshConnection
from connector.mesh.envelope import Envelope, health_message
from connector.mesh.router import Router
from connector.mesh.signals import Signals, asks_for_sync
from connector.mesh.topics import Incoming, Topics
from connector.model.command import Command, ConflictPolicy
from connector.model.message import Delivery, Message
from connector.model.objects import ObjectSpec
from connector.outbound.intake import CommandIntake, IntakeRules
from connector.outbound.validate import WriteRules
from connector.outbound.writer import CommandWriter, WriterRules
from connector.ports import Unit
from connector.salesforce.budget import ApiBudget
from connector.salesforce.cometd import CometdSource
from connector.salesforce.login import Session
from connector.salesforce.rest import RestClient
from connector.salesforce.token_store import FileTokenStore
from connector.serve.control import Actions, Control
from connector.serve.health import Health, LagWindow, ObjectNow, Observations, StreamNow, Troubles
from connector.serve.outbox import Outbox
from connector.serve.relay import Relay
from connector.serve.retained import RetainedMessages
from connector.settings import Settings
from connector.store.database import Database
from connector.supervise import Jobs, Stop, run_jobs

log = structlog.get_logger()

ORG_CURSOR = "org"
RETENTION_EVERY_S = 60.0
RETENTION_ROWS = 500
_SIGNAL_KINDS: Mapping[str, str] = {
    "load": "first_load",
    "reread": "first_load",
    "catch_up": "catch_up",
    "poll": "poll",
    "sync": "requested",
}


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Org:
    """The doors to the org, opened."""

    session: Session
    budget: ApiBudget
    rest: RestClient
    org_id: str


class Connector:
    """The daemon: everything opened, wired and run until told to stop."""

    def __init__(self, settings: Settings, database: Database, org: Org, *, rng: random.Random) -> None:
        """`database` and `org` are open."""
        self._settings = settings
        self._database = database
        self._org = org
        self._rng = rng
        self._now_ms = wall_clock_ms
        self._started_ms = self._now_ms()
        self._wake = asyncio.Event()
        self._topics = Topics(root=settings.mqtt.root, org_code=settings.node.org_code, target=settings.signals.target)
        self._envelope = Envelope(self._topics, node=settings.node.name)
        self._envelope.use_org(org.org_id)
        self._signals = Signals(
            self._topics,
            enabled=settings.signals.enabled,
            batch_interval_ms=_ms(settings.signals.batch_interval.total_seconds()),
        )
        self._outbox = Outbox(database, self._wake)
        self._troubles = Troubles(self._now_ms)
        self._lag = LagWindow()
        self._source = _source(settings, org)
        self._inbound = _inbound(
            settings,
            org,
            database,
            Outlets(
                on_round=self._round_ended,
                on_applied=self._applied,
                hole_messages=self._envelope.hole,
                calls=lambda purpose: int(org.budget.snapshot()["own"].get(purpose.value, 0)),
            ),
            source=self._source,
            rng=rng,
        )
        self._writer = self._made_writer()
        self._mesh = MeshConnection(
            settings.mqtt,
            settings.secrets,
            self._topics,
            node=settings.node.name,
            version=distribution_version("salesforce-sync"),
            now_ms=self._now_ms,
            rng=rng,
            backoff_max_s=settings.sync.backoff_max.total_seconds(),
        )
        self._relay = self._made_relay()
        self._health = Health(
            publisher=self._mesh,
            message=partial(health_message, self._topics),
            observe=self._observe,
            troubles=self._troubles,
            lag=self._lag,
            node=settings.node.name,
            started_ms=self._started_ms,
            now_ms=self._now_ms,
            interval_s=settings.health.interval.total_seconds(),
        )
        self._control = self._made_control()
        self._intake = self._made_intake()

    async def warn_of_limit(self, used: int, maximum: int) -> None:
        """The org's API use crossed the mark."""
        message = self._signals.api_use(
            used=used, maximum=maximum, warn_at=self._settings.limits.warn_at, now_ms=self._now_ms()
        )
        if message is not None:
            await self._outbox.send(message)

    async def run(self, stop: Stop) -> None:
        """Run until `stop` is asked for.

        Raises:
            ConnectorError: What is not to be waited out.
        """
        await self._inbound.start()
        async with self._mesh:
            self._mesh.on_connected.append(self._connected)
            self._mesh.on_disconnected.append(self._troubles.changed.set)
            router = Router(
                self._mesh,
                self._topics,
                {"command": self._on_command, "control": self._on_control, "signal": self._on_signal},
                store=self._outbox.send,
                rng=self._rng,
            )
            jobs = Jobs(
                intake={**self._inbound.jobs(), "mesh.router": router.run, "serve.control": self._control.run},
                outflow={"serve.relay": self._relay.run, "outbound.writer": self._writer.run},
                drain=self._drain,
                watch={
                    "mesh.connection": self._mesh.run,
                    "serve.health": self._health.run,
                    "salesforce.budget": self._org.budget.run,
                    "store.retention": self._retention,
                    "store.queued_commands": self._queued_commands,
                },
            )
            log.info("app.started", objects=list(self._settings.synced()), node=self._settings.node.name)
            await run_jobs(jobs, stop, rng=self._rng, backoff_max_s=self._settings.sync.backoff_max.total_seconds())
        log.info("app.stopped")

    # What the parts tell

    async def _round_ended(self, done: Round) -> None:
        for message in self._told_of(done):
            await self._outbox.send(message)

    def _told_of(self, done: Round) -> Iterator[Message]:
        """The signals of a round; a failure is told once per object and spell."""
        kind, now_ms = _SIGNAL_KINDS.get(done.kind, done.kind), self._now_ms()
        subjects: Sequence[str | None] = done.objects or (None,)
        for name in subjects:
            source = f"{kind}:{name}" if name else kind
            if done.error is None:
                self._troubles.clear(source)
                self._signals.recovered(kind, name)
                continue
            self._troubles.report(source, done.error)
            message = self._signals.sync_failed(kind=kind, object_name=name, error=done.error, now_ms=now_ms)
            if message is not None:
                yield message
        if done.error is None and done.kind in _SIGNAL_KINDS:
            message = self._signals.sync_complete(
                kind=kind,
                objects=done.objects,
                records=done.records,
                duration_s=done.duration_s,
                api_calls=done.api_calls,
                now_ms=now_ms,
            )
            if message is not None:
                yield message

    def _applied(self, applied: Applied) -> None:
        if applied.changes or applied.poll or applied.whole:
            self._wake.set()

    def _connected(self, forgotten: bool) -> None:
        self._relay.link_up(forgotten)
        self._health.link_up()

    def _drain(self) -> None:
        self._writer.drain()
        self._relay.finish()

    # Messages from the mesh

    async def _on_command(self, incoming: Incoming, delivery: Delivery) -> None:
        await self._intake.handle(incoming.subject, incoming.verb, delivery)

    async def _on_control(self, incoming: Incoming, delivery: Delivery) -> None:
        await self._control.handle(incoming.verb, delivery)

    async def _on_signal(self, _incoming: Incoming, delivery: Delivery) -> None:
        if asks_for_sync(self._topics, delivery.payload):
            await self._control.sync_signalled()
        else:
            log.info("signal.ignored", bytes=len(delivery.payload))

    # Parts that need several others

    def _made_writer(self) -> CommandWriter:
        settings = self._settings
        synced = settings.synced()
        return CommandWriter(
            replica=self._database,
            org=self._org.rest,
            catalog=self._inbound.catalog,
            read_values=_read_values,
            result=self._envelope.result,
            rules=WriterRules(
                owner={name: dict(o.owner) for name, o in synced.items()},
                external_id={name: o.external_id for name, o in synced.items() if o.external_id},
                backoff_max_s=settings.sync.backoff_max.total_seconds(),
            ),
            now_ms=self._now_ms,
            rng=self._rng,
            settled=self._wake.set,
        )

    def _made_intake(self) -> CommandIntake:
        settings = self._settings

        def stored() -> None:
            self._writer.wake()
            self._wake.set()

        return CommandIntake(
            replica=self._database,
            catalog=self._inbound.catalog,
            answers=self._envelope,
            rules=IntakeRules(
                objects={
                    name: WriteRules(
                        writable=o.writable,
                        fields=frozenset(o.writable_fields),
                        operations=frozenset(o.operations),
                        external_id=o.external_id,
                    )
                    for name, o in settings.synced().items()
                },
                on_conflict=ConflictPolicy(settings.commands.on_conflict),
                max_payload_bytes=int(settings.mqtt.max_payload),
            ),
            now_ms=self._now_ms,
            stored=stored,
        )

    def _made_relay(self) -> Relay:
        retain = self._settings.mqtt.retain_records
        retained = RetainedMessages(self._database, self._envelope, self._specs, retain_records=retain)
        return Relay(
            replica=self._database,
            publisher=self._mesh,
            codec=self._envelope,
            signals=self._signals,
            wake=self._wake,
            retain_records=retain,
            retained=retained.pages,
            observe_lag_ms=self._lag.add,
            now_ms=self._now_ms,
            rng=self._rng,
        )

    def _specs(self) -> Collection[ObjectSpec]:
        return self._inbound.catalog.specs.values()

    def _made_control(self) -> Control:
        async def sync(objects: Sequence[str] | None) -> Mapping[str, Any]:
            done = await self._inbound.sync(objects)
            return {
                "objects": list(done.objects),
                "records": done.records,
                "duration_s": round(done.duration_s, 3),
                "api_calls": done.api_calls,
            }

        async def verify(objects: Sequence[str] | None) -> Mapping[str, Any]:
            return {
                "objects": {
                    r.object: {"compared": r.compared, "drift": r.drift, "repaired": r.repaired, "held": r.held}
                    for r in await self._inbound.verify(objects)
                }
            }

        async def pause() -> None:
            self._inbound.pause()
            self._troubles.changed.set()

        async def resume() -> None:
            self._inbound.resume()
            self._troubles.changed.set()

        async def command(command_id: str) -> Mapping[str, Any] | None:
            found: Command | None = await self._database.run(lambda unit: unit.command(command_id))
            if found is None:
                return None
            document: Mapping[str, Any] = orjson.loads(self._envelope.result(found)[0].payload)
            return document

        return Control(
            self._topics,
            Actions(
                objects=lambda: self._settings.synced().keys(),
                sync=sync,
                pause=pause,
                resume=resume,
                status=self._health_document,
                command=command,
                verify=verify,
            ),
            send=self._outbox.send,
            max_payload_bytes=int(self._settings.mqtt.max_payload),
        )

    async def _health_document(self) -> Mapping[str, Any]:
        return await self._health.document()

    async def _observe(self) -> Observations:
        inbound = self._inbound
        counts, queues, version, holes = await self._database.run(
            lambda unit: _figures(unit, list(inbound.catalog.specs.values()))
        )
        source = inbound.stream_state
        api = self._org.budget.snapshot()
        streamed = self._settings.salesforce.stream != "off"
        return Observations(
            version=version,
            stream=StreamNow(
                state=source.status,
                transport=self._settings.salesforce.stream,
                since_ms=source.since_ms,
                last_frame_ms=self._source.status.last_frame_ms if self._source else None,
                last_event_ms=source.last_event_ms,
            ),
            objects={
                name: ObjectNow(
                    records=count,
                    streamed=streamed,
                    last_polled_ms=inbound.poller.states[name].polled_ms,
                    verified_ms=inbound.repairer.verified_ms.get(name),
                    drift=inbound.repairer.held.get(name, 0),
                    holes=holes.count(name),
                )
                for name, count in counts.items()
            },
            queues=queues,
            api_used=api["used"],
            api_max=api["max"],
            api_own=api["own"],
            mesh_refused=self._mesh.refused,
            parked_count=self._relay.parked_count,
        )

    # House-keeping

    async def _retention(self) -> None:
        keep_deleted_ms = _ms(self._settings.storage.keep_deleted.total_seconds())
        keep_changes_ms = _ms(self._settings.storage.keep_changes.total_seconds())
        while True:
            removed = RETENTION_ROWS
            while removed >= RETENTION_ROWS:
                removed = await self._database.run(
                    lambda unit: unit.trim(self._now_ms(), keep_deleted_ms, keep_changes_ms, RETENTION_ROWS)
                )
            await asyncio.sleep(RETENTION_EVERY_S)

    async def _queued_commands(self) -> None:
        """Wake the writer when another process has queued a command."""
        seen = await self._database.data_version()
        while True:
            await asyncio.sleep(0.2)
            now = await self._database.data_version()
            if now != seen:
                seen = now
                self._writer.wake()
                self._wake.set()


async def run_daemon(settings: Settings, stop: Stop) -> None:
    """The daemon, from settings to the end.

    Raises:
        ConnectorError: What is not to be waited out; at the first start also an org that cannot be reached.
    """
    rng = random.Random()  # noqa: S311 - jitter, not secrets
    async with Database(settings.storage.path) as database, AsyncExitStack() as stack:
        warn: list[Callable[[int, int], Any]] = []

        async def on_warning(used: int, maximum: int) -> None:
            for told in warn:
                await told(used, maximum)

        org = await stack.enter_async_context(opened_org(settings, database, on_warning))
        connector = Connector(settings, database, org, rng=rng)
        warn.append(connector.warn_of_limit)
        await connector.run(stop)


async def sync_once(settings: Settings, objects: Sequence[str] | None, progress: Progress) -> Sequence[Round]:
    """Load what is not loaded, catch up on the rest, and end; without stream and broker.

    Changes go into the log; the daemon publishes them when it starts.

    Raises:
        ConnectorError: It did not work.
    """
    rounds: list[Round] = []

    async def ended(done: Round) -> None:
        rounds.append(done)

    async def ignored(_used: int, _maximum: int) -> None:
        return

    chosen = settings.model_copy(update={"sync": settings.sync.model_copy(update={"objects": tuple(objects or ())})})
    async with Database(settings.storage.path) as database, opened_org(settings, database, ignored) as org:
        inbound = _inbound(
            chosen if objects else settings,
            org,
            database,
            Outlets(
                on_round=ended,
                on_applied=lambda _applied: None,
                hole_messages=lambda _hole: (),
                calls=lambda purpose: int(org.budget.snapshot()["own"].get(purpose.value, 0)),
                progress=progress,
            ),
            rng=random.Random(),  # noqa: S311 - jitter, not secrets
            source=None,
        )
        await inbound.start()
        for name in inbound.catalog.specs:
            await inbound.loader.load(name)
        await inbound.sync()
    return rounds


@asynccontextmanager
async def opened_org(
    settings: Settings, database: Database, on_warning: Callable[[int, int], Any]
) -> AsyncIterator[Org]:
    """Log in and open the doors to the org.

    Raises:
        LoginRefused: The org refuses the credentials.
        TransientError: It cannot be reached and has never been, so its id is not known.
        StoreUnusable: The replica is another org's.
    """
    salesforce = settings.salesforce
    store = FileTokenStore(settings.storage.path.with_name("refresh_token.json"))
    session = Session(salesforce, settings.secrets, settings.auth_flow(), now_ms=wall_clock_ms, store=store)
    budget = ApiBudget(settings.limits, database, now_ms=wall_clock_ms, on_warning=on_warning)
    rest = RestClient(session, budget, api_version=salesforce.api_version, timeout_s=salesforce.timeout.total_seconds())
    async with session, budget, rest:
        org_id = await _org_id(session, database)
        yield Org(session=session, budget=budget, rest=rest, org_id=org_id)


async def _org_id(session: Session, database: Database) -> str:
    """The org's id, pinned to the replica: records and positions of two orgs must not mix."""
    known = await database.run(lambda unit: unit.cursor(ORG_CURSOR))
    try:
        told: str = (await session.token()).org_id
    except TransientError as error:
        if known is None:
            raise
        log.warning("app.org_unreachable", error=str(error))
        return known
    if known is None:
        await database.run(lambda unit: unit.set_cursor(ORG_CURSOR, told, wall_clock_ms()))
    elif known != told:
        raise StoreUnusable(f"the replica holds org {known}, the login is of org {told}: set another storage.path")
    return told


def _source(settings: Settings, org: Org) -> CometdSource | None:
    salesforce = settings.salesforce
    if salesforce.stream == "pubsub":
        raise ConfigError("salesforce.stream = 'pubsub': not available in this version; expected cometd or off")
    if salesforce.stream == "off":
        return None
    return CometdSource(
        org.session, channel=salesforce.channel, api_version=salesforce.api_version, now_ms=wall_clock_ms
    )


def _inbound(
    settings: Settings,
    org: Org,
    database: Database,
    outlets: Outlets,
    *,
    source: CometdSource | None,
    rng: random.Random,
) -> Inbound:
    salesforce, sync = settings.salesforce, settings.sync
    backoff_max_s = sync.backoff_max.total_seconds()
    return Inbound(
        InboundRules(
            wanted={name: o.fields for name, o in settings.synced().items()},
            backoff_max_s=backoff_max_s,
            load=LoadRules(bulk_threshold=sync.bulk_threshold, publish_backfill=sync.publish_backfill),
            poll=PollRules(
                intervals_s={name: settings.poll_interval(name).total_seconds() for name in settings.synced()},
                lookback_ms=_ms(sync.lookback.total_seconds()),
            ),
            repair=RepairRules(verify_interval_ms=_ms(sync.verify_interval.total_seconds())),
            stream=StreamRules(
                transport=salesforce.stream,
                channel=salesforce.channel,
                org_id=org.org_id,
                batch_size=sync.batch_size,
            ),
        ),
        outlets,
        org=org.rest,
        replica=database,
        source=source,
        now_ms=wall_clock_ms,
        rng=rng,
    )


def _read_values(spec: ObjectSpec, row: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    record = from_row(spec, row)
    return record.values, record.modified_ms


def _figures(unit: Unit, specs: Sequence[ObjectSpec]) -> tuple[dict[str, int], Mapping[str, int], int, list[str]]:
    counts = {spec.name: unit.count(spec) for spec in specs}
    return counts, unit.queue_depths(), unit.last_version(), [hole.object for hole in unit.open_holes()]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
