"""Copies of the replica, taken beside a running daemon, and how one takes the replica's place.

A backup is a page by page copy of one moment (SQLite's online backup inside a read transaction, so that what others
write meanwhile does not make it begin anew), in rollback-journal mode, so that it is one file that opens anywhere, read
in full before it gets its name. A crash leaves a `.partial` file, which the next backup removes.

Source: SQLite, "SQLite Backup API", "PRAGMA integrity_check".
"""

import contextlib
import re
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import apsw

from connector.errors import StoreFull, StoreUnusable
from connector.store.checks import BUSY_TIMEOUT_MS, check_file, make_folder
from connector.store.failures import damaged, translated
from connector.store.locking import FileLock
from connector.store.migrate import APPLICATION_ID
from connector.store.names import quoted
from connector.store.queries import load
from connector.store.seal import synced
from connector.store.tables import objects
from connector.store.transaction import transaction

Progress = Callable[[int, int], None]

_SQL = load("restore")
_POSITIONS = load("positions")
_LOG = load("changelog")
_PAGES_PER_STEP = 1024  # 4 MB
# What a backup must leave free: the replica's own disk must not be filled by copies of it.
SPARE_BYTES = 200 * 1024**2
# A restored replica goes on at the next multiple of this: no number that was given out since the backup comes again.
_VERSION_LEAP = 1_000_000
_NAME = re.compile(r"salesforce-(\d{8}T\d{6}Z)\.db")
_STAMP = "%Y%m%dT%H%M%SZ"


def backup(path: Path, folder: Path, *, now_ms: int, progress: Progress = lambda _done, _total: None) -> Path:
    """Copy the replica into a file of its own in `folder`, and read the copy for damage; returns the copy.

    Args:
        path: The replica; a daemon may run.
        folder: Made where it is missing.
        now_ms: Milliseconds since the Unix epoch, UTC; names the copy.
        progress: Told the pages done and in total.

    Raises:
        StoreUnusable: There is no replica, or it is damaged, or of a newer version, or the copy is damaged.
        StoreFull: The folder's disk has no room for it.
    """
    if not check_file(path, thorough=False):
        raise StoreUnusable(f"{path}: there is no replica to back up")
    make_folder(folder / "any")
    for left in folder.glob("salesforce-*.db.partial*"):
        left.unlink()
    made = folder / f"salesforce-{datetime.fromtimestamp(now_ms / 1000, UTC).strftime(_STAMP)}.db"
    partial = made.with_name(made.name + ".partial")
    try:
        with translated(path), closing(_reading(path)) as source:
            _make_room(source, folder)
            _copy(source, partial, progress)
        _verify(partial)
        _settle(partial, made)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return made


def prune(folder: Path, *, before_ms: int) -> list[Path]:
    """Remove backups that are older; the newest one stays however old it is. Returns those removed."""
    before = datetime.fromtimestamp(before_ms / 1000, UTC).strftime(_STAMP)
    old = [path for path in backups(folder)[:-1] if _stamp(path) < before]
    for path in old:
        path.unlink()
    return old


def backups(folder: Path) -> list[Path]:
    """The backups in a folder, oldest first."""
    return sorted((path for path in folder.glob("salesforce-*.db") if _NAME.fullmatch(path.name)), key=_stamp)


def taken_ms(path: Path) -> int:
    """When a backup was taken, milliseconds since the Unix epoch, UTC."""
    return int(datetime.strptime(_stamp(path), _STAMP).replace(tzinfo=UTC).timestamp() * 1000)


def restore(copy: Path, path: Path) -> Path | None:
    """Put a copy of the backup in the replica's place; returns where the present replica was moved, if there was one.

    Changes get higher versions from here on than any that was given out, so that no consumer takes a new change for one
    that it has seen. A crash leaves either replica in place, whole, or none and the present one beside it.

    Raises:
        StoreLocked: A daemon works on the replica.
        StoreUnusable: The backup is damaged, of another program or of a newer version.
        StoreFull: There is no room for it.
    """
    path = path.resolve()
    make_folder(path)
    if not check_file(copy, thorough=True):
        raise StoreUnusable(f"{copy} holds no replica")
    lock = FileLock(path)
    lock.acquire()
    try:
        _verify(copy)
        coming = path.with_name(path.name + ".restoring")
        coming.unlink(missing_ok=True)
        _copied(copy, coming)
        _leap(coming, _last_version(path))
        aside = _set_aside(path)
        _settle(coming, path)
    finally:
        lock.release()
    return aside


