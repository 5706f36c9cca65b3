"""The daemon: every part wired and run until told to stop. `opening.py` begins it."""

import asyncio
import random
from collections.abc import Collection, Sequence
from functools import partial
from importlib.metadata import version as distribution_version

import structlog

from connector.app.actions import control_actions
from connector.app.clock import wall_clock_ms
from connector.app.indexing import keep_indexed
from connector.app.looking import CountedAnswers, metrics_jobs, metrics_of, page_jobs
from connector.app.notify import ServiceManager, Watchdog
from connector.app.org import Org, change_source, opened_org
from connector.app.proving import prove
from connector.app.reports import Observer, freshness_of, load_token, round_messages
from connector.app.retention import keep_trimmed
from connector.app.rules import inbound_rules, milliseconds, outbound_rules, query_rules
from connector.app.starting import Starting
from connector.app.supervise import Jobs, Stop, run_jobs
from connector.inbound.apply import Applied
from connector.inbound.engine import Inbound, Outlets
from connector.inbound.reading import from_row
from connector.inbound.rounds import Round
from connector.mesh.connection import MeshConnection
from connector.mesh.envelope import Envelope, change_data, health_message
from connector.mesh.neighbours import Neighbours
from connector.mesh.roles import connector_role
from connector.mesh.router import Router
from connector.mesh.signals import Signals, asks_for_sync
from connector.mesh.topics import Incoming, Topics
from connector.model.message import Delivery, Message
from connector.model.objects import ObjectSpec
from connector.outbound.intake import CommandIntake
from connector.outbound.writer import CommandWriter
from connector.salesforce.warning import Limit, Warner
from connector.serve.control import Control
from connector.serve.health import Health, LagWindow, Troubles
from connector.serve.outbox import Outbox
from connector.serve.query.queries import WORKERS, Queries
from connector.serve.relay import Relay
from connector.serve.retained import RetainedMessages
from connector.serve.wake import Wake
from connector.settings import Settings
from connector.store.database import Database
from connector.store.readers import Readers

log = structlog.get_logger()

# How often commands that another process has queued are looked for.
QUEUED_LOOK_S = 0.2


async def run_parts(settings: Settings, database: Database, stop: Stop) -> None:
    """The daemon, from an open database to the end.

    Raises:
        ConnectorError: What is not to be waited out.
    """
    signalling = _Signalling(settings, database)
    async with opened_org(settings, database, signalling.warner()) as org:
        await Daemon(settings, database, org, signalling).run(stop)


class _Signalling:
    """Signals, and the outbox that they go into; needed before the org is known."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.wake = Wake()
        self.outbox = Outbox(database, self.wake)
        self.topics = Topics(root=settings.mqtt.root, org_code=settings.node.org_code, target=settings.signals.target)
        self.signals = Signals(
            self.topics,
            enabled=settings.signals.enabled,
            batch_interval_ms=milliseconds(settings.signals.batch_interval),
        )

    def warner(self) -> Warner:
        """How the crossing of a limit's mark is told."""
        return Warner(messages=self._limit_warning, told=self.wake.set)

    def _limit_warning(self, limit: Limit, used: int, maximum: int) -> Sequence[Message]:
        message = self.signals.limit_warning(limit, used=used, maximum=maximum, now_ms=wall_clock_ms())
        return () if message is None else (message,)


