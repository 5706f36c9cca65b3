"""What is looked at before a file is written to: one that is refused keeps its bytes. And what is read later."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw

from connector.errors import StoreUnusable
from connector.store.failures import damaged, translated
from connector.store.migrate import APPLICATION_ID, SCHEMA_VERSION, user_version

BUSY_TIMEOUT_MS = 5000
# How many steps of SQLite's machine lie between two questions whether to go on: half a millisecond, or less.
_STEPS = 5000


def sqlite_version() -> str:
    """Of the SQLite that reads and writes the replica."""
    return str(apsw.sqlite_lib_version())


def make_folder(path: Path) -> None:
    """Make the file's folder where it is missing.

    Raises:
        StoreUnusable: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnusable(f"{path.parent} cannot be made ({error.strerror}): set storage.path elsewhere") from error


def check_place(path: Path) -> None:
    """Look at the file and its folder without opening anything.

    Raises:
        StoreUnusable: It is not a file, or one of the two cannot be written.
    """
    if path.exists() and not path.is_file():
        raise StoreUnusable(f"{path} is not a file: set storage.path to one")
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise StoreUnusable(f"{place} is read-only for this user: check its owner, mode and file system")


def check_file(path: Path, *, thorough: bool) -> int:
    """Return the schema's version of a file that is ours, 0 if there is none yet; nothing is written to it.

    `thorough` reads the whole file for damage, at the speed of the disk.

    Raises:
        StoreUnusable: Damaged, of another program, or of a newer version.
        StoreBusy: Somebody keeps it locked.
    """
    if not path.exists():
        return 0
    with translated(path), closing(_reading(path)) as connection:
        return _checked(connection, path, thorough=thorough)


def read_whole(path: Path, interrupted: Callable[[], bool]) -> bool:
    """Read the whole file for damage, as it was at one moment; False if told to give up.

    Meanwhile others write; the WAL cannot be used anew until it ends.

    Args:
        path: A replica of ours.
        interrupted: Asked often, on the thread that reads: whether to give up. Reading stands still until it answers.

    Raises:
        StoreUnusable: Damaged.
    """
    with translated(path), closing(_reading(path)) as connection:
        connection.set_progress_handler(interrupted, _STEPS)
        try:
            _read(connection, path)
        except apsw.InterruptError:
            return False
        return True


def _reading(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def _checked(connection: apsw.Connection, path: Path, *, thorough: bool) -> int:
    version = user_version(connection)
    application = connection.execute("PRAGMA application_id").get
    if application != APPLICATION_ID:
        if application or version or connection.execute("SELECT count(*) FROM sqlite_schema").get:
            raise StoreUnusable(f"{path} is a database of another program: set storage.path to another file")
        return 0
    if version > SCHEMA_VERSION:
        raise StoreUnusable(
            f"{path} was written by a newer salesforce-sync (schema {version}, this one knows {SCHEMA_VERSION}): "
            "install that version again"
        )
    if thorough:
        _read(connection, path)
    return version


def _read(connection: apsw.Connection, path: Path) -> None:
    # The pages of a text index are read as any others. To have FTS5 read its words as well takes twice as long as all
    # else: that is left to the nightly backup. A table whose module is not known is passed over.
    connection.drop_modules(None)
    # Not by `mmap_size`, though that halves the time: an error of the disk would then be a SIGBUS.
    if (verdict := connection.execute("PRAGMA quick_check(1)").get) != "ok":
        raise damaged(path, " ".join(str(verdict).split()))
