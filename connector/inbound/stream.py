"""The loop around the change stream: batches, the position, and what each error of the source asks for.

One event is applied at once when nothing else waits; under load as many as fit a batch go into one unit, whole
transactions always. The position is stored in the unit that applies, so a crash at any point resumes exactly there.
"""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncGenerator

import structlog

from connector.errors import (
    ConnectorError,
    LinkDown,
    LoginRefused,
    OrgRefused,
    OrgThrottled,
    ReplayWindowLost,
    TransientError,
)
from connector.inbound.applier import Applier, StreamListeners, StreamState, StreamStatus
from connector.inbound.backlog import Backlog
from connector.inbound.batch import Buffer
from connector.inbound.position import Position, StoredPosition, StreamRules
from connector.inbound.rounds import Backoff, Round, Tools
from connector.model.change import OLDEST_KEPT, Reached, ReplayId, Subscribed
from connector.ports import ChangeSource

log = structlog.get_logger()

# The other events of a transaction that has begun to arrive are waited for this long: there is no end mark.
LINGER_S = 0.02
# The same where the org held them back, or they are too many for one answer: they come with its next one.
REST_S = 0.5
# A channel that is refused is tried again this seldom: a person must change something.
REFUSED_RETRY_S = 300.0
# An org that throttles the stream and does not say for how long.
THROTTLED_RETRY_S = 60.0
MAX_WAIT_S = 3600.0
# A subscription that lasted this long counts as a success: the next failure begins at a short wait again.
HEALTHY_S = 30.0


