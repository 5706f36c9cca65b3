"""Stand-ins for the doors: an org in memory, a scripted change source, and what the store and the mesh were told."""

import asyncio
import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from connector.errors import OrgRefused, TransientError
from connector.model.change import ReceivedEvent, ReplayId, Subscribed
from connector.model.ids import RecordId
from connector.model.message import Message
from connector.model.times import to_iso, to_ms
from connector.ports import (
    BulkJob,
    BulkPage,
    OrgRefusal,
    Purpose,
    QueryPage,
    RecordWrite,
    WriteOutcome,
)

DESCRIBES = Path(__file__).parent.parent / "connector" / "devorg" / "objects" / "describe"
_FROM = re.compile(r"SELECT (?P<columns>.+) FROM (?P<object>\w+)(?P<rest>.*)", re.DOTALL)
_AFTER = re.compile(r"Id > '(\w+)'")
_SINCE = re.compile(r"(\w+) >= (\S+)")
_LIMIT = re.compile(r"LIMIT (\d+)")

Row = dict[str, Any]


def real_describe(name: str) -> dict[str, Any]:
    """A recorded describe result of a standard object."""
    described: dict[str, Any] = json.loads((DESCRIBES / f"{name}.json").read_text(encoding="utf-8"))
    return described


class FakeOrg:
    """An `OrgClient` over rows in memory: knows the queries that the connector sends, and fails on order.

    Attributes:
        rows: Object -> id -> row, in REST's spelling, deleted ones with `IsDeleted`.
        failures: Method name -> errors to raise at its next calls.
        before: Method name -> called with its arguments at the next calls, before the answer is made...
        after: ...and after it was made, before it is given: what happens there is not in the answer.
    """

    def __init__(self, *names: str, server_ms: int = 1_795_368_400_000) -> None:
        self.describes: dict[str, dict[str, Any]] = {name: real_describe(name) for name in names}
        self.rows: dict[str, dict[str, Row]] = {name: {} for name in names}
        self.server_ms = server_ms
        self.failures: dict[str, deque[Exception]] = defaultdict(deque)
        self.after: dict[str, deque[Any]] = defaultdict(deque)
        self.calls: Counter[str] = Counter()
        self.by_purpose: Counter[Purpose] = Counter()
        self.queries: list[str] = []
        self.writes: list[RecordWrite] = []
        self.page_rows = 2000
        self.jobs: dict[str, str] = {}
        self._pages: dict[str, list[Row]] = {}

    def put(self, name: str, record_id: str, modified_ms: int | None = None, **fields: Any) -> Row:
        """Store a row with the stamps of now; fields that are not named keep their values or are null."""
        row = self.rows[name].get(record_id) or self._blank(name, record_id)
        stamp = to_iso(self.server_ms if modified_ms is None else modified_ms).replace("Z", "+0000")
        row |= {"LastModifiedDate": stamp, "SystemModstamp": stamp, **fields}
        if "LastName" in fields or "FirstName" in fields:
            row["Name"] = " ".join(p for p in (row.get("FirstName"), row.get("LastName")) if p)
        self.rows[name][record_id] = row
        return row

    def delete(self, name: str, record_id: str, *, hard: bool = False) -> None:
        """Into the recycle bin, or away for good."""
        if hard:
            del self.rows[name][record_id]
        else:
            stamp = to_iso(self.server_ms).replace("Z", "+0000")
            self.rows[name][record_id] |= {"IsDeleted": True, "SystemModstamp": stamp}

    def _blank(self, name: str, record_id: str) -> Row:
        blank: Row = {f["name"]: False if f["type"] == "boolean" else None for f in self.describes[name]["fields"]}
        return blank | {"Id": record_id, "attributes": {"type": name}}

    def _called(self, method: str, purpose: Purpose) -> None:
        self.calls[method] += 1
        self.by_purpose[purpose] += 1
        if self.failures[method]:
            raise self.failures[method].popleft()

    async def _answered(self, method: str) -> None:
        if self.after[method]:
            hook = self.after[method].popleft()
            result = hook()
            if asyncio.iscoroutine(result):
                await result

    async def describe(self, name: str, purpose: Purpose) -> Mapping[str, Any]:
        self._called("describe", purpose)
        if name not in self.describes:
            raise OrgRefused(404, ({"code": "NOT_FOUND", "message": "no such object", "fields": []},))
        return self.describes[name]

    async def query(self, soql: str, purpose: Purpose, *, deleted: bool = False) -> QueryPage:
        self._called("query", purpose)
        page = self._answer(soql, deleted=deleted)
        await self._answered("query")
        return page

    async def query_more(self, next_url: str, purpose: Purpose) -> QueryPage:
        self._called("query_more", purpose)
        page = self._page(self._pages.pop(next_url))
        await self._answered("query_more")
        return page

    async def query_many(
        self, soql: Sequence[str], purpose: Purpose, *, deleted: bool = False
    ) -> Sequence[QueryPage | OrgRefusal]:
        self._called("query_many", purpose)
        answers: list[QueryPage | OrgRefusal] = []
        for query in soql:
            try:
                answers.append(self._answer(query, deleted=deleted))
            except OrgRefused as error:
                answers.append(OrgRefusal(error.status, error.errors))
        await self._answered("query_many")
        return answers

    async def retrieve(
        self, name: str, ids: Sequence[RecordId], fields: Sequence[str], purpose: Purpose
    ) -> Sequence[Mapping[str, Any] | None]:
        self._called("retrieve", purpose)
        self._check(name, fields)
        rows = [self.rows[name].get(i) for i in ids]
        answer = [None if r is None or r["IsDeleted"] else {f: r[f] for f in fields} for r in rows]
        await self._answered("retrieve")
        return answer

    async def start_bulk_query(self, soql: str, purpose: Purpose) -> BulkJob:
        self._called("start_bulk_query", purpose)
        job = f"7505f{len(self.jobs):010d}AAA"
        self.jobs[job] = soql
        await self._answered("start_bulk_query")
        return BulkJob(job, "UploadComplete")

    async def bulk_job(self, job_id: str, purpose: Purpose) -> BulkJob:
        self._called("bulk_job", purpose)
        if job_id not in self.jobs:
            raise OrgRefused(404, ({"code": "NOT_FOUND", "message": "no such job", "fields": []},))
        return BulkJob(job_id, "JobComplete")

    async def bulk_page(self, job_id: str, locator: str | None, purpose: Purpose) -> BulkPage:
        self._called("bulk_page", purpose)
        match = _FROM.fullmatch(self.jobs[job_id])
        assert match is not None
        columns = match["columns"].split(", ")
        rows = [r for _, r in sorted(self.rows[match["object"]].items()) if not r["IsDeleted"]]
        start = int(locator or 0)
        end = start + self.page_rows
        page = [[_csv(row[c]) for c in columns] for row in rows[start:end]]
        await self._answered("bulk_page")
        return BulkPage(columns, page, str(end) if end < len(rows) else None)

    async def delete_bulk_job(self, job_id: str, purpose: Purpose) -> None:
        self._called("delete_bulk_job", purpose)
        del self.jobs[job_id]

    async def write(self, write: RecordWrite) -> WriteOutcome:
        self._called("write", Purpose.COMMAND)
        self.writes.append(write)
        return WriteOutcome(write.record_id)

    async def write_many(self, writes: Sequence[RecordWrite]) -> Sequence[WriteOutcome | TransientError]:
        self._called("write_many", Purpose.COMMAND)
        self.writes.extend(writes)
        return [WriteOutcome(write.record_id) for write in writes]

    async def user_id(self) -> RecordId | None:
        return RecordId("0055f000007NnAbAAK")

    def clock_ms(self) -> int | None:
        return self.server_ms

    async def hear_clock(self) -> None:
        """It is told from the start."""

    async def limits(self, purpose: Purpose) -> Mapping[str, Any]:
        self._called("limits", purpose)
        return {"DailyApiRequests": {"Max": 15000, "Remaining": 15000}}

    def calls_for(self, purpose: Purpose) -> int:
        """Calls so far."""
        return self.by_purpose[purpose]

    def _answer(self, soql: str, *, deleted: bool) -> QueryPage:
        self.queries.append(soql)
        match = _FROM.fullmatch(soql)
        assert match is not None, soql
        name, rest = match["object"], match["rest"]
        if name not in self.rows:
            raise OrgRefused(400, ({"code": "INVALID_TYPE", "message": "no such object", "fields": []},))
        rows = [r for _, r in sorted(self.rows[name].items()) if deleted or not r["IsDeleted"]]
        if match["columns"] == "COUNT()":
            return QueryPage([], None, len(rows), self.server_ms)
        columns = match["columns"].split(", ")
        self._check(name, columns)
        if after := _AFTER.search(rest):
            rows = [r for r in rows if r["Id"] > after[1]]
        if since := _SINCE.search(rest):
            stamp, since_ms = since[1], to_ms(since[2])
            rows = sorted((r for r in rows if to_ms(r[stamp]) >= since_ms), key=lambda r: (to_ms(r[stamp]), r["Id"]))
        if limit := _LIMIT.search(rest):
            rows = rows[: int(limit[1])]
        return self._page([{c: r[c] for c in ["attributes", *columns]} for r in rows])

    def _page(self, rows: list[Row]) -> QueryPage:
        page, more = rows[: self.page_rows], rows[self.page_rows :]
        url = f"/query/{len(self._pages)}-{self.calls.total()}" if more else None
        if url is not None:
            self._pages[url] = more
        return QueryPage(page, url, len(rows), self.server_ms)

    def _check(self, name: str, columns: Sequence[str]) -> None:
        known = {f["name"] for f in self.describes[name]["fields"]}
        if not known.issuperset(columns):
            raise OrgRefused(400, ({"code": "INVALID_FIELD", "message": "No such column", "fields": []},))


