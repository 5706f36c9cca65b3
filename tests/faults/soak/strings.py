"""What the runner pulls inside the daemon's process while that runs: its clock, its disk, and the moment of its death.

They lie in a small file that both have mapped into memory, so that nothing has to be said and waited for.
"""

import mmap
import os
import signal
import struct
from pathlib import Path
from typing import Any, Literal

import apsw

Name = Literal["clock_ms", "dies_in", "dies_after", "disk_full"]
"""`clock_ms`: how far the clock is off. `dies_in`: commits until SIGKILL, 0 for never. `dies_after`: once that commit
is made, else just before it. `disk_full`: the database cannot grow."""

_NAMES: tuple[Name, ...] = ("clock_ms", "dies_in", "dies_after", "disk_full")
_ONE = struct.Struct("<q")
_MOST_PAGES = 2**30
_CHECKPOINT_PAGES = 1000


class Strings:
    """The numbers by name; a file that is not there yet is made, with zeros."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_ONE.size * len(_NAMES)))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _ONE.size * len(_NAMES))

    def get(self, name: Name) -> int:
        """As it stands now."""
        (value,) = _ONE.unpack_from(self._memory, _NAMES.index(name) * _ONE.size)
        return int(value)

    def pull(self, name: Name, value: int) -> None:
        """Set it; the other process sees it at once."""
        _ONE.pack_into(self._memory, _NAMES.index(name) * _ONE.size, value)


def hold_the_database(strings: Strings) -> None:
    """Have every connection that this process opens from now on die and run full when it is told to."""
    apsw.connection_hooks.append(lambda connection: _Held(connection, strings).hold())


class _Held:
    """One connection."""

    def __init__(self, connection: apsw.Connection, strings: Strings) -> None:
        self._connection = connection
        self._strings = strings
        self._dying = False
        self._full = False
        self._begun = False

    def hold(self) -> None:
        self._connection.set_commit_hook(self._committing)
        self._connection.set_exec_trace(self._executing)

    def _committing(self) -> bool:
        """Before a commit; False lets it happen."""
        left = self._strings.get("dies_in")
        if left > 0:
            self._strings.pull("dies_in", left - 1)
        if left == 1:
            if not self._strings.get("dies_after"):
                os.kill(os.getpid(), signal.SIGKILL)
            self._dying = True
        return False

    def _committed(self, connection: apsw.Connection, _database: str, pages: int) -> int:
        if self._dying:
            os.kill(os.getpid(), signal.SIGKILL)
        if pages >= _CHECKPOINT_PAGES:  # what SQLite does by itself where nobody listens
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        return apsw.SQLITE_OK

    def _executing(self, _cursor: apsw.Cursor, sql: str, _bound: Any) -> bool:
        if not sql.startswith("BEGIN"):
            return True
        if not self._begun:
            self._begun = True
            self._connection.set_wal_hook(self._committed)  # `PRAGMA wal_autocheckpoint`, now behind us, takes it away
        full = bool(self._strings.get("disk_full"))
        if full != self._full:
            self._full = full
            pages = self._connection.execute("PRAGMA page_count").get if full else _MOST_PAGES
            self._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        return True
