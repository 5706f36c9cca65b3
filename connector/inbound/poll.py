"""The poller: asks the org what changed since the last time, deletions included.

While the stream is healthy it is the check on the stream, at each object's full interval; while it is not, it stands in
for it and comes round faster. Objects that are due at about the same time share one call.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import structlog

from connector.errors import ConnectorError, LinkDown, OrgRefused, PoisonError, TransientError
from connector.inbound.apply import Applied, apply_reads
from connector.inbound.backlog import Backlog
from connector.inbound.catalog import SpecChanged
from connector.inbound.decode import NOT_STREAMED
from connector.inbound.fence import ReadFence
from connector.inbound.holes import close_holes
from connector.inbound.progress import LoadState, PollMark
from connector.inbound.rounds import Backoff, Round, RoundKind, Stopwatch, Tools, is_stale, readable
from connector.model.change import Origin
from connector.model.objects import ObjectSpec
from connector.model.record import ReadRecord
from connector.model.times import to_iso
from connector.ports import Hole, OrgRefusal, Purpose, QueryPage, Unit

log = structlog.get_logger()

# While the stream is down each object is due this many times more often, but not more often than every FASTEST_S.
HASTE = 15
FASTEST_S = 30.0
# Objects that would be due within this share of their interval come along with those that are.
EARLY = 0.1
# A refused object is asked for again at this interval at most.
REFUSED_RETRY_S = 300.0
MAX_WAIT_S = 3600.0
# A change this young may still be on its way to us on a healthy stream.
DRIFT_GRACE_MS = 30_000


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
        unclosed: Polls in a row that found a hole and left it open.
    """

    polled_ms: int | None = None
    untold: int = 0
    untold_last: int = 0
    error: str | None = None
    due_s: float = 0.0
    owed: bool = False
    unclosed: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """One object, as it stands when it is asked for; see `_Reading`."""

    spec: ObjectSpec
    mark: PollMark
    holes: Sequence[Hole]
    nameless: Sequence[int]


@dataclass(slots=True)
class _Reading:
    """One object in one round."""

    spec: ObjectSpec
    mark: PollMark
    holes: Sequence[Hole]
    fence: ReadFence
    expect_told: bool  # the stream was healthy when the question was asked
    nameless: Sequence[int]  # events in quarantine that named no record: what has changed answers them
    unread: Sequence[int]  # those whose object could not be read either: the poll of every object does
    server_ms: int = 0
    pages: int = 0
    newest_ms: int | None = None
    changes: int = 0
    unclosed: bool = False  # a hole stays open: something of the object is still in doubt
    untold: int = 0


