"""The API budget: counting, the commands' reserve, the warning, the org's own count, clocks that are set."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from connector.errors import OrgThrottled, StoreBusy, StoreFull
from connector.model.message import Message
from connector.ports import Purpose
from connector.salesforce.budget import ApiBudget
from connector.salesforce.rolling import hour_of
from connector.salesforce.warning import Limit, Warner
from connector.settings import LimitSettings
from connector.store import Session
from tests.budgets import HOUR_MS, NOON, Clocks, FileReplica
from tests.waiting import until


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[FileReplica]:
    """A new replica's file."""
    with Session(tmp_path / "replica.db") as session:
        yield FileReplica(session)


def _budget(clocks: Clocks, replica: FileReplica | None = None, **limits: Any) -> ApiBudget:
    settings = LimitSettings(**({"daily_api_calls": 100} | limits))

    def messages(limit: Limit, used: int, maximum: int) -> Sequence[Message]:
        return (Message(topic=f"warned/{limit}", payload=f"{used}/{maximum}".encode()),)

    warner = Warner(messages=messages, told=lambda: None)
    return ApiBudget(settings, replica, now_ms=clocks.now_ms, elapsed_s=clocks.elapsed_s, warner=warner)


async def _spend(budget: ApiBudget, purpose: Purpose) -> int:
    """Take calls until the purpose is refused."""
    for taken in range(10_000):
        try:
            await budget.take(purpose)
        except OrgThrottled:
            return taken
    raise AssertionError("never refused")


async def _table(replica: FileReplica) -> Mapping[str, Mapping[str, int]]:
    return await replica.run(lambda unit: unit.calls_by_hour("0"))


async def _warnings(replica: FileReplica) -> list[bytes]:
    return [m.message.payload for m in await replica.run(lambda unit: unit.due(100))]


async def test_load_and_verify_give_way_first_and_commands_keep_their_reserve() -> None:
    """81, 90 and 100 of 100 calls with a reserve of a tenth."""
    budget = _budget(Clocks())
    assert await _spend(budget, Purpose.LOAD) == 81
    assert await _spend(budget, Purpose.VERIFY) == 0
    assert await _spend(budget, Purpose.CATCH_UP) == 9
    assert await _spend(budget, Purpose.REPAIR) == 0
    assert await _spend(budget, Purpose.COMMAND) == 10
    assert budget.snapshot() == {
        "used": 100,
        "max": 100,
        "own": {"command": 10, "repair": 0, "catch_up": 9, "verify": 0, "load": 81},
    }


