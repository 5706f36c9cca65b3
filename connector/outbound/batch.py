"""One batch of commands from planning to results.

Every step that the org sees is on disk before it is made: a command is `sending` from the unit that plans its write
until the unit that stores its outcome, and what is found `sending` at a start has lost its answer.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import structlog

from connector.errors import LinkDown, LoginRefused, OrgThrottled, OrgUnavailable, RowLocked, TransientError
from connector.model.change import Operation
from connector.model.codes import HALTED, Reaction, is_daily_limit, reaction_to, wait_s
from connector.model.command import Command, CommandStatus, IngestJob, OrgProblem
from connector.model.ids import to_record_id
from connector.model.message import Message
from connector.model.objects import ObjectSpec
from connector.outbound.asking import Answer, Questions
from connector.outbound.lost import Found, Verdict
from connector.outbound.plan import MOST_MERGED, Planner
from connector.outbound.planned import Conclusion, Group, Planned, Taken
from connector.outbound.rules import OutboundRules
from connector.outbound.shown import Shown
from connector.outbound.steps import Ask, Finish, Question, Remote, Send, Wait
from connector.ports import OrgClient, Replica, Unit, WriteOutcome

log = structlog.get_logger()

# Of one command in a batch: somebody else keeps writing its record, or its neighbours'.
MOST_ROUNDS = 6
# The org fails on this very record, again and again.
MOST_UNCERTAIN = 10
FIRST_BACKOFF_S = 0.5
MOST_KEPT_APART = 1000
PRECONDITION_FAILED = 412


class Catalog(Protocol):
    """What is known of the objects now."""

    def spec(self, name: str) -> ObjectSpec | None:
        """The object, or None if it is not synced."""
        ...


class Batches:
    """Takes commands, and brings each to its end or back into the queue."""

    def __init__(
        self,
        *,
        replica: Replica,
        org: OrgClient,
        catalog: Catalog,
        questions: Questions,
        result: Callable[[Command], Sequence[Message]],
        rules: OutboundRules,
        now_ms: Callable[[], int],
        rng: random.Random,
        settled: Callable[[], None],
        due_in: Callable[[float], None],
    ) -> None:
        """`settled` is called after results were stored, `due_in` with the seconds until a retry."""
        self._replica = replica
        self._org = org
        self._catalog = catalog
        self._questions = questions
        self._result = result
        self._rules = rules
        self._now_ms = now_ms
        self._rng = rng
        self._settled = settled
        self._due_in = due_in
        self._busy: set[str] = set()
        # Edits that were refused together go one by one, so that each gets its own answer.
        self._apart: dict[str, None] = {}

    async def take(self, limit: int) -> Taken:
        """The next commands that may go, planned; they are this batch's until `work` has ended with them."""
        taken = await self._replica.run(partial(self._take, limit))
        self._busy.update(i for group in taken.groups for i in group.ids)
        self.tell(taken.planned)
        return taken

    async def work(self, taken: Taken) -> TransientError | None:
        """Bring what was taken to its end; the error if every write of the batch failed with the link or the org."""
        try:
            return await self._work(taken.planned)
        finally:
            self._busy.difference_update(i for group in taken.groups for i in group.ids)

    async def _work(self, planned: Planned) -> TransientError | None:
        answers: dict[str, Answer] = {}
        refused: dict[str, tuple[OrgProblem, ...]] = {}
        down: list[TransientError | None] = []
        for _ in range(MOST_ROUNDS):
            if planned.asks:
                answers |= await self._questions.answer([ask for _, ask in planned.asks], planned.specs)
                down.extend(_down(answers.get(ask.command.command_id)) for _, ask in planned.asks)
            again = [group for group, _ in planned.asks]
            if planned.sends:
                outcomes = await self._write([send for _, send in planned.sends])
                down.extend(_down(outcome) for outcome in outcomes)
                concluded = Conclusion(answers, refused)
                await self._replica.run(partial(self._conclude, planned, outcomes, concluded))
                self.tell(planned)
                again += concluded.again
                if concluded.asks:
                    asked = await self._questions.answer(concluded.asks, planned.specs)
                    answers |= asked
            if not again:
                break
            planned = Planned(specs=planned.specs)
            await self._replica.run(partial(self._plan_again, planned, again, answers, refused))
            self.tell(planned)
        else:
            left = [group for group, _ in (*planned.asks, *planned.sends)]
            self.tell(await self._replica.run(partial(self._give_up_for_now, left)))
        return down[0] if down and all(error is not None for error in down) else None

    @property
    def may_begin(self) -> bool:
        """The org's clock is known: without it nobody could tell later how long ago a lost write was sent."""
        return self._org.clock_ms() is not None

    def _settled_ms(self) -> int:
        """A request that was sent before this, by the org's clock, is no longer under way there."""
        return (self._org.clock_ms() or 0) - self._rules.settle_ms

    # What an ingest job carries in the place of a call

    def begin_for(self, unit: Unit, job: IngestJob, heads: Iterable[Command], fits: Callable[[Send], bool]) -> Planned:
        """Begin those writes that need no look at the org and that `fits` takes; the other commands are left alone.

        Call `tell` with what it returns.
        """
        planned, now_ms = Planned(), self._now_ms()
        spec, rules = self._catalog.spec(job.kind.object), self._rules.objects.get(job.kind.object)
        if spec is None or rules is None:
            return planned
        shown = Shown(unit, now_ms)
        planner = Planner(unit, spec, rules, now_ms, shown, settled_ms=self._settled_ms())
        groups = self._groups(unit, [head for head in heads if head.command_id not in self._busy])
        shown.load(spec, [group.head.record_id for group in groups if group.head.record_id is not None])
        for group in groups:
            head = group.head
            match planner.plan(head, group.behind):
                case Finish(command):
                    self._finish(unit, planned, command)
                case Send() as send if fits(send):
                    planned.sends.append((group, self._begun(unit, send, job.number)))
        return planned

    async def settle(
        self, sends: Sequence[tuple[Group, Send]], outcomes: Sequence[WriteOutcome | TransientError]
    ) -> None:
        """Store what became of writes that a job has made; what needs another look at the org waits for its turn."""
        planned = Planned(sends=list(sends))
        await self._replica.run(partial(self._settle, planned, outcomes))
        self.tell(planned)

    def _settle(self, planned: Planned, outcomes: Sequence[WriteOutcome | TransientError], unit: Unit) -> None:
        concluded = Conclusion({}, {})
        self._conclude(planned, outcomes, concluded, unit)
        for command_id in (i for group in concluded.again for i in group.ids):
            command = unit.command(command_id)
            if command is not None and command.status is CommandStatus.SENDING:
                unit.update_command(_waiting(command))

    async def untried(self, commands: Sequence[Command]) -> None:
        """They wait as before: the org has not heard of them."""

        def put_back(unit: Unit) -> None:
            for command in commands:
                unit.update_command(
                    replace(_waiting(command), attempts=command.attempts - 1, sent_ms=None, began_ms=None)
                )

        await self._replica.run(put_back)

    # Units

    def _take(self, limit: int, unit: Unit) -> Taken:
        now_ms, planned = self._now_ms(), Planned()
        heads = unit.next_commands(now_ms, limit + len(self._busy))
        free = [head for head in heads if head.command_id not in self._busy][:limit]
        groups = self._groups(unit, free)
        self._plan(unit, planned, groups, {}, {})
        open_groups = [group for group, _ in (*planned.asks, *planned.sends)]
        return Taken(open_groups, planned, len(groups))

    def _groups(self, unit: Unit, heads: Sequence[Command]) -> list[Group]:
        followed = unit.followed(heads)
        return [Group(head, self._behind(unit, head) if head.record_id in followed else ()) for head in heads]

    def _behind(self, unit: Unit, head: Command) -> tuple[Command, ...]:
        """What could go with it: waiting edits directly behind it."""
        if head.operation is not Operation.UPDATE or head.answer_lost or head.command_id in self._apart:
            return ()
        behind = []
        for command in unit.commands_behind(head, MOST_MERGED):
            if command.command_id in self._busy or command.command_id in self._apart:
                break
            behind.append(command)
        return tuple(behind)

    def _plan_again(
        self,
        planned: Planned,
        groups: Sequence[Group],
        answers: Mapping[str, Answer],
        refused: Mapping[str, tuple[OrgProblem, ...]],
        unit: Unit,
    ) -> None:
        fresh = []
        for group in groups:
            head = unit.command(group.head.command_id)
            behind = [unit.command(c.command_id) for c in group.behind]
            # A person may have cancelled one meanwhile.
            if head is not None and not head.status.final:
                fresh.append(Group(head, tuple(c for c in behind if c is not None and not c.status.final)))
        self._plan(unit, planned, fresh, answers, refused)

    def _plan(
        self,
        unit: Unit,
        planned: Planned,
        groups: Iterable[Group],
        answers: Mapping[str, Answer],
        refused: Mapping[str, tuple[OrgProblem, ...]],
    ) -> None:
        now_ms = self._now_ms()
        shown = Shown(unit, now_ms)
        planners: dict[str, Planner] = {}
        ready: list[tuple[Planner, Group]] = []
        for group in groups:
            name = group.head.object
            spec, rules = self._catalog.spec(name), self._rules.objects.get(name)
            if spec is None or rules is None:
                problem = OrgProblem(code="NOT_SYNCED", message=f"{name} is no longer synced", fields=[])
                self._finish(unit, planned, replace(group.head, status=CommandStatus.REJECTED, errors=(problem,)))
                continue
            planned.specs[name] = spec
            if name not in planners:
                planners[name] = Planner(unit, spec, rules, now_ms, shown, settled_ms=self._settled_ms())
            ready.append((planners[name], group))
        for name in planners:
            ids = [group.head.record_id for _, group in ready if group.head.object == name]
            shown.load(planned.specs[name], [i for i in ids if i is not None])
        for planner, group in ready:
            known = (answers.get(group.head.command_id), refused.get(group.head.command_id))
            self._plan_one(unit, planned, planner, group, known)
        self._return(unit, planned)

    def _plan_one(
        self,
        unit: Unit,
        planned: Planned,
        planner: Planner,
        group: Group,
        known: tuple[Answer | None, tuple[OrgProblem, ...] | None],
    ) -> None:
        answer, refusal = known
        if isinstance(answer, TransientError):
            planned.give_back((group.head, *group.behind), answer, lost=False)
            return
        found = answer if isinstance(answer, Found) else None
        if refusal is not None and (found is None or found.verdict is not Verdict.TAKEN):
            # Taken by another record, or by another field's value: the refusal stands.
            self._finish(unit, planned, replace(group.head, status=CommandStatus.FAILED, errors=refusal))
            return
        remote = answer if isinstance(answer, Remote) else None
        step = planner.plan(group.head, group.behind, remote, found)
        covered: set[str] = set()
        match step:
            case Finish(command):
                self._finish(unit, planned, command)
                covered.add(command.command_id)
            case Ask():
                planned.asks.append((group, step))
                return
            case Wait(command):
                # Rarer and rarer: what has not become visible soon may take minutes.
                now_ms = self._now_ms()
                # Sent by a clock that was set back since: the time to settle begins anew, hours would be none.
                sent_ms = min(command.sent_ms or command.accepted_ms, now_ms)
                looked_ms = now_ms - sent_ms
                wait = min(self._rules.backoff_max_s, max(FIRST_BACKOFF_S, looked_ms / 4000))
                error = TransientError("what became of it cannot be told yet", retry_after_s=wait)
                planned.give_back([replace(command, sent_ms=sent_ms)], error, lost=True)
                covered.add(command.command_id)
            case Send() if not self.may_begin:
                planned.asks.append((group, Ask(group.head, Question.CLOCK)))
                return
            case Send(commands):
                covered.update(c.command_id for c in commands)
                planned.sends.append((group, self._begun(unit, step)))
        # What was under way with the others and is not any more waits for its turn again.
        for command in group.behind:
            if command.command_id not in covered and command.status is CommandStatus.SENDING:
                unit.update_command(_waiting(command))

    def _begun(self, unit: Unit, send: Send, ingest: int | None = None) -> Send:
        """The write as it is on disk before the org hears of it."""
        begun: dict[str, Any] = {"sent_ms": self._now_ms(), "began_ms": self._org.clock_ms(), "ingest": ingest}
        sending = tuple(
            replace(c, status=CommandStatus.SENDING, attempts=c.attempts + 1, **begun) for c in send.commands
        )
        for command in sending:
            unit.update_command(command)
        return replace(send, commands=sending)

    def _conclude(
        self,
        planned: Planned,
        outcomes: Sequence[WriteOutcome | TransientError],
        concluded: Conclusion,
        unit: Unit,
    ) -> None:
        for (group, send), outcome in zip(planned.sends, outcomes, strict=True):
            if isinstance(outcome, TransientError):
                planned.give_back(send.commands, outcome, lost=isinstance(outcome, LinkDown))
            elif not outcome.errors:
                self._succeeded(unit, planned, send, outcome)
            else:
                self._refused(unit, planned, (group, send), outcome, concluded)
        self._return(unit, planned)

    def _succeeded(self, unit: Unit, planned: Planned, send: Send, outcome: WriteOutcome) -> None:
        written_ms = outcome.server_ms or self._now_ms()
        for command in send.commands:
            record_id = to_record_id(outcome.id) if outcome.id else command.record_id
            self._finish(
                unit,
                planned,
                command,
                status=CommandStatus.SUCCEEDED,
                record_id=record_id,
                errors=(),
                written_ms=written_ms,
            )

    def _refused(
        self,
        unit: Unit,
        planned: Planned,
        sent: tuple[Group, Send],
        outcome: WriteOutcome,
        concluded: Conclusion,
    ) -> None:
        group, send = sent
        command, errors = send.commands[-1], outcome.errors
        # What the body of a 412 holds is not documented.
        match Reaction.CONFLICT if outcome.status == PRECONDITION_FAILED else reaction_to(errors):
            case Reaction.CONFLICT:
                concluded.ask(group, Ask(replace(group.head, record_id=command.record_id), Question.RECORD))
            case Reaction.RETRY if all(problem["code"] == HALTED for problem in errors):
                concluded.again.append(group)
            case Reaction.UNCERTAIN if command.attempts >= MOST_UNCERTAIN:
                made = command.operation is Operation.CREATE
                status = CommandStatus.UNKNOWN if made else CommandStatus.FAILED
                self._finish_all(unit, planned, send, status, errors)
            case Reaction.RETRY | Reaction.WAIT | Reaction.UNCERTAIN as reaction:
                planned.give_back(send.commands, _not_now(errors), lost=reaction is Reaction.UNCERTAIN)
            case Reaction.GONE if command.operation is Operation.DELETE:
                self._succeeded(unit, planned, send, replace(outcome, errors=()))
            case Reaction.GONE if command.operation is Operation.UPSERT and send.write.record_id is not None:
                concluded.answers[command.command_id] = Remote(values=None, modified_ms=0)
                concluded.again.append(group)
            case Reaction.DUPLICATE if command.operation is Operation.CREATE and command.answer_lost:
                concluded.refused[command.command_id] = errors
                concluded.ask(group, Ask(command, Question.CREATED))
            case _ if len(send.commands) > 1:
                self._keep_apart(send.commands)
                for one in send.commands:
                    unit.update_command(_waiting(one))
            case _:
                self._finish_all(unit, planned, send, CommandStatus.FAILED, errors)

    def _finish_all(
        self, unit: Unit, planned: Planned, send: Send, status: CommandStatus, errors: tuple[OrgProblem, ...]
    ) -> None:
        for command in send.commands:
            self._finish(unit, planned, command, status=status, errors=errors)

    def _finish(self, unit: Unit, planned: Planned, command: Command, **end: Any) -> None:
        """The command's end and its result; `end`: what of the command is new."""
        done = replace(command, **end, completed_ms=self._now_ms(), retry_ms=None, ingest=None)
        unit.update_command(done)
        if done.status is CommandStatus.SUCCEEDED and done.written_ms is None and not done.answer_lost:
            unit.echo_seen(done.command_id, 0)  # nothing was written: no change will come
        for message in self._result(done):
            unit.enqueue(message)
        self._apart.pop(done.command_id, None)
        planned.settled.append(done)

    def _return(self, unit: Unit, planned: Planned) -> None:
        """Back into the queue, those with the same reason to the same time."""
        for (_, _, lost), (error, commands) in planned.back.items():
            attempts, waits_s = max(c.attempts for c in commands), error.retry_after_s
            if isinstance(error, LoginRefused):
                waits_s = None  # the writer waits; a restart with other credentials need not
            if waits_s is None:
                longest_s = min(self._rules.backoff_max_s, FIRST_BACKOFF_S * 2 ** min(attempts, 20))
                waits_s = longest_s * self._rng.uniform(0.5, 1.0)
            retry_ms = self._now_ms() + int(waits_s * 1000)
            for command in commands:
                waiting = replace(_waiting(command), retry_ms=retry_ms, answer_lost=command.answer_lost or lost)
                unit.update_command(waiting)
            log.warning(
                "command.retry_scheduled",
                command_id=commands[0].command_id,
                commands=len(commands),
                attempt=attempts,
                wait_s=round(waits_s, 1),
                error=str(error),
            )
            planned.waits_s.append(waits_s)
        planned.back.clear()

    def _give_up_for_now(self, groups: Sequence[Group], unit: Unit) -> Planned:
        planned, error = Planned(), RowLocked("somebody else keeps writing these records")
        for group in groups:
            found = [unit.command(i) for i in group.ids]
            planned.give_back([c for c in found if c is not None and not c.status.final], error, lost=False)
        self._return(unit, planned)
        return planned

    def _keep_apart(self, commands: Iterable[Command]) -> None:
        self._apart |= dict.fromkeys(c.command_id for c in commands)
        while len(self._apart) > MOST_KEPT_APART:
            del self._apart[next(iter(self._apart))]

    # The org

    async def _write(self, sends: Sequence[Send]) -> Sequence[WriteOutcome | TransientError]:
        """One write goes at once as a row call where its condition fits into a header; all else goes together."""
        if len(sends) == 1 and sends[0].by_header:
            try:
                return [await self._org.write(replace(sends[0].write, only_if=None))]
            except TransientError as error:
                return [error]
        return await self._org.write_many([replace(send.write, if_unmodified_since_ms=None) for send in sends])

    def tell(self, planned: Planned) -> None:
        """Log what has been settled, and wake whoever publishes it."""
        for seconds in planned.waits_s:
            self._due_in(seconds)
        planned.waits_s.clear()
        settled, planned.settled = planned.settled, []
        alike: dict[tuple[CommandStatus, int, tuple[str, ...]], list[str]] = {}
        for done in settled:
            codes = tuple(sorted({problem["code"] for problem in done.errors}))
            alike.setdefault((done.status, done.attempts, codes), []).append(done.command_id)
        for (status, attempts, codes), ids in alike.items():
            log.info(
                "command.settled",
                command_id=ids[0],
                commands=len(ids),
                status=status,
                attempts=attempts,
                codes=list(codes),
            )
        if settled:
            self._settled()


def _waiting(command: Command) -> Command:
    return replace(command, status=CommandStatus.ACCEPTED, sent=None, carried_by=None, ingest=None, retry_ms=None)


def _not_now(errors: tuple[OrgProblem, ...]) -> TransientError:
    named = ", ".join(sorted({problem["code"] for problem in errors}))
    if is_daily_limit(errors):
        return OrgThrottled(named, retry_after_s=wait_s(errors))
    return RowLocked(named, retry_after_s=wait_s(errors))


def _down(outcome: object) -> TransientError | None:
    """The error if it is one that another write would meet as well."""
    return outcome if isinstance(outcome, (LinkDown, LoginRefused, OrgUnavailable, OrgThrottled)) else None
