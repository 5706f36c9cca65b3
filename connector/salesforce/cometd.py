"""`ChangeSource` over CometD: one disposable session per call of `events`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import orjson

from connector.errors import LinkDown, ReplayWindowLost
from connector.model.change import ReceivedEvent, ReplayId, Subscribed
from connector.salesforce.cometd_client import TRANSPORT_ERRORS, StreamClient
from connector.salesforce.cometd_watch import CometdLimits, SessionWatch
from connector.salesforce.delivered import Deliveries
from connector.salesforce.login import Session
from connector.salesforce.streaming import StreamLife, StreamStatus


class CometdSource:
    """See `ports.ChangeSource`, and `StreamLife` for when the next session may start.

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
        self._channel = channel
        self._api_version = api_version
        self._limits = limits or CometdLimits()
        self._life = StreamLife(
            session, now_ms=now_ms, healthy_s=self._limits.healthy_s, on_state=on_state, deliveries=deliveries
        )

    @property
    def status(self) -> StreamStatus:
        """How the stream is now."""
        return self._life.status

    async def events(self, after: ReplayId | None) -> AsyncIterator[Subscribed | Sequence[ReceivedEvent]]:
        """See `ChangeSource`. Close the iterator (`contextlib.aclosing`): that ends the session, in bounded time."""
        _check_position(after)
        async with self._life.attempt() as token:
            watch = SessionWatch(
                channel=self._channel,
                position=after,
                token=token.value,
                limits=self._limits,
                on_frame=self._life.saw_frame,
            )
            client = StreamClient(token, watch, api_version=self._api_version, limits=self._limits)
            try:
                await self._open(client, watch)
                self._life.subscribed(self._channel, _shown(after))
                yield Subscribed(after)
                while True:
                    batch = await watch.next()
                    self._life.saw_events(len(batch))
                    yield batch
            finally:
                await client.finish()

    def more(self, events: int) -> None:
        """See `ChangeSource`. Nothing: here what has not been taken delays the next poll."""

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


def _check_position(after: ReplayId | None) -> None:
    try:
        if after is not None and not isinstance(orjson.loads(after), int | str):
            raise ReplayWindowLost("the stored replay id is none of the stream's")
    except orjson.JSONDecodeError as error:
        raise ReplayWindowLost("the stored replay id cannot be read") from error


def _shown(position: ReplayId | None) -> str:
    return "new events" if position is None else position.decode("ascii", "replace")
