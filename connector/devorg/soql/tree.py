"""The nouns of a parsed query. `at` is always the offset of the thing in the query's text."""

from dataclasses import dataclass
from datetime import date
from typing import Literal

LiteralKind = Literal["string", "number", "boolean", "null", "date", "datetime"]
Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Path:
    """A field as written: `("Account", "Name")` for `Account.Name`."""

    names: tuple[str, ...]
    at: int

    def __str__(self) -> str:
        return ".".join(self.names)


@dataclass(frozen=True, slots=True)
class Value:
    """A literal.

    Attributes:
        kind: Its form in the text.
        value: text for a string (escapes still in it) and for a datetime (UTC, `2026-01-01T12:00:00.000Z`);
            otherwise the Python value.
    """

    kind: LiteralKind
    value: str | float | bool | date | None
    at: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """`path operator value`."""

    path: Path
    operator: Operator
    value: Value
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Like:
    """`path LIKE pattern`."""

    path: Path
    pattern: Value
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Listed:
    """`path IN (values)` and its kin."""

    path: Path
    operator: Literal["IN", "NOT IN", "INCLUDES", "EXCLUDES"]
    values: tuple[Value, ...]
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions joined by one operator."""

    operator: Literal["AND", "OR"]
    parts: tuple["Condition", ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Negated:
    """`NOT condition`."""

    part: "Condition"
    depth: int


Condition = Comparison | Like | Listed | Joined | Negated


@dataclass(frozen=True, slots=True)
class AllFields:
    """`FIELDS(ALL)`, `FIELDS(STANDARD)` or `FIELDS(CUSTOM)`."""

    scope: str
    at: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`COUNT(path) alias` or `COUNT_DISTINCT(path) alias`."""

    function: Literal["COUNT", "COUNT_DISTINCT"]
    path: Path
    alias: str | None


@dataclass(frozen=True, slots=True)
class CountRows:
    """`COUNT()`."""

    at: int


Item = Path | AllFields | Aggregate | CountRows


@dataclass(frozen=True, slots=True)
class Ordering:
    """One column of ORDER BY. Nulls come first in either direction unless NULLS LAST is said."""

    path: Path
    descending: bool
    nulls_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A whole query, not yet held against a schema."""

    text: str
    items: tuple[Item, ...]
    object_name: str
    object_at: int
    alias: str | None
    where: Condition | None
    order: tuple[Ordering, ...]
    limit: int | None
    offset: int
    offset_at: int
