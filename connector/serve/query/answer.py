"""The answer to one query, out of one moment of the replica. Pure but for what the snapshot reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import orjson

from connector.model.change import Change
from connector.model.command import ECHO_WINDOW_MS, Command, CommandStatus
from connector.model.ids import RecordId, key_prefix, to_record_id
from connector.model.objects import ObjectColumns
from connector.model.query import EVERYTHING, Filter, FilterOperator, Where
from connector.model.record import StoredRecord
from connector.model.times import to_iso
from connector.ports import Snapshot
from connector.serve.query.payload import (
    ChangesQuery,
    CountQuery,
    DescribeQuery,
    GetQuery,
    ListQuery,
    QueryPayload,
    SearchQuery,
)
from connector.serve.request import Refused

ALL_OBJECTS = "_all"
PAGE_BYTES = 256 * 1024
# What a reply holds beside its records, as a rule; where it is more, the page is made again with fewer of them.
_FRAME_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far the replica can be trusted now.

    Attributes:
        stream: State of the change stream, as in the health document.
        verified_ms: When the object was last proved equal to the org; None: never.
    """

    stream: str
    verified_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One query, validated as far as that goes without the replica.

    Attributes:
        object: Its name, or `_all`.
        max_page: Records in a reply at most.
        change_data: A change as section 2 of the interface has it.
        loaded: Which load the rows of an object are of; None while it is not loaded, or being read again.
    """

    object: str
    verb: str
    payload: QueryPayload
    correlation: str | None
    max_page: int
    freshness: Freshness
    change_data: Callable[[Change], Mapping[str, Any]]
    loaded: Callable[[Snapshot, str], str | None] = lambda _snapshot, _name: None


@dataclass(slots=True)
class _Found:
    """What goes into the reply; `records` are JSON already."""

    records: Sequence[bytes] = ()
    next: str | int | None = None
    pending: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def answer(snapshot: Snapshot, asked: Question, now_ms: int) -> bytes:
    """The reply's JSON, of at most `PAGE_BYTES`, but for a single change that is larger by itself.

    Raises:
        Refused: The query cannot be answered; the reply says why.
        QueryTooSlow: It took too long.
    """
    if asked.object not in snapshot.objects() and asked.object != ALL_OBJECTS:
        raise Refused("unknown_object", f"{asked.object} is not a synced object")
    try:
        return _answer(snapshot, asked, now_ms)
    except ValueError as error:
        raise Refused("invalid_request", str(error)) from error


def _answer(snapshot: Snapshot, asked: Question, now_ms: int) -> bytes:
    match asked.payload:
        case GetQuery(id=text, fields=fields):
            by_id = Filter("Id", FilterOperator.EQ, _record_id(snapshot, asked.object, text))
            return _records(snapshot, asked, now_ms, ListQuery(limit=1, fields=fields), where=by_id)
        case SearchQuery() as search:
            return _records(snapshot, asked, now_ms, search, text=search.text, where=search.condition())
        case ListQuery() as listing:
            return _records(snapshot, asked, now_ms, listing)
        case CountQuery() as counting:
            count = snapshot.count(asked.object, counting.condition(), text=counting.text)
            return _reply(snapshot, asked, now_ms, _Found(more={"count": count}))
        case ChangesQuery() as query:
            return _changes(snapshot, asked, now_ms, query)
        case DescribeQuery() as query:
            return _described(snapshot, asked, now_ms, query)
        case _:
            assert_never(asked.payload)


def _record_id(snapshot: Snapshot, object_name: str, text: str) -> RecordId:
    try:
        record_id = to_record_id(text)
    except ValueError as error:
        raise ValueError(f"id: {error}") from error
    prefix = snapshot.objects()[object_name].key_prefix
    if prefix and key_prefix(record_id) != prefix:
        raise ValueError(f"id: begins with {key_prefix(record_id)}, but ids of {object_name} begin with {prefix}")
    return record_id


def _records(
    snapshot: Snapshot,
    asked: Question,
    now_ms: int,
    query: ListQuery | SearchQuery,
    *,
    text: str | None = None,
    where: Where = EVERYTHING,
) -> bytes:
    limit = min(query.limit or asked.max_page, asked.max_page)
    while limit:
        room = _Room(PAGE_BYTES - _FRAME_BYTES)
        page = snapshot.search(
            asked.object,
            text,
            where=where,
            limit=limit,
            after=query.after,
            order_by=query.order_by,
            fields=query.fields,
            fits=lambda record, room=room: room.takes(orjson.dumps(record.document())),  # type: ignore[misc]  # bound at once
        )
        if not page.records and room.full:
            break
        commands = snapshot.pending(asked.object, [r.id for r in page.records], now_ms - ECHO_WINDOW_MS)
        found = _Found(room.taken, page.next, _pending(page.records, commands))
        reply = _reply(snapshot, asked, now_ms, found)
        if len(reply) <= PAGE_BYTES:
            return reply
        limit = len(page.records) // 2
    raise Refused("too_large", f"one record alone has more than {PAGE_BYTES} bytes: ask for fewer of its fields")


def _pending(records: Sequence[StoredRecord], commands: Sequence[Command]) -> Sequence[Mapping[str, Any]]:
    stored = {record.id: record for record in records}
    return [
        {
            "command_id": command.command_id,
            "id": command.record_id,
            "operation": command.operation.value,
            "status": (CommandStatus.SUCCEEDED if command.status.final else CommandStatus.ACCEPTED).value,
            "fields": command.fields,
            "accepted_at": to_iso(command.accepted_ms),
        }
        for command in commands
        if command.record_id is not None and command.awaited_by(stored[command.record_id])
    ]


def _changes(snapshot: Snapshot, asked: Question, now_ms: int, query: ChangesQuery) -> bytes:
    limit = min(query.limit or asked.max_page, asked.max_page)
    changes, more = _logged(snapshot, asked.object, query, limit + 1)
    room = _Room(PAGE_BYTES - _FRAME_BYTES - len(asked.correlation or "") * 6)
    last = query.since or 0
    for change in changes[:limit]:
        # Of one record its history is asked: changes that no commit is known of have a time as well.
        when = {} if query.id is None else {"applied_at": to_iso(change.applied_ms)}
        document = orjson.dumps({**asked.change_data(change), **when})
        # A change that is too large by itself goes alone, as it was published: nobody could get past it otherwise.
        if not room.takes(document, alone=True):
            break
        last = change.version
    following = last if len(room.taken) < len(changes) else None
    return _reply(snapshot, asked, now_ms, _Found(room.taken, following, more=more))


def _described(snapshot: Snapshot, asked: Question, now_ms: int, query: DescribeQuery) -> bytes:
    known = snapshot.objects()
    names = sorted(known) if asked.object == ALL_OBJECTS else [asked.object]
    left = [name for name in names if query.after is None or name > query.after]
    room = _Room(PAGE_BYTES - _FRAME_BYTES - len(asked.correlation or "") * 6)
    last = None
    for name in left[: min(query.limit or asked.max_page, asked.max_page)]:
        document = _description(known[name], asked.loaded(snapshot, name))
        if not room.takes(orjson.dumps(document), alone=True):
            break
        last = name
    return _reply(snapshot, asked, now_ms, _Found(room.taken, last if len(room.taken) < len(left) else None))


def _description(columns: ObjectColumns, loaded: str | None) -> Mapping[str, Any]:
    return {
        "object": columns.name,
        "key_prefix": columns.key_prefix,
        "loaded": loaded,
        "fields": [
            {"name": name, "kind": kind, "searched": name in columns.searched, "looked_up": name in columns.looked_up}
            for name, kind in columns.fields.items()
        ],
    }


def _logged(
    snapshot: Snapshot, object_name: str, query: ChangesQuery, limit: int
) -> tuple[Sequence[Change], Mapping[str, Any]]:
    """The changes that are asked for, and what else the reply tells of the log."""
    since = query.since or 0
    if query.id is not None:
        if object_name == ALL_OBJECTS:
            raise ValueError("id: a record is of one object, not of _all")
        changes, begins_ms = snapshot.record_changes(
            object_name, _record_id(snapshot, object_name, query.id), since, limit
        )
        return changes, {"known_since": None if begins_ms is None else to_iso(begins_ms)}
    found = snapshot.changes(since, limit, None if object_name == ALL_OBJECTS else object_name)
    if found is None:
        raise Refused(
            "snapshot_required",
            f"the change log does not hold what came after version {since}: list the records, then go on from the "
            "version of the first page",
        )
    return found, {}


class _Room:
    """What still fits on a page."""

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes
        self.taken: list[bytes] = []
        self.full = False

    def takes(self, document: bytes, *, alone: bool = False) -> bool:
        """Take it if it fits, or, `alone`, if it is the first one."""
        if len(document) + 1 > self._left_bytes and not (alone and not self.taken):
            self.full = True
            return False
        self._left_bytes -= len(document) + 1
        self.taken.append(document)
        return True


def _reply(snapshot: Snapshot, asked: Question, now_ms: int, found: _Found) -> bytes:
    verified_ms = asked.freshness.verified_ms
    return orjson.dumps(
        {
            "ok": True,
            "object": asked.object,
            "verb": asked.verb,
            "records": [orjson.Fragment(record) for record in found.records],
            "next": found.next,
            **found.more,
            "version": snapshot.version(),
            "replica": snapshot.identity(),
            "as_of": to_iso(now_ms),
            "stream": asked.freshness.stream,
            "verified_at": None if verified_ms is None else to_iso(verified_ms),
            "pending": found.pending,
            "correlation": asked.correlation,
        }
    )
