"""The HTTP side of the streaming endpoint: requests in, cookies, responses out."""

import asyncio

import orjson
from aiohttp import hdrs, web

from connector.devorg.cometd import replies
from connector.devorg.cometd.delivery import Delivery, array_of
from connector.devorg.cometd.meta import Caller, Meta
from connector.devorg.cometd.poll import Poll
from connector.devorg.cometd.replies import Message, Refused
from connector.devorg.cometd.session import Routes, Sessions, random_name
from connector.devorg.cometd.strikes import Cut, Strike
from connector.devorg.context import Context

BROWSER_ID_COOKIE = "BrowserId"
COOKIE_PATH = "/cometd/"
YEAR_S = 365 * 24 * 3600


def routes(context: Context) -> list[web.RouteDef]:
    """The streaming endpoint; what is missing in its path is told by the handshake."""
    server = CometdServer(context)
    return [web.post("/cometd", server.handle), web.post("/cometd/{tail:.*}", server.handle)]


class CometdServer:
    """Long polling only; HTTP 200 for whatever the protocol refuses.

    Source: Streaming API Developer Guide, "Bayeux Protocol, CometD, and Long Polling"; the Bayeux specification.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sessions = Sessions(context.settings, lambda: asyncio.get_running_loop().time())
        self._routes = Routes(context.settings, context.clock)
        self._meta = Meta(context, self._sessions)
        self._strike = Strike(context.faults, self._sessions)
        delivery = Delivery(
            bus=context.bus,
            clock=context.clock,
            settings=context.settings,
            options=context.event_options,
            usage=context.usage,
        )
        self._poll = Poll(
            context=context, sessions=self._sessions, meta=self._meta, strike=self._strike, delivery=delivery
        )

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one HTTP request."""
        body = await self._body(request)
        if body is None:
            return web.Response(status=413, text="Maximum Request Size Exceeded")
        messages = _messages(body)
        if messages is None:
            return web.Response(status=400, text="The request body is not a JSON array of Bayeux messages")
        caller = self._caller(request)
        answered: list[bytes] = []
        events: list[bytes] = []
        try:
            for message in messages:
                told, more = await self._answer(message, caller, request, may_wait=len(messages) == 1)
                answered += told
                events += more
        except Cut as cut:
            return cut.response(request)
        finally:
            self._context.usage.streaming_clients = len(self._sessions)
        first = self._context.settings.events_before_reply
        return self._response(request, caller, [*events, *answered] if first else [*answered, *events])

    async def _body(self, request: web.Request) -> bytes | None:
        """The request's body, or None where it is too large."""
        most = self._context.settings.max_cometd_body_bytes
        if (request.content_length or 0) > most:
            return None
        body = await request.read()
        return body if len(body) <= most else None

    def _caller(self, request: web.Request) -> Caller:
        settings = self._context.settings
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        browser, route = request.cookies.get(settings.session_cookie), request.cookies.get(settings.routing_cookie)
        return Caller(
            version=request.match_info.get("tail", "").partition("/")[0],
            token=token.strip() if scheme.lower() in ("bearer", "oauth") else "",
            browser=browser or random_name(),
            sent_browser=bool(browser),
            route=route if route and self._routes.leads(route) else self._routes.make(),
        )

    async def _answer(
        self, message: Message, caller: Caller, request: web.Request, *, may_wait: bool
    ) -> tuple[list[bytes], tuple[bytes, ...]]:
        """The replies to one message and the events that come with them."""
        told: list[Message] = []
        events: tuple[bytes, ...] = ()
        lost = False
        try:
            lost = await self._strike.before(message)
            if message.get("channel") == replies.CONNECT:
                # A connect among other messages does not wait: their replies would wait with it.
                reply, events = await self._poll.connect(message, caller, request, may_wait=may_wait)
            else:
                reply = self._reply(message, caller)
        except Refused as refused:
            if refused.disconnect:
                told.append({"channel": replies.DISCONNECT})
            reply = replies.refusal(message, refused)
        if lost:
            raise Cut
        return [orjson.dumps(item) for item in (*told, reply)], events

    def _reply(self, message: Message, caller: Caller) -> Message:
        channel = message.get("channel")
        if channel == replies.HANDSHAKE:
            return self._meta.handshake(message, caller)
        if not isinstance(channel, str) or not channel:
            raise Refused(replies.NO_CHANNEL)
        session = self._meta.session_of(message, caller)
        self._sessions.answered(session)
        match channel:
            case replies.SUBSCRIBE:
                return self._meta.subscribe(message, session)
            case replies.UNSUBSCRIBE:
                return self._meta.unsubscribe(message, session)
            case replies.DISCONNECT:
                return self._meta.disconnect(message, session)
        raise Refused(replies.unknown_channel(channel) if channel.startswith("/meta/") else replies.NO_PUBLISH)

    def _response(self, request: web.Request, caller: Caller, parts: list[bytes]) -> web.Response:
        settings = self._context.settings
        response = web.Response(body=array_of(parts), content_type="application/json", charset="UTF-8")
        if not caller.sent_browser:
            response.set_cookie(settings.session_cookie, caller.browser, path=COOKIE_PATH, httponly=True)
        if BROWSER_ID_COOKIE not in request.cookies:
            response.set_cookie(BROWSER_ID_COOKIE, random_name(), path="/", max_age=YEAR_S)
        if request.cookies.get(settings.routing_cookie) != caller.route:
            life_s = max(1, round(settings.routing_cookie_s))
            response.set_cookie(settings.routing_cookie, caller.route, path="/", max_age=life_s)
        return response


def _messages(body: bytes) -> list[Message] | None:
    """The Bayeux messages of a body, which may be a single one without an array; None where it is not that."""
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    messages = [decoded] if isinstance(decoded, dict) else decoded
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return None
    return messages
