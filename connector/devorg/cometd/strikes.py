"""Faults on order at the points of the streaming endpoint that a message passes."""

import asyncio

from aiohttp import web

from connector.devorg.cometd import replies
from connector.devorg.cometd.replies import Message, Refused
from connector.devorg.cometd.session import Session, Sessions
from connector.devorg.faults import KINDS, Fault, Faults

LONGEST_STALL_S = 3600
_GATEWAY_PAGE = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


class Cut(Exception):
    """The request ends without a Bayeux answer: with the fault's HTTP answer, or with a closed connection."""

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__()
        self._fault = fault

    def response(self, request: web.Request) -> web.Response:
        """What is sent, if anything."""
        if self._fault is None or not self._fault.status:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        kind, text = "application/json", self._fault.body or self._fault.message
        if self._fault.html:
            kind, text = "text/html", _GATEWAY_PAGE.format(f"{self._fault.status} {self._fault.message}".strip())
        return web.Response(status=self._fault.status, text=text, content_type=kind, headers=dict(self._fault.headers))


class Strike:
    """Lets the faults that were ordered for a message happen to it."""

    def __init__(self, faults: Faults, sessions: Sessions) -> None:
        self._faults = faults
        self._sessions = sessions

    async def before(self, message: Message) -> bool:
        """What happens before a message is looked at; True where its answer is to be lost.

        Raises:
            Refused: The message is answered as ordered.
            Cut: It is not answered at all.
        """
        kind = _kind(message)
        fault = self._faults.take(kind, path=str(message.get("subscription", ""))) if kind in KINDS else None
        return fault is not None and await self._apply(fault, message)

    async def meanwhile(self, message: Message) -> bool:
        """As `before`, for a message that is waiting: it is no further occasion to a fault that lets some pass."""
        kind = _kind(message)
        ordered = any(fault.kind == kind and not fault.skip for fault in self._faults.in_force().values())
        return ordered and await self.before(message)

    async def under_way(self, session: Session, message: Message, events: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """What happens to events that have left the log.

        Raises:
            Refused: The events are lost, and the connect is answered as ordered.
            Cut: The events are lost with the connection.
        """
        fault = self._faults.take("cometd:deliver") if events else None
        if fault is None:
            return events
        if await self._apply(fault, message):
            raise Cut
        session.seen = -1
        return events * 2 if fault.duplicate else events

    async def _apply(self, fault: Fault, message: Message) -> bool:
        await asyncio.sleep(fault.delay_s)
        if fault.half_open:
            await asyncio.sleep(LONGEST_STALL_S)
        if fault.half_open or fault.close or fault.status:
            raise Cut(fault)
        refused = _ordered(fault, message)
        if refused is not None:
            session = self._sessions.find(message.get("clientId"))
            if session is not None and (fault.unknown_client or fault.disconnect):
                self._sessions.close(session)
            raise refused
        return fault.drop_response or fault.truncate


def _kind(message: Message) -> str:
    return f"cometd:{str(message.get('channel')).removeprefix('/meta/')}"


def _ordered(fault: Fault, message: Message) -> Refused | None:
    """The refusal that a fault orders, with what is documented for all that it leaves open."""
    channel = message.get("channel")
    if fault.invalid_replay_id:
        return Refused(fault.error or replies.invalid_replay_id(_replay_id(message)), reconnect=fault.reconnect)
    error = fault.error
    if fault.unknown_client or fault.disconnect:
        error = error or replies.UNKNOWN_CLIENT
    elif fault.failure_reason:
        error = error or (replies.HANDSHAKE_DENIED if channel == replies.HANDSHAKE else replies.AUTHENTICATION_INVALID)
    if not error:
        return None
    advice = "handshake" if "Unknown client" in error and not fault.disconnect else "none"
    is_told = channel in (replies.HANDSHAKE, replies.CONNECT) or fault.unknown_client
    return Refused(
        error,
        failure_reason=fault.failure_reason,
        reconnect=fault.reconnect or (advice if is_told else ""),
        disconnect=fault.disconnect,
    )


def _replay_id(message: Message) -> object:
    ext = message.get("ext")
    replay = ext.get("replay") if isinstance(ext, dict) else None
    return replay.get(message.get("subscription")) if isinstance(replay, dict) else None
