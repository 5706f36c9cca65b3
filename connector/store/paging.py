"""In which order, behind which record and with which fields a reader asks for a page."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from connector.model.objects import Kind, ObjectColumns
from connector.model.query import Value
from connector.store.columns import to_json
from connector.store.filters import MAX_INTEGER, VALUE_TYPES, Bindings, kind_of
from connector.store.names import quoted


@dataclass(frozen=True, slots=True)
class Order:
    """A field to sort by, ties by Id in the same direction."""

    field: str
    descending: bool


def order(columns: ObjectColumns, text: str | None) -> Order:
    """The order that `Field`, `Field asc` or `Field desc` asks for; without one, by Id.

    Raises:
        ValueError: The object has no such field, or the direction is none.
    """
    field, _, direction = (text or "Id").strip().partition(" ")
    kind_of(columns, field)
    if direction.strip().lower() not in ("", "asc", "desc"):
        raise ValueError(f"order_by: expected a field and asc or desc, not {direction.strip()[:80]!r}")
    return Order(field, direction.strip().lower() == "desc")


def chosen(columns: ObjectColumns, fields: Sequence[str] | None) -> tuple[str, ...]:
    """The named fields, each once and without Id, which every record has; all of them for None.

    Raises:
        ValueError: The object lacks some of them; each is named.
    """
    if fields is None:
        return tuple(columns.fields)
    names = tuple(name for name in dict.fromkeys(fields) if name != "Id")
    collected(*(lambda name=name: kind_of(columns, name) for name in names))
    return names


def collected(*checks: Callable[[], object]) -> None:
    """Make every check.

    Raises:
        ValueError: Some failed; with what each of them says.
    """
    problems = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))


def behind(columns: ObjectColumns, by: Order, after: str | None, bindings: Bindings) -> str:
    """The SQL of everything that comes behind the page that ended at `after`.

    Nulls sort first, as SQLite sorts them.

    Raises:
        ValueError: `after` was not made by `page_end` for this order.
    """
    if after is None:
        return "1"
    value, record_id = _unpacked(after, by, kind_of(columns, by.field))
    bindings["after_id"] = record_id
    column, sign = quoted(by.field), "<" if by.descending else ">"
    if by.field == "Id":
        return f"{column} {sign} :after_id"
    bindings["after_value"] = value
    tie = f'({column} IS :after_value AND "Id" {sign} :after_id)'
    if value is None:
        return tie if by.descending else f"({column} IS NOT NULL OR {tie})"
    beyond = f"{column} {sign} :after_value"
    return f"({beyond} OR {column} IS NULL OR {tie})" if by.descending else f"({beyond} OR {tie})"


def page_end(by: Order, record_id: str, value: Value) -> str:
    """What `after` must be to go on behind this record; opaque to whoever gives it back."""
    position = [by.field, by.descending, record_id, *([] if by.field == "Id" else [value])]
    return urlsafe_b64encode(to_json(position).encode()).decode().rstrip("=")


def _unpacked(after: str, by: Order, kind: Kind) -> tuple[str | int | float | None, str]:
    try:
        field, descending, record_id, *rest = orjson.loads(urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        (value,) = rest or [None]
    except (ValueError, TypeError) as error:
        raise ValueError("after: not a position of this list") from error
    # Stored booleans are 0 and 1, and so they stand in a position.
    fits = value is None or (isinstance(value, int if kind == "boolean" else VALUE_TYPES[kind]) and _binds(value))
    if (field, descending) != (by.field, by.descending) or not isinstance(record_id, str) or not fits:
        raise ValueError("after: not a position of this list")
    position: tuple[str | int | float | None, str] = (value, record_id)
    return position


def _binds(value: object) -> bool:
    return not isinstance(value, int) or -MAX_INTEGER <= value < MAX_INTEGER
