"""One batch of commands from planning to results.

Every step that the org sees is on disk before it is made: a command is `sending` from the unit that plans its write
until the unit that stores its outcome, and what is found `sending` at a start has lost its answer.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from connector.errors import LinkDown, LoginRefused, OrgThrottled, OrgUnavailable, TransientError
from connector.model.command import Command, CommandStatus, IngestJob, OrgProblem
from connector.model.message import Message
from connector.outbound.asking import Answer, Questions
from connector.outbound.ending import Ending, waiting
from connector.outbound.outcomes import Outcomes
from connector.outbound.planned import Conclusion, Group, InHand, Planned, Taken
from connector.outbound.planning import Catalog, Planning
from connector.outbound.rules import OutboundRules
from connector.outbound.steps import Send
from connector.ports import OrgClient, Replica, Unit, WriteOutcome

log = structlog.get_logger()

# Of one command in a batch: somebody else keeps writing its record, or its neighbours'.
MOST_ROUNDS = 6


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
        self._questions = questions
        self._settled = settled
        self._due_in = due_in
        self._in_hand = InHand()
        ending = Ending(in_hand=self._in_hand, result=result, backoff_max_s=rules.backoff_max_s, now_ms=now_ms, rng=rng)
        self._planning = Planning(
            catalog=catalog,
            rules=rules,
            in_hand=self._in_hand,
            ending=ending,
            now_ms=now_ms,
            clock_ms=org.clock_ms,
        )
        self._outcomes = Outcomes(in_hand=self._in_hand, ending=ending, now_ms=now_ms)

    async def take(self, limit: int) -> Taken:
        """The next commands that may go, planned; they are this batch's until `work` has ended with them."""
        taken = await self._replica.run(partial(self._planning.take, limit))
        self._in_hand.busy.update(i for group in taken.groups for i in group.ids)
        self.tell(taken.planned)
        return taken

    async def work(self, taken: Taken) -> TransientError | None:
        """Bring what was taken to its end; the error if every write of the batch failed with the link or the org."""
        try:
            return await self._work(taken.planned)
        finally:
            self._in_hand.busy.difference_update(i for group in taken.groups for i in group.ids)

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
                await self._replica.run(partial(self._outcomes.conclude, planned, outcomes, concluded))
                self.tell(planned)
                again += concluded.again
                if concluded.asks:
                    asked = await self._questions.answer(concluded.asks, planned.specs)
                    answers |= asked
            if not again:
                break
            planned = Planned(specs=planned.specs)
            await self._replica.run(partial(self._planning.again, planned, again, answers, refused))
            self.tell(planned)
        else:
            left = [group for group, _ in (*planned.asks, *planned.sends)]
            self.tell(await self._replica.run(partial(self._outcomes.give_up_for_now, left)))
        return down[0] if down and all(error is not None for error in down) else None

    # What an ingest job carries in the place of a call

    @property
    def may_begin(self) -> bool:
        """As of `Planning`."""
        return self._planning.may_begin

    def begin_for(self, unit: Unit, job: IngestJob, heads: Iterable[Command], fits: Callable[[Send], bool]) -> Planned:
        """As of `Planning`."""
        return self._planning.begin_for(unit, job, heads, fits)

    async def settle(
        self, sends: Sequence[tuple[Group, Send]], outcomes: Sequence[WriteOutcome | TransientError]
    ) -> None:
        """Store what became of writes that a job has made; what needs another look at the org waits for its turn."""
        planned = Planned(sends=list(sends))
        await self._replica.run(partial(self._outcomes.settle, planned, outcomes))
        self.tell(planned)

    async def untried(self, commands: Sequence[Command]) -> None:
        """They wait as before: the org has not heard of them."""

        def put_back(unit: Unit) -> None:
            for command in commands:
                unit.update_command(
                    replace(waiting(command), attempts=command.attempts - 1, sent_ms=None, began_ms=None)
                )

        await self._replica.run(put_back)

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


def _down(outcome: object) -> TransientError | None:
    """The error if it is one that another write would meet as well."""
    return outcome if isinstance(outcome, (LinkDown, LoginRefused, OrgUnavailable, OrgThrottled)) else None
