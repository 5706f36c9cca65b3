"""A REST call and its answer apart from HTTP, so that the parts of a composite request take the same way."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from connector.devorg.context import USER_ID, Context, origin_of
from connector.devorg.errors import OrgError
from connector.devorg.records.transaction import Transaction

Begin = Callable[[], AbstractContextManager[Transaction]]
"""Opens the transaction in which a call writes, or joins the one that is open around it."""
_VERSION = re.compile(r"v\d{2,3}\.0", re.ASCII)
_BASE_SEGMENTS = 4  # "", "services", "data", "vXX.X"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a client.

    Attributes:
        path: Decoded segments behind the version: `("sobjects", "Contact")`.
        query: Parameters of the URL.
        body: Decoded JSON; None for an empty body.
        version: API version, for instance `66.0`.
        begin: Opens its transaction.
    """

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    headers: CIMultiDict[str]
    body: Any
    version: str
    begin: Begin

    def object_body(self) -> dict[str, Any]:
        """Return the body, which has to be a JSON object.

        Raises:
            OrgError: 400 JSON_PARSER_ERROR.
        """
        if not isinstance(self.body, dict):
            message = "The HTTP entity body is required to be a JSON object"
            raise OrgError(400, "JSON_PARSER_ERROR", message)
        return self.body


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call; `body` is JSON, None for no body at all."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def split_url(url: URL) -> tuple[str, tuple[str, ...]]:
    """Return the API version and the decoded segments behind it; an empty last segment is left out.

    Raises:
        OrgError: 404 NOT_FOUND: the URL is not below `/services/data/vXX.X`.
    """
    segments = url.raw_path.split("/")
    below = segments[:3] == ["", "services", "data"] and len(segments) >= _BASE_SEGMENTS
    if not below or _VERSION.fullmatch(segments[3]) is None:
        raise OrgError(404, "NOT_FOUND", "The requested resource does not exist")
    rest = segments[_BASE_SEGMENTS:]
    if rest and not rest[-1]:
        rest.pop()
    return segments[3].removeprefix("v"), tuple(map(unquote, rest))


async def call_of(request: web.Request, context: Context) -> Call:
    """Return the call that a request makes.

    Raises:
        OrgError: 400 JSON_PARSER_ERROR: the body is no JSON.
    """
    version, path = split_url(request.rel_url)
    raw = await request.read()
    try:
        body = orjson.loads(raw) if raw.strip() else None
    except orjson.JSONDecodeError as error:
        message = f"Unexpected character at [line:{error.lineno}, column:{error.colno}]"
        raise OrgError(400, "JSON_PARSER_ERROR", message) from error
    origin, user_id = origin_of(request), request[USER_ID]
    allow = _allows_duplicates(request.headers.get("Sforce-Duplicate-Rule-Header", ""))
    return Call(
        method=method_of(request.method, request.query),
        path=path,
        query=request.query,
        headers=CIMultiDict(request.headers),
        body=body,
        version=version,
        begin=lambda: context.org.transaction(user_id, origin, allow_duplicates=allow),
    )


def method_of(method: str, query: Mapping[str, str]) -> str:
    """Return the method that counts: `POST ...?_HttpMethod=PATCH` is a PATCH; a HEAD is answered as a GET."""
    override = query.get("_HttpMethod", "").upper()
    if method == "POST" and override:
        return override
    return "GET" if method == "HEAD" else method


def _allows_duplicates(header: str) -> bool:
    """Tell whether the writer saves in spite of a duplicate rule that only warns.

    Source: REST API Developer Guide, "Duplicate Rule Header".
    """
    return header.replace(" ", "").lower() == "allowsave=true"


def response_of(reply: Reply) -> web.Response:
    """Return an answer as HTTP."""
    if reply.body is None:
        return web.Response(status=reply.status, headers=reply.headers)
    body = orjson.dumps(reply.body)
    return web.Response(
        status=reply.status, body=body, content_type="application/json", charset="utf-8", headers=reply.headers
    )


def not_allowed(method: str, *allowed: str) -> OrgError:
    """Return the refusal of a method."""
    message = f"HTTP Method '{method}' not allowed. Allowed are {','.join(allowed)}"
    return OrgError(405, "METHOD_NOT_ALLOWED", message)
