"""Writing many records with few calls: sObject Collections, several of them in one composite request, with guards.

Collections know no conditional headers. A guarded write is therefore checked in the same request: a query in front of
it selects the records that still are as the caller expects, and the collection refers to the last of as many rows as
it has records. If one record is missing the reference leads nowhere, and the org refuses the collection as a whole; the
query's rows tell which record it was. What the reference stands for is the same in every row (the type's name, or
that the record is not deleted), so it does not matter which record the last row is.

Source: REST API Developer Guide, "sObject Collections", "Composite", "Using References in Composite Requests".
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import quote, urlencode

from connector.errors import LinkDown
from connector.model.codes import HALTED, MODIFIED
from connector.model.command import OrgProblem
from connector.model.ids import to_record_id
from connector.ports import RecordWrite, WriteOutcome
from connector.salesforce.answers import is_success, problems_of

MOST_RECORDS = 200
MOST_TYPES = 10
# Of one composite request, queries and collections alike.
MOST_PARTS = 5
# Far below the 100,000 characters of a query and the megabytes of a request; a guard compares values, too.
_MOST_GUARD_CHARS = 20_000
_MOST_BODY_CHARS = 1_000_000
_ID_CHARS = len("'0035f00002KmQ7aAAF', ")

_METHODS: Mapping[str, str] = {"create": "POST", "update": "PATCH", "upsert": "PATCH", "delete": "DELETE"}
# By default the org's assignment rules would give the record a new owner with every update.
NO_ASSIGNMENT: Mapping[str, str] = {"Sforce-Auto-Assign": "FALSE"}


@dataclass(frozen=True, slots=True)
class Part:
    """Writes that go as one collection, with the query that guards them.

    Attributes:
        places: Where each write stands in what the caller gave.
    """

    places: tuple[int, ...]
    writes: tuple[RecordWrite, ...]

    @property
    def guarded(self) -> bool:
        """True if the writes are made under a condition."""
        return self.writes[0].only_if is not None

    @property
    def size(self) -> int:
        """Queries and collections of a composite request that it takes."""
        return 2 if self.guarded else 1


def calls(writes: Sequence[RecordWrite]) -> Iterator[list[Part]]:
    """The parts of each call, in as few calls as they fit into."""
    call: list[Part] = []
    for part in _parts(writes):
        if sum(p.size for p in call) + part.size > MOST_PARTS:
            yield call
            call = []
        call.append(part)
    if call:
        yield call


def _parts(writes: Sequence[RecordWrite]) -> Iterator[Part]:
    places = sorted(range(len(writes)), key=lambda place: _kind(writes[place]))
    for _, alike in groupby(places, key=lambda place: _together(writes[place])):
        filling = _Filling()
        for place in alike:
            if not filling.take(place, writes[place]):
                yield filling.part()
                filling = _Filling()
                filling.take(place, writes[place])
        yield filling.part()


def _kind(write: RecordWrite) -> tuple[str, ...]:
    """The order of the writes: records of one type stand together."""
    field = write.external_id[0] if write.external_id else ""
    return (write.operation, "if" if write.only_if is not None else "", field, write.object)


def _together(write: RecordWrite) -> tuple[str, ...]:
    """Writes that may go into one collection: a query, and an external id, are of one type."""
    kind = _kind(write)
    return kind if write.only_if is not None or write.operation == "upsert" else kind[:2]


class _Filling:
    """A part while it grows."""

    def __init__(self) -> None:
        self._places: list[int] = []
        self._writes: list[RecordWrite] = []
        self._types: set[str] = set()
        self._guards: set[str] = set()
        self._guard_chars = 0
        self._body_chars = 0

    def take(self, place: int, write: RecordWrite) -> bool:
        """Take the write in, if there is room for it; there always is for the first one."""
        guard, guard_chars = write.only_if, self._guard_chars
        if guard is not None:
            guard_chars += _ID_CHARS + (0 if guard in self._guards else len(guard) + len(" OR ()"))
        body_chars = self._body_chars + _chars(write)
        full = len(self._places) >= MOST_RECORDS or (write.object not in self._types and len(self._types) >= MOST_TYPES)
        if self._places and (full or guard_chars > _MOST_GUARD_CHARS or body_chars > _MOST_BODY_CHARS):
            return False
        self._places.append(place)
        self._writes.append(write)
        self._types.add(write.object)
        if guard is not None:
            self._guards.add(guard)
        self._guard_chars, self._body_chars = guard_chars, body_chars
        return True

    def part(self) -> Part:
        """What was taken."""
        return Part(tuple(self._places), tuple(self._writes))


def _chars(write: RecordWrite) -> int:
    return sum(len(v) if isinstance(v, str) else 20 for v in write.fields.values()) + 100


def subrequests(part: Part, number: int, base: str) -> list[dict[str, Any]]:
    """The part as it stands in a composite request; `base` is the path of the data resources."""
    name, guard = f"w{number}", f"g{number}"
    method, path, body = request(part, guard if part.guarded else None)
    write: dict[str, Any] = {"method": method, "url": base + path, "referenceId": name}
    if body is not None:
        write["body"] = body
    if part.writes[0].operation == "update":
        write["httpHeaders"] = dict(NO_ASSIGNMENT)
    if not part.guarded:
        return [write]
    query = urlencode({"q": guard_query(part.writes)}, quote_via=quote)
    return [{"method": "GET", "url": f"{base}query?{query}", "referenceId": guard}, write]


def request(part: Part, guard: str | None = None) -> tuple[str, str, dict[str, Any] | None]:
    """Method, path below the data resources, and body; refers to the guard's last row if there is one."""
    operation, last = part.writes[0].operation, f"@{{{guard}.records[{len(part.writes) - 1}]"
    if operation == "delete":
        ids = ",".join(str(write.record_id) for write in part.writes)
        all_or_none = "false" if guard is None else f"{last}.IsDeleted}}"
        return "DELETE", f"composite/sobjects?ids={ids}&allOrNone={all_or_none}", None
    path = "composite/sobjects"
    if part.writes[0].external_id is not None:
        path += f"/{quote(part.writes[0].object, safe='')}/{quote(part.writes[0].external_id[0], safe='')}"
    records = [_record(write) for write in part.writes]
    if guard is not None:
        records[0]["attributes"] = {"type": f"{last}.attributes.type}}"}
    return _METHODS[operation], path, {"allOrNone": False, "records": records}


