"""The watch over one CometD session: an extension that sees every message before the library acts on it.

It takes the events out, keeps them for the consumer, and declares the session over on the first thing that is not as it
should be. What happens then is decided by `cometd.py`; the library never mends anything.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import orjson
import structlog
from aiocometd_ng.extensions import Extension
from aiosfstream_ng.exceptions import TransportError

from connector.errors import ConnectorError, LinkDown, OrgUnavailable
from connector.model.change import ReceivedEvent, ReplayId
from connector.salesforce.cometd_errors import of_status, reaction
from connector.salesforce.streaming import TokenRefused
from connector.salesforce.wire import parse

log = structlog.get_logger()

HANDSHAKE, CONNECT, DISCONNECT = "/meta/handshake", "/meta/connect", "/meta/disconnect"
SUBSCRIBE = "/meta/subscribe"
NEW_EVENTS = -1

_META = "/meta/"
# The org gives up a session 40 seconds after an answer; an advice to wait longer is no advice.
_LONGEST_INTERVAL_S = 30.0
_SHORTEST_HOLD_S, _LONGEST_HOLD_S = 1.0, 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CometdLimits:
    """Times and sizes of a session.

    Attributes:
        hold_s: How long the server may hold an idle connect, until it tells otherwise.
        margin_s: On top of it, before silence is taken for a dead connection.
        request_s: Of every other request.
        close_s: For the farewell.
        healthy_s: A session that lasted so long may be followed by the next at once.
        backlog_events, backlog_bytes: Above either, the next connect waits for the consumer.
        backlog_wait_s: So long; then the session is over. Below the server's 40 seconds.
        alone_s: An event that came alone has the loop to itself for so long before the next connect is made: that takes
            a fifth of the time in which the event is applied and published.
    """

    hold_s: float = 110.0
    margin_s: float = 15.0
    request_s: float = 30.0
    close_s: float = 3.0
    healthy_s: float = 30.0
    backlog_events: int = 1000
    backlog_bytes: int = 4 * 1024 * 1024
    backlog_wait_s: float = 20.0
    alone_s: float = 0.002


class SessionOver(TransportError):
    """Tells the library that nothing may be sent any more."""


class SessionWatch(Extension):
    """See the module.

    Args:
        channel: The one subscribed.
        position: Subscribe behind it; None: new events only.
        token: Access token of the session.
        limits: Times and sizes.
        on_frame: Called with every message's arrival.

    Attributes:
        ended: Why the session is over; None while it is not.
        closing: We are saying goodbye ourselves.
        hold_s: How long the server holds an idle connect, as it last told.
    """

    def __init__(
        self,
        *,
        channel: str,
        position: ReplayId | None,
        token: str,
        limits: CometdLimits,
        on_frame: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._position = position
        self._token = token
        self._limits = limits
        self._on_frame = on_frame
        self._now_s = asyncio.get_running_loop().time
        self._batches: deque[tuple[list[ReceivedEvent], int]] = deque()
        self._waiting_events = self._waiting_bytes = self._size = 0
        self._more = asyncio.Event()
        self._alone = False
        self._room = asyncio.Event()
        self._shaken = False
        self._alive_s = self._now_s()
        self.ended: ConnectorError | None = None
        self.closing = False
        self.hold_s = limits.hold_s

    def end(self, error: ConnectorError) -> None:
        """Declare the session over; the first reason stays."""
        if self.ended is None and not self.closing:
            self.ended = error
            self._more.set()
            self._room.set()

    @property
    def reachable(self) -> bool:
        """False if a goodbye would not arrive or not be understood."""
        return not isinstance(self.ended, LinkDown | OrgUnavailable | TokenRefused)

    # What the consumer asks

    async def next(self) -> list[ReceivedEvent]:
        """The events of the next answer that holds any.

        Raises:
            ConnectorError: The session is over, and all that came before has been taken.
        """
        while not self._batches:
            if self.ended is not None:
                raise self.ended
            self._more.clear()
            try:
                async with asyncio.timeout_at(self._alive_s + self.hold_s + self._limits.margin_s):
                    await self._more.wait()
            except TimeoutError:
                if self._now_s() >= self._alive_s + self.hold_s + self._limits.margin_s:
                    self.end(LinkDown("the stream fell silent"))
        batch, size = self._batches.popleft()
        self._waiting_events -= len(batch)
        self._waiting_bytes -= size
        if self._has_room():
            self._room.set()
        return batch

    def _has_room(self) -> bool:
        limits = self._limits
        return self._waiting_events <= limits.backlog_events and self._waiting_bytes <= limits.backlog_bytes

    # What the library shows us

    def load(self, text: str) -> Any:
        """Read an answer; its size counts for the backlog."""
        self._size = len(text)
        return parse(text)

    async def outgoing(self, payload: list[dict[str, Any]], headers: dict[str, str]) -> None:
        """Add the token and the replay position; hold a connect back while the consumer is behind."""
        headers["Authorization"] = f"Bearer {self._token}"
        for message in payload:
            channel = message["channel"]
            if self.ended is not None and channel != DISCONNECT:
                raise SessionOver
            if channel == HANDSHAKE:
                self._shake(message)
            elif channel == SUBSCRIBE:
                message["ext"] = {"replay": {self._channel: self._replay()}}
            elif channel == CONNECT:
                if self._alone:
                    await asyncio.sleep(self._limits.alone_s)
                await self._wait_for_room()

    def _shake(self, message: dict[str, Any]) -> None:
        """The first handshake of the session; a second one would come without our subscription."""
        if self._shaken:
            self.end(LinkDown("the library began a second session"))
            raise SessionOver
        self._shaken = True
        message["ext"] = {"replay": True}

    def _replay(self) -> Any:
        """The position in the JSON type it was received in."""
        return NEW_EVENTS if self._position is None else orjson.loads(self._position)

    async def _wait_for_room(self) -> None:
        if self._has_room():
            return
        self._room.clear()
        log.debug("source.backlog_full", events=self._waiting_events, size_bytes=self._waiting_bytes)
        try:
            async with asyncio.timeout(self._limits.backlog_wait_s):
                await self._room.wait()
        except TimeoutError:
            self.end(LinkDown("our backlog was full for too long"))
        if self.ended is not None:
            raise SessionOver

    async def incoming(self, payload: Any, headers: Mapping[str, str] | None = None) -> None:  # noqa: ARG002 - the library's signature
        """Look at an answer, take the events out of it, and leave the rest to the library."""
        self._on_frame()
        if not _well_formed(payload):
            self.end(LinkDown("an answer that is not Bayeux"))
            raise SessionOver
        events = [event for m in payload if m["channel"] == self._channel and (event := self._event(m)) is not None]
        payload[:] = [message for message in payload if message["channel"].startswith(_META)]
        self._alone = len(events) == 1
        if events:
            self._batches.append((events, self._size))
            self._waiting_events += len(events)
            self._waiting_bytes += self._size
            self._more.set()
        for message in payload:
            self._take_advice(message)
        # The reason of a failure says more than the farewell that may stand before it.
        for message in sorted(payload, key=lambda m: m.get("successful") is not False):
            self._look_at(message)

    def refused(self, status: int, retry_after_s: float | None) -> None:
        """An answer had another status than 200."""
        self.end(of_status(status, retry_after_s))

    def _look_at(self, message: dict[str, Any]) -> None:
        if message.get("successful") is False:
            self.end(reaction(message))
        elif message["channel"] == DISCONNECT:
            self.end(LinkDown("the org ended the streaming session"))
        elif message["channel"] == CONNECT:
            self._alive_s = self._now_s()
            self._more.set()

    def _take_advice(self, message: dict[str, Any]) -> None:
        """Note the server's times, and give the library the interval in the seconds it takes it for."""
        advice = message.get("advice")
        if not isinstance(advice, dict):
            message.pop("advice", None)
            return
        interval, hold = advice.get("interval"), advice.get("timeout")
        advice["interval"] = min(interval / 1000, _LONGEST_INTERVAL_S) if _is_time(interval) else 0
        if _is_time(hold):
            self.hold_s = min(max(hold / 1000, _SHORTEST_HOLD_S), _LONGEST_HOLD_S)

    def _event(self, message: dict[str, Any]) -> ReceivedEvent | None:
        """The event with its position; one without gets that of the event before, so that nothing is skipped."""
        data = message.get("data")
        data = data if isinstance(data, dict) else {}
        event = data.get("event")
        replay = event.get("replayId") if isinstance(event, dict) else None
        if isinstance(replay, int | str) and not isinstance(replay, bool):
            self._position = ReplayId(orjson.dumps(replay))
        if self._position is None:
            self.end(LinkDown("an event without a position"))
            return None
        return ReceivedEvent(self._position, data.get("payload"))


def _well_formed(payload: Any) -> bool:
    """True if the library can read it: a list of messages, each with a channel and what its channel asks for."""
    return isinstance(payload, list) and all(isinstance(message, dict) and _is_message(message) for message in payload)


def _is_message(message: dict[str, Any]) -> bool:
    channel = message.get("channel")
    if not isinstance(channel, str):
        return False
    if not channel.startswith(_META) or channel == DISCONNECT:
        return True
    told = isinstance(message.get("successful"), bool)
    return told and (channel != SUBSCRIBE or isinstance(message.get("subscription"), str))


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