class Poller:
    """One job, and `sync_now` for those who cannot wait."""

    def __init__(self, tools: Tools, rules: PollRules, *, subscribed: asyncio.Event, backlog: Backlog) -> None:
        """`subscribed` is set once the stream is; its backlog goes first."""
        self._tools = tools
        self._rules = rules
        self._subscribed = subscribed
        self._backlog = backlog
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._urgent: set[str] = set()
        self._stream_healthy = False
        self._stream_expected = True
        self._paused = False
        self._backoff = Backoff(tools.rng, tools.backoff_max_s)
        # Event in quarantine whose object could not be read -> objects that have not been polled since.
        self._unread: dict[int, set[str]] = {}
        self.states: dict[str, PollState] = {name: PollState() for name in rules.intervals_s}

    def stream_is(self, *, healthy: bool, expected: bool = True) -> None:
        """The stream came or went; `expected` False: there is none to wait for (off, or refused for good)."""
        if healthy != self._stream_healthy:
            log.info("poll.pace_changed", stream_healthy=healthy)
        self._stream_healthy, self._stream_expected = healthy, expected
        self._schedule_sooner()

    def poll_soon(self, names: Iterable[str] | None = None) -> None:
        """Poll these objects (None: all) as soon as may be."""
        self._urgent.update(self.states if names is None else names)
        self._wake.set()

    def loaded(self, name: str) -> None:
        """An object was loaded just now: its next poll is an interval away, unless one is owed."""
        if name not in self.states:
            return
        state = self.states[name]
        state.due_s = _now_s() + self._interval_s(name)
        if state.owed:
            state.owed = False
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
            async with asyncio.timeout(self._rules.stream_wait_s):
                await self._subscribed.wait()
        kind: RoundKind = "catch_up"
        while True:
            await self._backlog.worked_off()
            due = () if self._paused else self._due()
            failed_s = await self._round(kind, due) if due else None
            kind = "poll"
            if failed_s is not None:
                await asyncio.sleep(min(failed_s, MAX_WAIT_S))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_due_s()):
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
            readings: list[_Reading] = []
            try:
                refused = await self._read(names, readings)
            except (TransientError, PoisonError) as error:
                for name in names:
                    self.states[name].error = str(error)
                if not isinstance(error, SpecChanged):
                    await watch.report(kind, names, error=error)
                raise
            done = [r.spec.name for r in readings if r.spec.name not in refused]
            changes = sum(r.changes for r in readings)
            for name, refusal in refused.items():
                self.states[name].error = str(refusal)
                self.states[name].due_s = _now_s() + REFUSED_RETRY_S
                await watch.report(kind, (name,), error=refusal)
            for name in set(names).difference(done, refused):
                self.states[name].due_s = _now_s() + self._interval_s(name)  # not loaded yet; `loaded` says when
            if not done:
                if refused:
                    raise next(iter(refused.values()))
                return Round(kind=kind, objects=())
            result = await watch.report(kind, done, changes)
            log.info("poll.round_finished", objects=done, changes=changes, kind=kind, calls=result.api_calls)
            if refused:
                raise next(iter(refused.values()))
            return result

    async def _round(self, kind: RoundKind, names: Sequence[str]) -> float | None:
        """A round by ourselves; returns how long to wait if it failed."""
        self._urgent.difference_update(names)
        try:
            await self.poll(names, kind)
        except SpecChanged:
            self._urgent.update(names)
            return 0.0
        except TransientError as error:
            self._urgent.update(names)
            log.warning("poll.round_failed", objects=list(names), error=str(error))
            return self._backoff.next_s(error.retry_after_s)
        except PoisonError as error:
            log.warning("poll.object_refused", error=str(error))
        self._backoff.reset()
        return None

    async def _read(self, names: Sequence[str], readings: list[_Reading]) -> dict[str, ConnectorError]:
        """Ask for all, apply page by page; returns the refusals by object."""
        refused: dict[str, ConnectorError] = {}
        with ExitStack() as fences:
            readings += await self._begin(names, fences)
            if not readings:
                return refused
            pages = await self._tools.org.query_many([self._soql(r) for r in readings], Purpose.CATCH_UP, deleted=True)
            if len(pages) != len(readings):
                raise LinkDown("the answer has another number of parts than the question")
            for reading, page in zip(readings, pages, strict=True):
                try:
                    if isinstance(page, OrgRefusal):
                        raise OrgRefused(page.status, page.errors)  # noqa: TRY301  # so that both kinds of refusal are told alike
                    await self._pages(reading, page)
                except OrgRefused as error:
                    if is_stale(error) and await self._tools.catalog.refresh(reading.spec.name):
                        raise SpecChanged(f"{reading.spec.name}: its description changed") from error
                    refused[reading.spec.name] = error
        return refused

    async def _begin(self, names: Sequence[str], fences: ExitStack) -> list[_Reading]:
        catalog = self._tools.catalog
        specs = [catalog.specs[n] for n in names if catalog.usable(n)]

        def look(unit: Unit) -> tuple[list[_Asked], list[str], Sequence[int]]:
            unread = unit.nameless_quarantine(None)
            marks = [(spec, PollMark.stored(unit, spec.name)) for spec in specs]
            late = [
                s.name for s, mark in marks if mark is None and (unread or LoadState.stored(unit, s.name) is not None)
            ]
            asked = [
                _Asked(spec, mark, unit.open_holes(spec.name), unit.nameless_quarantine(spec.name))
                for spec, mark in marks
                if mark is not None
            ]
            return asked, late, unread

        found, late, unread = await self._tools.replica.run(look)
        for name in late:
            self.states[name].owed = True
        self._unread = {i: self._unread.get(i, set(catalog.specs)) for i in unread}
        fence, told = self._tools.applying.fences.open, self._stream_healthy
        return [
            _Reading(a.spec, a.mark, a.holes, fences.enter_context(fence(a.spec.name)), told, a.nameless, unread)
            for a in found
        ]

    def _soql(self, reading: _Reading) -> str:
        spec, stamp = reading.spec, reading.spec.modstamp_field
        # A literal without a fraction is what the documents name.
        since = to_iso((reading.mark.high_ms - self._rules.lookback_ms) // 1000 * 1000).replace(".000Z", "Z")
        columns = ", ".join(spec.read_fields())
        return f"SELECT {columns} FROM {spec.name} WHERE {stamp} >= {since} ORDER BY {stamp}, Id"  # noqa: S608  # API names, checked, and a time of ours

    async def _pages(self, reading: _Reading, page: QueryPage) -> None:
        reading.server_ms = page.server_ms
        while True:
            reading.pages += 1
            reads = await readable(self._tools, reading.spec, page.records)
            newest = max((r.modstamp_ms for r in reads), default=None)
            if newest is not None:
                reading.newest_ms = max(newest, reading.newest_ms or newest)
            await self._apply(reading, reads, last=page.next_url is None)
            if page.next_url is None:
                return
            page = await self._tools.org.query_more(page.next_url, Purpose.CATCH_UP)

    async def _apply(self, reading: _Reading, reads: Sequence[ReadRecord], *, last: bool) -> None:
        tools, spec, state = self._tools, reading.spec, self.states[reading.spec.name]

        def work(unit: Unit) -> Applied:
            tools.catalog.expect(spec)
            # What a hole swallowed is in the reads alone: one that an event has overtaken settles nothing.
            applied = apply_reads(
                tools.applying,
                unit,
                spec,
                reads,
                fence=reading.fence,
                origin=Origin.POLL,
                settling=bool(reading.holes),
            )
            if last:
                self._finish(unit, reading, applied)
            return applied

        with tools.remembering():
            applied = await tools.replica.run(work)
        reading.changes += sum(applied.changes.values())
        reading.untold += self._untold(reading, reads, applied)
        tools.applied(applied)
        if last:
            state.untold, state.untold_last = state.untold + reading.untold, reading.untold
            for left in map(self._unread.get, reading.unread):
                (left or set()).discard(spec.name)
            state.polled_ms, state.error = reading.server_ms, None
            state.unclosed = state.unclosed + 1 if reading.unclosed else 0
            state.due_s = _now_s() + self._next_s(spec.name) * tools.rng.uniform(0.98, 1.0)

    def _finish(self, unit: Unit, reading: _Reading, applied: Applied) -> None:
        tools, spec = self._tools, reading.spec
        now_ms = tools.now_ms()
        mark = PollMark(high_ms=_high_water(reading), polled_ms=reading.server_ms)
        mark.store(unit, spec.name, now_ms)
        unit.settle_quarantine((*reading.nameless, *self._read_by(reading)), now_ms)
        # A hole is caught up by a question that was asked with the stream listening (or with none to listen).
        listening = reading.expect_told or not self._stream_expected
        reading.unclosed = bool(reading.holes)
        if reading.holes and listening and not applied.dirty and _settled(unit, spec.name):
            reading.unclosed = False
            close_holes(unit, reading.holes, reading.server_ms, now_ms, tools.hole_messages)

    def _read_by(self, reading: _Reading) -> Iterator[int]:
        """Events whose object could not be read, and that this object's poll is the last to answer."""
        return (i for i in reading.unread if self._unread.get(i, set()) <= {reading.spec.name})

    def _untold(self, reading: _Reading, reads: Sequence[ReadRecord], applied: Applied) -> int:
        if not reading.expect_told or not applied.changed:
            return 0
        ripe_ms = reading.server_ms - DRIFT_GRACE_MS
        stamps: dict[str, int] = {r.id: r.modstamp_ms for r in reads}
        untold = 0
        for record_id, changed in applied.changed:
            streamed = [f for f in changed if f not in NOT_STREAMED and not _calculated(reading.spec, f)]
            untold += (bool(streamed) or not changed) and stamps.get(record_id, ripe_ms) < ripe_ms
        if untold:
            log.warning("poll.drift_found", object=reading.spec.name, changes=untold)
        return untold

    def _due(self) -> list[str]:
        now_s = _now_s()
        usable = [n for n in self.states if self._tools.catalog.usable(n)]
        due = [n for n in usable if n in self._urgent or self.states[n].due_s <= now_s]
        if not due:
            return []
        return [n for n in usable if n in due or self.states[n].due_s <= now_s + self._interval_s(n) * EARLY]

    def _until_due_s(self) -> float:
        due_s = [s.due_s for n, s in self.states.items() if self._tools.catalog.usable(n) and not self._paused]
        return max(0.05, min(due_s) - _now_s()) if due_s else FASTEST_S

    def _interval_s(self, name: str) -> float:
        full = self._rules.intervals_s[name]
        return full if self._stream_healthy else min(full, max(FASTEST_S, full / HASTE))

    def _next_s(self, name: str) -> float:
        """Until the next poll; with a hole to close sooner, and then less and less so."""
        unclosed, full = self.states[name].unclosed, self._interval_s(name)
        return min(full, FASTEST_S * 2.0 ** min(unclosed - 1, 20)) if unclosed else full

    def _schedule_sooner(self) -> None:
        now_s = _now_s()
        for name, state in self.states.items():
            state.due_s = min(state.due_s, now_s + self._interval_s(name))
        self._wake.set()


def reconcile_cursor(name: str) -> str:
    """Cursor of an object that is to be compared as a whole."""
    return f"reconcile:{name}"


def _settled(unit: Unit, name: str) -> bool:
    """True if nothing else is known to differ."""
    return not unit.dirty(name, 1) and unit.cursor(reconcile_cursor(name)) is None


def _high_water(reading: _Reading) -> int:
    """The mark for the next poll; by the org's clocks alone, never by ours.

    The stamps of rows are surer than the `Date` of the answer, so the newest row seen is the mark as long as reading
    it again costs no page more; where one moment stamped more rows than that, the mark moves on with the answer's time.
    """
    seen = reading.mark.high_ms if reading.newest_ms is None else min(reading.newest_ms, reading.server_ms)
    return seen if reading.pages == 1 else max(seen, reading.server_ms)


def _calculated(spec: ObjectSpec, name: str) -> bool:
    known = spec.by_name.get(name)
    return known is not None and known.calculated


def _now_s() -> float:
    return asyncio.get_running_loop().time()