async def test_a_refusal_tells_when_calls_leave_the_window() -> None:
    """Counts are kept by hours; a day later the budget is whole again."""
    clocks = Clocks()
    budget = _budget(clocks)
    await _spend(budget, Purpose.COMMAND)
    with pytest.raises(OrgThrottled) as caught:
        await budget.take(Purpose.COMMAND)
    assert caught.value.retry_after_s == 3600
    clocks.pass_ms(24 * HOUR_MS)
    with pytest.raises(OrgThrottled) as caught:
        await budget.take(Purpose.COMMAND)
    assert caught.value.retry_after_s == 1800
    clocks.pass_ms(HOUR_MS // 2)
    await budget.take(Purpose.COMMAND)


async def test_a_call_is_on_disk_before_it_is_made(replica: FileReplica) -> None:
    """Killed at any moment, the next process knows of every call; the rolling 24 hours survive."""
    clocks = Clocks()
    await replica.run(lambda unit: unit.count_call(hour_of(NOON - 30 * HOUR_MS), "load", 50))
    await replica.run(lambda unit: unit.count_call(hour_of(NOON - 5 * HOUR_MS), "load", 40))
    killed = await _budget(clocks, replica).__aenter__()
    assert killed.snapshot()["own"]["load"] == 40
    for _ in range(3):
        await killed.take(Purpose.REPAIR)
    clocks.pass_ms(HOUR_MS)
    await killed.take(Purpose.REPAIR)
    table = await _table(replica)
    assert (table["2026-11-22T12"], table["2026-11-22T13"]) == ({"repair": 3}, {"repair": 1})
    async with _budget(clocks, replica) as again:
        assert again.snapshot()["own"] == {"command": 0, "repair": 4, "catch_up": 0, "verify": 0, "load": 40}


async def test_calls_of_one_moment_share_a_transaction(replica: FileReplica) -> None:
    """The disk is waited for once, or twice, by however many."""
    budget = _budget(Clocks(), replica)
    await asyncio.gather(*(budget.take(Purpose.COMMAND) for _ in range(50)))
    assert replica.units <= 2
    assert (await _table(replica))["2026-11-22T12"] == {"command": 50}


async def test_a_call_that_cannot_be_counted_is_not_made(replica: FileReplica) -> None:
    """And is not counted once the store is free again."""
    budget = _budget(Clocks(), replica)
    replica.busy = True
    for _ in range(5):
        with pytest.raises(StoreBusy):
            await budget.take(Purpose.COMMAND)
    assert (budget.made(Purpose.COMMAND), budget.snapshot()["used"]) == (0, 0)
    replica.busy = False
    await budget.take(Purpose.COMMAND)
    assert (await _table(replica))["2026-11-22T12"] == {"command": 1}


async def test_one_who_must_not_wait_writes_the_counts_at_the_end(replica: FileReplica) -> None:
    """A flush that fails loses nothing."""
    budget = ApiBudget(LimitSettings(), replica, now_ms=lambda: NOON, ahead=False)
    replica.busy = True
    await budget.take(Purpose.VERIFY)
    with pytest.raises(StoreBusy):
        await budget.flush()
    await budget.take(Purpose.VERIFY)
    replica.busy = False
    await budget.flush()
    assert (await _table(replica))["2026-11-22T12"] == {"verify": 2}


async def test_an_error_that_ends_us_stays_that_error(replica: FileReplica) -> None:
    """A lock that is met at the end must not take its place; without one it is told, as the counts are not written."""
    for error, told in ((StoreFull("full"), StoreFull), (None, StoreBusy)):
        with pytest.raises(told):  # noqa: PT012 - what is raised depends on what was raised within
            async with ApiBudget(LimitSettings(), replica, now_ms=lambda: NOON, ahead=False) as budget:
                await budget.take(Purpose.LOAD)
                replica.busy = True
                if error is not None:
                    raise error
        replica.busy = False


async def test_the_job_warns_by_itself(replica: FileReplica) -> None:
    """And goes on when the store was busy."""
    budget = _budget(Clocks(), replica, daily_api_calls=2)
    job = asyncio.create_task(budget.run())
    await budget.take(Purpose.COMMAND)
    await budget.take(Purpose.COMMAND)
    replica.busy = True
    units = replica.units
    await until(lambda: replica.units > units)
    replica.busy = False

    async def warned() -> bool:
        return await _warnings(replica) == [b"2/2"]

    await until(warned)
    job.cancel()


async def test_the_warning_is_given_once_per_crossing(replica: FileReplica) -> None:
    """Again only after use has clearly fallen."""
    clocks = Clocks()
    budget = _budget(clocks, replica)
    for _ in range(85):
        await budget.take(Purpose.COMMAND)
        await budget.flush()
    assert await _warnings(replica) == [b"80/100"]
    clocks.pass_ms(25 * HOUR_MS)
    for used in (79, 81):
        budget.answered({"Sforce-Limit-Info": f"api-usage={used}/100"})
        await budget.flush()
    assert await _warnings(replica) == [b"80/100"]
    for used in (10, 90):
        budget.answered({"Sforce-Limit-Info": f"api-usage={used}/100"})
        await budget.flush()
    assert await _warnings(replica) == [b"80/100", b"90/100"]


async def test_a_restart_does_not_repeat_the_warning(replica: FileReplica) -> None:
    """The crossing is remembered on disk, until use has fallen; then the next one is told."""
    clocks = Clocks()
    for _ in range(3):
        async with _budget(clocks, replica) as budget:
            budget.answered({"Sforce-Limit-Info": "api-usage=85/100"})
    assert await _warnings(replica) == [b"85/100"]
    for used in (10, 95):
        async with _budget(clocks, replica) as budget:
            budget.answered({"Sforce-Limit-Info": f"api-usage={used}/100"})
    assert await _warnings(replica) == [b"85/100", b"95/100"]


async def test_the_orgs_lower_limit_wins() -> None:
    """Others' calls count for the org's quota, not for our ceiling."""
    budget = _budget(Clocks(), daily_api_calls=15_000)
    budget.answered({"Sforce-Limit-Info": "api-usage=4498/5000"})
    assert budget.snapshot()["used"] == 4498
    assert budget.snapshot()["max"] == 5000
    with pytest.raises(OrgThrottled):
        await budget.take(Purpose.LOAD)
    await budget.take(Purpose.CATCH_UP)
    await budget.take(Purpose.CATCH_UP)
    with pytest.raises(OrgThrottled):
        await budget.take(Purpose.CATCH_UP)
    await budget.take(Purpose.COMMAND)


async def test_a_large_org_is_shown_by_the_tighter_count() -> None:
    """Others' 20,000 of 100,000 calls do not use up our 15,000."""
    budget = _budget(Clocks(), daily_api_calls=15_000)
    budget.answered({"Sforce-Limit-Info": "api-usage=20000/100000"})
    assert (budget.snapshot()["used"], budget.snapshot()["max"]) == (20_000, 100_000)
    await budget.take(Purpose.LOAD)


@pytest.mark.parametrize(("purpose", "wait_s"), [(Purpose.COMMAND, 300), (Purpose.LOAD, 900)])
async def test_a_spent_quota_is_asked_for_again_after_a_while(purpose: Purpose, wait_s: int) -> None:
    """The org told so by a refusal; one call in so many minutes looks whether it is over."""
    clocks = Clocks()
    budget = _budget(clocks, daily_api_calls=15_000)
    budget.used_up()
    with pytest.raises(OrgThrottled) as caught:
        await budget.take(purpose)
    assert caught.value.retry_after_s == wait_s
    clocks.pass_ms(wait_s * 1000)
    await budget.take(purpose)
    with pytest.raises(OrgThrottled):
        await budget.take(purpose)
    budget.answered({"Sforce-Limit-Info": "api-usage=3/15000"})
    await budget.take(purpose)


@pytest.mark.parametrize("hours", [-48, -5, 5, 48, 24 * 3650])
async def test_a_wall_clock_that_is_set_changes_no_count(hours: int) -> None:
    """Within the process elapsed time decides: nothing is forgotten and nothing is kept too long."""
    clocks = Clocks()
    budget = _budget(clocks)
    await _spend(budget, Purpose.COMMAND)
    clocks.wall_ms += hours * HOUR_MS
    assert await _spend(budget, Purpose.COMMAND) == 0
    clocks.pass_ms(25 * HOUR_MS)
    assert await _spend(budget, Purpose.COMMAND) == 100


async def test_a_clock_set_back_makes_no_stored_call_look_older(replica: FileReplica) -> None:
    """What is called meanwhile is stored under the hour that it would be, and known after a restart."""
    clocks = Clocks()
    budget = await _budget(clocks, replica).__aenter__()
    clocks.wall_ms -= 20 * HOUR_MS
    assert await _spend(budget, Purpose.COMMAND) == 100
    clocks.wall_ms += 20 * HOUR_MS
    clocks.pass_ms(10 * HOUR_MS)
    async with _budget(clocks, replica) as again:
        assert await _spend(again, Purpose.COMMAND) == 0


@pytest.mark.parametrize("hours", [3, 24 * 3650])
async def test_calls_of_hours_yet_to_come_count_as_new(replica: FileReplica, hours: int) -> None:
    """The clock was ahead and was mended over a restart: they count for a day, not until that hour comes."""
    clocks = Clocks()
    await replica.run(lambda unit: unit.count_call(hour_of(NOON + hours * HOUR_MS), "load", 60))
    async with _budget(clocks, replica) as budget:
        assert budget.snapshot()["own"]["load"] == 60
        clocks.pass_ms(25 * HOUR_MS + (hours if hours < 24 else 0) * HOUR_MS)
        assert budget.snapshot()["own"]["load"] == 0
    async with _budget(clocks, replica) as again:
        assert again.snapshot()["own"]["load"] == 0
