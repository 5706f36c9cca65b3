"""Simulated days: in any 24 hours the ceiling is not crossed and the commands' reserve is kept, whatever happens."""

import asyncio
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from connector.errors import OrgThrottled
from connector.ports import Purpose
from connector.salesforce.budget import ApiBudget
from connector.settings import LimitSettings
from connector.store import Session
from tests.budgets import HOUR_MS, Clocks, FileReplica

DAY_MS = 24 * HOUR_MS
CEILING = 40
PROBE_MS = 900_000
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Passes:
    """Time passes."""

    ms: int


@dataclass(frozen=True)
class Wants:
    """So many calls for a purpose are wanted at once."""

    purpose: Purpose
    calls: int


@dataclass(frozen=True)
class Others:
    """Other users of the org make calls."""

    calls: int


@dataclass(frozen=True)
class Restarts:
    """The process ends, killed or not, and begins again."""

    killed: bool


@dataclass(frozen=True)
class ClockIsSet:
    """The wall clock is set wrong by so much, until it is set again or the process ends."""

    ms: int


Step = Passes | Wants | Others | Restarts | ClockIsSet
STEPS = st.lists(
    st.one_of(
        st.builds(Passes, st.integers(1, 8 * HOUR_MS)),
        st.builds(Passes, st.sampled_from([MINUTE_MS, HOUR_MS, DAY_MS, DAY_MS + HOUR_MS])),
        st.builds(Wants, st.sampled_from(list(Purpose)), st.integers(1, 60)),
        st.builds(Wants, st.sampled_from(list(Purpose)), st.integers(1, 60)),
        st.builds(Others, st.integers(1, 80)),
        st.builds(Restarts, st.booleans()),
        st.builds(ClockIsSet, st.sampled_from([0, -50 * HOUR_MS, -HOUR_MS, 3 * HOUR_MS, 400 * HOUR_MS])),
    ),
    min_size=5,
    max_size=60,
)


@dataclass
class World:
    """The org, by the true time, and the connector's budget.

    Attributes:
        quota: Of the org; calls beyond it are refused and not counted.
        taken: True time of each call that the budget granted, those that the org then refused too.
        made: True time and purpose of each call that the org answered.
        counted: True time of each call that the org counted, ours and others'.
        probes: True time of each call, but commands, of what the org's quota leaves to commands.
        clock_was_set: Sooner or later a restart dates calls wrongly.
    """

    replica: FileReplica
    quota: int
    clocks: Clocks = field(default_factory=Clocks)
    true_ms: int = 0
    taken: list[int] = field(default_factory=list)
    made: list[tuple[int, Purpose]] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)
    clock_was_set: bool = False

    def __post_init__(self) -> None:
        self.true_ms = self.clocks.wall_ms

    async def live(self, steps: Sequence[Step]) -> None:
        budget = await self._begin()
        for step in steps:
            match step:
                case Passes(ms):
                    self.clocks.pass_ms(ms)
                    self.true_ms += ms
                case Wants(purpose, calls):
                    await self._call(budget, purpose, calls)
                case Others(calls):
                    self.counted += [self.true_ms] * max(0, min(calls, self.quota - self._used()))
                case ClockIsSet(ms):
                    self.clocks.wall_ms = self.true_ms + ms
                    self.clock_was_set = True
                case Restarts(killed):
                    if not killed:
                        await budget.flush()
                    self.clocks.wall_ms = self.true_ms
                    budget = await self._begin()

    async def _begin(self) -> ApiBudget:
        limits = LimitSettings(daily_api_calls=CEILING, reserve_for_commands=0.25)
        budget = ApiBudget(limits, self.replica, now_ms=self.clocks.now_ms, elapsed_s=self.clocks.elapsed_s)
        return await budget.__aenter__()

    async def _call(self, budget: ApiBudget, purpose: Purpose, calls: int) -> None:
        for _ in range(calls):
            try:
                await budget.take(purpose)
            except OrgThrottled as refusal:
                event(f"{purpose} refused: {str(refusal).split(' used up')[0]}")
                self._check_refusal(purpose, refusal)
                return
            self.taken.append(self.true_ms)
            self._answer(budget, purpose)

    def _answer(self, budget: ApiBudget, purpose: Purpose) -> None:
        used = self._used()
        if used >= self.quota:
            budget.used_up()
            return
        if purpose is not Purpose.COMMAND and used >= self.quota * 0.75:
            self.probes.append(self.true_ms)
        self.made.append((self.true_ms, purpose))
        self.counted.append(self.true_ms)
        budget.answered({"Sforce-Limit-Info": f"api-usage={used + 1}/{self.quota}"})

    def _check_refusal(self, purpose: Purpose, refusal: OrgThrottled) -> None:
        """A wait is told, of an hour at most; our ceiling refuses a command only where all of it is used."""
        assert refusal.retry_after_s is not None
        assert 0 < refusal.retry_after_s <= HOUR_MS / 1000
        if purpose is Purpose.COMMAND and "daily_api_calls" in str(refusal) and not self.clock_was_set:
            window_ms = DAY_MS + HOUR_MS  # counted by hours, calls leave up to an hour late
            assert sum(at > self.true_ms - window_ms for at in self.taken) >= CEILING

    def _used(self) -> int:
        return len(self.counted) - bisect_right(self.counted, self.true_ms - DAY_MS)


