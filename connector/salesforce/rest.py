"""`OrgClient` over REST and Bulk 2.0: what to ask, and what the answers hold."""

from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote, urlencode

from connector.errors import LinkDown, OrgRefused, OrgThrottled, TransientError
from connector.model.codes import DAILY_LIMIT_WAIT_S, is_daily_limit
from connector.model.command import OrgProblem
from connector.model.ids import RecordId, to_record_id
from connector.ports import BulkJob, BulkPage, OrgRefusal, Purpose, QueryPage, RecordWrite, WriteOutcome
from connector.salesforce import bulk
from connector.salesforce.answers import Answer, content, problems_of, server_ms
from connector.salesforce.budget import ApiBudget
from connector.salesforce.ingesting import Ingesting
from connector.salesforce.login import Session
from connector.salesforce.transport import Request, Transport
from connector.salesforce.writing import Writing

CLIENT_NAME = "salesforce-sync"
MOST_IDS = 2000
# Documented: 25 parts, of which 5 may be queries.
QUERIES_PER_COMPOSITE = 5

_ROWS_PER_PAGE = 2000
# The org refuses URI and headers above 16,384 bytes; a token and our headers need less than the rest.
_LONGEST_QUERY_BYTES = 12_000
_NOT_FOUND = 404
_UNNAMED = OrgProblem(code="UNKNOWN_EXCEPTION", message="the org names no error", fields=[])


class RestClient:
    """See `ports.OrgClient`.

    Attributes:
        ingest: See `ports.IngestClient`.

    Args:
        session: Gives the token.
        budget: Grants and counts each call.
        api_version: For instance `58.0`.
        timeout_s: Of the connection and of each wait for an answer.
        client_name: Names us in `changeOrigin` of the events that our writes give.
    """

    def __init__(
        self,
        session: Session,
        budget: ApiBudget,
        *,
        api_version: str,
        timeout_s: float,
        client_name: str = CLIENT_NAME,
    ) -> None:
        self._transport = Transport(session, budget, api_version=api_version, timeout_s=timeout_s)
        self._data = f"/services/data/v{api_version}/"
        self._call_options = {"Sforce-Call-Options": f"client={client_name}"}
        self._writing = Writing(self._transport, self._data, self._call_options)
        self.ingest = Ingesting(self._transport, self._call_options)
        self._query_options = {**self._call_options, "Sforce-Query-Options": f"batchSize={_ROWS_PER_PAGE}"}

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    async def _get(self, path: str, purpose: Purpose, **parts: Any) -> Answer:
        headers = parts.pop("headers", self._call_options)
        return await self._transport.send(Request(method="GET", path=path, purpose=purpose, headers=headers, **parts))

    async def _post(self, path: str, body: Mapping[str, Any], purpose: Purpose) -> Answer:
        request = Request(method="POST", path=path, purpose=purpose, headers=self._query_options, json=body)
        return await self._transport.send(request)

    async def describe(self, name: str, purpose: Purpose) -> Mapping[str, Any]:
        """See `OrgClient`."""
        return _mapping(content(await self._get(f"sobjects/{quote(name, safe='')}/describe", purpose)), "fields")

    async def limits(self, purpose: Purpose) -> Mapping[str, Any]:
        """See `OrgClient`."""
        return _mapping(content(await self._get("limits", purpose)))

    # Queries

    async def query(self, soql: str, purpose: Purpose, *, deleted: bool = False) -> QueryPage:
        """See `OrgClient`."""
        if len(quote(soql)) > _LONGEST_QUERY_BYTES:
            [page] = await self._composite([soql], purpose, deleted=deleted)
            if isinstance(page, OrgRefusal):
                raise OrgRefused(page.status, page.errors)
            return page
        path = "queryAll" if deleted else "query"
        answer = await self._get(path, purpose, params={"q": soql}, headers=self._query_options)
        return _page(content(answer), answer)

    async def query_more(self, next_url: str, purpose: Purpose) -> QueryPage:
        """See `OrgClient`.

        Raises:
            OrgRefused: The cursor has expired (INVALID_QUERY_LOCATOR): ask again from the start.
        """
        answer = await self._get(next_url, purpose, headers=self._query_options)
        return _page(content(answer), answer)

    async def query_many(
        self, soql: Sequence[str], purpose: Purpose, *, deleted: bool = False
    ) -> Sequence[QueryPage | OrgRefusal]:
        """See `OrgClient`. A query that failed for now (a lock, a time-out) is a refusal with its status, too."""
        pages: list[QueryPage | OrgRefusal] = []
        for start in range(0, len(soql), QUERIES_PER_COMPOSITE):
            some = soql[start : start + QUERIES_PER_COMPOSITE]
            if len(some) == 1:
                pages.append(await self._query_alone(some[0], purpose, deleted=deleted))
            else:
                pages.extend(await self._composite(some, purpose, deleted=deleted))
        return pages

    async def _query_alone(self, soql: str, purpose: Purpose, *, deleted: bool) -> QueryPage | OrgRefusal:
        try:
            return await self.query(soql, purpose, deleted=deleted)
        except OrgRefused as error:
            return OrgRefusal(error.status, error.errors)

    async def _composite(self, soql: Sequence[str], purpose: Purpose, *, deleted: bool) -> list[QueryPage | OrgRefusal]:
        """First pages of at most five queries for one API call."""
        resource = self._data + ("queryAll" if deleted else "query")
        parts = [
            {"method": "GET", "referenceId": f"q{i}", "url": f"{resource}?{urlencode({'q': q}, quote_via=quote)}"}
            for i, q in enumerate(soql)
        ]
        answer = await self._post("composite", {"allOrNone": False, "compositeRequest": parts}, purpose)
        try:
            by_name = {part["referenceId"]: part for part in content(answer)["compositeResponse"]}
            return [_part(by_name[f"q{i}"], answer) for i in range(len(soql))]
        except (KeyError, TypeError, ValueError) as error:
            raise LinkDown("a composite answer that lacks a part") from error

    async def retrieve(
        self, name: str, ids: Sequence[RecordId], fields: Sequence[str], purpose: Purpose
    ) -> Sequence[Mapping[str, Any] | None]:
        """See `OrgClient`."""
        if not ids:
            return []
        if len(ids) > MOST_IDS:
            raise ValueError(f"at most {MOST_IDS} ids at a time")
        asked = list(dict.fromkeys(ids))
        body = {"ids": asked, "fields": list(dict.fromkeys(("Id", *fields)))}
        rows = content(await self._post(f"composite/sobjects/{quote(name, safe='')}", body, purpose))
        # A row that is missing reads as a record that is deleted: the org owes one, or null, for each id.
        if not isinstance(rows, list) or len(rows) != len(asked):
            raise LinkDown("records by id, but not as many as ids")
        try:
            found = {to_record_id(row["Id"]): row for row in rows if row is not None}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LinkDown("records without ids") from error
        return [found.get(record_id) for record_id in ids]

    # Bulk 2.0

    async def start_bulk_query(self, soql: str, purpose: Purpose) -> BulkJob:
        """See `OrgClient`."""
        body = {
            "operation": "query",
            "query": soql,
            "contentType": "CSV",
            "columnDelimiter": "COMMA",
            "lineEnding": "LF",
        }
        answer = await self._post("jobs/query", body, purpose)
        return bulk.job(content(answer, write=True), answer.headers)

    async def bulk_job(self, job_id: str, purpose: Purpose) -> BulkJob:
        """See `OrgClient`."""
        answer = await self._get(_job(job_id), purpose)
        return bulk.job(content(answer), answer.headers)

    async def bulk_page(self, job_id: str, locator: str | None, purpose: Purpose) -> BulkPage:
        """See `OrgClient`."""
        page = bulk.CsvPage()
        params = {"maxRecords": str(bulk.ROWS_PER_PAGE)} | ({"locator": locator} if locator else {})
        headers = {**self._call_options, "Accept": "text/csv"}
        answer = await self._get(f"{_job(job_id)}/results", purpose, params=params, headers=headers, sink=page.read)
        content(answer)
        return page.page(answer.headers)

    async def delete_bulk_job(self, job_id: str, purpose: Purpose) -> None:
        """See `OrgClient`. A job that is not there any more is as good."""
        request = Request(method="DELETE", path=_job(job_id), purpose=purpose, headers=self._call_options)
        answer = await self._transport.send(request)
        if answer.status != _NOT_FOUND:
            content(answer)

    # Writes

    async def write(self, write: RecordWrite) -> WriteOutcome:
        """See `OrgClient`."""
        return await self._writing.write(write)

    async def write_many(self, writes: Sequence[RecordWrite]) -> Sequence[WriteOutcome | TransientError]:
        """See `OrgClient`."""
        return await self._writing.write_many(writes)

    async def user_id(self) -> RecordId | None:
        """See `OrgClient`."""
        return (await self._transport.token()).user_id

    def clock_ms(self) -> int | None:
        """See `OrgClient`."""
        return self._transport.clock_ms()

    async def hear_clock(self) -> None:
        """See `OrgClient`. Asks for the versions of the API, which everybody may; whatever it answers has a `Date`.

        Raises:
            LinkDown: The answer was lost, or has no readable `Date`.
        """
        if self.clock_ms() is None:
            server_ms((await self._get("/services/data/", Purpose.COMMAND)).headers)


