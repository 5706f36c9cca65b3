"""`updated` and `deleted`: which records of an object changed or went within a span of time.

Source: REST API Developer Guide, "sObject Get Updated", "sObject Get Deleted"; SOAP API Developer Guide,
"getUpdated()", "getDeleted()", "Polling for Changes".
"""

from typing import Any

from aiohttp import web

from connector.devorg.clock import rest_datetime, stamp, stamp_ms
from connector.devorg.context import Context
from connector.devorg.database import quoted
from connector.devorg.errors import OrgError
from connector.devorg.objects.fields import ObjectSchema

UPDATED_REACH_MS = 30 * 24 * 3600 * 1000
DELETED_REACH_MS = 15 * 24 * 3600 * 1000
MOST_IDS = 600_000
_MINUTE_MS = 60_000


def routes(context: Context) -> list[web.RouteDef]:
    """Both resources, with and without the slash that some clients put behind them."""
    replication = Replication(context)
    base = "/services/data/{version}/sobjects/{object}"
    return [
        web.get(f"{base}/{name}{slash}", handler)
        for slash in ("", "/")
        for name, handler in (("updated", replication.updated), ("deleted", replication.deleted))
    ]


class Replication:
    """The handlers."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def updated(self, request: web.Request) -> web.Response:
        """Answer the live records created, changed or undeleted within the span."""
        schema = self._object(request)
        start_ms, end_ms = self._span(request, UPDATED_REACH_MS, "30 days")
        if start_ms >= end_ms:
            raise _bad_date("startDate must be before endDate")
        # The name is the schema's and quoted; the values are bound.
        statement = (
            f'SELECT "Id" FROM {quoted(schema.table)}'  # noqa: S608
            ' WHERE "SystemModstamp" >= ? AND "SystemModstamp" < ? AND "IsDeleted" = 0'
            ' ORDER BY "SystemModstamp", "Id" LIMIT ?'
        )
        rows = self._rows(statement, start_ms, end_ms)
        covered = self._covered(end_ms)
        return web.json_response({"ids": [row[0] for row in rows], "latestDateCovered": covered})

    async def deleted(self, request: web.Request) -> web.Response:
        """Answer the records deleted within the span and not undeleted since."""
        schema = self._object(request)
        start_ms, end_ms = self._span(request, DELETED_REACH_MS, "15 days")
        if end_ms - start_ms < _MINUTE_MS:
            raise _bad_date("startDate must precede endDate by more than one minute")
        purged = "" if self._context.settings.deleted_lists_purged else _STILL_THERE.format(quoted(schema.table))
        # The name is the schema's and quoted; the values are bound.
        statement = (
            "SELECT id, deleted_at FROM delete_log WHERE object = ? AND deleted_at >= ? AND deleted_at < ?"  # noqa: S608
            f"{purged} ORDER BY deleted_at, id LIMIT ?"
        )
        rows = self._rows(statement, start_ms, end_ms, schema.name)
        now_ms = self._context.clock.now_ms()
        answer = {
            "deletedRecords": [{"id": row[0], "deletedDate": rest_datetime(row[1])} for row in rows],
            "earliestDateAvailable": _minute(now_ms - DELETED_REACH_MS),
            "latestDateCovered": self._covered(end_ms),
        }
        return web.json_response(answer)

    def _object(self, request: web.Request) -> ObjectSchema:
        schema = self._context.schema.get(request.match_info["object"])
        if schema is None:
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        if not schema.raw.get("replicateable", True):
            raise OrgError(400, "INVALID_TYPE", f"sObject type {schema.name} is not replicable")
        return schema

    def _span(self, request: web.Request, reach_ms: int, reach: str) -> tuple[int, int]:
        """Return the start and the end asked for, without their seconds."""
        start_ms, end_ms = _time(request, "start"), _time(request, "end")
        if start_ms < _whole_minute(self._context.clock.now_ms() - reach_ms):
            raise _bad_date(f"startDate cannot be more than {reach} ago")
        return start_ms, end_ms

    def _rows(self, statement: str, start_ms: int, end_ms: int, *before: str) -> list[Any]:
        parameters = (*before, stamp(start_ms), stamp(end_ms), MOST_IDS + 1)
        rows = self._context.database.connection.execute(statement, parameters).fetchall()
        if len(rows) > MOST_IDS:
            raise OrgError(400, "EXCEEDED_ID_LIMIT", f"More than {MOST_IDS} ids: ask for a shorter span")
        return rows

    def _covered(self, end_ms: int) -> str:
        """Return until when the answer is complete: what a transaction still open wrote is not in it."""
        open_ms = self._context.org.oldest_open_ms()
        covered_ms = min(end_ms, self._context.clock.now_ms())
        return rest_datetime(stamp(covered_ms if open_ms is None else min(covered_ms, open_ms)))


_STILL_THERE = ' AND id IN (SELECT "Id" FROM {})'


def _time(request: web.Request, name: str) -> int:
    text = request.query.get(name)
    if text is None:
        raise OrgError(400, "MISSING_ARGUMENT", f"{name} is a required parameter")
    try:
        return _whole_minute(stamp_ms(text))
    except (ValueError, OverflowError):
        raise _bad_date(f"{name}: expected a date-time such as 2026-01-01T12:00:00+00:00") from None


def _whole_minute(ms: int) -> int:
    return ms - ms % _MINUTE_MS


def _minute(ms: int) -> str:
    return rest_datetime(stamp(_whole_minute(ms)))


def _bad_date(message: str) -> OrgError:
    return OrgError(400, "INVALID_REPLICATION_DATE", message)
