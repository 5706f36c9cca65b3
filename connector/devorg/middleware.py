"""What happens around every request: faults, login, counting, error bodies, the org's headers."""

import asyncio
import json
import logging
import re

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from connector.devorg.clock import http_date
from connector.devorg.context import CONTEXT, USER_ID, Context
from connector.devorg.errors import OrgError
from connector.devorg.faults import Fault
from connector.devorg.markup import elements
from connector.devorg.settings import NEWEST_VERSION, OLDEST_VERSION

log = logging.getLogger(__name__)

MOST_HEADER_BYTES = 16_384
"""URI and headers together. Source: REST API Developer Guide, "Status Codes and Error Responses" (414, 431)."""

LONGEST_STALL_S = 3600
_COMPRESS_FROM_BYTES = 2048
_VERSIONED = re.compile(r"/services/data/v([1-9]\d)\.0(?:/|$)", re.ASCII)
_ASYNC = re.compile(r"/services/async/([1-9]\d)\.0/", re.ASCII)
_ASYNC_ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<error xmlns="http://www.force.com/2009/06/asyncapi/dataload">{0}</error>"""
_ASYNC_CODES = {"NOT_FOUND": "InvalidUrl", "METHOD_NOT_ALLOWED": "MethodNotAllowed"}
_GATEWAY_PAGE = "<html><head><title>{0}</title></head><body><h1>{0}</h1><p>{1}</p></body></html>"


def kinds_of(path: str) -> tuple[str, ...]:
    """Kinds of fault that may strike a request to `path`, the narrowest first."""
    if path.startswith("/services/data"):
        return ("bulk", "rest") if "/jobs/" in path else ("rest",)
    if path.startswith("/services/async/"):
        return ("bulk", "rest")
    if path.startswith(("/services/oauth2/", "/services/Soap/", "/id/")):
        return ("oauth",)
    return ("cometd",) if path.startswith("/cometd/") else ()


def fault_middleware(context: Context) -> Middleware:
    """Apply the first fault ordered for a request."""

    @web.middleware
    async def apply(request: web.Request, handler: Handler) -> web.StreamResponse:
        for kind in kinds_of(request.path):
            fault = context.faults.take(kind, method=request.method, path=request.path_qs)
            if fault is not None:
                return await _struck(request, handler, fault)
        return await handler(request)

    return apply


async def _struck(request: web.Request, handler: Handler, fault: Fault) -> web.StreamResponse:
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    if fault.half_open:
        await asyncio.sleep(LONGEST_STALL_S)
    if fault.close or fault.half_open:
        return _cut(request)
    if fault.status:
        return _answer_of(request, fault)
    response = await handler(request)
    if fault.drop_response:
        return _cut(request)
    return await _halved(request, response) if fault.truncate else response


def _cut(request: web.Request) -> web.Response:
    """Close the connection; what is returned then has nowhere to go."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _halved(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Announce the whole body, send half of it and close."""
    body = response.body if isinstance(response, web.Response) else None
    content = body if isinstance(body, bytes) else b""
    half = web.StreamResponse(status=response.status, headers={hdrs.CONTENT_TYPE: response.content_type})
    half.content_length = max(len(content), 2)
    await half.prepare(request)
    await half.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return half


