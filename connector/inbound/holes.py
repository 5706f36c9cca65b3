"""Intervals in which the replica may differ from the org, opened and closed in one unit with their announcement."""

from collections.abc import Callable, Iterable, Sequence

import structlog

from connector.model.message import Message
from connector.ports import Hole, Unit

log = structlog.get_logger()

HoleMessages = Callable[[Hole], Sequence[Message]]


def open_hole(unit: Unit, name: str, from_ms: int, reason: str, now_ms: int, messages: HoleMessages) -> Hole:
    """Open or widen an object's hole and announce it."""
    if not unit.open_holes(name):
        # What has to be corrected is in the change log behind this version, whatever is restarted until then.
        unit.set_cursor(_opened_at(name), str(unit.last_version()), now_ms)
    hole = unit.open_hole(name, from_ms, reason, now_ms)
    for message in messages(hole):
        unit.enqueue(message)
    log.warning("hole.opened", object=name, hole=hole.id, reason=reason)
    return hole


def close_holes(unit: Unit, holes: Iterable[Hole], to_ms: int, now_ms: int, messages: HoleMessages) -> None:
    """Close those of the holes that are still as they were, and announce it.

    One that was widened since it was looked at stays open: what closed it began before that.
    """
    for hole in holes:
        if hole not in unit.open_holes(hole.object):
            continue
        opened_at = unit.cursor(_opened_at(hole.object))
        corrected = unit.corrected(hole.object, int(opened_at or unit.last_version()))
        unit.set_cursor(_opened_at(hole.object), None, now_ms)
        closed = unit.close_hole(hole.id, max(to_ms, hole.from_ms), corrected, now_ms)
        for message in messages(closed):
            unit.enqueue(message)
        log.info("hole.closed", object=hole.object, hole=hole.id, corrected=corrected)


def _opened_at(name: str) -> str:
    """Cursor of the newest version when the object's hole was opened."""
    return f"hole:{name}"
