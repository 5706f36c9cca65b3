"""`query` and `queryAll`: SOQL over REST, in pages.

Source: REST API Developer Guide, "Query", "QueryAll", "Query More Results", "Query Options Header".
"""

import asyncio
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
from aiohttp import web

from connector.devorg.context import USER_ID, Context, version_of
from connector.devorg.errors import OrgError
from connector.devorg.rest.results import ResultStore, new_id
from connector.devorg.soql.compile import Plan, compile_query, install
from connector.devorg.soql.parse import parse
from connector.devorg.soql.render import records

SMALLEST_PAGE, LARGEST_PAGE = 200, 2_000
MOST_CURSORS = 10
"""Of one user; a further one closes the oldest."""

_TABLE = """
CREATE TABLE IF NOT EXISTS query_cursor (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, made_ms INTEGER NOT NULL, size INTEGER NOT NULL,
    page INTEGER NOT NULL
) STRICT;
"""
_BATCH_SIZE = re.compile(r"batchSize\s*=\s*(\d{1,9})", re.IGNORECASE)
_LOCATOR = re.compile(r"(01g[0-9A-Za-z]{15})-(\d{1,9})")


def routes(context: Context) -> list[web.RouteDef]:
    """The query resources, with and without the slash that some clients put behind them."""
    queries = Queries(context)
    base = "/services/data/{version}"
    return [
        web.get(f"{base}/{name}{slash}", handler)
        for slash in ("", "/")
        for name, handler in (
            ("query", queries.query),
            ("queryAll", queries.query_all),
            ("query/{locator}", queries.more),
            ("queryAll/{locator}", queries.more),
        )
    ]


class Queries:
    """Runs queries and keeps what did not fit into one page as it was found, for later pages."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._connection = context.database.connection
        self._connection.executescript(_TABLE)
        self._results = ResultStore(context.database)
        install(self._connection)

    async def query(self, request: web.Request) -> web.Response:
        """Answer `query?q=`."""
        return await self._answer(request, include_deleted=False)

    async def query_all(self, request: web.Request) -> web.Response:
        """Answer `queryAll?q=`: deleted and merged records as well."""
        return await self._answer(request, include_deleted=True)

    async def more(self, request: web.Request) -> web.Response:
        """Answer a `nextRecordsUrl`."""
        found = _LOCATOR.fullmatch(request.match_info["locator"])
        cursor = None if found is None else self._cursor(found.group(1), request[USER_ID])
        if found is None or cursor is None or int(found.group(2)) > cursor["size"]:
            raise OrgError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        first, page = int(found.group(2)), _page_size(request, cursor["page"])
        rows = self._results.read(cursor["id"], first, page)
        return _page(request, rows, cursor["size"], cursor["id"], first + len(rows))

    async def _answer(self, request: web.Request, *, include_deleted: bool) -> web.Response:
        query = parse(request.query.get("q", ""))
        plan = compile_query(query, self._context.schema, include_deleted=include_deleted)
        rows = run(self._context, plan)
        if plan.selection is None:
            return _page(request, [], rows[0][0], "", rows[0][0])
        page = _page_size(request, LARGEST_PAGE)
        found = records(plan.selection, rows, version_of(request))
        if len(rows) <= page:
            return _page(request, found, len(rows), "", len(rows))
        bodies = (orjson.dumps(record) for record in found)
        first = list(itertools.islice(bodies, page))
        cursor = self._open(request[USER_ID], first, len(rows), page)
        await self._keep(cursor, bodies, page, len(rows))
        return _page(request, first, len(rows), cursor, page)

    def _open(self, user_id: str, first: Sequence[bytes], size: int, page: int) -> str:
        cursor = new_id("01g")
        with self._context.database.transaction():
            made = (cursor, user_id, self._context.clock.now_ms(), size, page)
            self._connection.execute("INSERT INTO query_cursor VALUES (?, ?, ?, ?, ?)", made)
            self._results.append(cursor, 0, first)
            self._close_old(user_id)
        return cursor

    async def _keep(self, cursor: str, bodies: Iterator[bytes], first: int, size: int) -> None:
        """Store the rest of a result unless its cursor is closed; others get through between two slices of it."""
        for number in range(first, size, LARGEST_PAGE):
            await asyncio.sleep(0)
            part = list(itertools.islice(bodies, LARGEST_PAGE))
            with self._context.database.transaction():
                if self._connection.execute("SELECT 1 FROM query_cursor WHERE id = ?", (cursor,)).fetchone() is None:
                    return
                self._results.append(cursor, number, part)

    def _close_old(self, user_id: str) -> None:
        """Close every cursor whose time is up, and this user's oldest if they are too many."""
        oldest_ms = self._context.clock.now_ms() - self._context.settings.query_locator_s * 1000
        closed = self._connection.execute(
            "SELECT id FROM query_cursor WHERE made_ms < ? OR id IN ("
            " SELECT id FROM query_cursor WHERE user_id = ? ORDER BY made_ms DESC, rowid DESC LIMIT -1 OFFSET ?)",
            (oldest_ms, user_id, MOST_CURSORS),
        ).fetchall()
        for row in closed:
            self._results.drop(row["id"])
            self._connection.execute("DELETE FROM query_cursor WHERE id = ?", (row["id"],))

    def _cursor(self, cursor: str, user_id: str) -> Any:
        oldest_ms = self._context.clock.now_ms() - self._context.settings.query_locator_s * 1000
        return self._connection.execute(
            "SELECT * FROM query_cursor WHERE id = ? AND user_id = ? AND made_ms >= ?", (cursor, user_id, oldest_ms)
        ).fetchone()


def run(context: Context, plan: Plan) -> list[tuple[Any, ...]]:
    """Return all rows of a plan as they are committed now."""
    return read(context, *plan.statement())


def read(context: Context, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return the rows of a compiled statement as plain tuples."""
    cursor = context.database.connection.cursor()
    cursor.row_factory = None
    rows: list[tuple[Any, ...]] = cursor.execute(statement, parameters).fetchall()
    return rows


def _page_size(request: web.Request, default: int) -> int:
    """Return how many records a page has; what is out of range is taken to the nearest bound."""
    asked = _BATCH_SIZE.search(request.headers.get("Sforce-Query-Options", ""))
    return min(max(int(asked.group(1)), SMALLEST_PAGE), LARGEST_PAGE) if asked else default


def _page(
    request: web.Request, found: Iterable[dict[str, Any] | bytes], size: int, cursor: str, end: int
) -> web.Response:
    """Return one page: records as objects or as bytes, `end` being the number of the first record behind it."""
    body: dict[str, Any] = {"totalSize": size, "done": end >= size}
    if end < size:
        body["nextRecordsUrl"] = f"/services/data/v{version_of(request)}/query/{cursor}-{end}"
    body["records"] = [orjson.Fragment(row) if isinstance(row, bytes) else row for row in found]
    return web.Response(body=orjson.dumps(body), content_type="application/json", charset="utf-8")
