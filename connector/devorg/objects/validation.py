"""What a client sends, checked field by field with Salesforce's codes and turned into the values that are stored.

Values inside the org are Python's: booleans, numbers, text; date-times are `2026-01-01T12:00:00.000Z`.

Source: REST API Developer Guide, "Status Codes and Error Responses"; SOAP API Developer Guide, "Core Data Types Used
in API Calls".
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from connector.devorg.clock import stamp, stamp_ms
from connector.devorg.errors import OrgError
from connector.devorg.ids import is_id, normal_id
from connector.devorg.objects.fields import Field, ObjectSchema

_EMAIL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_TOKENS: Mapping[type, str] = {
    str: "VALUE_STRING",
    bool: "VALUE_TRUE",
    int: "VALUE_NUMBER_INT",
    float: "VALUE_NUMBER_FLOAT",
    dict: "START_OBJECT",
    list: "START_ARRAY",
}
Converter = Callable[[Field, Any], Any]
"""Turns what a client sent, never None, into what is stored; raises `OrgError` where the field does not take it."""
_GEO_LIMITS = {"Latitude": 90, "Longitude": 180}


def clean(schema: ObjectSchema, values: Mapping[str, Any], *, creating: bool) -> dict[str, Any]:
    """Return the stored values of what a client sent for one record, by API name.

    Text is trimmed, empty text is null, numbers are rounded to their scale, ids have 18 characters. Whether
    referenced records exist, and whether required fields are there, is not checked here.

    Raises:
        OrgError: A field is unknown, may not be written or does not take the value.
    """
    known = {_known_field(schema, name): value for name, value in values.items() if name != "attributes"}
    cleaned = {field.name: stored_value(field, value) for field, value in known.items()}
    refused = [field.name for field in known if not (field.createable if creating else field.updateable)]
    if refused:
        raise OrgError(400, "INVALID_FIELD_FOR_INSERT_UPDATE", _not_writable(refused), refused)
    return cleaned


def _known_field(schema: ObjectSchema, name: str) -> Field:
    if name.lower() == "id":
        raise OrgError(400, "INVALID_FIELD", "The Id field should not be specified in the sobject data.")
    field = schema.field(name)
    if field is None:
        raise OrgError(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {schema.name}")
    return field


def _not_writable(names: list[str]) -> str:
    listed = ", ".join(names)
    return (
        f"Unable to create/update fields: {listed}. Please check the security settings of this field and verify"
        " that it is read/write for your profile or permission set."
    )


def stored_value(field: Field, value: Any) -> Any:
    """Return the value to store for one field.

    Raises:
        OrgError: The field does not take the value.
    """
    if isinstance(value, str):
        value = value.strip() or None
    if value is None and field.type == "boolean":
        message = f"{field.label}: value not of required type: null"
        raise OrgError(400, "INVALID_TYPE_ON_FIELD_IN_RECORD", message, [field.name])
    if value is None:
        return None
    convert: Converter = _CONVERTERS.get(field.type, _text)
    return convert(field, value)


def _wrong_json(kind: str, value: Any) -> OrgError:
    """Return the answer of Salesforce's JSON parser to a value of the wrong kind."""
    token = "VALUE_FALSE" if value is False else _TOKENS.get(type(value), "VALUE_EMBEDDED_OBJECT")
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    shown = "{" if isinstance(value, dict) else "[" if isinstance(value, list) else shown
    return OrgError(
        400,
        "JSON_PARSER_ERROR",
        f"Cannot deserialize instance of {kind} from {token} value {shown} or request may be missing a required"
        " field at [line:1, column:1]",
    )


