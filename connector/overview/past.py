"""A record's past for those who look at it. Pure."""

from typing import Any

from connector.model.change import Change
from connector.model.history import History, changed_ms
from connector.model.times import to_iso


def past_of(history: History) -> dict[str, Any]:
    """The changes, newest first, and how far back they tell; with the values before and after."""
    since_ms = history.known_since_ms
    return {
        "known_since": None if since_ms is None else to_iso(since_ms),
        "changes": [_line(change) for change in reversed(history.changes)],
    }


def _line(change: Change) -> dict[str, Any]:
    names = change.changed or tuple(change.before or ())
    before, after = change.before or {}, change.after or {}
    return {
        "version": change.version,
        "at": to_iso(changed_ms(change)),
        "operation": change.operation.value,
        "origin": change.origin.value,
        "user": None if change.commit is None else change.commit.user,
        "command_id": change.command_id,
        "values": [{"field": name, "before": before.get(name), "after": after.get(name)} for name in names],
    }
