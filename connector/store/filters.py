"""Which records a reader asks for, as SQL with bound values.

Every name in the SQL is a column that the object is known to have; everything a caller gives is bound.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import assert_never

from connector.model.objects import Kind, ObjectColumns
from connector.model.query import AllOf, AnyOf, Filter, FilterOperator, Not, Value, Where
from connector.model.times import to_iso, to_ms
from connector.store.names import quoted

Bindings = dict[str, str | int | float | None]

MAX_INTEGER = 2**63
# Operator -> the SQL where it holds, and where it does not hold. Conditions are only joined by AND and OR, so what
# SQL answers with null counts as false; `IS` is also true for null and null.
_COMPARISONS: Mapping[FilterOperator, tuple[str, str]] = {
    FilterOperator.LT: ("{c} < {v}", "({c} >= {v} OR {c} IS NULL)"),
    FilterOperator.LTE: ("{c} <= {v}", "({c} > {v} OR {c} IS NULL)"),
    FilterOperator.GT: ("{c} > {v}", "({c} <= {v} OR {c} IS NULL)"),
    FilterOperator.GTE: ("{c} >= {v}", "({c} < {v} OR {c} IS NULL)"),
    FilterOperator.LIKE: (
        "casefold({c}) LIKE {v} ESCAPE '\\'",
        "(casefold({c}) NOT LIKE {v} ESCAPE '\\' OR {c} IS NULL)",
    ),
}
# What a value of each kind may be; bool is an int to Python and is told apart below.
VALUE_TYPES: Mapping[Kind, tuple[type, ...]] = {
    "text": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "date": (str,),
    "datetime": (str,),
}


def kind_of(columns: ObjectColumns, field: str) -> Kind:
    """The kind of a field.

    Raises:
        ValueError: The object has no such field.
    """
    kind = "text" if field == "Id" else columns.fields.get(field)
    if kind is None:
        raise ValueError(f"{columns.name} has no synced field {field[:80]!r}")
    return kind


def condition(columns: ObjectColumns, where: Where, bindings: Bindings) -> str:
    """The SQL of records that are not deleted and for which `where` holds; its values are added to `bindings`.

    Raises:
        ValueError: The object lacks a field, or a value is not of its field's kind; each is named.
    """
    compiler = _Compiler(columns, bindings)
    sql = compiler.sql(where, holds=True)
    if compiler.problems:
        raise ValueError("; ".join(dict.fromkeys(compiler.problems)))
    return f"_deleted_at IS NULL AND {sql}"


class _Compiler:
    """Conditions as SQL; a negation is carried down to the comparisons, so that none is left that null could upset."""

    def __init__(self, columns: ObjectColumns, bindings: Bindings) -> None:
        self._columns = columns
        self._bindings = bindings
        self.problems: list[str] = []

    def sql(self, where: Where, *, holds: bool) -> str:
        """The SQL of `where`, or of its opposite."""
        match where:
            case AllOf(parts):
                return self._joined(parts, "AND" if holds else "OR", holds=holds)
            case AnyOf(parts):
                return self._joined(parts, "OR" if holds else "AND", holds=holds)
            case Not(part):
                return self.sql(part, holds=not holds)
            case Filter():
                try:
                    return self._compared(where, holds=holds)
                except ValueError as error:
                    self.problems.append(str(error))
                    return "0"
            case _:
                assert_never(where)

    def _joined(self, parts: Sequence[Where], word: str, *, holds: bool) -> str:
        if not parts:
            return "1" if word == "AND" else "0"
        return "(" + f" {word} ".join(self.sql(part, holds=holds) for part in parts) + ")"

    def _compared(self, item: Filter, *, holds: bool) -> str:
        kind, column, operator = kind_of(self._columns, item.field), quoted(item.field), item.operator
        if operator is FilterOperator.IN:
            return self._listed(item, kind, holds=holds)
        if operator is FilterOperator.IS_NULL:
            if not isinstance(item.value, bool):
                raise ValueError(f"{item.field}: is_null is true or false")
            return f"{column} IS NULL" if item.value is holds else f"{column} IS NOT NULL"
        value = checked(item.field, operator, item.value, kind)
        if operator in (FilterOperator.EQ, FilterOperator.NE):
            equal = (operator is FilterOperator.EQ) is holds
            if value is None:
                return f"{column} IS {'' if equal else 'NOT '}NULL"
            return f"{column} {'=' if equal else 'IS NOT'} {self._bound(value)}"
        folded = value.casefold() if operator is FilterOperator.LIKE and isinstance(value, str) else value
        return _COMPARISONS[operator][0 if holds else 1].format(c=column, v=self._bound(folded))

    def _listed(self, item: Filter, kind: Kind, *, holds: bool) -> str:
        if not isinstance(item.value, tuple):
            raise ValueError(f"{item.field}: in takes a list of values")  # noqa: TRY004 - one error type for every wrong value
        column = quoted(item.field)
        values = [checked(item.field, FilterOperator.EQ, value, kind) for value in item.value]
        listed = ", ".join(self._bound(value) for value in values if value is not None)
        with_null = None in values
        if holds:
            return f"({column} IN ({listed}){f' OR {column} IS NULL' if with_null else ''})"
        return (
            f"({column} NOT IN ({listed}) {'AND' if with_null else 'OR'} {column} IS {'NOT ' if with_null else ''}NULL)"
        )

    def _bound(self, value: str | float | None) -> str:
        name = f"value{len(self._bindings)}"
        self._bindings[name] = value
        return f":{name}"


def checked(field: str, operator: FilterOperator, value: object, kind: Kind) -> Value:
    """The value as a column of this kind would hold it, so that comparing it as text is comparing times.

    Raises:
        ValueError: It is not of the kind, or the operator is not for it.
    """
    if value is None:
        if operator not in (FilterOperator.EQ, FilterOperator.NE):
            raise ValueError(f"{field}: null is only equal to null or not; {operator} takes a value")
        return None
    if operator is FilterOperator.LIKE and kind != "text":
        raise ValueError(f"{field}: {operator} is for text, this is a {kind}")
    if not isinstance(value, VALUE_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise ValueError(f"{field}: expected a {kind}")
    try:
        return _normal(value, kind)
    except (ValueError, OverflowError):
        raise ValueError(f"{field}: expected a {kind}") from None


def _normal(value: object, kind: Kind) -> Value:
    match value:
        case str() if "\0" in value:
            raise ValueError  # SQLite's LIKE would end there
        case str() if kind == "datetime":
            return to_iso(to_ms(value))
        case str() if kind == "date":
            if len(value) != len("2026-01-31"):
                raise ValueError
            return date.fromisoformat(value).isoformat()
        case str():
            value.encode()  # a lone surrogate has no UTF-8
            return value
        case bool():
            return value
        case int() | float():
            # Also neither infinite nor NaN, which SQLite takes for null.
            if not -MAX_INTEGER <= value < MAX_INTEGER and not (isinstance(value, float) and abs(value) < float("inf")):
                raise ValueError
            return value
        case _:
            raise ValueError
