"""The replica read whole, once the start is over: it need not be read before that where it was closed sound."""

import asyncio
import time

import structlog

from connector.store.database import Database

log = structlog.get_logger()

# What came while the daemon was away is being applied first.
PROVE_AFTER_S = 5.0
PROVE_AGAIN_S = 600.0


async def prove(database: Database) -> None:
    """Read the replica for damage; returns when that is done.

    Raises:
        StoreUnusable: Damaged.
    """
    await asyncio.sleep(PROVE_AFTER_S)
    began_s = time.monotonic()
    while not await database.prove():
        log.info("store.reading_put_off", again_s=PROVE_AGAIN_S)
        await asyncio.sleep(PROVE_AGAIN_S)
        began_s = time.monotonic()
    log.info("store.read_whole", took_s=round(time.monotonic() - began_s, 1))
