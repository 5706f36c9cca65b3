"""The files of the page, read once from the package."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

from connector.web.guard import Handler

_TYPES: Mapping[str, str] = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    etag: str


def add_static(app: web.Application) -> None:
    """Serve every file of the page under its name, and the page itself under `/`."""
    for name, file in _read().items():
        app.router.add_get("/" if name == _INDEX else f"/{name}", _handler(file))


def _handler(file: _File) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        # Asked for again with every visit, so that an update of the connector is seen, and sent only if it changed.
        response = web.Response(headers={"Cache-Control": "no-cache"})
        response.etag = file.etag
        if any(tag.value == file.etag for tag in request.if_none_match or ()):
            response.set_status(304)
            return response
        response.body = file.body
        response.content_type, response.charset = file.content_type, "utf-8"
        return response

    return handle


def _read() -> Mapping[str, _File]:
    found = {}
    for entry in (files("connector.web") / "static").iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            found[entry.name] = _File(body, kind, hashlib.sha256(body).hexdigest()[:16])
    return found
