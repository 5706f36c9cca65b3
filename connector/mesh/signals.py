"""BlackRoad signals: what is sent, at most how often, and what the Bridge may ask for. No I/O, no clock."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson

from connector.mesh.envelope import encode
from connector.mesh.topics import Topics
from connector.model.message import Message
from connector.model.times import to_iso

_MAX_SPELLS = 1000
_MAX_SIGNAL_BYTES = 4096


class Signals:
    """Decides which signals are due and builds them.

    Each method answers the message to enqueue (in the unit of the commit it tells of), or None if none is due. What
    it remembers (counts, spells) is in memory: a restart may repeat a `sync_failed` that goes on and
    forgets the updates of one unfinished batch interval.
    """

    def __init__(self, topics: Topics, *, enabled: bool, batch_interval_ms: int) -> None:
        self._topics = topics
        self._enabled = enabled
        self._interval_ms = batch_interval_ms
        self._updated: dict[str, int] = {}
        self._next_batch_ms: int | None = None
        self._failing: set[tuple[str, str | None]] = set()

    def count_updated(self, object_name: str, records: int = 1) -> None:
        """So many records changed; told by the next `records_updated`."""
        if self._enabled:
            self._updated[object_name] = self._updated.get(object_name, 0) + records

    def updates_due_ms(self) -> int | None:
        """When `records_updated` is due (0: at once); None while there is nothing to tell."""
        return (self._next_batch_ms or 0) if self._updated else None

    def records_updated(self, now_ms: int) -> Message | None:
        """The counted updates, if the last batch is an interval ago."""
        due_ms = self.updates_due_ms()
        # A clock set back must not silence us for longer than one interval.
        if due_ms is None or due_ms - self._interval_ms <= now_ms < due_ms:
            return None
        objects, self._updated = self._updated, {}
        self._next_batch_ms = now_ms + self._interval_ms
        count = sum(objects.values())
        return self._signal(
            "📊", "records_updated", f"records_updated, count={count}", {"count": count, "objects": objects}, now_ms
        )

    def sync_complete(
        self, *, kind: str, objects: Sequence[str], records: int, duration_s: float, api_calls: int, now_ms: int
    ) -> Message | None:
        """A round ended well; it also ends the failing spells of its objects.

        Args:
            kind: first_load, catch_up, poll or requested.
            objects: The objects that the round was about.
            records: First load: records read; else changes made.
            duration_s: Seconds it took.
            api_calls: Calls it used.
            now_ms: Milliseconds since the Unix epoch, UTC.
        """
        for name in objects:
            self.recovered(kind, name)
        data = {
            "kind": kind,
            "objects": list(objects),
            "records": records,
            "duration_s": round(duration_s, 3),
            "api_calls": api_calls,
        }
        return self._signal("✔️", "sync_complete", "sync_complete", data, now_ms) if self._enabled else None

    def sync_failed(self, *, kind: str, object_name: str | None, error: str, now_ms: int) -> Message | None:
        """A round, or the stream (`object_name` None), failed and is being retried; once per failing spell."""
        spell = (kind, object_name)
        if not self._enabled or spell in self._failing or len(self._failing) >= _MAX_SPELLS:
            return None
        self._failing.add(spell)
        data = {"kind": kind, "object": object_name, "error": error}
        return self._signal("❌", "sync_failed", "sync_failed", data, now_ms)

    def recovered(self, kind: str, object_name: str | None) -> None:
        """The round, or the stream, works again: its next failure is a new spell."""
        self._failing.discard((kind, object_name))

    def limit_warning(self, limit: Literal["api", "events"], *, used: int, maximum: int, now_ms: int) -> Message | None:
        """The use of the org's API calls, or of its delivered events, has crossed the mark."""
        name = "api_limit_warning" if limit == "api" else "event_limit_warning"
        return self._signal("⚠️", name, name, {"used": used, "max": maximum}, now_ms) if self._enabled else None

    def _signal(self, emoji: str, name: str, text: str, data: Mapping[str, Any], now_ms: int) -> Message:
        sender, receiver = self._topics.org_code, self._topics.target
        document = {
            "ts": to_iso(now_ms),
            "signal": name,
            "from": sender,
            "to": receiver,
            "msg": text,
            "text": f"{emoji} {sender} → {receiver} : {text}",
            "data": data,
        }
        return Message(topic=self._topics.signals_out, payload=encode(document))


def asks_for_sync(topics: Topics, payload: bytes) -> bool:
    """True for `🔄 {target} → {us} : sync…`, as a line of text or as the `text` of a signal's JSON object."""
    if len(payload) > _MAX_SIGNAL_BYTES:
        return False
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return False
    if text.lstrip().startswith("{"):
        text = _text_member(payload)
    # The variation selector behind the emoji comes and goes with the sender's keyboard.
    pattern = rf"🔄\ufe0f?\s*{re.escape(topics.target)}\s*→\s*{re.escape(topics.org_code)}\s*:\s*sync.*"
    return re.fullmatch(pattern, text.strip(), re.DOTALL) is not None


def _text_member(payload: bytes) -> str:
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return ""
    text = document.get("text") if isinstance(document, dict) else None
    return text if isinstance(text, str) else ""
