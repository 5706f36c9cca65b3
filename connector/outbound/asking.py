"""What has to be asked of the org before a command can go on: many questions with few calls."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from connector.errors import OrgRefused, OrgUnavailable, TransientError
from connector.model.command import Command
from connector.model.ids import RecordId, to_record_id
from connector.model.objects import ObjectSpec
from connector.outbound.lost import Found, Read, Settling
from connector.outbound.rules import OutboundRules
from connector.outbound.soql import literal
from connector.outbound.steps import Ask, Deleted, Question, Remote
from connector.ports import OrgClient, Purpose, Replica

IDS_PER_CALL = 2000
KEYS_PER_QUERY = 200
MODIFIER = "LastModifiedById"

Answer = Remote | Found | TransientError


class Questions:
    """Answers what the planner asks; a question that could not be asked now has its error for an answer."""

    def __init__(
        self,
        *,
        org: OrgClient,
        replica: Replica,
        read: Read,
        rules: OutboundRules,
    ) -> None:
        """`read` makes a record of a row of the REST API."""
        self._org = org
        self._read = read
        self._rules = rules
        self._settling = Settling(org=org, replica=replica, read=read, settle_ms=rules.settle_ms)

    async def answer(self, asks: Sequence[Ask], specs: Mapping[str, ObjectSpec]) -> dict[str, Answer]:
        """Command id -> what the org says; `specs` has the object of each."""
        groups: dict[tuple[str, Question], list[Command]] = defaultdict(list)
        for ask in asks:
            groups[ask.command.object, ask.question].append(ask.command)
        answers: dict[str, Answer] = {}
        for (name, question), commands in groups.items():
            try:
                answers |= await self._ask(question, specs[name], commands)
            except TransientError as error:
                answers |= dict.fromkeys((c.command_id for c in commands), error)
            except OrgRefused as error:
                # The object's description is out of date; it is read again from time to time.
                refused = TransientError(f"the org refused a question: {error}")
                answers |= dict.fromkeys((c.command_id for c in commands), refused)
        return answers

    async def _ask(
        self, question: Question, spec: ObjectSpec, commands: Sequence[Command]
    ) -> Mapping[str, Remote | Found]:
        """Nothing where the answer is not of the commands."""
        match question:
            case Question.CREATED:
                rules = self._rules.objects.get(spec.name)
                return await self._settling.find(spec, commands, rules.external_id if rules else "")
            case Question.RECORD:
                return await self._records(spec, commands)
            case Question.KEYED:
                return await self._keyed(spec, commands)
            case Question.CLOCK:
                await self._org.hear_clock()
                return {}

    async def _records(self, spec: ObjectSpec, commands: Sequence[Command]) -> Mapping[str, Remote]:
        """Records by their ids; an upsert whose record is gone goes by its key again."""
        found: dict[str, Remote] = {}
        user = await self._org.user_id()
        for start in range(0, len(commands), IDS_PER_CALL):
            some = commands[start : start + IDS_PER_CALL]
            ids = [c.record_id for c in some if c.record_id is not None]
            rows = await self._org.retrieve(spec.name, ids, _columns(spec), Purpose.COMMAND)
            by_id = dict(zip(ids, rows, strict=True))
            for command in some:
                row = by_id.get(command.record_id) if command.record_id is not None else None
                found[command.command_id] = self._remote(spec, row, user)
        gone = [c for c in commands if c.external_id is not None and found[c.command_id].values is None]
        return found | await self._keyed(spec, gone)

    async def _keyed(self, spec: ObjectSpec, commands: Sequence[Command]) -> dict[str, Remote]:
        """Records by the external ids of upserts; where several have one the org decides."""
        found: dict[str, Remote] = {}
        user = await self._org.user_id()
        by_field: dict[str, list[tuple[Command, str]]] = defaultdict(list)
        for command in commands:
            field, value = command.external_id or ("", "")
            by_field[field].append((command, value))
        for field, wanted in by_field.items():
            for start in range(0, len(wanted), KEYS_PER_QUERY):
                some = wanted[start : start + KEYS_PER_QUERY]
                rows = await self._by_key(spec, field, [value for _, value in some])
                for command, value in some:
                    row = rows.get(value.strip().casefold())
                    found[command.command_id] = self._remote(spec, row, user)
        return found

    async def _by_key(self, spec: ObjectSpec, field: str, values: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """The record that has each key; where none has it, the one that had it and went last."""
        described = spec.described[field]
        listed = ", ".join(literal(described, value if described.kind == "text" else float(value)) for value in values)
        columns = ", ".join(dict.fromkeys((*_columns(spec), field)))
        soql = f"SELECT {columns} FROM {spec.name} WHERE {field} IN ({listed})"  # noqa: S608 - literals are escaped
        page = await self._org.query(soql, Purpose.COMMAND, deleted=True)
        # Of two with one key the later one counts.
        rows = sorted(page.records, key=lambda row: (row.get("IsDeleted") is not True, str(row[spec.modstamp_field])))
        return {str(row[field]).strip().casefold(): row for row in rows}

    def _remote(self, spec: ObjectSpec, row: Mapping[str, Any] | None, user: RecordId | None) -> Remote:
        if row is None:
            return Remote(values=None, modified_ms=0)
        try:
            record = self._read(spec, row)
            modifier = to_record_id(str(row[MODIFIER])) if row.get(MODIFIER) else None
        except ValueError as error:
            raise OrgUnavailable(f"a record of another shape: {error}") from error
        if record.deleted:
            gone = Deleted(record_id=record.id, values=record.values, at_ms=max(record.modified_ms, record.modstamp_ms))
            return Remote(values=None, modified_ms=0, deleted=gone)
        ours = user is not None and modifier == user
        return Remote(values=record.values, modified_ms=record.modified_ms, ours=ours, record_id=record.id)


def _columns(spec: ObjectSpec) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*spec.read_fields(), *([MODIFIER] if MODIFIER in spec.described else []))))
