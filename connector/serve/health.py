"""The health document: what is observed, the rule that makes it one state, and the loop that publishes it.

`failing`: a person is needed: a reported trouble says so (refused login, refused channel), deletions are held, or the
broker refuses topics or messages of ours. `degraded`: something is retried or late, reads are still good: any other
reported trouble, a stream that is not live though it should be or that leaves out changes, a hole, drift that was not
repaired, events in quarantine, a queue longer than `LATE_QUEUE`, or a used-up API budget. `ok`: none of these.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from connector.errors import LinkDown, PoisonError, TransientError
from connector.model.message import Message
from connector.model.times import to_iso
from connector.ports import Publisher

log = structlog.get_logger()

LATE_QUEUE = 1000
LAG_WINDOW = 2000
MAX_TROUBLES = 1000
# States that flutter are told at most this often.
MIN_GAP_S = 1.0
_MAX_ERROR_CHARS = 500

State = Literal["ok", "degraded", "failing"]
StreamState = Literal["live", "connecting", "down", "paused", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamNow:
    """The change stream as it is; times in milliseconds since the Unix epoch, UTC.

    Attributes:
        delivered: Events of the last 24 hours: `used` by all subscribers of the org and its `max`, None until it told;
            `own` of these.
    """

    state: StreamState
    transport: str
    since_ms: int | None = None
    last_frame_ms: int | None = None
    last_event_ms: int | None = None
    delivered: Mapping[str, int | None] = field(default_factory=lambda: {"used": None, "max": None, "own": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectNow:
    """One object as it is; times in milliseconds since the Unix epoch, UTC.

    Attributes:
        drift: Records that the last comparison found to differ from the org, and that were not put right.
        held: Of these, deletions that wait for a person's word.
        untold: Changes that polls found and a live stream had not told, since the start.
        stream_deaf: The last poll found some, of an object whose changes the stream does tell.
        holes: Holes that are open.
        calculated_ms: Since when no formula or roll-up field was left unread; None: it has none.
    """

    records: int
    streamed: bool
    last_polled_ms: int | None = None
    verified_ms: int | None = None
    drift: int = 0
    held: int = 0
    untold: int = 0
    stream_deaf: bool = False
    holes: int = 0
    calculated_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Everything the document tells that is not kept here.

    Attributes:
        version: Of the newest change.
        queues: Rows waiting in `outbox`, `commands`, `quarantine`.
        api_used: Calls of the whole org in the last 24 hours; None until it told.
        api_max: The lower of the org's limit and ours; None until known.
        api_own: Our own calls by purpose.
        mesh_refused: Topics that the broker does not allow us.
        parked_count: Messages that the broker refused for good.
    """

    version: int
    stream: StreamNow
    objects: Mapping[str, ObjectNow]
    queues: Mapping[str, int]
    api_used: int | None
    api_max: int | None
    api_own: Mapping[str, int]
    mesh_refused: tuple[str, ...] = ()
    parked_count: int = 0


