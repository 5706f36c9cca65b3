"""HTTP for the sObject resources, for trees and for the composite resource that calls others."""

from aiohttp import web
from yarl import URL

from connector.devorg.context import Context
from connector.devorg.rest.calls import call_of, response_of
from connector.devorg.rest.collections import Collections
from connector.devorg.rest.composite import Composite
from connector.devorg.rest.rows import Rows
from connector.devorg.rest.tree import Tree

_RECORD = r"{id:(?!(?:updated|deleted)$)[^/]+}"  # those two are resources of their own


def routes(context: Context) -> list[web.RouteDef]:
    """Describes, single records, records by external id, trees, and `/composite`."""
    rows = Rows(context.org, context.schema)
    composite = Composite(rows, Collections(context.org, context.schema))

    async def handle_row(request: web.Request) -> web.Response:
        return response_of(rows.answer(await call_of(request, context)))

    tree = Tree(context.schema)

    async def handle_tree(request: web.Request) -> web.Response:
        call = await call_of(request, context)
        return response_of(tree.answer(call, request.match_info["object"]))

    async def handle_composite(request: web.Request) -> web.Response:
        unread = request.clone()  # a request can not be cloned once its body was read

        async def elsewhere(method: str, url: URL) -> web.StreamResponse:
            return await _routed(unread, request.app, method, url)

        return response_of(composite.answer(await call_of(request, context), elsewhere))

    base = "/services/data/{version}"
    objects = f"{base}/sobjects"
    described = ("/{object}/describe", "/{object}/describe/")
    paths = ("", "/", "/{object}", "/{object}/", *described, f"/{{object}}/{_RECORD}")
    keyed = f"{objects}/{{object}}/{{field}}/{{value}}"
    return [
        *(web.route("*", objects + path, handle_row) for path in paths),
        web.route("*", keyed, handle_row),
        web.post(f"{base}/composite", handle_composite),
        web.post(f"{base}/composite/", handle_composite),
        web.route("*", f"{base}/composite/tree/{{object}}", handle_tree),
        web.route("*", f"{base}/composite/tree/{{object}}/", handle_tree),
    ]


async def _routed(unread: web.Request, app: web.Application, method: str, url: URL) -> web.StreamResponse:
    """Answer a GET by the route of its URL, as the same user, without counting a call."""
    inner = unread.clone(method=method, rel_url=url.relative() if url.is_absolute() else url)
    found = await app.router.resolve(inner)
    found.add_app(app)
    # aiohttp sets it in a request from outside; a request made here has no public way to it.
    inner._match_info = found  # noqa: SLF001
    return await found.handler(inner)
