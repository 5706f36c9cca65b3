"""What readers may ask of an object's records, as SQL with bound values.

Every name in the SQL is a column that the object is known to have; everything a caller gives is bound.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import orjson

from connector.model.objects import Kind
from connector.store.columns import to_json
from connector.store.tables import ObjectColumns, quoted

Value = str | int | float | bool | None
Bindings = dict[str, str | int | float | None]


class FilterOperator(StrEnum):
    """How a field is compared; `contains` is for text and has no regard to case."""

    EQ = "eq"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    CONTAINS = "contains"


_COMPARISONS: Mapping[FilterOperator, str] = {
    FilterOperator.EQ: "IS",  # also true for null and null
    FilterOperator.LT: "<",
    FilterOperator.LTE: "<=",
    FilterOperator.GT: ">",
    FilterOperator.GTE: ">=",
}
# What a value of each kind may be; bool is an int to Python and is told apart below.
_VALUE_TYPES: Mapping[Kind, tuple[type, ...]] = {
    "text": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "date": (str,),
    "datetime": (str,),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one field, the value in wire form."""

    field: str
    operator: FilterOperator
    value: Value


@dataclass(frozen=True, slots=True)
class Order:
    """A field to sort by, ties by Id."""

    field: str
    descending: bool


def kind_of(columns: ObjectColumns, field: str) -> Kind:
    """The kind of a field.

    Raises:
        ValueError: The object has no such field.
    """
    kind = "text" if field == "Id" else columns.fields.get(field)
    if kind is None:
        raise ValueError(f"{columns.name} has no synced field {field!r}")
    return kind


def order(columns: ObjectColumns, text: str | None) -> Order:
    """The order that `Field`, `Field asc` or `Field desc` asks for; without one, by Id.

    Raises:
        ValueError: The object has no such field, or the direction is none.
    """
    field, _, direction = (text or "Id").strip().partition(" ")
    kind_of(columns, field)
    if direction.strip().lower() not in ("", "asc", "desc"):
        raise ValueError(f"order_by: expected a field and asc or desc, not {direction.strip()!r}")
    return Order(field, direction.strip().lower() == "desc")


def condition(columns: ObjectColumns, filters: Sequence[Filter], bindings: Bindings) -> str:
    """The SQL of all `filters` together; their values are added to `bindings`.

    Raises:
        ValueError: The object has no such field, or the value is not of its kind.
    """
    parts = ["_deleted_at IS NULL"]
    for number, item in enumerate(filters):
        kind = kind_of(columns, item.field)
        _check(item, kind)
        name = f"value{number}"
        column = quoted(item.field)
        if item.operator is FilterOperator.CONTAINS:
            bindings[name] = str(item.value).casefold()
            parts.append(f"instr(casefold({column}), :{name}) > 0")
        else:
            bindings[name] = item.value
            parts.append(f"{column} {_COMPARISONS[item.operator]} :{name}")
    return " AND ".join(parts)


def text_condition(columns: ObjectColumns, text: str, bindings: Bindings) -> str:
    """The SQL of `text` standing anywhere in any text field, without regard to case."""
    bindings["text"] = text.casefold()
    fields = [quoted(f) for f in ("Id", *(f for f, kind in columns.fields.items() if kind == "text"))]
    # One call per row instead of one per field; a line feed keeps the fields apart.
    return f"instr(casefold(concat_ws(char(10), {', '.join(fields)})), :text) > 0"


def behind(columns: ObjectColumns, by: Order, after: str | None, bindings: Bindings) -> str:
    """The SQL of everything that comes behind the page that ended at `after`.

    Nulls sort first, as SQLite sorts them.

    Raises:
        ValueError: `after` was not made by `page_end` for this order.
    """
    if after is None:
        return "1"
    if by.field == "Id":
        bindings["after_id"] = after
        return f'"Id" {"<" if by.descending else ">"} :after_id'
    value, record_id = _unpacked(after, kind_of(columns, by.field))
    bindings |= {"after_value": value, "after_id": record_id}
    column, sign = quoted(by.field), "<" if by.descending else ">"
    tie = f'({column} IS :after_value AND "Id" {sign} :after_id)'
    if value is None:
        return tie if by.descending else f"({column} IS NOT NULL OR {tie})"
    beyond = f"{column} {sign} :after_value"
    return f"({beyond} OR {column} IS NULL OR {tie})" if by.descending else f"({beyond} OR {tie})"


def page_end(by: Order, record_id: str, value: Value) -> str:
    """What `after` must be to go on behind this record."""
    if by.field == "Id":
        return record_id
    return urlsafe_b64encode(to_json([value, record_id]).encode()).decode().rstrip("=")


def _unpacked(after: str, kind: Kind) -> tuple[str | int | float | None, str]:
    try:
        value, record_id = orjson.loads(urlsafe_b64decode(after + "=" * (-len(after) % 4)))
    except (ValueError, TypeError) as error:
        raise ValueError("after: not a position of this list") from error
    # Stored booleans are 0 and 1, and so they stand in a position.
    fits = value is None or isinstance(value, int if kind == "boolean" else _VALUE_TYPES[kind])
    if not isinstance(record_id, str) or not fits:
        raise ValueError("after: not a position of this list")
    position: tuple[str | int | float | None, str] = (value, record_id)
    return position


def _check(item: Filter, kind: Kind) -> None:
    if item.value is None:
        if item.operator is not FilterOperator.EQ:
            raise ValueError(f"{item.field}: null can only be compared by equality")
        return
    if item.operator is FilterOperator.CONTAINS and kind != "text":
        raise ValueError(f"{item.field}: only text can be searched for a part of it")
    if not isinstance(item.value, _VALUE_TYPES[kind]) or (isinstance(item.value, bool) and kind != "boolean"):
        raise ValueError(f"{item.field}: expected a {kind}")
