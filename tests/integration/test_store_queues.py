"""Outbox, positions, troubles and retention."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import apsw
import pytest

from connector.model.command import CommandStatus
from connector.model.message import Message
from connector.ports import DirtyRecord, Unit
from connector.store import Session, troubles
from tests.store_nouns import DAY_MS, NOW_MS, WIDGET, change, command, record, record_id


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path / "replica.db") as opened:
        opened.run(lambda unit: unit.define(WIDGET))
        yield opened


def dirty(number: int, since_ms: int = NOW_MS, reason: str = "gap", quarantine_id: int | None = None) -> DirtyRecord:
    return DirtyRecord("Widget__c", record_id(number), reason, since_ms, quarantine_id)


def test_a_message_waits_for_the_changes_before_it(session: Session) -> None:
    """A result never overtakes the change it speaks of; reading deletes nothing."""
    first = Message(topic="a/status", payload=b'{"x": 1}', retain=True)
    second = Message(topic="a/result/1", payload=b"\x00\xff", qos=0, content_type="text/plain", correlation=b"\x01")
    session.run(lambda unit: unit.enqueue(first))
    session.run(lambda unit: unit.append([change()]))
    session.run(lambda unit: unit.enqueue(second))
    assert [m.message for m in session.run(lambda unit: unit.due(10))] == [first]
    session.run(lambda unit: unit.mark_published(1, NOW_MS))
    due = session.run(lambda unit: unit.due(10))
    assert [(m.after_version, m.message) for m in due] == [(0, first), (1, second)]
    assert [m.message for m in session.run(lambda unit: unit.due(1))] == [first]
    assert session.run(lambda unit: unit.queue_depths())["outbox"] == 2
    session.run(lambda unit: unit.remove_messages([m.id for m in due]))
    assert session.run(lambda unit: unit.due(10)) == []
    session.run(lambda unit: unit.enqueue(first))
    assert session.run(lambda unit: unit.due(10))[0].id > due[-1].id


def test_a_cursor_is_replaced_and_forgotten(session: Session) -> None:
    """Positions by name."""
    assert session.run(lambda unit: unit.cursor("poll:Contact")) is None
    session.run(lambda unit: unit.set_cursor("poll:Contact", "a", NOW_MS))
    session.run(lambda unit: unit.set_cursor("poll:Contact", "b", NOW_MS))
    assert session.run(lambda unit: unit.cursor("poll:Contact")) == "b"
    session.run(lambda unit: unit.set_cursor("poll:Contact", None, NOW_MS))
    assert session.run(lambda unit: unit.cursor("poll:Contact")) is None


def test_api_calls_are_summed_by_purpose_over_the_hours(session: Session) -> None:
    """What the budget counts by."""

    def count(unit: Unit) -> None:
        unit.count_call("2026-11-22T16", "load", 9)
        unit.count_call("2026-11-22T17", "load", 1)
        unit.count_call("2026-11-22T17", "x", 2)
        unit.count_call("2026-11-22T17", "load", 4)

    session.run(count)
    assert session.run(lambda unit: unit.calls_since("2026-11-22T17")) == {"load": 5, "x": 2}
    by_hour = {"2026-11-22T16": {"load": 9}, "2026-11-22T17": {"load": 5, "x": 2}}
    assert session.run(lambda unit: unit.calls_by_hour("2026-11-22T16")) == by_hour


def test_calls_of_later_hours_can_be_dated_earlier(session: Session) -> None:
    """They are added to those of that hour; those of other hours stay."""

    def work(unit: Unit) -> Mapping[str, Mapping[str, int]]:
        for hour in ("2026-11-22T16", "2026-11-22T17", "2030-01-01T00", "2030-01-01T01"):
            unit.count_call(hour, "load", 1)
        unit.redate_calls("2026-11-23T17", "2026-11-22T17")
        return unit.calls_by_hour("2026")

    assert session.run(work) == {"2026-11-22T16": {"load": 1}, "2026-11-22T17": {"load": 3}}


def test_a_mark_set_again_while_the_record_was_read_stays(session: Session) -> None:
    """Also if the clock was set back in between; the first reason stays, and the order is that of the first marks."""
    session.run(lambda unit: unit.mark_dirty([dirty(1), dirty(2)]))
    read = session.run(lambda unit: unit.dirty("Widget__c", 10))
    session.run(lambda unit: unit.mark_dirty([dirty(1, NOW_MS - 5000, "later")]))
    session.run(lambda unit: unit.clear_dirty(read))
    left = session.run(lambda unit: unit.dirty("Widget__c", 10))
    assert [(d.id, d.reason) for d in left] == [(record_id(1), "gap")]
    assert session.run(lambda unit: unit.dirty("Contact", 10)) == []
    session.run(lambda unit: unit.clear_dirty(left))
    assert session.run(lambda unit: unit.queue_depths())["dirty"] == 0


def test_an_event_in_quarantine_is_settled_by_the_reading(session: Session) -> None:
    """One record, two events: the second takes the first one's place, and none is left behind unsettled."""

    def park(unit: Unit) -> list[int]:
        events = (b'{"a": 1}', b"\xff\xfe")
        ids = [unit.quarantine("Widget__c", b"\x00\x01", "bad diff", event, NOW_MS) for event in events]
        unit.mark_dirty([*(dirty(1, quarantine_id=i) for i in ids), dirty(1)])
        return ids

    ids = session.run(park)
    assert session.run(lambda unit: unit.queue_depths())["quarantine"] == 1
    (waiting,) = session.run(lambda unit: unit.dirty("Widget__c", 10))
    assert waiting.quarantine_id == ids[1]
    session.run(lambda unit: unit.settle_quarantine([ids[1]], NOW_MS))
    assert session.run(lambda unit: unit.queue_depths())["quarantine"] == 0


