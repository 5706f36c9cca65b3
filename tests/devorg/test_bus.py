"""The event log: replay ids, retention, channels, restart, waking."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from connector.devorg.clock import OrgClock
from connector.devorg.commits import Commit
from connector.devorg.database import OrgDatabase
from connector.devorg.events.bus import EventBus, LoggedEvent
from connector.devorg.events.changes import EventOptions
from connector.devorg.events.channels import Channel, channel_named
from connector.devorg.objects.schema import Schema
from tests.devorg.commits import changed, commit, row

ALL = Channel("/data/ChangeEvents", None)
DAY_S = 24 * 3600


class Log:
    """A bus with what it stands on; its clock stands still unless it is advanced."""

    def __init__(self, path: Path | None = None) -> None:
        self.database = OrgDatabase(path)
        self.clock = OrgClock(wall=lambda: 1_767_268_800_000)
        self.schema = Schema(self.database)
        self.bus = EventBus(self.database, self.schema, self.clock, EventOptions())

    def append(self, *commits: Commit) -> None:
        """Log commits as the org does, each in a transaction of its own."""
        for one in commits:
            with self.database.transaction():
                self.bus.append(one)

    def read(self, name: str = "/data/ChangeEvents", after: int = 0, limit: int = 1000) -> list[LoggedEvent]:
        """Read a channel by its name."""
        channel = channel_named(name, self.schema, self.bus.custom_channels)
        assert channel is not None
        return self.bus.read(channel, after, limit)


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    made.database.close()


def made(number: int, name: str = "Contact") -> Commit:
    return commit(changed("CREATE", name, f"0035f0000{number:06}AAF", row(LastName=f"Berg {number}")))


def test_replay_ids_increase_with_gaps(log: Log) -> None:
    """Nobody can count events by their ids, or compute the next one."""
    log.append(*map(made, range(50)))
    steps = [later.replay_id - earlier.replay_id for earlier, later in pairwise(log.read())]
    assert all(step > 0 for step in steps)
    assert len(set(steps)) > 2
    assert log.bus.latest_id() == log.read()[-1].replay_id


def test_read_goes_on_behind_a_position(log: Log) -> None:
    """Pages of any size give each event once and in order."""
    log.append(*map(made, range(7)))
    first = log.read(limit=3)
    rest = log.read(after=first[-1].replay_id)
    assert first + rest == log.read()
    assert len(first) == 3


def test_payload_is_stored_as_json_with_its_schema(log: Log) -> None:
    """An event keeps the schema id of the day it was logged; a new field gives another one."""
    log.append(made(1))
    log.schema.add_field("Contact", {"name": "Shoe__c", "type": "string", "length": 10})
    log.append(made(2))
    first, second = log.read()
    assert orjson.loads(first.payload)["Name"] == {"LastName": "Berg 1"}
    assert len(first.schema_id) == 22
    assert first.schema_id != second.schema_id


def test_unselected_objects_have_no_events_but_numbers(log: Log) -> None:
    """Their place in the sequence stays empty."""
    log.append(
        commit(
            changed("CREATE", "Invoice__c", "a005f000001AAAAAA2", row(Name="I-1")),
            changed("CREATE", "Contact", "0035f00002KmQ7aAAF", row(LastName="Berg")),
        )
    )
    (event,) = log.read()
    assert orjson.loads(event.payload)["ChangeEventHeader"]["sequenceNumber"] == 2


def test_channels_are_views(log: Log) -> None:
    """One log; each channel gives its part of it, a channel of the org's own also what is not selected."""
    log.bus.define_channel("Billing__chn", ["Invoice__c", "lead"])
    log.append(made(1), made(2, "Lead"), made(3, "Invoice__c"))
    assert [event.entity for event in log.read()] == ["Contact", "Lead"]
    assert [event.entity for event in log.read("/data/LeadChangeEvent")] == ["Lead"]
    assert log.read("/data/Invoice__ChangeEvent") == []
    assert [event.entity for event in log.read("/data/Billing__chn")] == ["Lead", "Invoice__c"]
    log.schema.select("Invoice__c")
    log.append(made(4), made(5, "Invoice__c"))
    assert [event.entity for event in log.read("/data/Invoice__ChangeEvent")] == ["Invoice__c"]


@pytest.mark.parametrize(
    "name",
    [
        "/data/contactChangeEvent",
        "/data/*",
        "/data/**",
        "/topic/Contact",
        "/data/NothingChangeEvent",
        "/data/Contact__ChangeEvent",
        "/data/Invoice__cChangeEvent",
        "/data/X__chn",
        "/data/ChangeEvent",
        "/data/",
    ],
)
def test_there_is_no_other_channel(log: Log, name: str) -> None:
    """Names are case-sensitive, and there are no wildcards."""
    assert channel_named(name, log.schema, {}) is None


def test_channel_of_unknown_objects_is_refused(log: Log) -> None:
    """A channel's name and objects are checked, and a channel can be taken away again."""
    for name, entities, always in (
        ("Sales", ["Contact"], {}),
        ("Sales__chn", ["Nothing"], {}),
        ("Sales__chn", ["Contact"], {"Contact": ["Nothing"]}),
    ):
        with pytest.raises(ValueError, match="channel Sales"):
            log.bus.define_channel(name, entities, always)
    log.bus.define_channel("Sales__chn", ["Contact"])
    log.bus.define_channel("Sales__chn", [])
    assert log.bus.custom_channels == {}


