"""The beginning of the daemon: what it needs is imported while the replica is opened."""

import asyncio
from contextlib import AsyncExitStack

from connector.app.supervise import Stop
from connector.settings import Settings
from connector.store.database import Database


async def run_daemon(settings: Settings, stop: Stop) -> None:
    """The daemon, from settings to the end.

    Raises:
        ConnectorError: What is not to be waited out.
    """
    async with AsyncExitStack() as stack:
        database = Database(settings.storage.path, read_later=True)
        opening = asyncio.create_task(stack.enter_async_context(database))
        await asyncio.sleep(0)  # it goes on in its thread
        from connector.app.daemon import run_parts  # noqa: PLC0415 - half a second: as long as 300 MB are read in

        await opening
        await run_parts(settings, database, stop)
