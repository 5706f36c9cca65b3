"""Reads again what is in doubt: single records by id, and whole objects that an event said may differ anywhere.

A record that is gone is deleted here too, but never many at once without a word of the org's own (a DELETE event): a
user who lost the right to see an object sees all its records gone.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from connector.errors import LinkDown, OrgRefused, PoisonError, TransientError
from connector.inbound.apply import Applied, apply_reads
from connector.inbound.catalog import SpecChanged
from connector.inbound.compare import Found, Progress, compare
from connector.inbound.fence import ReadFence
from connector.inbound.holes import close_holes
from connector.inbound.poll import reconcile_cursor
from connector.inbound.progress import PollMark
from connector.inbound.rounds import Backoff, RoundKind, Stopwatch, Tools, is_stale, readable
from connector.model.change import Origin
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import ReadRecord
from connector.model.times import to_iso, to_ms
from connector.ports import DirtyRecord, Hole, Purpose, Unit

log = structlog.get_logger()

MAX_IDS = 2000  # of one retrieve
# Doubts of one moment are settled together, and a record that is edited all the time is not read all the time.
GATHER_S = 0.2
AGAIN_S = 2.0
LOOK_S = 60.0  # for whole objects that are due
REFUSED_RETRY_S = 300.0
# An object whose deletions are held is not compared again before: it costs calls, and a person is needed anyway.
HELD_RETRY_S = 6 * 3600.0
# Nor one that ended with records in doubt, as a busy object may each time.
UNPROVED_RETRY_S = 900.0
# A reconciliation that ends with records still in doubt reads those this often before it leaves them for later.
MAX_SETTLE_ROUNDS = 10

# Reasons that speak for a deletion by themselves.
_MISSED = "missed"  # by a comparison, which has seen to it that they are not too many
_TOLD_DELETED = frozenset({"delete_of_read_record", "gap_delete", _MISSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairRules:
    """What of the settings concerns repairs.

    Attributes:
        verify_interval_ms: Every object is compared as a whole this often.
        deletion_share: Records missed in the org are taken as deleted only if they are at most this share of the object
            at once...
        deletion_floor: ...or no more than this many.
    """

    verify_interval_ms: int
    deletion_share: float = 0.1
    deletion_floor: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The outcome of comparing one object with the org.

    Attributes:
        compared: Records that the org has.
        drift: Records that differed, missed ones included.
        repaired: Of these, how many were put right.
        held: Missed records that are not deleted because they are too many at once.
    """

    object: str
    compared: int
    drift: int
    repaired: int
    held: int


