"""What is old enough goes, a little at a time; and what cannot go, because somebody reads it, is told."""

import asyncio
from pathlib import Path

import structlog

from connector.app.clock import wall_clock_ms
from connector.app.rules import milliseconds
from connector.ports import Replica
from connector.settings import StorageSettings

log = structlog.get_logger()

RETENTION_EVERY_S = 60.0
RETENTION_ROWS = 500
# Twice what a WAL is cut to: it stays above that only while a reader keeps an old state in use.
MUCH_WAL_BYTES = 64 * 1024 * 1024


async def keep_trimmed(replica: Replica, storage: StorageSettings) -> None:
    """Trim the database by `storage.keep_deleted` and `storage.keep_changes`; does not end."""
    keep_deleted_ms, keep_changes_ms = milliseconds(storage.keep_deleted), milliseconds(storage.keep_changes)
    while True:
        removed = RETENTION_ROWS
        while removed >= RETENTION_ROWS:
            removed = await replica.run(
                lambda unit: unit.trim(wall_clock_ms(), keep_deleted_ms, keep_changes_ms, RETENTION_ROWS)
            )
        watch_wal(storage.path)
        await asyncio.sleep(RETENTION_EVERY_S)


def watch_wal(path: Path) -> None:
    """Warn of a WAL that readers do not let go: it grows as long as one of them stays in its transaction."""
    try:
        size_bytes = path.with_name(path.name + "-wal").stat().st_size
    except OSError:  # nothing was written since the last checkpoint
        return
    if size_bytes > MUCH_WAL_BYTES:
        log.warning("store.wal_grown", bytes=size_bytes)
