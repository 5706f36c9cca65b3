"""The org's admin interface: HTTP with JSON below `/devorg/`, for programs on this machine alone.

Nothing of it is Salesforce's. Errors have the shape of REST errors.
"""

import ipaddress
import re
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from connector.devorg import settings as scales
from connector.devorg.admin import records, stream
from connector.devorg.admin.orders import read_object, read_order
from connector.devorg.clock import stamp
from connector.devorg.context import Context
from connector.devorg.errors import OrgError
from connector.devorg.faults import Fault
from connector.devorg.rest.limits import limits_now
from connector.devorg.tokens import KeyPair

_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_ORG_ID = re.compile(r"00D[A-Za-z0-9]{15}")
_LONGEST_JUMP_S = 10 * 366 * 24 * 3600


class DropConnections(Protocol):
    """Cuts connections."""

    def __call__(self, prefix: str = "", but: web.BaseRequest | None = None) -> int:
        """Cut those with a request below `prefix`, but the one of `but`, and tell how many."""
        ...


def routes(context: Context, keys: KeyPair, drop: DropConnections) -> list[web.RouteDef]:
    """Every admin resource, each behind the check that a program on this machine asks."""
    found = [
        *_about_routes(context, keys),
        *_time_routes(context),
        *_upset_routes(context, drop),
        *_fault_routes(context),
        *stream.routes(context),
        *records.routes(context),
    ]
    return [
        web.RouteDef(route.method, f"/devorg{route.path}", _local_only(route.handler), route.kwargs) for route in found
    ]


def _local_only(handler: Any) -> Handler:
    async def checked(request: web.Request) -> web.StreamResponse:
        """Refuse other machines, and what a page in a browser of this one could send."""
        host = urlsplit(f"//{request.headers.get(hdrs.HOST, '')}").hostname
        if not ipaddress.ip_address(request.remote or "::").is_loopback or host not in _LOCAL_NAMES:
            raise OrgError(403, "INSUFFICIENT_ACCESS", "the admin interface answers this machine only")
        writes = request.method not in (hdrs.METH_GET, hdrs.METH_HEAD)
        if hdrs.ORIGIN in request.headers or (writes and request.content_type != "application/json"):
            raise OrgError(415, "UNSUPPORTED_MEDIA_TYPE", "expected Content-Type: application/json and no Origin")
        answer: web.StreamResponse = await handler(request)
        return answer

    return checked


def description(context: Context, keys: KeyPair) -> dict[str, Any]:
    """Where the org is and how to log in to it."""
    known = context.credentials
    return {
        "url": context.url,
        "instance_url": context.instance_url,
        "pubsub_url": context.pubsub_url,
        "org_id": context.tokens.org_id,
        "username": known.username,
        "password": known.password,
        "security_token": known.security_token,
        "client_id": known.client_id,
        "client_secret": known.client_secret,
        "refresh_token": known.refresh_token,
        "access_token": context.tokens.default_access_token,
        "private_key_file": str(keys.private_key_file()),
    }


def usage_now(context: Context) -> dict[str, Any]:
    """What the org has counted since it started."""
    usage = context.usage
    return {
        "api": usage.api.used(),
        "delivered": usage.delivered.used(),
        "calls": dict(usage.calls),
        "logins": dict(usage.logins),
        "streaming_clients": usage.streaming_clients,
        "limits": limits_now(context),
    }


def _about_routes(context: Context, keys: KeyPair) -> list[web.RouteDef]:
    async def about(_request: web.Request) -> web.Response:
        return web.json_response(description(context, keys))

    async def usage(_request: web.Request) -> web.Response:
        return web.json_response(usage_now(context))

    async def set_usage(request: web.Request) -> web.Response:
        order = await read_order(request, {}, {"api": int, "delivered": int})
        for name, used in order.items():
            getattr(context.usage, name).set(max(0, used))
        return web.json_response(usage_now(context))

    return [web.get("/", about), web.get("/usage", usage), web.post("/usage", set_usage)]


def _time_routes(context: Context) -> list[web.RouteDef]:
    def time_now() -> web.Response:
        now_ms = context.clock.now_ms()
        times = {"now": stamp(now_ms), "now_ms": now_ms, "offset_ms": context.clock.offset_ms}
        return web.json_response(times)

    async def show(_request: web.Request) -> web.Response:
        return time_now()

    async def advance(request: web.Request) -> web.Response:
        seconds = (await read_order(request, {"advance_s": (int, float)}))["advance_s"]
        if not abs(seconds) <= _LONGEST_JUMP_S:
            raise OrgError(400, "INVALID_ORDER", "advance_s: expected at most ten years")
        context.org.advance(seconds)
        context.bus.wake()
        return time_now()

    return [web.get("/time", show), web.post("/time", advance)]


def _upset_routes(context: Context, drop: DropConnections) -> list[web.RouteDef]:
    scaled = (context.settings, context.event_options, context.org.options)

    def all_settings() -> web.Response:
        return web.json_response({name: value for part in scaled for name, value in vars(part).items()})

    async def show_settings(_request: web.Request) -> web.Response:
        return all_settings()

    async def set_settings(request: web.Request) -> web.Response:
        scales.change(scaled, await read_object(request))
        context.bus.wake()
        return all_settings()

    async def expire_tokens(request: web.Request) -> web.Response:
        order = await read_order(request, {}, {"refresh": bool})
        expired = {"access": context.tokens.expire("access")}
        if order.get("refresh"):
            expired["refresh"] = context.tokens.expire("refresh")
        return web.json_response(expired)

    async def become(request: web.Request) -> web.Response:
        org_id = (await read_order(request, {"id": str}))["id"]
        if not _ORG_ID.fullmatch(org_id):
            raise OrgError(400, "INVALID_ORDER", "id: expected 18 characters that begin with 00D")
        context.tokens.become(org_id)
        return web.json_response({"org_id": context.tokens.org_id})

    async def drop_connections(request: web.Request) -> web.Response:
        order = await read_order(request, {}, {"path": str})
        return web.json_response({"dropped": drop(order.get("path", ""), but=request)})

    return [
        web.get("/settings", show_settings),
        web.patch("/settings", set_settings),
        web.post("/tokens/expire", expire_tokens),
        web.post("/organization", become),
        web.post("/connections/drop", drop_connections),
    ]


def _fault_routes(context: Context) -> list[web.RouteDef]:
    async def show(_request: web.Request) -> web.Response:
        in_force = context.faults.in_force().items()
        return web.json_response([{"number": number, **fault.as_dict()} for number, fault in in_force])

    async def order(request: web.Request) -> web.Response:
        number = context.faults.order(Fault.parse(await read_object(request)))
        return web.json_response({"number": number}, status=201)

    async def clear(request: web.Request) -> web.Response:
        number = request.match_info.get("number")
        context.faults.clear(int(number) if number else None)
        return web.Response(status=204)

    return [
        web.get("/faults", show),
        web.post("/faults", order),
        web.delete("/faults", clear),
        web.delete(r"/faults/{number:\d{1,9}}", clear),
    ]
