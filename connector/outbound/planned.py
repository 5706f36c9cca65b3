"""What a batch of commands is made of, on its way from planning to results."""

from collections.abc import Iterable, Sequence
from dataclasses import field

from connector.errors import TransientError
from connector.model.command import Command, OrgProblem
from connector.model.noun import dataclass
from connector.model.objects import ObjectSpec
from connector.outbound.asking import Answer
from connector.outbound.steps import Ask, Send

MOST_KEPT_APART = 1000


@dataclass(frozen=True, slots=True)
class Group:
    """A command, and those that wait behind it on its record."""

    head: Command
    behind: tuple[Command, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them."""
        return (self.head.command_id, *(c.command_id for c in self.behind))


class InHand:
    """What batches remember from one unit to the next; a restart may forget it.

    Attributes:
        busy: Commands that a batch has taken; a second one leaves them alone.
        apart: Edits that were refused together go one by one, so that each gets its own answer.
    """

    def __init__(self) -> None:
        self.busy: set[str] = set()
        self.apart: dict[str, None] = {}

    def keep_apart(self, commands: Iterable[Command]) -> None:
        """Do not merge these; the oldest are forgotten beyond a number."""
        self.apart |= dict.fromkeys(c.command_id for c in commands)
        while len(self.apart) > MOST_KEPT_APART:
            del self.apart[next(iter(self.apart))]


@dataclass(slots=True)
class Planned:
    """What one unit decided for a batch."""

    asks: list[tuple[Group, Ask]] = field(default_factory=list)
    sends: list[tuple[Group, Send]] = field(default_factory=list)
    specs: dict[str, ObjectSpec] = field(default_factory=dict)
    settled: list[Command] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    back: dict[tuple[str, float | None, bool], tuple[TransientError, list[Command]]] = field(default_factory=dict)

    def give_back(self, commands: Iterable[Command], error: TransientError, *, lost: bool) -> None:
        """They wait for another try; those with the same reason go together again."""
        key = (str(error), error.retry_after_s, lost)
        self.back.setdefault(key, (error, []))[1].extend(commands)


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch.

    Attributes:
        groups: What is still open after planning.
        planned: The first steps.
        count: Heads looked at, those that needed no call included.
    """

    groups: Sequence[Group]
    planned: Planned
    count: int


class Conclusion:
    """What a round leaves to be done in the next one."""

    def __init__(self, answers: dict[str, Answer], refused: dict[str, tuple[OrgProblem, ...]]) -> None:
        self.answers = answers
        self.refused = refused
        self.again: list[Group] = []
        self.asks: list[Ask] = []

    def ask(self, group: Group, ask: Ask) -> None:
        """The group goes on once this is answered."""
        self.again.append(group)
        self.asks.append(ask)
