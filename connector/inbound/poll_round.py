"""One poll of some objects: what each is asked for, what its answer changes, and what it answers besides.

A poll's last page settles more than its rows: the mark of the next poll, events in quarantine that named no record,
and the holes that the answer has filled.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import structlog

from connector.errors import ConnectorError, LinkDown, OrgRefused
from connector.inbound.apply import Applied, apply_reads
from connector.inbound.catalog import SpecChanged
from connector.inbound.decode import NOT_STREAMED
from connector.inbound.fence import ReadFence
from connector.inbound.holes import close_holes
from connector.inbound.progress import LoadState, PollMark, reconcile_cursor
from connector.inbound.rounds import Tools, is_stale, readable
from connector.model.change import Origin
from connector.model.objects import ObjectSpec
from connector.model.record import ReadPage
from connector.model.times import to_iso, to_ms
from connector.ports import Hole, OrgRefusal, Purpose, QueryPage, Unit

log = structlog.get_logger()

# A change this young may still be on its way to us on a healthy stream.
DRIFT_GRACE_MS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOutlook:
    """What a round may count on.

    Attributes:
        healthy: The stream tells of what happens.
        expected: False: there is none to wait for (off, or refused for good).
    """

    healthy: bool = False
    expected: bool = True


@dataclass(frozen=True, slots=True)
class _Asked:
    """One object, as it stands when it is asked for; see `ObjectPoll`."""

    spec: ObjectSpec
    mark: PollMark
    holes: Sequence[Hole]
    nameless: Sequence[int]


@dataclass(slots=True)
class ObjectPoll:
    """One object in one round.

    Attributes:
        outlook: As it was when the question was asked.
        nameless: Events in quarantine that named no record: what has changed answers them.
        unread: Those whose object could not be read either: the poll of every object does.
        server_ms: The org's clock.
        newest_ms: The newest stamp among the rows.
        changes: Made by this poll.
        untold: Of these, how many a healthy stream should have told.
        unclosed: A hole stays open: something of the object is still in doubt.
        ended: The last page is applied.
    """

    spec: ObjectSpec
    mark: PollMark
    holes: Sequence[Hole]
    fence: ReadFence
    outlook: StreamOutlook
    nameless: Sequence[int]
    unread: Sequence[int]
    server_ms: int = 0
    pages: int = 0
    newest_ms: int | None = None
    changes: int = 0
    untold: int = 0
    unclosed: bool = False
    ended: bool = False


@dataclass(slots=True)
class RoundResult:
    """What a round came to, told also where it broke off.

    Attributes:
        polls: Of the objects that were asked for.
        refused: Why the org does not answer for one.
    """

    polls: list[ObjectPoll] = field(default_factory=list)
    refused: dict[str, ConnectorError] = field(default_factory=dict)


class PollReader:
    """Does the rounds, one at a time."""

    def __init__(self, tools: Tools, lookback_ms: int, on_loading: Callable[[str], None]) -> None:
        """Every poll reads `lookback_ms` back again: rows become visible later than they are stamped.

        `on_loading` is told, before anything is asked, of an object that cannot be polled since its load is under way.
        """
        self._tools = tools
        self._lookback_ms = lookback_ms
        self._on_loading = on_loading
        # Event in quarantine whose object could not be read -> objects that have not been polled since.
        self._unread: dict[int, set[str]] = {}

    async def read(self, names: Sequence[str], outlook: StreamOutlook, result: RoundResult) -> None:
        """Ask for all that are usable and loaded, apply page by page, and fill `result`.

        Raises:
            TransientError, LoginRefused: As the org's client; the polls that have ended stay.
            SpecChanged: The org describes an object otherwise by now.
        """
        with ExitStack() as fences:
            polls = await self._begin(names, outlook, fences)
            if not polls:
                return
            result.polls += polls
            pages = await self._tools.org.query_many([self._soql(p) for p in polls], Purpose.CATCH_UP, deleted=True)
            if len(pages) != len(polls):
                raise LinkDown("the answer has another number of parts than the question")
            for poll, page in zip(polls, pages, strict=True):
                try:
                    if isinstance(page, OrgRefusal):
                        raise OrgRefused(page.status, page.errors)  # noqa: TRY301  # so that both kinds of refusal are told alike
                    await self._pages(poll, page)
                except OrgRefused as error:
                    if is_stale(error) and await self._tools.catalog.refresh(poll.spec.name):
                        raise SpecChanged(f"{poll.spec.name}: its description changed") from error
                    result.refused[poll.spec.name] = error

    async def _begin(self, names: Sequence[str], outlook: StreamOutlook, fences: ExitStack) -> list[ObjectPoll]:
        catalog = self._tools.catalog
        specs = [catalog.specs[n] for n in names if catalog.usable(n)]

        def look(unit: Unit) -> tuple[list[_Asked], list[str], Sequence[int]]:
            unread = unit.nameless_quarantine(None)
            marks = [(spec, PollMark.stored(unit, spec.name)) for spec in specs]
            loading = [
                s.name for s, mark in marks if mark is None and (unread or LoadState.stored(unit, s.name) is not None)
            ]
            asked = [
                _Asked(spec, mark, unit.open_holes(spec.name), unit.nameless_quarantine(spec.name))
                for spec, mark in marks
                if mark is not None
            ]
            return asked, loading, unread

        found, loading, unread = await self._tools.replica.run(look)
        for name in loading:
            self._on_loading(name)
        self._unread = {i: self._unread.get(i, set(catalog.specs)) for i in unread}
        fence = self._tools.applying.fences.open
        return [
            ObjectPoll(a.spec, a.mark, a.holes, fences.enter_context(fence(a.spec.name)), outlook, a.nameless, unread)
            for a in found
        ]

    def _soql(self, poll: ObjectPoll) -> str:
        spec, stamp = poll.spec, poll.spec.modstamp_field
        # A literal without a fraction is what the documents name.
        since = to_iso((poll.mark.high_ms - self._lookback_ms) // 1000 * 1000).replace(".000Z", "Z")
        columns = ", ".join(spec.read_fields())
        return f"SELECT {columns} FROM {spec.name} WHERE {stamp} >= {since} ORDER BY {stamp}, Id"  # noqa: S608  # API names, checked, and a time of ours

    async def _pages(self, poll: ObjectPoll, page: QueryPage) -> None:
        poll.server_ms = page.server_ms
        while True:
            poll.pages += 1
            read = await readable(self._tools, poll.spec, page.records)
            newest = read.newest_ms
            if newest is not None:
                poll.newest_ms = max(newest, poll.newest_ms or newest)
            await self._apply(poll, read, last=page.next_url is None)
            if page.next_url is None:
                return
            page = await self._tools.org.query_more(page.next_url, Purpose.CATCH_UP)

    async def _apply(self, poll: ObjectPoll, read: ReadPage, *, last: bool) -> None:
        tools, spec = self._tools, poll.spec

        def work(unit: Unit) -> Applied:
            tools.catalog.expect(spec)
            # What a hole swallowed is in the reads alone: one that an event has overtaken settles nothing.
            applied = apply_reads(
                tools.applying,
                unit,
                spec,
                list(read.records()),
                fence=poll.fence,
                origin=Origin.POLL,
                settling=bool(poll.holes),
            )
            if last:
                self._finish(unit, poll, applied)
            return applied

        with tools.remembering():
            applied = await tools.replica.run(work)
        poll.changes += sum(applied.changes.values())
        poll.untold += _untold(poll, read, applied)
        tools.applied(applied)
        if last:
            for left in map(self._unread.get, poll.unread):
                (left or set()).discard(spec.name)
            poll.ended = True

    def _finish(self, unit: Unit, poll: ObjectPoll, applied: Applied) -> None:
        tools, spec = self._tools, poll.spec
        now_ms = tools.now_ms()
        mark = PollMark(high_ms=_high_water(poll), polled_ms=poll.server_ms)
        mark.store(unit, spec.name, now_ms)
        unit.settle_quarantine((*poll.nameless, *self._answered_by(poll)), now_ms)
        # A hole is caught up by a question that was asked with the stream listening (or with none to listen).
        listening = poll.outlook.healthy or not poll.outlook.expected
        poll.unclosed = bool(poll.holes)
        if poll.holes and listening and not applied.dirty and _settled(unit, spec.name):
            poll.unclosed = False
            close_holes(unit, poll.holes, poll.server_ms, now_ms, tools.hole_messages)

    def _answered_by(self, poll: ObjectPoll) -> Iterator[int]:
        """Events whose object could not be read, and that this object's poll is the last to answer."""
        return (i for i in poll.unread if self._unread.get(i, set()) <= {poll.spec.name})


