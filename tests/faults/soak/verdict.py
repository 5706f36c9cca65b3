"""What must hold once all is quiet: replica, published changes, commands, holes and quarantine."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from connector.devorg.events.layout import ABSENT_FIELDS
from connector.model.times import to_iso, to_ms
from tests.e2e.replica import OWN_COLUMNS, record_differences
from tests.e2e.watcher import ROOT
from tests.faults.soak.accounts import Deeds, wrong_accounts
from tests.faults.soak.commands import Lost
from tests.faults.soak.fields import OBJECTS
from tests.faults.soak.world import Missed, World, replay_number

_CHANGE = f"{ROOT}/change/"
_HOLE = f"{ROOT}/hole/"
_MOST_TOLD = 6
# No event holds them; a live record is not deleted, however it came back to life.
_UNTOLD = OWN_COLUMNS | (ABSENT_FIELDS - {"IsDeleted"})


def differences(world: World) -> list[str]:
    """How the replica differs from the org, record by record, deletions included."""
    found: list[str] = []
    for name in OBJECTS:
        theirs = {row["Id"]: row for row in world.editor.rows(name)}
        ours = world.replica.records(name)
        for record_id in theirs.keys() | ours.keys():
            found += record_differences(f"{name}/{record_id}", theirs.get(record_id), ours.get(record_id), but=_UNTOLD)
    return found


def unsettled(world: World, most: int | None = 1) -> list[str]:
    """What the daemon still has to do, by its database, and how the replica differs; empty when all is done.

    Args:
        world: Where.
        most: Complaints at most; one is enough to know that it is too early. None: all.
    """
    if not world.replica.path.exists():
        return ["there is no replica"]
    try:
        return list(islice(_unsettled(world), most)) or differences(world)
    except sqlite3.OperationalError as error:  # the tables are not there yet
        return [str(error)]


_OPEN = {
    "records in doubt": "SELECT object || '/' || id || ' ' || reason FROM dirty",
    "open holes": "SELECT object || ' ' || reason FROM hole WHERE closed_at IS NULL",
    "events in quarantine": "SELECT coalesce(object, '?') || ' ' || error FROM quarantine WHERE settled_at IS NULL",
    "objects to compare": "SELECT name FROM cursor WHERE name LIKE 'reconcile:%'",
    "commands": "SELECT command_id || ' ' || status FROM command WHERE status IN ('accepted', 'sending')",
    "changes not published": "SELECT version FROM change WHERE published_at IS NULL",
    "messages not published": "SELECT topic FROM outbox WHERE topic NOT LIKE 'blackroad/signals/%'",
}


def _unsettled(world: World) -> Iterator[str]:
    for what, statement in _OPEN.items():
        rows = [str(next(iter(row.values()))) for row in world.replica.rows(statement)]
        if rows:
            yield f"{what}: {len(rows)}, {rows[:3]}"
    if not world.replica.loaded(OBJECTS):
        yield "not everything is loaded"
    if (state := world.stream_state()) != "live":
        yield f"the stream is {state}"
    position, newest = world.position(), world.org.ctx.bus.latest_id()
    if position is not None and position < newest:
        yield f"events to come: behind {position}, up to {newest}"  # they may tell of what was purged since
    waiting = world.service.open()
    answered = [
        a for a in waiting if a.command_id or (a.heard and not world.restarted_broker) or _at_work(world, a.mark)
    ]
    if answered:
        yield f"commands without an answer: {len(answered)}, {answered[0]}"
    if not world.forgetful:
        newest = world.replica.last_version()
        if newest and not any(m.json["data"]["version"] == newest for m in reversed(world.heard_changes())):
            yield f"the subscriber has not had version {newest}"


def _at_work(world: World, mark: str) -> bool:
    """Whether the daemon has the command and has not ended it, or has not told its end."""
    stored = "SELECT count(*) FROM command WHERE correlation = ?"
    if not world.forgetful:
        return bool(world.replica.value(stored, mark))
    # What the broker has forgotten on its way is asked for by its id, and this one has none.
    return bool(world.replica.value(f"{stored} AND completed_at IS NULL", mark))


def problems(world: World) -> list[str]:
    """Everything that does not hold, once the daemon has stopped."""
    found = differences(world)[:_MOST_TOLD]
    found += _publications(world)
    found += _holes(world)
    found += _not_kept(world)
    world.service.read()
    for row in world.replica.rows("SELECT * FROM command WHERE answer_lost = 1 AND completed_at IS NOT NULL"):
        if row["correlation"] in world.service.asked:
            waited_ms = to_ms(row["completed_at"]) - to_ms(row["sent_at"])
            world.service.asked[row["correlation"]].lost = Lost(to_ms(row["began_at"]), waited_ms)
    live = {record_id for name in OBJECTS for record_id in world.editor.live(name)}
    deeds = Deeds(world.ledger.commits, world.ledger.purged)
    found += wrong_accounts(world.service.asked, deeds, live, doubled=world.restarted_broker)
    found += _file(world)
    return found


def _file(world: World) -> Iterator[str]:
    checked = world.replica.value("PRAGMA integrity_check")
    if checked != "ok":
        yield f"the file is damaged: {checked}"
    versions = [row["version"] for row in world.replica.rows("SELECT version FROM change ORDER BY version")]
    if versions != list(range(1, len(versions) + 1)):
        yield "the change log has holes"


def _not_kept(world: World) -> Iterator[str]:
    """Events that could not be read, and are not in quarantine."""
    rows = world.replica.rows("SELECT replay_id FROM quarantine")
    kept = {replay_number(row["replay_id"]) for row in rows}
    yield from (f"event {replay_id} cannot be read, and was not kept" for replay_id in world.to_quarantine - kept)


def _publications(world: World) -> list[str]:
    acknowledged = [sent.payload for sent in world.wire.sent if sent.acknowledged and sent.topic.startswith(_CHANGE)]
    found = _checked(world, acknowledged, "acknowledged")
    if not world.forgetful:
        found += _checked(world, [message.payload for message in world.heard_changes()], "heard")
    return found


def _checked(world: World, payloads: Iterable[bytes], who: str) -> list[str]:
    """Problems of one account of the published changes: by version, folded, and compared with the replica."""
    fold = Fold()
    for payload in payloads:
        fold.take(json.loads(payload)["data"])
    newest = world.replica.last_version()
    if len(fold.data) != newest:
        missing = [version for version in range(1, newest + 1) if version not in fold.data]
        fold.problems.append(f"{len(missing)} of {newest} versions are missing: {missing[:5]}")
    for name in OBJECTS:
        for record_id, row in world.replica.records(name).items():
            fold.compare(name, record_id, row)
    return [f"{who}: {problem}" for problem in fold.problems[:_MOST_TOLD]]


class Fold:
    """What a subscriber knows who has taken every change, and what about them is wrong.

    Attributes:
        data: Version -> `data` of the change.
    """

    def __init__(self) -> None:
        self.data: dict[int, dict[str, Any]] = {}
        self.problems: list[str] = []
        self._records: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._events: set[tuple[str, int, str, str]] = set()

    def take(self, data: dict[str, Any]) -> None:
        """The next message."""
        version = data["version"]
        if version in self.data:
            if self.data[version] != data:
                self.problems.append(f"version {version} came again with other contents")
            return
        if version != len(self.data) + 1:
            self.problems.append(f"version {version} came where {len(self.data) + 1} was due")
        self.data[version] = data
        self.problems += (f"version {version}: {problem}" for problem in (*self._step(data), *self._again(data)))
        key = data["object"], data["id"]
        self._records[key], self._versions[key] = data["record"], version

    def _again(self, data: Mapping[str, Any]) -> Iterator[str]:
        """How a change tells of what was told already. An echo and what an event holds besides are two changes."""
        commit = data["commit"]
        if commit is not None and commit["transaction"] is not None:
            event = commit["transaction"], commit["sequence"], data["id"], data["origin"]
            if event in self._events:
                yield f"the event {event} was told before"
            self._events.add(event)

    def _step(self, data: Mapping[str, Any]) -> Iterator[str]:
        """How a change does not follow from what came before."""
        key = data["object"], data["id"]
        known, held = key in self._records, self._records.get(key)
        match data["operation"]:
            case "delete":
                if known and (held is None or not _agree(held, data["before"])):
                    yield "deletes another state than the one told"
            case "update":
                if (
                    not data["changed"]
                    or set(data["changed"]) != set(data["before"])
                    or data["before"] == data["after"]
                ):
                    yield f"an update that changes nothing: {data['changed']}"
                if known and held is None:
                    yield "updates a deleted record"
                earlier = {**data["record"], **data["before"]}
                if held is not None and not _agree(earlier, held):
                    yield f"updates another state than the one told: {_diff(earlier, held)}"
            case operation:
                if held is not None:
                    yield f"{operation} of a record that lives"
                if known and operation == "create":
                    yield "creates a record that was deleted"

    def compare(self, name: str, record_id: str, row: Mapping[str, Any]) -> None:
        """Hold a row of the replica against what was told of it."""
        key = name, record_id
        if row["_version"] != self._versions.get(key, 0):
            self.problems.append(f"{record_id}: row {row['_version']}, told {self._versions.get(key, 0)}")
        elif key in self._records:
            told = self._records[key]
            if (told is None) != (row["_deleted_at"] is not None):
                self.problems.append(f"{record_id}: told {'deleted' if told is None else 'alive'}, the row is not")
            elif told is not None and not _agree(told, row):
                self.problems.append(f"{record_id}: told otherwise than the row: {_diff(told, row)}")
        elif row["_deleted_at"] is not None:
            self.problems.append(f"{record_id}: deleted, and no change tells")


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return not _diff(one, other)


def _diff(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of both that differ; those that came or went with the schema are known to one side only."""
    shared = [name for name in one.keys() & other.keys() if not name.startswith("Extra")]
    return {name: (one[name], other[name]) for name in shared if one[name] != other[name]}


