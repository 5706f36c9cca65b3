"""Every task has a parent; each kind of error has its one reaction; stopping drains what may drain."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable

import pytest

from connector.app.supervise import Jobs, Stop, keep_running, run_jobs
from connector.errors import BrokerRefused, LinkDown, StoreBusy

RNG = random.Random(1)


async def forever() -> None:
    await asyncio.Event().wait()


async def run(jobs: Jobs, stop: Stop) -> None:
    async with asyncio.timeout(5):
        await run_jobs(jobs, stop, rng=RNG, backoff_max_s=0.01)


def jobs(
    intake: Callable[[], Awaitable[None]], outflow: Callable[[], Awaitable[None]], drain: Callable[[], None]
) -> Jobs:
    return Jobs(intake={"in": intake}, outflow={"out": outflow}, drain=drain, watch={"watch": forever})


async def test_a_transient_error_is_retried() -> None:
    """The job is begun again until it returns."""
    tries = 0

    async def job() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise LinkDown("away")

    await keep_running("job", job, rng=RNG, backoff_max_s=0.01)
    assert tries == 3


async def test_what_runs_out_of_time_behind_a_failed_group_is_not_taken_for_cancelled() -> None:
    """A group cancels whoever waits for it, and Python 3.11.2 would hold that against every later timeout."""
    tries = 0

    async def failing(error: Exception) -> None:
        await asyncio.sleep(0)
        raise error

    async def job() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(failing(StoreBusy("locked")))
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await forever()

    await keep_running("job", job, rng=RNG, backoff_max_s=0.01)
    assert tries == 2


async def test_what_runs_out_of_time_behind_a_failed_end_is_not_taken_for_cancelled() -> None:
    """The farewell to a broker that hangs must not hide why the process ends."""

    async def refused() -> None:
        await asyncio.sleep(0)
        raise BrokerRefused("no")

    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(BrokerRefused):
        await run_jobs(jobs(refused, forever, lambda: None), Stop(), rng=RNG, backoff_max_s=0.01)
    assert not task.cancelling()


async def test_transient_errors_of_a_job_s_own_tasks_are_retried() -> None:
    """A locked database met inside a task group is waited out as any other; a refusal among them is not."""
    tries = 0

    async def failing(error: Exception) -> None:
        raise error

    async def job() -> None:
        nonlocal tries
        tries += 1
        async with asyncio.TaskGroup() as group:
            if tries < 3:
                group.create_task(failing(StoreBusy("locked")))

    await keep_running("job", job, rng=RNG, backoff_max_s=0.01)
    assert tries == 3

    async def refused() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing(StoreBusy("locked")))
            group.create_task(failing(BrokerRefused("no")))

    with pytest.raises(ExceptionGroup):
        await keep_running("job", refused, rng=RNG, backoff_max_s=0.01)


async def test_any_other_error_ends_everything_with_that_error() -> None:
    """The service manager starts the process again, or a person acts; the other parts are cancelled."""
    ended = asyncio.Event()

    async def refused() -> None:
        raise BrokerRefused("no")

    async def outflow() -> None:
        try:
            await forever()
        finally:
            ended.set()

    with pytest.raises(BrokerRefused):
        await run(jobs(refused, outflow, lambda: None), Stop())
    assert ended.is_set()


async def test_stopping_ends_the_intake_and_lets_the_outflow_drain() -> None:
    """What is under way goes out; the source is gone by then."""
    stop, drained, seen = Stop(), asyncio.Event(), []

    async def intake() -> None:
        try:
            await forever()
        finally:
            seen.append("intake ended")

    async def outflow() -> None:
        await drained.wait()
        seen.append("drained")

    asyncio.get_running_loop().call_later(0.05, stop.asked.set)
    await run(jobs(intake, outflow, drained.set), stop)
    assert seen == ["intake ended", "drained"]


async def test_a_second_signal_skips_the_drain_and_two_at_once_are_one() -> None:
    """`timeout` signals a process and its group; that is no hurry."""
    stop = Stop()
    stop.on_signals()
    loop = asyncio.get_running_loop()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.asked.wait(), 1)
        assert not stop.hurried.is_set()
        running = asyncio.create_task(run(jobs(forever, forever, lambda: None), stop))
        await asyncio.sleep(1.1)
        os.kill(os.getpid(), signal.SIGTERM)
        await running
        assert stop.hurried.is_set()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
