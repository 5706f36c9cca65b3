"""Writes: one record by a row call, many by collections and composite requests."""

from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

from connector.errors import LinkDown, OrgRefused, TransientError
from connector.model.codes import Reaction, reaction_to
from connector.model.command import OrgProblem
from connector.model.ids import to_record_id
from connector.ports import Purpose, RecordWrite, WriteOutcome
from connector.salesforce import batches
from connector.salesforce.answers import Answer, clock_ms, content, is_success, problems, problems_of
from connector.salesforce.transport import Request, Transport

_UNNAMED = OrgProblem(code="UNKNOWN_EXCEPTION", message="the org names no error", fields=[])


class Writing:
    """The writing part of `ports.OrgClient`.

    Args:
        transport: Sends the calls.
        data: Path of the data resources, with a slash at its end.
        headers: Of every call.
    """

    def __init__(self, transport: Transport, data: str, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self._data = data
        self._headers = headers

    async def write(self, write: RecordWrite) -> WriteOutcome:
        """See `OrgClient`. A row call, the only one that has a conditional header and makes us known in `changeOrigin`.

        Raises:
            LinkDown: The answer was lost, or a gateway gave up: the org may or may not have taken the write.
            OrgUnavailable, OrgThrottled, RowLocked: The org did not take it; the same write may succeed later.
        """
        try:
            answer = await self._transport.send(self._request(write))
            errors = () if is_success(answer.status) else problems(answer)
            if errors and reaction_to(errors) is Reaction.UNCERTAIN:
                return WriteOutcome(write.record_id, errors, status=answer.status, server_ms=clock_ms(answer.headers))
            return _outcome(write, answer)
        except OrgRefused as error:
            return WriteOutcome(id=write.record_id, errors=error.errors, status=error.status)

    def _request(self, write: RecordWrite) -> Request:
        method, path = _target(write)
        headers = dict(self._headers)
        if write.only_if is not None or (write.operation != "update" and write.if_unmodified_since_ms is not None):
            raise ValueError(f"a {write.operation} by a row call takes no such condition")
        if write.if_unmodified_since_ms is not None:
            headers["If-Unmodified-Since"] = _http_date(write.if_unmodified_since_ms)
        if write.operation == "update":
            headers |= batches.NO_ASSIGNMENT
        body = None if write.operation == "delete" else dict(write.fields)
        return Request(method=method, path=path, purpose=Purpose.COMMAND, headers=headers, json=body)

    async def write_many(self, writes: Sequence[RecordWrite]) -> Sequence[WriteOutcome | TransientError]:
        """See `OrgClient`."""
        found: dict[int, WriteOutcome | TransientError] = {}
        for call in batches.calls(writes):
            places = [place for part in call for place in part.places]
            try:
                done: Sequence[WriteOutcome | TransientError] = await self._write_call(call)
            except TransientError as error:
                done = [error] * len(places)
            found.update(zip(places, done, strict=True))
        return [found[place] for place in range(len(writes))]

    async def _write_call(self, call: Sequence[batches.Part]) -> Sequence[WriteOutcome | TransientError]:
        """The outcomes of one call's writes, part by part."""
        writes = [write for part in call for write in part.writes]
        if batches.is_small(writes):
            return [await self.write(writes[0])]
        try:
            if len(call) == 1 and not call[0].guarded:
                return await self._collection(call[0])
            answers, at_ms = await self._composite_writes(call)
        except OrgRefused as error:
            return await self._apart(writes, error.status, error.errors)
        done: list[WriteOutcome | TransientError] = []
        for number, part in enumerate(call):
            try:
                done.extend(batches.outcomes(part, number, answers, at_ms))
            except batches.PartRefused as refused:
                done.extend(await self._apart(part.writes, refused.status, refused.errors))
            except LinkDown as error:
                done.extend([error] * len(part.writes))
        return done

    async def _collection(self, part: batches.Part) -> Sequence[WriteOutcome]:
        method, path, body = batches.request(part)
        headers = {**self._headers, **(batches.NO_ASSIGNMENT if part.writes[0].operation == "update" else {})}
        request = Request(method=method, path=path, purpose=Purpose.COMMAND, headers=headers, json=body)
        answer = await self._transport.send(request)
        return batches.items(part, content(answer, write=True), clock_ms(answer.headers))

    async def _composite_writes(
        self, call: Sequence[batches.Part]
    ) -> tuple[Mapping[str, Mapping[str, Any]], int | None]:
        """The subanswers of one composite request by their reference ids, and the org's clock."""
        requests = [r for number, part in enumerate(call) for r in batches.subrequests(part, number, self._data)]
        body = {"allOrNone": False, "compositeRequest": requests}
        request = Request(method="POST", path="composite", purpose=Purpose.COMMAND, headers=self._headers, json=body)
        answer = await self._transport.send(request)
        value = content(answer, write=True)
        try:
            return {part["referenceId"]: part for part in value["compositeResponse"]}, clock_ms(answer.headers)
        except (KeyError, TypeError) as error:
            raise LinkDown("a composite answer of another shape") from error

    async def _apart(
        self, writes: Sequence[RecordWrite], status: int, errors: tuple[OrgProblem, ...]
    ) -> Sequence[WriteOutcome | TransientError]:
        """What was refused as a whole is written in halves, so that one bad record does not spoil the others."""
        if len(writes) == 1 or reaction_to(errors) is not Reaction.FAIL:
            return [WriteOutcome(write.record_id, errors, status=status) for write in writes]
        middle = len(writes) // 2
        return [*await self.write_many(writes[:middle]), *await self.write_many(writes[middle:])]


def _target(write: RecordWrite) -> tuple[str, str]:
    """Method and path of a write."""
    base = f"sobjects/{quote(write.object, safe='')}"
    if write.operation == "create":
        return "POST", base
    if write.operation == "upsert":
        if write.external_id is None:
            raise ValueError("an upsert needs an external id")
        name, value = write.external_id
        return "PATCH", f"{base}/{quote(name, safe='')}/{quote(value, safe='')}"
    if write.record_id is None:
        raise ValueError("an update or delete needs a record id")
    return ("PATCH" if write.operation == "update" else "DELETE"), f"{base}/{quote(write.record_id, safe='')}"


def _outcome(write: RecordWrite, answer: Answer) -> WriteOutcome:
    """What a successful answer says; an upsert tells the record's id and whether it is new."""
    value = content(answer, write=True)
    at_ms = clock_ms(answer.headers)
    if write.operation in ("update", "delete"):
        if value is not None:  # the org answers these with 204 alone
            raise LinkDown("an answer of another shape to a write")
        return WriteOutcome(id=write.record_id, status=answer.status, server_ms=at_ms)
    if value is None and write.operation == "upsert":
        return WriteOutcome(id=None, created=False, status=answer.status, server_ms=at_ms)
    try:
        if value["success"] is not True:
            raise OrgRefused(answer.status, problems_of(value["errors"]) or (_UNNAMED,))
        created = bool(value.get("created", True)) if write.operation == "upsert" else None
        return WriteOutcome(to_record_id(value["id"]), created=created, status=answer.status, server_ms=at_ms)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LinkDown("the answer to a write does not tell the record's id") from error


def _http_date(ms: int) -> str:
    return formatdate(ms // 1000, usegmt=True)
