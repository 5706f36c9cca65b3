"""The poller: asks the org what changed since the last time, deletions included.

While the stream is healthy it is the check on the stream, at each object's full interval; while it is not, it stands in
for it and comes round faster. Objects that are due at about the same time share one call.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from connector.errors import PoisonError, TransientError
from connector.inbound.backlog import Backlog
from connector.inbound.catalog import SpecChanged
from connector.inbound.poll_round import ObjectPoll, PollReader, RoundResult, StreamOutlook
from connector.inbound.rounds import Backoff, Round, RoundKind, Stopwatch, Tools
from connector.inbound.timetable import Timetable
from connector.ports import Purpose

log = structlog.get_logger()

MAX_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRules:
    """What of the settings concerns polling.

    Attributes:
        intervals_s: Object -> its interval while the stream is healthy.
        lookback_ms: Every poll reads this far back again: rows become visible later than they are stamped.
        stream_wait_s: How long the catch-up at start waits for the stream.
    """

    intervals_s: Mapping[str, float]
    lookback_ms: int
    stream_wait_s: float = 30.0


@dataclass(slots=True)
class PollState:
    """Of one object, for health.

    Attributes:
        polled_ms: The org's clock at the last good poll; None: none in this run.
        untold: Changes the poller found that a healthy stream should have told, in this run.
        untold_last: Of these, those that the last poll found.
        error: Of the last poll; None: it was good.
        owed: A poll was asked for in the middle of the first load: nobody told what had happened until then to the rows
            that were read already.
    """

    polled_ms: int | None = None
    untold: int = 0
    untold_last: int = 0
    error: str | None = None
    owed: bool = False


class Poller:
    """One job, and `sync_now` for those who cannot wait."""

    def __init__(self, tools: Tools, rules: PollRules, *, subscribed: asyncio.Event, backlog: Backlog) -> None:
        """`subscribed` is set once the stream is; its backlog goes first."""
        self._tools = tools
        self._stream_wait_s = rules.stream_wait_s
        self._subscribed = subscribed
        self._backlog = backlog
        self._reader = PollReader(tools, rules.lookback_ms, self._owe)
        self.timetable = Timetable(rules.intervals_s, tools.rng, _now_s)
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._outlook = StreamOutlook()
        self._paused = False
        self._backoff = Backoff(tools.rng, tools.backoff_max_s)
        self.states: dict[str, PollState] = {name: PollState() for name in rules.intervals_s}

    def stream_is(self, *, healthy: bool, expected: bool = True) -> None:
        """The stream came or went; `expected` False: there is none to wait for (off, or refused for good)."""
        if healthy != self._outlook.healthy:
            log.info("poll.pace_changed", stream_healthy=healthy)
        self._outlook = StreamOutlook(healthy=healthy, expected=expected)
        self.timetable.hurry(hasty=not healthy)
        self._wake.set()

    def poll_soon(self, names: Iterable[str] | None = None) -> None:
        """Poll these objects (None: all) as soon as may be."""
        self.timetable.at_once(self.states if names is None else names)
        self._wake.set()

    def loaded(self, name: str) -> None:
        """An object was loaded just now: its next poll is an interval away, unless one is owed."""
        if name not in self.states:
            return
        self.timetable.passed_over(name)
        if self.states[name].owed:
            self.states[name].owed = False
            self.poll_soon((name,))

    def pause(self) -> None:
        """Start no more rounds by ourselves."""
        self._paused = True

    def resume(self) -> None:
        """Go on, with a poll of everything."""
        self._paused = False
        self.poll_soon()

    async def run(self) -> None:
        """Catch up, then poll what is due; does not end.

        Raises:
            LoginRefused, StoreFull, StoreUnusable
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._stream_wait_s):
                await self._subscribed.wait()
        kind: RoundKind = "catch_up"
        while True:
            await self._backlog.worked_off()
            due = self.timetable.due(self._usable())
            failed_s = await self._round(kind, due) if due else None
            kind = "poll"
            if failed_s is not None:
                await asyncio.sleep(min(failed_s, MAX_WAIT_S))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.timetable.until_due_s(self._usable())):
                    await self._wake.wait()
            self._wake.clear()

    async def sync_now(self, objects: Sequence[str] | None = None) -> Round:
        """Poll these objects (None: all) now.

        Raises:
            TransientError, LoginRefused: The org cannot be asked now.
            OrgRefused: The org refuses to be asked for one of them; the others were polled.
        """
        names = [n for n in (objects or self.states) if n in self.states]
        return await self.poll(names, "sync")

    async def poll(self, names: Sequence[str], kind: RoundKind) -> Round:
        """One round over those of the objects that are loaded and that the org answers for; as `sync_now`."""
        async with self._one_at_a_time:
            watch = Stopwatch(self._tools, Purpose.CATCH_UP)
            result = RoundResult()
            try:
                await self._reader.read(names, self._outlook, result)
            except (TransientError, PoisonError) as error:
                for name in names:
                    self.states[name].error = str(error)
                if not isinstance(error, SpecChanged):
                    await watch.report(kind, names, error=error)
                raise
            finally:
                self._note(result.polls)
            return await self._report(watch, kind, names, result)

    async def _report(self, watch: Stopwatch, kind: RoundKind, names: Sequence[str], result: RoundResult) -> Round:
        refused = result.refused
        done = [p.spec.name for p in result.polls if p.spec.name not in refused]
        changes = sum(p.changes for p in result.polls)
        for name, refusal in refused.items():
            self.states[name].error = str(refusal)
            self.timetable.refused(name)
            await watch.report(kind, (name,), error=refusal)
        for name in set(names).difference(done, refused):
            self.timetable.passed_over(name)  # not loaded yet; `loaded` says when
        told = Round(kind=kind, objects=())
        if done:
            told = await watch.report(kind, done, changes)
            log.info("poll.round_finished", objects=done, changes=changes, kind=kind, calls=told.api_calls)
        if refused:
            raise next(iter(refused.values()))
        return told

    def _note(self, polls: Iterable[ObjectPoll]) -> None:
        for poll in polls:
            if poll.ended:
                state = self.states[poll.spec.name]
                state.untold, state.untold_last = state.untold + poll.untold, poll.untold
                state.polled_ms, state.error = poll.server_ms, None
                self.timetable.polled(poll.spec.name, unclosed=poll.unclosed)

    def _owe(self, name: str) -> None:
        self.states[name].owed = True

    async def _round(self, kind: RoundKind, names: Sequence[str]) -> float | None:
        """A round by ourselves; returns how long to wait if it failed."""
        self.timetable.begun(names)
        try:
            await self.poll(names, kind)
        except SpecChanged:
            self.timetable.at_once(names)
            return 0.0
        except TransientError as error:
            self.timetable.at_once(names)
            log.warning("poll.round_failed", objects=list(names), error=str(error))
            return self._backoff.next_s(error.retry_after_s)
        except PoisonError as error:
            log.warning("poll.object_refused", error=str(error))
        self._backoff.reset()
        return None

    def _usable(self) -> list[str]:
        """The objects that may be polled by ourselves."""
        return [] if self._paused else [n for n in self.states if self._tools.catalog.usable(n)]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
