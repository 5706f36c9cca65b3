"""What is asked of the replica, and pages of what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from connector.model.record import StoredRecord

Value = str | int | float | bool | None


class FilterOperator(StrEnum):
    r"""How a field is compared; null is equal to null and neither greater nor less than anything.

    `like` (with `%` and `_`, `\\` before one that is meant as it stands) and `contains` are for text and have no regard
    to case.
    """

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    LIKE = "like"
    CONTAINS = "contains"
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
