"""The schema's versions: numbered files, applied in one unit."""

from importlib.resources import files

import apsw

from connector.store.transaction import transaction

# "SFSY": marks the file as ours. Source: SQLite, "PRAGMA application_id".
APPLICATION_ID = 0x53465359


def steps() -> dict[int, str]:
    """Every migration by its number, from 1 without holes."""
    folder = files("connector.store") / "sql" / "migrations"
    found = {
        int(file.name.partition("_")[0]): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }
    return dict(sorted(found.items()))


SCHEMA_VERSION = max(steps())


def user_version(connection: apsw.Connection) -> int:
    """The number of the last migration that the file has had."""
    return int(connection.execute("PRAGMA user_version").get)


def migrate(connection: apsw.Connection) -> tuple[int, int]:
    """Bring the schema up to date, all steps or none; returns the versions before and after.

    Must be called outside a transaction.
    """
    before = user_version(connection)
    if before < SCHEMA_VERSION:
        with transaction(connection):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for number, script in steps().items():
                if number > before:
                    connection.execute(script).fetchall()
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return before, SCHEMA_VERSION
