"""Creates whose answer was lost: did the org take them?

The record may have come back as a change before the question is put: then the replica knows, even of one that is gone
by now. With an external id the org itself can tell. Without one the record is looked for among those that our user
created since: one that has every value sent is the create's, unless another command has it for its result. Where
there is none, it may still become visible: a request may run ten minutes in the org. After that time a create is
repeated only if our user has made no other record either that no command accounts for: a trigger may have changed
what we sent.

All times are the org's, which has told its clock before anything is sent: ours may have been set since.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from connector.model.command import Command, CommandStatus
from connector.model.ids import RecordId, to_record_id
from connector.model.objects import ObjectSpec
from connector.model.record import ReadRecord
from connector.model.times import to_ms
from connector.outbound.soql import literal, moment
from connector.ports import OrgClient, Purpose, Replica, Unit

# The org's clock is known to a second or so. Far more is allowed: a record that is missed would be made twice.
CLOCK_SKEW_MS = 5 * 60 * 1000
MOST_CANDIDATES = 20_000
_KEYS_PER_QUERY = 200

Read = Callable[[ObjectSpec, Mapping[str, Any]], ReadRecord]


class Verdict(StrEnum):
    """What was found out of a create.

    Attributes:
        TAKEN: There it is.
        ABSENT: The org did not take it: it may be sent again.
        FOREIGN: Somebody else's record has its external id.
        OPEN: It cannot be told yet.
        UNKNOWN: It cannot be told.
    """

    TAKEN = "taken"
    ABSENT = "absent"
    FOREIGN = "foreign"
    OPEN = "open"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Found:
    """What was found out, and the record where there is one."""

    verdict: Verdict
    record_id: RecordId | None = None


class Settling:
    """Finds out what became of creates, many with few calls."""

    def __init__(self, *, org: OrgClient, replica: Replica, read: Read, settle_ms: int) -> None:
        """`read` makes a record of a row of the REST API."""
        self._org = org
        self._replica = replica
        self._read = read
        self._settle_ms = settle_ms

    async def find(self, spec: ObjectSpec, lost: Sequence[Command], external_id: str) -> Mapping[str, Found]:
        """What became of each of these creates of one object, by command id.

        Args:
            spec: The object.
            lost: Creates whose answer was lost.
            external_id: The object's configured external id field, or empty.

        Raises:
            TransientError, OrgRefused: The org could not be asked.
        """
        key = spec.described.get(external_id)
        found = await self._seen(spec, lost)
        lost = [c for c in lost if c.command_id not in found]
        keyed = [c for c in lost if key is not None and c.fields.get(external_id) is not None]
        for start in range(0, len(keyed), _KEYS_PER_QUERY):
            found |= await self._by_key(spec, keyed[start : start + _KEYS_PER_QUERY], external_id)
        rest = [c for c in lost if c.command_id not in found]
        if rest:
            found |= await self._by_values(spec, rest)
        return found

    async def _seen(self, spec: ObjectSpec, lost: Sequence[Command]) -> dict[str, Found]:
        """Those whose record has come to the replica with all that they set, and is not somebody else's.

        It may be gone for good by now, so that the org shows nothing of it.
        """
        seen = await self._replica.run(lambda unit: unit.creations_seen([c.command_id for c in lost]))
        user = await self._org.user_id() if seen else None
        ids, creators = sorted(set(seen.values())), dict[RecordId, RecordId]()
        for start in range(0, len(ids) if user and "CreatedById" in spec.described else 0, _KEYS_PER_QUERY):
            listed = ", ".join(f"'{record_id}'" for record_id in ids[start : start + _KEYS_PER_QUERY])
            soql = f"SELECT Id, CreatedById FROM {spec.name} WHERE Id IN ({listed})"  # noqa: S608 - ids of the replica
            page = await self._org.query(soql, Purpose.COMMAND, deleted=True)
            creators |= {to_record_id(row["Id"]): to_record_id(row["CreatedById"]) for row in page.records}
        return {c: Found(Verdict.TAKEN, r) for c, r in seen.items() if creators.get(r, user) == user}

    async def _by_key(self, spec: ObjectSpec, lost: Sequence[Command], external_id: str) -> dict[str, Found]:
        """By external id; those that are not there are left out if the field does not keep a second one off."""
        field = spec.described[external_id]
        values = ", ".join(literal(field, c.fields[external_id]) for c in lost)
        columns = ", ".join(("Id", external_id, *_stamps(spec)))
        soql = f"SELECT {columns} FROM {spec.name} WHERE {external_id} IN ({values})"  # noqa: S608 - literals are escaped
        user, page = await self._org.user_id(), await self._org.query(soql, Purpose.COMMAND, deleted=True)
        rows = {_folded(row[external_id]): row for row in page.records}
        found = {}
        for command in lost:
            row = rows.get(_folded(command.fields[external_id]))
            if row is not None:
                ours = _is_ours(row, command, user)
                found[command.command_id] = Found(Verdict.TAKEN if ours else Verdict.FOREIGN, to_record_id(row["Id"]))
            elif field.unique:
                found[command.command_id] = Found(Verdict.ABSENT)
        return found

    async def _by_values(self, spec: ObjectSpec, lost: Sequence[Command]) -> dict[str, Found]:
        user = await self._org.user_id()
        if user is None or len(_stamps(spec)) < len(("CreatedById", "CreatedDate")):
            return {c.command_id: Found(Verdict.UNKNOWN) for c in lost}
        created = await self._created(spec, user, lost)
        if created is None:
            return {c.command_id: Found(Verdict.UNKNOWN) for c in lost}
        return await self._replica.run(partial(self._decided, spec, lost, created))

    def _decided(self, spec: ObjectSpec, lost: Sequence[Command], created: "_Created", unit: Unit) -> dict[str, Found]:
        """In one unit: what has come back since the org was asked is of the command that it belongs to."""
        ids = [row.id for row in created.rows]
        seen = unit.creations_seen([c.command_id for c in lost])
        found = {c: Found(Verdict.TAKEN, r) if r in ids else Found(Verdict.OPEN) for c, r in seen.items()}
        claimed = unit.claimed(spec.name, ids)
        rest = [c for c in lost if c.command_id not in seen]
        unclaimed = replace(created, rows=[row for row in created.rows if row.id not in claimed])
        return found | dict(self._matched(spec, rest, _without_a_record(unit, unit.open_creates(spec.name)), unclaimed))

    async def _created(self, spec: ObjectSpec, user: RecordId, lost: Sequence[Command]) -> "_Created | None":
        """What our user has created since they were sent, deleted or not; None if it is too much to look through."""
        columns = ", ".join(spec.read_fields())
        since = moment(min(_since_ms(command) for command in lost))
        soql = (
            f"SELECT {columns} FROM {spec.name} "  # noqa: S608 - names of the describe result, a time and an id
            f"WHERE CreatedById = '{user}' AND CreatedDate >= {since}"
        )
        page = await self._org.query(soql, Purpose.COMMAND, deleted=True)
        if page.total_count > MOST_CANDIDATES:
            return None
        rows, asked_ms = list(page.records), page.server_ms
        while page.next_url is not None:
            page = await self._org.query_more(page.next_url, Purpose.COMMAND)
            rows.extend(page.records)
        return _Created([self._read(spec, row) for row in rows], asked_ms)

    def _matched(
        self, spec: ObjectSpec, lost: Sequence[Command], under_way: Sequence[Command], created: "_Created"
    ) -> Iterator[tuple[str, Found]]:
        """Each command with a record that has all its values, as far as they can be told apart.

        `under_way`: every create without an answer and a record, `lost` among them; `created`: records that no command
        accounts for.
        """
        candidates = _Candidates(spec, created.rows)
        asked = {c.command_id for c in lost}
        open_now = [*lost, *(c for c in under_way if c.command_id not in asked)]
        alike = Counter(_content(c) for c in open_now)
        # A record that fits a create under way may be that one's: its answer will tell.
        sending = {_content(c) for c in under_way if c.status is CommandStatus.SENDING and c.command_id not in asked}
        strange = candidates.fitting_none(open_now)
        for command in lost:
            fitting = candidates.fitting(command)
            if _content(command) in sending:
                yield command.command_id, Found(Verdict.OPEN)
            elif 0 < len(fitting) <= alike[_content(command)]:
                candidates.take(fitting[0])
                yield command.command_id, Found(Verdict.TAKEN, fitting[0])
            elif created.asked_ms - _began_ms(command) < self._settle_ms:
                yield command.command_id, Found(Verdict.OPEN)
            else:
                yield command.command_id, Found(Verdict.UNKNOWN if fitting or strange else Verdict.ABSENT)


@dataclass(frozen=True, slots=True)
class _Created:
    """Records that our user created, and the org's clock when it was asked for them."""

    rows: Sequence[ReadRecord]
    asked_ms: int


