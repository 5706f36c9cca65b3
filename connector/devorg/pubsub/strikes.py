"""Faults on order at the points that an RPC passes."""

import asyncio
import dataclasses

from connector.devorg.events.bus import LoggedEvent
from connector.devorg.faults import Fault, Faults
from connector.devorg.pubsub.refusals import INTERNAL, REPLAY_ID_INVALID, Refused

Told = tuple[LoggedEvent, bytes]
"""An event on its way, with its payload."""

LONGEST_STALL_S = 3600


class Ended(Exception):
    """The RPC ends without an error, and without more of an answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Strike:
    """Lets the faults that were ordered happen."""

    faults: Faults

    async def before(self, *kinds: str, path: str = "") -> None:
        """What happens before an RPC, or a request of one, is looked at.

        Raises:
            Refused: It ends with the ordered error.
            Ended: It just ends.
        """
        for kind in kinds:
            fault = self.faults.take(kind, path=path)
            if fault is not None:
                await _apply(fault)

    async def meanwhile(self, kind: str) -> None:
        """As `before`, for a stream that waits: it is no further occasion to a fault that lets some pass."""
        if any(fault.kind == kind and not fault.skip for fault in self.faults.in_force().values()):
            await self.before(kind)

    async def under_way(self, told: list[Told]) -> list[Told]:
        """What happens to events that have left the log.

        Raises:
            Refused, Ended: They are lost with the stream.
        """
        fault = self.faults.take("pubsub:deliver")
        if fault is None:
            return told
        await _apply(fault)
        if fault.drop_response:
            raise Refused(INTERNAL, "The connection was lost.")
        if fault.truncate:
            return [(event, payload[: len(payload) // 2]) for event, payload in told]
        return told * 2 if fault.duplicate else told


async def _apply(fault: Fault) -> None:
    await asyncio.sleep(LONGEST_STALL_S if fault.half_open else fault.delay_s)
    if fault.close:
        raise Ended
    if fault.invalid_replay_id:
        raise Refused(REPLAY_ID_INVALID, "The Replay ID validation failed.")
    if fault.code:
        raise Refused(fault.code, fault.message or "As ordered.")
