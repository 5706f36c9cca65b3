"""How long reading beside the writer may take of the machine, and of the WAL."""

import threading
import time
from pathlib import Path

from connector.store.session import WAL_BYTES

# A reader keeps what was committed since it began in the WAL: copied back, perhaps, but in its way. Half as much again
# as it usually has is allowed.
MOST_WAL_BYTES = WAL_BYTES * 3 // 2
_TURN_S = 0.005
# So many times as long as it has worked it rests.
_REST = 3


class Pace:
    """Asked by a thread that reads, several times in a millisecond; set `stop` and it ends.

    The thread rests here, rather than to have a lower priority: SQLite's and Python's own locks would then be held by
    a thread that does not get its turn.
    """

    def __init__(self, path: Path) -> None:
        self.stop = threading.Event()
        self._wal = path.with_name(path.name + "-wal")
        self._since_s = time.monotonic()

    def interrupted(self) -> bool:
        """Rest, if it is time to; whether to give up."""
        worked_s = time.monotonic() - self._since_s
        if worked_s >= _TURN_S:
            if self._wal_bytes() > MOST_WAL_BYTES:
                return True
            self.stop.wait(worked_s * _REST)
            self._since_s = time.monotonic()
        return self.stop.is_set()

    def _wal_bytes(self) -> int:
        try:
            return self._wal.stat().st_size
        except OSError:  # nothing was written since it was copied back
            return 0