class StreamLoop:
    """One job: subscribe, apply, and subscribe again; `pause` and `resume` from outside."""

    def __init__(
        self,
        tools: Tools,
        source: ChangeSource,
        rules: StreamRules,
        listeners: StreamListeners,
        *,
        subscribed: asyncio.Event,
        backlog: Backlog,
    ) -> None:
        """`subscribed` is set at the first subscription, for those who must come after it."""
        self._tools = tools
        self._source = source
        self._rules = rules
        self._subscribed = subscribed
        self._backlog = backlog
        self._tell = listeners
        self._paused = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._buffer: Buffer | None = None
        self._backoff = Backoff(tools.rng, tools.backoff_max_s)
        self.state = StreamState(since_ms=tools.now_ms())
        self._stored = StoredPosition(tools, rules)
        self._applier = Applier(tools, self._stored, self.state, listeners, backlog)

    def pause(self) -> None:
        """Close the subscription and stay away; what has been received is applied first."""
        self._resumed.clear()
        self._paused.set()
        if self._buffer is not None:
            self._buffer.close()

    def resume(self) -> None:
        """Subscribe again from the stored position."""
        self._paused.clear()
        self._resumed.set()

    async def run(self) -> None:
        """Keep the stream; does not end.

        Raises:
            LoginRefused, StoreFull, StoreUnusable
        """
        while True:
            if self._paused.is_set():
                self._enter("paused")
                await self._resumed.wait()
            self._enter("connecting")
            started_s = asyncio.get_running_loop().time()
            try:
                await self._session()
                continue
            except TransientError as error:
                wait_s = await self._failed(error)
            except OrgRefused as error:
                wait_s = await self._refused(error)
            if asyncio.get_running_loop().time() - started_s > HEALTHY_S:
                self._backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, MAX_WAIT_S)):
                    await self._paused.wait()

    async def _session(self) -> None:
        """One subscription from the stored position to its failure, or to a pause."""
        left = await self._tools.replica.run(self._stored.leave_other)
        if left:
            log.warning("stream.transport_changed", objects=left)
        position = await self._tools.replica.run(self._stored.stored)
        after, self._applier.event_ms = position.replay_id, position.event_ms
        buffer = self._buffer = Buffer(self._rules.batch_size, self._source.more)
        log.info("stream.subscribing", channel=self._rules.channel, replay=after is not None)
        pump = asyncio.create_task(self._pump(after, buffer), name="stream.pump")
        try:
            while batch := await buffer.take(LINGER_S, REST_S):
                await self._applier.apply(batch)
        finally:
            pump.cancel()
            await asyncio.wait((pump,))
            self._backlog.ended()
        if not pump.cancelled():
            pump.result()

    async def _pump(self, after: ReplayId | None, buffer: Buffer) -> None:
        """Move what the source yields into the buffer; a full buffer holds the source back."""
        received = self._source.events(after)
        try:
            async for item in received:
                if isinstance(item, Subscribed):
                    await self._live(item)
                elif isinstance(item, Reached):
                    await self._reached(item)
                else:
                    self._backlog.received(len(item))
                    await buffer.put(self._applier.read(item))
        finally:
            buffer.close()
            if isinstance(received, AsyncGenerator):
                await received.aclose()
        raise TransientError("the change source ended")

    async def _live(self, subscribed: Subscribed) -> None:
        position = b64encode(subscribed.position).decode() if subscribed.position is not None else "new events"
        log.info("stream.subscribed", channel=self._rules.channel, position=position)
        if subscribed.position is None:
            await self._tools.replica.run(self._stored.begin_blind)
        self._enter("live")
        self.state.last_error = None
        self._backlog.subscribed(resumed=subscribed.position is not None)
        self._subscribed.set()
        await self._report(None)
        if subscribed.position in (None, OLDEST_KEPT):
            # Nothing proves what came before the first event: ask, with the holes open that the answer is to close.
            self._tell.poll(None)

    async def _reached(self, reached: Reached) -> None:
        """Keep a position that came without an event, once everything before it is applied; the next one will do."""
        if self._backlog.under_way:
            return
        position = Position(reached.position, self._applier.event_ms)
        await self._tools.replica.run(lambda unit: self._stored.store(unit, position))
        log.debug("stream.position_reached", channel=self._rules.channel)

    async def _failed(self, error: TransientError) -> float:
        if isinstance(error, LinkDown) and error.retry_after_s == 0:
            # The org forgets its clients every few hours: told to nobody unless the next session fails as well.
            self._enter("connecting")
            log.info("stream.session_ended", error=str(error))
            return self._backoff.next_s(0.0)
        self._down(error)
        if isinstance(error, ReplayWindowLost):
            lost = await self._tools.replica.run(self._stored.lose)
            if lost is not None:
                log.error("stream.position_lost", objects=lost, error=str(error))
                await self._report(error)
                return 0.0
        asked_s = error.retry_after_s
        if isinstance(error, OrgThrottled) and asked_s is None:
            asked_s = THROTTLED_RETRY_S
        wait_s = self._backoff.next_s(asked_s)
        log.warning("stream.down", error=str(error), kind=type(error).__name__, wait_s=round(wait_s, 2))
        await self._report(error)
        return wait_s

    async def _refused(self, error: OrgRefused) -> float:
        """A person must change something; until then the poller alone keeps the replica."""
        self._down(error)
        self._tell.health(False, False)  # noqa: FBT003  # healthy, expected
        self._subscribed.set()  # it is nothing to wait for any more
        log.error("stream.channel_refused", channel=self._rules.channel, error=str(error))
        await self._report(error)
        return REFUSED_RETRY_S

    async def _report(self, error: ConnectorError | None) -> None:
        said = None if error is None else _said(error)
        await self._tools.on_round(
            Round(kind="stream", objects=(), error=said, person=isinstance(error, (OrgRefused, LoginRefused)))
        )

    def _down(self, error: ConnectorError) -> None:
        self.state.last_error = _said(error)
        self._enter("down")

    def _enter(self, status: StreamStatus) -> None:
        state = self.state
        if state.status != status:
            state.status, state.since_ms = status, self._tools.now_ms()
        if status == "live":
            self._tell.health(True, True)  # noqa: FBT003  # healthy, expected
        else:
            self._tell.health(False, True)  # noqa: FBT003  # healthy, expected


def _said(error: ConnectorError) -> str:
    return str(error) or type(error).__name__
