"""The stream's position on disk, and what is done where it is lost, or never was.

A hole is opened per object for whatever nobody will tell any more, in the unit that gives the position up.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import structlog

from connector.inbound.holes import open_hole
from connector.inbound.progress import PollMark
from connector.inbound.rounds import Tools
from connector.model.change import OLDEST_KEPT, ReplayId
from connector.model.times import to_iso, to_ms
from connector.ports import Unit

log = structlog.get_logger()

TRANSPORTS = ("cometd", "pubsub")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """What of the settings concerns the stream.

    Attributes:
        transport, channel: Name the position's cursor.
        org_id: Tells the org, once it is known; positions of another one are not used.
        replay_all: Behind a lost position subscribe at the oldest event that the org keeps, not at new events.
    """

    transport: str
    channel: str
    org_id: Callable[[], str]
    batch_size: int
    replay_all: bool = False

    @property
    def cursor(self) -> str:
        """Name of the position's cursor."""
        return f"stream:{self.transport}:{self.channel}"

    @property
    def other_cursors(self) -> list[str]:
        """Where the position is if it is another transport's."""
        return [f"stream:{name}:{self.channel}" for name in TRANSPORTS if name != self.transport]


@dataclass(frozen=True, slots=True)
class Position:
    """Where the stream stands.

    Attributes:
        replay_id: Behind the newest event applied; None: there was none yet.
        event_ms: When that event was committed, milliseconds since the Unix epoch, UTC.
    """

    replay_id: ReplayId | None = None
    event_ms: int | None = None


class StoredPosition:
    """The cursor that holds the position. Every method is, or is part of, a unit of work."""

    def __init__(self, tools: Tools, rules: StreamRules) -> None:
        self._tools = tools
        self._rules = rules

    def store(self, unit: Unit, position: Position) -> None:
        """Write a position that has a replay id."""
        assert position.replay_id is not None  # noqa: S101  # for mypy
        document = {
            "replay_id": b64encode(position.replay_id).decode(),
            "org": self._rules.org_id(),
            "event": to_iso(position.event_ms) if position.event_ms is not None else None,
        }
        unit.set_cursor(self._rules.cursor, orjson.dumps(document).decode(), self._tools.now_ms())

    def stored(self, unit: Unit, cursor: str | None = None) -> Position:
        """What is written, empty where it cannot be used; of this transport unless a cursor is named."""
        text = unit.cursor(cursor or self._rules.cursor)
        if text is None:
            return Position()
        try:
            document = orjson.loads(text)
            event = document["event"]
            position = Position(
                ReplayId(b64decode(document["replay_id"], validate=True)), to_ms(event) if event else None
            )
            known = document["org"] == self._rules.org_id()
        except (ValueError, KeyError, TypeError):
            log.warning("stream.position_unreadable", cursor=self._rules.cursor)
            return Position()
        if not known:
            log.warning("stream.position_of_another_org", cursor=self._rules.cursor)
            return Position()
        return position

    def lose(self, unit: Unit) -> list[str] | None:
        """Forget the position and open a hole per object, from the last moment that was proved.

        None: there was no position to lose, so the org's complaint is about something else.
        """
        if unit.cursor(self._rules.cursor) is None:
            return None
        now_ms = self._tools.now_ms()
        lost = self.stored(unit)
        names = self._doubt_all(unit, lost.event_ms, "replay_id_lost", now_ms)
        if self._rules.replay_all and lost.replay_id != OLDEST_KEPT:
            self.store(unit, Position(OLDEST_KEPT))
        else:
            unit.set_cursor(self._rules.cursor, None, now_ms)
        return names

    def leave_other(self, unit: Unit) -> list[str]:
        """Give up the position of the other transport, which means nothing to this one; a hole per object says so."""
        now_ms = self._tools.now_ms()
        for cursor in self._rules.other_cursors:
            if unit.cursor(cursor) is not None:
                names = self._doubt_all(unit, self.stored(unit, cursor).event_ms, "transport_changed", now_ms)
                unit.set_cursor(cursor, None, now_ms)
                return names
        return []

    def _doubt_all(self, unit: Unit, event_ms: int | None, reason: str, now_ms: int) -> list[str]:
        """Open a hole per object, from the last moment that was proved: its last poll, or the newest event if later."""
        names: list[str] = []
        for name in self._tools.catalog.specs:
            mark = PollMark.stored(unit, name)
            if mark is not None:
                from_ms = max(mark.polled_ms, event_ms or mark.polled_ms)
                open_hole(unit, name, from_ms, reason, now_ms, self._tools.hole_messages)
                names.append(name)
        return names

    def begin_blind(self, unit: Unit) -> None:
        """Subscribed at new events: what happened since the last poll nobody will tell."""
        for name in self._tools.catalog.specs:
            mark = PollMark.stored(unit, name)
            if mark is not None and not unit.open_holes(name):
                now_ms = self._tools.now_ms()
                open_hole(unit, name, mark.polled_ms, "no_replay_id", now_ms, self._tools.hole_messages)
