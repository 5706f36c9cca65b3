"""The connection that writes: opening, transactions, closing. Synchronous, for one thread at a time."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import apsw
import structlog

from connector.errors import StoreUnusable
from connector.ports import Unit
from connector.store.checks import BUSY_TIMEOUT_MS, check_file, check_place, make_folder
from connector.store.failures import translated
from connector.store.locking import FileLock
from connector.store.migrate import SCHEMA_VERSION, migrate
from connector.store.refit import refit_function
from connector.store.seal import break_seal, seal, sealed
from connector.store.transaction import begin, commit, transaction, undone_on_error
from connector.store.unit import StoreUnit
from connector.store.walcopy import WAL_FRAMES, WalCopy

T = TypeVar("T")

log = structlog.get_logger()

# Of a new file. A commit writes every page that it touched, whole, and a change alone touches a few bytes of each.
PAGE_BYTES = 1024
# The WAL is copied back, in one go, when it is so long: a page that many changes touch is then written once for all.
WAL_BYTES = 32 * 1024 * 1024
# Rows are touched here and there: with 16 or 8 MB changes were applied no faster than with 4.
_CACHE_KIB = 4096
# FULL: an acknowledged command and an acknowledged change must survive a power cut, so each commit waits for the disk.
# The WAL is cut to the length that it usually has: were it to grow anew each time, so would the file system's journal.
_PRAGMAS = f"""
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA wal_autocheckpoint = {WAL_FRAMES};
PRAGMA journal_size_limit = {WAL_BYTES};
PRAGMA cache_size = -{_CACHE_KIB};
PRAGMA analysis_limit = 1000;
PRAGMA trusted_schema = OFF;
"""
_CACHED_STATEMENTS = 200
# For readers to end, when the WAL is copied back for the last time.
_LAST_CHECKPOINT_MS = 500


class Session:
    """The replica, opened for writing.

    Args:
        path: The SQLite file.
        guest: A guest is a second writer beside a daemon that may be running (to queue commands): it takes no lock,
            and makes, checks and migrates nothing.
        read_later: Open a file that is still sealed without reading it; whoever asks for that has it read afterwards.
        wal_copy: Copies the WAL back; None: SQLite does, within a commit.

    Attributes:
        sound: Every page was read since the file was opened, or before, and nothing has shown a damage: only then is it
            sealed at the end.
    """

    def __init__(
        self, path: Path, *, guest: bool = False, read_later: bool = False, wal_copy: WalCopy | None = None
    ) -> None:
        # SQLite names the WAL after the file that a link points at; so must the lock be.
        self._path = path.resolve()
        self._guest = guest
        self._read_later = read_later
        self._wal_copy = wal_copy
        self.sound = False
        self._lock = FileLock(self._path)
        self._connection: apsw.Connection | None = None
        self._unit: StoreUnit | None = None

    def open(self) -> None:
        """Open the file; as the owner, make it where it is missing and bring its schema up to date.

        Raises:
            StoreUnusable: Damaged, of another program, of a newer version, read-only or in use by another daemon (a
                guest: also missing or of an older version). The file has not been touched.
            StoreBusy: Somebody keeps the write lock.
            StoreFull: There is no room for the schema.
        """
        if not self._guest:
            make_folder(self._path)
        check_place(self._path)
        if not self._guest:
            self._lock.acquire()
        try:
            self._check()
            with translated(self._path):
                self._connect()
        except BaseException:
            self.sound = False
            self.close()
            raise

    def close(self) -> None:
        """Close the file, seal it where it is known to be sound, give back the lock; what was committed stays."""
        if self._connection is not None:
            emptied = self.sound and self._wal_emptied(self._connection)
            self._connection.close()
            if emptied:
                seal(self._path)
        self._connection = self._unit = None
        self._lock.release()

    def run(self, work: Callable[[Unit], T]) -> T:
        """Run `work(unit)` as one transaction.

        If `work` raises, nothing is kept.

        Raises:
            StoreBusy: Another process held the write lock for too long.
            StoreFull, StoreUnusable: Going on would lose data.
        """
        connection, unit = self._opened()
        with self._watched(), transaction(connection):
            return work(unit)

    def begin_now(self) -> bool:
        """Begin a transaction; False: another process has the write lock, which is not waited for.

        Raises:
            StoreFull, StoreUnusable: As `run`.
        """
        connection, _ = self._opened()
        with self._watched():
            connection.set_busy_timeout(0)
            try:
                begin(connection)
            except apsw.BusyError:
                return False
            finally:
                connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        return True

    def prepare(self, work: Callable[[Unit], T]) -> T:
        """Run `work(unit)` in the transaction that has begun, up to what `commit` does; if it raises, all is undone.

        Raises:
            StoreFull, StoreUnusable: As `run`.
        """
        connection, unit = self._opened()
        with self._watched(), undone_on_error(connection):
            return work(unit)

    def commit(self) -> None:
        """Commit what was prepared; it may wait for the disk.

        Raises:
            StoreFull, StoreUnusable: As `run`; nothing of it is kept.
        """
        connection, _ = self._opened()
        with self._watched(), undone_on_error(connection):
            commit(connection)

    def data_version(self) -> int:
        """A number that changes whenever another connection has committed, and by nothing of this one's.

        Source: SQLite, "PRAGMA data_version".
        """
        connection, _ = self._opened()
        with translated(self._path):
            return int(connection.execute("PRAGMA data_version").get)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> tuple[apsw.Connection, StoreUnit]:
        if self._connection is None or self._unit is None:
            raise StoreUnusable(f"{self._path} is closed")
        return self._connection, self._unit

    @contextmanager
    def _watched(self) -> Generator[None]:
        """Errors as ours; a file that is found damaged is not sound."""
        try:
            with translated(self._path):
                yield
        except StoreUnusable:
            self.sound = False
            raise

    def _check(self) -> None:
        if self._guest:
            if check_file(self._path, thorough=False) != SCHEMA_VERSION:
                raise StoreUnusable(f"{self._path} is not set up for this version: run `salesforce-sync sync` first")
            return
        self.sound = not (self._read_later and sealed(self._path))
        check_file(self._path, thorough=self.sound)
        break_seal(self._path)

    def _wal_emptied(self, connection: apsw.Connection) -> bool:
        """Copy the WAL back, to the disk; False where a reader holds on to it, or the disk has no room."""
        try:
            connection.set_busy_timeout(_LAST_CHECKPOINT_MS)
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
        except apsw.Error:
            return False
        return not busy

    def _connect(self) -> None:
        connection = apsw.Connection(str(self._path), statementcachesize=_CACHED_STATEMENTS)
        self._connection = connection
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}").fetchall()  # a file that is there keeps its own
        if connection.execute("PRAGMA journal_mode = WAL").get != "wal":
            raise StoreUnusable(f"{self._path}: its file system cannot hold a WAL: set storage.path to a local disk")
        # apsw stops a script at the first row that it answers, until that is fetched.
        connection.execute(_PRAGMAS).fetchall()
        if self._wal_copy is not None:
            connection.set_wal_hook(self._wal_copy.committed)
        connection.create_scalar_function("refit", refit_function, 3, deterministic=True)
        if not self._guest:
            before, after = migrate(connection)
            log.info(
                "store.opened",
                schema=after,
                migrated_from=before if before != after else None,
                read="whole" if self.sound else "later",
            )
        self._unit = StoreUnit(connection)
        if not self._guest:
            with transaction(connection):
                self._unit.identify()
