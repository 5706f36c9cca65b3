"""What is asked of the replica, and pages of what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from connector.model.record import StoredRecord

Value = str | int | float | bool | None


class FilterOperator(StrEnum):
    """How a field is compared; null is equal to null and neither greater nor less than anything.

    `like` is for text and has no regard to case; `%` stands for any text, `_` for one character, either with a
    backslash before it for itself.
    """

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    LIKE = "like"
    IS_NULL = "is_null"


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one field, the value in wire form; a tuple of values for `in`, True or False for `is_null`."""

    field: str
    operator: FilterOperator
    value: Value | tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds; true without parts."""

    parts: "tuple[Where, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A part holds; false without parts."""

    parts: "tuple[Where, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold: every condition is either true or false of a record, never unknown."""

    part: "Where"


def containing(text: str) -> str:
    """The pattern of `like` that finds `text` anywhere in a value."""
    return "%" + "".join(f"\\{char}" if char in "\\%_" else char for char in text) + "%"


Where = Filter | AllOf | AnyOf | Not
EVERYTHING = AllOf(())


@dataclass(frozen=True, slots=True)
class Page:
    """Some records in order.

    Attributes:
        records: Their `values` hold the fields that were asked for.
        next: `after` of the next page, opaque; None at the end.
    """

    records: Sequence[StoredRecord]
    next: str | None