def _holes(world: World) -> Iterator[str]:
    """Whatever interval may have differed was announced, and all of them are over."""
    stored = world.replica.rows('SELECT object, "from", reason, opened_at, closed_at FROM hole ORDER BY id')
    yield from _unannounced(world, stored)  # whatever the reason: a hole that was open already was widened
    if not world.events_lost and not world.events_cut:
        for name in world.whole - {hole["object"] for hole in stored}:
            yield f"an event said that any {name} may differ, and no hole was opened"
    told: dict[str, list[Mapping[str, Any]]] = {}
    for sent in world.wire.sent:
        if sent.topic.startswith(_HOLE) and sent.acknowledged and sent.payload:
            told.setdefault(sent.topic.removeprefix(_HOLE), []).append(json.loads(sent.payload))
    for hole in stored:
        messages = told.get(hole["object"], [])
        if not any(m["state"] == "open" and m["reason"] for m in messages):
            yield f"a hole of {hole['object']} ({hole['reason']}) was not announced"
        elif messages[-1]["state"] != "closed":
            yield f"the last word on {hole['object']} is an open hole"


def _unannounced(world: World, lost: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The org did not know the position: every object has a hole, which holds the changes missed until then."""
    for name in OBJECTS if world.refusals else ():
        if not any(hole["object"] == name for hole in lost):
            yield f"the org did not know the position any more, and no hole of {name} was opened"
    for refusal in world.refusals if not world.clock_went_back else ():
        # One that the daemon did not live to hear of is told to the next one, which may have asked by query before.
        for change in refusal.missed if refusal.start == world.daemon.starts else ():
            holes = [hole for hole in lost if hole["object"] == change.object]
            inside = any(to_ms(hole["from"]) // 1000 * 1000 <= change.changed_ms for hole in holes)
            if holes and not inside and not _found_before(world, refusal.version, change, holes[-1]["opened_at"]):
                yield f"{change.id} was changed at {to_iso(change.changed_ms)}, and no hole reaches back to that"


def _found_before(world: World, version: int, change: Missed, opened_at: str) -> bool:
    """Whether a query on its way when the position was refused brought the change before the hole was opened."""
    # What was read has no commit.
    statement = "SELECT count(*) FROM change WHERE id = ? AND version > ? AND committed_at IS NULL AND applied_at <= ?"
    return bool(world.replica.value(statement, change.id, version, opened_at))


def missed(world: World) -> tuple[Missed, ...]:
    """The records that the replica has not right at this moment and does not doubt; not those without an event."""
    # The stamps of a transaction that was held open are older than its commit.
    committed_ms = {change.id: commit.commit_ms for commit in world.ledger.commits for change in commit.changes}
    doubted = {row["id"] for row in world.replica.rows("SELECT id FROM dirty")}
    blind = frozenset[str]().union(*world.needs.values())
    ours = {name: world.replica.records(name) for name in OBJECTS if name not in blind}
    return tuple(
        Missed(name, theirs["Id"], committed_ms.get(theirs["Id"], to_ms(theirs["SystemModstamp"])))
        for name, rows in ours.items()
        for theirs in world.editor.rows(name)
        if theirs["Id"] not in doubted and any(record_differences(name, theirs, rows.get(theirs["Id"]), but=_UNTOLD))
    )
