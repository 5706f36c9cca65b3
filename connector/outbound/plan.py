"""What to do with a command now: answer it, ask the org, or send it, and what. Decided inside a unit, without I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, ConflictPolicy, OrgProblem
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.outbound.conflicts import Decision, decide, decide_delete, is_ours
from connector.outbound.lost import Found, Verdict
from connector.outbound.rules import WriteRules
from connector.outbound.shown import Shown
from connector.outbound.soql import still_holds, unchanged_since
from connector.outbound.steps import MOST_MERGED, Ask, Finish, Question, Remote, Send, Step, Wait
from connector.outbound.view import CLOCK_SKEW_MS, RecordView
from connector.ports import RecordWrite, Unit

HEADER_FIELD = "LastModifiedDate"
NO_RECORD = "RECORD_NOT_MADE"


class Planner:
    """Plans the commands of one object; for one unit."""

    def __init__(
        self, unit: Unit, spec: ObjectSpec, rules: WriteRules, now_ms: int, shown: Shown, *, settled_ms: int = 0
    ) -> None:
        """`settled_ms`: by the org's clock; a request sent before this is no longer under way in the org."""
        self._unit = unit
        self._spec = spec
        self._rules = rules
        self._now_ms = now_ms
        self._settled_ms = settled_ms
        self._view = RecordView(unit, spec, shown)

    def plan(
        self,
        command: Command,
        behind: Sequence[Command] = (),
        remote: Remote | None = None,
        found: Found | None = None,
    ) -> Step:
        """The next step.

        Args:
            command: The first one that waits on its record.
            behind: Those that wait behind it, in order; what can be merged with it is.
            remote: The record, if the org was asked.
            found: What became of a lost create, if the org was asked.
        """
        if self._expired(command) and not command.answer_lost:
            return Finish(replace(command, status=CommandStatus.EXPIRED))
        if command.operation is Operation.CREATE:
            return self._create(command, found)
        command = self._view.resolved(command)
        if remote is not None and remote.record_id is not None:
            command = replace(command, record_id=remote.record_id)
        if command.record_id is None:
            return self._without_id(command, remote)
        return self._with_id(command, command.record_id, behind, remote)

    # Creates

    def _create(self, command: Command, found: Found | None) -> Step:
        if not command.answer_lost:
            return self._send(command, command.fields)
        if found is None:
            return Ask(command, Question.CREATED)
        if found.verdict is Verdict.OPEN and not self._expired(command):
            return Wait(command)
        if found.verdict is Verdict.ABSENT and not self._expired(command):
            return self._send(command, command.fields)
        return Finish(self._settled(command, found))

    def _settled(self, command: Command, found: Found) -> Command:
        match found.verdict:
            case Verdict.TAKEN:
                return replace(command, status=CommandStatus.SUCCEEDED, record_id=found.record_id, errors=())
            case Verdict.FOREIGN:
                text, names = "another record has this external id", [self._rules.external_id]
                return _failed(command, OrgProblem(code="DUPLICATE_VALUE", message=text, fields=names))
            case Verdict.ABSENT:
                return replace(command, status=CommandStatus.EXPIRED)
            case _:
                return replace(command, status=CommandStatus.UNKNOWN)

    # Commands on a record whose id is not known

    def _without_id(self, command: Command, remote: Remote | None) -> Step:
        if command.record_of is not None:
            problem = OrgProblem(code=NO_RECORD, message=f"command {command.record_of} has made no record", fields=[])
            return Finish(_failed(command, problem))
        if command.answer_lost and remote is None:
            return Ask(command, Question.KEYED)
        ended = self._made_and_gone(command, remote)
        if ended is not None:
            return Finish(ended)
        if self._expired(command):
            return Finish(self._gone_or_expired(command))
        return self._send(command, command.fields)

    # Commands on a record

    def _with_id(self, command: Command, record_id: RecordId, behind: Sequence[Command], remote: Remote | None) -> Step:
        if remote is None and not command.answer_lost:
            remote = self._view.known(record_id)
        if remote is None:
            if command.answer_lost or command.base is not None or command.base_seq is not None:
                return Ask(command, Question.RECORD)
            # Nothing is known of what the sender had seen: there is nothing to compare.
            return self._send(command, command.fields)
        if remote.values is None:
            return self._of_nothing(command, remote)
        if command.operation is Operation.DELETE:
            return self._delete(command, remote, remote.values)
        return self._update(command, behind, remote, remote.values)

    def _of_nothing(self, command: Command, remote: Remote) -> Step:
        """The record is deleted, or never was."""
        if command.operation is Operation.DELETE:
            return Finish(replace(command, status=CommandStatus.SUCCEEDED, errors=()))
        ended = self._made_and_gone(command, remote)
        if ended is not None:
            return Finish(ended)
        if self._expired(command):
            return Finish(self._gone_or_expired(command))
        if command.operation is Operation.UPSERT:
            return self._send(replace(command, record_id=None), command.fields)
        return Finish(_failed(command, OrgProblem(code="ENTITY_IS_DELETED", message="entity is deleted", fields=[])))

    def _made_and_gone(self, command: Command, remote: Remote | None) -> Command | None:
        """The end of a lost upsert whose record went since: sent again it would undo that, or make a second one.

        None: the org has not taken it, or it may be sent whatever has become of it.
        """
        if command.operation is not Operation.UPSERT or not command.answer_lost:
            return None
        seen = self._unit.creations_seen([command.command_id]).get(command.command_id)
        if seen is not None:
            return replace(command, status=CommandStatus.SUCCEEDED, record_id=seen, errors=())
        gone = None if remote is None else remote.deleted
        if gone is None or gone.at_ms < (command.began_ms or 0) - CLOCK_SKEW_MS:
            return None
        shown = all(gone.values.get(name, value) == value for name, value in command.wanted.items())
        status = CommandStatus.SUCCEEDED if shown else CommandStatus.UNKNOWN
        return replace(command, status=status, record_id=gone.record_id if shown else command.record_id, errors=())

    def _delete(self, command: Command, remote: Remote, values: Mapping[str, Any]) -> Step:
        if self._expired(command):
            return Finish(self._given_up(command, remote))
        base = self._view.base(command, remote)
        conflict = decide_delete(base, values, command.on_conflict, self._rules.owner)
        if conflict:
            return Finish(replace(command, status=CommandStatus.CONFLICT, conflict=conflict))
        return self._send(command, {}, remote, guarded=sorted(self._not_ours(command, base or {})))

    def _update(self, command: Command, behind: Sequence[Command], remote: Remote, values: Mapping[str, Any]) -> Step:
        base = self._view.base(command, remote)
        decision = self._decide(command, base, values)
        if decision.conflict:
            return Finish(replace(command, status=CommandStatus.CONFLICT, conflict=decision.conflict))
        if self._expired(command) and decision.send:
            return Finish(self._given_up(command, remote))
        merged = self._merged(command, decision, behind, remote)
        fields = {name: value for c in merged for name, value in (c.sent or {}).items()}
        if not fields:
            if not command.answer_lost:
                return Finish(replace(command, status=CommandStatus.SUCCEEDED, errors=(), sent={}))
            # The lost write may have made it so; then its change is still to come.
            written_ms = remote.modified_ms if remote.ours else None
            return Finish(replace(command, status=CommandStatus.SUCCEEDED, errors=(), written_ms=written_ms))
        watched = set(base or {}) if command.on_conflict is ConflictPolicy.REJECT else self._not_ours(command, fields)
        return self._send(merged[-1], fields, remote, guarded=sorted(watched), carried=merged[:-1])

    def _not_ours(self, command: Command, names: Iterable[str]) -> set[str]:
        """The fields that must not be overwritten if somebody changed them."""
        return {n for n in names if not is_ours(command.on_conflict, self._rules.owner.get(n, "shared"))}

    def _decide(self, command: Command, base: Mapping[str, Any] | None, values: Mapping[str, Any]) -> Decision:
        overtaken = self._overtaken(command)
        fields = {name: value for name, value in command.wanted.items() if name not in overtaken}
        return decide(fields, base, values, command.on_conflict, self._rules.owner)

    def _overtaken(self, command: Command) -> set[str]:
        """The fields of a lost upsert that later commands have written.

        They did not wait for it where they named the record by its id, and it was not known whose key that was.
        """
        if command.operation is not Operation.UPSERT or not command.answer_lost or command.record_id is None:
            return set()
        later = self._unit.overtaken_by(command.object, command.record_id, command.seq)
        return {name for one in later for name in one.fields}

    def _merged(self, first: Command, decision: Decision, behind: Sequence[Command], remote: Remote) -> list[Command]:
        """The commands whose edits go together, each with what it adds: as many as lose nothing.

        A field that two of them set to different values ends it: the org's triggers and history are to see both.
        """
        merged = [replace(first, sent=decision.send)]
        together = dict(first.fields)
        for command in behind[: MOST_MERGED - 1]:
            if not self._joins(command, first) or any(together.get(n, v) != v for n, v in command.fields.items()):
                break
            base = self._view.base(command, remote)
            if command.base_seq is not None:
                seen = {n: v for c in merged if c.seq >= command.base_seq for n, v in c.fields.items()}
                base = {**(base or {}), **seen}
            decision = self._decide(command, base, {**(remote.values or {}), **together})
            if decision.conflict:
                break
            merged.append(replace(command, sent=decision.send))
            together |= command.fields
        return merged

    def _joins(self, command: Command, first: Command) -> bool:
        return (
            command.operation is Operation.UPDATE
            and first.operation is Operation.UPDATE
            and not first.answer_lost
            and not command.answer_lost
            and command.record_id == first.record_id
            and command.on_conflict is first.on_conflict
            and not self._expired(command)
            and (command.retry_ms is None or command.retry_ms <= self._now_ms)
        )

    def _send(
        self,
        command: Command,
        fields: Mapping[str, Any],
        remote: Remote | None = None,
        *,
        guarded: Sequence[str] = (),
        carried: Sequence[Command] = (),
    ) -> Send:
        """A write; `guarded`: fields that nobody may have changed (with none, it is made whatever happened)."""
        operation = command.operation
        if operation is Operation.UPSERT and command.record_id is not None:
            operation = Operation.UPDATE
        by_header, only_if, unmodified_since_ms = True, None, None
        if guarded and remote is not None:
            settled = self._view.is_settled(remote) and self._spec.modified_field == HEADER_FIELD
            holds = "" if settled else still_holds(self._spec, remote.values or {}, guarded)
            only_if = unchanged_since(self._spec, remote.modified_ms) + (f" AND {holds}" if holds else "")
            unmodified_since_ms = remote.modified_ms
            by_header = settled and operation is not Operation.DELETE
        write = RecordWrite(
            object=command.object,
            operation=operation,
            fields=fields,
            record_id=command.record_id,
            external_id=command.external_id if operation is Operation.UPSERT else None,
            only_if=only_if,
            if_unmodified_since_ms=unmodified_since_ms,
        )
        others = tuple(replace(c, sent=_part(fields, c), carried_by=command.command_id) for c in carried)
        return Send((*others, replace(command, sent=fields, carried_by=None)), write, by_header)

    def _expired(self, command: Command) -> bool:
        return command.expires_ms is not None and command.expires_ms <= self._now_ms

    def _given_up(self, command: Command, remote: Remote) -> Command:
        """`expired` says that the org has not taken it, and will not.

        Of a lost write that was written over since, or that may be under way in the org, nobody can tell.
        """
        sent_ms = command.began_ms or 0
        maybe = command.answer_lost and (remote.modified_ms >= sent_ms - CLOCK_SKEW_MS or sent_ms >= self._settled_ms)
        return replace(command, status=CommandStatus.UNKNOWN if maybe else CommandStatus.EXPIRED)

    def _gone_or_expired(self, command: Command) -> Command:
        """The same where there is no record: a lost write may have been made before it went."""
        return replace(command, status=CommandStatus.UNKNOWN if command.answer_lost else CommandStatus.EXPIRED)


def _part(fields: Mapping[str, Any], command: Command) -> Mapping[str, Any]:
    """What of a write is the command's own, even if an earlier one sets it as well."""
    return {name: value for name, value in fields.items() if name in command.fields}


def _failed(command: Command, problem: OrgProblem) -> Command:
    return replace(command, status=CommandStatus.FAILED, errors=(problem,))