def _part(part: Mapping[str, Any], answer: Answer) -> QueryPage | OrgRefusal:
    """One part of a composite answer.

    Raises:
        OrgThrottled: The quota ended among the parts.
    """
    status, body = int(part["httpStatusCode"]), part["body"]
    if status == 200:  # noqa: PLR2004 - OK
        return _page(body, answer)
    errors: tuple[OrgProblem, ...] = problems_of(body)
    if is_daily_limit(errors):
        raise OrgThrottled("the org's API requests of 24 hours are used up", retry_after_s=DAILY_LIMIT_WAIT_S)
    return OrgRefusal(status, errors)


def _page(value: Any, answer: Answer) -> QueryPage:
    try:
        records, done, total = value["records"], value["done"], value["totalSize"]
        following = None if done else value["nextRecordsUrl"]
    except (KeyError, TypeError) as error:
        raise LinkDown("a query's answer without records") from error
    well_formed = isinstance(records, list) and all(isinstance(r, dict) for r in records) and isinstance(total, int)
    # Followed with our token: it must stay on the org's own host.
    if not well_formed or not (following is None or str(following).startswith("/services/data/")):
        raise LinkDown("a query's answer of another shape")
    return QueryPage(records, following, total, server_ms(answer.headers))


def _mapping(value: Any, *members: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or any(name not in value for name in members):
        raise LinkDown("an answer of another shape")
    return value


def _job(job_id: str) -> str:
    return f"jobs/query/{quote(job_id, safe='')}"
