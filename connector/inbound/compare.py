"""Reads an object of the org as a whole and holds the replica against it: every value, and every id.

Pages are keyset queries in order of Id, each with a fence of its own, so what changes meanwhile is no difference. With
`take_over` what differs is taken over page by page; without it nothing is written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from connector.inbound.apply import Applied, apply_reads
from connector.inbound.fence import ReadFence
from connector.inbound.rounds import Tools, last_id, readable
from connector.model.change import Origin
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import ReadPage, ReadRecord, StoredRecord
from connector.ports import Purpose, Unit

PAGE_ROWS = 2000

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Found:
    """What a comparison saw.

    Attributes:
        compared: Records that the org has.
        differing: Of these, how many the replica lacked or held otherwise.
        missed: Live records of the replica that the org does not have.
        server_ms: The org's clock at the start.
    """

    compared: int = 0
    differing: int = 0
    missed: list[RecordId] = field(default_factory=list)
    server_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch of an object's ids: behind `after`, up to and with `upto`, and what the org has there."""

    after: RecordId | None
    upto: RecordId | None
    present: frozenset[str]
    read: ReadPage
    fence: ReadFence


async def compare(
    tools: Tools, spec: ObjectSpec, *, take_over: bool, progress: Progress = lambda _name, _done, _total: None
) -> Found:
    """Compare an object; one API call per page of at most 2,000 records.

    Raises:
        TransientError, LoginRefused, OrgRefused: As the org's client; what was taken over stays.
    """
    work = _taken_over if take_over else _looked_at
    total = await tools.replica.run(lambda unit: unit.count(spec))
    columns = ", ".join(spec.read_fields())
    after: RecordId | None = None
    found = Found()
    while True:
        where = f" WHERE Id > '{after}'" if after else ""
        soql = f"SELECT {columns} FROM {spec.name}{where} ORDER BY Id LIMIT {PAGE_ROWS}"  # noqa: S608  # API names and an id, all checked
        with tools.applying.fences.open(spec.name) as fence:
            page = await tools.org.query(soql, Purpose.VERIFY)
            last = page.next_url is None and len(page.records) < PAGE_ROWS
            read = await readable(tools, spec, page.records)
            upto = last_id(page.records) if page.records and not last else None
            span = _Span(after, upto, _ids(page.records), read, fence)
            differing, missed = await work(tools, spec, span)
        found.server_ms = found.server_ms or page.server_ms
        found.compared += len(page.records)
        found.differing += differing
        found.missed += missed
        progress(spec.name, found.compared, max(total, found.compared))
        if upto is None:
            return found
        after = upto


async def _taken_over(tools: Tools, spec: ObjectSpec, span: _Span) -> tuple[int, list[RecordId]]:
    """Make the rows those of the org; returns how many changed, and the missed ones."""

    def work(unit: Unit) -> tuple[Applied, list[RecordId]]:
        tools.catalog.expect(spec)
        applied = apply_reads(
            tools.applying,
            unit,
            spec,
            list(span.read.records()),
            fence=span.fence,
            origin=Origin.REPAIR,
            settling=True,
        )
        return applied, _missed(unit, spec, span)

    with tools.remembering():
        applied, missed = await tools.replica.run(work)
    tools.applied(applied)
    return sum(applied.changes.values()), missed


async def _looked_at(tools: Tools, spec: ObjectSpec, span: _Span) -> tuple[int, list[RecordId]]:
    """Write nothing; returns how many rows differ, and the missed ones."""
    return await tools.replica.run(partial(_differences, tools, spec, span))


def _differences(tools: Tools, spec: ObjectSpec, span: _Span, unit: Unit) -> tuple[int, list[RecordId]]:
    tools.catalog.expect(spec)
    rows = unit.records(spec, span.read.ids)
    differing = sum(_differs(spec, rows.get(r.id), r) for r in span.read.records() if not span.fence.raced(r.id))
    return differing, _missed(unit, spec, span)


def _differs(spec: ObjectSpec, stored: StoredRecord | None, read: ReadRecord) -> bool:
    if stored is None or stored.deleted_ms is not None:
        return True
    return any(stored.values.get(f.name) != read.values.get(f.name) for f in spec.fields)


def _missed(unit: Unit, spec: ObjectSpec, span: _Span) -> list[RecordId]:
    missed: list[RecordId] = []
    after = span.after
    while True:
        stored = unit.live_ids(spec, after, span.upto, PAGE_ROWS)
        missed += [i for i in stored if i not in span.present and not span.fence.raced(i)]
        if len(stored) < PAGE_ROWS:
            return missed
        after = stored[-1]


def _ids(rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(row["Id"] for row in rows if isinstance(row.get("Id"), str))
