"""Versions, resources and limits: the calls that tell a client where it stands."""

from aiohttp import web

from connector.devorg.context import Context, version_of
from connector.devorg.database import quoted
from connector.devorg.settings import NEWEST_VERSION, OLDEST_VERSION

BULK_BATCHES = 15_000
BULK_QUERY_JOBS = 10_000
DATA_STORAGE_MB = 1024
_SEASONS = ("Winter", "Spring", "Summer")
_WINTER_25 = 62
_RESOURCES = ("composite", "jobs", "limits", "query", "queryAll", "sobjects", "tooling")


def routes(context: Context) -> list[web.RouteDef]:
    """The versions call (no login, not counted), the resources of a version, its limits, the number of records."""

    async def versions(_request: web.Request) -> web.Response:
        return web.json_response([_version(number) for number in range(OLDEST_VERSION, NEWEST_VERSION + 1)])

    async def resources(request: web.Request) -> web.Response:
        base = f"/services/data/v{version_of(request)}"
        return web.json_response({name: f"{base}/{name}" for name in _RESOURCES})

    async def limits(_request: web.Request) -> web.Response:
        return web.json_response(limits_now(context))

    async def record_count(request: web.Request) -> web.Response:
        return web.json_response({"sObjects": _record_counts(context, request.query.get("sObjects"))})

    return [
        web.get("/services/data", versions),
        web.get("/services/data/", versions),
        web.get("/services/data/v{version}", resources),
        web.get("/services/data/v{version}/", resources),
        web.get("/services/data/v{version}/limits", limits),
        web.get("/services/data/v{version}/limits/", limits),
        web.get("/services/data/v{version}/limits/recordCount", record_count),
    ]


def _version(number: int) -> dict[str, str]:
    """One entry of the versions call; three releases a year, `Winter '25` was version 62.0."""
    year, season = divmod(number - _WINTER_25, len(_SEASONS))
    return {
        "label": f"{_SEASONS[season]} '{25 + year}",
        "url": f"/services/data/v{number}.0",
        "version": f"{number}.0",
    }


def limits_now(context: Context) -> dict[str, dict[str, int]]:
    """Every limit with what is left of it.

    Source: REST API Developer Guide, "Limits"; figures of a Developer Edition org where they are not settable.
    """
    usage, settings = context.usage, context.settings
    clients = settings.max_streaming_clients
    return {
        "DailyApiRequests": _left(settings.api_limit, usage.api.used()),
        "DailyBulkApiBatches": _left(BULK_BATCHES, usage.bulk_batches.used()),
        "DailyBulkV2QueryJobs": _left(BULK_QUERY_JOBS, usage.bulk_query_jobs.used()),
        "DailyBulkV2QueryFileStorageMB": _left(976_562, 0),
        "DailyDeliveredPlatformEvents": _left(settings.delivered_event_limit, usage.delivered.used()),
        "DailyStreamingApiEvents": _left(10_000, 0),
        "DurableStreamingApiConcurrentClients": _left(clients, usage.streaming_clients),
        "StreamingApiConcurrentClients": _left(clients, usage.streaming_clients),
        "HourlyPublishedPlatformEvents": _left(50_000, 0),
        "DataStorageMB": _left(DATA_STORAGE_MB, _stored_mb(context)),
        "FileStorageMB": _left(20, 0),
    }


def _record_counts(context: Context, asked: str | None) -> list[dict[str, str | int]]:
    """How many records some objects have, or all; those that are not there are left out, as deleted records are.

    The real figures are those of some moment before; a client that is right with exact ones may not be with them.

    Source: REST API Developer Guide, "Record Count".
    """
    names = context.schema.names() if asked is None else [name.strip() for name in asked.split(",")]
    found = {schema.name: schema for schema in map(context.schema.get, names) if schema is not None}
    return [{"count": _count(context, schema.table), "name": name} for name, schema in found.items()]


def _count(context: Context, table: str) -> int:
    statement = f'SELECT count(*) FROM {quoted(table)} WHERE "IsDeleted" = 0'  # noqa: S608 - a name of the schema
    return int(context.database.connection.execute(statement).fetchone()[0])


def _stored_mb(context: Context) -> int:
    pages, page_bytes = (
        context.database.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    return int(pages * page_bytes) >> 20


def _left(most: int, used: int) -> dict[str, int]:
    return {"Max": most, "Remaining": max(0, most - used)}