def _record(write: RecordWrite) -> dict[str, Any]:
    record: dict[str, Any] = {"attributes": {"type": write.object}}
    if write.record_id is not None:
        record["id"] = write.record_id
    if write.external_id is not None:
        field, value = write.external_id
        record[field] = value
    return record | dict(write.fields)


def guard_query(writes: Sequence[RecordWrite]) -> str:
    """Selects those of the records that meet their condition."""
    ids: dict[str, list[str]] = {}
    for write in writes:
        ids.setdefault(write.only_if or "", []).append(f"'{write.record_id}'")
    conditions = " OR ".join(f"({text} AND {_among(some)})" for text, some in ids.items())
    extra = ", IsDeleted" if writes[0].operation == "delete" else ""
    # Ids are checked; whoever makes a condition escapes its values.
    return f"SELECT Id{extra} FROM {writes[0].object} WHERE {conditions}"  # noqa: S608


def _among(ids: Sequence[str]) -> str:
    return f"Id = {ids[0]}" if len(ids) == 1 else f"Id IN ({', '.join(ids)})"


class PartRefused(Exception):
    """The org refused a collection as a whole.

    Attributes:
        status: HTTP status of the part.
        errors: Why.
    """

    def __init__(self, status: int, errors: tuple[OrgProblem, ...]) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.errors = errors


def outcomes(
    part: Part, number: int, answers: Mapping[str, Mapping[str, Any]], at_ms: int | None
) -> list[WriteOutcome]:
    """What became of each write of a part of a composite request.

    Args:
        part: What was sent.
        number: Its place in the request.
        answers: Reference id -> subanswer.
        at_ms: The org's clock when it answered.

    Raises:
        PartRefused: The whole collection was refused for another reason than its guard.
        LinkDown: The answer does not have the documented shape.
    """
    try:
        answer = answers[f"w{number}"]
        if is_success(int(answer["httpStatusCode"])):
            return items(part, answer["body"], at_ms)
        if not part.guarded:
            raise _refusal(answer)
        guard = answers[f"g{number}"]
        if not is_success(int(guard["httpStatusCode"])):
            raise _refusal(guard)
        met = {to_record_id(row["Id"]) for row in guard["body"]["records"]}
        if all(write.record_id in met for write in part.writes):
            raise _refusal(answer)
        return [_held(write, met, at_ms) for write in part.writes]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LinkDown("a composite answer of another shape") from error


def _refusal(answer: Mapping[str, Any]) -> PartRefused | LinkDown:
    status, errors = int(answer["httpStatusCode"]), problems_of(answer["body"])
    return PartRefused(status, errors) if errors else LinkDown(f"a part answered HTTP {status} without an error")


def _held(write: RecordWrite, met: Collection[str], at_ms: int | None) -> WriteOutcome:
    """Of a collection that was not written: the record is not as expected, or stood beside one that is not."""
    if write.record_id in met:
        halted = OrgProblem(code=HALTED, message="another record of the batch was modified", fields=[])
        return WriteOutcome(write.record_id, (halted,), status=424, server_ms=at_ms)
    modified = OrgProblem(code=MODIFIED, message="the record was modified", fields=[])
    return WriteOutcome(write.record_id, (modified,), status=412, server_ms=at_ms)


def items(part: Part, body: Any, at_ms: int | None) -> list[WriteOutcome]:
    """What a collection's answer says of each record.

    Raises:
        LinkDown: It does not have the documented shape, or not one item per record.
    """
    try:
        if len(body) != len(part.writes):
            raise LinkDown("a collection's answer with more or fewer items than records")
        return [_item(write, item, at_ms) for write, item in zip(part.writes, body, strict=True)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LinkDown("a collection's answer of another shape") from error


def _item(write: RecordWrite, item: Mapping[str, Any], at_ms: int | None) -> WriteOutcome:
    if item["success"] is True:
        created = bool(item.get("created", True)) if write.operation == "upsert" else None
        return WriteOutcome(to_record_id(item["id"]), created=created, server_ms=at_ms)
    errors = problems_of(item["errors"])
    if not errors:
        errors = (OrgProblem(code="UNKNOWN_EXCEPTION", message="the org names no error", fields=[]),)
    return WriteOutcome(write.record_id, errors, status=400, server_ms=at_ms)


def is_small(writes: Sequence[RecordWrite]) -> bool:
    """True for a single unguarded write: it is a plain row call."""
    return len(writes) == 1 and writes[0].only_if is None