def _text(field: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_json(field.type, value)
    if len(value) > field.length > 0:
        message = f"{field.label}: data value too large: {value} (max length={field.length})"
        raise OrgError(400, "STRING_TOO_LONG", message, [field.name])
    return value


def _email(field: Field, value: Any) -> str:
    text = _text(field, value)
    if _EMAIL.fullmatch(text) is None:
        raise OrgError(400, "INVALID_EMAIL_ADDRESS", f"{field.label}: invalid email address: {text}", [field.name])
    return text


def _picklist(field: Field, value: Any) -> str:
    text = _text(field, value)
    _check_picklist(field, [text])
    return text


def _multipicklist(field: Field, value: Any) -> str | None:
    text = _text(field, value)
    chosen = [part.strip() for part in text.split(";") if part.strip()]
    _check_picklist(field, chosen)
    return ";".join(chosen) or None


def _check_picklist(field: Field, chosen: Iterable[str]) -> None:
    """Only restricted picklists refuse a value they do not list."""
    bad = [value for value in chosen if field.restricted_picklist and value not in field.picklist_values]
    if bad:
        message = f"{field.label}: bad value for restricted picklist field: {bad[0]}"
        raise OrgError(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, [field.name])


def _reference(field: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_json("reference", value)
    if not is_id(value):
        raise OrgError(400, "MALFORMED_ID", f"{field.label}: id value of incorrect type: {value}", [field.name])
    return normal_id(value)


def _boolean(_field: Field, value: Any) -> bool:
    if value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise _wrong_json("boolean", value)
    return value


def _number(kind: str, value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_json(kind, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong_json(kind, value)
    return value


def _int(field: Field, value: Any) -> int:
    number = _number("int", value)
    if number != int(number):
        raise _wrong_json("int", value)
    _check_range(field, number, 10 ** (field.digits or 9))
    return int(number)


def _double(field: Field, value: Any) -> float:
    number = _number("double", value)
    _check_range(field, number, 10 ** ((field.precision or 18) - field.scale))
    limit = next((limit for end, limit in _GEO_LIMITS.items() if field.name.endswith((end, f"{end}__s"))), None)
    if limit is not None:
        _check_range(field, number, limit + 10**-field.scale)
    quantum = Decimal(1).scaleb(-field.scale)
    return float(Decimal(str(number)).quantize(quantum, ROUND_HALF_UP))


def _check_range(field: Field, number: float, limit: float) -> None:
    if abs(number) >= limit:
        message = f"{field.label}: value outside of valid range on numeric field: {number}"
        raise OrgError(400, "NUMBER_OUTSIDE_VALID_RANGE", message, [field.name])


def _date(_field: Field, value: Any) -> str:
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        raise _wrong_json("date", value)
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise _wrong_json("date", value) from None


def _datetime(_field: Field, value: Any) -> str:
    try:
        return stamp(stamp_ms(value))
    except (ValueError, TypeError, OverflowError):
        raise _wrong_json("datetime", value) from None


def _time(_field: Field, value: Any) -> str:
    try:
        return time.fromisoformat(value).replace(tzinfo=None).isoformat("milliseconds") + "Z"
    except (ValueError, TypeError):
        raise _wrong_json("time", value) from None


_CONVERTERS: Mapping[str, Converter] = {
    "email": _email,
    "picklist": _picklist,
    "multipicklist": _multipicklist,
    "reference": _reference,
    "boolean": _boolean,
    "int": _int,
    "double": _double,
    "currency": _double,
    "percent": _double,
    "date": _date,
    "datetime": _datetime,
    "time": _time,
}


def check_required(schema: ObjectSchema, row: Mapping[str, Any], written: Iterable[str] | None = None) -> None:
    """Check that no field that needs a value is empty.

    Args:
        schema: The object.
        row: The record as it would be stored.
        written: Names of the fields an update touches; None for a create, which must bring them all.

    Raises:
        OrgError: 400 REQUIRED_FIELD_MISSING, naming all of them.
    """
    if written is None:
        candidates = [field for field in schema.fields.values() if field.required]
    else:
        fields = [schema.fields[name] for name in written]
        candidates = [field for field in fields if not field.nillable]
    missing = [field.name for field in candidates if row.get(field.name) is None]
    if missing:
        message = f"Required fields are missing: [{', '.join(missing)}]"
        raise OrgError(400, "REQUIRED_FIELD_MISSING", message, missing)
