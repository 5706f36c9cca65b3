"""The job that settles doubts as they come up: single records, and whole objects that may differ anywhere.

An object is compared as a whole when an event said so, and at the interval of the settings.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from connector.errors import OrgRefused, PoisonError, TransientError
from connector.inbound.catalog import SpecChanged
from connector.inbound.progress import PollMark
from connector.inbound.proofs import Proofs, comparison_asked
from connector.inbound.reconcile import Reconciled, Reconciler
from connector.inbound.rounds import Backoff, RoundKind, Stopwatch, Tools, is_stale
from connector.inbound.settle import Settler
from connector.ports import Purpose, Unit

log = structlog.get_logger()

# Doubts of one moment are settled together, and a record that is edited all the time is not read all the time.
GATHER_S = 0.2
AGAIN_S = 2.0
LOOK_S = 60.0  # for whole objects that are due
REFUSED_RETRY_S = 300.0
# An object whose deletions are held is not compared again before: it costs calls, and a person is needed anyway.
HELD_RETRY_S = 6 * 3600.0
# Nor one that ended with records in doubt, as a busy object may each time.
UNPROVED_RETRY_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairRules:
    """What of the settings concerns repairs.

    Attributes:
        verify_interval_ms: Every object is compared as a whole this often.
    """

    verify_interval_ms: int


@dataclass(slots=True)
class _Rest:
    """After a failure: not to be tried before (loop time)."""

    backoff: Backoff
    until_s: float = 0.0


class Repairer:
    """One job, and `reconcile` for those who ask."""

    def __init__(
        self, tools: Tools, rules: RepairRules, settler: Settler, reconciler: Reconciler, proofs: Proofs
    ) -> None:
        """Both are used by others as well."""
        self._tools = tools
        self._rules = rules
        self._settler = settler
        self._reconciler = reconciler
        self._proofs = proofs
        self._wake = asyncio.Event()
        self._not_before: dict[str, float] = {}  # object -> loop time of its next comparison
        self._rests: dict[str, _Rest] = {}

    def wake(self) -> None:
        """Records are in doubt, or an object is."""
        self._wake.set()

    async def run(self) -> None:
        """Settle doubts as they come up; does not end.

        Raises:
            LoginRefused, StoreFull, StoreUnusable
        """
        while True:
            self._wake.clear()
            wait_s = await self._pass()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if wait_s is None else wait_s):
                    await self._wake.wait()
                    # What else comes up in this moment goes into the same call.
                    await asyncio.sleep(GATHER_S)

    async def loaded(self) -> Sequence[str]:
        """The objects that can be compared."""
        usable = [name for name in self._tools.catalog.specs if self._tools.catalog.usable(name)]
        return await self._tools.replica.run(
            lambda unit: [name for name in usable if PollMark.stored(unit, name) is not None]
        )

    async def reconcile(
        self, name: str, *, kind: RoundKind = "reconcile", repair: bool = True, allow_deletions: bool = False
    ) -> Reconciled:
        """As `Reconciler.reconcile`; one that proved nothing is not repeated by ourselves at once."""
        outcome = await self._reconciler.reconcile(name, kind=kind, repair=repair, allow_deletions=allow_deletions)
        if not outcome.proved:
            self._not_before[name] = _now_s() + (HELD_RETRY_S if outcome.held else UNPROVED_RETRY_S)
        return outcome

    async def _pass(self) -> float | None:
        """Everything that is due; returns how long to wait, None: until something comes up."""
        waits: list[float] = []
        for name in [n for n in self._tools.catalog.specs if self._tools.catalog.usable(n)]:
            due, loaded = await self._tools.replica.run(partial(self._is_due, name=name))
            if not loaded:
                continue
            # A comparison that must wait for calls does not keep single records waiting, which have a claim to them.
            waits.append(await self._try(f"settle {name}", name, "repair", self._settle_some))
            if due and self._not_before.get(name, 0.0) <= _now_s():
                waits.append(await self._try(f"compare {name}", name, "reconcile", self._reconcile_due))
        return min((w for w in waits if w >= 0), default=None)

    async def _try(
        self, key: str, name: str, kind: RoundKind, work: Callable[[str], Coroutine[Any, Any, float]]
    ) -> float:
        """Do one thing unless it has to rest after a failure; returns how long to wait, negative: not at all."""
        rest = self._rests.setdefault(key, _Rest(Backoff(self._tools.rng, self._tools.backoff_max_s)))
        if rest.until_s > _now_s():
            return rest.until_s - _now_s()
        watch = Stopwatch(self._tools, Purpose.REPAIR)
        try:
            wait_s = await work(name)
        except SpecChanged:
            return 0.0
        except (TransientError, PoisonError) as error:
            log.warning("repair.failed", object=name, kind=kind, error=str(error))
            await watch.report(kind, (name,), error=error)
            if isinstance(error, OrgRefused) and is_stale(error):
                await self._refreshed(name)
            asked_s = error.retry_after_s if isinstance(error, TransientError) else REFUSED_RETRY_S
            wait_s = rest.backoff.next_s(asked_s)
            rest.until_s = _now_s() + wait_s
            return wait_s
        rest.backoff.reset()
        return wait_s

    async def _settle_some(self, name: str) -> float:
        return AGAIN_S if await self._settler.settle(name) else -1.0

    async def _reconcile_due(self, name: str) -> float:
        await self.reconcile(name)
        return -1.0

    async def _refreshed(self, name: str) -> None:
        with contextlib.suppress(TransientError):
            await self._tools.catalog.refresh(name)

    def _is_due(self, unit: Unit, name: str) -> tuple[bool, bool]:
        """Whether the object is to be compared, and whether it is loaded at all."""
        mark = PollMark.stored(unit, name)
        if mark is None:
            return False, False
        # Both by the org's clock.
        age_ms = mark.polled_ms - self._proofs.recall(unit, name, mark, self._tools.now_ms())
        return comparison_asked(unit, name) or age_ms >= self._rules.verify_interval_ms, True


def _now_s() -> float:
    return asyncio.get_running_loop().time()
