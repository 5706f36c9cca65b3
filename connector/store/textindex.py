"""The full-text index of an object's table, and what it has not been told of yet.

The index holds no text of its own: it takes the table's, by its rowids, which a table with an index keeps through
VACUUM. What is taken out of it must be what was put in, so while it is being filled the rows that are not in it yet are
left alone: those behind `object.search_row`.

Whoever writes rows calls `rewrite`. Triggers would do it by themselves, at five times the cost: SQLite gives each of
their statements a savepoint, at which FTS5 writes down what it has gathered. Only the removal of a row, which is rare,
is left to one.

FTS5 writes six pages for one row, and hardly more for fifty. So a row that changes alone is put into `late_text`, one
page, with the texts that the index holds for it; who searches looks at these rows beside the index (`textsearch.py`).

Only what SQLite 3.40 knows is used, so that the programs of Debian 12 can read the file.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby

import apsw

from connector.model.noun import dataclass
from connector.model.objects import ObjectColumns
from connector.store.columns import from_json, json_or_none
from connector.store.names import field_index, quoted, text_index
from connector.store.queries import load

_SQL = load("objects")
# Case and accents make no difference. Beginnings of up to three letters have lists of their own: for others FTS5 puts
# the lists of all words that begin so together before it answers, and `jane@example.com` asks for the words with `com`.
TOKENIZER = "tokenize=\"unicode61 remove_diacritics 2\", prefix='1 2 3'"

# How many words each row has is not kept: that is a page more to write for nearly each row that changes, and ranking
# counts them in the rows that it ranks, few at most. Source: SQLite, "The 'columnsize' option".
_SIZES = "columnsize=0"

# FTS5 puts segments together when it has so many of one size: twice as many as usual, so that a word is written anew
# twice where it would be thrice, and a search looks into a few segments more. Source: SQLite, "The 'automerge' option".
_MERGED_AT = 8

# So many rows of an object wait at most: who searches reads them all.
MOST_LATE = 48


@dataclass(frozen=True, slots=True)
class Edit:
    """A row whose texts have changed.

    Attributes:
        before, after: Its texts in the order of the index's columns; `before` is None for a new row.
    """

    rowid: int
    before: Sequence[str | None] | None
    after: Sequence[str | None]


def rewrite(connection: apsw.Connection, name: str, table: str, fields: Sequence[str], edits: Sequence[Edit]) -> None:
    """Have the index of the object `name` follow the rows that this transaction has changed; a few wait for more."""
    if not edits:
        return
    waiting = int(connection.execute(_SQL["late_count"], (name,)).get)
    if waiting + len(edits) <= MOST_LATE:
        # A row that waits already stays as it is: the index holds its texts from before that.
        late = ((name, edit.rowid, json_or_none(edit.before)) for edit in edits)
        connection.executemany(_SQL["add_late"], late)
        return
    if waiting:
        edits = _with_late(connection, name, table, fields, edits)
        connection.execute(_SQL["forget_late"], (name,))
    _write(connection, table, fields, edits)


def settle(connection: apsw.Connection, columns: ObjectColumns) -> None:
    """Tell the index of the rows that wait."""
    edits = _with_late(connection, columns.name, columns.table, columns.searched, ())
    if edits:
        connection.execute(_SQL["forget_late"], (columns.name,))
        _write(connection, columns.table, columns.searched, edits)


def _with_late(
    connection: apsw.Connection, name: str, table: str, fields: Sequence[str], edits: Iterable[Edit]
) -> Sequence[Edit]:
    """The edits and those that waited, each from what the index holds to what the row is now."""
    late = {int(row): from_json(indexed) for row, indexed in connection.execute(_SQL["late"], (name,))}
    now = [Edit(edit.rowid, late.pop(edit.rowid, edit.before), edit.after) for edit in edits]
    # The names come from the spec that define() checked.
    texts = f"SELECT {', '.join(map(quoted, fields))} FROM {quoted(table)} WHERE rowid = ?"  # noqa: S608
    return now + [Edit(row, indexed, *connection.execute(texts, (row,))) for row, indexed in late.items()]


def _write(connection: apsw.Connection, table: str, fields: Sequence[str], edits: Iterable[Edit]) -> None:
    """Take the old texts of rows out of an index and put the new ones in.

    In the order of the rows: given a smaller rowid than the last, FTS5 writes down what it has gathered.
    """
    remove, insert = _statements(table, tuple(fields))
    for known, run in groupby(sorted(edits, key=lambda edit: edit.rowid), key=lambda edit: edit.before is not None):
        if known:
            both = ((edit.rowid, *(edit.before or ()), edit.rowid, *edit.after) for edit in run)
            connection.executemany(f"{remove}; {insert}", both)
        else:
            connection.executemany(insert, ((edit.rowid, *edit.after) for edit in run))


@lru_cache(maxsize=256)
def _statements(table: str, fields: Sequence[str]) -> tuple[str, str]:
    index, columns = quoted(text_index(table)), ", ".join(map(quoted, fields))
    marks = ", ".join("?" * (len(fields) + 1))
    # The names come from the spec that define() checked.
    return (
        f"INSERT INTO {index} ({index}, rowid, {columns}) VALUES ('delete', {marks})",  # noqa: S608
        f"INSERT INTO {index} (rowid, {columns}) VALUES ({marks})",  # noqa: S608
    )


def before_alter(connection: apsw.Connection, present: ObjectColumns, wanted: ObjectColumns) -> None:
    """Take away what stands in the way of altering the table; what has to be made anew is made by `extend_indexes`."""
    connection.execute(f"DROP TRIGGER IF EXISTS {_trigger(present.table)}")
    if present.searched != wanted.searched:
        connection.execute(f"DROP TABLE IF EXISTS {quoted(text_index(present.table))}")
        connection.execute(_SQL["forget_late"], (present.name,))
        connection.execute(_SQL["set_search_state"], ("none", 0, present.name))
    for field in present.looked_up:
        if field not in wanted.looked_up or present.fields[field] != wanted.fields[field]:
            connection.execute(f"DROP INDEX IF EXISTS {quoted(field_index(present.table, field))}")


def after_alter(connection: apsw.Connection, columns: ObjectColumns) -> None:
    """Put back what removes rows from the text index, if there is one."""
    ((state, _),) = connection.execute(_SQL["search_state"], (columns.name,)).fetchall()
    if state != "none":
        _make_trigger(connection, columns)


def make(connection: apsw.Connection, columns: ObjectColumns) -> None:
    """Make the index, empty, and its trigger."""
    # In double quotes: by them Datasette finds the index of a table.
    index, content = quoted(text_index(columns.table)), quoted(columns.table)
    options = f"content={content}, {_SIZES}, {TOKENIZER}"
    connection.execute(f"CREATE VIRTUAL TABLE {index} USING fts5({listed(columns)}, {options})")
    # The name was checked when the table was made.
    connection.execute(f"INSERT INTO {index} ({index}, rank) VALUES ('automerge', {_MERGED_AT})")  # noqa: S608
    _make_trigger(connection, columns)


def listed(columns: ObjectColumns, prefix: str = "") -> str:
    """The columns of the index, which are those of the table."""
    return ", ".join(prefix + quoted(field) for field in columns.searched)


def _make_trigger(connection: apsw.Connection, columns: ObjectColumns) -> None:
    table, index, fields = quoted(columns.table), quoted(text_index(columns.table)), listed(columns)
    # The names were checked when the table was made.
    filled = f"(SELECT search_row FROM object WHERE name = '{columns.name}')"  # noqa: S608
    late = f"FROM late_text WHERE object = '{columns.name}' AND row = OLD.rowid"
    remove = f"INSERT INTO {index} ({index}, rowid, {fields}) SELECT 'delete', OLD.rowid"
    indexed = ", ".join(f"json_extract(indexed, '$[{i}]')" for i in range(len(columns.searched)))
    connection.execute(
        f"CREATE TRIGGER {_trigger(columns.table)} AFTER DELETE ON {table} WHEN OLD.rowid <= {filled} BEGIN "
        f"{remove}, {listed(columns, 'OLD.')} WHERE NOT EXISTS (SELECT 1 {late}); "
        f"{remove}, {indexed} {late} AND indexed IS NOT NULL; "
        f"DELETE {late}; END"
    )


def _trigger(table: str) -> str:
    return quoted(f"{text_index(table)}_delete")