def test_retention_by_the_orgs_clock(log: Log) -> None:
    """After 72 hours an id is invalid, even where nothing was published since."""
    log.append(made(1))
    log.clock.advance(DAY_S)
    log.append(made(2))
    old, young = (event.replay_id for event in log.read())
    assert log.bus.valid(old)
    assert log.bus.oldest_position() < old
    log.clock.advance(2 * DAY_S + 1)
    assert not log.bus.valid(old)
    assert log.bus.valid(young)
    assert log.bus.oldest_position() == old
    log.clock.advance(DAY_S)
    assert not log.bus.valid(young)
    assert log.bus.oldest_position() == young


def test_ids_between_events_are_positions_and_others_are_not(log: Log) -> None:
    """An id of another channel, or one between two events, is a place in the log; the future is not."""
    log.append(*map(made, range(5)))
    ids = [event.replay_id for event in log.read()]
    between = next(later - 1 for earlier, later in pairwise(ids) if later - earlier > 1)
    assert log.bus.valid(between)
    assert not log.bus.valid(ids[-1] + 1)
    assert not log.bus.valid(ids[0] - 1)
    assert not log.bus.valid(-5)


def test_expired_on_order(log: Log) -> None:
    """All ids so far are refused, and later ones are still greater."""
    log.append(made(1))
    old = log.bus.latest_id()
    log.bus.expire_all()
    assert not log.bus.valid(old)
    log.append(made(2))
    (event,) = log.read()
    assert event.replay_id > old
    assert log.bus.valid(event.replay_id)


def test_reset_starts_another_stream(log: Log) -> None:
    """Old ids are refused, new ones begin elsewhere, and sessions can tell by the epoch."""
    log.append(made(1))
    old, epoch = log.bus.latest_id(), log.bus.epoch
    log.bus.reset()
    log.append(made(2))
    (event,) = log.read()
    assert event.replay_id < old
    assert not log.bus.valid(old)
    assert log.bus.epoch != epoch


def test_old_events_are_trimmed(log: Log) -> None:
    """The log is bounded by the window; the ids go on rising."""
    log.append(*map(made, range(5)))
    last = log.bus.latest_id()
    log.clock.advance(4 * DAY_S)
    log.append(made(9))
    assert log.database.connection.execute("SELECT count(*) FROM event_log").fetchone()[0] == 1
    assert log.bus.latest_id() > last


def test_restart_keeps_events_ids_and_channels(tmp_path: Path) -> None:
    """Reopened, the log goes on where it stopped, even where all events are gone."""
    path = tmp_path / "org.db"
    first = Log(path)
    first.bus.define_channel("Sales__chn", ["Contact"])
    first.append(made(1))
    events, last = first.read(), first.bus.latest_id()
    first.database.close()

    second = Log(path)
    assert second.read() == events
    assert second.bus.custom_channels == {"Sales__chn": {"Contact": []}}
    second.bus.expire_all()
    second.database.close()

    third = Log(path)
    assert third.bus.latest_id() == last
    third.append(made(2))
    assert third.bus.latest_id() > last
    third.database.close()


def test_rolled_back_transaction_leaves_no_event(log: Log) -> None:
    """Events are written in the transaction of their records."""
    log.database.connection.execute("BEGIN IMMEDIATE")
    log.bus.append(made(1))
    log.database.connection.execute("ROLLBACK")
    log.append(made(2))
    assert [orjson.loads(event.payload)["Name"]["LastName"] for event in log.read()] == ["Berg 2"]


def test_events_on_order(log: Log) -> None:
    """Gap, overflow, wildcard and undecodable events can be put on the bus as they are."""
    log.bus.emit_without_body("Contact", "GAP_UPDATE", ["0035f00002KmQ7aAAF"], transaction_key="0KqT4000000007W")
    log.bus.emit_without_body("Account", "GAP_OVERFLOW")
    log.bus.emit_without_body("Contact", "UPDATE", ["003*"])
    log.bus.emit({"nothing": "to decode"}, entity="Contact")
    log.bus.emit("text", entity="Contact")
    gap, overflow, wildcard, broken, text = (orjson.loads(event.payload) for event in log.read())
    header = gap["ChangeEventHeader"]
    assert header | {"commitNumber": 0} == {
        "entityName": "Contact",
        "recordIds": ["0035f00002KmQ7aAAF"],
        "changeType": "GAP_UPDATE",
        "changeOrigin": "",
        "transactionKey": "0KqT4000000007W",
        "sequenceNumber": 1,
        "commitTimestamp": 1767268800000,
        "commitNumber": 0,
        "commitUser": "",
        "changedFields": [],
    }
    assert overflow["ChangeEventHeader"]["recordIds"] == ["000000000000000AAA"]
    assert wildcard["ChangeEventHeader"]["recordIds"] == ["003*"]
    assert (broken, text) == ({"nothing": "to decode"}, "text")


async def test_waking(log: Log) -> None:
    """Everyone who waits is woken at once; a wait without news ends by itself."""
    waits = [asyncio.create_task(log.bus.wait(30)) for _ in range(3)]
    await asyncio.sleep(0)
    log.bus.wake()
    assert await asyncio.gather(*waits) == [True] * 3
    assert await log.bus.wait(0.01) is False
