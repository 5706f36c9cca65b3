"""What a browser may do with the page: any site that is open in it can send requests here.

No other site may read anything (no CORS), speak for us under a name of its own (DNS rebinding: the Host header), take
up our connections (fetch metadata), frame the page, or run anything in it (content security policy). Nothing is
written here: only GET and HEAD are answered.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer those alone who may ask."""
    if request.method not in ("GET", "HEAD"):
        return web.Response(status=405, headers={"Allow": "GET, HEAD"}, text="nothing is written here\n")
    if not is_our_name(request.host):
        return web.Response(status=403, text="ask for this page by localhost or a loopback address\n")
    if is_foreign(request):
        return web.Response(status=403, text="not for other sites\n")
    return await handler(request)


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """On every response, errors included."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def is_our_name(host: str) -> bool:
    """True for `localhost` and loopback addresses, whatever the port: a tunnel may have another one.

    A name that somebody else can make resolve to loopback is refused.
    """
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.removeprefix("[").removesuffix("]").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_foreign(request: web.Request) -> bool:
    """True if another site's page sent the request; following a link to the page itself is nobody's but the user's.

    Source: Fetch Metadata Request Headers, W3C. Programs send none.
    """
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site in ("none", "same-origin"):
        return False
    return not (request.path == "/" and request.headers.get("Sec-Fetch-Mode") == "navigate")