def _reading(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def _make_room(source: apsw.Connection, folder: Path) -> None:
    needed = int(source.execute("PRAGMA page_count").get) * int(source.execute("PRAGMA page_size").get)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise StoreFull(f"{folder}: {free:,} bytes are free; the backup takes {needed:,} and leaves {SPARE_BYTES:,}")


def _copy(source: apsw.Connection, target: Path, progress: Progress) -> None:
    with closing(apsw.Connection(str(target))) as copy:
        copy.execute("PRAGMA synchronous = FULL").fetchall()
        # The transaction holds one moment for all steps. Writers go on; the WAL grows until it ends.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        with copy.backup("main", source, "main") as running:
            while not running.done:
                running.step(_PAGES_PER_STEP)
                progress(running.page_count - running.remaining, running.page_count)
        source.execute("ROLLBACK")
        copy.execute("PRAGMA journal_mode = DELETE").fetchall()


def _verify(copy: Path) -> None:
    """Open the copy as whoever needs it will, and read it in full."""
    with translated(copy), closing(_reading(copy)) as connection:
        verdict = connection.execute("PRAGMA integrity_check(1)").get
    if verdict != "ok":
        raise damaged(copy, " ".join(str(verdict).split()))


def _copied(copy: Path, target: Path) -> None:
    try:
        shutil.copyfile(copy, target)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise StoreFull(f"{target}: cannot be written ({error.strerror})") from error
    synced(target)


def _last_version(path: Path) -> int:
    """The newest version of the replica in place, of a newer schema too; 0 if it cannot be read any more."""
    if not path.exists():
        return 0
    try:
        with closing(_reading(path)) as connection:
            if connection.execute("PRAGMA application_id").get != APPLICATION_ID:
                return 0
            return int(connection.execute(_LOG["last_version"]).get or 0)
    except apsw.Error:
        return 0


def _leap(path: Path, seen: int) -> None:
    """Go on behind every version given out; what was not published when the backup was taken moves there, too."""
    with translated(path), closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA synchronous = FULL").fetchall()
        with transaction(connection):
            published = int(connection.execute(_LOG["published"]).get or 0)
            last = int(connection.execute(_LOG["last_version"]).get)
            base = (max(last, seen) // _VERSION_LEAP + 1) * _VERSION_LEAP
            bindings = {"shift": base - published, "published": published}
            for statement in ("changes", "blocks", "messages", "commands"):
                connection.execute(_SQL[statement], bindings)
            for table in objects(connection).values():
                name = quoted(table.table)
                # The names were checked when the table was made.
                connection.execute(
                    f"UPDATE {name} SET _version = _version + :shift WHERE _version > :published",  # noqa: S608
                    bindings,
                )
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            connection.execute(_POSITIONS["set"], ("published", str(base), at))


def _set_aside(path: Path) -> Path | None:
    """Move the replica in place out of the way, with its WAL; what it held can still be looked at.

    The WAL is copied back first, where the file can be opened at all: power may fail between two renames, and a file
    without its WAL lacks what was committed last.
    """
    if path.exists():
        with contextlib.suppress(apsw.Error), closing(apsw.Connection(str(path))) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    aside = path.with_name(f"{path.name}.before-restore-{time.strftime(_STAMP, time.gmtime())}")
    # A WAL alone, left by a restore that was cut off here, goes as well: it must not come to stand beside the backup.
    left = [suffix for suffix in ("", "-wal", "-shm") if path.with_name(path.name + suffix).exists()]
    for suffix in left:
        path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside if "" in left else None


def _settle(partial: Path, made: Path) -> None:
    """Give a finished file its name, on the disk as well."""
    synced(partial)
    partial.rename(made)
    synced(made.parent)


def _stamp(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    return found[1] if found else ""
