"""What the disk alone takes for a write that must be on it: no daemon that commits each change can be quicker."""

import os
import time
from pathlib import Path

# As the daemon's WAL: written over, not made longer, so that the file system has nothing else to write down.
_FILE_BYTES = 8 * 1024 * 1024
_WRITTEN = b"x" * 4096


def writes_ms(directory: Path, rate: int, count: int) -> list[float]:
    """Write so many times, so often a second, and wait for the disk each time; from when each was due to its end.

    From when it was due: while the disk stalls all that becomes due waits, as changes do.
    """
    path = directory / "disk"
    taken_ms: list[float] = []
    with path.open("wb") as file:
        file.write(bytes(_FILE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        began_s = time.monotonic()
        for number in range(count):
            due_s = began_s + number / rate
            time.sleep(max(0.0, due_s - time.monotonic()))
            os.pwrite(file.fileno(), _WRITTEN, number * len(_WRITTEN) % _FILE_BYTES)
            os.fdatasync(file.fileno())
            taken_ms.append((time.monotonic() - due_s) * 1000)
    path.unlink()
    return taken_ms
