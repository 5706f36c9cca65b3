"""Values in wire form, whatever spelling they came in: REST JSON, change event JSON, Bulk CSV.

Wire form is what `StoredRecord.values` holds: bool, int, float, `YYYY-MM-DD`, `2026-11-22T17:26:39.000Z`, str or None.
Every function here is pure and raises ValueError naming field and kind, never the value.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from connector.model.objects import FieldSpec, Kind
from connector.model.times import to_iso, to_ms

_MAX_INTEGER = 2**63 - 1  # SQLite's
_TRUTH = {"true": True, "false": False}
_TEXTS = frozenset({str, type(None)})
# As events and Bulk results write it, and with the zone of REST: nothing has to be reckoned.
_USUAL = re.compile(r"(\d{4}-\d\d-\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}(?:Z|\+0000)", re.ASCII)
_UNZONED = len("2026-11-22T17:26:39.157")


def from_json(field: FieldSpec, value: object) -> Any:
    """A value of a REST answer or a change event; dates and date-times may be text or epoch milliseconds.

    Raises:
        ValueError: The value does not fit the field's kind.
    """
    if value is None or value == "":
        return None
    try:
        return _FROM_JSON[field.kind](value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{field.name}: not a value of kind {field.kind}") from None


def from_csv(field: FieldSpec, text: str) -> Any:
    """A value of a Bulk API 2.0 result, where everything is text and null and empty are the same.

    Raises:
        ValueError: The text does not fit the field's kind.
    """
    text = text.replace("\x00", "")
    if not text:
        return None
    try:
        match field.kind:
            case "boolean":
                return _TRUTH[text.lower()]
            case "integer":
                return _integer(int(text) if text.lstrip("+-").isdigit() else float(text))
            case "number":
                return _number(float(text))
            case _:
                return _FROM_JSON[field.kind](text)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"{field.name}: not a value of kind {field.kind}") from None


def empty_value(field: FieldSpec) -> Any:
    """What a field holds that a CREATE event does not list: booleans are never null in the org."""
    return False if field.kind == "boolean" and not field.nillable else None


def json_column(field: FieldSpec, values: Sequence[object]) -> Sequence[Any]:
    """`from_json` of each."""
    # Most columns are text, and of most the first look is enough.
    if field.kind == "text" and _TEXTS.issuperset(map(type, values)) and _encodable(values):
        return [value or None for value in values]
    return [from_json(field, value) for value in values]


def csv_column(field: FieldSpec, texts: Sequence[str]) -> Sequence[Any]:
    """`from_csv` of each."""
    if field.kind == "text":
        return [text or None for text in texts]
    known = {text: from_csv(field, text) for text in set(texts)}
    return [known[text] for text in texts]


def stamp_column(name: str, values: Sequence[object]) -> Sequence[str]:
    """Date-times that no record is without.

    Raises:
        ValueError: One is none.
    """
    try:
        return [_usual_form(_text(value)) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: not a date-time") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not value.isascii():
        # A lone surrogate is legal in JSON text and in no database.
        return value.encode("utf-8", "replace").decode()
    return value


def _encodable(texts: Sequence[Any]) -> bool:
    try:
        "".join(filter(None, texts)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    whole = int(value)
    if whole != value or abs(whole) > _MAX_INTEGER:
        raise ValueError
    return whole


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _date(value: object) -> str:
    if isinstance(value, str):
        if len(value) != len("2026-01-01"):
            raise ValueError
        return date.fromisoformat(value).isoformat()
    return datetime.fromtimestamp(_integer(value) / 1000, UTC).date().isoformat()


def _datetime(value: object) -> str:
    return _usual_form(value) if isinstance(value, str) else to_iso(_integer(value))


@lru_cache(maxsize=4096)
def _usual_form(text: str) -> str:
    # The changes of one transaction, and those of a busy second, share their time.
    match = _USUAL.fullmatch(text)
    if match is None:
        return to_iso(to_ms(text))
    date.fromisoformat(match[1])
    return text[:_UNZONED] + "Z"


_FROM_JSON: dict[Kind, Callable[[object], Any]] = {
    "text": _text,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "date": _date,
    "datetime": _datetime,
}