class LagWindow:
    """The last lags, commit in the org to PUBACK, in milliseconds."""

    def __init__(self) -> None:
        self._lags: deque[int] = deque(maxlen=LAG_WINDOW)

    def add(self, lag_ms: int) -> None:
        """One more; the oldest one goes."""
        self._lags.append(lag_ms)

    def percentile(self, percent: float) -> int | None:
        """The nearest-rank percentile, or None while there is nothing."""
        if not self._lags:
            return None
        ordered = sorted(self._lags)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Troubles:
    """What is wrong now, by source, and the error reported last. Parts report; health tells.

    Attributes:
        changed: Set with every report and every end of a trouble, and by whoever changes a state that health tells.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._current: dict[str, bool] = {}
        self.last: dict[str, str] | None = None
        self.changed = asyncio.Event()

    def report(self, source: str, error: str, *, person: bool = False) -> None:
        """Something failed. `person`: nobody but a person can mend it."""
        if source in self._current or len(self._current) < MAX_TROUBLES:
            self._current[source] = person
        self.last = {"at": to_iso(self._now_ms()), "source": source, "error": error[:_MAX_ERROR_CHARS]}
        self.changed.set()

    def clear(self, source: str) -> None:
        """It works again."""
        if self._current.pop(source, None) is not None:
            self.changed.set()

    def worst(self) -> State:
        """The state that the troubles alone make."""
        if any(self._current.values()):
            return "failing"
        return "degraded" if self._current else "ok"


def overall(seen: Observations, troubles: State) -> State:
    """The one state; the rule is at the top of this module."""
    held = any(o.held for o in seen.objects.values())
    if troubles == "failing" or held or seen.mesh_refused or seen.parked_count:
        return "failing"
    late = (
        troubles == "degraded"
        or seen.stream.state in ("connecting", "down", "paused")
        or any(o.holes or o.drift or o.stream_deaf for o in seen.objects.values())
        or seen.queues.get("quarantine", 0) > 0
        or max(seen.queues.get("outbox", 0), seen.queues.get("commands", 0)) > LATE_QUEUE
        or (seen.api_used is not None and seen.api_max is not None and seen.api_used >= seen.api_max)
    )
    return "degraded" if late else "ok"


def health_document(
    seen: Observations, troubles: Troubles, lag: LagWindow, *, node: str, started_ms: int, now_ms: int
) -> dict[str, Any]:
    """The document of section 5 of the interface."""
    return {
        "state": overall(seen, troubles.worst()),
        "node": node,
        "as_of": to_iso(now_ms),
        "version": seen.version,
        "uptime_s": max(0, now_ms - started_ms) // 1000,
        "stream": {
            "state": seen.stream.state,
            "transport": seen.stream.transport,
            "since": _iso(seen.stream.since_ms),
            "last_frame_at": _iso(seen.stream.last_frame_ms),
            "last_event_at": _iso(seen.stream.last_event_ms),
            "delivered": dict(seen.stream.delivered),
        },
        "objects": {name: _object(o) for name, o in seen.objects.items()},
        "queues": {name: seen.queues.get(name, 0) for name in ("outbox", "commands", "quarantine")},
        "api": {"used": seen.api_used, "max": seen.api_max, "own": dict(seen.api_own)},
        "lag_ms": {"p50": lag.percentile(50), "p99": lag.percentile(99)},
        "last_error": troubles.last,
    }


class Health:
    """Publishes the document, retained, every interval and when the state changes."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        message: Callable[[Mapping[str, Any]], Message],
        observe: Callable[[], Awaitable[Observations]],
        troubles: Troubles,
        lag: LagWindow,
        node: str,
        started_ms: int,
        now_ms: Callable[[], int],
        interval_s: float,
    ) -> None:
        """`message` makes the retained message; `observe` may raise TransientError."""
        self._publisher = publisher
        self._message = message
        self._observe = observe
        self._troubles = troubles
        self._lag = lag
        self._node = node
        self._started_ms = started_ms
        self._now_ms = now_ms
        self._interval_s = interval_s
        self._told: tuple[object, ...] | None = None
        self._seen: Observations | None = None
        self._blind = False  # what is told is what was seen last

    async def document(self) -> dict[str, Any]:
        """The document now; while the store is busy, with the figures that were seen last.

        Raises:
            TransientError: The store is busy, and nothing was seen yet.
        """
        return health_document(
            await self._look(),
            self._troubles,
            self._lag,
            node=self._node,
            started_ms=self._started_ms,
            now_ms=self._now_ms(),
        )

    async def _look(self) -> Observations:
        try:
            self._seen = await self._observe()
        except TransientError as error:
            if self._seen is None:
                raise
            if not self._blind:
                self._troubles.report("store", str(error))
            self._blind = True
        else:
            if self._blind:
                self._troubles.clear("store")
            self._blind = False
        return self._seen

    def link_up(self) -> None:
        """The connection is back: tell again."""
        self._told = None
        self._troubles.changed.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            self._troubles.changed.clear()
            if await self._tell(due=loop.time() >= due_s):
                due_s = loop.time() + self._interval_s
            await asyncio.sleep(min(MIN_GAP_S, self._interval_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due_s - loop.time())):
                    await self._troubles.changed.wait()

    async def _tell(self, *, due: bool) -> bool:
        """Publish if it is time or something has changed; True if it is told or cannot be told before the next time."""
        try:
            document = await self.document()
            essence = (document["state"], document["stream"]["state"], document["last_error"])
            if not due and essence == self._told:
                return False
            await self._publisher.publish(self._message(document))
        except LinkDown:
            return True  # `link_up` asks again
        except TransientError as error:
            log.warning("health.not_observed", error=str(error))
            return True
        except PoisonError as error:
            log.error("health.refused", error=str(error))  # noqa: TRY400 - the reason says it all
            return True
        self._told = essence
        return True


def _object(now: ObjectNow) -> dict[str, Any]:
    return {
        "records": now.records,
        "streamed": now.streamed,
        "last_polled_at": _iso(now.last_polled_ms),
        "verified_at": _iso(now.verified_ms),
        "drift": now.drift,
        "held": now.held,
        "untold": now.untold,
        "holes": now.holes,
        "calculated_at": _iso(now.calculated_ms),
    }


def _iso(ms: int | None) -> str | None:
    return None if ms is None else to_iso(ms)
