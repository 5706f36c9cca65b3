"""The WAL is copied back into the file beside the writer, which meanwhile goes on.

SQLite would do it within the commit that makes the WAL long enough: a second or more from an SD card, in which nothing
is applied. Here another connection copies what is there; what was committed meanwhile, little, the writer copies itself
with its next commit, after which the WAL is begun anew.

Source: SQLite, "Write-Ahead Logging", section 3.3; "sqlite3_wal_hook"; "sqlite3_wal_checkpoint_v2".
"""

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import apsw

# Of a page each. A page that many changes touch is then written once for all.
WAL_FRAMES = 30_000
# A copying that the writer is so far ahead of is waited for: that bounds the WAL.
MOST_FRAMES = 2 * WAL_FRAMES


class WalCopy:
    """For one writer; `close` before the writer is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="walcopy")
        self._copying: Future[None] | None = None

    def committed(self, writer: apsw.Connection, database: str, frames: int) -> int:
        """To be the writer's WAL hook: called behind each commit with the length of the WAL."""
        if frames < WAL_FRAMES:
            return apsw.SQLITE_OK
        if self._copying is None:
            self._copying = self._thread.submit(self._copy)
        elif self._copying.done() or frames >= MOST_FRAMES:
            self._copying.result()
            self._copying = None
            with contextlib.suppress(apsw.Error):  # as SQLite's own does: a full disk is told by the next commit
                writer.wal_checkpoint(database)
        return apsw.SQLITE_OK

    def close(self) -> None:
        """Wait for a copying that is under way; there is no other one."""
        self._thread.shutdown()

    def _copy(self) -> None:
        with contextlib.suppress(apsw.Error), contextlib.closing(apsw.Connection(str(self._path))) as connection:
            connection.execute("PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(PASSIVE)").fetchall()
