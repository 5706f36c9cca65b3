"""What must be published again to a broker that forgot what it retained: open holes, and records if they are kept."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from connector.model.ids import RecordId
from connector.model.message import Message
from connector.model.objects import ObjectSpec
from connector.ports import Hole, Replica, Unit

PAGE = 500


class Codec(Protocol):
    """Retained nouns as messages."""

    def hole(self, hole: Hole) -> Sequence[Message]:
        """A hole."""
        ...

    def record(self, object_name: str, record_id: RecordId, record: Mapping[str, Any] | None) -> Message:
        """A record as it stands now."""
        ...


class RetainedMessages:
    """Reads them from the replica, page by page, each page when it is asked for."""

    def __init__(
        self, replica: Replica, codec: Codec, specs: Callable[[], Collection[ObjectSpec]], *, retain_records: bool
    ) -> None:
        """`specs` answers the synced objects."""
        self._replica = replica
        self._codec = codec
        self._specs = specs
        self._retain_records = retain_records

    async def pages(self) -> AsyncIterator[Sequence[Message]]:
        """Every retained message of the replica's; a page may be empty."""
        holes = await self._replica.run(lambda unit: unit.open_holes())
        yield [message for hole in holes for message in self._codec.hole(hole)]
        if not self._retain_records:
            return
        for spec in self._specs():
            after: RecordId | None = None
            while True:
                ids, page = await self._replica.run(partial(self._page, spec, after))
                if not ids:
                    break
                yield page
                after = ids[-1]

    def _page(
        self, spec: ObjectSpec, after: RecordId | None, unit: Unit
    ) -> tuple[Sequence[RecordId], Sequence[Message]]:
        ids = unit.live_ids(spec, after, None, PAGE)
        rows = unit.records(spec, ids)
        return ids, [self._codec.record(spec.name, i, rows[i].values) for i in ids if i in rows]
