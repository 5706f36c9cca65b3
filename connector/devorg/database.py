"""The org's data: one SQLite file with a table per object and the org's own tables."""

import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OWN_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS describe (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS id_counter (key_prefix TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ledger (
    commit_number INTEGER NOT NULL, transaction_key TEXT NOT NULL, commit_ms INTEGER NOT NULL,
    object TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, user_id TEXT NOT NULL, origin TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS ledger_commit ON ledger (commit_number);
CREATE TABLE IF NOT EXISTS delete_log (
    object TEXT NOT NULL, id TEXT NOT NULL, deleted_at TEXT NOT NULL, deleted_with TEXT NOT NULL,
    PRIMARY KEY (object, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delete_log_time ON delete_log (object, deleted_at);
CREATE INDEX IF NOT EXISTS delete_log_with ON delete_log (deleted_with);
"""
_AFFINITIES = {"boolean": "INTEGER", "int": "INTEGER", "long": "INTEGER"} | dict.fromkeys(
    ("double", "currency", "percent"), "REAL"
)


def affinity(field_type: str) -> str:
    """Return the SQLite column type that holds a field of `field_type`."""
    return _AFFINITIES.get(field_type, "TEXT")


def quoted(name: str) -> str:
    """Return an SQL name that came from the schema, in double quotes."""
    return '"' + name.replace('"', '""') + '"'


class OrgDatabase:
    """One SQLite connection in autocommit mode; every transaction is opened and closed by name.

    All work happens on the event loop's thread, and no transaction spans an `await`. Columns are the API names
    of the fields: booleans 0/1, date-times `2026-01-01T12:00:00.000Z`, dates `YYYY-MM-DD`, numbers as numbers.
    `delete_log` holds the deletions that can still be asked for: `deleted_with` is the record whose deletion took
    this one along, or the record itself.

    Args:
        path: The file, made where it is missing; None keeps everything in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        # A test may build the org on one thread and run its server on another, never on both at once.
        self.connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("PRAGMA busy_timeout = 5000")
        self.connection.executescript(_OWN_TABLES)

    def close(self) -> None:
        """Close the file; an open transaction is lost."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Commit what is written inside, or nothing if an error leaves the block.

        Inside a transaction that is open already it is a part of that one.
        """
        if self.connection.in_transaction:
            with self.savepoint():
                yield
            return
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    @contextmanager
    def savepoint(self) -> Generator[None]:
        """Undo what is written inside if an error leaves the block; the transaction around it goes on."""
        self.connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK TO part")
                self.connection.execute("RELEASE part")
            raise
        self.connection.execute("RELEASE part")

    def meta(self, key: str) -> str | None:
        """Return a saved setting of the org, or None."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        """Save a setting of the org."""
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def insert(self, table: str, values: Mapping[str, Any]) -> None:
        """Insert one row; `table` and the names in `values` come from the schema."""
        names = ", ".join(quoted(name) for name in values)
        marks = ", ".join("?" * len(values))
        # The names are the schema's and quoted; the values are bound.
        statement = f"INSERT INTO {quoted(table)} ({names}) VALUES ({marks})"  # noqa: S608
        self.connection.execute(statement, tuple(values.values()))

    def update(self, table: str, record_id: str, values: Mapping[str, Any]) -> None:
        """Set columns of one row."""
        settings = ", ".join(f"{quoted(name)} = ?" for name in values)
        # The names are the schema's and quoted; the values are bound.
        statement = f'UPDATE {quoted(table)} SET {settings} WHERE "Id" = ?'  # noqa: S608
        self.connection.execute(statement, (*values.values(), record_id))

    def remove(self, table: str, record_id: str) -> None:
        """Take one row out of its table for good."""
        # The name is the schema's and quoted.
        self.connection.execute(f'DELETE FROM {quoted(table)} WHERE "Id" = ?', (record_id,))  # noqa: S608

    def row(self, table: str, record_id: str) -> sqlite3.Row | None:
        """Return one row as stored, deleted or not, or None."""
        # The name is the schema's and quoted.
        statement = f'SELECT * FROM {quoted(table)} WHERE "Id" = ?'  # noqa: S608
        found: sqlite3.Row | None = self.connection.execute(statement, (record_id,)).fetchone()
        return found

    def ids_where(self, table: str, column: str, value: object, *, deleted: bool = False) -> list[str]:
        """Return the ids of the rows whose `column` holds `value` in any case of letters, in id order."""
        # The names are the schema's and quoted.
        statement = (
            f'SELECT "Id" FROM {quoted(table)} WHERE {quoted(column)} = ? COLLATE NOCASE'  # noqa: S608
            ' AND "IsDeleted" = ? ORDER BY "Id"'
        )
        return [row["Id"] for row in self.connection.execute(statement, (value, int(deleted)))]

    def create_table(self, table: str, columns: Mapping[str, str], indexed: Iterable[str]) -> None:
        """Make the table of an object, or add what it lacks; `columns` maps names to field types."""
        present = self.columns(table)
        if not present:
            definitions = ", ".join(f"{quoted(name)} {affinity(kind)}" for name, kind in columns.items())
            definitions = definitions.replace('"Id" TEXT', '"Id" TEXT PRIMARY KEY NOT NULL', 1)
            self.connection.execute(f"CREATE TABLE {quoted(table)} ({definitions})")
        for name, kind in columns.items():
            if present and name not in present:
                self.add_column(table, name, kind)
        self.connection.execute(
            f'CREATE INDEX IF NOT EXISTS {quoted(f"{table}.modstamp")} ON {quoted(table)} ("SystemModstamp", "Id")'
        )
        for name in indexed:
            self.index(table, name)

    def columns(self, table: str) -> list[str]:
        """Return the column names of a table, none where there is no such table."""
        return [row["name"] for row in self.connection.execute(f"PRAGMA table_info({quoted(table)})")]

    def index(self, table: str, column: str) -> None:
        """Index a column without regard to the case of letters."""
        self.connection.execute(
            f"CREATE INDEX IF NOT EXISTS {quoted(f'{table}.{column}')}"
            f" ON {quoted(table)} ({quoted(column)} COLLATE NOCASE)"
        )

    def add_column(self, table: str, column: str, field_type: str) -> None:
        """Add an empty column."""
        default = " DEFAULT 0" if field_type == "boolean" else ""
        self.connection.execute(
            f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(column)} {affinity(field_type)}{default}"
        )

    def drop_column(self, table: str, column: str) -> None:
        """Drop a column, its index and its values."""
        self.connection.execute(f"DROP INDEX IF EXISTS {quoted(f'{table}.{column}')}")
        self.connection.execute(f"ALTER TABLE {quoted(table)} DROP COLUMN {quoted(column)}")

    def retype_column(
        self, table: str, column: str, field_type: str, convert: Callable[[object], str | float | None]
    ) -> None:
        """Give a column another type; `convert` makes each value that is there into one of the new type."""
        spare = f"{column}__new"
        self.add_column(table, spare, field_type)
        self.connection.create_function("converted", 1, convert)
        # The names are the schema's and quoted.
        self.connection.execute(
            f"UPDATE {quoted(table)} SET {quoted(spare)} = converted({quoted(column)})"  # noqa: S608
            f" WHERE {quoted(column)} IS NOT NULL"
        )
        self.drop_column(table, column)
        self.connection.execute(f"ALTER TABLE {quoted(table)} RENAME COLUMN {quoted(spare)} TO {quoted(column)}")
