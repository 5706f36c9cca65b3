"""The org's rows, faster than any reader: pages of a Bulk result and of queries, made before they are asked for.

`python -m tests.bench.feed_rows --org URL --port N --count N` stands before a local org, which answers everything else.
It holds so many contacts, and answers for them: their number, a Bulk query for all of them, and queries by Id. When a
page was asked for and when it was sent is told by `GET /feed/pages`, by the machine's monotonic clock. For the first
Bulk API `POST /feed/make` makes the result beforehand, `{"names": [...]}`; its jobs and batches are the org's.

Source: Bulk API 2.0 and Bulk API Developer Guide, "Get Results for a Query Job", "Use Bulk Query"; REST API Developer
Guide, "Query".
"""

import argparse
import asyncio
import re
import time
from typing import Any

import orjson
from aiohttp import web

from connector.model.ids import to_record_id
from connector.model.times import to_iso
from tests.bench.feed import Front

ROWS_PER_PAGE = 10_000
ROWS_PER_QUERY = 2_000
JOB = "750bn0000000001AAA"
_FIRST_MS, _APART_MS = 1_767_323_045_000, 7_000  # each record was last edited at a time of its own
_COLUMNS = re.compile(r"SELECT (.+) FROM Contact", re.IGNORECASE)
_BATCH = re.compile("<id>(751[^<]+)</id>")
_BY_ID = re.compile(r"SELECT (.+) FROM Contact(?: WHERE Id > '(\w+)')? ORDER BY Id LIMIT 2000$")


class Rows:
    """The contacts, and who asked for which page when.

    Args:
        count: Contacts.
        front: Answers everything else.
        hold_s: How long a page is worked on.
    """

    def __init__(self, count: int, front: Front, hold_s: float) -> None:
        self._count = count
        self._hold_s = hold_s
        self._front = front
        self._making: asyncio.Task[list[bytes]] | None = None
        self._bulk: list[bytes] = []
        self._queried: dict[str, bytes] = {}
        self._made: dict[tuple[str, ...], bytes] = {}  # results of the first Bulk API, by their columns
        self._batches: dict[str, tuple[str, ...]] = {}  # its batches' columns
        self._pages: list[tuple[float, float]] = []

    async def query(self, request: web.Request) -> web.Response:
        """The number of contacts, or a page of them by Id; every other query is the org's."""
        soql = request.query["q"]
        if soql == "SELECT COUNT() FROM Contact":
            return web.json_response({"totalSize": self._count, "done": True, "records": []})
        found = _BY_ID.match(soql)
        if found is None:
            return await self._front.ask(request)
        asked_s = time.monotonic()
        if not self._queried:
            self._make_queried(_names(found.group(1)))
            asked_s = time.monotonic()
        await asyncio.sleep(self._hold_s)
        body = self._queried.get(found.group(2) or "", b'{"totalSize":0,"done":true,"records":[]}')
        return self._sent(asked_s, web.Response(body=body, content_type="application/json"))

    async def make_job(self, request: web.Request) -> web.Response:
        """A job for all contacts; its result is made from now on."""
        found = _COLUMNS.match((await request.json())["query"])
        if found is None:
            raise web.HTTPBadRequest
        self._making = asyncio.create_task(asyncio.to_thread(csv_pages, self._count, _names(found.group(1))))
        return web.json_response({"id": JOB, "state": "UploadComplete", "operation": "query"})

    async def job(self, _request: web.Request) -> web.Response:
        """It is complete once its result is made."""
        if self._making is None or not self._making.done():
            return web.json_response({"id": JOB, "state": "InProgress"})
        self._bulk = self._making.result()
        return web.json_response({"id": JOB, "state": "JobComplete", "numberRecordsProcessed": self._count})

    async def results(self, request: web.Request) -> web.Response:
        """The page that the locator names."""
        asked_s, number = time.monotonic(), int(request.query.get("locator", "0"))
        await asyncio.sleep(self._hold_s)
        last = number + 1 == len(self._bulk)
        rows = self._count - number * ROWS_PER_PAGE if last else ROWS_PER_PAGE
        headers = {"Sforce-Locator": "null" if last else str(number + 1), "Sforce-NumberOfRecords": str(rows)}
        return self._sent(asked_s, web.Response(body=self._bulk[number], content_type="text/csv", headers=headers))

    async def delete_job(self, _request: web.Request) -> web.Response:
        """It has been read."""
        return web.Response(status=204)

    async def make(self, request: web.Request) -> web.Response:
        """Make the result of a batch that selects these fields."""
        names = tuple((await request.json())["names"])
        pages = await asyncio.to_thread(csv_pages, self._count, list(names))
        self._made[names] = b"".join([pages[0], *(page.partition(b"\n")[2] for page in pages[1:])])
        return web.json_response({"bytes": len(self._made[names])})

    async def add_batch(self, request: web.Request) -> web.Response:
        """The org's; we note what it selects."""
        answer = await self._front.ask(request)
        found = _COLUMNS.match(await request.text())
        batch = _BATCH.search(answer.text or "")
        if found is None or batch is None:
            raise web.HTTPBadRequest
        self._batches[batch.group(1)] = tuple(_names(found.group(1)))
        return answer

    async def batch_result(self, request: web.Request) -> web.Response:
        """What was made for its fields."""
        body = self._made[self._batches[request.match_info["batch"]]]
        return self._sent(time.monotonic(), web.Response(body=body, content_type="text/csv"))

    async def pages(self, _request: web.Request) -> web.Response:
        """When each page was asked for, and when it was sent."""
        return web.json_response(self._pages)

    def _sent(self, asked_s: float, answer: web.Response) -> web.Response:
        self._pages.append((asked_s, time.monotonic()))
        return answer

    def _make_queried(self, names: list[str]) -> None:
        for at in range(0, self._count, ROWS_PER_QUERY):
            rows = [contact(number) for number in range(at, min(at + ROWS_PER_QUERY, self._count))]
            records = [{"attributes": {"type": "Contact"}} | {name: row.get(name) for name in names} for row in rows]
            body = orjson.dumps({"totalSize": len(records), "done": True, "records": records})
            self._queried[str(_id(at - 1)) if at else ""] = body


