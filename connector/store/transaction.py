"""One transaction, begun and ended by name."""

from collections.abc import Generator
from contextlib import contextmanager

import apsw


@contextmanager
def transaction(connection: apsw.Connection) -> Generator[None]:
    """Commit what is written inside, or nothing if an error leaves the block."""
    begin(connection)
    with undone_on_error(connection):
        yield
        commit(connection)


def begin(connection: apsw.Connection) -> None:
    """Begin a transaction that writes: the write lock is taken at once."""
    connection.execute("BEGIN IMMEDIATE")


def commit(connection: apsw.Connection) -> None:
    """Make the transaction durable."""
    connection.execute("COMMIT")


@contextmanager
def undone_on_error(connection: apsw.Connection) -> Generator[None]:
    """Roll the transaction back if an error leaves the block.

    On a full disk SQLite has rolled back by itself; a ROLLBACK then would fail and hide that error, as apsw's own
    `with connection` does.
    """
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
