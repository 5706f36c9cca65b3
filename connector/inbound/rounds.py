"""What the parts of this way tell the rest, and what they all need."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from connector.errors import LinkDown, LoginRefused, OrgRefused
from connector.inbound.apply import Applied, Applying
from connector.inbound.catalog import Catalog, SpecChanged
from connector.inbound.reading import json_page
from connector.model.ids import RecordId, to_record_id
from connector.model.message import Message
from connector.model.objects import ObjectSpec
from connector.model.record import ReadPage
from connector.ports import Hole, OrgClient, OwnReplica, Purpose

log = structlog.get_logger()

# The org says so where our description of an object is out of date.
_STALE_CODES = frozenset({"INVALID_FIELD", "INVALID_TYPE"})

# So many, one by one, take two milliseconds, for which nothing else on the loop moves; a whole page takes no longer.
_ROWS_AT_A_TIME = 100

RoundKind = Literal["load", "reread", "catch_up", "poll", "sync", "repair", "reconcile", "verify", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of work, done or failed. A `stream` round: the stream came to life (error None) or broke.

    Attributes:
        objects: Those it was about; empty for the stream.
        records: Loads: records read. Others: changes made by it.
        error: None if it ended well; else what went wrong (it is being retried).
        person: The org refuses, or refuses the login: nobody but a person can mend it.
    """

    kind: RoundKind
    objects: tuple[str, ...]
    records: int = 0
    duration_s: float = 0.0
    api_calls: int = 0
    error: str | None = None
    person: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every part of this way is handed.

    Attributes:
        applying: The process's memory of recent applies.
        on_round: Told of every round; may write to the outbox.
        on_applied: Told of every committed batch or page (changes by object, newest version, lags).
        on_dirty: Told that records wait to be read again.
        hole_messages: What is published of a hole; enqueued in the unit that opens or closes it.
        calls: API calls made so far for a purpose.
    """

    org: OrgClient
    replica: OwnReplica
    catalog: Catalog
    applying: Applying
    rng: random.Random
    backoff_max_s: float
    on_round: Callable[[Round], Awaitable[None]]
    on_applied: Callable[[Applied], None]
    on_dirty: Callable[[], None]
    hole_messages: Callable[[Hole], Sequence[Message]]
    calls: Callable[[Purpose], int]

    @property
    def now_ms(self) -> Callable[[], int]:
        """The local clock."""
        return self.applying.now_ms

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Around a unit that applies: rolled back, what it noted is forgotten, or its events would count as had."""
        try:
            yield
        except BaseException:
            self.applying.memory.forget()
            raise

    def applied(self, applied: Applied) -> None:
        """To be called after the unit of an apply was committed."""
        self.on_applied(applied)
        if applied.dirty:
            self.on_dirty()


@dataclass(slots=True)
class Stopwatch:
    """Duration and API calls of a round."""

    tools: Tools
    purpose: Purpose
    started_s: float = 0.0
    calls: int = 0

    def __post_init__(self) -> None:
        self.started_s = asyncio.get_running_loop().time()
        self.calls = self.tools.calls(self.purpose)

    async def report(
        self, kind: RoundKind, objects: Sequence[str], records: int = 0, error: BaseException | None = None
    ) -> Round:
        """Tell of the round."""
        done = Round(
            kind=kind,
            objects=tuple(objects),
            records=records,
            duration_s=asyncio.get_running_loop().time() - self.started_s,
            # A count over a sliding day can fall meanwhile.
            api_calls=max(0, self.tools.calls(self.purpose) - self.calls),
            error=None if error is None else str(error) or type(error).__name__,
            person=isinstance(error, (OrgRefused, LoginRefused)),
        )
        await self.tools.on_round(done)
        return done


class Backoff:
    """Waits that grow, with jitter, and begin anew after a success."""

    def __init__(self, rng: random.Random, max_s: float, first_s: float = 0.5) -> None:
        self._rng = rng
        self._max_s = max_s
        self._first_s = min(first_s, max_s)
        self._failures = 0

    def next_s(self, asked_s: float | None = None) -> float:
        """How long to wait now; at least what the other side asked for."""
        grown = min(self._max_s, self._first_s * float(1 << min(self._failures, 30)))
        self._failures += 1
        return max(grown * self._rng.uniform(0.5, 1.0), asked_s or 0.0)

    def reset(self) -> None:
        """It worked."""
        self._failures = 0


def is_stale(error: OrgRefused) -> bool:
    """True if a refusal says that our description of the object is out of date."""
    return bool(error.codes & _STALE_CODES)


def last_id(rows: Sequence[Mapping[str, Any]]) -> RecordId:
    """Where a keyset query goes on.

    Raises:
        LinkDown: The answer is not one to the query that was sent.
    """
    try:
        return to_record_id(rows[-1]["Id"])
    except (KeyError, TypeError, ValueError):
        raise LinkDown("a record of the answer has no id") from None


async def readable(
    tools: Tools,
    spec: ObjectSpec,
    rows: Sequence[Any],
    read: Callable[[ObjectSpec, Sequence[Any]], ReadPage] = json_page,
) -> ReadPage:
    """The rows of an answer, at most 2,000, as records; a row that does not fit is left out and logged.

    Raises:
        SpecChanged: A row did not fit because the org describes the object otherwise by now.
    """
    await asyncio.sleep(0)
    try:
        return read(spec, rows)
    except ValueError:
        pass
    fitting: list[Any] = []
    misfits: list[str] = []
    for place, row in enumerate(rows):
        if not place % _ROWS_AT_A_TIME:
            await asyncio.sleep(0)
        try:
            read(spec, [row])
        except ValueError as error:
            misfits.append(str(error))
        else:
            fitting.append(row)
    if await tools.catalog.refresh(spec.name):
        raise SpecChanged(f"{spec.name}: its description changed")
    log.error("read.rows_unreadable", object=spec.name, rows=len(misfits), error=misfits[0])
    return read(spec, fitting)