def csv_pages(count: int, names: list[str]) -> list[bytes]:
    """The whole result, for whoever reads it without an org."""
    ranges = (range(at, min(at + ROWS_PER_PAGE, count)) for at in range(0, count, ROWS_PER_PAGE))
    return [_csv_page(names, numbers) for numbers in ranges]


def _names(columns: str) -> list[str]:
    return [name.strip() for name in columns.split(",")]


def _csv_page(names: list[str], numbers: range) -> bytes:
    """As the Bulk API writes it: every value in quotes, nothing for null."""
    lines = [",".join(f'"{name}"' for name in names)]
    for number in numbers:
        row = contact(number)
        texts = (("" if row.get(name) is None else str(row[name])) for name in names)
        lines.append(",".join(f'"{text}"' for text in texts).replace('"False"', '"false"').replace("+0000", "Z"))
    return ("\n".join(lines) + "\n").encode()


def _id(number: int) -> str:
    return to_record_id(f"003bn{number:010d}")


def contact(number: int) -> dict[str, Any]:
    """The contact of that number, from 0, as far as its fields are set."""
    first, last = f"First{number % 97}", f"Last{number % 3_001}"
    edited = to_iso(_FIRST_MS + number * _APART_MS).replace("Z", "+0000")
    return {
        "Id": _id(number),
        "IsDeleted": False,
        "IsEmailBounced": False,
        "LastModifiedDate": edited,
        "SystemModstamp": edited,
        "FirstName": first,
        "LastName": last,
        "Name": f"{first} {last}",
        "Email": f"{last}.{number}@example.com".lower(),
        "Phone": f"+1 555 {number:07d}",
        "OwnerId": "0055f000007NnAbAAK",
    }


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--org", required=True, help="address of the local org")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="contacts")
    parser.add_argument("--hold-ms", type=int, required=True, help="how long a page is worked on")
    given = parser.parse_args()
    front = Front(given.org)
    rows = Rows(given.count, front, given.hold_ms / 1000)
    app = web.Application(client_max_size=1 << 30)
    jobs = "/services/data/{version}/jobs/query"
    app.add_routes(
        [
            web.get("/feed/pages", rows.pages),
            web.post("/feed/make", rows.make),
            web.get("/services/data/{version}/query", rows.query),
            web.get("/services/data/{version}/query/", rows.query),
            web.post(jobs, rows.make_job),
            web.get(f"{jobs}/{JOB}", rows.job),
            web.get(f"{jobs}/{JOB}/results", rows.results),
            web.delete(f"{jobs}/{JOB}", rows.delete_job),
            web.post("/services/async/{version}/job/{job}/batch", rows.add_batch),
            web.get("/services/async/{version}/job/{job}/batch/{batch}/result/{result}", rows.batch_result),
            web.route("*", "/{path:.*}", front.ask),
        ]
    )
    app.on_cleanup.append(front.close)
    web.run_app(app, host="127.0.0.1", port=given.port, print=None, access_log=None, shutdown_timeout=0.1)


if __name__ == "__main__":
    main()
