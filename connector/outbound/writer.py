"""Sends accepted commands to the org, settles each and says what became of it."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import structlog

from connector.errors import LinkDown, OrgRefused, OrgThrottled, RowLocked, TransientError
from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, ConflictPolicy, OrgProblem
from connector.model.ids import RecordId, to_record_id
from connector.model.message import Message
from connector.model.objects import ObjectSpec
from connector.model.record import ReadRecord
from connector.outbound.conflicts import decide
from connector.outbound.intake import ECHO_WINDOW_MS
from connector.outbound.settle import find_created
from connector.ports import OrgClient, Purpose, RecordWrite, Replica, Unit, WriteOutcome

log = structlog.get_logger()

PRECONDITION_FAILED = 412
RETRY_LOOK_S = 1.0  # how often waiting retries, and commands that another process stored, are looked for
MAX_REREADS = 5  # of one record that somebody else keeps writing, before the command waits its back-off
GONE = frozenset({"ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY"})


class Catalog(Protocol):
    """What is known of the objects now."""

    def spec(self, name: str) -> ObjectSpec | None:
        """The object, or None if it is not synced."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterRules:
    """What of the settings concerns writing.

    Attributes:
        owner: Object -> field -> `org`, `mesh` or `shared`.
        external_id: Object -> its external id field, where one is configured.
        parallel: Calls under way at once.
    """

    owner: Mapping[str, Mapping[str, str]]
    external_id: Mapping[str, str]
    backoff_max_s: float
    parallel: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remote:
    """The record as the org has it, as far as known. `values` None: it is not there."""

    values: Mapping[str, Any] | None
    modified_ms: int | None


