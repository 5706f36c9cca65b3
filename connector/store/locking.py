"""The lock that keeps a second daemon off the replica; readers and queued commands do not take it."""

import fcntl
import os
from pathlib import Path

from connector.errors import StoreLocked, StoreUnusable

_PID_BYTES = 20


class FileLock:
    """An advisory lock on `{path}.lock`, given back by the kernel when the process ends in whatever way.

    The lock file stays: whoever removed it could remove one that another process has just locked. It is a file of
    its own because closing any descriptor of the database would drop SQLite's own locks on it.

    Source: flock(2); SQLite, "How To Corrupt An SQLite Database File", section 2.2.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._database = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise at once.

        Raises:
            StoreLocked: Another process has it.
            StoreUnusable: The lock file cannot be made.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnusable(
                f"{self._path} cannot be made ({error.strerror}): the folder must be writable"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, _PID_BYTES).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f" (process {holder})" if holder.isdigit() else ""
            raise StoreLocked(
                f"{self._database} is in use by another salesforce-sync{who}: stop it, or set another storage.path"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; without one nothing happens."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
