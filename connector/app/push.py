"""Queued commands sent now: by the daemon if one runs, else by this process."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from connector.app.clock import wall_clock_ms
from connector.app.org import opened_org
from connector.app.queueing import CommandQueue
from connector.app.rules import inbound_rules, outbound_rules
from connector.errors import StoreLocked
from connector.inbound.catalog import Catalog
from connector.inbound.reading import from_row
from connector.mesh.envelope import Envelope
from connector.mesh.topics import Topics
from connector.outbound.writer import CommandWriter
from connector.settings import Settings
from connector.store import Database

LOOK_S = 0.1

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of the queue.

    Attributes:
        sent: Commands that have their end now and had not before.
        left: Those that have none yet: the org does not take them for now.
        by_daemon: A daemon runs, and sends them.
    """

    sent: int
    left: int
    by_daemon: bool


async def push(settings: Settings, timeout_s: float, progress: Progress) -> Pushed:
    """Send what is queued and wait for it.

    Args:
        settings: With the secrets to log in.
        timeout_s: What waits for a retry then is left.
        progress: Gets commands done and commands in total.

    Raises:
        ConnectorError: The org cannot be reached or refuses the login; everything stays queued.
    """
    with CommandQueue(settings) as queue:
        waiting = queue.open_count()
        if waiting == 0:
            return Pushed(0, 0, by_daemon=False)

        async def counted() -> int:
            return queue.open_count()

        try:
            async with _sending(settings):
                left = await _until_empty(counted, waiting, timeout_s, progress)
        except StoreLocked:
            left = await _until_empty(counted, waiting, timeout_s, progress)
            return Pushed(waiting - left, left, by_daemon=True)
    return Pushed(waiting - left, left, by_daemon=False)


@asynccontextmanager
async def _sending(settings: Settings) -> AsyncIterator[None]:
    """A writer of our own at work; it finishes what it has begun.

    Raises:
        StoreLocked: A daemon runs.
    """
    async with Database(settings.storage.path) as database, opened_org(settings, database) as org:
        await org.identify()
        wanted = inbound_rules(settings, org.id).wanted
        catalog = Catalog(org=org.rest, replica=database, wanted=wanted, now_ms=wall_clock_ms)
        await catalog.start()
        writer = CommandWriter(
            replica=database,
            org=org.rest,
            ingest=org.rest.ingest,
            catalog=catalog,
            read=from_row,
            result=Envelope(Topics(root=settings.mqtt.root), node=settings.node.name).result,
            rules=outbound_rules(settings),
            now_ms=wall_clock_ms,
            rng=random.Random(),  # noqa: S311 - jitter, not secrets
            settled=lambda: None,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(writer.run(), name="outbound.writer")
                try:
                    yield
                finally:
                    writer.drain()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors


async def _until_empty(count: Callable[[], Awaitable[int]], waiting: int, timeout_s: float, progress: Progress) -> int:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while True:
        left = await count()
        progress(max(0, waiting - left), waiting)
        if left == 0 or loop.time() >= deadline_s:
            return left
        await asyncio.sleep(LOOK_S)
