"""What both transports of the change stream have in common: how a session begins and ends, and what health is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import structlog

from connector.errors import ConnectorError, LinkDown, OrgThrottled, TransientError
from connector.salesforce.delivered import Deliveries
from connector.salesforce.login import Session
from connector.salesforce.login_answers import Token

log = structlog.get_logger()

# The allowance is of a rolling 24 hours and events are kept for 72: look again a few times an hour.
EVENTS_WAIT_S = 900.0

StreamState = Literal["connecting", "live", "down"]


class TokenRefused(TransientError):
    """The org no longer takes the token: renew it, then start a new session."""


class EventsSpent(OrgThrottled):
    """The org's delivered events of 24 hours are used up; other subscribers count too."""

    def __init__(self) -> None:
        super().__init__("the org's delivered events of 24 hours are used up", retry_after_s=EVENTS_WAIT_S)


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


class StreamLife:
    """One session after the other, as health and the caller's back-off see them.

    A session that was healthy for a while and then broke raises `LinkDown` with `retry_after_s` 0: the next may start
    at once, which is routine (the org forgets its clients every few hours). One that broke soon after the last leaves
    the wait to the caller's back-off.

    Args:
        session: Gives the token, and a new one where the org refuses it.
        now_ms: Milliseconds since the Unix epoch, UTC.
        healthy_s: A session that lasted so long may be followed by the next at once.
        on_state: Called after each change of state.
        deliveries: Counts the events.
    """

    def __init__(
        self,
        session: Session,
        *,
        now_ms: Callable[[], int],
        healthy_s: float,
        on_state: Callable[[], None] | None,
        deliveries: Deliveries | None,
    ) -> None:
        self._session = session
        self._now_ms = now_ms
        self._healthy_s = healthy_s
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

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[Token]:
        """One session, with the token for it; what ends it is raised as `ports.ChangeSource` says."""
        self._enter("connecting")
        started_s = asyncio.get_running_loop().time()
        try:
            token = await self._session.token()
            try:
                yield token
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
            self._enter("down")

    def subscribed(self, channel: str, position: str) -> None:
        """The session stands; `position` as a person reads it."""
        log.info("source.subscribed", channel=channel, position=position)
        self._enter("live")

    def saw_frame(self) -> None:
        """The org answered something."""
        self._last_frame_ms = self._now_ms()

    def saw_events(self, count: int) -> None:
        """Events arrived."""
        self._last_event_ms = self._now_ms()
        if self._deliveries is not None:
            self._deliveries.delivered(count)

    def _paced(self, error: LinkDown, lasted_s: float) -> LinkDown:
        """The error with leave to go on at once, unless sessions keep breaking soon."""
        self._short_sessions = 0 if lasted_s >= self._healthy_s else self._short_sessions + 1
        at_once = error.retry_after_s is None and self._short_sessions <= 1
        log.info("source.session_ended", error="LinkDown", reason=str(error), lasted_s=round(lasted_s), again=at_once)
        return LinkDown(str(error), retry_after_s=0.0 if at_once else error.retry_after_s)

    def _enter(self, state: StreamState) -> None:
        if state == self._state:
            return
        self._state, self._since_ms = state, self._now_ms()
        if self._on_state is not None:
            self._on_state()
