"""The units that store what the org said to a batch's writes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from connector.errors import LinkDown, OrgThrottled, RowLocked, TransientError
from connector.model.change import Operation
from connector.model.codes import HALTED, Reaction, is_daily_limit, reaction_to, wait_s
from connector.model.command import CommandStatus, OrgProblem
from connector.model.ids import to_record_id
from connector.outbound.ending import Ending, waiting
from connector.outbound.planned import Conclusion, Group, InHand, Planned
from connector.outbound.steps import Ask, Question, Remote, Send
from connector.ports import Unit, WriteOutcome

# The org fails on this very record, again and again.
MOST_UNCERTAIN = 10
PRECONDITION_FAILED = 412


class Outcomes:
    """Every method is for one unit."""

    def __init__(self, *, in_hand: InHand, ending: Ending, now_ms: Callable[[], int]) -> None:
        self._in_hand = in_hand
        self._ending = ending
        self._now_ms = now_ms

    def conclude(
        self,
        planned: Planned,
        outcomes: Sequence[WriteOutcome | TransientError],
        concluded: Conclusion,
        unit: Unit,
    ) -> None:
        """Store the outcome of each write; what the next round has to do goes to `concluded`."""
        for (group, send), outcome in zip(planned.sends, outcomes, strict=True):
            if isinstance(outcome, TransientError):
                planned.give_back(send.commands, outcome, lost=isinstance(outcome, LinkDown))
            elif not outcome.errors:
                self._succeeded(unit, planned, send, outcome)
            else:
                self._refused(unit, planned, (group, send), outcome, concluded)
        self._ending.release(unit, planned)

    def settle(self, planned: Planned, outcomes: Sequence[WriteOutcome | TransientError], unit: Unit) -> None:
        """The same where no round follows: what needs another look at the org waits for its turn."""
        concluded = Conclusion({}, {})
        self.conclude(planned, outcomes, concluded, unit)
        for command_id in (i for group in concluded.again for i in group.ids):
            command = unit.command(command_id)
            if command is not None and command.status is CommandStatus.SENDING:
                unit.update_command(waiting(command))

    def give_up_for_now(self, groups: Sequence[Group], unit: Unit) -> Planned:
        """Back into the queue with what has been tried too often."""
        planned, error = Planned(), RowLocked("somebody else keeps writing these records")
        for group in groups:
            found = [unit.command(i) for i in group.ids]
            planned.give_back([c for c in found if c is not None and not c.status.final], error, lost=False)
        self._ending.release(unit, planned)
        return planned

    def _succeeded(self, unit: Unit, planned: Planned, send: Send, outcome: WriteOutcome) -> None:
        written_ms = outcome.server_ms or self._now_ms()
        for command in send.commands:
            record_id = to_record_id(outcome.id) if outcome.id else command.record_id
            self._ending.finish(
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
                self._in_hand.keep_apart(send.commands)
                for one in send.commands:
                    unit.update_command(waiting(one))
            case _:
                self._finish_all(unit, planned, send, CommandStatus.FAILED, errors)

    def _finish_all(
        self, unit: Unit, planned: Planned, send: Send, status: CommandStatus, errors: tuple[OrgProblem, ...]
    ) -> None:
        for command in send.commands:
            self._ending.finish(unit, planned, command, status=status, errors=errors)


def _not_now(errors: tuple[OrgProblem, ...]) -> TransientError:
    named = ", ".join(sorted({problem["code"] for problem in errors}))
    if is_daily_limit(errors):
        return OrgThrottled(named, retry_after_s=wait_s(errors))
    return RowLocked(named, retry_after_s=wait_s(errors))
