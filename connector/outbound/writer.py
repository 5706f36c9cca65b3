"""Sends accepted commands to the org, settles each and says what became of it: when to send, and how much at once."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from connector.errors import LoginRefused, OrgThrottled
from connector.model.command import Command
from connector.model.message import Message
from connector.outbound.asking import Questions
from connector.outbound.batch import Batches
from connector.outbound.bulk import BulkLane
from connector.outbound.ending import FIRST_BACKOFF_S, waiting
from connector.outbound.lost import Read
from connector.outbound.planned import Taken
from connector.outbound.planning import Catalog
from connector.outbound.rules import OutboundRules
from connector.ports import IngestClient, OrgClient, Replica, Unit

log = structlog.get_logger()

RETRY_LOOK_S = 1.0  # how often waiting retries, and commands that another process stored, are looked for
# One command that comes alone goes at once. While many come, they are gathered for so long, or until a call is full:
# every call costs of the org's quota of a day.
GATHER_S = 0.25
MOST_TAKEN = 400
_RECOVERED_AT_ONCE = 1000
# No retry is set for later: what is, was set by another clock, in an earlier run.
_LONGEST_WAIT_MS = 3600 * 1000


class CommandWriter:
    """One job: takes what may be sent, in order per record, a bounded number of batches at once."""

    def __init__(
        self,
        *,
        replica: Replica,
        org: OrgClient,
        ingest: IngestClient,
        catalog: Catalog,
        read: Read,
        result: Callable[[Command], Sequence[Message]],
        rules: OutboundRules,
        now_ms: Callable[[], int],
        rng: random.Random,
        settled: Callable[[], None],
    ) -> None:
        """`read` makes a record of a row of the REST API; `settled` is called after a result was stored."""
        self._replica = replica
        self._rules = rules
        self._now_ms = now_ms
        self._rng = rng
        self._batches = Batches(
            replica=replica,
            org=org,
            catalog=catalog,
            questions=Questions(org=org, replica=replica, read=read, rules=rules),
            result=result,
            rules=rules,
            now_ms=now_ms,
            rng=rng,
            settled=settled,
            due_in=self._wake_in,
        )
        self._bulk = BulkLane(
            replica=replica, client=ingest, batches=self._batches, rules=rules, now_ms=now_ms, rng=rng
        )
        # So much waits that an ingest job may be worth it; at the start nobody knows.
        self._long = True
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._stored_count = 0
        self._gathering = False
        self._looked_ms = 0  # the clock when commands were taken last
        self._held_ms = range(0)  # when nothing is sent, after a failure
        self._failed_in_a_row = 0
        self._under_way = 0
        self._draining = False

    def drain(self) -> None:
        """Begin nothing more; `run` returns once what is under way is settled."""
        self._draining = True
        self._bulk.drain()
        self._full.set()
        self._wake.set()

    def wake(self) -> None:
        """A command was stored."""
        self._stored_count += 1
        if self._stored_count >= MOST_TAKEN:
            self._full.set()
        self._wake.set()

    def _wake_in(self, wait_s: float) -> None:
        if wait_s < RETRY_LOOK_S:
            asyncio.get_running_loop().call_later(wait_s, self._wake.set)

    async def run(self) -> None:
        """Send until drained or cancelled.

        Raises:
            StoreBusy, StoreFull, StoreUnusable: Of the database.
        """
        await self._wait_no_longer(self._now_ms(), self._now_ms() + _LONGEST_WAIT_MS)
        while await self._replica.run(self._recover) == _RECOVERED_AT_ONCE:
            pass
        unended = await self._bulk.recover()
        try:
            async with asyncio.TaskGroup() as group:
                for job in unended:
                    group.create_task(self._bulk.work(job), name=f"commands.ingest.{job.number}")
                slots = asyncio.Semaphore(self._rules.parallel)
                while not self._draining:
                    self._wake.clear()
                    await self._begin_job(group)
                    if await self._take(group, slots):
                        continue
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(RETRY_LOOK_S):
                            await self._wake.wait()
        except BaseExceptionGroup as errors:
            # What failed in one batch: the others were cancelled, and are found `sending` at the next start.
            raise errors.exceptions[0] from errors

    def _recover(self, unit: Unit) -> int:
        """What was being sent when the process died is taken up again; its answer counts as lost."""
        found = unit.interrupted(_RECOVERED_AT_ONCE)
        for command in found:
            unit.update_command(waiting(command, lost=True))
            log.info("command.answer_lost", command_id=command.command_id, attempt=command.attempts)
        return len(found)

    async def _mind_the_clock(self) -> None:
        """What waits for a time of the clock before it was set back waits no more."""
        before_ms, self._looked_ms = self._looked_ms, self._now_ms()
        if self._looked_ms < before_ms:
            await self._wait_no_longer(self._looked_ms, self._looked_ms)

    async def _wait_no_longer(self, now_ms: int, until_ms: int) -> None:
        freed = await self._replica.run(lambda unit: unit.wait_no_longer(now_ms, until_ms))
        if freed:
            log.info("command.clock_set_back", commands=freed)

    async def _begin_job(self, group: asyncio.TaskGroup) -> None:
        """Put what a long queue holds of one kind into an ingest job, if that is to be."""
        if not self._long or not self._may_send():
            return
        job = await self._bulk.begin()
        if job is not None:
            group.create_task(self._bulk.work(job), name=f"commands.ingest.{job.number}")

    async def _take(self, group: asyncio.TaskGroup, slots: asyncio.Semaphore) -> bool:
        """Take one batch and begin it; False if there is nothing to take now."""
        if self._gathering:
            await self._gather()
        await slots.acquire()
        # While we waited for the slot, the one that had it may have met a spent budget.
        if self._draining or not self._may_send():
            slots.release()
            return False
        self._stored_count = 0
        self._full.clear()
        try:
            await self._mind_the_clock()
            taken = await self._batches.take(MOST_TAKEN)
        except BaseException:
            slots.release()
            raise
        self._gathering = 1 < taken.count < MOST_TAKEN
        self._long = taken.count == MOST_TAKEN
        if not taken.groups:
            slots.release()
            return taken.count > 0
        self._under_way += 1
        task = group.create_task(self._work(taken), name=f"commands.{taken.groups[0].head.command_id}")
        task.add_done_callback(partial(self._done, slots))
        return True

    async def _gather(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._full.wait()

    def _may_send(self) -> bool:
        # After a failure one batch goes ahead to see whether it is over.
        # A clock that was set back is before the range, and nobody waits for it.
        return self._now_ms() not in self._held_ms and not (self._failed_in_a_row and self._under_way)

    async def _work(self, taken: Taken) -> None:
        error = await self._batches.work(taken)
        if error is None:
            self._failed_in_a_row = 0
            return
        # The link, the org or the budget is everybody's: no other command would fare better.
        self._failed_in_a_row += 1
        longest_s = min(self._rules.backoff_max_s, FIRST_BACKOFF_S * 2 ** min(self._failed_in_a_row, 20))
        wait_s = error.retry_after_s if isinstance(error, OrgThrottled | LoginRefused) else None
        wait_s = wait_s if wait_s is not None else longest_s * self._rng.uniform(0.5, 1.0)
        now_ms = self._now_ms()
        self._held_ms = range(now_ms, now_ms + int(wait_s * 1000))

    def _done(self, slots: asyncio.Semaphore, _task: asyncio.Task[None]) -> None:
        self._under_way -= 1
        slots.release()
        self._wake.set()