def test_the_quarantine_is_bounded(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settled events go first, then the oldest; a mark that waits with one that went still stands."""
    monkeypatch.setattr(troubles, "MAX_QUARANTINED", 3)
    ids = [session.run(lambda unit: unit.quarantine(None, b"", "x", b"", NOW_MS)) for _ in range(3)]
    session.run(lambda unit: unit.mark_dirty([dirty(1, quarantine_id=ids[0])]))
    session.run(lambda unit: unit.settle_quarantine([ids[1]], NOW_MS))
    ids += [session.run(lambda unit: unit.quarantine(None, b"", "x", b"", NOW_MS)) for _ in range(2)]
    connection = apsw.Connection(str(tmp_path / "replica.db"), flags=apsw.SQLITE_OPEN_READONLY)
    kept = [row[0] for row in connection.execute("SELECT id FROM quarantine ORDER BY id").fetchall()]
    connection.close()
    assert kept == ids[2:]
    assert [d.quarantine_id for d in session.run(lambda unit: unit.dirty("Widget__c", 10))] == [None]


def test_a_hole_is_opened_widened_and_closed(session: Session) -> None:
    """One open hole per object; repeating a step changes nothing."""
    hole = session.run(lambda unit: unit.open_hole("Contact", NOW_MS, "replay id expired", NOW_MS + 5))
    wider = session.run(lambda unit: unit.open_hole("Contact", NOW_MS - 1000, "another", NOW_MS + 9))
    assert (wider.id, wider.from_ms, wider.reason, wider.opened_ms) == (
        hole.id,
        NOW_MS - 1000,
        "replay id expired",
        NOW_MS + 5,
    )
    other = session.run(lambda unit: unit.open_hole("Lead", NOW_MS, "overflow", NOW_MS))
    assert session.run(lambda unit: unit.open_holes()) == [wider, other]
    assert session.run(lambda unit: unit.open_holes("Lead")) == [other]
    closed = session.run(lambda unit: unit.close_hole(hole.id, NOW_MS + 20, 3, NOW_MS + 30))
    assert (closed.to_ms, closed.closed_ms, closed.corrected) == (NOW_MS + 20, NOW_MS + 30, 3)
    assert session.run(lambda unit: unit.close_hole(hole.id, NOW_MS + 99, 9, NOW_MS + 99)) == closed
    assert session.run(lambda unit: unit.open_hole("Contact", NOW_MS, "again", NOW_MS)).id > other.id
    with pytest.raises(LookupError):
        session.run(lambda unit: unit.close_hole(99, NOW_MS, 0, NOW_MS))


def test_trimming_takes_what_is_settled_and_old_and_no_more_than_asked(session: Session) -> None:
    """What is unpublished, unfinished, unsettled or young stays, however much there is to do."""
    late = NOW_MS + 50 * DAY_MS

    def fill(unit: Unit) -> None:
        unit.append([change(n) for n in range(10)])
        unit.mark_published(8, NOW_MS)
        unit.append([change(applied_ms=late)])
        unit.put(WIDGET, [record(1), record(2, deleted_ms=NOW_MS), record(3, deleted_ms=late)])
        unit.add_command(command("done", status=CommandStatus.SUCCEEDED, completed_ms=NOW_MS))
        unit.add_command(command("waiting"))
        for name in ("Contact", "Lead"):
            unit.quarantine(name, b"", "x", b"", NOW_MS)
            unit.open_hole(name, NOW_MS, "x", NOW_MS)
        unit.settle_quarantine([1], NOW_MS)
        unit.close_hole(1, NOW_MS, 0, NOW_MS)
        unit.count_call("2026-11-22T17", "load", 1)

    session.run(fill)

    def trim() -> int:
        return session.run(lambda unit: unit.trim(late, 30 * DAY_MS, 30 * DAY_MS, 5))

    # 8 changes, 1 tombstone, 1 command, 1 event, 1 hole, 1 hour
    assert [trim() for _ in range(4)] == [5, 5, 3, 0]
    assert [c.version for c in session.run(lambda unit: unit.unpublished(10))] == [9, 10, 11]
    assert set(session.run(lambda unit: unit.records(WIDGET, [record_id(n) for n in (1, 2, 3)]))) == {
        record_id(1),
        record_id(3),
    }
    assert session.run(lambda unit: unit.queue_depths()) == {"outbox": 3, "commands": 1, "quarantine": 1, "dirty": 0}
    assert len(session.run(lambda unit: unit.open_holes())) == 1
