"""Running the parts: every task has a parent and a name, and each kind of error its one reaction."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from connector.errors import ConnectorError, TransientError

log = structlog.get_logger()

Job = Callable[[], Awaitable[None]]

BACKOFF_FIRST_S = 0.5
# A job that ran this long before it failed starts its back-off anew.
HEALTHY_AFTER_S = 60.0
# Some tools signal a process and then its group: two signals this close are one.
SAME_SIGNAL_S = 1.0


class StopRequested(Exception):
    """Told to stop; ends the task group of the intake."""


class Stop:
    """What a person, or the service manager, asks for.

    Attributes:
        asked: Stop, after what is under way.
        hurried: Stop now: close what is open, and leave the rest to the next start.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def on_signals(self) -> None:
        """SIGTERM and SIGINT ask; a second one hurries."""
        loop = asyncio.get_running_loop()
        first_s = 0.0

        def received() -> None:
            nonlocal first_s
            if not self.asked.is_set():
                first_s = loop.time()
                self.asked.set()
            elif loop.time() - first_s > SAME_SIGNAL_S:
                self.hurried.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, received)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """What runs.

    Attributes:
        intake: Stopped at once: sources and command intake.
        outflow: Allowed to drain: relay and writer; each returns once drained.
        drain: Called when the intake has stopped.
    """

    intake: Mapping[str, Job]
    outflow: Mapping[str, Job]
    drain: Callable[[], None]
    drain_timeout_s: float = 10.0
    watch: Mapping[str, Job] = field(default_factory=dict)


async def keep_running(name: str, job: Job, *, rng: random.Random, backoff_max_s: float) -> None:
    """Run a job, again after a `TransientError` (or several, of a task group of its own); others end the process.

    Returns when the job does.
    """
    loop = asyncio.get_running_loop()
    attempt = 0
    while True:
        began_s = loop.time()
        try:
            with _cancellations_taken_back():
                await job()
        except (TransientError, ExceptionGroup) as caught:
            error = _transient(caught)
            attempt = 0 if loop.time() - began_s > HEALTHY_AFTER_S else attempt
            wait_s = max(
                min(backoff_max_s, BACKOFF_FIRST_S * 2 ** min(attempt, 20)) * rng.uniform(0.5, 1.0),
                error.retry_after_s or 0.0,
            )
            attempt += 1
            log.warning("app.job_retry_scheduled", job=name, wait_s=round(wait_s, 1), attempt=attempt, error=str(error))
            await asyncio.sleep(wait_s)
        else:
            return


async def run_jobs(jobs: Jobs, stop: Stop, *, rng: random.Random, backoff_max_s: float) -> None:
    """Run everything until `stop` is asked for or something fails for good; then let the outflow drain.

    Raises:
        ConnectorError: The first error that is not to be waited out.
    """

    def started(group: asyncio.TaskGroup, some: Mapping[str, Job]) -> list[asyncio.Task[None]]:
        return [
            group.create_task(keep_running(name, job, rng=rng, backoff_max_s=backoff_max_s), name=name)
            for name, job in some.items()
        ]

    try:
        with _cancellations_taken_back():
            async with asyncio.TaskGroup() as outflow:
                others = started(outflow, jobs.watch)
                drains = started(outflow, jobs.outflow)
                try:
                    async with asyncio.TaskGroup() as intake:
                        intake.create_task(_raise_when(stop.asked), name="app.stop")
                        started(intake, jobs.intake)
                except* StopRequested:
                    log.info("app.stopping", drain_timeout_s=jobs.drain_timeout_s)
                jobs.drain()
                hurried = outflow.create_task(stop.hurried.wait(), name="app.hurried")
                drained = outflow.create_task(asyncio.wait(drains), name="app.drained")
                await asyncio.wait(
                    (drained, hurried), timeout=jobs.drain_timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                for task in (hurried, drained, *drains, *others):
                    task.cancel()
    except BaseExceptionGroup as group:
        raise _first(group) from group


@contextmanager
def _cancellations_taken_back() -> Generator[None]:
    """Behind an error, have no cancellation counted that a task group inside has asked for.

    A group one of whose tasks fails while it waits for the others cancels the task that waits, and does not take that
    back (Python up to 3.12). `asyncio.timeout` of Debian 12's 3.11.2 then takes whatever runs out of time in that task
    for cancelled by somebody else: a job ends without a word.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # coroutines run in tasks; for mypy
    before = task.cancelling()
    try:
        yield
    except Exception:
        while task.cancelling() > before:
            task.uncancel()
        raise


async def _raise_when(asked: asyncio.Event) -> None:
    await asked.wait()
    raise StopRequested


def _transient(error: TransientError | ExceptionGroup[Exception]) -> TransientError:
    """The error to wait out; raises what was caught where something else is among it."""
    leaves = list(_leaves(error)) if isinstance(error, ExceptionGroup) else [error]
    waits = [leaf for leaf in leaves if isinstance(leaf, TransientError)]
    if len(waits) < len(leaves):
        raise error
    return max(waits, key=lambda leaf: leaf.retry_after_s or 0.0)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to end with: one of ours before one that nobody expected to be raised beside it."""
    flat = list(_leaves(group))
    return next((error for error in flat if isinstance(error, ConnectorError)), flat[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
