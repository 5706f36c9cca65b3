"""Literals held against the field they are compared with: the right kind, in the form the database holds."""

from datetime import date
from typing import Literal

from connector.devorg.errors import OrgError
from connector.devorg.ids import is_id, normal_id
from connector.devorg.objects.fields import Field
from connector.devorg.soql.errors import refused
from connector.devorg.soql.parse import string_of
from connector.devorg.soql.tree import LiteralKind, Value

Kind = Literal["text", "id", "boolean", "int", "double", "date", "datetime", "time", "multipicklist", "compound"]
Bound = str | float | None

_KINDS: dict[str, Kind] = {
    "id": "id",
    "reference": "id",
    "boolean": "boolean",
    "int": "int",
    "long": "int",
    "double": "double",
    "currency": "double",
    "percent": "double",
    "date": "date",
    "datetime": "datetime",
    "time": "time",
    "multipicklist": "multipicklist",
    "address": "compound",
    "location": "compound",
}
_WANTED: dict[Kind, tuple[LiteralKind, str]] = {
    "text": ("string", "string and should be enclosed in quotes"),
    "id": ("string", "string and should be enclosed in quotes"),
    "multipicklist": ("string", "string and should be enclosed in quotes"),
    "boolean": ("boolean", "boolean and should not be enclosed in quotes"),
    "int": ("number", "int and should not be enclosed in quotes"),
    "double": ("number", "double and should not be enclosed in quotes"),
    "date": ("date", "date and should not be enclosed in quotes"),
    "datetime": ("datetime", "dateTime and should not be enclosed in quotes"),
}

FOLD = "soql_fold"
"""SQL function under which texts are compared; `install` in `compile` gives it to a connection."""


def fold(text: Bound) -> Bound:
    """Return a text in capitals, character by character, and anything else as it is.

    Source: SOQL and SOSL Reference, "ORDER BY": English locales sort by the values of the capitals.
    """
    if not isinstance(text, str):
        return text
    capitals = text.upper()
    if len(capitals) == len(text):
        return capitals
    return "".join(capital if len(capital := letter.upper()) == 1 else letter for letter in text)


def kind_of(field: Field) -> Kind:
    """Return how a field's values are compared and written."""
    return _KINDS.get(field.type, "text")


def bound(text: str, field: Field, literal: Value) -> Bound:
    """Return a literal as the database holds such values; None for null and, as in Salesforce, for `''`.

    Raises:
        OrgError: A literal of another type (400 INVALID_FIELD), or no id (400 INVALID_QUERY_FILTER_OPERATOR).
    """
    if literal.kind == "null":
        return None
    kind = kind_of(field)
    wanted, phrase = _WANTED[kind]
    fraction = kind == "int" and isinstance(literal.value, float) and not literal.value.is_integer()
    if literal.kind != wanted or fraction:
        raise _mismatch(text, field, literal, phrase)
    if wanted == "string":
        return _text(text, kind, literal)
    return _plain(literal.value)


def _text(text: str, kind: Kind, literal: Value) -> str | None:
    value = string_of(text, literal)
    if kind == "id" and value:
        if not is_id(value):
            raise refused("INVALID_QUERY_FILTER_OPERATOR", text, literal.at, f"invalid ID field: {value}")
        return normal_id(value)
    return value or None


def _plain(value: str | float | date | None) -> Bound:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, date):
        return value.isoformat()
    return value


def _mismatch(text: str, field: Field, literal: Value, phrase: str) -> OrgError:
    note = f"value of filter criterion for field '{field.name}' must be of type {phrase}"
    return refused("INVALID_FIELD", text, literal.at, note)
