"""The full-text index of an object's table, and the triggers that keep it in the transaction that changes a record.

The index holds no text of its own: it takes the table's, by its rowids, which a table with an index keeps through
VACUUM. What is taken out of it must be what was put in, so while it is being filled the triggers leave alone the rows
that are not in it yet: those behind `object.search_row`.

Only what SQLite 3.40 knows is used, so that the programs of Debian 12 can read the file.
"""

import apsw

from connector.model.objects import ObjectColumns
from connector.store.names import field_index, quoted, text_index
from connector.store.queries import load

_SQL = load("objects")
# Case and accents make no difference; beginnings of one or two letters have lists of their own.
_TOKENIZER = "tokenize=\"unicode61 remove_diacritics 2\", prefix='1 2'"


def before_alter(connection: apsw.Connection, present: ObjectColumns, wanted: ObjectColumns) -> None:
    """Take away what stands in the way of altering the table; what has to be made anew is made by `extend_indexes`."""
    _drop_triggers(connection, present.table)
    if present.searched != wanted.searched:
        connection.execute(f"DROP TABLE IF EXISTS {quoted(text_index(present.table))}")
        connection.execute(_SQL["set_search_state"], ("none", 0, present.name))
    for field in present.looked_up:
        if field not in wanted.looked_up or present.fields[field] != wanted.fields[field]:
            connection.execute(f"DROP INDEX IF EXISTS {quoted(field_index(present.table, field))}")


def after_alter(connection: apsw.Connection, columns: ObjectColumns) -> None:
    """Put back what keeps the text index, if there is one."""
    ((state, _),) = connection.execute(_SQL["search_state"], (columns.name,)).fetchall()
    if state != "none":
        _make_triggers(connection, columns)


def make(connection: apsw.Connection, columns: ObjectColumns) -> None:
    """Make the index, empty, and its triggers."""
    index, content = quoted(text_index(columns.table)), "'" + columns.table + "'"
    connection.execute(f"CREATE VIRTUAL TABLE {index} USING fts5({listed(columns)}, content={content}, {_TOKENIZER})")
    _make_triggers(connection, columns)


def listed(columns: ObjectColumns, prefix: str = "") -> str:
    """The columns of the index, which are those of the table."""
    return ", ".join(prefix + quoted(field) for field in columns.searched)


def _make_triggers(connection: apsw.Connection, columns: ObjectColumns) -> None:
    table, index = quoted(columns.table), quoted(text_index(columns.table))
    # The names were checked when the table was made.
    filled = f"(SELECT search_row FROM object WHERE name = '{columns.name}')"  # noqa: S608
    remove = f"INSERT INTO {index} ({index}, rowid, {listed(columns)}) "
    remove += f"VALUES ('delete', OLD.rowid, {listed(columns, 'OLD.')});"
    insert = f"INSERT INTO {index} (rowid, {listed(columns)}) VALUES (NEW.rowid, {listed(columns, 'NEW.')});"  # noqa: S608
    # Row values: a chain of ORs would be too deep for SQLite where an object has hundreds of fields.
    changed = f"({listed(columns, 'OLD.')}) IS NOT ({listed(columns, 'NEW.')})"
    for event, when, work in (
        ("insert", f"NEW.rowid <= {filled}", insert),
        ("update", f"OLD.rowid <= {filled} AND {changed}", remove + insert),
        ("delete", f"OLD.rowid <= {filled}", remove),
    ):
        trigger = _trigger(columns.table, event)
        connection.execute(f"CREATE TRIGGER {trigger} AFTER {event.upper()} ON {table} WHEN {when} BEGIN {work} END")


def _drop_triggers(connection: apsw.Connection, table: str) -> None:
    for event in ("insert", "update", "delete"):
        connection.execute(f"DROP TRIGGER IF EXISTS {_trigger(table, event)}")


def _trigger(table: str, event: str) -> str:
    return quoted(f"{text_index(table)}_{event}")
