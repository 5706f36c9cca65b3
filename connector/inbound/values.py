"""Values in wire form, whatever spelling they came in: REST JSON, change event JSON, Bulk CSV.

Wire form is what `StoredRecord.values` holds: bool, int, float, `YYYY-MM-DD`, `2026-11-22T17:26:39.000Z`, str or None.
Every function here is pure and raises ValueError naming field and kind, never the value.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from connector.model.ids import to_record_id
from connector.model.objects import FieldSpec, Kind, ObjectSpec
from connector.model.record import ReadRecord
from connector.model.times import to_iso, to_ms

_MAX_INTEGER = 2**63 - 1  # SQLite's
_TRUTH = {"true": True, "false": False}


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


def from_row(spec: ObjectSpec, row: Mapping[str, Any]) -> ReadRecord:
    """One record of a REST answer that selected `spec.read_fields()`.

    Raises:
        ValueError: A field is missing or does not fit its kind, or the id is none.
    """
    try:
        return ReadRecord(
            id=to_record_id(_text(row["Id"])),
            values={f.name: from_json(f, row[f.name]) for f in spec.fields},
            modified_ms=_stamp(row, spec.modified_field),
            modstamp_ms=_stamp(row, spec.modstamp_field),
            deleted=row.get("IsDeleted") is True,
        )
    except KeyError as error:
        raise ValueError(f"{error.args[0]}: missing in the answer") from None
    except (TypeError, AttributeError):
        raise ValueError("a record of the answer does not have the documented shape") from None


def csv_reader(spec: ObjectSpec, columns: Sequence[str]) -> Callable[[Sequence[str]], ReadRecord]:
    """A function that reads one row of a Bulk result with these columns, decoded and without NULs.

    Raises:
        ValueError: A needed column is missing; the returned function raises it for a row that does not fit.
    """
    at = {name: i for i, name in enumerate(columns)}
    absent = [name for name in (*spec.read_fields(),) if name not in at]
    if absent:
        raise ValueError(f"{', '.join(absent)}: missing in the Bulk result")
    # Text, which most fields are, is taken as it is: a call for each value is a third of what a row costs.
    fields = [(f.name, at[f.name], None if f.kind == "text" else f) for f in spec.fields]
    id_at, modified_at, modstamp_at = at["Id"], at[spec.modified_field], at[spec.modstamp_field]
    deleted_at = at.get("IsDeleted")

    def read(row: Sequence[str]) -> ReadRecord:
        if len(row) != len(columns):
            raise ValueError("a row of the Bulk result has another number of values than its header")
        return ReadRecord(
            id=to_record_id(row[id_at]),
            values={name: (row[i] or None) if f is None else from_csv(f, row[i]) for name, i, f in fields},
            modified_ms=to_ms(row[modified_at]),
            modstamp_ms=to_ms(row[modstamp_at]),
            deleted=deleted_at is not None and row[deleted_at].lower() == "true",
        )

    return read


def _stamp(row: Mapping[str, Any], name: str) -> int:
    try:
        return to_ms(_text(row[name]))
    except (TypeError, ValueError):
        raise ValueError(f"{name}: not a date-time") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not value.isascii():
        # A lone surrogate is legal in JSON text and in no database.
        return value.encode("utf-8", "replace").decode()
    return value


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
    return to_iso(to_ms(text))


_FROM_JSON: dict[Kind, Callable[[object], Any]] = {
    "text": _text,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "date": _date,
    "datetime": _datetime,
}
