"""Holds an object against the org as a whole and puts right what differs; found equal, it is proved so."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from connector.inbound.compare import Found, Progress, compare
from connector.inbound.holes import close_holes
from connector.inbound.progress import reconcile_cursor
from connector.inbound.proofs import Proofs, store_reread, store_verified
from connector.inbound.rounds import RoundKind, Stopwatch, Tools
from connector.inbound.settle import Settler, allowed_deletions, doubt_missed
from connector.model.objects import ObjectSpec
from connector.ports import Hole, Purpose, Unit

log = structlog.get_logger()

# Between two readings of what came into doubt.
SETTLE_AGAIN_S = 0.2
# A reconciliation that ends with records still in doubt reads those this often before it leaves them for later.
MAX_SETTLE_ROUNDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The outcome of comparing one object with the org.

    Attributes:
        compared: Records that the org has.
        drift: Records that differed, missed ones included.
        repaired: Of these, how many were put right.
        held: Missed records that are not deleted because they are too many at once.
        proved: The object is equal to the org now.
    """

    object: str
    compared: int
    drift: int
    repaired: int
    held: int
    proved: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """Why an object is compared: what may be taken as answered afterwards."""

    name: str
    mark: str | None
    holes: Sequence[Hole]

    @classmethod
    def of(cls, unit: Unit, name: str) -> "_Asked":
        return cls(name, unit.cursor(reconcile_cursor(name)), unit.open_holes(name))


class Reconciler:
    """Compares one object at a time."""

    def __init__(self, tools: Tools, settler: Settler, proofs: Proofs, progress: Progress) -> None:
        """`progress` gets object, rows compared and in total."""
        self._tools = tools
        self._settler = settler
        self._proofs = proofs
        self._progress = progress
        self._one_at_a_time = asyncio.Lock()

    async def reconcile(
        self, name: str, *, kind: RoundKind = "reconcile", repair: bool = True, allow_deletions: bool = False
    ) -> Reconciled:
        """Compare an object with the org as a whole; found equal, it is proved so and its holes are closed.

        One API call per 2,000 records, and with `repair` one per 2,000 records that are missed.

        Args:
            name: The object.
            kind: Of the round that is told.
            repair: Put right what differs; else nothing is written but that it was found equal.
            allow_deletions: A person says that the missed records are gone, however many.

        Raises:
            TransientError, LoginRefused, OrgRefused: As the org's client.
        """
        async with self._one_at_a_time:
            await self._tools.catalog.refresh(name)
            spec = self._tools.catalog.specs[name]
            watch = Stopwatch(self._tools, Purpose.VERIFY)
            asked = await self._tools.replica.run(lambda unit: _Asked.of(unit, name))
            found = await compare(self._tools, spec, take_over=repair, progress=self._progress)
            drift = found.differing + len(found.missed)
            held = await (self._mend(spec, found, allow=allow_deletions) if repair else self._too_many_of(spec, found))
            repaired = drift - held if repair else 0
            self._proofs.compared(name, held=held, unrepaired=drift - held - repaired)
            ended = partial(self._ended, asked=asked, found=found, equal=repaired == drift, reread=repair)
            proved = await self._tools.replica.run(ended)
            if proved:
                self._proofs.verified_ms[name] = found.server_ms
            if repair:
                self._proofs.reread_ms[name] = found.server_ms
            log.info("repair.object_reconciled", object=name, records=found.compared, drift=drift, repaired=repaired)
            await watch.report(kind, (name,), repaired)
            return Reconciled(
                object=name, compared=found.compared, drift=drift, repaired=repaired, held=held, proved=proved
            )

    async def _mend(self, spec: ObjectSpec, found: Found, *, allow: bool) -> int:
        """Delete what is missed, and settle what came into doubt; returns how many deletions are held."""
        now_ms = self._tools.now_ms()
        held = await self._tools.replica.run(lambda unit: doubt_missed(unit, spec, found.missed, now_ms, allow=allow))
        self._proofs.compared(spec.name, held=held, unrepaired=0)
        for _ in range(MAX_SETTLE_ROUNDS):
            if not await self._settler.settle(spec.name, allow_deletions=allow):
                break
            await asyncio.sleep(SETTLE_AGAIN_S)
        return self._proofs.held.get(spec.name, 0)

    async def _too_many_of(self, spec: ObjectSpec, found: Found) -> int:
        """How many deletions a repair would hold."""
        missed = len(found.missed)
        return missed if missed > await self._tools.replica.run(lambda unit: allowed_deletions(unit, spec)) else 0

    def _ended(self, unit: Unit, asked: _Asked, found: Found, *, equal: bool, reread: bool) -> bool:
        """Keep what the comparison proved; True if the object is equal to the org now."""
        now_ms, name = self._tools.now_ms(), asked.name
        if reread:
            store_reread(unit, name, found.server_ms, now_ms)
        if not equal or unit.dirty(name, 1):
            return False
        if unit.cursor(reconcile_cursor(name)) == asked.mark:
            unit.set_cursor(reconcile_cursor(name), None, now_ms)
            close_holes(unit, asked.holes, found.server_ms, now_ms, self._tools.hole_messages)
        store_verified(unit, name, found.server_ms, now_ms)
        return True
