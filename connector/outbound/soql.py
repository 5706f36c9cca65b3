"""SOQL: values as literals, and the conditions under which a write is made. Pure.

Source: SOQL and SOSL Reference, "Quoted String Escape Sequences", "Date Formats and Date Literals".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from connector.model.objects import FieldSpec, ObjectSpec
from connector.model.times import to_iso

_ESCAPES = str.maketrans(
    {
        "\\": "\\\\",
        "'": "\\'",
        '"': '\\"',
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\b": "\\b",
        "\f": "\\f",
    }
)


def literal(field: FieldSpec, value: Any) -> str:
    """A value in wire form."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if field.kind in ("number", "integer"):
        return repr(value)
    if field.kind == "datetime":
        return str(value).replace(".000Z", "Z")
    if field.kind == "date":
        return str(value)
    return "'" + str(value).translate(_ESCAPES) + "'"


def moment(ms: int) -> str:
    """A time in whole seconds, which is all that the org keeps."""
    return to_iso(ms // 1000 * 1000).replace(".000Z", "Z")


def unchanged_since(spec: ObjectSpec, modified_ms: int) -> str:
    """Nobody has modified the record in a later second."""
    return f"{spec.modified_field} <= {moment(modified_ms)}"


def still_holds(spec: ObjectSpec, values: Mapping[str, Any], names: Iterable[str]) -> str:
    """The named fields hold these values; fields that cannot be compared in a query are left out. May be empty."""
    tests = []
    for name in names:
        field = spec.described.get(name)
        # A percent or currency field may hold more digits than it shows; a text is compared without regard to case.
        if field is not None and field.filterable and name in values:
            tests.append(f"{name} = {literal(field, values[name])}")
    return " AND ".join(tests)