def _settled(unit: Unit, name: str) -> bool:
    """True if nothing else is known to differ."""
    return not unit.dirty(name, 1) and unit.cursor(reconcile_cursor(name)) is None


def _high_water(poll: ObjectPoll) -> int:
    """The mark for the next poll; by the org's clocks alone, never by ours.

    The stamps of rows are surer than the `Date` of the answer, so the newest row seen is the mark as long as reading
    it again costs no page more; where one moment stamped more rows than that, the mark moves on with the answer's time.
    """
    seen = poll.mark.high_ms if poll.newest_ms is None else min(poll.newest_ms, poll.server_ms)
    return seen if poll.pages == 1 else max(seen, poll.server_ms)


def _untold(poll: ObjectPoll, read: ReadPage, applied: Applied) -> int:
    """How many of the changes a healthy stream should have told by now."""
    if not poll.outlook.healthy or not applied.changed:
        return 0
    ripe_ms = poll.server_ms - DRIFT_GRACE_MS
    stamps = dict(zip(read.ids, map(to_ms, read.modstamp), strict=True))
    untold = 0
    for record_id, changed in applied.changed:
        streamed = [f for f in changed if f not in NOT_STREAMED and not _calculated(poll.spec, f)]
        untold += (bool(streamed) or not changed) and stamps.get(record_id, ripe_ms) < ripe_ms
    if untold:
        log.warning("poll.drift_found", object=poll.spec.name, changes=untold)
    return untold


def _calculated(spec: ObjectSpec, name: str) -> bool:
    known = spec.by_name.get(name)
    return known is not None and known.calculated
