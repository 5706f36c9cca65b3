"""A page of a first load inside one unit: nearly all of its records are new, and written as they were read.

To hold each against its row, of which there is none, took half of what a loaded record cost. The few of which something
is known, from an event or from an earlier run, go the way of every other record that was read.
"""

from collections import Counter

from connector.inbound.apply import Applied, Applying, apply_reads
from connector.inbound.fence import ReadFence
from connector.model.change import Origin
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import ReadPage
from connector.ports import Unit


def apply_loaded(context: Applying, unit: Unit, spec: ObjectSpec, page: ReadPage, *, fence: ReadFence) -> Applied:
    """Apply records of a first load that publishes nothing, read after `fence` was opened."""
    known = _known(context, page, fence)
    plain = page.without(known)
    # What is there already was made by an event or an earlier run: the page's word is held against that one's.
    known.update(unit.insert_loaded(spec, plain, context.now_ms()))
    reads = list(page.among(known).records())
    applied = apply_reads(context, unit, spec, reads, fence=fence, origin=Origin.BACKFILL, silent=True)
    context.fences.note(spec.name, plain.ids, fence)
    return applied


def _known(context: Applying, page: ReadPage, fence: ReadFence) -> set[RecordId]:
    """Those of which this process has heard, and those that a first load does not insert as they are."""
    known = fence.overtaken(page.ids) | context.memory.sources.among(page.ids)
    if True in page.deleted:
        known.update(record_id for record_id, deleted in zip(page.ids, page.deleted, strict=True) if deleted)
    if len(set(page.ids)) < len(page.ids):
        known.update(record_id for record_id, count in Counter(page.ids).items() if count > 1)
    return known