def _csv(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.replace("+0000", "Z") if isinstance(value, str) and value.endswith("+0000") else str(value)


class FakeSource:
    """A `ChangeSource` that yields what it is given and raises what it is told.

    Attributes:
        asked: The positions that subscriptions asked for.
        allowed: How many more events were asked for.
    """

    def __init__(self) -> None:
        self.allowed = 0
        self.asked: list[ReplayId | None] = []
        self.closed = 0
        self._script: asyncio.Queue[Sequence[ReceivedEvent] | Exception] = asyncio.Queue()
        self._refusals: deque[Exception] = deque()

    def send(self, *payloads: Any, first: int = 1) -> None:
        """Deliver events together, with replay ids from `first` on."""
        self._script.put_nowait([received(p, first + i) for i, p in enumerate(payloads)])

    def fail(self, error: Exception) -> None:
        """Break the subscription after what was sent so far."""
        self._script.put_nowait(error)

    def refuse(self, error: Exception) -> None:
        """Refuse the next subscription."""
        self._refusals.append(error)

    async def events(self, after: ReplayId | None) -> AsyncIterator[Subscribed | Sequence[ReceivedEvent]]:
        self.asked.append(after)
        if self._refusals:
            raise self._refusals.popleft()
        yield Subscribed(after)
        try:
            while True:
                item = await self._script.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed += 1

    def more(self, events: int) -> None:
        self.allowed += events


class FakePublisher:
    """A `Publisher` that remembers; `failures` are raised at the next calls."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.failures: deque[Exception] = deque()

    async def publish(self, message: Message) -> None:
        if self.failures:
            raise self.failures.popleft()
        self.messages.append(message)


def received(payload: Any, number: int = 1) -> ReceivedEvent:
    """An event as a source yields it."""
    return ReceivedEvent(ReplayId(str(number).encode()), payload)
