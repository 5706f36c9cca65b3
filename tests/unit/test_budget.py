"""The API budget: counting, the commands' reserve, the warning, the org's own count."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import pytest

from connector.errors import OrgThrottled, StoreBusy
from connector.model.times import to_iso, to_ms
from connector.ports import Purpose, Replica, Unit
from connector.salesforce.budget import ApiBudget
from connector.settings import LimitSettings
from tests.waiting import until

T = TypeVar("T")
NOON = to_ms("2026-11-22T12:30:00.000Z")
HOUR_MS = 3_600_000


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ms = NOON

    def __call__(self) -> int:
        return self.ms


class Calls:
    """The store's table of calls."""

    def __init__(self) -> None:
        self.table: Counter[tuple[str, str]] = Counter()
        self.busy = False
        self.units = 0

    async def run(self, work: Callable[[Unit], T]) -> T:
        self.units += 1
        if self.busy:
            raise StoreBusy("locked")
        return work(cast("Unit", self))

    def count_call(self, hour: str, purpose: str, calls: int) -> None:
        self.table[hour, purpose] += calls

    def calls_since(self, hour: str) -> Mapping[str, int]:
        sums: Counter[str] = Counter()
        for (counted, purpose), calls in self.table.items():
            if counted >= hour:
                sums[purpose] += calls
        return sums


def _budget(clock: Clock, calls: Calls | None = None, **limits: Any) -> tuple[ApiBudget, list[tuple[int, int]]]:
    warnings: list[tuple[int, int]] = []

    async def warn(used: int, maximum: int) -> None:
        warnings.append((used, maximum))

    settings = LimitSettings(**({"daily_api_calls": 100} | limits))
    replica = cast("Replica | None", calls)
    return ApiBudget(settings, replica, now_ms=clock, on_warning=warn), warnings


def _spend(budget: ApiBudget, purpose: Purpose) -> int:
    """Take calls until the purpose is refused."""
    for taken in range(10_000):
        try:
            budget.take(purpose)
        except OrgThrottled:
            return taken
    raise AssertionError("never refused")


def test_load_and_verify_give_way_first_and_commands_keep_their_reserve() -> None:
    """81, 90 and 100 of 100 calls with a reserve of a tenth."""
    budget, _ = _budget(Clock())
    assert _spend(budget, Purpose.LOAD) == 81
    assert _spend(budget, Purpose.VERIFY) == 0
    assert _spend(budget, Purpose.CATCH_UP) == 9
    assert _spend(budget, Purpose.REPAIR) == 0
    assert _spend(budget, Purpose.COMMAND) == 10
    assert budget.snapshot() == {
        "used": 100,
        "max": 100,
        "own": {"command": 10, "repair": 0, "catch_up": 9, "verify": 0, "load": 81},
    }


def test_a_refusal_tells_when_calls_leave_the_window() -> None:
    """Counts are kept by hours; a day later the budget is whole again."""
    clock = Clock()
    budget, _ = _budget(clock)
    _spend(budget, Purpose.COMMAND)
    with pytest.raises(OrgThrottled) as caught:
        budget.take(Purpose.COMMAND)
    assert caught.value.retry_after_s == 1800
    clock.ms += 24 * HOUR_MS
    with pytest.raises(OrgThrottled):
        budget.take(Purpose.COMMAND)
    clock.ms += HOUR_MS
    budget.take(Purpose.COMMAND)


async def test_calls_are_stored_by_hour_and_purpose_and_counted_on_after_a_restart() -> None:
    """The rolling 24 hours survive the process."""
    clock, calls = Clock(), Calls()
    calls.count_call(to_iso(NOON - 30 * HOUR_MS)[:13], "load", 50)
    calls.count_call(to_iso(NOON - 5 * HOUR_MS)[:13], "load", 40)
    budget, _ = _budget(clock, calls)
    async with budget:
        assert budget.snapshot()["own"]["load"] == 40
        for _ in range(3):
            budget.take(Purpose.REPAIR)
        clock.ms += HOUR_MS
        budget.take(Purpose.REPAIR)
    assert calls.table["2026-11-22T12", "repair"] == 3
    assert calls.table["2026-11-22T13", "repair"] == 1
    again, _ = _budget(clock, calls)
    async with again:
        assert again.snapshot()["own"] == {"command": 0, "repair": 4, "catch_up": 0, "verify": 0, "load": 40}


