"""`/meta/connect`: the request that waits for events."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from connector.devorg.cometd import replies
from connector.devorg.cometd.delivery import Delivery
from connector.devorg.cometd.meta import Caller, Meta
from connector.devorg.cometd.replies import Message, Refused
from connector.devorg.cometd.session import Session, Sessions
from connector.devorg.cometd.strikes import Cut, Strike
from connector.devorg.context import Context

Events = tuple[bytes, ...]

LOOK_AGAIN_S = 0.5
"""What no event announces is noticed so soon: a client that has gone, a token revoked, a fault ordered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """Answers connects: the first of a session at once and with the advice, later ones when there is news.

    Source: Streaming API Developer Guide, "Clients and Timeouts".
    """

    context: Context
    sessions: Sessions
    meta: Meta
    strike: Strike
    delivery: Delivery

    async def connect(
        self, message: Message, caller: Caller, request: web.Request, *, may_wait: bool
    ) -> tuple[Message, Events]:
        """The reply, and the events that go with it.

        Raises:
            Refused: The session is unknown, its token was revoked, or the events of the day are used up.
            Cut: The client has gone; what it would have got stays in the log.
        """
        session = self.meta.session_of(message, caller)
        if message.get("connectionType") != "long-polling":
            raise Refused(replies.bad_connection_type(message.get("connectionType")), reconnect="none")
        first, session.advised = not session.advised, True
        hold_s = self.context.settings.connect_hold_s
        with self._turn(session) as turn:
            events = await self._events(
                session, turn, message, caller, request, hold_s=hold_s if may_wait and not first else 0
            )
        idle = may_wait and not first and not events
        self.sessions.answered(session, idle=idle)
        if not self.sessions.knows(session):
            return replies.reply_to(message, successful=True, advice={"reconnect": "none", "interval": 0}), ()
        advice = {"reconnect": "retry", "interval": 0, "timeout": round(hold_s * 1000)}
        return replies.reply_to(message, successful=True, **({"advice": advice} if first else {})), events

    @contextmanager
    def _turn(self, session: Session) -> Generator[int]:
        """A newer connect of the session ends the wait of an older one, which is then answered without events."""
        session.turn += 1
        session.held += 1
        if session.held > 1:
            self.context.bus.wake()
        try:
            yield session.turn
        finally:
            session.held -= 1
            self.sessions.answered(session)

    async def _events(
        self, session: Session, turn: int, message: Message, caller: Caller, request: web.Request, *, hold_s: float
    ) -> Events:
        """The session's next events, waited for at most so long."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + hold_s
        while self.sessions.knows(session) and session.turn == turn:
            if request.transport is None or request.transport.is_closing():
                raise Cut
            batch = self.delivery.take(session)
            left_s = until_s - loop.time()
            if batch.messages:
                return await self.strike.under_way(session, message, batch.messages)
            if left_s <= 0:
                return ()
            await self.context.bus.wait(min(left_s, batch.due_s or left_s, LOOK_AGAIN_S))
            await self._look_again(session, message, caller)
        return ()

    async def _look_again(self, session: Session, message: Message, caller: Caller) -> None:
        """Notice a revoked token, a stream that was reset or a new fault in the middle of a poll.

        Raises:
            Refused: The token was revoked, the session is of another stream, or the fault says so.
            Cut: The fault says so.
        """
        # A connected client keeps its Salesforce session alive; only revoking ends it.
        self.context.tokens.keep(caller.token)
        self.meta.user_of(caller)
        if session.epoch != self.context.bus.epoch:
            self.sessions.close(session)
            raise Refused(replies.UNKNOWN_CLIENT, reconnect="handshake")
        if await self.strike.meanwhile(message):
            raise Cut