class Repairer:
    """One job, and `reconcile` for those who ask."""

    def __init__(
        self, tools: Tools, rules: RepairRules, *, progress: Progress = lambda _name, _done, _total: None
    ) -> None:
        """`progress` gets object, rows compared and in total."""
        self._tools = tools
        self._rules = rules
        self._progress = progress
        self._wake = asyncio.Event()
        self._held: dict[str, int] = {}  # object -> deletions that wait for a person's word
        self._unrepaired: dict[str, int] = {}  # object -> what the last comparison left as it was, but those held
        self._not_before: dict[str, float] = {}  # object -> loop time of its next comparison
        self._rests: dict[str, _Rest] = {}
        self._reconciling = asyncio.Lock()
        self.verified_ms: dict[str, int] = {}
        self.reread_ms: dict[str, int] = {}  # by the org's clock: since then no value was left unread

    def wake(self) -> None:
        """Records are in doubt, or an object is."""
        self._wake.set()

    @property
    def held(self) -> Mapping[str, int]:
        """Deletions that were not taken over, by object."""
        return {name: count for name, count in self._held.items() if count}

    def drift(self, name: str) -> int:
        """Records of the object that are known to differ from the org: found by a comparison, and not put right."""
        return self._unrepaired.get(name, 0) + self._held.get(name, 0)

    async def run(self) -> None:
        """Settle doubts as they come up; does not end.

        Raises:
            LoginRefused, StoreFull, StoreUnusable
        """
        while True:
            self._wake.clear()
            wait_s = await self._pass()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if wait_s is None else wait_s):
                    await self._wake.wait()
                    # What else comes up in this moment goes into the same call.
                    await asyncio.sleep(GATHER_S)

    async def settle(self, name: str, *, allow_deletions: bool = False) -> int:
        """Read the object's doubtful records again, one call's worth; returns how many are left in doubt.

        Raises:
            TransientError, LoginRefused, OrgRefused: As the org's client.
        """
        spec = self._tools.catalog.specs[name]
        doubts = await self._tools.replica.run(partial(_doubts, name=name))
        if not doubts:
            return 0
        watch = Stopwatch(self._tools, Purpose.REPAIR)
        ids = [d.id for d in doubts]
        with self._tools.applying.fences.open(name) as fence:
            rows = await self._tools.org.retrieve(name, ids, spec.read_fields(), Purpose.REPAIR)
            if len(rows) != len(ids):
                raise LinkDown("the answer has another number of records than were asked for")
            reads = await readable(self._tools, spec, [row for row in rows if row is not None])
            absent = [i for i, row in zip(ids, rows, strict=True) if row is None]
            answer = _Answer(spec, doubts, reads, absent, fence, allow_deletions)
            with self._tools.remembering():
                applied, held = await self._tools.replica.run(partial(self._settle, answer=answer))
        self._held[name] = self._held.get(name, 0) + held
        self._tools.on_applied(applied)
        changes = sum(applied.changes.values())
        log.info("repair.records_read", object=name, records=len(ids), changes=changes, held=held)
        await watch.report("repair", (name,), changes)
        return len(await self._tools.replica.run(partial(_doubts, name=name)))

    async def loaded(self) -> Sequence[str]:
        """The objects that can be compared."""
        usable = [name for name in self._tools.catalog.specs if self._tools.catalog.usable(name)]
        return await self._tools.replica.run(
            lambda unit: [name for name in usable if PollMark.stored(unit, name) is not None]
        )

    async def reconcile(
        self, name: str, *, kind: RoundKind = "reconcile", repair: bool = True, allow_deletions: bool = False
    ) -> Reconciled:
        """Compare an object with the org as a whole; found equal, it is proved so and its holes are closed.

        One API call per 2,000 records, and with `repair` one per 2,000 records that are missed.

        Args:
            name: The object.
            kind: Of the round that is told.
            repair: Put right what differs; else nothing is written but that it was found equal.
            allow_deletions: A person says that the missed records are gone, however many.

        Raises:
            TransientError, LoginRefused, OrgRefused: As the org's client.
        """
        async with self._reconciling:
            await self._tools.catalog.refresh(name)
            spec = self._tools.catalog.specs[name]
            watch = Stopwatch(self._tools, Purpose.VERIFY)
            asked = await self._tools.replica.run(lambda unit: _Asked.of(unit, name))
            found = await compare(self._tools, spec, take_over=repair, progress=self._progress)
            drift = found.differing + len(found.missed)
            held = await (self._mend(spec, found, allow=allow_deletions) if repair else self._too_many_of(spec, found))
            repaired = drift - held if repair else 0
            self._held[name], self._unrepaired[name] = held, drift - held - repaired
            ended = partial(self._ended, asked=asked, found=found, equal=repaired == drift, reread=repair)
            if await self._tools.replica.run(ended):
                self.verified_ms[name] = found.server_ms
            else:
                self._not_before[name] = _now_s() + (HELD_RETRY_S if held else UNPROVED_RETRY_S)
            if repair:
                self.reread_ms[name] = found.server_ms
            log.info("repair.object_reconciled", object=name, records=found.compared, drift=drift, repaired=repaired)
            await watch.report(kind, (name,), repaired)
            return Reconciled(object=name, compared=found.compared, drift=drift, repaired=repaired, held=held)

    async def _mend(self, spec: ObjectSpec, found: Found, *, allow: bool) -> int:
        """Delete what is missed, and settle what came into doubt; returns how many deletions are held."""
        mark = partial(self._mark_missed, spec=spec, missed=found.missed, allow=allow)
        self._held[spec.name] = await self._tools.replica.run(mark)
        await self._settle_all(spec.name, allow_deletions=allow)
        return self._held[spec.name]

    async def _too_many_of(self, spec: ObjectSpec, found: Found) -> int:
        """How many deletions a repair would hold."""
        missed = len(found.missed)
        return missed if missed > await self._tools.replica.run(lambda unit: self._allowed(unit, spec)) else 0

    async def _settle_all(self, name: str, *, allow_deletions: bool) -> None:
        for _ in range(MAX_SETTLE_ROUNDS):
            if not await self.settle(name, allow_deletions=allow_deletions):
                return
            await asyncio.sleep(GATHER_S)

    async def _pass(self) -> float | None:
        """Everything that is due; returns how long to wait, None: until something comes up."""
        waits: list[float] = []
        for name in [n for n in self._tools.catalog.specs if self._tools.catalog.usable(n)]:
            due, loaded = await self._tools.replica.run(partial(self._is_due, name=name))
            if not loaded:
                continue
            # A comparison that must wait for calls does not keep single records waiting, which have a claim to them.
            waits.append(await self._try(f"settle {name}", name, "repair", self._settle_some))
            if due and self._not_before.get(name, 0.0) <= _now_s():
                waits.append(await self._try(f"compare {name}", name, "reconcile", self._reconcile_due))
        return min((w for w in waits if w >= 0), default=None)

    async def _try(
        self, key: str, name: str, kind: RoundKind, work: Callable[[str], Coroutine[Any, Any, float]]
    ) -> float:
        """Do one thing unless it has to rest after a failure; returns how long to wait, negative: not at all."""
        rest = self._rests.setdefault(key, _Rest(Backoff(self._tools.rng, self._tools.backoff_max_s)))
        if rest.until_s > _now_s():
            return rest.until_s - _now_s()
        watch = Stopwatch(self._tools, Purpose.REPAIR)
        try:
            wait_s = await work(name)
        except SpecChanged:
            return 0.0
        except (TransientError, PoisonError) as error:
            log.warning("repair.failed", object=name, kind=kind, error=str(error))
            await watch.report(kind, (name,), error=error)
            if isinstance(error, OrgRefused) and is_stale(error):
                await self._refreshed(name)
            asked_s = error.retry_after_s if isinstance(error, TransientError) else REFUSED_RETRY_S
            wait_s = rest.backoff.next_s(asked_s)
            rest.until_s = _now_s() + wait_s
            return wait_s
        rest.backoff.reset()
        return wait_s

    async def _settle_some(self, name: str) -> float:
        return AGAIN_S if await self.settle(name) else -1.0

    async def _reconcile_due(self, name: str) -> float:
        await self.reconcile(name)
        return -1.0

    async def _refreshed(self, name: str) -> None:
        with contextlib.suppress(TransientError):
            await self._tools.catalog.refresh(name)

    def _is_due(self, unit: Unit, name: str) -> tuple[bool, bool]:
        mark = PollMark.stored(unit, name)
        if mark is None:
            return False, False
        verified = unit.cursor(_verified_cursor(name))
        # A load that is complete proves as much as a comparison.
        verified_ms = to_ms(verified) if verified else None
        if verified_ms is None:
            verified_ms = mark.polled_ms
            unit.set_cursor(_verified_cursor(name), to_iso(verified_ms), self._tools.now_ms())
        self.verified_ms.setdefault(name, verified_ms)
        reread = unit.cursor(_reread_cursor(name))
        self.reread_ms.setdefault(name, to_ms(reread) if reread else verified_ms)
        asked = unit.cursor(reconcile_cursor(name)) is not None
        # Both by the org's clock.
        return asked or mark.polled_ms - verified_ms >= self._rules.verify_interval_ms, True

    def _mark_missed(self, unit: Unit, spec: ObjectSpec, missed: Sequence[RecordId], *, allow: bool) -> int:
        """Have missed records read once more by id, or hold them: returns how many are held."""
        if not allow and len(missed) > self._allowed(unit, spec):
            log.error("repair.deletions_held", object=spec.name, records=len(missed))
            return len(missed)
        now_ms = self._tools.now_ms()
        unit.mark_dirty(DirtyRecord(spec.name, i, _MISSED, now_ms, None) for i in missed)
        return 0

    def _allowed(self, unit: Unit, spec: ObjectSpec) -> int:
        return max(self._rules.deletion_floor, int(unit.count(spec) * self._rules.deletion_share))

    def _settle(self, unit: Unit, answer: "_Answer") -> tuple[Applied, int]:
        tools, spec = self._tools, answer.spec
        tools.catalog.expect(spec)
        held = self._too_many(unit, answer)
        # Held ones are not asked for over and over: the next comparison finds them again.
        unit.clear_dirty(answer.doubts)
        applied = apply_reads(
            tools.applying,
            unit,
            spec,
            answer.reads,
            fence=answer.fence,
            origin=Origin.REPAIR,
            settling=True,
            absent=[i for i in answer.absent if i not in held],
        )
        waiting = [d.quarantine_id for d in answer.doubts if d.quarantine_id is not None]
        unit.settle_quarantine(waiting, tools.now_ms())
        return applied, len(held)

    def _too_many(self, unit: Unit, answer: "_Answer") -> frozenset[RecordId]:
        """Missed records that must not be deleted: too many of the object's at once."""
        if answer.allow_deletions or not answer.absent:
            return frozenset()
        told = {d.id for d in answer.doubts if d.reason in _TOLD_DELETED}
        rows = unit.records(answer.spec, answer.absent)
        missed = [i for i, row in rows.items() if row.deleted_ms is None and i not in told]
        if len(missed) <= self._allowed(unit, answer.spec):
            return frozenset()
        log.error("repair.deletions_held", object=answer.spec.name, records=len(missed))
        return frozenset(missed)

    def _ended(self, unit: Unit, asked: "_Asked", found: Found, *, equal: bool, reread: bool) -> bool:
        """Keep what the comparison proved; True if the object is equal to the org now."""
        now_ms, name = self._tools.now_ms(), asked.name
        if reread:
            unit.set_cursor(_reread_cursor(name), to_iso(found.server_ms), now_ms)
        if not equal or unit.dirty(name, 1):
            return False
        if unit.cursor(reconcile_cursor(name)) == asked.mark:
            unit.set_cursor(reconcile_cursor(name), None, now_ms)
            close_holes(unit, asked.holes, found.server_ms, now_ms, self._tools.hole_messages)
        unit.set_cursor(_verified_cursor(name), to_iso(found.server_ms), now_ms)
        return True


@dataclass(slots=True)
class _Rest:
    """After a failure: not to be tried before (loop time)."""

    backoff: Backoff
    until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """Why an object is compared: what may be taken as answered afterwards."""

    name: str
    mark: str | None
    holes: Sequence[Hole]

    @classmethod
    def of(cls, unit: Unit, name: str) -> "_Asked":
        return cls(name, unit.cursor(reconcile_cursor(name)), unit.open_holes(name))


@dataclass(frozen=True, slots=True)
class _Answer:
    """Doubtful records and what the org answered."""

    spec: ObjectSpec
    doubts: Sequence[DirtyRecord]
    reads: Sequence[ReadRecord]
    absent: Sequence[RecordId]
    fence: ReadFence
    allow_deletions: bool


def _doubts(unit: Unit, name: str) -> Sequence[DirtyRecord]:
    return unit.dirty(name, MAX_IDS)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _verified_cursor(name: str) -> str:
    return f"verified:{name}"


def _reread_cursor(name: str) -> str:
    return f"reread:{name}"