class _Candidates:
    """Records by their values, for whatever fields a command sets."""

    def __init__(self, spec: ObjectSpec, rows: Sequence[ReadRecord]) -> None:
        self._spec = spec
        self._rows = rows
        self._taken: set[RecordId] = set()
        self._by_values: dict[tuple[str, ...], dict[tuple[Any, ...], list[RecordId]]] = {}

    def fitting(self, command: Command) -> list[RecordId]:
        """Those not taken that have every value the command sets, as far as it is read."""
        names = tuple(sorted(name for name in command.fields if name in self._spec.by_name))
        if names not in self._by_values:
            index: dict[tuple[Any, ...], list[RecordId]] = defaultdict(list)
            for row in self._rows:
                index[tuple(row.values.get(name) for name in names)].append(row.id)
            self._by_values[names] = index
        found = self._by_values[names].get(tuple(command.fields[name] for name in names), [])
        return [record_id for record_id in found if record_id not in self._taken]

    def fitting_none(self, commands: Sequence[Command]) -> bool:
        """True if there is one that none of the commands explains."""
        explained = {record_id for command in commands for record_id in self.fitting(command)}
        return any(row.id not in explained for row in self._rows)

    def take(self, record_id: RecordId) -> None:
        """It is a command's."""
        self._taken.add(record_id)


def _is_ours(row: Mapping[str, Any], command: Command, user: RecordId | None) -> bool:
    """True if a record can be the one that the command makes."""
    creator, created = row.get("CreatedById"), row.get("CreatedDate")
    if creator is not None and user is not None and to_record_id(creator) != user:
        return False
    return created is None or to_ms(created) >= _since_ms(command)


def _since_ms(command: Command) -> int:
    """The org has not taken a command before this, by its clock."""
    return _began_ms(command) - CLOCK_SKEW_MS


def _began_ms(command: Command) -> int:
    # Nothing is lost that was not sent, and nothing is sent before the org's clock is known.
    return command.began_ms or 0


def _without_a_record(unit: Unit, creates: Sequence[Command]) -> Sequence[Command]:
    seen = unit.creations_seen([c.command_id for c in creates])
    return [c for c in creates if c.command_id not in seen]


def _content(command: Command) -> str:
    return repr(sorted(command.fields.items()))


def _stamps(spec: ObjectSpec) -> list[str]:
    return [name for name in ("CreatedById", "CreatedDate") if name in spec.described]


def _folded(value: object) -> str:
    return str(value).strip().casefold()
