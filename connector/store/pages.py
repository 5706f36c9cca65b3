"""Finds an object's records: by condition, by text, or by both; in an order, a page at a time."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import apsw

from connector.model.objects import ObjectColumns
from connector.model.query import Page, Where
from connector.model.record import StoredRecord
from connector.store.columns import to_json
from connector.store.filters import Bindings, condition
from connector.store.names import OWN_COLUMNS, quoted
from connector.store.paging import behind, chosen, collected, order, page_end
from connector.store.records import stored_record
from connector.store.textsearch import Match, expression, matches, require_ready, text_condition

# What `after` must be to go on behind a record, worked out only for the last one of a page; and the record.
_Row = tuple[Callable[[], str], StoredRecord]
# Records of a text's matches that are read at a time, behind those that fill the page if all of them are to be shown.
_CHUNK = 200


def find(
    connection: apsw.Connection,
    columns: ObjectColumns,
    text: str | None,
    *,
    where: Where,
    limit: int,
    after: str | None,
    order_by: str | None,
    fields: Sequence[str] | None,
    fits: Callable[[StoredRecord], bool],
) -> Page:
    """See `reader.ReadOnlyReplica.search`."""
    ranked = text is not None and order_by is None
    collected(
        lambda: chosen(columns, fields),
        lambda: None if ranked else behind(columns, order(columns, order_by), after, {}),
        lambda: condition(columns, where, {}),
    )
    words = _words(connection, columns, text)
    if text is not None and words is None:
        return Page((), None)
    names = chosen(columns, fields)
    if ranked and words is not None:
        rows = _matching(connection, columns, names, where, matches(connection, columns, words, after), limit + 1)
    else:
        rows = _ordered(connection, columns, names, where, words, order_by, after, limit + 1)
    with closing(rows):
        return _page(rows, limit, fits)


def count(connection: apsw.Connection, columns: ObjectColumns, text: str | None, where: Where) -> int:
    """See `reader.ReadOnlyReplica.count`."""
    bindings = Bindings()
    conditions = condition(columns, where, bindings)
    words = _words(connection, columns, text)
    if words is not None:
        conditions += f" AND {text_condition(connection, columns, words, bindings)}"
    elif text is not None:
        return 0
    # Names are known columns; values are bound.
    query = f"SELECT count(*) FROM {quoted(columns.table)} WHERE {conditions}"  # noqa: S608
    return int(connection.execute(query, bindings).get)


def _words(connection: apsw.Connection, columns: ObjectColumns, text: str | None) -> str | None:
    if text is None or not columns.searched:
        return None
    require_ready(connection, columns)
    return expression(text)


def _ordered(
    connection: apsw.Connection,
    columns: ObjectColumns,
    names: Sequence[str],
    where: Where,
    words: str | None,
    order_by: str | None,
    after: str | None,
    limit: int,
) -> Generator[_Row]:
    by, bindings = order(columns, order_by), Bindings(limit=limit)
    conditions = [condition(columns, where, bindings), behind(columns, by, after, bindings)]
    if words is not None:
        conditions.append(text_condition(connection, columns, words, bindings))
    direction = "DESC" if by.descending else "ASC"
    # Names are known columns; values are bound.
    query = (
        f"SELECT {quoted(by.field)}, {_listed(names)} FROM {quoted(columns.table)} "  # noqa: S608
        f'WHERE {" AND ".join(conditions)} ORDER BY {quoted(by.field)} {direction}, "Id" {direction} LIMIT :limit'
    )
    for row in connection.execute(query, bindings):
        yield partial(page_end, by, row[1], row[0]), _record(columns, names, row[1:])


def _matching(
    connection: apsw.Connection,
    columns: ObjectColumns,
    names: Sequence[str],
    where: Where,
    found: Iterator[Match],
    first: int,
) -> Generator[_Row]:
    """The records of the matches, in their order, without those for which the condition does not hold."""
    bindings = Bindings()
    # Names are known columns; values are bound.
    query = (
        f"SELECT rowid, {_listed(names)} FROM {quoted(columns.table)} "  # noqa: S608
        f"WHERE rowid IN (SELECT value FROM json_each(:rowids)) AND {condition(columns, where, bindings)}"
    )
    size = first
    while chunk := list(islice(found, size)):
        size = _CHUNK
        bindings["rowids"] = to_json([match.rowid for match in chunk])
        rows = {row[0]: row[1:] for row in connection.execute(query, bindings)}
        for match in chunk:
            if match.rowid in rows:
                yield match.position, _record(columns, names, rows[match.rowid])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(quoted(name) for name in ("Id", *names, *OWN_COLUMNS))


def _record(columns: ObjectColumns, names: Sequence[str], row: Sequence[Any]) -> StoredRecord:
    return stored_record(names, (name for name in names if columns.fields[name] == "boolean"), row)


def _page(rows: Iterator[_Row], limit: int, fits: Callable[[StoredRecord], bool]) -> Page:
    shown: list[StoredRecord] = []
    end: Callable[[], str] | None = None
    for following, record in rows:
        if len(shown) == limit or not fits(record):
            return Page(shown, None if end is None else end())
        shown.append(record)
        end = following
    return Page(shown, None)
