"""The full-text index of an object's table, and the triggers that keep it in the transaction that changes a record.

The index holds no text of its own and goes by the table's rowids, which a table with an index keeps through VACUUM.
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
    index = quoted(text_index(columns.table))
    connection.execute(f"CREATE VIRTUAL TABLE {index} USING fts5(doc, content='', contentless_delete=1, {_TOKENIZER})")
    _make_triggers(connection, columns)


def _make_triggers(connection: apsw.Connection, columns: ObjectColumns) -> None:
    table, index = quoted(columns.table), quoted(text_index(columns.table))
    changed = f"{document(columns, 'OLD.')} IS NOT {document(columns, 'NEW.')}"
    # The names were checked when the table was made. Not INSERT OR REPLACE: an upsert around it changes what that does.
    remove = f"DELETE FROM {index} WHERE rowid = OLD.rowid;"  # noqa: S608
    insert = f"INSERT INTO {index} (rowid, doc) VALUES (NEW.rowid, {document(columns, 'NEW.')});"  # noqa: S608
    for event, when, work in (
        ("insert", "", insert),
        ("update", f"WHEN {changed}", remove + insert),
        ("delete", "", remove),
    ):
        trigger = _trigger(columns.table, event)
        connection.execute(f"CREATE TRIGGER {trigger} AFTER {event.upper()} ON {table} {when} BEGIN {work} END")


def _drop_triggers(connection: apsw.Connection, table: str) -> None:
    for event in ("insert", "update", "delete"):
        connection.execute(f"DROP TRIGGER IF EXISTS {_trigger(table, event)}")


def _trigger(table: str, event: str) -> str:
    return quoted(f"{text_index(table)}_{event}")


def document(columns: ObjectColumns, prefix: str) -> str:
    """What of a record is searched: its text fields one below the other."""
    return f"concat_ws(char(10), {', '.join(prefix + quoted(field) for field in columns.searched)})"
