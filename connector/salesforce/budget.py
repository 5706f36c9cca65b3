"""The API budget: counts every call, keeps the commands' reserve, tells once when use gets high.

The org's quota is of a rolling 24 hours and shared by every client; `Sforce-Limit-Info` tells it with each answer. Our
own ceiling counts our own calls only, by hours, so it looks back 24 to 25 hours.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import structlog

from connector.errors import OrgThrottled, TransientError
from connector.model.codes import DAILY_LIMIT_WAIT_S
from connector.model.times import to_iso
from connector.ports import Purpose, Replica, Unit
from connector.salesforce.answers import api_usage
from connector.settings import LimitSettings

log = structlog.get_logger()

_HOUR_MS = 3_600_000
_WINDOW_HOURS = 24
_FLUSH_INTERVAL_S = 1.0
# Use swings around the mark while old calls leave the window; it has to fall clearly below it to count again.
_REARM = 0.95


class ApiBudget:
    """Grants, counts and reports API calls. All methods belong to the event loop's thread.

    Args:
        limits: The ceiling of our own, the commands' reserve, the mark to warn at.
        replica: Keeps the counts over restarts; None keeps them in memory.
        now_ms: Milliseconds since the Unix epoch, UTC.
        on_warning: Awaited with (used, max) once per crossing of `limits.warn_at`.
    """

    def __init__(
        self,
        limits: LimitSettings,
        replica: Replica | None,
        *,
        now_ms: Callable[[], int],
        on_warning: Callable[[int, int], Awaitable[None]] | None = None,
    ) -> None:
        self._limits = limits
        self._replica = replica
        self._now_ms = now_ms
        self._on_warning = on_warning
        self._hours: dict[str, dict[str, int]] = {}
        self._made = dict.fromkeys(Purpose, 0)
        self._unsaved: dict[tuple[str, str], int] = {}
        self._org: tuple[int, int] | None = None
        self._heard_ms = 0
        self._warned = False
        self._to_warn: tuple[int, int] | None = None
        self._changed = asyncio.Event()
        self._flushing = asyncio.Lock()
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
            hours = [self._hour(back) for back in range(_WINDOW_HOURS, -1, -1)]
            self._hours = await self._replica.run(lambda unit: _by_hour(unit, hours))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what has been counted."""
        await self.flush()

    async def run(self) -> None:
        """Write the counts and give the warnings, at most once a second; does not end by itself."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.flush()
            except TransientError as error:
                # The counts stay here and go with the next ones.
                log.warning("budget.flush_failed", error=str(error))
                self._changed.set()
            await asyncio.sleep(_FLUSH_INTERVAL_S)

    async def flush(self) -> None:
        """Write the counts and give the warning that is due, if any."""
        async with self._flushing:
            await self._save()
            if self._to_warn is not None and self._on_warning is not None:
                await self._on_warning(*self._to_warn)
            self._to_warn = None

    async def _save(self) -> None:
        counted, self._unsaved = self._unsaved, {}
        if not counted or self._replica is None:
            return
        try:
            await self._replica.run(lambda unit: _count(unit, counted))
        except BaseException:
            for key, calls in counted.items():
                self._unsaved[key] = self._unsaved.get(key, 0) + calls
            raise

    def take(self, purpose: Purpose) -> None:
        """Count one call that is about to be made.

        Raises:
            OrgThrottled: The purpose has used up its part, or the org's quota is spent.
        """
        share = self._share[purpose]
        self._check_own(purpose, share)
        self._check_org(purpose, share)
        hour = self._hour()
        counts = self._hours.setdefault(hour, {})
        counts[purpose] = counts.get(purpose, 0) + 1
        self._made[purpose] += 1
        self._unsaved[hour, purpose] = self._unsaved.get((hour, purpose), 0) + 1
        self._look()

    def made(self, purpose: Purpose) -> int:
        """Calls for the purpose since this process began; never falls, unlike those of a window."""
        return self._made[purpose]

    def _check_own(self, purpose: Purpose, share: float) -> None:
        if self._own_total() < self._limits.daily_api_calls * share:
            return
        # Counts leave the window by whole hours.
        wait_s = (_HOUR_MS - self._now_ms() % _HOUR_MS) / 1000
        raise OrgThrottled(f"limits.daily_api_calls is used up for {purpose}", retry_after_s=wait_s)

    def _check_org(self, purpose: Purpose, share: float) -> None:
        if self._org is None or self._org[0] < self._org[1] * share:
            return
        since_ms = self._now_ms() - self._heard_ms
        if not 0 <= since_ms < DAILY_LIMIT_WAIT_S * 1000:
            # Only an answer tells that others' calls have left the window: one call may go and ask.
            self._heard_ms = self._now_ms()
            return
        wait_s = DAILY_LIMIT_WAIT_S - since_ms / 1000
        raise OrgThrottled(f"the org's API requests are used up for {purpose}", retry_after_s=wait_s)

    def answered(self, headers: Mapping[str, str]) -> None:
        """Take the org's own count from an answer."""
        usage = api_usage(headers)
        if usage is None or usage[1] == 0:
            return
        self._org, self._heard_ms = usage, self._now_ms()
        self._look()

    def used_up(self) -> None:
        """The org refused a call because its quota of 24 hours is spent."""
        maximum = self._org[1] if self._org else self._limits.daily_api_calls
        self._org, self._heard_ms = (maximum, maximum), self._now_ms()
        log.warning("budget.org_quota_spent", max=maximum)
        self._look()

    def snapshot(self) -> dict[str, Any]:
        """The health document's `api`: the tighter of our own and the org's count, and our calls by purpose."""
        used, maximum = self._tighter()
        return {"used": used, "max": maximum, "own": {p.value: n for p, n in self._own().items()}}

    def _tighter(self) -> tuple[int, int]:
        own = (self._own_total(), self._limits.daily_api_calls)
        return max(self._org or own, own, key=lambda pair: pair[0] / pair[1])

    def _look(self) -> None:
        """Note a crossing of the mark; `flush` tells of it."""
        self._changed.set()
        used, maximum = self._tighter()
        if used >= maximum * self._limits.warn_at:
            if not self._warned:
                self._to_warn = (used, maximum)
                log.warning("budget.use_is_high", used=used, max=maximum)
            self._warned = True
        elif used < maximum * self._limits.warn_at * _REARM:
            self._warned = False

    def _own(self) -> dict[Purpose, int]:
        oldest = self._hour(_WINDOW_HOURS)
        for hour in [hour for hour in self._hours if hour < oldest]:
            del self._hours[hour]
        return {p: sum(counts.get(p, 0) for counts in self._hours.values()) for p in Purpose}

    def _own_total(self) -> int:
        return sum(self._own().values())

    def _hour(self, back: int = 0) -> str:
        return to_iso(self._now_ms() - back * _HOUR_MS)[: len("2026-11-22T17")]


def _by_hour(unit: Unit, hours: list[str]) -> dict[str, dict[str, int]]:
    """Calls of each of the consecutive `hours`; the store tells sums from an hour on."""
    sums = [dict(unit.calls_since(hour)) for hour in hours] + [{}]
    return {
        hour: {purpose: calls - later.get(purpose, 0) for purpose, calls in since.items()}
        for hour, since, later in zip(hours, sums, sums[1:], strict=False)
    }


def _count(unit: Unit, counted: Mapping[tuple[str, str], int]) -> None:
    for (hour, purpose), calls in counted.items():
        unit.count_call(hour, purpose, calls)
