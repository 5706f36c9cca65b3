"""The table of each object: made, altered and addressed by what the org's describe result tells.

All SQL with names in it is written here and in `filters.py`; every name is an API name that was checked, and quoted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import apsw

from connector.errors import FatalError
from connector.model.ids import RecordId
from connector.model.objects import Kind, ObjectColumns, ObjectSpec
from connector.store.columns import from_json, to_json
from connector.store.names import OWN_COLUMNS, quoted, text_index
from connector.store.queries import load
from connector.store.textindex import after_alter, before_alter

_SQL = load("objects")
_API_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_TYPES: Mapping[Kind, str] = {
    "text": "TEXT",
    "boolean": "INTEGER",
    "integer": "INTEGER",
    "number": "REAL",
    "date": "TEXT",
    "datetime": "TEXT",
}


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements on one object's table; columns in the order Id, fields, _version, _synced_at, ..."""

    select: str
    rowid: str
    insert: str
    insert_new: str
    newer_rows: str
    last_row: str
    count: str
    live_ids: str
    reset_deleted: str


def objects(connection: apsw.Connection) -> dict[str, ObjectColumns]:
    """The objects that have a table, by name."""
    return {str(row[0]): _object_columns(*map(str, row)) for row in connection.execute(_SQL["all"])}


def define(connection: apsw.Connection, spec: ObjectSpec) -> None:
    """Make or alter the object's table so that it has a column per synced field, and its live view.

    Raises:
        FatalError: A name is no API name, or the table's name is taken by something else.
    """
    wanted = columns_of(spec)
    for name in (wanted.name, *wanted.fields):
        if not _API_NAME.fullmatch(name):
            raise FatalError(f"{spec.name}: {name!r} is no API name")
    present = objects(connection).get(spec.name)
    if present == wanted and tuple(present.fields) == tuple(wanted.fields):
        return
    if present is None:
        _create(connection, wanted)
    else:
        connection.execute(f"DROP VIEW {quoted(wanted.table + '_live')}")
        before_alter(connection, present, wanted)
        _alter(connection, present, wanted)
        after_alter(connection, wanted)
    columns = ", ".join(quoted(c) for c in ("Id", *wanted.fields, *OWN_COLUMNS))
    # The names were checked above.
    connection.execute(
        f"CREATE VIEW {quoted(wanted.table + '_live')} AS "  # noqa: S608
        f"SELECT {columns} FROM {quoted(wanted.table)} WHERE _deleted_at IS NULL"
    )
    fields = to_json(
        [
            {"name": name, "kind": kind, "searched": name in wanted.searched, "looked_up": name in wanted.looked_up}
            for name, kind in wanted.fields.items()
        ]
    )
    connection.execute(_SQL["put"], (wanted.name, wanted.table, wanted.key_prefix, fields))


@lru_cache(maxsize=1024)
def _object_columns(name: str, table: str, prefix: str, fields: str) -> ObjectColumns:
    told = from_json(fields)
    return ObjectColumns(
        name,
        table,
        prefix,
        {field["name"]: field["kind"] for field in told},
        searched=tuple(field["name"] for field in told if field.get("searched")),
        looked_up=tuple(field["name"] for field in told if field.get("looked_up")),
    )


def columns_of(spec: ObjectSpec) -> ObjectColumns:
    """The table that an object is to have."""
    return ObjectColumns(
        spec.name,
        spec.table,
        spec.key_prefix,
        {f.name: f.kind for f in spec.fields},
        searched=spec.searched,
        looked_up=tuple(f.name for f in spec.fields if f.looked_up),
    )


def statements(spec: ObjectSpec) -> Statements:
    """The statements on the object's table."""
    return _statements(spec.table, spec.names)


@lru_cache(maxsize=1024)
def update_statement(table: str, names: Sequence[str]) -> str:
    """Sets these columns, in this order, of the row whose rowid is the last parameter."""
    sets = ", ".join(f"{quoted(column)} = ?" for column in names)
    # The names come from the spec that define() checked.
    return f"UPDATE {quoted(table)} SET {sets} WHERE rowid = ?"  # noqa: S608


@lru_cache(maxsize=256)
def trim_statement(table: str) -> str:
    """Removes tombstones from before `:before`, at most `:limit`."""
    name = quoted(table)
    # The name was checked when the table was made.
    return (
        f'DELETE FROM {name} WHERE "Id" IN '  # noqa: S608
        f'(SELECT "Id" FROM {name} WHERE _deleted_at IS NOT NULL AND _deleted_at < :before LIMIT :limit)'
    )