def most_in_a_day(times: Sequence[int]) -> int:
    """The most of the (ascending) times in any 24 hours."""
    return max((i + 1 - bisect_right(times, at - DAY_MS) for i, at in enumerate(times)), default=0)


def simulated(steps: Sequence[Step], quota: int) -> World:
    """A world in which the steps have happened."""
    with tempfile.TemporaryDirectory() as folder, Session(Path(folder) / "replica.db") as session:
        world = World(FileReplica(session), quota)
        asyncio.run(world.live(steps))
        return world


@given(STEPS, st.sampled_from([30, 60, 10_000]))
@settings(max_examples=100)
def test_the_ceiling_is_never_crossed_and_the_reserve_is_kept(steps: list[Step], quota: int) -> None:
    """By the true time, over kills, restarts, clocks that are set and whatever others use."""
    world = simulated(steps, quota)
    assert most_in_a_day([at for at, _ in world.made]) <= CEILING
    assert most_in_a_day([at for at, p in world.made if p is not Purpose.COMMAND]) <= CEILING * 0.75
    assert most_in_a_day([at for at, p in world.made if p in (Purpose.LOAD, Purpose.VERIFY)]) <= CEILING * 0.75**2 + 1


@given(STEPS)
@example(
    [Wants(Purpose.COMMAND, 10), Others(20), Wants(Purpose.COMMAND, 1), Passes(DAY_MS), Wants(Purpose.COMMAND, 30)]
)
@settings(max_examples=60)
def test_what_is_left_of_the_orgs_quota_is_the_commands(steps: list[Step]) -> None:
    """Others near the org's limit: all but commands make one call in 15 minutes at most, to see whether it is over."""
    steps = [step for step in steps if not isinstance(step, Restarts)]
    world = simulated(steps, 30)
    gaps = [later - earlier for earlier, later in zip(world.probes, world.probes[1:], strict=False)]
    assert [gap for gap in gaps if gap < PROBE_MS] == []


@given(st.sampled_from(list(Purpose)), st.integers(0, 2 * DAY_MS))
@settings(max_examples=25)
def test_work_resumes_by_itself(purpose: Purpose, began_ms: int) -> None:
    """Who waits as long as a refusal says, again and again, is served within 25 hours of the last call."""

    async def waits() -> int:
        clocks = Clocks()
        clocks.pass_ms(began_ms)
        limits = LimitSettings(daily_api_calls=CEILING)
        budget = ApiBudget(limits, None, now_ms=clocks.now_ms, elapsed_s=clocks.elapsed_s)
        with suppress(OrgThrottled):
            while True:
                await budget.take(Purpose.COMMAND)
        began = clocks.elapsed_ms
        for _ in range(26):
            try:
                await budget.take(purpose)
            except OrgThrottled as refusal:
                clocks.pass_ms(round((refusal.retry_after_s or 0) * 1000))
            else:
                return clocks.elapsed_ms - began
        raise AssertionError("not served")

    assert DAY_MS <= asyncio.run(waits()) <= DAY_MS + HOUR_MS
