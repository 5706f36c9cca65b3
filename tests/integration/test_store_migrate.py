"""Migrations: numbered, complete, all or none."""

from importlib.resources import files
from pathlib import Path

import apsw
import pytest

from connector.store import migrate
from connector.store.migrate import SCHEMA_VERSION, steps, user_version


def shape(connection: apsw.Connection) -> list[tuple[str, str, str]]:
    """Every table, index and view, its text without regard to line breaks and comments."""
    rows = connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name")
    return [(str(kind), str(name), " ".join(str(sql).split())) for kind, name, sql in rows]


def test_all_steps_from_empty_equal_the_schema() -> None:
    """`schema.sql` is what people read; it must be what the steps make."""
    stepped, whole = apsw.Connection(":memory:"), apsw.Connection(":memory:")
    assert migrate.migrate(stepped) == (0, SCHEMA_VERSION)
    whole.execute((files("connector.store") / "sql" / "schema.sql").read_text(encoding="utf-8"))
    assert shape(stepped) == shape(whole)
    assert user_version(stepped) == SCHEMA_VERSION
    assert migrate.migrate(stepped) == (SCHEMA_VERSION, SCHEMA_VERSION)


def test_the_steps_are_numbered_without_holes() -> None:
    """A number taken twice or left out would be skipped on some machines."""
    folder = files("connector.store") / "sql" / "migrations"
    assert list(steps()) == list(range(1, len(list(folder.iterdir())) + 1))


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a schema must never be on disk."""
    broken = {**steps(), SCHEMA_VERSION + 1: "CREATE TABLE extra (x); INSERT INTO nowhere VALUES (1);"}
    connection = apsw.Connection(str(tmp_path / "replica.db"))
    migrate.migrate(connection)
    before = shape(connection)
    monkeypatch.setattr(migrate, "steps", lambda: broken)
    monkeypatch.setattr(migrate, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with pytest.raises(apsw.SQLError):
        migrate.migrate(connection)
    assert shape(connection) == before
    assert user_version(connection) == SCHEMA_VERSION
    connection.close()
