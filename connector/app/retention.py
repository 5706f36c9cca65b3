"""What is old enough goes, a little at a time."""

import asyncio

from connector.app.org import wall_clock_ms
from connector.app.rules import milliseconds
from connector.ports import Replica
from connector.settings import StorageSettings

RETENTION_EVERY_S = 60.0
RETENTION_ROWS = 500


async def keep_trimmed(replica: Replica, storage: StorageSettings) -> None:
    """Trim the database by `storage.keep_deleted` and `storage.keep_changes`; does not end."""
    keep_deleted_ms, keep_changes_ms = milliseconds(storage.keep_deleted), milliseconds(storage.keep_changes)
    while True:
        removed = RETENTION_ROWS
        while removed >= RETENTION_ROWS:
            removed = await replica.run(
                lambda unit: unit.trim(wall_clock_ms(), keep_deleted_ms, keep_changes_ms, RETENTION_ROWS)
            )
        await asyncio.sleep(RETENTION_EVERY_S)
