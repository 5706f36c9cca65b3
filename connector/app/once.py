"""One load and catch-up, or one comparison with the org, without stream and broker."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from connector.app.clock import wall_clock_ms
from connector.app.indexing import index_objects, settle_objects
from connector.app.org import opened_org
from connector.app.rules import inbound_rules
from connector.inbound.engine import Inbound, Outlets
from connector.inbound.reconcile import Reconciled
from connector.inbound.rounds import Round
from connector.inbound.snapshot import Progress
from connector.mesh.envelope import Envelope
from connector.mesh.topics import Topics
from connector.settings import Settings
from connector.store.database import Database


async def sync_once(settings: Settings, objects: Sequence[str] | None, progress: Progress) -> Sequence[Round]:
    """Load what is not loaded, catch up on the rest, and end.

    Changes go into the log; the daemon publishes them when it starts.

    Args:
        settings: With the secrets to log in.
        objects: Only these; None: every synced object.
        progress: Gets object, rows done and rows in total.

    Raises:
        ConnectorError: It did not work; what was done stays.
    """
    rounds: list[Round] = []

    async def ended(done: Round) -> None:
        rounds.append(done)

    if objects:
        settings = settings.model_copy(update={"sync": settings.sync.model_copy(update={"objects": tuple(objects)})})
    async with Database(settings.storage.path) as database, _inbound(settings, database, progress, ended) as inbound:
        for name in inbound.catalog.specs:
            await inbound.loader.load(name)
        await inbound.sync()
        await index_objects(database, list(inbound.catalog.specs))
        await settle_objects(database, list(inbound.catalog.specs))
    return rounds


async def verify_once(
    settings: Settings, objects: Sequence[str], progress: Progress, *, repair: bool, allow_deletions: Sequence[str]
) -> Sequence[Reconciled]:
    """Compare objects with the org, and end; see `Inbound.verify`.

    Raises:
        ConnectorError: It did not work; what was repaired stays.
    """

    async def ended(_done: Round) -> None:
        """The outcome says more."""

    async with Database(settings.storage.path) as database, _inbound(settings, database, progress, ended) as inbound:
        return await inbound.verify(objects, repair=repair, allow_deletions=allow_deletions)


@asynccontextmanager
async def _inbound(
    settings: Settings, database: Database, progress: Progress, ended: Callable[[Round], Awaitable[None]]
) -> AsyncIterator[Inbound]:
    """The way from the org, its objects known and nothing running."""
    async with opened_org(settings, database) as org:
        await org.identify()
        inbound = Inbound(
            inbound_rules(settings, org.id),
            Outlets(
                on_round=ended,
                on_applied=lambda _applied: None,
                hole_messages=Envelope(Topics(root=settings.mqtt.root), node=settings.node.name).hole,
                calls=org.budget.made,
                progress=progress,
            ),
            org=org.rest,
            replica=database,
            source=None,
            now_ms=wall_clock_ms,
            rng=random.Random(),  # noqa: S311 - jitter, not secrets
        )
        await inbound.start()
        yield inbound