class Daemon:
    """All parts, wired to one another."""

    def __init__(self, settings: Settings, database: Database, org: Org, signalling: _Signalling) -> None:
        """`database` and `org` are open."""
        self._settings = settings
        self._database = database
        self._org = org
        self._rng = random.Random()  # noqa: S311 - jitter, not secrets
        self._wake = signalling.wake
        self._outbox = signalling.outbox
        self._topics = signalling.topics
        self._signals = signalling.signals
        self._envelope = Envelope(self._topics, node=settings.node.name)
        self._troubles = Troubles(wall_clock_ms)
        self._lag = LagWindow()
        self._metrics = metrics_of(settings, org)
        self._manager = ServiceManager()
        self._make_inbound()
        self._starting = Starting(org, self._inbound, self._troubles, self._envelope.use_org)
        self._make_outbound()
        self._make_mesh()
        self._make_serving()

    def _make_inbound(self) -> None:
        self._source = change_source(self._settings, self._org, self._troubles.changed.set)
        self._inbound = Inbound(
            inbound_rules(self._settings, self._org.id),
            Outlets(
                on_round=self._round_ended,
                on_applied=self._applied,
                hole_messages=self._envelope.hole,
                calls=self._org.budget.made,
            ),
            org=self._org.rest,
            replica=self._database,
            source=self._source,
            now_ms=wall_clock_ms,
            rng=self._rng,
        )

    def _make_outbound(self) -> None:
        answers = CountedAnswers(self._envelope, self._metrics)
        self._writer = CommandWriter(
            replica=self._database,
            org=self._org.rest,
            ingest=self._org.rest.ingest,
            catalog=self._inbound.catalog,
            read=from_row,
            result=answers.ended,
            rules=outbound_rules(self._settings),
            now_ms=wall_clock_ms,
            rng=self._rng,
            settled=self._wake.set,
        )
        self._intake = CommandIntake(
            replica=self._database,
            catalog=self._inbound.catalog,
            answers=answers,
            rules=outbound_rules(self._settings),
            now_ms=wall_clock_ms,
            stored=self._command_stored,
        )

    def _make_mesh(self) -> None:
        self._mesh = MeshConnection(
            self._settings.mqtt,
            self._settings.secrets,
            connector_role(
                self._settings.mqtt,
                self._topics,
                node=self._settings.node.name,
                version=distribution_version("salesforce-sync"),
            ),
            now_ms=wall_clock_ms,
            rng=self._rng,
            backoff_max_s=self._settings.sync.backoff_max.total_seconds(),
        )
        self._neighbours = Neighbours(self._settings.node.name, self._neighbours_changed)
        self._router = Router(
            self._mesh,
            self._topics,
            {
                "command": self._on_command,
                "query": self._on_query,
                "control": self._on_control,
                "signal": self._on_signal,
                "status": self._on_status,
            },
            store=self._outbox.send,
            rng=self._rng,
            many={"command": self._on_commands},
        )

    def _make_serving(self) -> None:
        retain = self._settings.mqtt.retain_records
        retained = RetainedMessages(self._database, self._envelope, self._specs, retain_records=retain)
        self._relay = Relay(
            replica=self._database,
            publisher=self._mesh,
            codec=self._envelope,
            signals=self._signals,
            wake=self._wake,
            retain_records=retain,
            retained=retained.pages,
            observe_lag_ms=self._observe_lag,
            now_ms=wall_clock_ms,
            rng=self._rng,
        )
        # One more than queries take: health must not wait for them.
        self._readers = Readers(self._settings.storage.path, WORKERS + 1)
        self._observer = Observer(
            transport=self._settings.salesforce.stream,
            database=self._database,
            readers=self._readers,
            org=self._org,
            inbound=self._inbound,
            source=self._source,
            refused_topics=lambda: self._mesh.refused,
            parked_count=lambda: self._relay.parked_count,
        )
        self._health = Health(
            publisher=self._mesh,
            message=partial(health_message, self._topics),
            observe=self._observer.observe,
            troubles=self._troubles,
            lag=self._lag,
            node=self._settings.node.name,
            started_ms=wall_clock_ms(),
            now_ms=wall_clock_ms,
            interval_s=self._settings.health.interval.total_seconds(),
        )
        self._queries = Queries(
            reader=self._readers,
            publisher=self._mesh,
            addresses=self._topics,
            change_data=change_data,
            freshness=partial(freshness_of, self._inbound),
            loaded=load_token,
            rules=query_rules(self._settings),
            now_ms=wall_clock_ms,
        )
        self._control = Control(
            self._topics,
            control_actions(
                objects=self._settings.synced().keys,
                inbound=self._inbound,
                database=self._database,
                health=self._health,
                state_changed=self._troubles.changed.set,
            ),
            send=self._outbox.send,
            max_payload_bytes=int(self._settings.mqtt.max_payload),
        )

    async def run(self, stop: Stop) -> None:
        """Run until `stop` is asked for.

        Raises:
            ConnectorError: What is not to be waited out.
        """
        await self._inbound.catalog.restore()
        async with self._readers, self._mesh:
            self._mesh.on_connected.append(self._connected)
            self._mesh.on_disconnected.append(self._troubles.changed.set)
            log.info("app.started", objects=list(self._settings.synced()), node=self._settings.node.name)
            backoff_max_s = self._settings.sync.backoff_max.total_seconds()
            await run_jobs(self._jobs(), stop, rng=self._rng, backoff_max_s=backoff_max_s)
        log.info("app.stopped")

    def _jobs(self) -> Jobs:
        return Jobs(
            intake={
                "app.starting": self._starting.run,
                **{name: self._starting.before(job) for name, job in self._inbound.jobs().items()},
                **({"salesforce.deliveries": self._starting.before(self._org.deliveries.run)} if self._source else {}),
                # Until then the broker keeps what is not acknowledged.
                "mesh.router": self._starting.before(self._router.run),
                "serve.control": self._control.run,
                "serve.query": self._queries.run,
            },
            outflow={"serve.relay": self._relay.run, "outbound.writer": self._starting.before(self._writer.run)},
            drain=self._drain,
            watch={
                "app.watchdog": self._watchdog().run,
                "mesh.connection": self._mesh.run,
                "serve.health": self._health.run,
                "salesforce.budget": self._org.budget.run,
                "store.prove": partial(prove, self._database),
                "store.retention": partial(keep_trimmed, self._database, self._settings.storage),
                "store.indexes": partial(keep_indexed, self._database, self._settings.synced),
                "store.queued_commands": self._queued_commands,
                **metrics_jobs(self._settings, self._metrics, self._readers, self._observer.observe, self._troubles),
                **page_jobs(self._settings, self._health),
            },
        )

    def _watchdog(self) -> Watchdog:
        return Watchdog(
            self._manager,
            turn=self._database.data_version,
            connection_hangs=self._mesh.hangs,
            status=self._status_line,
        )

    def _status_line(self) -> str:
        broker = "connected" if self._mesh.connected else "not connected"
        return f"stream {self._inbound.stream_state.status}, broker {broker}"

    # What the parts tell one another

    async def _round_ended(self, done: Round) -> None:
        for message in round_messages(done, self._signals, self._troubles, wall_clock_ms()):
            await self._outbox.send(message)
        if done.kind in ("load", "reread") and done.error is None and self._settings.mqtt.retain_records:
            self._relay.put_back()
        self._wake.set()  # a hole that the round opened or closed is announced though no record changed

    def _applied(self, applied: Applied) -> None:
        if applied.fresh:
            self._relay.offer(applied.fresh)
        elif applied.changes:
            self._wake.set()
        if applied.whole:  # a hole was announced
            self._wake.set()

    def _observe_lag(self, lag_ms: int) -> None:
        self._lag.add(lag_ms)
        self._metrics.observe_lag_ms(lag_ms)

    def _connected(self, forgotten: bool) -> None:
        self._relay.link_up(forgotten)
        self._health.link_up()

    def _command_stored(self) -> None:
        self._writer.wake()
        self._wake.set()

    def _drain(self) -> None:
        self._manager.tell("STOPPING=1", "STATUS=finishing what is under way")
        self._starting.drain()
        self._writer.drain()
        self._relay.finish()

    def _specs(self) -> Collection[ObjectSpec]:
        return self._inbound.catalog.specs.values()

    # Messages from the mesh

    async def _on_command(self, incoming: Incoming, delivery: Delivery) -> None:
        await self._intake.handle(incoming.subject, incoming.verb, delivery)

    async def _on_commands(self, arrived: Sequence[tuple[Incoming, Delivery]]) -> None:
        await self._intake.handle_many([(incoming.subject, incoming.verb, delivery) for incoming, delivery in arrived])

    async def _on_query(self, incoming: Incoming, delivery: Delivery) -> None:
        await self._queries.handle(incoming.subject, incoming.verb, delivery)

    async def _on_control(self, incoming: Incoming, delivery: Delivery) -> None:
        await self._control.handle(incoming.verb, delivery)

    async def _on_signal(self, _incoming: Incoming, delivery: Delivery) -> None:
        if asks_for_sync(self._topics, delivery.payload):
            await self._control.sync_signalled()
        else:
            log.info("signal.ignored", bytes=len(delivery.payload))

    async def _on_status(self, _incoming: Incoming, delivery: Delivery) -> None:
        self._neighbours.heard(delivery.payload)

    def _neighbours_changed(self, problem: str | None) -> None:
        if problem is None:
            self._troubles.clear("mesh")
        else:
            self._troubles.report("mesh", problem, person=True)

    # House-keeping

    async def _queued_commands(self) -> None:
        """Wake the writer when another process has queued a command."""
        seen = await self._database.data_version()
        while True:
            await asyncio.sleep(QUEUED_LOOK_S)
            now = await self._database.data_version()
            if now != seen:
                seen = now
                self._command_stored()
