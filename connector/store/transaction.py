"""One transaction, begun and ended by name."""

from collections.abc import Generator
from contextlib import contextmanager

import apsw


@contextmanager
def transaction(connection: apsw.Connection) -> Generator[None]:
    """Commit what is written inside, or nothing if an error leaves the block.

    On a full disk SQLite has rolled back by itself; a ROLLBACK then would fail and hide that error, as apsw's own
    `with connection` does.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
