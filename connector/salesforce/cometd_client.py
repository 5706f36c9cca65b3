"""aiosfstream-ng, held to one CometD session: it is the transport, and mends nothing by itself.

What is overridden, and why, is listed in DESIGN.md.
"""

import asyncio
from typing import Any

import aiohttp
import structlog
from aiocometd_ng.constants import ConnectionType, TransportState
from aiocometd_ng.exceptions import AiocometdException
from aiocometd_ng.transports.long_polling import LongPollingTransport
from aiosfstream_ng.auth import AuthenticatorBase
from aiosfstream_ng.client import Client

from connector.errors import LinkDown
from connector.salesforce.answers import retry_after_s
from connector.salesforce.cometd_watch import CONNECT, CometdLimits, SessionOver, SessionWatch
from connector.salesforce.login_answers import Token
from connector.salesforce.wire import compose

log = structlog.get_logger()

_OK = 200
# What the library lets through of its own, of aiohttp's and of an answer that is not JSON.
TRANSPORT_ERRORS = (AiocometdException, aiohttp.ClientError, TimeoutError, OSError, ValueError)


class _GivenToken(AuthenticatorBase):
    """Hands the library the token of our session; it never gets another one."""

    def __init__(self, token: Token) -> None:
        super().__init__()
        self._given = token

    async def _authenticate(self) -> tuple[int, dict[str, str]]:
        token = self._given
        answer = {"access_token": token.value, "instance_url": token.instance_url, "token_type": "Bearer"}
        return _OK, answer


class _OneSession(LongPollingTransport):
    """Long polling for one client id: no second handshake, no second login, a time limit on everything."""

    def __init__(self, *, watch: SessionWatch, limits: CometdLimits, **parts: Any) -> None:
        super().__init__(**parts)
        self._watch = watch
        self._limits = limits

    @property
    def request_timeout(self) -> float:
        """Of the longest request, a connect that the server holds; `_send_final_payload` shortens the others."""
        return self._watch.hold_s + self._limits.margin_s

    async def _send_payload_with_auth(self, payload: list[dict[str, Any]]) -> Any:
        """Without the library's own repetition after a 401 or 403."""
        return await self._send_payload(payload)

    async def _send_final_payload(self, payload: list[dict[str, Any]], *, headers: dict[str, str]) -> Any:
        held = payload[0]["channel"] == CONNECT
        async with asyncio.timeout(None if held else self._limits.request_s):
            return await super()._send_final_payload(payload, headers=headers)

    async def abandon(self) -> None:
        """Stop without a goodbye."""
        self._state = TransportState.DISCONNECTING
        await self._stop_connect_task()
        self._state = TransportState.DISCONNECTED

    def _connect_done(self, future: "asyncio.Future[Any]") -> None:
        """Go on with the next connect after a successful one only."""
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._watch.end(LinkDown(f"connect: {type(error).__name__}"))
            if not isinstance(error, TRANSPORT_ERRORS):
                log.error("source.connect_failed", error=type(error).__name__, exc_info=error)
        elif self._watch.ended is None:
            super()._connect_done(future)


class StreamClient(Client):
    """One client for one session; `open`, `subscribe`, then the watch has the events, then `finish`."""

    # The library sleeps so long after closing its connections.
    _HTTP_SESSION_CLOSE_TIMEOUT = 0

    def __init__(self, token: Token, watch: SessionWatch, *, api_version: str, limits: CometdLimits) -> None:
        super().__init__(_GivenToken(token), json_dumps=compose, json_loads=watch.load)
        self.extensions = [watch]
        self._watch = watch
        self._limits = limits
        self._api_version = api_version
        self._one: _OneSession | None = None

    def get_cometd_url(self, instance_url: str) -> str:  # type: ignore[override]  # static there, with a fixed version
        """The endpoint of our API version."""
        return f"{instance_url}/cometd/{self._api_version}"

    async def _get_http_session(self) -> aiohttp.ClientSession:
        if self._http_session is None:
            self._http_session = aiohttp.ClientSession(
                json_serialize=compose,
                # The local org has an address for a name, and cookies are part of the protocol.
                cookie_jar=aiohttp.CookieJar(unsafe=True),
                raise_for_status=self._check_status,
            )
        return self._http_session

    async def _check_status(self, response: aiohttp.ClientResponse) -> None:
        if response.status != _OK:
            self._watch.refused(response.status, retry_after_s(response.headers))
            response.close()
            raise SessionOver

    async def _negotiate_transport(self) -> Any:
        """Handshake, offering nothing but long polling."""
        self._one = _OneSession(
            watch=self._watch,
            limits=self._limits,
            url=self.url,
            incoming_queue=asyncio.Queue(),
            http_session=await self._get_http_session(),
            extensions=self.extensions,
            auth=None,
            json_dumps=compose,
            json_loads=self._watch.load,
        )
        self._verify_response(await self._one.handshake([ConnectionType.LONG_POLLING]))
        return self._one

    async def finish(self) -> None:
        """Say goodbye where it can arrive, and close everything, whatever state it is in."""
        self._watch.closing = True
        try:
            if self._one is not None:
                async with asyncio.timeout(self._limits.close_s):
                    await (self._one.disconnect() if self._watch.reachable else self._one.abandon())
        except TRANSPORT_ERRORS as error:
            log.info("source.goodbye_failed", error=type(error).__name__)
        finally:
            self._closed = True
            if self._http_session is not None:
                await self._http_session.close()