def _answer_of(request: web.Request, fault: Fault) -> web.Response:
    if fault.html:
        reason = web.Response(status=fault.status).reason
        page = _GATEWAY_PAGE.format(f"{fault.status} {reason}", fault.message or "The server is not available.")
        return web.Response(status=fault.status, text=page, content_type="text/html", headers=fault.headers)
    if fault.body is not None:
        return web.Response(
            status=fault.status, text=fault.body, content_type="application/json", headers=fault.headers
        )
    if "oauth" in kinds_of(request.path):
        body = {"error": fault.code, "error_description": fault.message}
        return web.json_response(body, status=fault.status, headers=fault.headers)
    answer = _refusal(request, OrgError(fault.status, fault.code, fault.message))
    answer.headers.update(fault.headers or {})
    return answer


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal into Salesforce's error array, whatever raised it."""
    try:
        return await handler(request)
    except OrgError as error:
        refusal = error
    except (json.JSONDecodeError, UnicodeDecodeError):
        refusal = OrgError(400, "JSON_PARSER_ERROR", "The request body is not valid JSON")
    except web.HTTPException as error:
        refusal = _as_org_error(request, error)
    except ConnectionError:
        raise
    except Exception:
        log.exception("server.request_failed method=%s path=%s", request.method, request.path)
        refusal = OrgError(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred in the local org")
    return _refusal(request, refusal)


def _refusal(request: web.Request, error: OrgError) -> web.Response:
    """The error in the form of the API that was asked.

    Source: Bulk API Developer Guide, "Errors"; answers recorded by its users, which are JSON where the request is.
    """
    if not request.path.startswith("/services/async/"):
        return web.json_response(error.body(), status=error.status)
    told = {"exceptionCode": _ASYNC_CODES.get(error.code, error.code), "exceptionMessage": error.message}
    if request.content_type == "application/json":
        return web.json_response(told, status=error.status)
    text = _ASYNC_ERROR.format(elements(told))
    return web.Response(text=text, status=error.status, content_type="application/xml", charset="UTF-8")


def _as_org_error(request: web.Request, error: web.HTTPException) -> OrgError:
    """What Salesforce says where aiohttp refused; answers that the org gives as pages go on as they are."""
    match error:
        case web.HTTPNotFound():
            return OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        case web.HTTPMethodNotAllowed():
            allowed = ",".join(sorted(error.allowed_methods))
            message = f"HTTP Method '{request.method}' not allowed. Allowed are {allowed}"
            return OrgError(405, "METHOD_NOT_ALLOWED", message)
        case web.HTTPRequestEntityTooLarge():
            return OrgError(413, "REQUEST_ENTITY_TOO_LARGE", "Maximum Request Size Exceeded")
        case _:
            raise error


def data_middleware(context: Context) -> Middleware:
    """For `/services/data/vXX.X` and `/services/async/XX.X`: the version, the login, and the count of API requests.

    Handlers find the user under `USER_ID`.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.path
        if not path.startswith(("/services/data/", "/services/async/")) or path == "/services/data/":
            return await handler(request)
        versioned = _VERSIONED.match(path) or _ASYNC.match(path)
        if versioned is None or not OLDEST_VERSION <= int(versioned.group(1)) <= NEWEST_VERSION:
            raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
        _check_header_size(request)
        request[USER_ID] = _session_of(request, context) if versioned.re is _ASYNC else _login_of(request, context)
        if context.usage.api.used() >= context.settings.api_limit:
            raise OrgError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        context.usage.api.add()
        context.usage.calls[_name_of(request)] += 1
        response = await handler(request)
        if context.settings.gzip and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower():
            _compress(response)
        return response

    return check


def _name_of(request: web.Request) -> str:
    """What is counted: method and path behind the version, with the names of variables for their values."""
    resource = request.match_info.route.resource
    path = resource.canonical.partition("}")[2].rstrip("/") if resource else "(unknown)"
    return f"{request.method} {path or '/'}"


def _check_header_size(request: web.Request) -> None:
    size = len(request.raw_path) + sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
    if size > MOST_HEADER_BYTES:
        # Answered by the gateway in front of the org, thus without an error array.
        uri_is_to_blame = len(request.raw_path) > MOST_HEADER_BYTES // 2
        raise web.HTTPRequestURITooLong if uri_is_to_blame else web.HTTPRequestHeaderFieldsTooLarge


def bearer(header: str | None) -> str:
    """The token of an Authorization header.

    Raises:
        OrgError: The header is missing or malformed (401).
    """
    if header is None:
        raise OrgError(401, "INVALID_SESSION_ID", "Session expired or invalid")
    scheme, _, token = header.partition(" ")
    if scheme.lower() not in ("bearer", "oauth") or not token.strip():
        raise OrgError(401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE")
    return token.strip()


def _login_of(request: web.Request, context: Context) -> str:
    user_id = context.tokens.check(bearer(request.headers.get(hdrs.AUTHORIZATION)))
    if user_id is None:
        raise OrgError(401, "INVALID_SESSION_ID", "Session expired or invalid")
    return user_id


def _session_of(request: web.Request, context: Context) -> str:
    """The login of the first Bulk API, which has a header of its own.

    Source: Bulk API Developer Guide, "Set a Session Header".
    """
    user_id = context.tokens.check(request.headers.get("X-SFDC-Session", ""))
    if user_id is None:
        raise OrgError(400, "InvalidSessionId", "Invalid session id")
    return user_id


def live_middleware(context: Context) -> Middleware:
    """Keep the list of requests being answered, so that the admin can drop their connections."""

    @web.middleware
    async def keep(request: web.Request, handler: Handler) -> web.StreamResponse:
        context.requests[id(request)] = request
        try:
            return await handler(request)
        finally:
            del context.requests[id(request)]

    return keep


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers that every answer of the org carries (a signal: it sees streamed answers as well)."""
    context = request.app[CONTEXT]
    response.headers[hdrs.DATE] = http_date(context.clock.now_ms())
    if context.settings.limit_info and _VERSIONED.match(request.path) and USER_ID in request:
        usage = f"api-usage={context.usage.api.used()}/{context.settings.api_limit}"
        response.headers["Sforce-Limit-Info"] = usage


def _compress(response: web.StreamResponse) -> None:
    body = response.body if isinstance(response, web.Response) else None
    if isinstance(body, bytes) and len(body) >= _COMPRESS_FROM_BYTES:
        response.enable_compression(web.ContentCoding.gzip)


def middlewares(context: Context) -> list[Middleware]:
    """All of them, the outermost first."""
    return [
        live_middleware(context),
        error_middleware,
        fault_middleware(context),
        data_middleware(context),
    ]
