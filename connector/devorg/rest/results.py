"""Results that are read in pages: of queries behind a locator, and of Bulk query jobs."""

import secrets
import string
from collections.abc import Sequence

from connector.devorg.database import OrgDatabase
from connector.devorg.ids import INSTANCE, to_18

_TABLE = """
CREATE TABLE IF NOT EXISTS result_row (
    result TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (result, number)
) STRICT, WITHOUT ROWID;
"""
_DIGITS = string.digits + string.ascii_letters
_RANDOM_DIGITS = 9


def new_id(key_prefix: str) -> str:
    """Return an id that tells nothing about the ids before it."""
    return to_18(key_prefix + INSTANCE + "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM_DIGITS)))


class ResultStore:
    """Rows in the form they are sent, numbered from 0, under the id of the cursor or job they belong to."""

    def __init__(self, database: OrgDatabase) -> None:
        self._connection = database.connection
        self._connection.executescript(_TABLE)

    def append(self, result: str, first: int, rows: Sequence[bytes]) -> None:
        """Add rows, the first of them numbered `first`."""
        numbered = ((result, number, row) for number, row in enumerate(rows, first))
        self._connection.executemany("INSERT INTO result_row VALUES (?, ?, ?)", numbered)

    def read(self, result: str, first: int, count: int) -> list[bytes]:
        """Return at most `count` rows from the one numbered `first` on."""
        found = self._connection.execute(
            "SELECT body FROM result_row WHERE result = ? AND number >= ? AND number < ? ORDER BY number",
            (result, first, first + count),
        )
        return [row["body"] for row in found]

    def drop(self, result: str) -> None:
        """Forget the rows of a result."""
        self._connection.execute("DELETE FROM result_row WHERE result = ?", (result,))