class CommandWriter:
    """One job: takes what may be sent, in order per record, a bounded number at once."""

    def __init__(
        self,
        *,
        replica: Replica,
        org: OrgClient,
        catalog: Catalog,
        read: Callable[[ObjectSpec, Mapping[str, Any]], ReadRecord],
        result: Callable[[Command], Sequence[Message]],
        rules: WriterRules,
        now_ms: Callable[[], int],
        rng: random.Random,
        settled: Callable[[], None],
    ) -> None:
        """`read` makes a record of a row of the REST API; `settled` is called after a result was stored."""
        self._replica = replica
        self._org = org
        self._catalog = catalog
        self._read = read
        self._result = result
        self._rules = rules
        self._now_ms = now_ms
        self._rng = rng
        self._settled = settled
        self._wake = asyncio.Event()
        self._busy: set[str] = set()
        self._held_until_ms = 0
        self._draining = False

    def drain(self) -> None:
        """Begin nothing more; `run` returns once what is under way is settled."""
        self._draining = True
        self._wake.set()

    def wake(self) -> None:
        """A command was stored."""
        self._wake.set()

    async def run(self) -> None:
        """Send until drained or cancelled.

        Raises:
            LoginRefused: The credentials are refused.
            StoreBusy, StoreFull, StoreUnusable: Of the database.
        """
        await self._replica.run(self._recover)
        async with asyncio.TaskGroup() as group:
            slots = asyncio.Semaphore(self._rules.parallel)
            while not self._draining:
                self._wake.clear()
                await self._start_due(group, slots)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_LOOK_S):
                        await self._wake.wait()

    def _recover(self, unit: Unit) -> None:
        """What was being sent when the process died is taken up again; its answer counts as lost."""
        for command in unit.commands(CommandStatus.SENDING, limit=1000):
            unit.update_command(replace(command, status=CommandStatus.ACCEPTED, answer_lost=True))
            log.info("command.answer_lost", command_id=command.command_id, attempt=command.attempts)

    async def _start_due(self, group: asyncio.TaskGroup, slots: asyncio.Semaphore) -> None:
        now_ms = self._now_ms()
        due = await self._replica.run(lambda unit: unit.next_commands(now_ms, 4 * self._rules.parallel))
        for command in due:
            if command.command_id in self._busy:
                continue
            await slots.acquire()
            # While we waited for the slot, the one that had it may have met a spent budget.
            if self._draining or self._now_ms() < self._held_until_ms:
                slots.release()
                return
            self._busy.add(command.command_id)
            task = group.create_task(self._send(command), name=f"command.{command.command_id}")
            task.add_done_callback(partial(self._done, slots, command.command_id))

    def _done(self, slots: asyncio.Semaphore, command_id: str, _task: asyncio.Task[None]) -> None:
        self._busy.discard(command_id)
        slots.release()
        self._wake.set()

    async def _send(self, command: Command) -> None:
        if command.expires_ms is not None and command.expires_ms <= self._now_ms():
            await self._settle(replace(command, status=CommandStatus.EXPIRED))
            return
        spec = self._catalog.spec(command.object)
        if spec is None:
            problem = OrgProblem(code="NOT_SYNCED", message=f"{command.object} is no longer synced", fields=[])
            await self._settle(replace(command, status=CommandStatus.REJECTED, errors=(problem,)))
            return
        sending = replace(command, status=CommandStatus.SENDING, attempts=command.attempts + 1, sent_ms=self._now_ms())
        await self._replica.run(lambda unit: unit.update_command(sending))
        try:
            done = await self._write(sending, spec)
        except TransientError as error:
            await self._retry_later(sending, error)
        except OrgRefused as error:
            await self._settle(replace(sending, status=CommandStatus.FAILED, errors=error.errors))
        else:
            await self._settle(done)

    async def _write(self, command: Command, spec: ObjectSpec) -> Command:
        match command.operation:
            case Operation.UPDATE:
                return await self._update(command, spec)
            case Operation.CREATE:
                return await self._create(command, spec)
            case _:
                return self._judged(command, await self._org.write(_record_write(command, command.fields)))

    async def _create(self, command: Command, spec: ObjectSpec) -> Command:
        if command.answer_lost:
            found = await find_created(self._org, command, spec, self._rules.external_id.get(command.object))
            if found.settled is not None:
                return replace(command, status=found.settled, record_id=found.record_id)
        return self._judged(command, await self._org.write(_record_write(command, command.fields)))

    async def _update(self, command: Command, spec: ObjectSpec) -> Command:
        assert command.record_id is not None  # noqa: S101 - validated at acceptance
        command = await self._with_seen(command, command.record_id)
        remote = await self._known(command, spec, command.record_id)
        for _ in range(MAX_REREADS):
            if remote is None:
                remote = await self._reread(spec, command.record_id)
            if remote.values is None:
                problem = OrgProblem(code="ENTITY_IS_DELETED", message="entity is deleted", fields=[])
                return replace(command, status=CommandStatus.FAILED, errors=(problem,))
            owner = self._rules.owner.get(command.object, {})
            decision = decide(command.fields, command.base, remote.values, command.on_conflict, owner)
            if decision.conflict:
                return replace(command, status=CommandStatus.CONFLICT, conflict=decision.conflict)
            if not decision.send:
                return replace(command, status=CommandStatus.SUCCEEDED, errors=())
            guard_ms = None if command.on_conflict is ConflictPolicy.OVERWRITE else remote.modified_ms
            outcome = await self._org.write(_record_write(command, decision.send, guard_ms))
            if outcome.status != PRECONDITION_FAILED:
                return self._judged(command, outcome)
            remote = None
        raise RowLocked("somebody else keeps writing this record")

    async def _with_seen(self, command: Command, record_id: RecordId) -> Command:
        """The command with what earlier ones on the record have written since: its sender had seen it."""
        first = command.base_seq
        if first is None:
            return command
        earlier = await self._replica.run(
            lambda unit: unit.written_between(command.object, record_id, first, command.seq)
        )
        seen = {name: value for c in earlier for name, value in c.fields.items()}
        return replace(command, base={**(command.base or {}), **seen})

    async def _known(self, command: Command, spec: ObjectSpec, record_id: RecordId) -> _Remote | None:
        """The record by what the replica holds and our own writes on their way back; None if that is not to be trusted.

        After a lost answer only the org itself can tell.
        """
        if command.answer_lost:
            return None
        since_ms = self._now_ms() - ECHO_WINDOW_MS

        def look(unit: Unit) -> _Remote | None:
            stored = unit.records(spec, [record_id]).get(record_id)
            if stored is None or stored.deleted_ms is not None:
                return None
            values = dict(stored.values)
            for earlier in unit.unseen_writes(spec.name, record_id, stored.modified_ms, since_ms):
                values.update(earlier.fields)
            return _Remote(values=values, modified_ms=stored.modified_ms)

        return await self._replica.run(look)

    async def _reread(self, spec: ObjectSpec, record_id: RecordId) -> _Remote:
        (row,) = await self._org.retrieve(spec.name, [record_id], spec.read_fields(), Purpose.COMMAND)
        if row is None:
            return _Remote(values=None, modified_ms=None)
        record = self._read(spec, row)
        return _Remote(values=record.values, modified_ms=record.modified_ms)

    def _judged(self, command: Command, outcome: WriteOutcome) -> Command:
        codes = {problem["code"] for problem in outcome.errors}
        if not outcome.errors or (command.operation is Operation.DELETE and codes <= GONE):
            record_id = to_record_id(outcome.id) if outcome.id else command.record_id
            return replace(command, status=CommandStatus.SUCCEEDED, record_id=record_id, errors=())
        return replace(command, status=CommandStatus.FAILED, errors=outcome.errors)

    async def _retry_later(self, command: Command, error: TransientError) -> None:
        backoff_s = min(self._rules.backoff_max_s, 0.5 * 2 ** min(command.attempts, 20))
        wait_s = error.retry_after_s if error.retry_after_s is not None else backoff_s * self._rng.uniform(0.5, 1.0)
        log.warning(
            "command.retry_scheduled",
            command_id=command.command_id,
            attempt=command.attempts,
            wait_s=round(wait_s, 1),
            error=str(error),
        )
        retry_ms = self._now_ms() + int(wait_s * 1000)
        if isinstance(error, OrgThrottled):
            self._held_until_ms = retry_ms  # the budget is everybody's: no other command would fare better
        later = replace(
            command,
            status=CommandStatus.ACCEPTED,
            retry_ms=retry_ms,
            answer_lost=command.answer_lost or isinstance(error, LinkDown),
        )
        await self._replica.run(lambda unit: unit.update_command(later))

    async def _settle(self, command: Command) -> None:
        done = replace(command, completed_ms=self._now_ms(), written_ms=self._now_ms())

        def work(unit: Unit) -> None:
            unit.update_command(done)
            for message in self._result(done):
                unit.enqueue(message)

        await self._replica.run(work)
        log.info(
            "command.settled",
            command_id=done.command_id,
            status=done.status,
            attempts=done.attempts,
            codes=sorted({problem["code"] for problem in done.errors}),
        )
        self._settled()


def _record_write(command: Command, fields: Mapping[str, Any], guard_ms: int | None = None) -> RecordWrite:
    return RecordWrite(
        object=command.object,
        operation=command.operation,
        fields=fields,
        record_id=command.record_id,
        external_id=command.external_id,
        if_unmodified_since_ms=guard_ms,
    )
