"""The units that plan a batch: which commands go now, what is next for each, its write on disk before it is made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from connector.errors import TransientError
from connector.model.change import Operation
from connector.model.command import Command, CommandStatus, IngestJob, OrgProblem
from connector.model.objects import ObjectSpec
from connector.outbound.asking import Answer
from connector.outbound.ending import FIRST_BACKOFF_S, Ending, waiting
from connector.outbound.lost import Found, Verdict
from connector.outbound.plan import Planner
from connector.outbound.planned import Group, InHand, Planned, Taken
from connector.outbound.rules import OutboundRules
from connector.outbound.shown import Shown
from connector.outbound.steps import MOST_MERGED, Ask, Finish, Question, Remote, Send, Wait
from connector.ports import Unit


class Catalog(Protocol):
    """What is known of the objects now."""

    def spec(self, name: str) -> ObjectSpec | None:
        """The object, or None if it is not synced."""
        ...


class Planning:
    """Takes commands out of the queue and plans them; every method is for one unit."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        rules: OutboundRules,
        in_hand: InHand,
        ending: Ending,
        now_ms: Callable[[], int],
        clock_ms: Callable[[], int | None],
    ) -> None:
        """`clock_ms`: the org's clock; None while it is not known."""
        self._catalog = catalog
        self._rules = rules
        self._in_hand = in_hand
        self._ending = ending
        self._now_ms = now_ms
        self._clock_ms = clock_ms

    @property
    def may_begin(self) -> bool:
        """The org's clock is known: without it nobody could tell later how long ago a lost write was sent."""
        return self._clock_ms() is not None

    def take(self, limit: int, unit: Unit) -> Taken:
        """The next commands that may go, planned."""
        now_ms, planned = self._now_ms(), Planned()
        heads = unit.next_commands(now_ms, limit + len(self._in_hand.busy))
        free = [head for head in heads if head.command_id not in self._in_hand.busy][:limit]
        groups = self._groups(unit, free)
        self._plan(unit, planned, groups, {}, {})
        open_groups = [group for group, _ in (*planned.asks, *planned.sends)]
        return Taken(open_groups, planned, len(groups))

    def again(
        self,
        planned: Planned,
        groups: Sequence[Group],
        answers: Mapping[str, Answer],
        refused: Mapping[str, tuple[OrgProblem, ...]],
        unit: Unit,
    ) -> None:
        """Plan the groups once more, with what is known by now."""
        fresh = []
        for group in groups:
            head = unit.command(group.head.command_id)
            behind = [unit.command(c.command_id) for c in group.behind]
            # A person may have cancelled one meanwhile.
            if head is not None and not head.status.final:
                fresh.append(Group(head, tuple(c for c in behind if c is not None and not c.status.final)))
        self._plan(unit, planned, fresh, answers, refused)

    def begin_for(self, unit: Unit, job: IngestJob, heads: Iterable[Command], fits: Callable[[Send], bool]) -> Planned:
        """Begin those writes that need no look at the org and that `fits` takes; the other commands are left alone.

        Call `Batches.tell` with what it returns.
        """
        planned, now_ms = Planned(), self._now_ms()
        spec, rules = self._catalog.spec(job.kind.object), self._rules.objects.get(job.kind.object)
        if spec is None or rules is None:
            return planned
        shown = Shown(unit, now_ms)
        planner = Planner(unit, spec, rules, now_ms, shown, settled_ms=self._settled_ms())
        groups = self._groups(unit, [head for head in heads if head.command_id not in self._in_hand.busy])
        shown.load(spec, [group.head.record_id for group in groups if group.head.record_id is not None])
        for group in groups:
            head = group.head
            match planner.plan(head, group.behind):
                case Finish(command):
                    self._ending.finish(unit, planned, command)
                case Send() as send if fits(send):
                    planned.sends.append((group, self._begun(unit, send, job.number)))
        return planned

    def _groups(self, unit: Unit, heads: Sequence[Command]) -> list[Group]:
        followed = unit.followed(heads)
        return [Group(head, self._behind(unit, head) if head.record_id in followed else ()) for head in heads]

    def _behind(self, unit: Unit, head: Command) -> tuple[Command, ...]:
        """What could go with it: waiting edits directly behind it."""
        if head.operation is not Operation.UPDATE or head.answer_lost or head.command_id in self._in_hand.apart:
            return ()
        behind = []
        for command in unit.commands_behind(head, MOST_MERGED):
            if command.command_id in self._in_hand.busy or command.command_id in self._in_hand.apart:
                break
            behind.append(command)
        return tuple(behind)

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
                self._ending.finish(
                    unit, planned, replace(group.head, status=CommandStatus.REJECTED, errors=(problem,))
                )
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
        self._ending.release(unit, planned)

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
            self._ending.finish(unit, planned, replace(group.head, status=CommandStatus.FAILED, errors=refusal))
            return
        remote = answer if isinstance(answer, Remote) else None
        step = planner.plan(group.head, group.behind, remote, found)
        covered: set[str] = set()
        match step:
            case Finish(command):
                self._ending.finish(unit, planned, command)
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
                unit.update_command(waiting(command))

    def _begun(self, unit: Unit, send: Send, ingest: int | None = None) -> Send:
        """The write as it is on disk before the org hears of it."""
        begun: dict[str, Any] = {"sent_ms": self._now_ms(), "began_ms": self._clock_ms(), "ingest": ingest}
        sending = tuple(
            replace(c, status=CommandStatus.SENDING, attempts=c.attempts + 1, **begun) for c in send.commands
        )
        unit.begin_commands(sending)
        return replace(send, commands=sending)

    def _settled_ms(self) -> int:
        """A request that was sent before this, by the org's clock, is no longer under way there."""
        return (self._clock_ms() or 0) - self._rules.settle_ms
