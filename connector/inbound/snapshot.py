"""First loads, and the reading again of objects whose fields changed.

REST pages are keyset queries by Id, each with a fence of its own, so a load resumes at the last id as if nothing had
happened. A Bulk result is one long read under one fence; resumed in a later run, all of it counts as overtaken.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import structlog

from connector.errors import ConnectorError, OrgRefused, PoisonError, TransientError
from connector.inbound.apply import Applied, apply_reads
from connector.inbound.catalog import SpecChanged
from connector.inbound.fence import ReadFence
from connector.inbound.loaded import apply_loaded
from connector.inbound.progress import LoadState, PollMark
from connector.inbound.reading import csv_page
from connector.inbound.rounds import Backoff, Stopwatch, Tools, is_stale, last_id, readable
from connector.model.change import Origin
from connector.model.ids import RecordId
from connector.model.objects import ObjectSpec
from connector.model.record import ReadPage
from connector.model.times import to_iso, to_ms
from connector.ports import BulkPage, Purpose, QueryPage, Unit

T = TypeVar("T")

log = structlog.get_logger()

PAGE_ROWS = 2000
# An org whose loads are refused is asked again this seldom.
REFUSED_RETRY_S = 300.0
_JOB_POLL_FIRST_S = 0.2
_JOB_POLL_MAX_S = 10.0
_DAY_MS = 24 * 3600 * 1000

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRules:
    """What of the settings concerns loads.

    Attributes:
        bulk_threshold: Records, above which the Bulk API is taken.
        publish_backfill: Publish the records of a first load as changes.
        subscribe_wait_s: How long to wait for the stream before loading without it.
    """

    bulk_threshold: int
    publish_backfill: bool
    subscribe_wait_s: float = 30.0


class Loader:
    """One job: loads what is not loaded, one object after the other."""

    def __init__(
        self,
        tools: Tools,
        rules: LoadRules,
        *,
        subscribed: asyncio.Event,
        progress: Progress = lambda _name, _done, _total: None,
        on_loaded: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """`progress` gets rows done and in total per object; `on_loaded` is told when an object is complete."""
        self._tools = tools
        self._rules = rules
        self._subscribed = subscribed
        self._progress = progress
        self._on_loaded = on_loaded
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._own_jobs: set[str] = set()
        self._waits_until_s: float | None = None

    def wake(self, _name: str = "") -> None:
        """There may be something to load."""
        self._idle.clear()
        self._wake.set()

    async def finished(self) -> None:
        """Return once every object is loaded."""
        await self._idle.wait()

    async def run(self) -> None:
        """Load, then wait for more; does not end.

        Raises:
            LoginRefused, StoreFull, StoreUnusable
        """
        backoff = Backoff(self._tools.rng, self._tools.backoff_max_s)
        while True:
            self._wake.clear()
            wait_s = await self._load_all(backoff)
            if wait_s is None:
                backoff.reset()
                if not self._wake.is_set():
                    self._idle.set()
                await self._wake.wait()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def load(self, name: str) -> None:
        """Load one object to its end, from where an earlier load stopped.

        Raises:
            TransientError: Try again later; what is loaded stays.
            OrgRefused: The org refuses to be asked for it.
        """
        state = await self._tools.replica.run(partial(LoadState.stored, name=name)) or LoadState()
        if state.state == "done":
            return
        spec = self._tools.catalog.specs[name]
        watch = Stopwatch(self._tools, Purpose.LOAD)
        if state.via is None:
            state = await self._begin(spec, state)
        self._progress(name, state.done, state.total)
        state = await (self._by_bulk(spec, state) if state.via == "bulk" else self._by_rest(spec, state))
        await self._tools.replica.run(lambda unit: self._finish(unit, spec, state))
        log.info("load.finished", object=name, records=state.done, kind=state.kind, via=state.via)
        self._progress(name, state.done, state.done)
        self._on_loaded(name)
        await watch.report("load" if state.kind == "first" else "reread", (name,), state.done)

    async def _load_all(self, backoff: Backoff) -> float | None:
        """One pass over the objects; returns how long to wait before the next, None if nothing is left."""
        waits: list[float] = []
        catalog = self._tools.catalog
        for name in [n for n in catalog.specs if catalog.usable(n)]:
            state = await self._tools.replica.run(partial(LoadState.stored, name=name))
            if state is not None and state.state == "done":
                continue
            await self._await_stream()
            watch = Stopwatch(self._tools, Purpose.LOAD)
            try:
                await self.load(name)
            except SpecChanged:
                waits.append(0.0)
            except (TransientError, PoisonError) as error:
                waits.append(await self._failed(name, error, backoff, watch))
        return min(waits) if waits else None

    async def _failed(self, name: str, error: ConnectorError, backoff: Backoff, watch: Stopwatch) -> float:
        log.warning("load.failed", object=name, error=str(error))
        await watch.report("load", (name,), error=error)
        if isinstance(error, OrgRefused) and is_stale(error) and await self._tools.catalog.refresh(name):
            return 0.0
        return backoff.next_s(error.retry_after_s) if isinstance(error, TransientError) else REFUSED_RETRY_S

    async def _await_stream(self) -> None:
        """Events from before the load's end must not fall between: the stream comes first, if it comes.

        All objects together wait for it no longer than one does.
        """
        if self._waits_until_s is None:
            self._waits_until_s = asyncio.get_running_loop().time() + self._rules.subscribe_wait_s
        try:
            async with asyncio.timeout_at(self._waits_until_s):
                await self._subscribed.wait()
        except TimeoutError:
            log.warning("load.started_without_stream", waited_s=self._rules.subscribe_wait_s)

    async def _begin(self, spec: ObjectSpec, state: LoadState) -> LoadState:
        page = await self._tools.org.query(f"SELECT COUNT() FROM {spec.name}", Purpose.LOAD)  # noqa: S608  # an API name that was checked
        via: Literal["bulk", "rest"] = "bulk" if page.total_count > self._rules.bulk_threshold else "rest"
        begun = replace(state, via=via, total=page.total_count, started=to_iso(page.server_ms))
        await self._store(spec, begun)
        log.info("load.started", object=spec.name, records=page.total_count, via=via, kind=state.kind)
        return begun

    async def _by_rest(self, spec: ObjectSpec, state: LoadState) -> LoadState:
        """While a page is stored the next one is asked for: what of the time is ours hides behind the org's."""
        async with contextlib.AsyncExitStack() as asking:
            fence, asked = await asking.enter_async_context(self._asking(spec, state.after))
            while True:
                page = await asked
                if not page.records:
                    return state
                own_fence, storing = fence, asking.pop_all()
                state = replace(state, after=last_id(page.records), done=state.done + len(page.records))
                last = page.next_url is None and len(page.records) < PAGE_ROWS
                async with storing:
                    if not last:
                        fence, asked = await asking.enter_async_context(self._asking(spec, state.after))
                    read = await readable(self._tools, spec, page.records)
                    state = await self._page(spec, read, own_fence, state)
                if last:
                    return state

    @contextlib.asynccontextmanager
    async def _asking(
        self, spec: ObjectSpec, after: RecordId | None
    ) -> AsyncIterator[tuple[ReadFence, asyncio.Task[QueryPage]]]:
        """A page that is being asked for, and the fence that was opened before; nobody waits for it afterwards."""
        where = f" WHERE Id > '{after}'" if after else ""
        columns = ", ".join(spec.read_fields())
        soql = f"SELECT {columns} FROM {spec.name}{where} ORDER BY Id LIMIT {PAGE_ROWS}"  # noqa: S608  # API names and an id, all checked
        with self._tools.applying.fences.open(spec.name) as fence:
            async with _meanwhile(spec, self._tools.org.query(soql, Purpose.LOAD)) as asked:
                yield fence, asked

    async def _by_bulk(self, spec: ObjectSpec, state: LoadState) -> LoadState:
        known = state.job is None or state.job in self._own_jobs
        with self._tools.applying.fences.open(spec.name, complete=known) as fence:
            try:
                state = await self._job(spec, state)
                return await self._bulk_pages(spec, state, fence)
            except OrgRefused as error:
                if is_stale(error):
                    raise
                # No Bulk API for us, or the job is gone or failed: the rows are there for the asking in the other way.
                log.warning("load.job_given_up", object=spec.name, error=str(error))
                state = replace(state, via="rest", job=None, locator=None, after=None, done=0)
                await self._store(spec, state)
        return await self._by_rest(spec, state)

    async def _job(self, spec: ObjectSpec, state: LoadState) -> LoadState:
        """A complete job."""
        org = self._tools.org
        if state.job is None:
            soql = f"SELECT {', '.join(spec.read_fields())} FROM {spec.name}"  # noqa: S608  # API names, checked
            job = await org.start_bulk_query(soql, Purpose.LOAD)
            self._own_jobs.add(job.id)
            state = replace(state, job=job.id)
            await self._store(spec, state)
        wait_s = _JOB_POLL_FIRST_S
        while True:
            job = await org.bulk_job(state.job or "", Purpose.LOAD)
            if job.state == "JobComplete":
                return state
            if job.state in ("Failed", "Aborted"):
                raise OrgRefused(200, ({"code": "JOB_FAILED", "message": job.error or job.state, "fields": []},))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _JOB_POLL_MAX_S)

    async def _bulk_pages(self, spec: ObjectSpec, state: LoadState, fence: ReadFence) -> LoadState:
        """As by REST, the next page is asked for while one is stored."""
        org, job = self._tools.org, state.job or ""
        async with contextlib.AsyncExitStack() as asking:
            first = org.bulk_page(job, state.locator, Purpose.LOAD)
            asked = await asking.enter_async_context(_meanwhile(spec, first))
            while True:
                page = await asked
                async with asking.pop_all():
                    if page.locator is not None:
                        following = org.bulk_page(job, page.locator, Purpose.LOAD)
                        asked = await asking.enter_async_context(_meanwhile(spec, following))
                    state = await self._bulk_rows(spec, page, fence, state)
                if page.locator is None:
                    break
        try:
            await org.delete_bulk_job(job, Purpose.LOAD)
        except (TransientError, OrgRefused) as error:
            log.info("load.job_left", object=spec.name, job=job, error=str(error))
        self._own_jobs.discard(job)
        return state

    async def _bulk_rows(self, spec: ObjectSpec, page: BulkPage, fence: ReadFence, state: LoadState) -> LoadState:
        """Store a page, a part at a time; the position moves with the last one."""
        parts = range(0, len(page.rows), PAGE_ROWS)
        for start in parts:
            rows = page.rows[start : start + PAGE_ROWS]
            read = await readable(self._tools, spec, rows, partial(csv_page, page.columns))
            state = replace(state, done=state.done + len(rows))
            if start == parts[-1]:
                state = replace(state, locator=page.locator)
            state = await self._page(spec, read, fence, state)
        return state if page.locator is None else replace(state, locator=page.locator)

    async def _page(self, spec: ObjectSpec, page: ReadPage, fence: ReadFence, state: LoadState) -> LoadState:
        state = state.seen(page.newest_ms)

        def work(unit: Unit) -> Applied:
            self._tools.catalog.expect(spec)
            state.store(unit, spec.name, self._tools.now_ms())
            return self._applied(unit, spec, page, fence, state)

        with self._tools.remembering():
            applied = await self._tools.replica.run(work)
        self._tools.applied(applied)
        self._progress(spec.name, state.done, max(state.total, state.done))
        return state

    def _applied(self, unit: Unit, spec: ObjectSpec, page: ReadPage, fence: ReadFence, state: LoadState) -> Applied:
        applying, first = self._tools.applying, state.kind == "first"
        if first and not self._rules.publish_backfill:
            return apply_loaded(applying, unit, spec, page, fence=fence)
        return apply_reads(
            applying,
            unit,
            spec,
            list(page.records()),
            fence=fence,
            origin=Origin.BACKFILL if first else Origin.REPAIR,
            silent=False if first else frozenset(state.fields),
        )

    async def _store(self, spec: ObjectSpec, state: LoadState) -> None:
        def work(unit: Unit) -> None:
            self._tools.catalog.expect(spec)
            state.store(unit, spec.name, self._tools.now_ms())

        await self._tools.replica.run(work)

    def _finish(self, unit: Unit, spec: ObjectSpec, state: LoadState) -> None:
        self._tools.catalog.expect(spec)
        now_ms = self._tools.now_ms()
        replace(state, state="done", job=None, locator=None).store(unit, spec.name, now_ms)
        if state.kind == "reread" and PollMark.stored(unit, spec.name) is not None:
            return
        started_ms = to_ms(state.started or to_iso(now_ms))
        # The org's clock as far as its own stamps bear it out; an empty object may be polled from long ago.
        high_ms = min(started_ms, to_ms(state.newest)) if state.newest else started_ms - _DAY_MS
        PollMark(high_ms=high_ms, polled_ms=started_ms).store(unit, spec.name, now_ms)


@contextlib.asynccontextmanager
async def _meanwhile(spec: ObjectSpec, question: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """A question to the org that is under way; nobody waits for its answer afterwards."""
    asked = asyncio.create_task(question, name=f"load.{spec.name}")
    try:
        yield asked
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
