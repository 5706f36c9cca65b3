"""The API budget: counts every call, keeps the commands' reserve, tells once when use gets high.

The org's quota is of a rolling 24 hours and shared by every client; `Sforce-Limit-Info` tells it with each answer. Our
own ceiling counts our own calls only. A call is on disk before it is made: a crash cannot make it uncounted.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import structlog

from connector.errors import OrgThrottled, TransientError
from connector.model.codes import DAILY_LIMIT_WAIT_S
from connector.ports import Purpose, Replica, Unit
from connector.salesforce.answers import api_usage
from connector.salesforce.rolling import HOUR_MS, WINDOW_HOURS, Counted, RollingDay, hour_of
from connector.salesforce.warning import Mark, Warner
from connector.settings import LimitSettings

log = structlog.get_logger()

_WARN_INTERVAL_S = 1.0
# Where the org's count leaves a purpose no call, one may go and ask so often whether others' have left the window.
_PROBE_S = 900.0


class ApiBudget:
    """Grants, counts and reports API calls. All methods belong to the event loop's thread.

    Args:
        limits: The ceiling of our own, the commands' reserve, the mark to warn at.
        replica: Keeps the counts over restarts; None keeps them in memory.
        now_ms: The wall clock, milliseconds since the Unix epoch, UTC.
        elapsed_s: A clock that is never set.
        ahead: Each call is on disk before it is made; False: `flush` writes them, for one who must not wait.
        warner: Told once per crossing of `limits.warn_at`.
    """

    def __init__(
        self,
        limits: LimitSettings,
        replica: Replica | None,
        *,
        now_ms: Callable[[], int],
        elapsed_s: Callable[[], float] = time.monotonic,
        ahead: bool = True,
        warner: Warner | None = None,
    ) -> None:
        self._limits = limits
        self._replica = replica
        self._now_ms = now_ms
        self._elapsed_s = elapsed_s
        self._ahead = ahead
        self._day = RollingDay(now_ms, elapsed_s)
        self._mark = Mark("api", limits.warn_at, replica, warner, now_ms)
        self._made = dict.fromkeys(Purpose, 0)
        self._unsaved: Counter[tuple[str, str]] = Counter()
        self._org: tuple[int, int] | None = None
        self._heard_s = 0.0
        self._changed = asyncio.Event()
        self._saving = asyncio.Lock()
        reserve = limits.reserve_for_commands
        # Each class leaves to those before it the same share of what it might use.
        self._share = {
            Purpose.COMMAND: 1.0,
            Purpose.REPAIR: 1 - reserve,
            Purpose.CATCH_UP: 1 - reserve,
            Purpose.VERIFY: (1 - reserve) ** 2,
            Purpose.LOAD: (1 - reserve) ** 2,
        }

    async def __aenter__(self) -> Self:
        """Read the calls of the last 24 hours."""
        if self._replica is not None:
            now_ms = self._now_ms()
            self._day.restore(await self._replica.run(lambda unit: _stored(unit, now_ms)))
            await self._mark.open()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, ended_by: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Write what has been counted; where an error ends us it stays that error."""
        try:
            await self.flush()
        except TransientError:
            if ended_by is None:
                raise

    async def run(self) -> None:
        """Give the warnings, at most one a second; does not end by itself."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._mark.tell()
            except TransientError as error:
                log.warning("budget.warning_postponed", error=str(error))
                self._changed.set()
            await asyncio.sleep(_WARN_INTERVAL_S)

    async def flush(self) -> None:
        """Write the counts that are not on disk, and give the warning that is due, if any."""
        await self._save()
        await self._mark.tell()

    async def take(self, purpose: Purpose) -> None:
        """Count one call that is about to be made.

        Raises:
            OrgThrottled: The purpose has used up its part, or the org's quota is spent.
            StoreBusy, StoreFull, StoreUnusable: It cannot be counted and must not be made.
        """
        share = self._share[purpose]
        self._check_own(purpose, share)
        self._check_org(purpose, share)
        counted = self._count(purpose)
        if self._ahead:
            try:
                await self._save()
            except TransientError:
                self._take_back(purpose, counted)
                raise
        self._made[purpose] += 1
        self._look()

    def made(self, purpose: Purpose) -> int:
        """Calls for the purpose since this process began; never falls, unlike those of a window."""
        return self._made[purpose]

    def _count(self, purpose: Purpose) -> Counted:
        counted = self._day.add(purpose)
        self._unsaved[counted.hour, purpose] += 1
        if self._org is not None:
            # The org counts it too; its answer, which takes a while, will tell.
            self._org = (self._org[0] + 1, self._org[1])
        return counted

    def _take_back(self, purpose: Purpose, counted: Counted) -> None:
        self._day.take_back(purpose, counted)
        self._unsaved[counted.hour, purpose] -= 1

    async def _save(self) -> None:
        """Return once every call counted so far is on disk; those of one moment go together."""
        async with self._saving:
            counted, self._unsaved = self._unsaved, Counter()
            if not +counted or self._replica is None:
                return
            try:
                await self._replica.run(lambda unit: _store(unit, counted))
            except BaseException:
                self._unsaved.update(counted)
                raise

    def _check_own(self, purpose: Purpose, share: float) -> None:
        if self._day.total() < self._limits.daily_api_calls * share:
            return
        wait_s = self._day.relief_s()
        raise OrgThrottled(f"limits.daily_api_calls is used up for {purpose}", retry_after_s=wait_s)

    def _check_org(self, purpose: Purpose, share: float) -> None:
        if self._org is None or self._org[0] < self._org[1] * share:
            return
        # A spent quota costs nothing to ask for; what is left of it is the commands'.
        interval_s = DAILY_LIMIT_WAIT_S if purpose is Purpose.COMMAND else _PROBE_S
        wait_s = self._heard_s + interval_s - self._elapsed_s()
        if wait_s > 0:
            raise OrgThrottled(f"the org's API requests are used up for {purpose}", retry_after_s=wait_s)
        self._heard_s = self._elapsed_s()

    def answered(self, headers: Mapping[str, str]) -> None:
        """Take the org's own count from an answer."""
        usage = api_usage(headers)
        if usage is None or usage[1] == 0:
            return
        self._org, self._heard_s = usage, self._elapsed_s()
        self._look()

    def used_up(self) -> None:
        """The org refused a call because its quota of 24 hours is spent."""
        maximum = self._org[1] if self._org else self._limits.daily_api_calls
        self._org, self._heard_s = (maximum, maximum), self._elapsed_s()
        log.warning("budget.org_quota_spent", max=maximum)
        self._look()

    def snapshot(self) -> dict[str, Any]:
        """The health document's `api`: the tighter of our own and the org's count, and our calls by purpose."""
        used, maximum = self._tighter()
        own = self._day.by_name()
        return {"used": used, "max": maximum, "own": {p.value: own.get(p, 0) for p in Purpose}}

    def _tighter(self) -> tuple[int, int]:
        own = (self._day.total(), self._limits.daily_api_calls)
        return max(self._org or own, own, key=lambda pair: pair[0] / pair[1])

    def _look(self) -> None:
        """Note a crossing of the mark; `run` and `flush` tell of it."""
        if self._mark.look(*self._tighter()):
            self._changed.set()


def _stored(unit: Unit, now_ms: int) -> Mapping[str, Mapping[str, int]]:
    """The calls of the window by hour; those dated days ahead, by a clock since set back, count as made now."""
    unit.redate_calls(hour_of(now_ms + WINDOW_HOURS * HOUR_MS), hour_of(now_ms))
    return unit.calls_by_hour(hour_of(now_ms - (WINDOW_HOURS + 1) * HOUR_MS))


def _store(unit: Unit, counted: Mapping[tuple[str, str], int]) -> None:
    for (hour, purpose), calls in counted.items():
        unit.count_call(hour, purpose, calls)
