"""What is kept of a column's values when the org changes the type of its field."""

import re
from collections.abc import Callable, Mapping
from datetime import date

from connector.model.times import to_iso, to_ms

Value = str | int | float | None

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,18})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MAX_INTEGER = 2**63


def refit(value: object, old: object, new: object) -> Value:
    """A stored value of kind `old` as kind `new` would store it; None where it does not fit.

    Called by SQL: whatever it is given, it answers. The record is read again from the org anyway; this keeps what is
    certain until then.
    """
    if not isinstance(value, (str, int, float)) or not isinstance(new, str):
        return None
    if old == "boolean" and new == "text":
        return "true" if value else "false"
    return _FITS[new](value)


def refit_function(*values: object) -> Value:
    """`refit` as SQLite calls it."""
    value, old, new = values
    return refit(value, old, new)


def _text(value: str | float) -> Value:
    return format(value, ".15g") if isinstance(value, float) else str(value)


def _number(value: str | float) -> float | None:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    return float(value)


def _integer(value: str | float) -> int | None:
    if isinstance(value, float):
        return int(value) if abs(value) < _MAX_INTEGER and value.is_integer() else None
    return int(value) if isinstance(value, int) or _INTEGER.fullmatch(value) else None


def _boolean(value: str | float) -> int | None:
    return {"true": 1, "false": 0, "1": 1, "0": 0}.get(str(value))


def _date(value: str | float) -> str | None:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        return None


def _datetime(value: str | float) -> str | None:
    try:
        return to_iso(to_ms(str(value)))
    except (ValueError, OverflowError):
        return None


_FITS: Mapping[str, Callable[[str | float], Value]] = {
    "text": _text,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "date": _date,
    "datetime": _datetime,
}
