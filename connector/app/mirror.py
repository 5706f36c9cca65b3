"""The mirror as a process: one connection to the mesh, one database, one copy of a replica."""

import asyncio
import contextlib
import random
from functools import partial
from importlib.metadata import version as distribution_version

import structlog

from connector.app.clock import wall_clock_ms
from connector.app.indexing import keep_indexed
from connector.app.org import ORG_CURSOR
from connector.app.proving import prove
from connector.app.retention import keep_trimmed
from connector.app.supervise import Jobs, Stop, run_jobs
from connector.errors import LinkDown, PoisonError, StoreUnusable
from connector.mesh.connection import MeshConnection
from connector.mesh.envelope import mirror_message
from connector.mesh.roles import mirror_role
from connector.mesh.topics import Topics
from connector.mirror.mirror import Mirror, MirrorRules
from connector.mirror.questions import Questions
from connector.ports import Unit
from connector.settings import Settings
from connector.store.database import Database

log = structlog.get_logger()


async def run_mirror(settings: Settings, stop: Stop) -> None:
    """The mirror, from settings to the end.

    Raises:
        ConnectorError: What is not to be waited out.
    """
    async with Database(settings.storage.path, read_later=True) as database:
        await database.run(partial(_refuse_connectors, settings))
        await MirrorProcess(settings, database).run(stop)


def _refuse_connectors(settings: Settings, unit: Unit) -> None:
    if unit.cursor(ORG_CURSOR) is not None:
        raise StoreUnusable(
            f"{settings.storage.path} is a connector's own replica, not a mirror's: set another storage.path"
        )


class MirrorProcess:
    """All parts, wired to one another."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """`database` is open."""
        self._settings = settings
        self._database = database
        self._rng = random.Random()  # noqa: S311 - jitter, not secrets
        self._topics = Topics(root=settings.mqtt.root)
        self._version = distribution_version("salesforce-sync")
        role = mirror_role(settings.mqtt, self._topics, node=settings.node.name, version=self._version)
        self._inbox = self._topics.inbox(role.client_id)
        backoff_max_s = settings.sync.backoff_max.total_seconds()
        self._mesh = MeshConnection(
            settings.mqtt,
            settings.secrets,
            role,
            now_ms=wall_clock_ms,
            rng=self._rng,
            backoff_max_s=backoff_max_s,
        )
        self._finishing = False
        self._questions = Questions(self._mesh, self._topics, self._inbox, wall_clock_ms)
        self._mirror = Mirror(
            replica=database,
            questions=self._questions,
            rules=MirrorRules(check_s=settings.health.interval.total_seconds(), backoff_max_s=backoff_max_s),
            now_ms=wall_clock_ms,
            rng=self._rng,
        )

    async def run(self, stop: Stop) -> None:
        """Run until `stop` is asked for.

        Raises:
            ConnectorError: What is not to be waited out.
        """
        async with self._mesh:
            self._mesh.on_connected.append(lambda _forgotten: self._mirror.link_up())
            self._mesh.on_disconnected.append(self._mirror.link_down)
            log.info("mirror.started", node=self._settings.node.name, root=self._settings.mqtt.root)
            backoff_max_s = self._settings.sync.backoff_max.total_seconds()
            await run_jobs(self._jobs(), stop, rng=self._rng, backoff_max_s=backoff_max_s)
        log.info("mirror.stopped", version=self._mirror.version)

    def _jobs(self) -> Jobs:
        return Jobs(
            intake={"mirror.copy": self._mirror.run, "mirror.receive": self._receive},
            outflow={"mirror.tell": self._tell},
            drain=self._finish,
            watch={
                "mesh.connection": self._mesh.run,
                "store.prove": partial(prove, self._database),
                "store.retention": partial(keep_trimmed, self._database, self._settings.storage),
                "store.indexes": partial(
                    keep_indexed, self._database, lambda: self._mirror.copied, lambda _unit, _name: True
                ),
            },
        )

    def _finish(self) -> None:
        self._finishing = True
        self._mirror.changed.set()

    async def _receive(self) -> None:
        """Hand out what arrives. It is acknowledged at once: what is lost with this process is asked for again."""
        changes = self._topics.changes.removesuffix("#")
        async for delivery in self._mesh.deliveries():
            if delivery.topic == self._inbox:
                self._questions.take(delivery.payload)
            elif delivery.topic == self._topics.status:
                self._mirror.take_status(delivery)
            elif delivery.topic.startswith(changes):
                self._mirror.take_change(delivery)
            self._mesh.acknowledge(delivery)

    async def _tell(self) -> None:
        """Publish how the mirror is, retained: with every change of state, and every `health.interval`."""
        since_ms, mirror = wall_clock_ms(), self._mirror
        state = mirror.state
        while not self._finishing:
            if mirror.state != state:
                state, since_ms = mirror.state, wall_clock_ms()
                log.info("mirror.state_changed", state=state, version=mirror.version)
            mirror.changed.clear()
            message = mirror_message(
                self._topics,
                state=state,
                node=self._settings.node.name,
                version=self._version,
                since_ms=since_ms,
                at_version=mirror.version,
                as_of_ms=mirror.as_of_ms,
            )
            with contextlib.suppress(LinkDown):  # its return sets the state
                try:
                    await self._mesh.publish(message)
                except PoisonError as error:
                    log.error("mirror.state_refused", error=str(error))  # noqa: TRY400 - the reason says it all
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.health.interval.total_seconds()):
                    await mirror.changed.wait()
