"""The CSV of a Bulk ingest job: uploaded text to rows, a row to the values of one write, outcomes back to CSV.

Source: Bulk API 2.0 Developer Guide, "Prepare CSV Files", "Valid CSV Record Rows", "Get Job Failed Record Results".
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from connector.devorg.errors import OrgError
from connector.devorg.objects.fields import ObjectSchema

NULL = "#N/A"
_LONGEST_VALUE = 131_072
_BOOLEANS = dict.fromkeys(("true", "yes", "y", "on", "1"), True)
_BOOLEANS |= dict.fromkeys(("false", "no", "n", "off", "0"), False)


class BatchError(Exception):
    """The data as a whole is no batch of records; its text is the job's `errorMessage`."""


def read_rows(data: bytes, delimiter: str, ending: str) -> list[list[str]]:
    """Return the header and the rows of uploaded data, empty lines left out.

    Raises:
        BatchError: The data is not CSV in UTF-8, has other line endings than the job, or rows of another length.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BatchError("InvalidBatch : the data is not UTF-8") from None
    header, _, _ = text.partition("\n")
    if header.endswith("\r") != (ending == "CRLF"):
        raise BatchError(
            f"ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {ending}"
        )
    csv.field_size_limit(_LONGEST_VALUE)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise BatchError(f"InvalidBatch : {error}") from None
    if not rows:
        raise BatchError("InvalidBatch : the data has no header row")
    if any(len(row) != len(rows[0]) for row in rows):
        raise BatchError("InvalidBatch : a row has more or fewer values than the header row has names")
    return rows


def check_header(header: Sequence[str], schema: ObjectSchema, operation: str) -> None:
    """Check that every column is a field, or the external id of a parent.

    Raises:
        BatchError: One is not, one is there twice, or a delete has others than Id.
    """
    for name in header:
        if not _is_column(name, schema):
            raise BatchError(f"InvalidBatch : Field name not found : {name}")
    folded = [name.lower() for name in header]
    twice = next((name for place, name in enumerate(folded) if name in folded[:place]), None)
    if twice is not None:
        raise BatchError(f"InvalidBatch : Duplicate field name : {twice}")
    if operation in ("delete", "hardDelete") and folded != ["id"]:
        raise BatchError("InvalidBatch : a delete takes the column Id alone")


def _is_column(name: str, schema: ObjectSchema) -> bool:
    relationship, dot, _ = name.partition(".")
    if not dot:
        return schema.field(name) is not None
    known = (field.relationship_name for field in schema.stored if field.relationship_name)
    return relationship.lower() in (str(one).lower() for one in known)


def values_of(schema: ObjectSchema, header: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    """Return what a row sets: an empty value sets nothing, `#N/A` empties the field.

    Raises:
        OrgError: 400 INVALID_TYPE_ON_FIELD_IN_RECORD: no word for true or false.
    """
    values: dict[str, Any] = {}
    for name, text in zip(header, row, strict=True):
        if text == "":
            continue
        relationship, dot, key = name.partition(".")
        if dot:
            values[relationship] = {key: None if text == NULL else text}
        else:
            values[name] = None if text == NULL else _value(schema, name, text)
    return values


def _value(schema: ObjectSchema, name: str, text: str) -> Any:
    field = schema.field(name)
    if field is None or field.type != "boolean":
        return text
    if text.strip().lower() not in _BOOLEANS:
        message = f"{field.label}: value not of required type: {text}"
        raise OrgError(400, "INVALID_TYPE_ON_FIELD_IN_RECORD", message, [field.name])
    return _BOOLEANS[text.strip().lower()]


def take(values: dict[str, Any], name: str) -> Any:
    """Take a field out of the values, its name in any case of letters; None where it is not there."""
    return next((values.pop(known) for known in list(values) if known.lower() == name.lower()), None)


def error_text(error: OrgError) -> str:
    """Return a refusal as `sf__Error` holds it."""
    return f"{error.code}:{error.message}:{' '.join((*(error.fields or ()), '--'))}"


def lines(rows: Iterable[Sequence[str]], delimiter: str, ending: str) -> bytes:
    """Return rows as CSV, every value in double quotes."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()
