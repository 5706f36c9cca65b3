"""What a person may do to a command: try it again, or take it back."""

from dataclasses import replace

from connector.errors import CommandRejected
from connector.model.command import Command, CommandStatus, OrgProblem
from connector.model.objects import ObjectSpec
from connector.outbound.admit import based_on_replica
from connector.outbound.shown import Shown
from connector.ports import Unit

CANCELLED = "CANCELLED"


def retry(unit: Unit, command_id: str, spec: ObjectSpec | None, now_ms: int) -> Command:
    """Open a command again, in its old place among those on its record.

    What the replica shows now is what the person has seen: a conflict is decided anew from there. One whose fate was
    unknown is sent without a further look: the person has looked.

    Raises:
        CommandRejected: There is no such command, or nothing to try again.
    """
    command = _existing(unit, command_id)
    problem = _not_again(command)
    if problem is not None:
        raise CommandRejected(f"{command_id}: {problem}")
    if command.status is CommandStatus.ACCEPTED:
        again = replace(command, retry_ms=None)
    else:
        again = replace(
            command,
            status=CommandStatus.ACCEPTED,
            base=None,
            base_seq=None,
            expires_ms=None,
            errors=(),
            conflict=None,
            sent=None,
            carried_by=None,
            answer_lost=command.answer_lost and command.status is not CommandStatus.UNKNOWN,
            retry_ms=None,
            completed_ms=None,
        )
        if spec is not None:
            again = replace(
                based_on_replica(unit, Shown(unit, now_ms), spec, replace(again, accepted_ms=now_ms)),
                accepted_ms=command.accepted_ms,
            )
    unit.update_command(again)
    return again


def cancel(unit: Unit, command_id: str, now_ms: int) -> Command:
    """End a command that waits.

    `rejected` if it was never sent, `unknown` if the org may have taken it, else `failed`.

    Raises:
        CommandRejected: There is no such command, it is being sent, or it has its end.
    """
    command = _existing(unit, command_id)
    if command.status is not CommandStatus.ACCEPTED:
        sending = command.status is CommandStatus.SENDING
        raise CommandRejected(f"{command_id}: {'is being sent' if sending else f'is {command.status} already'}")
    if command.answer_lost:
        status = CommandStatus.UNKNOWN
    else:
        status = CommandStatus.FAILED if command.attempts else CommandStatus.REJECTED
    problem = OrgProblem(code=CANCELLED, message="taken back by a person", fields=[])
    ended = replace(command, status=status, errors=(problem,), retry_ms=None, completed_ms=now_ms)
    unit.update_command(ended)
    return ended


def _existing(unit: Unit, command_id: str) -> Command:
    command = unit.command(command_id)
    if command is None:
        raise CommandRejected(f"{command_id}: no such command")
    return command


def _not_again(command: Command) -> str | None:
    cancelled = any(problem["code"] == CANCELLED for problem in command.errors)
    match command.status:
        case CommandStatus.SUCCEEDED:
            return "has succeeded"
        case CommandStatus.SENDING:
            return "is being sent"
        case CommandStatus.REJECTED if not cancelled:
            return "was rejected: what it asked for is not kept; send it anew, with another id"
        case _:
            return None
