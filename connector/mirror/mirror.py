"""Keeps the copy in step: asks what there is, lists it, and takes the changes in version order; see DESIGN.md."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import structlog

from connector.errors import PoisonError, TransientError
from connector.mirror import copying
from connector.mirror.messages import Reply, Table, birth, change, change_event, row, table
from connector.mirror.origin import Copy
from connector.mirror.questions import Questions, Refused
from connector.mirror.state import ObjectState
from connector.model.change import Change
from connector.model.message import Delivery
from connector.ports import Replica, Unit

log = structlog.get_logger()

# Published changes that wait in memory; beyond it the oldest are dropped, and asked for when their turn comes.
MAX_LIVE = 1000
BATCH = 200
BACKOFF_FIRST_S = 0.5
# Changes that do not fit the table say that the object has changed: it is asked for, at most this often.
MISFIT_EVERY_S = 5.0

State = Literal["waiting", "loading", "live"]


class _Anew(Exception):
    """What is here cannot be gone on from: everything must be copied again, as of the reply that showed it."""

    def __init__(self, reason: str, replica: str, version: int) -> None:
        super().__init__(reason)
        self.replica = replica
        self.version = version


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorRules:
    """What of the settings concerns the mirror.

    Attributes:
        check_s: How often the copy is compared with what the connector says that there is.
        backoff_max_s: Longest wait between two tries.
    """

    check_s: float
    backoff_max_s: float


class Mirror:
    """One copy of one replica.

    Attributes:
        state: `waiting` for the connector or the broker, `loading` while objects are listed, else `live`.
        version: Of the newest change that is here.
        as_of_ms: When the connector last confirmed that nothing is missing; None: not yet.
        changed: Set when `state` has changed.
    """

    def __init__(
        self,
        *,
        replica: Replica,
        questions: Questions,
        rules: MirrorRules,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._replica = replica
        self._questions = questions
        self._rules = rules
        self._now_ms = now_ms
        self._rng = rng
        self._live: deque[Change] = deque(maxlen=MAX_LIVE)
        self._news = asyncio.Event()
        self._suspected = asyncio.Event()
        self._connected = asyncio.Event()
        self._birth: str | None = None
        self._copy = Copy("", 0)
        self._objects: dict[str, ObjectState] = {}
        self._trusted = False  # that the connector's log is the one that ours is a copy of
        self._check_due_s = 0.0
        self._misfit_s = float("-inf")
        self.state: State = "waiting"
        self.version = 0
        self.as_of_ms: int | None = None
        self.changed = asyncio.Event()

    @property
    def copied(self) -> Sequence[str]:
        """The objects whose every record has been listed."""
        return [name for name, state in self._objects.items() if state.phase == "done"]

    # What the mesh tells

    def link_up(self) -> None:
        """The connection is there: what was missed meanwhile must be asked for."""
        self._suspect()
        self._connected.set()

    def link_down(self) -> None:
        """The connection has ended."""
        self._connected.clear()
        self._questions.give_up("the connection to the broker ended")
        self._tell("waiting")

    def take_change(self, delivery: Delivery) -> None:
        """A change was published; a retained one was not, as far as the interface goes."""
        if delivery.retained:
            return
        try:
            self._live.append(change_event(delivery.payload))
        except PoisonError as error:
            # Its version is missed when the next one comes, or with the next check.
            log.warning("mirror.change_unreadable", bytes=len(delivery.payload), error=str(error))
        self._news.set()

    def take_status(self, delivery: Delivery) -> None:
        """The connector came, or went."""
        with contextlib.suppress(PoisonError):
            since = birth(delivery.payload)
            if since is None or since == self._birth:
                return
            if self._birth is not None:
                self._questions.give_up("the connector was started again")
            self._birth = since
            self._suspect()

    def _suspect(self) -> None:
        """Behind the topics there may be another database than before, or an earlier state of it."""
        self._trusted = False
        self._suspected.set()
        self._news.set()

    # The loop

    async def run(self) -> None:
        """Keep in step until cancelled.

        Raises:
            FatalError: Of the store.
        """
        await self._replica.run(self._restore)
        wait_s = BACKOFF_FIRST_S
        while True:
            await self._connected.wait()
            try:
                await self._step()
                wait_s = BACKOFF_FIRST_S
            except _Anew as found:
                await self._begin_anew(found)
            except (TransientError, PoisonError) as error:
                self._tell("waiting")
                self._trusted = False
                log.warning("mirror.waits", error=str(error), retry_in_s=round(wait_s, 1))
                await self._back_off(wait_s * self._rng.uniform(0.5, 1.0))
                wait_s = min(wait_s * 2, self._rules.backoff_max_s)

    async def _step(self) -> None:
        """Some work, the most urgent first; waits where there is none."""
        if not self._trusted or self._now_s() >= self._check_due_s:
            await self._check()
        if self._live:
            await self._take_live()
        listed = next((state for state in self._objects.values() if state.phase != "done"), None)
        self._tell("live" if listed is None else "loading")
        if listed is not None:
            await self._go_on(listed)
        elif not self._live and self._trusted:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._check_due_s - self._now_s())):
                    await self._news.wait()

    async def _back_off(self, wait_s: float) -> None:
        """Wait a while, or until the connector comes."""
        self._suspected.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._suspected.wait()

    def _restore(self, unit: Unit) -> None:
        self._copy = Copy.stored(unit) or self._copy
        self.version = unit.last_version()

    async def _begin_anew(self, found: _Anew) -> None:
        work = partial(copying.begin_anew, replica=found.replica, version=found.version, at_ms=self._now_ms())
        self._copy = await self._replica.run(work)
        log.info("mirror.begun_anew", reason=str(found), version=found.version)
        self.version = found.version
        self._objects.clear()
        self._trusted = False

    # What there is

    async def _check(self) -> None:
        """Compare what the connector has with what is here, and get what is missing.

        Raises:
            _Anew: Its database is another one, or was put back to an earlier state.
        """
        suspected, self._trusted = not self._trusted, True  # whoever suspects meanwhile is heard afterwards
        tables = await self._described()
        for told in tables:
            await self._remember(told.object)
        if suspected:
            await self._compare_newest()
        await self._catch_up()
        for told in tables:
            if told.loaded is not None and (
                told.object not in self._objects or self._objects[told.object].table != told
            ):
                work = partial(copying.begin_object, copy=self._copy, told=told, at_ms=self._now_ms())
                self._objects[told.object] = await self._replica.run(work)
                log.info("mirror.object_begun", object=told.object, fields=len(told.fields))
        self._check_due_s = self._now_s() + self._rules.check_s

    async def _described(self) -> Sequence[Table]:
        tables: list[Table] = []
        query: dict[str, Any] = {}
        while True:
            reply = await self._ask("_all", "describe", query)
            tables += [table(told) for told in reply.records]
            if reply.next is None:
                return tables
            if not reply.records or reply.next != tables[-1].object:
                raise PoisonError("describe: the next page does not follow")
            query = {"after": reply.next}

    async def _remember(self, name: str) -> None:
        """How far the object was before this process."""
        if name not in self._objects:
            state = await self._replica.run(partial(ObjectState.stored, name=name, copy=self._copy))
            if state is not None:
                self._objects[name] = state

    async def _compare_newest(self) -> None:
        """Check that the newest change here is that of the same version there.

        A database that was put back from a backup has the same id, and gives versions out a second time.
        """
        newest = next(iter(await self._replica.run(lambda unit: unit.changes(unit.last_version() - 1, 1))), None)
        if newest is None:
            return
        try:
            reply = await self._ask("_all", "changes", {"since": newest.version - 1, "limit": 1})
        except Refused as refused:
            if refused.code != "snapshot_required":
                raise
            return  # trimmed there, or never given out: the question behind `newest` will tell
        if [_told(change(found, 0)) for found in reply.records] != [_told(newest)]:
            raise _Anew("went_back", reply.replica, reply.version)

    async def _ask(self, object_name: str, verb: str, query: Mapping[str, Any]) -> Reply:
        """The answer, of the replica that this is a copy of.

        Raises:
            _Anew: It is another replica's.
        """
        reply = await self._questions.ask(object_name, verb, query)
        if reply.replica != self._copy.replica:
            raise _Anew("new_replica", reply.replica, reply.version)
        return reply

    # Changes

    async def _catch_up(self) -> None:
        """Get every change that is not here yet.

        Raises:
            _Anew: The connector's log does not reach back that far.
        """
        while True:
            try:
                reply = await self._ask("_all", "changes", {"since": self.version})
            except Refused as refused:
                if refused.code != "snapshot_required":
                    raise
                reply = await self._ask("_all", "describe", {"limit": 1})
                raise _Anew("snapshot_required", reply.replica, reply.version) from refused
            await self._take([change(told, self._now_ms()) for told in reply.records])
            if reply.next is None:
                self.as_of_ms = self._now_ms()
                return
            if reply.next != self.version:
                raise PoisonError("changes: the next page does not follow")

    async def _take_live(self) -> None:
        """Take the changes that were published, as far as they follow; ask for those that are missing."""
        live, following = self._live, list[Change]()
        while live and live[0].version <= self.version:
            live.popleft()
        while live and len(following) < BATCH and live[0].version == self.version + 1 + len(following):
            following.append(live.popleft())
        if following:
            await self._take(following)
            self.as_of_ms = self._now_ms()
        elif live:
            log.info("mirror.changes_missed", after_version=self.version, next_version=live[0].version)
            await self._catch_up()

    async def _take(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        done = [state.table for state in self._objects.values() if state.phase == "done"]
        try:
            await self._replica.run(
                lambda unit: copying.take_changes(unit, changes=changes, done=done, at_ms=self._now_ms())
            )
        except ValueError as error:
            raise PoisonError(str(error)) from error
        self.version = changes[-1].version
        self._look_for_misfits(changes)

    def _look_for_misfits(self, changes: Sequence[Change]) -> None:
        now_s = self._now_s()
        if now_s - self._misfit_s < MISFIT_EVERY_S:
            return
        fields = {name: {f.name for f in state.table.fields} for name, state in self._objects.items()}
        for one in changes:
            if one.record is not None and one.object in fields and one.record.keys() != fields[one.object]:
                self._misfit_s = self._check_due_s = now_s
                return

    # Records

    async def _go_on(self, state: ObjectState) -> None:
        """List the next page of an object, or apply the changes that came while it was listed."""
        name, now_ms = state.table.object, self._now_ms()
        if state.phase == "replay":
            state = await self._replica.run(partial(copying.replay, state=state, at_ms=now_ms))
            if state.phase == "done":
                log.info("mirror.object_copied", object=name)
        else:
            reply = await self._ask(name, "list", {} if state.after is None else {"after": state.after})
            rows = [row(told) for told in reply.records]
            ids = [state.after_id or "", *(one.id for one in rows)]
            if ids != sorted(set(ids)) or (reply.next is not None and not rows):
                raise PoisonError(f"{name}: the page does not follow")
            if rows and rows[0].values.keys() != {field.name for field in state.table.fields}:
                raise TransientError(f"{name}: its fields have changed")
            following = None if reply.next is None else str(reply.next)
            state = await self._replica.run(
                lambda unit: copying.take_page(unit, state, rows, following, reply.version, now_ms)
            )
        self._objects[name] = state

    def _tell(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.changed.set()

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _told(one: Change) -> tuple[object, ...]:
    """What a message tells of a change."""
    return (
        one.version,
        one.object,
        one.id,
        one.operation,
        one.changed,
        one.before,
        one.after,
        one.record,
        one.origin,
        one.command_id,
        one.commit,
    )