def stored_version(connection: apsw.Connection, object_name: str, record_id: RecordId) -> int | None:
    """`_version` of a stored record, or None."""
    table = connection.execute(_SQL["table"], (object_name,)).get
    if table is None:
        return None
    # The name was checked when the table was made.
    version = connection.execute(f'SELECT _version FROM {quoted(table)} WHERE "Id" = ?', (record_id,)).get  # noqa: S608
    return None if version is None else int(version)


def _create(connection: apsw.Connection, wanted: ObjectColumns) -> None:
    view = wanted.table + "_live"
    for name in (wanted.table, view, text_index(wanted.table)):
        if connection.execute(_SQL["taken"], (name,)).get:
            raise FatalError(f"{wanted.name} cannot be synced: the database has something else named {name}")
    columns = [f"{quoted(name)} {_TYPES[kind]}" for name, kind in wanted.fields.items()]
    definitions = ", ".join(
        [
            '"Id" TEXT PRIMARY KEY NOT NULL',
            *columns,
            '"_version" INTEGER NOT NULL',
            '"_synced_at" TEXT NOT NULL',
            '"_deleted_at" TEXT',
            '"_modstamp" TEXT NOT NULL',
        ]
    )
    connection.execute(f"CREATE TABLE {quoted(wanted.table)} ({definitions}) STRICT")
    # Tombstones are few: they are counted and trimmed by this.
    connection.execute(
        f"CREATE INDEX {quoted(wanted.table + '_deleted')} ON {quoted(wanted.table)} (_deleted_at) "
        "WHERE _deleted_at IS NOT NULL"
    )


def _alter(connection: apsw.Connection, present: ObjectColumns, wanted: ObjectColumns) -> None:
    """Add, drop, rename and retype columns in place; SQLite takes names that differ by case for the same."""
    table = quoted(wanted.table)
    spelled = {name.lower(): name for name in wanted.fields}
    for name, kind in present.fields.items():
        now = spelled.pop(name.lower(), None)
        if now is None:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {quoted(name)}")
        elif wanted.fields[now] != kind:
            _retype(connection, table, (name, kind), (now, wanted.fields[now]))
        elif now != name:
            connection.execute(f"ALTER TABLE {table} RENAME COLUMN {quoted(name)} TO {quoted(now)}")
    for name in spelled.values():
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {_TYPES[wanted.fields[name]]}")


def _retype(connection: apsw.Connection, table: str, old: tuple[str, Kind], new: tuple[str, Kind]) -> None:
    # No API name begins with an underscore.
    spare = quoted("_retyped")
    connection.execute(f"ALTER TABLE {table} ADD COLUMN {spare} {_TYPES[new[1]]}")
    # The names were checked before.
    connection.execute(
        f"UPDATE {table} SET {spare} = refit({quoted(old[0])}, ?, ?) WHERE {quoted(old[0])} IS NOT NULL",  # noqa: S608
        (old[1], new[1]),
    )
    connection.execute(f"ALTER TABLE {table} DROP COLUMN {quoted(old[0])}")
    connection.execute(f"ALTER TABLE {table} RENAME COLUMN {spare} TO {quoted(new[0])}")


@lru_cache(maxsize=256)
def _statements(table: str, names: Sequence[str]) -> Statements:
    columns = [quoted(c) for c in ("Id", *names, *OWN_COLUMNS)]
    listed = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    name = quoted(table)
    # The names come from the spec that define() checked.
    return Statements(
        select=f'SELECT {listed}, rowid FROM {name} WHERE "Id" = ?',  # noqa: S608
        rowid=f'SELECT "Id", rowid FROM {name} WHERE "Id" = ?',  # noqa: S608
        insert=f"INSERT INTO {name} ({listed}) VALUES ({marks})",  # noqa: S608
        insert_new=f'INSERT INTO {name} ({listed}) VALUES ({marks}) ON CONFLICT ("Id") DO NOTHING',  # noqa: S608
        newer_rows=f'SELECT "Id" FROM {name} WHERE rowid > ?',  # noqa: S608
        last_row=f"SELECT coalesce(max(rowid), 0) FROM {name}",  # noqa: S608
        # Two counts over indexes: one with a condition would read every row.
        count=f"SELECT (SELECT count(*) FROM {name}) - "  # noqa: S608
        f"(SELECT count(*) FROM {name} WHERE _deleted_at IS NOT NULL)",
        live_ids=f'SELECT "Id" FROM {name} WHERE _deleted_at IS NULL AND (:after IS NULL OR "Id" > :after) '  # noqa: S608
        'AND (:upto IS NULL OR "Id" <= :upto) ORDER BY "Id" LIMIT :limit',
        reset_deleted=f"UPDATE {name} SET _version = 0 WHERE _deleted_at IS NOT NULL AND _version > 0",  # noqa: S608
    )