async def test_counts_wait_while_the_store_is_busy() -> None:
    """A flush that fails loses nothing, and one flush writes many calls."""
    calls = Calls()
    budget, _ = _budget(Clock(), calls)
    for _ in range(5):
        budget.take(Purpose.COMMAND)
    calls.busy = True
    with pytest.raises(StoreBusy):
        await budget.flush()
    budget.take(Purpose.COMMAND)
    calls.busy = False
    units = calls.units
    await budget.flush()
    await budget.flush()
    assert calls.table["2026-11-22T12", "command"] == 6
    assert calls.units == units + 1


async def test_the_job_writes_and_warns_by_itself() -> None:
    """And goes on when the store was busy."""
    calls = Calls()
    budget, warnings = _budget(Clock(), calls, daily_api_calls=2)
    calls.busy = True
    job = asyncio.create_task(budget.run())
    budget.take(Purpose.COMMAND)
    budget.take(Purpose.COMMAND)
    await until(lambda: calls.units == 1)
    calls.busy = False
    await until(lambda: bool(warnings))
    assert calls.table["2026-11-22T12", "command"] == 2
    assert warnings == [(2, 2)]
    job.cancel()


async def test_the_warning_is_given_once_per_crossing() -> None:
    """Again only after use has clearly fallen."""
    clock = Clock()
    budget, warnings = _budget(clock)
    for _ in range(85):
        budget.take(Purpose.COMMAND)
        await budget.flush()
    assert warnings == [(80, 100)]
    budget.answered({"Sforce-Limit-Info": "api-usage=85/100"})
    clock.ms += 25 * HOUR_MS
    budget.answered({"Sforce-Limit-Info": "api-usage=79/100"})
    budget.answered({"Sforce-Limit-Info": "api-usage=81/100"})
    await budget.flush()
    assert warnings == [(80, 100)]
    budget.answered({"Sforce-Limit-Info": "api-usage=10/100"})
    budget.answered({"Sforce-Limit-Info": "api-usage=90/100"})
    await budget.flush()
    assert warnings == [(80, 100), (90, 100)]


def test_the_orgs_lower_limit_wins() -> None:
    """Others' calls count for the org's quota, not for our ceiling."""
    budget, _ = _budget(Clock(), daily_api_calls=15_000)
    budget.answered({"Sforce-Limit-Info": "api-usage=4499/5000"})
    assert budget.snapshot()["used"] == 4499
    assert budget.snapshot()["max"] == 5000
    with pytest.raises(OrgThrottled):
        budget.take(Purpose.LOAD)
    budget.take(Purpose.CATCH_UP)
    budget.answered({"Sforce-Limit-Info": "api-usage=4500/5000"})
    with pytest.raises(OrgThrottled):
        budget.take(Purpose.CATCH_UP)
    budget.take(Purpose.COMMAND)


def test_a_large_org_is_shown_by_the_tighter_count() -> None:
    """Others' 20,000 of 100,000 calls do not use up our 15,000."""
    budget, _ = _budget(Clock(), daily_api_calls=15_000)
    budget.answered({"Sforce-Limit-Info": "api-usage=20000/100000"})
    assert (budget.snapshot()["used"], budget.snapshot()["max"]) == (20_000, 100_000)
    budget.take(Purpose.LOAD)


def test_a_spent_quota_is_asked_for_again_after_a_while() -> None:
    """The org told so by a refusal; one call in five minutes looks whether it is over."""
    clock = Clock()
    budget, _ = _budget(clock, daily_api_calls=15_000)
    budget.used_up()
    with pytest.raises(OrgThrottled) as caught:
        budget.take(Purpose.COMMAND)
    assert caught.value.retry_after_s == 300
    clock.ms += 300_000
    budget.take(Purpose.COMMAND)
    with pytest.raises(OrgThrottled):
        budget.take(Purpose.COMMAND)
    budget.answered({"Sforce-Limit-Info": "api-usage=3/15000"})
    budget.take(Purpose.COMMAND)


def test_a_clock_set_back_does_not_stop_calls() -> None:
    """The wait for the org's quota is not prolonged by it."""
    clock = Clock()
    budget, _ = _budget(clock, daily_api_calls=15_000)
    budget.used_up()
    clock.ms -= HOUR_MS
    budget.take(Purpose.COMMAND)
