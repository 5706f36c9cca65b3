"""Tree to SQL: one statement with bound parameters, and the shape that its rows are to be given."""

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

import orjson

from connector.devorg.errors import OrgError
from connector.devorg.objects.fields import ObjectSchema
from connector.devorg.objects.schema import Schema
from connector.devorg.soql.errors import refused
from connector.devorg.soql.parse import like_pattern_of, string_of
from connector.devorg.soql.resolve import Column, Scope
from connector.devorg.soql.select import Selection, selection_of
from connector.devorg.soql.tree import (
    Comparison,
    Condition,
    CountRows,
    Joined,
    Like,
    Listed,
    Negated,
    Ordering,
    Path,
    Query,
)
from connector.devorg.soql.values import FOLD, Bound, bound, fold, kind_of

LARGEST_OFFSET = 2_000
"""Source: SOQL and SOSL Reference, "OFFSET"."""

_LONGEST_PATTERN = 4_000
_NO_LIMIT = -1
_ROW_ID = 't0."Id"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One statement, in parts, so that a Bulk job can read it in slices.

    Attributes:
        object: The queried object.
        selection: The columns and how rows become records; None for `COUNT()`.
        tables, where, order: Clauses without their keywords; only `where` has parameters. `order` is empty where the
            query asks for none, and ends with the id, so that pages are stable.
        limit: None where the query has none.
    """

    object: ObjectSchema
    selection: Selection | None
    tables: str
    where: str
    parameters: tuple[Bound, ...]
    order: str
    limit: int | None
    offset: int

    @property
    def ordered(self) -> bool:
        """Whether the query itself asks for an order or a limit."""
        return bool(self.order) or self.limit is not None

    def statement(self) -> tuple[str, tuple[Bound, ...]]:
        """Return the whole query as SQL and parameters; rows without an order come by id."""
        limit = _NO_LIMIT if self.limit is None else self.limit
        parameters = (*self.parameters, limit, self.offset)
        if self.selection is None:
            rows = self._select("1", self.where, "LIMIT ? OFFSET ?")
            return f"SELECT COUNT(*) FROM ({rows})", parameters  # noqa: S608  # made of names of the schema
        if self.selection.aggregates:
            return self._select(self.selection.columns, self.where, "LIMIT ? OFFSET ?"), parameters
        order = self.order or _ROW_ID
        return self._select(self.selection.columns, self.where, f"ORDER BY {order} LIMIT ? OFFSET ?"), parameters

    def count(self) -> tuple[str, tuple[Bound, ...]]:
        """Return SQL and parameters that count the rows, whatever the limit."""
        return self._select("COUNT(*)", self.where, ""), self.parameters

    def slice_after(self, record_id: str, count: int) -> tuple[str, tuple[Bound, ...]]:
        """Return SQL and parameters for the first `count` rows behind a record in id order."""
        columns = "1" if self.selection is None else self.selection.columns
        statement = self._select(columns, f"({self.where}) AND {_ROW_ID} > ?", f"ORDER BY {_ROW_ID} LIMIT ?")
        return statement, (*self.parameters, record_id, count)

    def among(self, record_ids: Sequence[str]) -> tuple[str, tuple[Bound, ...]]:
        """Return SQL and parameters for the ids of the rows found that are among these."""
        listed = ", ".join("?" * len(record_ids))
        return self._select(_ROW_ID, f"({self.where}) AND {_ROW_ID} IN ({listed})", ""), (*self.parameters, *record_ids)

    def _select(self, columns: str, where: str, rest: str) -> str:
        # Every name in the clauses is the schema's and quoted; every value is bound.
        return f"SELECT {columns} FROM {self.tables} WHERE {where} {rest}"  # noqa: S608


def install(connection: Connection) -> None:
    """Give a connection the function that the statements use: comparison without regard to case."""
    connection.create_function(FOLD, 1, fold, deterministic=True)


def compile_query(query: Query, schema: Schema, *, include_deleted: bool) -> Plan:
    """Return the plan of a query.

    Args:
        query: The tree.
        schema: Objects and fields as they are now.
        include_deleted: Rows in the recycle bin as well (`queryAll`).

    Raises:
        OrgError: 400 with INVALID_TYPE, INVALID_FIELD, INVALID_QUERY_FILTER_OPERATOR, MALFORMED_QUERY or
            NUMBER_OUTSIDE_VALID_RANGE.
    """
    scope = Scope(query, schema)
    counts = any(isinstance(item, CountRows) for item in query.items)
    selection = None if counts else selection_of(query, scope)
    if counts and (len(query.items) > 1 or query.order):
        raise refused("MALFORMED_QUERY", query.text, query.object_at, "COUNT() must be the only element selected")
    if query.offset > LARGEST_OFFSET:
        note = f"Maximum SOQL offset allowed is {LARGEST_OFFSET}"
        raise refused("NUMBER_OUTSIDE_VALID_RANGE", query.text, query.offset_at, note)
    filters = _Filters(query, scope)
    where = filters.condition(query.where) if query.where else "1"
    if not include_deleted and scope.object.field("IsDeleted"):
        where = f'({where}) AND t0."IsDeleted" = 0'
    order = _order(query, scope, aggregates=bool(selection and selection.aggregates))
    return Plan(
        object=scope.object,
        selection=selection,
        tables=scope.tables,
        where=where,
        parameters=tuple(filters.parameters),
        order=order,
        limit=query.limit,
        offset=query.offset,
    )


def _order(query: Query, scope: Scope, *, aggregates: bool) -> str:
    terms, tied = [], True
    for ordering in query.order:
        column = scope.column(ordering.path)
        tied = tied and column.expression != _ROW_ID
        if aggregates:
            note = f"Ordered field must be grouped or aggregated: {ordering.path}"
            raise refused("MALFORMED_QUERY", query.text, ordering.path.at, note)
        if not column.field.sortable or kind_of(column.field) == "compound":
            note = f"field '{ordering.path}' can not be sorted in a query call"
            raise refused("INVALID_FIELD", query.text, ordering.path.at, note)
        terms.append(_term(ordering, column))
    # A second mention of the id would keep SQLite from reading in the order of an index.
    return ", ".join([*terms, _ROW_ID] if terms and tied else terms)


def _term(ordering: Ordering, column: Column) -> str:
    expression = column.expression
    if kind_of(column.field) in ("text", "multipicklist"):
        expression = f"{FOLD}({expression})"
    direction = "DESC" if ordering.descending else "ASC"
    return f"{expression} {direction} NULLS {'LAST' if ordering.nulls_last else 'FIRST'}"


class _Filters:
    """Conditions to SQL.

    A comparison with an empty field is SQL's NULL here, which counts as false; NOT makes true of both, so that
    the outcome is that of a logic with two values.
    """

    def __init__(self, query: Query, scope: Scope) -> None:
        self.parameters: list[Bound] = []
        self._text = query.text
        self._scope = scope

    def condition(self, condition: Condition) -> str:
        match condition:
            case Joined():
                return _balanced([self.condition(part) for part in condition.parts], condition.operator)
            case Negated():
                return f"({self.condition(condition.part)}) IS NOT TRUE"
            case Comparison():
                return self._comparison(condition)
            case Like():
                return self._like(condition)
            case Listed(operator="INCLUDES" | "EXCLUDES"):
                return self._includes(condition)
            case Listed():
                return self._listed(condition)

    def _column(self, path: Path) -> Column:
        column = self._scope.column(path)
        if not column.field.filterable or kind_of(column.field) in ("compound", "time"):
            note = f"field '{path}' can not be filtered in a query call"
            raise refused("INVALID_FIELD", self._text, path.at, note)
        return column

    def _comparison(self, condition: Comparison) -> str:
        column = self._column(condition.path)
        kind, operator = kind_of(column.field), condition.operator
        ordering = operator in ("<", "<=", ">", ">=")
        if ordering and kind in ("boolean", "multipicklist"):
            raise self._bad_operator(condition.path, column)
        value = bound(self._text, column.field, condition.value)
        expression = column.expression
        if value is None:
            if ordering:
                return "0"
            return f"{expression} IS NULL" if operator == "=" else f"{expression} IS NOT NULL"
        if ordering:
            text = kind == "text"
            left = f"{FOLD}({expression})" if text else expression
            return self._bind(f"{left} {operator} ?", fold(value) if text else value)
        left = _equal_side(column, [value])
        return self._bind(f"{left} {'IS NOT' if operator == '!=' else operator} ?", _folded(left, value))

    def _like(self, condition: Like) -> str:
        column = self._column(condition.path)
        if kind_of(column.field) != "text":
            raise self._bad_operator(condition.path, column)
        pattern = like_pattern_of(self._text, condition.pattern)
        if len(pattern) > _LONGEST_PATTERN:
            note = f"LIKE patterns cannot be longer than {_LONGEST_PATTERN} characters"
            raise refused("MALFORMED_QUERY", self._text, condition.pattern.at, note)
        if pattern.isascii():
            return self._bind(f"{column.expression} LIKE ? ESCAPE '\\'", pattern)
        return self._bind(f"{FOLD}({column.expression}) LIKE ? ESCAPE '\\'", fold(pattern))

    def _listed(self, condition: Listed) -> str:
        column = self._column(condition.path)
        values = [bound(self._text, column.field, value) for value in condition.values]
        given = [value for value in values if value is not None]
        left = _equal_side(column, given)
        # One parameter for the whole list: SQLite bounds their number, and the statement stays the same.
        chosen = [_folded(left, value) for value in given]
        among = "IN (SELECT value FROM json_each(?))"
        listed = self._bind(f"{left} {among}", orjson.dumps(chosen).decode())
        if len(given) < len(values):
            listed = f"({listed} OR {column.expression} IS NULL)"
        return f"({listed}) IS NOT TRUE" if condition.operator == "NOT IN" else listed

    def _includes(self, condition: Listed) -> str:
        column = self._column(condition.path)
        if kind_of(column.field) != "multipicklist":
            raise self._bad_operator(condition.path, column)
        alternatives = []
        for value in condition.values:
            bound(self._text, column.field, value)  # refuses what is no string
            wanted = [] if value.kind == "null" else [item for item in string_of(self._text, value).split(";") if item]
            members = [
                self._bind(f"instr(';' || {FOLD}({column.expression}) || ';', ?) > 0", f";{fold(item)};")
                for item in wanted
            ]
            alternatives.append(_balanced(members, "AND") if members else f"{column.expression} IS NULL")
        found = _balanced(alternatives, "OR")
        return f"({found}) IS NOT TRUE" if condition.operator == "EXCLUDES" else found

    def _bind(self, sql: str, value: Bound) -> str:
        self.parameters.append(value)
        return sql

    def _bad_operator(self, path: Path, column: Column) -> OrgError:
        note = f"invalid operator on {column.field.type} field"
        return refused("INVALID_QUERY_FILTER_OPERATOR", self._text, path.at, note)


def _equal_side(column: Column, values: list[Any]) -> str:
    """Return the left side for a test of equality with `values`.

    NOCASE serves wherever every value is ASCII, and lets SQLite use the index on an external id or a lookup;
    an 18-character id differs from every other in more than case.
    """
    expression, field = column.expression, column.field
    if field.type == "reference":
        return f"{expression} COLLATE NOCASE"
    if kind_of(field) not in ("text", "multipicklist") or field.raw.get("caseSensitive"):
        return expression
    if all(str(value).isascii() for value in values):
        return f"{expression} COLLATE NOCASE"
    return f"{FOLD}({expression})"


def _folded(left: str, value: Bound) -> Bound:
    return fold(value) if left.startswith(FOLD) else value


def _balanced(parts: list[str], operator: str) -> str:
    """Join conditions as a tree of little depth: SQLite refuses expressions more than 1,000 deep."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_balanced(parts[:middle], operator)} {operator} {_balanced(parts[middle:], operator)})"
