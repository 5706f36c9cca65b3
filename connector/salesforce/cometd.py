"""`ChangeSource` over CometD: one disposable session per call of `events`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson
import structlog

from connector.errors import ConnectorError, LinkDown, ReplayWindowLost
from connector.model.change import ReceivedEvent, ReplayId, Subscribed
from connector.salesforce.cometd_client import TRANSPORT_ERRORS, StreamClient
from connector.salesforce.cometd_errors import EventsSpent, TokenRefused
from connector.salesforce.cometd_watch import CometdLimits, SessionWatch
from connector.salesforce.delivered import Deliveries
from connector.salesforce.login import Session

log = structlog.get_logger()

StreamState = Literal["connecting", "live", "down"]


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What health tells of the stream; times are milliseconds since the Unix epoch, UTC, None for never.

    Attributes:
        since_ms: When it came into this state.
        last_frame_ms: When the org last answered anything, an empty poll included.
        last_event_ms: When events last arrived.
    """

    state: StreamState
    since_ms: int
    last_frame_ms: int | None
    last_event_ms: int | None


class CometdSource:
    """See `ports.ChangeSource`.

    A session that was healthy for a while and then broke raises `LinkDown` with `retry_after_s` 0: the next may start
    at once, which is routine (the org forgets its clients every few hours). One that broke soon after the last leaves
    the wait to the caller's back-off.

    Args:
        session: Gives the token, and a new one where the org refuses it.
        channel: For instance `/data/ChangeEvents`.
        api_version: For instance `58.0`.
        now_ms: Milliseconds since the Unix epoch, UTC.
        limits: Times and sizes of a session.
        on_state: Called after each change of state.
        deliveries: Counts the events.
    """

    def __init__(
        self,
        session: Session,
        *,
        channel: str,
        api_version: str,
        now_ms: Callable[[], int],
        limits: CometdLimits | None = None,
        on_state: Callable[[], None] | None = None,
        deliveries: Deliveries | None = None,
    ) -> None:
        self._session = session
        self._channel = channel
        self._api_version = api_version
        self._now_ms = now_ms
        self._limits = limits or CometdLimits()
        self._on_state = on_state
        self._deliveries = deliveries
        self._state: StreamState = "down"
        self._since_ms = now_ms()
        self._last_frame_ms: int | None = None
        self._last_event_ms: int | None = None
        self._short_sessions = 0

    @property
    def status(self) -> StreamStatus:
        """How the stream is now."""
        return StreamStatus(self._state, self._since_ms, self._last_frame_ms, self._last_event_ms)

    async def events(self, after: ReplayId | None) -> AsyncIterator[Subscribed | Sequence[ReceivedEvent]]:
        """See `ChangeSource`. Close the iterator (`contextlib.aclosing`): that ends the session, in bounded time."""
        _check_position(after)
        self._enter("connecting")
        started_s = asyncio.get_running_loop().time()
        client: StreamClient | None = None
        try:
            token = await self._session.token()
            watch = SessionWatch(
                channel=self._channel,
                position=after,
                token=token.value,
                limits=self._limits,
                on_frame=self._saw_frame,
            )
            client = StreamClient(token, watch, api_version=self._api_version, limits=self._limits)
            try:
                await self._open(client, watch)
                log.info("source.subscribed", channel=self._channel, position=_shown(after))
                self._enter("live")
                yield Subscribed(after)
                while True:
                    batch = await watch.next()
                    self._last_event_ms = self._now_ms()
                    if self._deliveries is not None:
                        self._deliveries.delivered(len(batch))
                    yield batch
            except TokenRefused as error:
                await self._session.renew(token)
                raise LinkDown(str(error)) from error
        except LinkDown as error:
            raise self._paced(error, asyncio.get_running_loop().time() - started_s) from error
        except ConnectorError as error:
            if isinstance(error, EventsSpent) and self._deliveries is not None:
                self._deliveries.spent()
            log.warning("source.session_ended", error=type(error).__name__, reason=str(error))
            raise
        finally:
            if client is not None:
                await client.finish()
            self._enter("down")

    async def _open(self, client: StreamClient, watch: SessionWatch) -> None:
        """Handshake, first connect and subscription.

        Raises:
            ConnectorError: What the watch saw; LinkDown where it saw nothing.
        """
        try:
            # The three requests have a limit each; this one is for what lies between them.
            async with asyncio.timeout(3 * self._limits.request_s + watch.hold_s):
                await client.open()
                await client.subscribe(self._channel)
        except TRANSPORT_ERRORS as error:
            raise watch.ended or LinkDown(f"the stream cannot be opened: {type(error).__name__}") from error
        if watch.ended is not None:
            raise watch.ended

    def _paced(self, error: LinkDown, lasted_s: float) -> LinkDown:
        """The error with leave to go on at once, unless sessions keep breaking soon."""
        self._short_sessions = 0 if lasted_s >= self._limits.healthy_s else self._short_sessions + 1
        at_once = error.retry_after_s is None and self._short_sessions <= 1
        log.info("source.session_ended", error="LinkDown", reason=str(error), lasted_s=round(lasted_s), again=at_once)
        return LinkDown(str(error), retry_after_s=0.0 if at_once else error.retry_after_s)

    def _saw_frame(self) -> None:
        self._last_frame_ms = self._now_ms()

    def _enter(self, state: StreamState) -> None:
        if state == self._state:
            return
        self._state, self._since_ms = state, self._now_ms()
        if self._on_state is not None:
            self._on_state()


def _check_position(after: ReplayId | None) -> None:
    try:
        if after is not None and not isinstance(orjson.loads(after), int | str):
            raise ReplayWindowLost("the stored replay id is none of the stream's")
    except orjson.JSONDecodeError as error:
        raise ReplayWindowLost("the stored replay id cannot be read") from error


def _shown(position: ReplayId | None) -> str:
    return "new events" if position is None else position.decode("ascii", "replace")
