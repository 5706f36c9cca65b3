"""SQLite's errors as ours. What is unknown is fatal."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import apsw

from connector.errors import ConnectorError, FatalError, QueryTooSlow, StoreBusy, StoreFull, StoreUnusable

_MEANINGS: Mapping[type[apsw.Error], str] = {
    apsw.NotADBError: "not a SQLite database, or its head is damaged; set storage.path to another file",
    apsw.ReadOnlyError: "read-only; check its owner, mode and file system",
    apsw.CantOpenError: "cannot be opened; check the folder's and the file's owner and mode",
    apsw.IOError: "the disk answered with an error; check it",
}


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise our error for SQLite's.

    Raises:
        StoreBusy: Another process held the lock for longer than the busy timeout.
        QueryTooSlow: Interrupted at its time limit.
        StoreFull: The disk, or the page limit, is full; nothing of the transaction is kept.
        StoreUnusable: The file is damaged, not a database, not writable, or cannot be read.
        FatalError: A statement or value of ours was refused, or anything unknown.
    """
    try:
        yield
    except apsw.Error as error:
        raise _translation(error, path) from error


def damaged(path: Path, what: str) -> StoreUnusable:
    """The error for a file that SQLite cannot make sense of."""
    return StoreUnusable(
        f"{path} is damaged ({what}): restore a backup, or move the file away and let `salesforce-sync sync` load "
        "everything from the org again"
    )


def _translation(error: apsw.Error, path: Path) -> ConnectorError:
    match error:
        case apsw.BusyError():
            return StoreBusy(f"{path}: another process holds the write lock")
        case apsw.InterruptError():
            return QueryTooSlow("the query took longer than its time limit; ask for less, or by indexed fields")
        case apsw.FullError():
            return StoreFull(f"{path}: the disk is full: make room and start again; no acknowledged message is lost")
        case apsw.SQLError() | apsw.ConstraintError() | apsw.MismatchError() | apsw.RangeError() | apsw.TooBigError():
            # The statement or the value is at fault, not the file.
            return FatalError(f"the database refused a statement: {error}")
        case apsw.CorruptError():
            return damaged(path, str(error))
        case _:
            return StoreUnusable(f"{path}: {_MEANINGS.get(type(error), type(error).__name__)} ({error})")
