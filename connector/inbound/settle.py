"""Reads single records again that are in doubt, by their ids.

A record that is gone is deleted here too, but never many at once without a word of the org's own (a DELETE event): a
user who lost the right to see an object sees all its records gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from connector.errors import LinkDown
from connector.inbound.apply import Applied, apply_reads
from connector.inbound.fence import ReadFence
from connector.inbound.proofs import Proofs
from connector.inbound.rounds import Stopwatch, Tools, readable
from connector.model.change import Origin
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import ReadPage
from connector.ports import DirtyRecord, Purpose, Unit

log = structlog.get_logger()

MAX_IDS = 2000  # of one retrieve
# Records missed in the org are taken as deleted only if they are at most this share of the object at once, or no more
# than so many.
DELETION_SHARE = 0.1
DELETION_FLOOR = 20

# Reasons that speak for a deletion by themselves; `missed` is of a comparison, which has seen to it that they are not
# too many.
_MISSED = "missed"
_TOLD_DELETED = frozenset({"delete_of_read_record", "gap_delete", _MISSED})


@dataclass(frozen=True, slots=True)
class _Answer:
    """Doubtful records and what the org answered."""

    spec: ObjectSpec
    doubts: Sequence[DirtyRecord]
    read: ReadPage
    absent: Sequence[RecordId]
    fence: ReadFence
    allow_deletions: bool


class Settler:
    """Settles the doubts of one object at a time."""

    def __init__(self, tools: Tools, proofs: Proofs) -> None:
        """`proofs` learns of deletions that are held."""
        self._tools = tools
        self._proofs = proofs

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
            read = await readable(self._tools, spec, [row for row in rows if row is not None])
            absent = [i for i, row in zip(ids, rows, strict=True) if row is None]
            answer = _Answer(spec, doubts, read, absent, fence, allow_deletions)
            with self._tools.remembering():
                applied, held = await self._tools.replica.run(partial(self._apply, answer=answer))
        self._proofs.hold(name, held)
        self._tools.on_applied(applied)
        changes = sum(applied.changes.values())
        log.info("repair.records_read", object=name, records=len(ids), changes=changes, held=held)
        await watch.report("repair", (name,), changes)
        return len(await self._tools.replica.run(partial(_doubts, name=name)))

    def _apply(self, unit: Unit, answer: _Answer) -> tuple[Applied, int]:
        tools, spec = self._tools, answer.spec
        tools.catalog.expect(spec)
        held = _too_many(unit, answer)
        # Held ones are not asked for over and over: the next comparison finds them again.
        unit.clear_dirty(answer.doubts)
        applied = apply_reads(
            tools.applying,
            unit,
            spec,
            list(answer.read.records()),
            fence=answer.fence,
            origin=Origin.REPAIR,
            settling=True,
            absent=[i for i in answer.absent if i not in held],
        )
        waiting = [d.quarantine_id for d in answer.doubts if d.quarantine_id is not None]
        unit.settle_quarantine(waiting, tools.now_ms())
        return applied, len(held)


def doubt_missed(unit: Unit, spec: ObjectSpec, missed: Sequence[RecordId], now_ms: int, *, allow: bool) -> int:
    """Have records that a comparison missed read once more by id, or hold them: returns how many are held."""
    if not allow and len(missed) > allowed_deletions(unit, spec):
        log.error("repair.deletions_held", object=spec.name, records=len(missed))
        return len(missed)
    unit.mark_dirty(DirtyRecord(spec.name, i, _MISSED, now_ms, None) for i in missed)
    return 0


def allowed_deletions(unit: Unit, spec: ObjectSpec) -> int:
    """How many records of the object may be missed at once without a person's word."""
    return max(DELETION_FLOOR, int(unit.count(spec) * DELETION_SHARE))


def _too_many(unit: Unit, answer: _Answer) -> frozenset[RecordId]:
    """Missed records that must not be deleted: too many of the object's at once."""
    if answer.allow_deletions or not answer.absent:
        return frozenset()
    told = {d.id for d in answer.doubts if d.reason in _TOLD_DELETED}
    rows = unit.records(answer.spec, answer.absent)
    missed = [i for i, row in rows.items() if row.deleted_ms is None and i not in told]
    if len(missed) <= allowed_deletions(unit, answer.spec):
        return frozenset()
    log.error("repair.deletions_held", object=answer.spec.name, records=len(missed))
    return frozenset(missed)


def _doubts(unit: Unit, name: str) -> Sequence[DirtyRecord]:
    return unit.dirty(name, MAX_IDS)
