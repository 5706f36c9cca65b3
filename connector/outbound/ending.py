"""How a command leaves a batch: with its result, or back into the queue; inside the unit that decides it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from connector.errors import LoginRefused
from connector.model.command import Command, CommandStatus
from connector.model.message import Message
from connector.outbound.planned import InHand, Planned
from connector.ports import Unit

log = structlog.get_logger()

FIRST_BACKOFF_S = 0.5


class Ending:
    """Stores ends and retries."""

    def __init__(
        self,
        *,
        in_hand: InHand,
        result: Callable[[Command], Sequence[Message]],
        backoff_max_s: float,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._in_hand = in_hand
        self._result = result
        self._backoff_max_s = backoff_max_s
        self._now_ms = now_ms
        self._rng = rng

    def finish(self, unit: Unit, planned: Planned, command: Command, **end: Any) -> None:
        """The command's end and its result; `end`: what of the command is new."""
        done = replace(command, **end, completed_ms=self._now_ms(), retry_ms=None, ingest=None)
        unit.update_command(done)
        if done.status is CommandStatus.SUCCEEDED and done.written_ms is None and not done.answer_lost:
            unit.echo_seen(done.command_id, 0)  # nothing was written: no change will come
        for message in self._result(done):
            unit.enqueue(message)
        self._in_hand.apart.pop(done.command_id, None)
        planned.settled.append(done)

    def release(self, unit: Unit, planned: Planned) -> None:
        """Back into the queue, those with the same reason to the same time."""
        for (_, _, lost), (error, commands) in planned.back.items():
            attempts, waits_s = max(c.attempts for c in commands), error.retry_after_s
            if isinstance(error, LoginRefused):
                waits_s = None  # the writer waits; a restart with other credentials need not
            if waits_s is None:
                longest_s = min(self._backoff_max_s, FIRST_BACKOFF_S * 2 ** min(attempts, 20))
                waits_s = longest_s * self._rng.uniform(0.5, 1.0)
            retry_ms = self._now_ms() + int(waits_s * 1000)
            for command in commands:
                unit.update_command(replace(waiting(command, lost=lost), retry_ms=retry_ms))
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


def waiting(command: Command, *, lost: bool = False) -> Command:
    """The command as it is while nothing is under way with it; `lost`: nobody knows whether the org took it.

    What it was sent as is kept then: it decides what a repeat may write. Else it is planned afresh.
    """
    waits = replace(command, status=CommandStatus.ACCEPTED, ingest=None, retry_ms=None)
    if lost or command.answer_lost:
        return replace(waits, answer_lost=True)
    return replace(waits, sent=None, carried_by=None)
