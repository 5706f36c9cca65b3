"""The CSV of Bulk API 2.0 ingest jobs: writes to rows, and the rows of the results back to the writes.

The order of the results is not that of the upload. A row is known by what it says: an update or delete by its Id, an
upsert by its external id, a create by all that it sets. Creates that set the same are told apart by nothing, and need
not be: whichever of them has whichever of the records is the truth.

Source: Bulk API 2.0 and Bulk API Developer Guide, "Prepare CSV Files", "Get Job Successful Record Results", "Get Job
Failed Record Results", "Get Job Unprocessed Record Results".
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from connector.errors import LinkDown, OrgUnavailable, TransientError
from connector.model.change import Operation
from connector.model.command import IngestKind, OrgProblem
from connector.model.ids import to_record_id
from connector.ports import BulkPage, RecordWrite, WriteOutcome

# In a row an empty value leaves the field alone; this empties it.
_NULL = "#N/A"
# Of one value; the guide's bound for ingest jobs.
_LONGEST_VALUE = 32_000
_CODE = re.compile(r"[A-Z][A-Z_0-9]*")
_OPERATIONS: Mapping[Operation, str] = {
    Operation.CREATE: "insert",
    Operation.UPDATE: "update",
    Operation.UPSERT: "upsert",
    Operation.DELETE: "delete",
}

Key = tuple[str, ...]


def order(kind: IngestKind) -> dict[str, str]:
    """The body that makes a job."""
    made = {"object": kind.object, "operation": _OPERATIONS[kind.operation], "contentType": "CSV"}
    made |= {"columnDelimiter": "COMMA", "lineEnding": "LF"}
    return made if kind.external_id is None else made | {"externalIdFieldName": kind.external_id}


def fits(write: RecordWrite) -> bool:
    """True if the write has no condition, and the CSV can hold its values: a text may mean null, or end the line."""
    if write.only_if is not None or write.if_unmodified_since_ms is not None:
        return False
    key = [] if write.external_id is None else [write.external_id[1]]
    texts = [value for value in (*write.fields.values(), *key) if isinstance(value, str)]
    return all(text.strip() != _NULL and "\r" not in text and len(text) <= _LONGEST_VALUE for text in texts)


def upload(kind: IngestKind, writes: Sequence[RecordWrite]) -> bytes:
    """The rows of the writes, with a column for each field that one of them sets."""
    key = _key_column(kind)
    names = sorted({name for write in writes for name in write.fields} - {key})
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    rows.writerow([*([key] if key else []), *names])
    rows.writerows(_row(kind, write, names) for write in writes)
    return text.getvalue().encode()


def _key_column(kind: IngestKind) -> str | None:
    match kind.operation:
        case Operation.CREATE:
            return None
        case Operation.UPSERT:
            return kind.external_id
        case _:
            return "Id"


def _row(kind: IngestKind, write: RecordWrite, names: Sequence[str]) -> list[str]:
    key = [] if kind.operation is Operation.CREATE else [_key_text(write)]
    return key + [_text(write.fields[name]) if name in write.fields else "" for name in names]


def _key_text(write: RecordWrite) -> str:
    return write.external_id[1] if write.external_id is not None else str(write.record_id)


def _text(value: Any) -> str:
    match value:
        case None:
            return _NULL
        case bool():
            return "true" if value else "false"
        case float():
            return format(Decimal(repr(value)), "f")  # without an exponent
        case _:
            return str(value)


class Outcomes:
    """Finds the write of each row that a job's results hold."""

    def __init__(self, kind: IngestKind, writes: Sequence[RecordWrite]) -> None:
        self._kind = kind
        self._writes = writes
        self._names = sorted({name for write in writes for name in write.fields})
        self._places: dict[Key, list[int]] = defaultdict(list)
        for place in reversed(range(len(writes))):
            self._places[self._key(writes[place])].append(place)
        self._found: dict[int, WriteOutcome | TransientError] = {}

    def taken(self, page: BulkPage) -> None:
        """The rows that were written."""
        for row in _dicts(page):
            created = row.get("sf__created", "").lower() == "true"
            self._put(row, lambda _, row=row, created=created: _taken(row, self._kind, created=created))

    def refused(self, page: BulkPage) -> None:
        """The rows that were not."""
        for row in _dicts(page):
            problem = problem_of(row.get("sf__error", ""))
            self._put(row, lambda write, problem=problem: WriteOutcome(write.record_id, (problem,), status=400))

    def untried(self, page: BulkPage) -> None:
        """The rows that the job did not come to."""
        for row in _dicts(page):
            self._put(row, lambda _: OrgUnavailable("the ingest job ended before this record"))

    def all(self) -> Sequence[WriteOutcome | TransientError]:
        """What became of each write, in order."""
        lost = LinkDown("the ingest job's results do not hold this record")
        return [self._found.get(place, lost) for place in range(len(self._writes))]

    def _put(self, row: Mapping[str, str], outcome: Any) -> None:
        places = self._places.get(self._row_key(row))
        if places:
            place = places.pop()
            self._found[place] = outcome(self._writes[place])

    def _key(self, write: RecordWrite) -> Key:
        match self._kind.operation:
            case Operation.CREATE:
                return tuple(_text(write.fields[n]).strip() if n in write.fields else "" for n in self._names)
            case Operation.UPSERT:
                return (_key_text(write).strip().casefold(),)
            case _:
                return (_key_text(write),)

    def _row_key(self, row: Mapping[str, str]) -> Key:
        match self._kind.operation:
            case Operation.CREATE:
                return tuple(row.get(name.lower(), "").strip() for name in self._names)
            case Operation.UPSERT:
                return (row.get(str(self._kind.external_id).lower(), "").strip().casefold(),)
            case _:
                return (_full_id(row.get("id", "") or row.get("sf__id", "")),)


def _dicts(page: BulkPage) -> Iterable[dict[str, str]]:
    names = [name.lower() for name in page.columns]
    return (dict(zip(names, row, strict=True)) for row in page.rows)


def _taken(row: Mapping[str, str], kind: IngestKind, *, created: bool) -> WriteOutcome | TransientError:
    try:
        record_id = to_record_id(row["sf__id"])
    except (KeyError, ValueError):
        return LinkDown("a row of an ingest job's results without the record's id")
    return WriteOutcome(record_id, created=created if kind.operation is Operation.UPSERT else None)


def _full_id(text: str) -> str:
    try:
        return to_record_id(text)
    except ValueError:
        return text


def problem_of(text: str) -> OrgProblem:
    """The error in a row's `sf__Error`: `CODE:message:Field1 Field2 --`."""
    code, colon, rest = text.partition(":")
    if not colon or _CODE.fullmatch(code) is None:
        return OrgProblem(code="UNKNOWN_EXCEPTION", message=text or "the org names no error", fields=[])
    message, _, names = rest.rpartition(":")
    if not names.endswith("--"):
        return OrgProblem(code=code, message=rest, fields=[])
    return OrgProblem(code=code, message=message, fields=names.removesuffix("--").replace(",", " ").split())
